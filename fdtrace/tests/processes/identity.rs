//! Who a process is: in cgroups with the names that runtimes give them, and in namespaces as they
//! make them. What is said of it, and what selects it.
//!
//! `CONTAINED` makes this binary such a process: `cgroup=DIR` is where it goes first, `namespaces=1`
//! says that it is process 1 of a pid namespace then, with a hostname of its own. It says
//! `pid PID` and `port PORT`, and fails to accept as often as each line of stdin says.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use fdtrace::model::Pid;
use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        socket::{
            AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, accept, bind, connect,
            getsockname, listen, socket,
        },
        wait::waitpid,
    },
    unistd::{ForkResult, dup, fork, geteuid},
};
use serde_json::{Value, json};

use super::{
    Test,
    support::{Fdtrace, binary},
};

pub(crate) const TESTS: &[Test] = &[("who_a_process_is_and_filters_by_it", identity)];

const CONTAINER: &str = "4f1c0d6f2f5a4e7c9b8a7d6e5f4c3b2a1908f7e6d5c4b3a29180706050403020";
const POD: &str = "0f3a9c1e-6b1d-4a41-9d5e-1c2b3a4d5e6f";
const HOSTNAME: &str = "web-7d4b9c5f6d-x2x1z";
const UNIT: &str = "fdtrace-identity.service";

/// Cgroups of the test, below the one that it is in.
struct Cgroups {
    own: PathBuf,
    /// The outermost first.
    made: Vec<PathBuf>,
}

impl Cgroups {
    fn new() -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let mount = mounts.find(|fields| fields[2] == "cgroup2").expect("cgroup v2 is mounted");
        let cgroup = fs::read_to_string("/proc/self/cgroup").unwrap();
        let path = cgroup.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
        let own = Path::new(mount[1]).join(path);
        let mut this = Self { own, made: Vec::new() };
        this.make(&format!("fdtrace-test-{}", std::process::id()));
        this
    }

    /// Makes one with all above it; its directory.
    fn make(&mut self, path: &str) -> PathBuf {
        let root = self.made.first().unwrap_or(&self.own).clone();
        let dir = root.join(path);
        let above: Vec<&Path> = dir.ancestors().take_while(|above| *above != root).collect();
        for dir in above.into_iter().rev() {
            if !dir.exists() {
                fs::create_dir(dir).unwrap();
                self.made.push(dir.to_owned());
            }
        }
        dir
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for dir in self.made.iter().rev() {
            // Where the test fails already, nothing is gained by failing again.
            let _ = fs::remove_dir(dir);
        }
    }
}

/// One that was started. It ends when this is dropped.
struct Contained {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    port: u16,
    /// As the test sees it.
    pid: Pid,
}

impl Contained {
    #[track_caller]
    fn start(cgroup: &Path, namespaces: bool) -> Self {
        let spec = format!("cgroup={} namespaces={}", cgroup.display(), u8::from(namespaces));
        let mut command = Command::new("/proc/self/exe");
        let mut child = command
            .env("CONTAINED", spec)
            .env("HOSTNAME", HOSTNAME)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut this = Self { child, stdin, stdout, port: 0, pid: Pid(0) };
        // Whichever of the two processes comes first.
        for _ in 0..2 {
            let line = this.line();
            let (word, number) = line.split_once(' ').unwrap();
            match word {
                "port" => this.port = number.parse().unwrap(),
                "pid" => this.pid = Pid(number.parse().unwrap()),
                other => panic!("{other}?"),
            }
        }
        this
    }

    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(self.stdout.read_line(&mut line).unwrap(), 0, "it has ended");
        line.trim().to_owned()
    }

    /// Lets it fail so often.
    #[track_caller]
    fn fail(&mut self, count: u64) {
        writeln!(self.stdin.as_mut().unwrap(), "{count}").unwrap();
        assert_eq!(self.line(), "failed");
    }

    /// Clients, of which its queue has no room for some.
    fn overflow(&self) -> Vec<OwnedFd> {
        let to = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.port));
        let client = |_| {
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            let client = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
            let result = connect(client.as_raw_fd(), &to);
            assert!(matches!(result, Ok(()) | Err(Errno::EINPROGRESS)), "{result:?}");
            client
        };
        (0..6).map(client).collect()
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

