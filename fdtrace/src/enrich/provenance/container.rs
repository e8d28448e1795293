//! What a container was created with, and what its runtime gives to containers created with
//! nothing.

use std::path::{Path, PathBuf};

use serde_json::Value;
use toml::de::{DeTable, DeValue};

use super::root::{Root, Text};
use crate::model::{ContainerRuntime, Limit, Place, Setting, SettingSource};

/// Namespaces of containerd that are looked into.
const MOST_NAMESPACES: usize = 16;

/// The settings of a container by its id, the one that is applied last first. Empty where it got
/// none: then its limit is inherited from the runtime's own processes.
pub(super) fn settings(root: &Root, id: &str, unknown: &mut Vec<String>) -> Vec<Setting> {
    let Some((runtime, bundle)) = bundle(root, id, unknown) else {
        unknown.push(format!("found no configuration of container {id}"));
        return Vec::new();
    };
    let own = |soft, hard, text: &Text| Setting {
        source: SettingSource::Container { runtime, id: id.to_owned() },
        soft: Some(soft),
        hard: Some(hard),
        place: Place::File(text.fact.clone()),
    };
    let default = default_of(root, runtime, id, unknown);
    let bundle_limit = json(&bundle, unknown).and_then(|json| of_bundle(&json));
    // What a person wrote, where Docker keeps it; the bundle has what came of that.
    let host = Path::new("/var/lib/docker/containers").join(id).join("hostconfig.json");
    let host = match runtime {
        ContainerRuntime::Docker => read(root, &host, unknown),
        _ => None,
    };
    let host = host.and_then(|text| {
        let (soft, hard) = of_host_config(&json(&text, unknown)?)?;
        Some(own(soft, hard, &text))
    });
    match (host, bundle_limit, default) {
        (Some(host), ..) => vec![host],
        // A bundle cannot tell which of the two it has its limit from.
        (None, Some((soft, hard)), Some(default))
            if (default.soft, default.hard) == (Some(soft), Some(hard)) =>
        {
            vec![default]
        }
        (None, Some((soft, hard)), default) => {
            let mut settings = vec![own(soft, hard, &bundle)];
            settings.extend(default);
            settings
        }
        (None, None, default) => default.into_iter().collect(),
    }
}

/// The OCI configuration that the container was started with.
fn bundle(root: &Root, id: &str, unknown: &mut Vec<String>) -> Option<(ContainerRuntime, Text)> {
    let tasks = Path::new("/run/containerd/io.containerd.runtime.v2.task");
    let namespaces = root.list(tasks).unwrap_or_else(|error| {
        unknown.push(error);
        Vec::new()
    });
    for namespace in namespaces.iter().take(MOST_NAMESPACES) {
        let path = tasks.join(namespace).join(id).join("config.json");
        if let Some(text) = read(root, &path, unknown) {
            let runtime = match namespace.to_str() {
                Some("moby") => ContainerRuntime::Docker,
                Some("k8s.io") => ContainerRuntime::Kubernetes,
                _ => ContainerRuntime::Containerd,
            };
            return Some((runtime, text));
        }
    }
    let storage = ["/run/containers/storage", "/var/lib/containers/storage"];
    for storage in storage {
        let dir = Path::new(storage).join("overlay-containers").join(id).join("userdata");
        if let Some(text) = read(root, &dir.join("config.json"), unknown) {
            let is_crio = text.text.contains("\"io.kubernetes.cri-o.");
            let runtime = if is_crio { ContainerRuntime::Crio } else { ContainerRuntime::Podman };
            return Some((runtime, text));
        }
    }
    None
}

fn default_of(
    root: &Root,
    runtime: ContainerRuntime,
    id: &str,
    unknown: &mut Vec<String>,
) -> Option<Setting> {
    let setting = |soft, hard, place| Setting {
        source: SettingSource::ContainerDefault { runtime, id: id.to_owned() },
        soft: Some(soft),
        hard: Some(hard),
        place,
    };
    match runtime {
        ContainerRuntime::Docker => {
            let text = read(root, Path::new("/etc/docker/daemon.json"), unknown)?;
            let ulimits = json(&text, unknown)?;
            let nofile = ulimits.get("default-ulimits")?.get("nofile")?;
            let (soft, hard) = pair(nofile, "Soft", "Hard")?;
            let line = text.text.lines().position(|line| line.contains("\"nofile\""));
            let file = line.map_or_else(|| text.fact.clone(), |line| text.at(line));
            Some(setting(soft, hard, Place::File(file)))
        }
        ContainerRuntime::Crio => {
            let files = with_drop_ins(root, "/etc/crio/crio.conf", unknown);
            let path = ["crio", "runtime", "default_ulimits"];
            default_ulimits(&files, &path, unknown)
                .map(|(soft, hard, place)| setting(soft, hard, place))
        }
        ContainerRuntime::Podman => {
            let mut files = Vec::new();
            for path in ["/usr/share/containers/containers.conf", "/etc/containers/containers.conf"]
            {
                files.extend(with_drop_ins(root, path, unknown));
            }
            default_ulimits(&files, &["containers", "default_ulimits"], unknown)
                .map(|(soft, hard, place)| setting(soft, hard, place))
        }
        // containerd has no such setting: its own limit is the default.
        ContainerRuntime::Kubernetes | ContainerRuntime::Containerd => None,
    }
}

