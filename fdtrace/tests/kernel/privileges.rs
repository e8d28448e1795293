//! What fdtrace may do, and what is lost without it: docs/privileges.md is held against what happens.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    libc,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use serde_json::json;
use tempfile::TempDir;

use crate::{
    Test,
    doors::is_own_system,
    host::{become_nobody, drop_capability, run_to_end},
    support::{Fdtrace, Run, binary, form_arguments},
    workload::Workload,
};

pub(crate) const TESTS: &[Test] = &[
    ("each_capability_is_for_what_is_said", each_capability),
    ("nobody_with_file_capabilities", file_capabilities),
    ("perf_events_for_root_alone_are_named", perf_events_for_root_alone),
];

const DOCUMENT: &str = include_str!("../../../docs/privileges.md");

/// One that fdtrace is given, by its number in linux/capability.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Capability {
    DacReadSearch = 2,
    NetAdmin = 12,
    SysPtrace = 19,
    Perfmon = 38,
    Bpf = 39,
}

impl Capability {
    const ALL: [Self; 5] =
        [Self::Bpf, Self::Perfmon, Self::NetAdmin, Self::SysPtrace, Self::DacReadSearch];

    pub(crate) const fn bit(self) -> u64 {
        1 << self as u8
    }

    /// What the document says is lost without it.
    #[track_caller]
    fn without(self) -> &'static str {
        let name = match self {
            Self::DacReadSearch => "DAC_READ_SEARCH",
            Self::NetAdmin => "NET_ADMIN",
            Self::SysPtrace => "SYS_PTRACE",
            Self::Perfmon => "PERFMON",
            Self::Bpf => "BPF",
        };
        let row = format!("| `CAP_{name}` | ");
        let line = DOCUMENT.lines().find(|line| line.starts_with(&row));
        line.unwrap().split(" | ").nth(2).unwrap()
    }
}

/// All of them.
pub(crate) const FIVE: u64 = {
    let [a, b, c, d, e] = Capability::ALL;
    a.bit() | b.bit() | c.bit() | d.bit() | e.bit()
};
/// The highest that Linux has had so far, and some.
const HIGHEST: libc::c_ulong = 40;

/// Root with those alone.
fn as_root_with(capabilities: u64) -> io::Result<()> {
    let others = (0..=HIGHEST).filter(|number| capabilities & (1 << number) == 0);
    others.into_iter().try_for_each(drop_capability)
}

/// Another user than those it looks at, with those alone: as a unit with `DynamicUser` and
/// `AmbientCapabilities`.
pub(crate) fn as_nobody_with(capabilities: u64) -> io::Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let result = |code: i64| if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // SAFETY: numbers only.
    result(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) }.into())?;
    nix::unistd::setgroups(&[])?;
    become_nobody()?;
    let header = [VERSION_3, 0];
    let [low, high] = [capabilities & u64::from(u32::MAX), capabilities >> 32];
    // Effective, permitted, inheritable; first of the lower 32.
    let data = [low, low, low, high, high, high].map(|half| u32::try_from(half).unwrap_or(0));
    // SAFETY: both are as long as this version has them (capset(2)).
    result(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) })?;
    let ambient = (0..=HIGHEST).filter(|number| capabilities & (1 << number) != 0);
    ambient.into_iter().try_for_each(|number| {
        // SAFETY: numbers only.
        let code =
            unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, number, 0, 0) };
        result(code.into())
    })
}

/// A copy of fdtrace where everybody may execute it, whatever directory the build is in.
pub(crate) fn copied() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = directory.path().join("fdtrace");
    fs::copy(binary(), &copy).unwrap();
    (directory, copy)
}

