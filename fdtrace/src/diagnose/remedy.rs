//! What to do about a low limit: now, and for good.

use super::{
    Bite, LimitFacts,
    words::{at, name, quoted},
};
use crate::model::{
    Ancestor, ContainerRuntime, FileFact, Manager, Place, Program, Provenance, Remedy, Role,
    Runtime, Setting, SettingSource, Unit, When,
};

/// Enough for a server where nothing says how many it needs.
const ENOUGH: u64 = 65_536;

/// The limit to ask for: `wanted` where a setting says so, else generous.
pub(super) fn target(provenance: &Provenance, bite: Bite, wanted: Option<u64>) -> u64 {
    let generous = if bite.soft < ENOUGH / 2 { ENOUGH } else { bite.soft.saturating_mul(4) };
    let most = provenance.system.nr_open.value.unwrap_or(u64::MAX);
    wanted.unwrap_or(generous).min(most)
}

/// Without a restart.
pub(super) fn now(facts: &LimitFacts<'_>, bite: Bite, wanted: Option<u64>) -> Vec<Remedy> {
    let provenance = facts.provenance;
    let Some(own) = provenance.chain.first() else { return Vec::new() };
    let target = target(provenance, bite, wanted);
    let mut remedies = Vec::new();
    let note = caches(&provenance.runtime);
    if bite.soft < bite.hard {
        // A hard limit of millions is no reason to take all of it.
        let soft = if bite.hard <= ENOUGH { bite.hard } else { bite.hard.min(target) };
        let most = super::limit(bite.hard);
        remedies.push(remedy(
            When::Now,
            format!("raise its soft limit to {soft}, no restart; its hard limit is {most}{note}"),
            Some(format!("prlimit --pid {} --nofile={soft}:", own.id.pid)),
        ));
    }
    if bite.hard < target {
        let hard = format!(
            "raise both its limits to {target}, no restart; above its hard limit that needs \
             CAP_SYS_RESOURCE in the initial user namespace{note}"
        );
        let command = format!("prlimit --pid {} --nofile={target}:{target}", own.id.pid);
        remedies.push(remedy(When::Now, hard, Some(command)));
    }
    let supervisor = provenance.chain.iter().skip(1).find(|one| one.role.restarts_children());
    if let Some(supervisor) = supervisor
        && supervisor.limits.is_some_and(|limits| super::number(limits.soft) < target)
    {
        remedies.push(remedy(
            When::Now,
            format!(
                "raise the limits of {} too: then a restart of the program alone gives it the \
                 higher limit",
                name(supervisor)
            ),
            Some(format!("prlimit --pid {} --nofile={target}:{target}", supervisor.id.pid)),
        ));
    }
    remedies
}

/// For good, in the place that governs: the nearest setting that can give the process more.
pub(super) fn for_good(
    facts: &LimitFacts<'_>,
    bite: Bite,
    holder: usize,
    wanted: Option<u64>,
) -> Vec<Remedy> {
    let provenance = facts.provenance;
    let target = target(provenance, bite, wanted);
    let mut remedies = Vec::new();
    let ceiling = provenance.system.nr_open.value.unwrap_or(u64::MAX);
    if wanted.is_some_and(|wanted| wanted > ceiling) {
        remedies.push(remedy(
            When::ForGood,
            format!("no limit can be above fs.nr_open, which is {ceiling}: raise that first"),
            None,
        ));
    }
    for (at, process) in provenance.chain.iter().enumerate() {
        // Above the holder, a setting is no use to the process: it would not inherit it.
        let settings = process.settings.iter().filter(|_| at <= holder);
        for setting in settings {
            let own = &provenance.chain[0];
            let found = match &setting.source {
                SettingSource::Own { program } => {
                    of_program(provenance, setting, *program, target, bite)
                }
                _ => of_setting(process, own, setting, target, bite),
            };
            if let Some(found) = found {
                remedies.push(found);
                return remedies;
            }
        }
    }
    let holder = provenance.chain.get(holder);
    remedies.extend(holder.map(|holder| by_hand(holder, target)));
    remedies
}