/// A file, then `FILE.d/*.conf` in the order of their names.
fn with_drop_ins(root: &Root, path: &str, unknown: &mut Vec<String>) -> Vec<Text> {
    let dir = PathBuf::from(format!("{path}.d"));
    let mut files: Vec<Text> = read(root, Path::new(path), unknown).into_iter().collect();
    for name in root.list(&dir).unwrap_or_default() {
        if Path::new(&name).extension().is_some_and(|extension| extension == "conf") {
            files.extend(read(root, &dir.join(name), unknown));
        }
    }
    files
}

/// The last of `["nofile=SOFT:HARD", …]` at a path of TOML tables.
fn default_ulimits(
    files: &[Text],
    path: &[&str],
    unknown: &mut Vec<String>,
) -> Option<(Limit, Limit, Place)> {
    let mut found = None;
    for text in files {
        let table = match DeTable::parse(&text.text) {
            Ok(table) => table.into_inner(),
            Err(error) => {
                let path = text.fact.path.display();
                unknown.push(format!("could not read {path}: {}", error.message()));
                continue;
            }
        };
        let mut value = DeValue::Table(table);
        let mut offset = 0;
        let is_there = path.iter().all(|key| {
            let DeValue::Table(table) = &value else { return false };
            let Some(inner) = table.get(*key) else { return false };
            offset = inner.span().start;
            value = inner.get_ref().clone();
            true
        });
        let DeValue::Array(array) = &value else { continue };
        if !is_there {
            continue;
        }
        let line = text.text[..offset].matches('\n').count();
        for limit in array.iter().filter_map(|value| value.get_ref().as_str()) {
            if let Some(limit) = limit.strip_prefix("nofile=")
                && let Some((soft, hard)) = of_flag(limit)
            {
                found = Some((soft, hard, Place::File(text.at(line))));
            }
        }
    }
    found
}

/// `SOFT:HARD` or one number for both; -1 is unlimited.
fn of_flag(text: &str) -> Option<(Limit, Limit)> {
    let one = |text: &str| number(text.trim().parse().ok()?);
    let (soft, hard) = text.split_once(':').unwrap_or((text, text));
    Some((one(soft)?, one(hard)?))
}

/// `process.rlimits` of the OCI runtime specification.
fn of_bundle(json: &Value) -> Option<(Limit, Limit)> {
    let limits = json.get("process")?.get("rlimits")?.as_array()?;
    let is_nofile =
        |limit: &&Value| limit.get("type").and_then(Value::as_str) == Some("RLIMIT_NOFILE");
    pair(limits.iter().find(is_nofile)?, "soft", "hard")
}

/// `Ulimits` of Docker's hostconfig.json.
fn of_host_config(json: &Value) -> Option<(Limit, Limit)> {
    let limits = json.get("Ulimits")?.as_array()?;
    let is_nofile = |limit: &&Value| limit.get("Name").and_then(Value::as_str) == Some("nofile");
    pair(limits.iter().find(is_nofile)?, "Soft", "Hard")
}

fn pair(json: &Value, soft: &str, hard: &str) -> Option<(Limit, Limit)> {
    let one = |key: &str| {
        let value = json.get(key)?;
        value.as_u64().map(Limit::from_rlim).or_else(|| number(value.as_i64()?))
    };
    Some((one(soft)?, one(hard)?))
}

fn number(value: i64) -> Option<Limit> {
    if value == -1 { Some(Limit::Unlimited) } else { u64::try_from(value).ok().map(Limit::Of) }
}

fn json(text: &Text, unknown: &mut Vec<String>) -> Option<Value> {
    serde_json::from_str(&text.text)
        .inspect_err(|error| {
            unknown.push(format!("could not read {}: {error}", text.fact.path.display()));
        })
        .ok()
}