fn identity() {
    if !geteuid().is_root() {
        return;
    }
    let mut cgroups = Cgroups::new();
    let slice = format!("kubepods-burstable-pod{}.slice", POD.replace('-', "_"));
    let pod = format!("kubepods.slice/kubepods-burstable.slice/{slice}");
    let scope = cgroups.make(&format!("{pod}/cri-containerd-{CONTAINER}.scope"));
    let service = cgroups.make(&format!("system.slice/{UNIT}"));
    let contained = || Contained::start(&scope, true);
    let served = || Contained::start(&service, false);
    let unit = ["--unit", UNIT.strip_suffix(".service").unwrap()];

    is_told(contained(), served());
    for args in [["--container", &CONTAINER[..4]], ["--pod", POD], ["--pod", HOSTNAME]] {
        selects(args, contained(), served());
    }
    selects(unit, served(), contained());

    let (contained, served) = (contained(), served());
    let pid = contained.pid;
    for args in [["--container", &CONTAINER[..4]], ["--pod", POD], ["--pod", HOSTNAME]] {
        assert_eq!(listed(&args), [pid.0], "{args:?}");
    }
    assert_eq!(listed(&unit), [served.pid.0]);
    assert_eq!(listed(&["--container", "4f1d"]), [0_u32; 0]);
    // Not the one by its container and the other by its number.
    let number = served.pid.to_string();
    assert_eq!(listed(&["--container", "4f1c", "--pid", &number]), [0_u32; 0]);

    let explained = Command::new(binary()).args(["explain", &pid.to_string()]).output().unwrap();
    let explained = String::from_utf8(explained.stdout).unwrap();
    let words = explained.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        format!("[{pid}] (1 in pod {HOSTNAME})"),
        format!(
            "in container {} (containerd), where its pid is 1; pod {HOSTNAME}, UID {POD}",
            &CONTAINER[..12]
        ),
    ] {
        assert!(words.contains(&part), "{part} is not in {explained}");
    }
}

/// All of it is told, of the one and of the other.
fn is_told(mut contained: Contained, mut served: Contained) {
    let fdtrace = Fdtrace::start(&[]);
    contained.fail(7);
    served.fail(5);
    let run = fdtrace.stop();
    run.assert_lost_nothing();
    let one = json!({
        "pid": contained.pid.0, "ns_pid": 1, "unit": null, "user_slice": null,
        "container": CONTAINER, "container_runtime": "containerd",
        "pod": { "uid": POD, "name": HOSTNAME },
    });
    let other = json!({
        "pid": served.pid.0, "ns_pid": served.pid.0, "unit": UNIT, "user_slice": null,
        "container": null, "container_runtime": null, "pod": null,
    });
    for (process, failures) in [(one, 7), (other, 5)] {
        let fields = json!({ "process": process, "failure": "EMFILE" });
        assert_eq!(run.count(&fields), failures, "{:#}", run.summary()["totals"]);
        assert_eq!(run.of_kind("episode_opened", &fields).len(), 1);
    }
}

/// Those options leave only what is about the one: its calls, and the clients that it refuses,
/// whose owner is found later.
fn selects(args: [&str; 2], mut wanted: Contained, mut other: Contained) {
    let mut fdtrace = Fdtrace::start(&args);
    let _clients = [other.overflow(), wanted.overflow()];
    let pid = wanted.pid.0;
    let full = json!({ "process": { "pid": pid }, "failure": "accept_queue_full" });
    fdtrace.wait_for_report("episode_opened", &full);
    other.fail(5);
    wanted.fail(3);
    let run = fdtrace.stop();
    let count = |pid, failure| run.count(&json!({ "process": { "pid": pid }, "failure": failure }));
    assert_eq!((count(pid, "EMFILE"), count(other.pid.0, "EMFILE")), (3, 0), "{args:?}");
    assert!(count(pid, "accept_queue_full") > 0, "{args:?}");
    for (_, report) in &run.reports {
        let process = &report["process"];
        assert!(process.is_null() || process["pid"] == pid, "{args:?}: {report:#}");
    }
    let totals = run.summary()["totals"].as_array().unwrap();
    assert!(totals.iter().all(|total| total["process"]["pid"] == pid), "{args:?}: {totals:#?}");
}

/// Whose listeners are listed.
fn listed(args: &[&str]) -> Vec<u32> {
    let output = Command::new(binary()).args(["listeners", "--json"]).args(args).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let listeners = lines.filter(|line| line["kind"] == "listener");
    let pid = |line: Value| u32::try_from(line["process"]["pid"].as_u64().unwrap()).unwrap();
    listeners.map(pid).collect()
}

/// What `CONTAINED` says is done.
pub(crate) fn run(spec: &str) {
    let get = |key: &str| spec.split(' ').find_map(|pair| pair.strip_prefix(key)).unwrap();
    fs::write(Path::new(get("cgroup=")).join("cgroup.procs"), "0").unwrap();
    if get("namespaces=") == "0" {
        println!("pid {}", std::process::id());
        return fail_to_accept();
    }
    unshare(CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWUTS).unwrap();
    // Of the own UTS namespace, by whichever /proc.
    fs::write("/proc/sys/kernel/hostname", HOSTNAME).unwrap();
    // SAFETY: this process has one thread.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => {
            println!("pid {child}");
            waitpid(child, None).unwrap();
        }
        ForkResult::Child => fail_to_accept(),
    }
}

fn fail_to_accept() {
    const SOFT: u64 = 64;
    let flags = SockFlag::SOCK_CLOEXEC;
    let listener = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
    bind(listener.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    listen(&listener, Backlog::new(1).unwrap()).unwrap();
    let port = getsockname::<SockaddrIn>(listener.as_raw_fd()).unwrap().port();
    println!("port {port}");
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, SOFT.min(hard), hard).unwrap();
    let mut held: Vec<OwnedFd> = Vec::new();
    while let Ok(fd) = dup(&listener) {
        held.push(fd);
    }
    for line in std::io::stdin().lines() {
        for _ in 0..line.unwrap().parse::<u64>().unwrap() {
            assert_eq!(accept(listener.as_raw_fd()), Err(Errno::EMFILE));
        }
        println!("failed");
    }
}