fn of_setting(
    process: &Ancestor,
    own: &Ancestor,
    setting: &Setting,
    target: u64,
    bite: Bite,
) -> Option<Remedy> {
    match &setting.source {
        SettingSource::Own { .. } => None,
        SettingSource::Minfds { program } => {
            // It gives up its privileges first, and does not start where minfds is above what it
            // may have (supervisor/supervisord.py main).
            let hard = process.limits.map(|limits| super::number(limits.hard));
            let most = hard.filter(|_| process.may_raise_hard == Some(false));
            let target = target.min(most.unwrap_or(u64::MAX));
            let helps = target > bite.soft;
            helps.then(|| minfds(process, own, setting, program.as_deref(), target))
        }
        SettingSource::RunScript => Some(run_script(process, setting, target)),
        SettingSource::Login { user } => Some(login(process, setting, user, target)),
        SettingSource::Container { runtime, id }
        | SettingSource::ContainerDefault { runtime, id } => Some(container(*runtime, id, target)),
        SettingSource::Unit(unit) | SettingSource::UnitDefault(unit) => {
            Some(of_unit(process, unit, setting, target, bite))
        }
    }
}

fn of_program(
    provenance: &Provenance,
    setting: &Setting,
    program: Program,
    target: u64,
    bite: Bite,
) -> Option<Remedy> {
    let own = provenance.chain.first()?;
    // A worker of nginx sets its limit with the privileges that its master still has.
    let master = provenance.chain.get(1).filter(|parent| parent.comm == own.comm).unwrap_or(own);
    let most =
        master.limits.filter(|_| program == Program::Nginx && master.may_raise_hard == Some(false));
    let target = target.min(most.map_or(u64::MAX, |limits| super::number(limits.hard)));
    if target <= bite.soft {
        return None;
    }
    let directive = program.directive();
    let reload = format!("kill -HUP {}", master.id.pid);
    let (value, then) = match program {
        Program::Nginx => {
            (format!("{directive} {target};"), format!("then reload nginx, no restart: {reload}"))
        }
        Program::Redis => (
            format!("{directive} {}", target.saturating_sub(32)),
            "then restart it; it needs 32 descriptors beside those of its clients".into(),
        ),
        Program::Haproxy => (format!("{directive} {target}"), "then restart HAProxy".into()),
        Program::Mysql => (format!("{directive}={target}"), "then restart the server".into()),
    };
    let file = match &setting.place {
        Place::File(file) | Place::BuiltIn(Some(file)) => file,
        Place::CommandLine | Place::BuiltIn(None) => {
            let place = match setting.place {
                Place::CommandLine => "on its command line",
                _ => "in its configuration",
            };
            let text = format!("set \"{value}\" {place}, {then}");
            return Some(remedy(When::ForGood, text, None));
        }
    };
    let is_there = matches!(setting.place, Place::File(_));
    let text = format!("write \"{value}\" to {}, {then}", at(file));
    let edit = match (is_there, program) {
        (true, _) => replace(file, &value),
        // The first line is outside of all blocks.
        (false, Program::Nginx) => {
            Some(format!("sed -i {} {}", quoted(&format!("1i {value}")), path(file)))
        }
        (false, _) => None,
    };
    let command = edit.map(|edit| match program {
        Program::Nginx => format!("{edit} && {reload}"),
        _ => edit,
    });
    Some(remedy(When::ForGood, text, command.filter(|_| own.container.is_none())))
}

fn minfds(
    process: &Ancestor,
    own: &Ancestor,
    setting: &Setting,
    program: Option<&str>,
    target: u64,
) -> Remedy {
    let name = name(process);
    let child = program.map_or_else(|| super::words::name(own), str::to_owned);
    let restart = format!(
        "then restart {name} itself, and {child} with it: it sets limits only when it starts, and \
         neither \"supervisorctl reload\" nor \"update\" does"
    );
    let value = format!("minfds={target}");
    let service = process.unit.as_ref().filter(|unit| unit.is_service());
    let (text, edit) = match &setting.place {
        Place::File(file) => {
            (format!("write {value} to {}, {restart}", at(file)), replace(file, &value))
        }
        Place::BuiltIn(Some(file)) => {
            let text = format!(
                "write {value} to {}, section [supervisord], {restart}",
                file.path.display()
            );
            let edit = file.line.map(|line| {
                format!("sed -i {} {}", quoted(&format!("{line}a {value}")), path(file))
            });
            (text, edit)
        }
        Place::CommandLine | Place::BuiltIn(None) => {
            (format!("start supervisord with --minfds={target}, {restart}"), None)
        }
    };
    let command = edit.map(|edit| match service {
        Some(unit) => format!("{edit} && {}", restart_of(unit)),
        None => edit,
    });
    remedy(When::ForGood, text, command.filter(|_| process.container.is_none()))
}

