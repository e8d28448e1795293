//! What happens to fdtrace itself: it is killed, or stopped in a storm.

use std::{
    io::{BufRead as _, BufReader},
    os::fd::AsRawFd as _,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    libc,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{
    Test,
    support::{Fdtrace, binary, form_arguments},
    workload::Workload,
};

pub(crate) const TESTS: &[Test] = &[
    ("killed_it_leaves_nothing_behind", killed_it_leaves_nothing_behind),
    ("stopped_in_a_storm_it_counts_on", stopped_in_a_storm_it_counts_on),
    ("a_reader_that_pauses_stops_nothing", a_reader_that_pauses_stops_nothing),
];

/// A program that every form but fexit and kprobe has, and one of each of those.
const OURS: [&str; 3] = ["accept_exit_tp", "accept_fx", "accept_kr"];

/// Ids of programs of this name that the kernel has.
fn programs() -> Vec<u32> {
    let loaded = aya::programs::loaded_programs().filter_map(Result::ok);
    let ours =
        loaded.filter(|program| program.name_as_str().is_some_and(|name| OURS.contains(&name)));
    ours.map(|program| program.id()).collect()
}

fn killed_it_leaves_nothing_behind() {
    let before = programs();
    let fdtrace = Fdtrace::start(&[]);
    let its: Vec<_> = programs().into_iter().filter(|id| !before.contains(id)).collect();
    assert!(!its.is_empty(), "none of {OURS:?} is loaded: this test tests nothing");
    let mut workload = Workload::start("failures=200000");
    workload.go();
    let pid = Pid::from_raw(i32::try_from(fdtrace.pid()).unwrap());
    kill(pid, Signal::SIGKILL).unwrap();
    drop(fdtrace);
    workload.done();
    let begun = Instant::now();
    while programs().iter().any(|id| its.contains(id)) {
        assert!(begun.elapsed() < Duration::from_secs(30), "a program is still loaded");
        thread::sleep(Duration::from_millis(50));
    }
    // The next one begins anew.
    let fdtrace = Fdtrace::start(&[]);
    let mut workload = Workload::start("failures=1009");
    assert_eq!(workload.fail(), 1009);
    assert_eq!(fdtrace.stop().count(&json!({ "process": { "pid": workload.pid() } })), 1009);
}

fn stopped_in_a_storm_it_counts_on() {
    const MANY: u64 = 500_009;
    let fdtrace = Fdtrace::start(&[]);
    let pid = Pid::from_raw(i32::try_from(fdtrace.pid()).unwrap());
    let mut workloads: Vec<_> =
        (0..4).map(|_| Workload::start(&format!("failures={MANY}"))).collect();
    workloads.iter_mut().for_each(Workload::go);
    kill(pid, Signal::SIGSTOP).unwrap();
    for workload in &mut workloads {
        workload.done();
    }
    thread::sleep(Duration::from_secs(10));
    kill(pid, Signal::SIGCONT).unwrap();
    let run = fdtrace.stop();
    for workload in &workloads {
        assert_eq!(run.count(&json!({ "process": { "pid": workload.pid() } })), MANY);
    }
    run.assert_lost_nothing();
}

/// As a pager does: processes that are gone before somebody reads on are known all the same.
fn a_reader_that_pauses_stops_nothing() {
    const MANY: usize = 60;
    let mut child = Command::new(binary())
        .arg("--json")
        .args(form_arguments())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = child.stdout.take().unwrap();
    // SAFETY: a descriptor that is open, and a number.
    unsafe { libc::fcntl(stdout.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) };
    let mut stdout = BufReader::new(stdout);
    let mut started = String::new();
    stdout.read_line(&mut started).unwrap();
    for _ in 0..MANY {
        let mut workload = Workload::start("failures=7 comm=pager");
        workload.fail();
        // Time enough for whoever looks.
        thread::sleep(Duration::from_millis(100));
        workload.end();
    }
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
    thread::sleep(Duration::from_millis(500));
    let lines: Vec<Value> =
        stdout.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    assert!(child.wait().unwrap().success());
    let of = |line: &&Value| line["process"]["comm"] == "pager";
    let opened = lines.iter().filter(|line| line["kind"] == "episode_opened").filter(of);
    let known = opened.filter(|line| line["process"]["exe"].is_string()).count();
    // On a slow machine some are gone before anybody looks. If it waited for the reader, there would be
    // as many as a pipe has room for: three.
    assert!(known > 10, "{known}");
    let summary = lines.last().unwrap();
    let totals = summary["totals"].as_array().unwrap().iter().filter(of);
    let count: u64 = totals.map(|total| total["count"].as_u64().unwrap()).sum();
    assert_eq!(count, 7 * MANY as u64, "{summary}");
}