fn read(root: &Root, path: &Path, unknown: &mut Vec<String>) -> Option<Text> {
    root.read(path).unwrap_or_else(|error| {
        unknown.push(error);
        None
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const ID: &str = "4f1c0d6f2f5a4e7c9b8a7d6e5f4c3b2a1908f7e6d5c4b3a29180706050403020";
    const BUNDLE: &str = r#"{"ociVersion":"1.0.2","process":{"rlimits":[
        {"type":"RLIMIT_CORE","hard":1,"soft":1},
        {"type":"RLIMIT_NOFILE","hard":2000,"soft":1000}]}}"#;
    const EMPTY: &str = r#"{"process":{"args":["x"]}}"#;

    /// `RUNTIME own|default SOFT:HARD FILE:LINE` of each setting, and whether all was read.
    fn found(files: &[(&str, &str)]) -> (Vec<String>, bool) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path.replace("ID", ID));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let root = Root::open(dir.path()).unwrap();
        let mut unknown = Vec::new();
        let found = settings(&root, ID, &mut unknown);
        let found = found.iter().map(|setting| {
            let (runtime, whose) = match &setting.source {
                SettingSource::Container { runtime, .. } => (runtime, "own"),
                SettingSource::ContainerDefault { runtime, .. } => (runtime, "default"),
                _ => panic!(),
            };
            let Place::File(file) = &setting.place else { panic!() };
            let name = file.path.file_name().unwrap().to_str().unwrap();
            let line = file.line.map_or(String::new(), |line| format!(":{line}"));
            let (soft, hard) = (setting.soft.unwrap(), setting.hard.unwrap());
            format!("{runtime:?} {whose} {soft}:{hard} {name}{line}")
        });
        (found.collect(), unknown.is_empty())
    }

    const MOBY: &str = "run/containerd/io.containerd.runtime.v2.task/moby/ID/config.json";
    const HOST: &str = "var/lib/docker/containers/ID/hostconfig.json";
    const DAEMON: &str = "etc/docker/daemon.json";

    #[test]
    fn docker() {
        let host = r#"{"Ulimits":[{"Name":"nofile","Hard":2000,"Soft":1000}]}"#;
        let (own, _) = found(&[(MOBY, BUNDLE), (HOST, host)]);
        assert_eq!(own, ["Docker own 1000:2000 hostconfig.json"]);
        let daemon = "{\n\"default-ulimits\": {\n \"nofile\": {\"Name\":\"nofile\",\"Hard\":2000,\"Soft\":1000}}}";
        let none = r#"{"Ulimits":null}"#;
        let (default, _) = found(&[(MOBY, BUNDLE), (HOST, none), (DAEMON, daemon)]);
        assert_eq!(default, ["Docker default 1000:2000 daemon.json:3"]);
        // The default was changed since.
        let higher = daemon.replace("2000", "9000");
        let (both, _) = found(&[(MOBY, BUNDLE), (HOST, none), (DAEMON, &higher)]);
        let expected =
            ["Docker own 1000:2000 config.json", "Docker default 1000:9000 daemon.json:3"];
        assert_eq!(both, expected);
        assert_eq!(found(&[(MOBY, EMPTY), (HOST, none)]), (vec![], true));
        assert_eq!(found(&[(MOBY, "{"), (HOST, none)]), (vec![], false));
        let unlimited = daemon.replace("2000", "-1");
        let (default, _) = found(&[(MOBY, EMPTY), (DAEMON, &unlimited)]);
        assert_eq!(default, ["Docker default 1000:unlimited daemon.json:3"]);
    }

    #[test]
    fn others() {
        let k8s = MOBY.replace("moby", "k8s.io");
        assert_eq!(found(&[(&k8s, BUNDLE)]).0, ["Kubernetes own 1000:2000 config.json"]);
        let default = MOBY.replace("moby", "default");
        assert_eq!(found(&[(&default, BUNDLE)]).0, ["Containerd own 1000:2000 config.json"]);
        assert_eq!(found(&[]), (vec![], false));

        let podman = "var/lib/containers/storage/overlay-containers/ID/userdata/config.json";
        let conf = "[containers]\ndefault_ulimits = [\n  \"nofile=1000:2000\",\n]\n";
        let own_conf = "etc/containers/containers.conf";
        let (own, _) = found(&[(podman, BUNDLE)]);
        assert_eq!(own, ["Podman own 1000:2000 config.json"]);
        let (default, _) = found(&[(podman, BUNDLE), (own_conf, conf)]);
        assert_eq!(default, ["Podman default 1000:2000 containers.conf:2"]);

        let crio = "run/containers/storage/overlay-containers/ID/userdata/config.json";
        let of_crio = r#"{"annotations":{"io.kubernetes.cri-o.Name":"x"}}"#;
        let conf = "[crio.runtime]\ndefault_ulimits = [\"nofile=7\"]\n";
        let drop_in = "etc/crio/crio.conf.d/10-x.conf";
        let (default, _) =
            found(&[(crio, of_crio), ("etc/crio/crio.conf", "[crio"), (drop_in, conf)]);
        assert_eq!(default, ["Crio default 7:7 10-x.conf:2"]);
    }
}
