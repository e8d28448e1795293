//! Limits of the whole system: `fs.file-max` and `fs.nr_open`. These tests change them, so they run
//! in a virtual machine only.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::PermissionsExt as _,
    },
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    unistd::{Uid, setuid},
};
use serde_json::json;

use super::{
    calls::{self, Objects},
    fdtrace,
    seen::assert_counted,
    table,
    uring::Asker,
};
use crate::{
    Test,
    privileges::{FIVE, PerfEvents, as_nobody_with, with_tracefs},
    support::{Daemon, eventually, number},
    workload::{Spec, Workload, say, wait},
};

pub(super) const TESTS: &[Test] = &[
    ("file_max_refuses_whoever_is_not_root", file_max),
    ("file_max_with_the_daemon_of_root", file_max_daemon_of_root),
    ("file_max_with_the_daemon_of_a_user", file_max_daemon_of_a_user),
    ("nr_open_is_the_limit_where_it_is_lower", nr_open),
];

/// A user that nobody is.
const NOBODY: u32 = 54_321;
/// More than these tests let anybody have.
const SOFT: usize = 4096;
const NR_OPEN: usize = 256;
/// Direct descriptors, which need a file but no descriptor.
const SLOTS: usize = 8;
/// How far `/proc/sys/fs/file-nr` may be off: it leaves out up to 31 of each CPU
/// (`percpu_counter_batch`).
const FILE_NR_OFF_BY: u64 = 64;

/// Calls that need no file of the system, but only a descriptor for one.
const WITHOUT_A_FILE: [&str; 3] = ["dup", "fcntl F_DUPFD", "fcntl F_DUPFD_CLOEXEC"];
/// Calls that need one, and that everybody may make.
const WITH_A_FILE: [&str; 15] = [
    "accept",
    "accept4",
    "socket",
    "socketpair",
    "openat",
    "openat2",
    "pipe2",
    "epoll_create1",
    "eventfd2",
    "timerfd_create",
    "signalfd4",
    "inotify_init1",
    "memfd_create",
    "pidfd_open",
    "userfaultfd",
];

/// Takes every file handle, and then as often fails to take another as it is told.
pub(super) fn run_file_max(spec: &Spec<'_>) {
    table::limit(SOFT);
    setuid(Uid::from_raw(NOBODY)).unwrap();
    let objects = Objects::open();
    // Clients wait, so that an accept is answered also where somebody gives a file back.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let _clients: Vec<_> = (0..SLOTS).map(|_| TcpStream::connect(address).unwrap()).collect();
    let accepts = Spec("op=direct slots=8");
    let direct = Asker::new(&accepts, listener.as_raw_fd());
    exhaust(spec, &objects, &WITH_A_FILE, Errno::ENFILE, direct.ok());
}

/// Takes every descriptor below `fs.nr_open`, and so on.
pub(super) fn run_nr_open(spec: &Spec<'_>) {
    table::limit(SOFT);
    let objects = Objects::open();
    exhaust(spec, &objects, &["accept4", "socket", "openat", "dup", "pipe2"], Errno::EMFILE, None);
}

fn exhaust(
    spec: &Spec<'_>,
    objects: &Objects,
    names: &[&str],
    errno: Errno,
    direct: Option<Asker>,
) {
    say("ready", &json!({ "soft": SOFT }));
    wait();
    let open = |name| calls::all().find(|call| call.name == name).unwrap();
    let mut held: Vec<OwnedFd> = Vec::new();
    let mut failures = BTreeMap::from([("openat", 1)]);
    loop {
        match open("openat").make(objects) {
            Ok(fd) => held.push(fd),
            Err(error) => {
                assert_eq!(error, errno);
                break;
            }
        }
    }
    let highest = held.iter().map(OwnedFd::as_raw_fd).max();
    for (place, name) in names.iter().enumerate() {
        let wanted = spec.number("failures", 1) + 2 * place;
        let mut failed = 0;
        while failed < wanted {
            match open(name).make(objects) {
                // Somebody gave one back: it stays here.
                Ok(fd) => held.push(fd),
                Err(error) => {
                    assert_eq!(error, errno, "{name}");
                    failed += 1;
                }
            }
        }
        *failures.entry(name).or_default() += failed;
    }
    if let Some(mut direct) = direct {
        let wanted = spec.number("failures", 1) + 2 * names.len();
        direct.fail(wanted, errno);
        failures.insert("io_uring_accept_direct", wanted);
    }
    if errno == Errno::ENFILE {
        for name in WITHOUT_A_FILE {
            open(name).make(objects).unwrap();
        }
    }
    say("done", &json!({ "failures": failures, "highest": highest }));
    // All is held until the test has seen what fdtrace says of it.
    wait();
}

/// A setting of the system, until it is put back.
struct Setting {
    path: PathBuf,
    before: String,
}

impl Setting {
    fn set(name: &str, value: u64) -> Self {
        let path = PathBuf::from("/proc/sys/fs").join(name);
        let before = fs::read_to_string(&path).unwrap();
        fs::write(&path, value.to_string()).unwrap();
        Self { path, before }
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        fs::write(&self.path, &self.before).unwrap();
    }
}

/// Whether the whole system is there for these tests.
fn is_own_system() -> bool {
    let is_own = super::is_own_system();
    if !is_own {
        println!("  changes limits of the whole system: runs in `cargo xtask vm` only");
    }
    is_own
}

#[track_caller]
fn truth<'a>(failures: &'a serde_json::Value, errno: &'a str) -> Vec<(&'a str, &'a str, u64)> {
    let failures = failures["failures"].as_object().unwrap();
    failures.iter().map(|(door, count)| (door.as_str(), errno, count.as_u64().unwrap())).collect()
}

