//! What a daemon may do once it is attached.

use std::fs;

use nix::libc::c_ulong;

use super::quiet;
use crate::{
    Test,
    host::{drop_capability, mount_tracefs},
    support::{Daemon, form_arguments},
    workload::Workload,
};

pub(crate) const TESTS: &[Test] = &[
    ("a_daemon_keeps_what_it_needs", a_daemon_keeps_what_it_needs),
    ("a_daemon_is_given_no_more", a_daemon_is_given_no_more),
];

const DAC_READ_SEARCH: c_ulong = 2;
const NET_ADMIN: c_ulong = 12;
const SYS_PTRACE: c_ulong = 19;
const SYS_ADMIN: c_ulong = 21;
const PERFMON: c_ulong = 38;
const BPF: c_ulong = 39;

fn set(capabilities: &[c_ulong]) -> u64 {
    capabilities.iter().map(|number| 1 << number).sum()
}

/// A field of each thread's status, which must all be the same.
#[track_caller]
fn status(daemon: &Daemon, field: &str) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap();
    let of = |text: String| {
        let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
    };
    let texts = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("status")).unwrap());
    let all: Vec<_> = texts.map(of).collect();
    assert!(all.len() > 1 && all.iter().all(|one| *one == all[0]), "{field}: {all:x?}");
    all[0]
}

/// What it is to have, of what it was given.
#[track_caller]
fn assert_keeps(daemon: &Daemon, kept: &[c_ulong]) {
    let on_packets = daemon.metric("fdtrace_probe_up", &["form=\"cgroup_skb\""]) > 0.5;
    let packets = if on_packets { set(&[NET_ADMIN]) } else { 0 };
    let expected = set(kept) | packets;
    // Before 5.19, maps take it.
    let may = expected | set(&[BPF]);
    let effective = status(daemon, "CapEff");
    assert!(effective == expected || effective == may, "{effective:x}, not {expected:x}");
    assert_eq!(status(daemon, "CapPrm"), effective);
    for empty in ["CapInh", "CapAmb"] {
        assert_eq!(status(daemon, empty), 0, "{empty}");
    }
    assert_eq!(status(daemon, "NoNewPrivs"), 1);
}

/// And counts on, with slots given back and another configuration.
#[track_caller]
fn assert_counts(daemon: &Daemon) {
    let count = |comm: &str| {
        let process = format!("process=\"{comm}\"");
        daemon.metric("fdtrace_failures_total", &[&process, "unit="]).to_string()
    };
    Workload::start("failures=67 comm=daemon-less").fail();
    assert_eq!(count("daemon-less"), "67");
    daemon.reload(&quiet(""));
    let mut workload = Workload::start("failures=31 comm=daemon-less");
    workload.fail();
    assert_eq!(count("daemon-less"), "98");
    assert!(daemon.metric("fdtrace_lost_total", &["kind=\"failures\""]) < 0.1);
    let stderr = daemon.stderr();
    assert!(!stderr.contains("may do more"), "{stderr}");
}

fn a_daemon_keeps_what_it_needs() {
    let daemon = Daemon::start(&quiet(""));
    assert_keeps(&daemon, &[SYS_ADMIN, SYS_PTRACE, DAC_READ_SEARCH]);
    assert_eq!(status(&daemon, "CapBnd"), 0);
    assert_counts(&daemon);
    assert!(daemon.stop().status.success());
}

/// As in deploy/: it does not ask for what it was not given.
fn a_daemon_is_given_no_more() {
    if form_arguments().contains(&"--form".to_owned()) {
        println!("  Debian's kernels ask for more for some forms; the best one needs no more");
        return;
    }
    let kept = [BPF, PERFMON, NET_ADMIN, SYS_PTRACE, DAC_READ_SEARCH];
    let daemon = Daemon::start_changed(&quiet(""), move |_| {
        mount_tracefs()?;
        (0..=40).filter(|number| !kept.contains(number)).try_for_each(drop_capability)
    });
    assert_keeps(&daemon, &[SYS_PTRACE, DAC_READ_SEARCH]);
    // It takes another to give that up.
    assert_eq!(status(&daemon, "CapBnd"), set(&kept));
    assert_counts(&daemon);
    assert!(daemon.stop().status.success());
}