fn run_script(process: &Ancestor, setting: &Setting, target: u64) -> Remedy {
    let (Place::File(file) | Place::BuiltIn(Some(file))) = &setting.place else {
        return by_hand(process, target);
    };
    let text = format!(
        "put \"ulimit -n {target}\" before the last line of {}, then restart {}",
        at(file),
        name(process)
    );
    remedy(When::ForGood, text, None)
}

fn login(process: &Ancestor, setting: &Setting, user: &str, target: u64) -> Remedy {
    let file = match &setting.place {
        Place::File(file) => at(file),
        _ => "/etc/security/limits.conf".into(),
    };
    let text = format!(
        "set \"{user} - nofile {target}\" in {file}, then log in again and start {} from there",
        name(process)
    );
    let path = "/etc/security/limits.d/zz-nofile.conf";
    let line = quoted(&format!("{user} - nofile {target}"));
    remedy(When::ForGood, text, Some(format!("echo {line} >> {path}")))
}

fn container(runtime: ContainerRuntime, id: &str, target: u64) -> Remedy {
    let short = id.get(..12).unwrap_or(id);
    let text = match runtime {
        ContainerRuntime::Docker => format!(
            "create the container {short} anew with --ulimit nofile={target}:{target} (ulimits in \
             a compose file), or set \"default-ulimits\" in /etc/docker/daemon.json, restart \
             Docker, and create it anew"
        ),
        ContainerRuntime::Podman => format!(
            "create the container {short} anew with --ulimit nofile={target}:{target}, or set \
             default_ulimits in /etc/containers/containers.conf"
        ),
        ContainerRuntime::Crio => format!(
            "set default_ulimits = [\"nofile={target}:{target}\"] in /etc/crio/crio.conf, restart \
             crio, and delete the pod so that it is created anew"
        ),
        ContainerRuntime::Kubernetes | ContainerRuntime::Containerd => format!(
            "set LimitNOFILE={target} for containerd.service (systemctl edit containerd), restart \
             it, and have the container {short} created anew: containers inherit its limit"
        ),
    };
    remedy(When::ForGood, text, None)
}

fn of_unit(process: &Ancestor, unit: &Unit, setting: &Setting, target: u64, bite: Bite) -> Remedy {
    // A hard limit that is higher stays.
    let hard = bite.hard.max(target);
    let value = if hard == target {
        format!("LimitNOFILE={target}")
    } else {
        format!(
            "LimitNOFILE={target}:{}",
            if hard == u64::MAX { "infinity".into() } else { hard.to_string() }
        )
    };
    let shim = process.role == Role::ContainerdShim;
    let then = if shim {
        "and create the container anew: its shim keeps the limit it was started with"
    } else {
        "which restarts this process"
    };
    let restart = restart_of(unit);
    let edit = match (&setting.source, &setting.place) {
        // What an administrator wrote is changed where it is; what a package installed is not.
        (SettingSource::Unit(_), Place::File(file)) if file.path.starts_with("/etc") => {
            let text = format!("write {value} to {}, then {restart}, {then}", at(file));
            let command = replace(file, &value).map(|edit| format!("{edit} && {restart}"));
            return remedy(When::ForGood, text, command);
        }
        (SettingSource::Unit(_), Place::File(file)) => file.path.file_name(),
        _ => None,
    };
    // Drop-ins are read in the order of their names.
    let governing = edit.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let is_drop_in = std::path::Path::new(&governing).extension().is_some_and(|e| e == "conf");
    let names = ["nofile.conf", "zz-nofile.conf", "zzzz-nofile.conf"];
    let drop_in =
        names.into_iter().find(|name| !is_drop_in || **name > *governing).unwrap_or(names[2]);
    let base = match unit.manager {
        Manager::System => "/etc/systemd/system",
        Manager::User(_) => "/etc/systemd/user",
    };
    let dir = format!("{base}/{}.d", unit.name);
    let text = format!(
        "set {value} for {} (systemctl edit {}), then {restart}, {then}",
        unit.name, unit.name
    );
    let dir = quoted(&dir);
    let command =
        format!("mkdir -p {dir} && printf '[Service]\\n{value}\\n' > {dir}/{drop_in} && {restart}");
    remedy(When::ForGood, text, Some(command))
}