/// tracefs, as on every host with systemd: not every machine for tests has it mounted, and only
/// `CAP_SYS_ADMIN` can. Seen by fdtrace alone.
pub(crate) fn with_tracefs() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let place = "/sys/kernel/tracing";
    match mount(Some("nodev"), place, Some("tracefs"), MsFlags::empty(), none) {
        Err(Errno::EBUSY) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Perf events for whoever has `CAP_PERFMON`, until this is dropped: above 2 Debian's kernels allow them
/// to `CAP_SYS_ADMIN` alone, and the forms tracepoint and kprobe attach by them.
pub(crate) struct PerfEvents(String);

impl PerfEvents {
    const SETTING: &str = "/proc/sys/kernel/perf_event_paranoid";

    /// Changes a machine of the tests' own only.
    pub(crate) fn allow() -> Self {
        let before = fs::read_to_string(Self::SETTING).unwrap();
        if is_own_system() {
            fs::write(Self::SETTING, "2").unwrap();
        }
        Self(before)
    }
}

impl Drop for PerfEvents {
    fn drop(&mut self) {
        if is_own_system() {
            fs::write(Self::SETTING, self.0.trim()).unwrap();
        }
    }
}

/// As whom fdtrace runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum User {
    Root,
    Nobody,
}

impl User {
    fn with(self, capabilities: u64) -> io::Result<()> {
        with_tracefs()?;
        match self {
            Self::Root => as_root_with(capabilities),
            Self::Nobody => as_nobody_with(capabilities),
        }
    }
}

/// What it has found out.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    /// Of a process.
    calls: u64,
    has_path: bool,
    /// Of a listener that was there before.
    has_owner: bool,
    /// How it sees refused segments.
    packets: String,
}

/// One process of another user fails 67 times, and the listener of a second one refuses clients: of
/// that no program can say whose it is, for its owner makes no call.
fn look(program: &Path, as_whom: impl Fn() -> io::Result<()> + Send + Sync + 'static) -> Found {
    let mut fails = Workload::start("failures=67 comm=fails user=54321");
    let refuses = Workload::start("backlog=1 comm=refuses user=54321");
    let fdtrace = Fdtrace::start_program(program, &[], as_whom);
    assert_eq!(fails.fail(), 67);
    let clients = refused(&refuses);
    // Where it is only polled, that is once a second.
    thread::sleep(Duration::from_millis(2500));
    let run = fdtrace.stop();
    drop(clients);
    let process = json!({ "pid": fails.pid(), "comm": "fails" });
    let of_calls = json!({ "process": process, "failure": "EMFILE" });
    let of_queue =
        json!({ "listener": { "port": refuses.port() }, "failure": "accept_queue_full" });
    let calls = run.totals(&of_calls);
    let refusals = run.totals(&of_queue);
    assert!(!refusals.is_empty(), "{:#}", run.summary());
    Found {
        calls: run.count(&of_calls),
        has_path: calls.iter().all(|total| total["process"]["exe"].is_string()),
        has_owner: refusals.iter().all(|total| total["process"]["pid"] == refuses.pid()),
        packets: form(&run, "syn"),
    }
}

fn form(run: &Run, name: &str) -> String {
    let probes = run.summary()["probes"].as_array().unwrap();
    let probe = probes.iter().find(|probe| probe["probe"] == name).unwrap();
    probe["form"].as_str().unwrap().to_owned()
}

/// Clients that come until the accept queue is full, and more.
fn refused(workload: &Workload) -> Vec<std::os::fd::OwnedFd> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, connect, socket};
    use std::os::fd::AsRawFd as _;
    let address = SockaddrIn::new(127, 0, 0, 1, u16::try_from(workload.port()).unwrap());
    (0..8)
        .map(|_| {
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            let client = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
            let _ = connect(client.as_raw_fd(), &address);
            client
        })
        .collect()
}

