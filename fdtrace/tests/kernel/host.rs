//! What the host is like: capable, or not, or in the way; each with its message and exit code.

use std::{
    fs::File,
    io,
    os::unix::process::CommandExt as _,
    process::{Command, Output, Stdio},
};

use nix::{
    errno::Errno,
    libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W},
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::signal::Signal,
};
use serde_json::json;

use crate::{
    Test,
    privileges::copied,
    support::{Fdtrace, binary},
    workload::Workload,
};

pub(crate) const TESTS: &[Test] = &[
    ("environment_is_capable", environment_is_capable),
    ("the_host_keeps_its_mounts", the_host_keeps_its_mounts),
    ("not_root_is_4", not_root_is_4),
    ("no_btf_is_3", no_btf_is_3),
    ("no_tracefs_is_3_and_says_how_to_mount_it", no_tracefs_is_3),
    ("refused_bpf_is_3", refused_bpf_is_3),
    ("wrong_arguments_are_2", wrong_arguments_are_2),
    ("a_closed_pipe_is_0", a_closed_pipe_is_0),
    ("a_full_disk_is_1", a_full_disk_is_1),
    ("fail_on_exhaustion_is_10", fail_on_exhaustion_is_10),
    ("names_reach_no_terminal_unescaped", names_reach_no_terminal_unescaped),
    ("text_tells_the_story", text_tells_the_story),
];

pub(crate) const CAP_SYS_ADMIN: nix::libc::c_ulong = 21;

/// fdtrace attaches every probe here, and stops cleanly on both signals.
fn environment_is_capable() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let run = Fdtrace::start(&[]).stop_with(signal);
        run.assert_lost_nothing();
        let probes = run.summary()["probes"].as_array().unwrap();
        let names: Vec<_> = probes.iter().map(|probe| probe["probe"].as_str().unwrap()).collect();
        assert_eq!(names, ["accept", "socket", "socketpair", "listen", "io_uring", "syn", "ack"]);
        let forms: Vec<_> = probes.iter().map(|probe| probe["form"].as_str().unwrap()).collect();
        assert!(!forms.contains(&"none"), "{forms:?}");
    }
}

/// Where tracefs is not mounted, it is mounted for fdtrace alone.
fn the_host_keeps_its_mounts() {
    let mounts = || std::fs::read_to_string("/proc/self/mounts").unwrap();
    let before = mounts();
    let fdtrace = Fdtrace::start(&[]);
    assert_eq!(mounts(), before);
    fdtrace.stop().assert_lost_nothing();
    assert_eq!(mounts(), before);
}

/// Runs fdtrace for a moment, changed by `prepare` in the child before it starts.
fn run_changed(args: &[&str], prepare: fn() -> io::Result<()>) -> Output {
    run_to_end(&[&["--duration", "300ms"], args].concat(), prepare)
}

/// Runs fdtrace to its end, changed by `prepare` in the child before it starts.
pub(crate) fn run_to_end(
    args: &[&str],
    prepare: impl Fn() -> io::Result<()> + Send + Sync + 'static,
) -> Output {
    let (_directory, copy) = copied();
    let mut command = Command::new(&copy);
    command.args(args).stdin(Stdio::null());
    // SAFETY: the hooks make system calls only.
    unsafe { command.pre_exec(prepare) };
    command.output().unwrap()
}

