//! What happens to fdtrace itself: it is killed, or stopped in a storm.

use std::{
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

use crate::{Test, support::Fdtrace, workload::Workload};

pub(crate) const TESTS: &[Test] = &[
    ("killed_it_leaves_nothing_behind", killed_it_leaves_nothing_behind),
    ("stopped_in_a_storm_it_counts_on", stopped_in_a_storm_it_counts_on),
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