fn each_capability() {
    if form_arguments().iter().any(|argument| argument == "--form") {
        println!("  skipped: a form that is asked for by name is not replaced by another");
        return;
    }
    let _allowed = PerfEvents::allow();
    let (_directory, program) = copied();
    for user in [User::Root, User::Nobody] {
        let with_all = look(&program, move || user.with(FIVE));
        println!("  {user:?} with all: {with_all:?}");
        assert_eq!((with_all.calls, with_all.has_path, with_all.has_owner), (67, true, true));
        for capability in Capability::ALL {
            let rest = FIVE & !capability.bit();
            let says = capability.without();
            let starts = match capability {
                Capability::Bpf | Capability::Perfmon => false,
                // tracefs is root's.
                Capability::DacReadSearch => user == User::Root || has_functions(),
                Capability::NetAdmin | Capability::SysPtrace => true,
            };
            if !starts {
                let output = run_to_end(&["--duration", "300ms"], move || user.with(rest));
                let stderr = String::from_utf8_lossy(&output.stderr);
                println!("  {user:?} without {capability:?}: {:?}", output.status.code());
                println!("    {}", stderr.lines().next().unwrap_or_default());
                if capability == Capability::DacReadSearch {
                    assert_eq!(output.status.code(), Some(3), "{stderr}");
                    assert!(stderr.contains("that takes CAP_DAC_READ_SEARCH"), "{stderr}");
                    assert!(says.contains("not as root, there is no form tracepoint"), "{says}");
                } else {
                    assert_eq!(output.status.code(), Some(4), "{capability:?}: {stderr}");
                    assert!(says.contains("exit code 4"), "{says}");
                }
                continue;
            }
            let found = look(&program, move || user.with(rest));
            println!("  {user:?} without {capability:?}: {found:?}");
            assert_eq!(found.calls, 67, "{user:?} without {capability:?}");
            match capability {
                Capability::NetAdmin => {
                    let polled = with_all.packets == "cgroup_skb";
                    let form = if polled { "sock_diag" } else { &with_all.packets };
                    assert_eq!(found.packets, form);
                    assert!(says.contains("(form `sock_diag`)"), "{says}");
                }
                Capability::SysPtrace => {
                    assert!(!found.has_path && !found.has_owner, "{found:?}");
                    assert!(says.contains("listeners have no owner"), "{says}");
                    assert!(says.contains("processes have no path"), "{says}");
                    assert!(says.contains("Failed calls are counted all the same"), "{says}");
                }
                Capability::DacReadSearch => {
                    assert!(found.has_path && !found.has_owner, "{found:?}");
                    assert!(says.contains("listeners of other users have no owner"), "{says}");
                }
                Capability::Bpf | Capability::Perfmon => unreachable!(),
            }
        }
    }
}

/// Whether the host has another form than tracepoint for calls.
fn has_functions() -> bool {
    let run = Fdtrace::start(&[]).stop();
    form(&run, "accept") != "tracepoint"
}

/// As the document has it, and nobody runs it then: with file capabilities a process is not
/// dumpable, and its own /proc/self is root's.
fn file_capabilities() {
    if Command::new("setcap").arg("-h").output().is_err() {
        println!("  skipped: there is no setcap");
        return;
    }
    let _allowed = PerfEvents::allow();
    let (_directory, program) = copied();
    let line = DOCUMENT.lines().find_map(|line| line.strip_prefix("# setcap "));
    let line = line.expect("the document has the command");
    let arguments = line.replace("/usr/local/bin/fdtrace", program.to_str().unwrap());
    let status = Command::new("setcap").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "{arguments}");

    let found = look(&program, || {
        with_tracefs()?;
        nix::unistd::setgroups(&[])?;
        become_nobody()
    });
    println!("  nobody with file capabilities: {found:?}");
    assert_eq!((found.calls, found.has_path, found.has_owner), (67, true, true));
}

/// As Debian's kernels have it from the start.
fn perf_events_for_root_alone() {
    if !is_own_system() {
        println!("  changes settings of the whole system: runs in `cargo xtask vm` only");
        return;
    }
    let _restored = PerfEvents::allow();
    fs::write(PerfEvents::SETTING, "3").unwrap();
    let output =
        run_to_end(&["--duration", "300ms", "--form", "tracepoint"], || User::Nobody.with(FIVE));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("kernel.perf_event_paranoid (here: 3; above 2 "), "{stderr}");
    assert!(DOCUMENT.contains("`kernel.perf_event_paranoid` is 3"));
}