#[track_caller]
fn assert_ends(output: &Output, code: i32, says: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(says), "{says:?} is not in: {stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

fn run(args: &[&str]) -> Output {
    run_changed(args, || Ok(()))
}

pub(crate) fn drop_capability(capability: nix::libc::c_ulong) -> io::Result<()> {
    // SAFETY: numbers only. What the bounding set lacks, exec does not give (capabilities(7)).
    let result = unsafe { nix::libc::prctl(nix::libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A mount namespace of its own, with a tracefs: it takes a capability to mount one, and none to use it.
pub(crate) fn mount_tracefs() -> io::Result<()> {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    match mount(Some("tracefs"), TRACEFS, Some("tracefs"), MsFlags::empty(), none) {
        Ok(()) | Err(Errno::EBUSY) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

pub(crate) const TRACEFS: &str = "/sys/kernel/tracing";

pub(crate) fn become_nobody() -> io::Result<()> {
    nix::unistd::setgid(nix::unistd::Gid::from_raw(65534))?;
    nix::unistd::setuid(nix::unistd::Uid::from_raw(65534))?;
    Ok(())
}

fn not_root_is_4() {
    assert_ends(&run_changed(&[], become_nobody), 4, "sudo fdtrace");
    // Root of a container that was given nothing.
    let without_any = || (0..=40).try_for_each(drop_capability);
    assert_ends(&run_changed(&[], without_any), 4, "CAP_BPF");
}

fn no_btf_is_3() {
    assert_ends(&run(&["--btf", "/nonexistent"]), 3, "CONFIG_DEBUG_INFO_BTF");
    assert_ends(&run(&["--btf", "/proc/version"]), 3, "no usable BTF");
    assert_ends(&run(&["--btf", "/"]), 3, "cannot read the kernel's BTF");
    let mut bytes = std::fs::read("/sys/kernel/btf/vmlinux").unwrap();
    bytes.truncate(1 << 20);
    let truncated = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(truncated.path(), &bytes).unwrap();
    let path = truncated.path().to_str().unwrap();
    assert_ends(&run(&["--btf", path]), 3, "truncated");
}

fn no_tracefs_is_3() {
    let hide_tracefs = || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        for place in ["/sys/kernel/tracing", "/sys/kernel/debug/tracing", "/sys/kernel/debug"] {
            while umount2(place, MntFlags::MNT_DETACH).is_ok() {}
        }
        drop_capability(CAP_SYS_ADMIN)
    };
    // Other forms need none.
    let output = run_changed(&["--form", "tracepoint"], hide_tracefs);
    assert_ends(&output, 3, "mount -t tracefs nodev /sys/kernel/tracing");
}

/// As the seccomp filter of a container whose root may not call bpf(2).
pub(crate) fn forbid_bpf() -> io::Result<()> {
    let statement = |code: u32, jt, jf, k| nix::libc::sock_filter {
        code: u16::try_from(code).unwrap_or(0),
        jt,
        jf,
        k,
    };
    let bpf = u32::try_from(nix::libc::SYS_bpf).unwrap_or(0);
    let refuse = nix::libc::SECCOMP_RET_ERRNO | nix::libc::EPERM.unsigned_abs();
    let mut filter = [
        // Offset 0 of struct seccomp_data: the system call's number.
        statement(BPF_LD | BPF_W | BPF_ABS, 0, 0, 0),
        statement(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, bpf),
        statement(BPF_RET | BPF_K, 0, 0, refuse),
        statement(BPF_RET | BPF_K, 0, 0, nix::libc::SECCOMP_RET_ALLOW),
    ];
    let program = nix::libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY: the program and its statements outlive the call, which copies them.
    let result = unsafe {
        nix::libc::prctl(nix::libc::PR_SET_SECCOMP, nix::libc::SECCOMP_MODE_FILTER, &program)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn refused_bpf_is_3() {
    assert_ends(&run_changed(&[], forbid_bpf), 3, "seccomp");
}

fn wrong_arguments_are_2() {
    for args in [&["--no-such-flag"][..], &["--port", "0"], &["--comm", ""], &["--pid", "x"]] {
        assert_ends(&run(args), 2, "error:");
    }
}

fn a_closed_pipe_is_0() {
    // Before the first line, and while there is nothing to write.
    for idle in [false, true] {
        let mut command = Command::new(binary());
        command.args(["--duration", "60s"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        if idle {
            io::Read::read(&mut stdout, &mut [0; 512]).unwrap();
        }
        drop(stdout);
        let output = child.wait_with_output().unwrap();
        assert_ends(&output, 0, "");
        assert_eq!(output.stderr, b"");
    }
}

fn a_full_disk_is_1() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = Command::new(binary())
        .args(["--duration", "300ms"])
        .stdout(full)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    assert_ends(&output, 1, "cannot write the output: No space left on device");
}

fn fail_on_exhaustion_is_10() {
    for (spec, code) in [("failures=2", 10), ("listen=no room=1 failures=2", 0)] {
        let mut workload = Workload::start(spec);
        let pid = workload.pid().to_string();
        let fdtrace = Fdtrace::start(&["--fail-on-exhaustion", "--pid", &pid]);
        assert_eq!(workload.fail(), 2);
        assert_eq!(fdtrace.stop().status.code(), Some(code));
    }
}

/// A process may call itself anything: a name that colours, moves the cursor, or ends the line.
fn names_reach_no_terminal_unescaped() {
    let mut workload = Workload::start("comm=a%1b[31mb\nc\\ failures=3");
    let pid = workload.pid().to_string();
    let text = text_of(&["--pid", &pid, "--colour", "always"], || {
        workload.fail();
    });
    assert!(text.contains(r"a\x1b[31mb\x0ac\\["), "{text:?}");
    // Escapes there are only ours: around the headline.
    let raw: Vec<_> = text.split('\x1b').skip(1).collect();
    assert_eq!(raw.len(), 2, "{text:?}");
    assert!(raw[0].starts_with("[31mEXHAUSTED") && raw[1].starts_with("[0m"), "{text:?}");

    let mut workload = Workload::start("comm=a%1b[31mb\nc\\ failures=3");
    let fdtrace = Fdtrace::start(&[]);
    workload.fail();
    let fields = json!({ "process": { "pid": workload.pid(), "comm": "a\u{1b}[31mb\nc\\" } });
    assert_eq!(fdtrace.stop().count(&fields), 3);
}

/// The text that fdtrace writes while `act` runs.
fn text_of(args: &[&str], act: impl FnOnce()) -> String {
    use io::{BufRead as _, Read as _};
    let mut command = Command::new(binary());
    let mut child = command.args(args).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = io::BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    stdout.read_line(&mut text).unwrap();
    act();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, Signal::SIGINT).unwrap();
    stdout.read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success());
    text
}

/// The lines an operator reads, on the way from the first failure to the summary.
fn text_tells_the_story() {
    let mut workload = Workload::start("comm=story queued=2 backlog=7 failures=5");
    let (pid, port) = (workload.pid(), workload.port());
    let text = text_of(&["--pid", &pid.to_string()], || {
        workload.fail();
    });
    let lines: Vec<_> = text.lines().collect();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let start = format!("fdtrace {}  Linux {}", env!("CARGO_PKG_VERSION"), kernel.trim());
    assert!(lines[0].starts_with(&start), "{text}");
    let who = format!("story[{pid}] 127.0.0.1:{port}  EMFILE  fds 64/64 soft (hard ");
    assert!(lines[1].contains("EXHAUSTED") && lines[1].contains(&who), "{text}");
    assert!(lines[1].ends_with("queue 2/7"), "{text}");
    let total = text.lines().find(|line| line.starts_with(&format!("story[{pid}]"))).unwrap();
    let words: Vec<_> = total.split_whitespace().collect();
    assert_eq!(words[1..4], [&format!("127.0.0.1:{port}"), "EMFILE", "5"], "{text}");
    assert_eq!(lines.last().copied(), Some("lost 0"), "{text}");
}
