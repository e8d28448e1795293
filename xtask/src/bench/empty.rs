//! Empty programs at the attach points of fdtrace's tracepoint form: what the kernel itself charges
//! for a program there, whoever wrote it. By bpf(2) itself, so that nothing else is measured.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    libc,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use super::bpf::{
    BPF_LINK_CREATE, BPF_PROG_LOAD, BPF_RAW_TRACEPOINT_OPEN, PROG_TYPE_CGROUP_SKB,
    PROG_TYPE_RAW_TRACEPOINT, PROG_TYPE_TRACEPOINT, bpf, number, owned,
};

/// The calls whose exits fdtrace watches.
const CALLS: [&str; 5] = ["accept", "accept4", "socket", "socketpair", "listen"];
const TRACING: &str = "/sys/kernel/tracing";

// linux/bpf.h
const CGROUP_INET_INGRESS: u32 = 0;

/// The process that has them attached: a verb of its own, not meant for people.
pub(crate) fn run() -> Result<()> {
    if !Path::new(TRACING).join("events").exists() {
        // In mounts of our own, so that the host's stay as they are.
        unshare(CloneFlags::CLONE_NEWNS)?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        mount(Some("tracefs"), TRACING, Some("tracefs"), MsFlags::empty(), none)
            .with_context(|| format!("mount tracefs on {TRACING}"))?;
    }
    let mut kept = Vec::new();
    for call in CALLS {
        kept.extend(sys_exit(call).with_context(|| format!("attach to the exit of {call}"))?);
    }
    kept.extend(raw_tracepoint(c"io_uring_complete").context("attach to io_uring_complete")?);
    kept.extend(packets().context("attach to the packets of cgroup v2")?);
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "ready")?;
    stdout.flush()?;
    loop {
        nix::unistd::pause();
    }
}

fn sys_exit(call: &str) -> Result<[OwnedFd; 2]> {
    const TYPE_TRACEPOINT: u32 = 2;
    const SET_BPF: libc::c_ulong = 0x4004_2408;
    const ENABLE: libc::c_ulong = 0x2400;
    let path = format!("{TRACING}/events/syscalls/sys_exit_{call}/id");
    let id: u64 = fs::read_to_string(&path).context(path)?.trim().parse()?;
    let program = load(PROG_TYPE_TRACEPOINT)?;
    // struct perf_event_attr of linux/perf_event.h, as far as version 0: type, size, config,
    // sample_period.
    let mut attr = [0_u64; 8];
    attr[0] = u64::from(TYPE_TRACEPOINT) | 64 << 32;
    attr[1] = id;
    attr[2] = 1;
    // SAFETY: the kernel reads the 64 bytes that the size in it says.
    let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, attr.as_ptr(), -1, 0, -1, 8) };
    let event = owned(fd).context("perf_event_open")?;
    for (request, argument) in [(SET_BPF, program.as_raw_fd()), (ENABLE, 0)] {
        // SAFETY: numbers only.
        let result = unsafe { libc::ioctl(event.as_raw_fd(), request, argument) };
        Errno::result(result)?;
    }
    Ok([program, event])
}

fn raw_tracepoint(name: &std::ffi::CStr) -> Result<[OwnedFd; 2]> {
    let program = load(PROG_TYPE_RAW_TRACEPOINT)?;
    let mut attr = [name.as_ptr().addr() as u64, number(&program)?];
    let link = owned(bpf(BPF_RAW_TRACEPOINT_OPEN, &mut attr)?)?;
    Ok([program, link])
}

fn packets() -> Result<[OwnedFd; 2]> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let root = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|words| words.get(2) == Some(&"cgroup2"))
        .context("cgroup v2 is not mounted")?[1];
    let root = File::open(Path::new(root))?;
    let program = load(PROG_TYPE_CGROUP_SKB)?;
    let cgroup = u64::try_from(root.as_raw_fd())?;
    let mut attr = [number(&program)? | cgroup << 32, u64::from(CGROUP_INET_INGRESS)];
    let link = owned(bpf(BPF_LINK_CREATE, &mut attr)?)?;
    Ok([program, link])
}

/// A program that says 1 (for a packet: let it pass) and nothing else.
fn load(program_type: u32) -> Result<OwnedFd> {
    // r0 = 1; exit
    let code = [0x0000_0001_0000_00b7_u64, 0x95];
    let mut attr = [0_u64; 9];
    attr[0] = u64::from(program_type) | 2 << 32;
    attr[1] = code.as_ptr().addr() as u64;
    attr[2] = c"GPL".as_ptr().addr() as u64;
    owned(bpf(BPF_PROG_LOAD, &mut attr).context("load an empty program")?)
}