fn file_max() {
    if !is_own_system() {
        return;
    }
    let mut fdtrace = fdtrace(&["--fds"]);
    let mut workload = Workload::start("doors=file_max failures=83");
    let used = fs::read_to_string("/proc/sys/fs/file-nr").unwrap();
    let used: u64 = used.split_whitespace().next().unwrap().parse().unwrap();
    let max = used + 2 * FILE_NR_OFF_BY;
    let setting = Setting::set("file-max", max);
    workload.go();
    let done = workload.done();
    let fields = |door| {
        json!({
            "process": { "pid": workload.pid() },
            "failure": "ENFILE",
            "door": door,
            "file_handles": { "max": max },
            "limit": { "kind": "file_max", "value": max },
        })
    };
    let mut opened = Vec::new();
    // In its table of direct descriptors there is room.
    let direct = "io_uring_accept_direct";
    let has_direct = !done["failures"][direct].is_null();
    for door in ["openat", "accept4"].into_iter().chain(has_direct.then_some(direct)) {
        opened.push(fdtrace.reported("episode_opened", &fields(door)));
    }
    drop(setting);
    for report in &opened {
        let used = number(report, "/file_handles/used");
        assert!(used.abs_diff(max) <= FILE_NR_OFF_BY, "{report}");
        assert!(number(report, "/fds/open") < SOFT as u64, "{report}");
    }
    let run = fdtrace.stop();
    assert_counted(&run, workload.pid(), &truth(&done, "ENFILE"));
    workload.end();
}

/// root is exempt from the limit: its daemon answers while nobody else gets a file.
fn file_max_daemon_of_root() {
    if !is_own_system() {
        return;
    }
    let daemon = Daemon::start(CONFIG);
    let (mut workload, setting) = reach_file_max();
    assert_eq!(daemon.get("/healthz"), (200, "ok\n".to_owned()));
    let done = workload.done();
    assert_daemon_counted(&daemon, &done);
    drop(setting);
    assert_eq!(daemon.get("/healthz"), (200, "ok\n".to_owned()));
    assert!(daemon.stop().status.success());
    workload.end();
}

/// As in its unit: with the five capabilities, none of which exempts it. It gets no file either, so
/// it answers as soon as there is one.
fn file_max_daemon_of_a_user() {
    if !is_own_system() {
        return;
    }
    let _allowed = PerfEvents::allow();
    let daemon = Daemon::start_changed(CONFIG, |directory| {
        with_tracefs()?;
        open_to_everybody(directory)?;
        as_nobody_with(FIVE)
    });
    let (mut workload, setting) = reach_file_max();
    let done = workload.done();
    let mut waiting = TcpStream::connect(("127.0.0.1", daemon.port())).unwrap();
    waiting.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
    thread::sleep(Duration::from_millis(2500));
    let stderr = daemon.stderr();
    assert!(stderr.contains("metrics: cannot accept a connection"), "{stderr}");
    // Its watchdog needs none.
    daemon.wait_for_notice("WATCHDOG=1");
    drop(setting);
    let answer = io::read_to_string(waiting).unwrap();
    assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");
    assert_daemon_counted(&daemon, &done);
    eventually("it is healthy", || daemon.get("/healthz").0 == 200);
    assert!(daemon.stop().status.success());
    workload.end();
}

const CONFIG: &str = "[trace]\nfds = true\n[output]\nstdout = \"none\"\njournal = \"never\"\n\
                      [metrics]\nlisten = \"127.0.0.1:PORT\"\n";

/// What the daemon reads and talks to.
fn open_to_everybody(directory: &Path) -> io::Result<()> {
    for path in ["", "fdtrace.toml", "notify", "journal"].map(|name| directory.join(name)) {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777))?;
    }
    Ok(())
}

/// A workload that has begun to take every file that there is.
fn reach_file_max() -> (Workload, Setting) {
    let mut workload = Workload::start("doors=file_max failures=83");
    let used = fs::read_to_string("/proc/sys/fs/file-nr").unwrap();
    let used: u64 = used.split_whitespace().next().unwrap().parse().unwrap();
    let setting = Setting::set("file-max", used + 2 * FILE_NR_OFF_BY);
    workload.go();
    (workload, setting)
}

/// Of each call as many failures as the workload has counted.
#[track_caller]
fn assert_daemon_counted(daemon: &Daemon, done: &serde_json::Value) {
    // The test's own program is "exe", as which it has started itself.
    for (door, _, count) in truth(done, "ENFILE") {
        let door = format!("door=\"{door}\"");
        let labels = ["process=\"exe\"", "failure=\"ENFILE\"", door.as_str()];
        let counted = daemon.metric("fdtrace_failures_total", &labels);
        assert_eq!(counted.to_string(), count.to_string(), "{door}");
    }
    assert!(daemon.metric("fdtrace_lost_total", &["kind=\"failures\""]) < 0.1);
}

fn nr_open() {
    if !is_own_system() {
        return;
    }
    let mut fdtrace = fdtrace(&["--fds"]);
    let mut workload = Workload::start("doors=nr_open failures=89");
    let setting = Setting::set("nr_open", NR_OPEN as u64);
    workload.go();
    let done = workload.done();
    assert_eq!(done["highest"], NR_OPEN - 1);
    for door in ["openat", "accept4"] {
        let fields = json!({
            "process": { "pid": workload.pid() },
            "failure": "EMFILE",
            "door": door,
            "limit": { "kind": "nr_open", "value": NR_OPEN },
            "fds": { "open": NR_OPEN, "soft": SOFT },
        });
        fdtrace.reported("episode_opened", &fields);
    }
    drop(setting);
    let run = fdtrace.stop();
    assert_counted(&run, workload.pid(), &truth(&done, "EMFILE"));
    workload.end();
}
