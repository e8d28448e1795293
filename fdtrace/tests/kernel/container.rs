//! The container that deploy/kubernetes/fdtrace.yaml describes, made by an OCI runtime: its
//! capabilities, its read-only file system and volumes, the host's processes, and a network and a
//! cgroup namespace of its own.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    net::TcpStream,
    os::unix::{fs::symlink, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns},
    sys::{prctl::set_pdeathsig, signal::Signal, statfs::CGROUP2_SUPER_MAGIC},
};
use serde::Deserialize as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    Test,
    doors::is_own_system,
    faults::{Cgroup, cgroup2},
    privileges::with_tracefs,
    support::{binary, eventually, same},
    workload::Workload,
};

pub(crate) const TESTS: &[Test] = &[("in_the_container_of_the_manifest", in_the_container)];

const MANIFEST: &str = include_str!("../../../deploy/kubernetes/fdtrace.yaml");
/// Debian's, where they are.
const RUNTIMES: [&str; 4] = ["/usr/bin/crun", "/bin/crun", "/usr/sbin/runc", "/bin/runc"];
/// What containerd hides and makes read-only of /proc and /sys (oci/spec.go, `populateDefaultUnixSpec`).
const HIDDEN: [&str; 8] = [
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
];
const READ_ONLY: [&str; 6] =
    ["/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn in_the_container() {
    let there = |runtime: &&&str| Path::new(runtime).exists();
    // /bin may be /usr/bin.
    let mut runtimes: Vec<_> =
        RUNTIMES.iter().filter(there).map(|path| fs::canonicalize(path).unwrap()).collect();
    runtimes.dedup();
    if runtimes.is_empty() {
        println!("  skipped: there is neither crun nor runc; cargo xtask setup installs them");
    }
    for runtime in runtimes {
        println!("  {}", runtime.display());
        counts_what_fails_outside(&runtime);
    }
}

fn counts_what_fails_outside(runtime: &Path) {
    let cgroup = Cgroup::make();
    let mut workload = Workload::start("failures=67 comm=outside");
    let pid = workload.pid();
    cgroup.take(pid);
    let container = Container::start(runtime);
    assert_eq!(container.get("/healthz").trim(), "ok");

    assert_eq!(workload.fail(), 67);
    let unit = format!("unit=\"{}\"", cgroup.unit);
    let labels = ["process=\"outside\"", &unit, "failure=\"EMFILE\"", &Cgroup::CONTAINER[..12]];
    let count = || {
        let text = container.get("/metrics");
        let ours = text.lines().filter(|line| {
            line.starts_with("fdtrace_failures_total{")
                && labels.iter().all(|label| line.contains(label))
        });
        ours.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum::<u64>()
    };
    eventually("all are counted", || count() == 67);

    let said = container.stop();
    let summary = said.iter().find(|report| report["kind"] == "summary").unwrap();
    let totals = summary["totals"].as_array().unwrap();
    let ours: Vec<_> = totals.iter().filter(|total| same(total, &cgroup.process(pid))).collect();
    let counted: u64 = ours.iter().map(|total| total["count"].as_u64().unwrap()).sum();
    assert_eq!(counted, 67, "{summary:#}");
    assert!(ours.iter().all(|total| total["process"]["exe"].is_string()), "{ours:#?}");
    let probes = summary["probes"].as_array().unwrap();
    assert!(probes.iter().all(|probe| probe["form"] != "none"), "{probes:#?}");
    let lost = summary["lost"].as_object().unwrap();
    assert!(lost.values().all(|count| count.as_u64().unwrap_or(0) == 0), "{lost:?}");
    workload.end();
    cgroup.remove();
}

/// A runtime that runs it, until this is dropped.
struct Container {
    runtime: Child,
    bundle: TempDir,
}

impl Container {
    #[track_caller]
    fn start(runtime: &Path) -> Self {
        let bundle = bundle();
        let path = |name: &str| bundle.path().join(name);
        let mut command = Command::new(runtime);
        command.arg("--root").arg(path("state")).args(["run", "--bundle"]).arg(bundle.path());
        command.arg("--pid-file").arg(path("pid"));
        // The root of a machine for tests is its first file system, which nothing can be put in place of
        // (pivot_root(2)).
        if is_own_system() {
            command.arg("--no-pivot");
        }
        command.arg(format!("fdtrace-test-{}", std::process::id()));
        // SAFETY: system calls only.
        unsafe {
            command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGTERM)?));
            command.pre_exec(with_a_nodes_mounts);
        }
        command.stdin(Stdio::null());
        command.stdout(File::create(path("stdout")).unwrap());
        command.stderr(File::create(path("stderr")).unwrap());
        let mut this = Self { runtime: command.spawn().unwrap(), bundle };
        for _ in 0..600 {
            let said = fs::read_to_string(this.path("stdout")).unwrap();
            if said.contains("\"started\"") {
                return this;
            }
            if let Some(status) = this.runtime.try_wait().unwrap() {
                panic!("the container ended: {status}: {}", this.stderr());
            }
            thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("the container does not start: {}", this.stderr());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.bundle.path().join(name)
    }

    fn stderr(&self) -> String {
        fs::read_to_string(self.path("stderr")).unwrap()
    }

    fn pid(&self) -> i32 {
        fs::read_to_string(self.path("pid")).unwrap().trim().parse().unwrap()
    }

    /// Asks from inside of its network: nothing of it is to be reached from here.
    #[track_caller]
    fn get(&self, path: &str) -> String {
        let network = File::open(format!("/proc/{}/ns/net", self.pid())).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let asks = move || {
            // This thread's alone.
            setns(network, CloneFlags::CLONE_NEWNET).unwrap();
            let mut stream = TcpStream::connect("127.0.0.1:9435").unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer.split_once("\r\n\r\n").unwrap().1.to_owned()
        };
        thread::spawn(asks).join().unwrap()
    }

    /// Ends it as the kubelet does; gives all it has said.
    #[track_caller]
    fn stop(mut self) -> Vec<Value> {
        let pid = nix::unistd::Pid::from_raw(self.pid());
        nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
        let status = self.runtime.wait().unwrap();
        assert!(status.success(), "{status}: {}", self.stderr());
        assert_eq!(self.stderr(), "");
        let text = fs::read_to_string(self.path("stdout")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Only where a test failed: it kills its container, too.
        if let Ok(pid) = fs::read_to_string(self.path("pid")) {
            let pid = nix::unistd::Pid::from_raw(pid.trim().parse().unwrap_or(i32::MAX));
            let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
        }
        let _ = self.runtime.wait();
        // The container's own went with it.
        let _ = fs::remove_dir(cgroup2().join(pods()));
    }
}

