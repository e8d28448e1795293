//! What happens to fdtrace itself and to the host below it: it is killed, stopped in a storm, the
//! clock is set, cgroups go away, /proc is hidden, nobody reads what it says.

mod clock;
mod hidden;
mod killed;
mod reader;
mod removed;

use std::{thread, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

pub(crate) use removed::{Cgroup, cgroup2};

use crate::{Test, support::Fdtrace, workload::Workload};

pub(crate) const TESTS: &[&[Test]] = &[
    killed::TESTS,
    &[("stopped_in_a_storm_it_counts_on", stopped_in_a_storm_it_counts_on)],
    clock::TESTS,
    removed::TESTS,
    hidden::TESTS,
    reader::TESTS,
];

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
