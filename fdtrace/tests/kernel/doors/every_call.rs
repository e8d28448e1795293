//! With `--fds`, every call that gives out a descriptor is counted when there is none to give.

use serde_json::{Value, json};

use super::{
    calls::{self, LIMIT, NOT_EXHAUSTED, PREPARED},
    fdtrace,
    seen::{Sight, assert_counted, counted},
};
use crate::{Test, support::number, workload::Workload};

pub(super) const TESTS: &[Test] = &[
    ("every_call_at_its_limit", every_call_at_its_limit),
    ("half_a_pair_is_one_failure", half_a_pair_is_one_failure),
    ("mounts_at_the_limit", mounts),
    ("a_bad_argument_at_the_limit_is_no_exhaustion", bad_arguments),
    ("without_fds_only_what_takes_clients_is_counted", without_fds),
    ("an_open_that_fails_has_an_episode_and_its_limit", an_open_has_an_episode),
    ("storm_of_a_million_opens_and_dups", storm),
];

/// What each call failed with; `answers` of a workload.
#[track_caller]
fn failures(answers: &Value) -> Vec<(&'static str, &'static str, u64)> {
    let mut failures = Vec::new();
    for (place, call) in calls::all().enumerate() {
        let (count, answer) = (calls::times(place), &answers[call.name]);
        if *answer == json!({ "EMFILE": count }) {
            failures.push((call.door, "EMFILE", count));
        } else {
            // The kernel was built without it, or it is switched off.
            let absent = ["ENOSYS", "EOPNOTSUPP", "ENOPROTOOPT"];
            let is_absent = absent.iter().any(|errno| *answer == json!({ *errno: count }));
            assert!(is_absent, "{}: {answer}", call.name);
            println!("  {}: not on this kernel: {answer}", call.name);
        }
    }
    failures
}

fn every_call_at_its_limit() {
    let fdtrace = fdtrace(&["--fds"]);
    let mut workload = Workload::start("doors=calls");
    workload.go();
    let truth = failures(&workload.done()["answers"]);
    let run = fdtrace.stop();
    assert_counted(&run, workload.pid(), &truth);
    for total in run.totals(&json!({ "process": { "pid": workload.pid() } })) {
        let accepts = total["door"].as_str().unwrap().starts_with("accept");
        assert_eq!(total["listener"].is_null(), !accepts, "{total}");
    }
}

/// The first descriptor of two is there, the second is not.
fn half_a_pair_is_one_failure() {
    let fdtrace = fdtrace(&["--fds"]);
    let mut truth = Vec::new();
    for (call, times) in [("pipe2", 83_u64), ("socketpair", 89)] {
        let mut workload =
            Workload::start(&format!("doors=calls room=1 call={call} failures={times}"));
        workload.go();
        assert_eq!(workload.done()["answers"][call], json!({ "EMFILE": times }));
        truth.push((workload.pid(), call, times));
    }
    let run = fdtrace.stop();
    for (pid, door, times) in truth {
        assert_counted(&run, pid, &[(door, "EMFILE", times)]);
    }
}

/// Each attempt takes a file system that nobody tried to mount.
fn mounts() {
    let fdtrace = fdtrace(&["--fds"]);
    let failures = PREPARED as u64;
    let mut workload = Workload::start(&format!("doors=calls call=fsmount failures={failures}"));
    workload.go();
    assert_eq!(workload.done()["answers"]["fsmount"], json!({ "EMFILE": failures }));
    assert_counted(&fdtrace.stop(), workload.pid(), &[("fsmount", "EMFILE", failures)]);
}

fn bad_arguments() {
    let fdtrace = fdtrace(&["--fds"]);
    let mut workload = Workload::start("doors=calls call=not_exhausted");
    workload.go();
    let answers = workload.done();
    for (errno, call) in NOT_EXHAUSTED {
        let name = format!("{} {errno:?}", call.name);
        assert_eq!(answers["answers"][&name], json!({ format!("{errno:?}"): 97 }), "{name}");
    }
    let run = fdtrace.stop();
    assert_counted(&run, workload.pid(), &[]);
}

fn without_fds() {
    let fdtrace = fdtrace(&[]);
    let mut workload = Workload::start("doors=calls");
    workload.go();
    let mut truth = failures(&workload.done()["answers"]);
    truth.retain(|(door, ..)| ["accept", "accept4", "socket", "socketpair"].contains(door));
    assert_eq!(truth.len(), 4);
    let run = fdtrace.stop();
    assert_counted(&run, workload.pid(), &truth);
}

/// The limit that was hit is named, also where the call is no server's.
fn an_open_has_an_episode() {
    // inotify has a limit of its own, and it is not that one.
    for call in ["openat", "inotify_init1"] {
        let mut fdtrace = fdtrace(&["--fds"]);
        let mut workload = Workload::start(&format!("doors=calls call={call} failures=3"));
        workload.go();
        workload.done();
        let fields = json!({
            "process": { "pid": workload.pid() },
            "listener": null,
            "target": "none",
            "failure": "EMFILE",
            "door": call,
            "fds": { "open": LIMIT, "soft": LIMIT },
            "limit": { "kind": "nofile", "value": LIMIT },
            "file_handles": null,
        });
        fdtrace.wait_for_report("episode_opened", &fields);
        let run = fdtrace.stop();
        let closed = run.of_kind("episode_closed", &json!({ "process": fields["process"] }));
        assert_eq!(closed.len(), 1);
        assert_eq!(number(closed[0], "/count"), 3);
        assert_counted(&run, workload.pid(), &[(call, "EMFILE", 3)]);
    }
}

fn storm() {
    const MANY: u64 = 500_009;
    let fdtrace = fdtrace(&["--fds"]);
    let calls = ["openat", "dup"];
    let start = |call| Workload::start(&format!("doors=calls call={call} failures={MANY}"));
    let mut workloads = calls.map(start);
    workloads.iter_mut().for_each(Workload::go);
    for (workload, call) in workloads.iter_mut().zip(calls) {
        assert_eq!(workload.done()["answers"][call], json!({ "EMFILE": MANY }));
    }
    let run = fdtrace.stop();
    let sight = Sight::of(&run);
    for (workload, call) in workloads.iter().zip(calls) {
        assert!(sight.sees(call));
        let expected = [((call.to_owned(), "EMFILE".to_owned()), MANY)];
        assert_eq!(counted(&run, workload.pid()), expected.into(), "{:#}", run.summary());
    }
    run.assert_lost_nothing();
}