/// How a unit is loaded and started again.
pub(super) fn restart_of(unit: &Unit) -> String {
    let user = match unit.manager {
        Manager::System => "",
        Manager::User(_) => "--user ",
    };
    format!("systemctl {user}daemon-reload && systemctl {user}restart {}", quoted(&unit.name))
}

/// Where no setting was found: whoever starts it must.
fn by_hand(holder: &Ancestor, target: u64) -> Remedy {
    let who = name(holder);
    let text = match holder.role {
        Role::Shell | Role::Multiplexer => {
            format!(
                "run \"ulimit -n {target}\" in the shell or script before it starts the program"
            )
        }
        Role::Pm2 => {
            format!("stop {who} with \"pm2 kill\" and start it again after \"ulimit -n {target}\"")
        }
        Role::Supervisord if holder.may_raise_hard != Some(false) => {
            format!("set minfds={target} in the configuration of {who}, then restart {who} itself")
        }
        _ => format!(
            "give {who} a limit of {target} where it is started: no setting that governs it was found"
        ),
    };
    remedy(When::ForGood, text, None)
}

/// What a program does with a limit that was raised under it.
fn caches(runtime: &Runtime) -> &'static str {
    match runtime {
        Runtime::Program(Program::Nginx) => {
            ". nginx also stops at worker_connections, and each proxied client takes two descriptors"
        }
        Runtime::Program(Program::Redis) => {
            ". Redis keeps to maxclients: raise that too, with CONFIG SET maxclients"
        }
        Runtime::Program(Program::Haproxy) => {
            ". HAProxy has sized its tables when it started: it needs a restart to use more"
        }
        Runtime::Program(Program::Mysql) => {
            ". The server has read its limit when it started: it needs a restart to use more"
        }
        Runtime::Java { .. } => {
            ". The Java VM has read its hard limit when it started: above that it may need a restart"
        }
        Runtime::Python => ". Code that uses select() stops at descriptor 1023 whatever the limit",
        _ => "",
    }
}

/// Replaces a line of a file.
pub(super) fn replace(file: &FileFact, by: &str) -> Option<String> {
    let script = format!("{}s|.*|{by}|", file.line?);
    Some(format!("sed -i {} {}", quoted(&script), path(file)))
}

fn path(file: &FileFact) -> String {
    quoted(&file.path.to_string_lossy())
}

pub(super) fn remedy(when: When, text: String, command: Option<String>) -> Remedy {
    Remedy { when, text, command }
}

/// Sets a sysctl now, and for good.
pub(super) fn sysctl(
    key: &str,
    target: u64,
    configured: Option<&crate::model::ConfiguredSysctl>,
) -> Vec<Remedy> {
    let now = remedy(
        When::Now,
        format!("raise {key} to {target}, no restart"),
        Some(format!("sysctl -w {key}={target}")),
    );
    let value = format!("{key} = {target}");
    let keep = match configured {
        Some(configured) => remedy(
            When::ForGood,
            format!("write \"{value}\" to {}", at(&configured.file)),
            replace(&configured.file, &value),
        ),
        None => {
            let path = "/etc/sysctl.d/90-file-limits.conf";
            let command = format!("echo {} >> {path}", quoted(&value));
            remedy(When::ForGood, format!("write \"{value}\" to {path}"), Some(command))
        }
    };
    vec![now, keep]
}