/// Where the pod's cgroup is.
fn pods() -> String {
    format!("fdtrace-test-pods-{}", std::process::id())
}

/// What a node has, where this machine does not: tracefs, and a hierarchy of cgroups that is v2 alone.
fn with_a_nodes_mounts() -> io::Result<()> {
    with_tracefs()?;
    let place = "/sys/fs/cgroup";
    if nix::sys::statfs::statfs(place)?.filesystem_type() == CGROUP2_SUPER_MAGIC {
        return Ok(());
    }
    Ok(mount(Some("cgroup2"), place, Some("cgroup2"), MsFlags::empty(), None::<&str>)?)
}

/// The document of that kind.
fn document(kind: &str) -> Value {
    let documents = serde_yaml_ng::Deserializer::from_str(MANIFEST);
    let mut documents = documents.map(|document| Value::deserialize(document).unwrap());
    documents.find(|document| document["kind"] == kind).unwrap()
}

/// What a runtime is given for the manifest's pod: a root, and config.json
/// (<https://github.com/opencontainers/runtime-spec>).
fn bundle() -> TempDir {
    let bundle = tempfile::tempdir_in("/tmp").unwrap();
    let root = bundle.path().join("rootfs");
    for dir in ["usr/bin", "proc", "dev", "sys", "etc/fdtrace"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::copy(binary(), root.join("usr/bin/fdtrace")).unwrap();
    let mut mounts = vec![
        json!({ "destination": "/proc", "type": "proc", "source": "proc",
                "options": ["nosuid", "noexec", "nodev"] }),
        json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] }),
        json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs",
                "options": ["nosuid", "noexec", "nodev", "ro"] }),
    ];
    let bind = |from: &Path, to: &str| {
        json!({ "destination": to, "type": "bind", "source": from,
                "options": ["rbind", "rprivate", "ro"] })
    };
    // The libraries of an image's distribution: those of this machine, for which it was built.
    for name in ["lib", "lib64", "usr/lib", "usr/lib64"] {
        let here = Path::new("/").join(name);
        if let Ok(target) = fs::read_link(&here) {
            symlink(target, root.join(name)).unwrap();
        } else if here.exists() {
            fs::create_dir_all(root.join(name)).unwrap();
            mounts.push(bind(&here, &format!("/{name}")));
        }
    }

    let set = document("DaemonSet");
    let pod = &set["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let map = document("ConfigMap");
    let config = bundle.path().join("config");
    fs::create_dir(&config).unwrap();
    for (name, text) in map["data"].as_object().unwrap() {
        fs::write(config.join(name), text.as_str().unwrap()).unwrap();
    }
    for volume in container["volumeMounts"].as_array().unwrap() {
        assert_eq!(volume["readOnly"], true);
        let volumes = pod["volumes"].as_array().unwrap();
        let of = volumes.iter().find(|one| one["name"] == volume["name"]).unwrap();
        let from = of["hostPath"]["path"].as_str().map_or(config.clone(), PathBuf::from);
        mounts.push(bind(&from, volume["mountPath"].as_str().unwrap()));
    }

    let context = &container["securityContext"];
    assert_eq!(context["capabilities"]["drop"], json!(["ALL"]));
    let capabilities = context["capabilities"]["add"].as_array().unwrap().iter();
    let capabilities: Vec<_> =
        capabilities.map(|name| format!("CAP_{}", name.as_str().unwrap())).collect();
    assert_eq!((&pod["hostPID"], &pod["hostNetwork"]), (&json!(true), &Value::Null));
    let namespaces = ["mount", "ipc", "uts", "network", "cgroup"];
    let arguments = container["args"].as_array().unwrap().iter().cloned();
    let arguments: Vec<_> = [json!("/usr/bin/fdtrace")].into_iter().chain(arguments).collect();
    let spec = json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": context["runAsUser"], "gid": context["runAsGroup"] },
            "args": arguments,
            "env": ["PATH=/usr/bin"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
            "noNewPrivileges": context["allowPrivilegeEscalation"] == false,
        },
        "root": { "path": "rootfs", "readonly": context["readOnlyRootFilesystem"] },
        "hostname": "fdtrace",
        "mounts": mounts,
        "linux": {
            "namespaces": namespaces.map(|kind| json!({ "type": kind })),
            "cgroupsPath": format!("/{}/fdtrace", pods()),
            "maskedPaths": HIDDEN,
            "readonlyPaths": READ_ONLY,
        },
    });
    fs::write(bundle.path().join("config.json"), spec.to_string()).unwrap();
    bundle
}
