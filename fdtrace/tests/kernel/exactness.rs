//! Every failure is counted, or declared lost.

use serde_json::json;

use crate::{
    Test,
    support::{Fdtrace, number},
    workload::Workload,
};

pub(crate) const TESTS: &[Test] = &[
    ("every_family_and_door", every_family_and_door),
    ("ten_processes_at_once", ten_processes_at_once),
    ("sixteen_threads_of_one_process", sixteen_threads_of_one_process),
    ("forked_children_on_one_listener", forked_children_on_one_listener),
    ("storm_of_three_million_on_two_cores", storm_of_three_million_on_two_cores),
    ("too_few_keys_are_declared_lost", too_few_keys_are_declared_lost),
    ("a_full_ring_loses_no_count_and_no_name", a_full_ring_loses_no_count_and_no_name),
    ("full_perf_buffers_lose_no_count_and_no_name", full_perf_buffers_lose_no_count_and_no_name),
    ("keys_of_gone_processes_are_given_back", keys_of_gone_processes_are_given_back),
    ("two_fdtrace_at_once_are_both_right", two_fdtrace_at_once_are_both_right),
];

/// A prime, so that no multiple of anything else passes for it.
const MANY: u64 = 1009;

fn every_family_and_door() {
    let fdtrace = Fdtrace::start(&[]);
    let mut expected = Vec::new();
    for family in ["inet", "any", "inet6", "dual", "unix", "abstract"] {
        for door in ["accept", "accept4"] {
            let spec = format!("family={family} door={door} failures={MANY}");
            let mut workload = Workload::start(&spec);
            assert_eq!(workload.fail(), MANY);
            let kind = if family.starts_with("inet6") || family == "dual" {
                "inet6"
            } else if family == "unix" || family == "abstract" {
                "unix"
            } else {
                "inet"
            };
            let address = match family {
                "inet" => json!("127.0.0.1"),
                "any" => json!("0.0.0.0"),
                "inet6" => json!("::1"),
                "dual" => json!("::"),
                _ => json!(null),
            };
            let listener = json!({
                "family": kind,
                "address": address,
                "port": workload.ready["port"],
                "path": workload.ready["path"],
            });
            expected.push(json!({
                "process": { "pid": workload.pid() },
                "listener": listener,
                "failure": "EMFILE",
                "door": door,
                "count": MANY,
            }));
            workload.end();
        }
    }
    let run = fdtrace.stop();
    for total in expected {
        assert_eq!(run.totals(&total).len(), 1, "{total} not in {:#}", run.summary());
    }
    run.assert_lost_nothing();
}

fn ten_processes_at_once() {
    let fdtrace = Fdtrace::start(&[]);
    let spec = format!("failures={}", MANY * 10);
    let mut workloads: Vec<_> = (0..10).map(|_| Workload::start(&spec)).collect();
    workloads.iter_mut().for_each(Workload::go);
    let expected: Vec<_> = workloads
        .iter_mut()
        .map(|workload| {
            let failures = workload.done()["failures"].as_u64().unwrap();
            (workload.pid(), workload.port(), failures)
        })
        .collect();
    let run = fdtrace.stop();
    for (pid, port, failures) in expected {
        let fields = json!({ "process": { "pid": pid }, "listener": { "port": port } });
        assert_eq!(run.count(&fields), failures);
    }
    run.assert_lost_nothing();
}

fn sixteen_threads_of_one_process() {
    let fdtrace = Fdtrace::start(&[]);
    let mut workload = Workload::start(&format!("threads=16 failures={MANY} comm=leader"));
    let failures = workload.fail();
    assert_eq!(failures, MANY * 16);
    let run = fdtrace.stop();
    // One line: a process, under its own name and not under a thread's.
    let fields = json!({ "process": { "pid": workload.pid() } });
    let totals = run.totals(&fields);
    assert_eq!(totals.len(), 1, "{totals:#?}");
    assert_eq!(number(totals[0], "/count"), failures);
    assert_eq!(totals[0]["process"]["comm"], "leader");
    run.assert_lost_nothing();
}

fn forked_children_on_one_listener() {
    let fdtrace = Fdtrace::start(&[]);
    let mut workload = Workload::start(&format!("forks=7 failures={MANY}"));
    workload.go();
    let children: Vec<_> = (0..7).map(|_| workload.line("child")).collect();
    workload.done();
    let run = fdtrace.stop();
    for child in children {
        let fields = json!({
            "process": { "pid": child["pid"] },
            "listener": { "port": workload.port() },
        });
        assert_eq!(run.count(&fields), child["failures"].as_u64().unwrap());
    }
    assert_eq!(run.count(&json!({ "listener": { "port": workload.port() } })), MANY * 7);
    run.assert_lost_nothing();
}

fn storm_of_three_million_on_two_cores() {
    let fdtrace = Fdtrace::start(&[]);
    let mut workloads =
        [Workload::start("failures=1500000"), Workload::start("failures=1500000 door=accept")];
    workloads.iter_mut().for_each(Workload::go);
    for workload in &mut workloads {
        assert_eq!(workload.done()["failures"], 1_500_000);
    }
    let run = fdtrace.stop();
    for workload in &workloads {
        let fields = json!({ "process": { "pid": workload.pid() }, "failure": "EMFILE" });
        assert_eq!(run.count(&fields), 1_500_000);
    }
    run.assert_lost_nothing();
}

fn too_few_keys_are_declared_lost() {
    // A stray failure of another process takes a slot or is lost itself: then nothing can be said,
    // and it is done again.
    let is_quiet = (0..5).any(|_| too_few_keys());
    assert!(is_quiet, "other processes of this host fail all the time");
}

/// False where another process failed meanwhile.
fn too_few_keys() -> bool {
    const KEYS: u64 = 4;
    let fdtrace = Fdtrace::start(&["--max-keys", "4", "--verbose"]);
    let witness = Fdtrace::start(&[]);
    let mut workloads: Vec<_> =
        (0..10).map(|_| Workload::start(&format!("failures={MANY}"))).collect();
    let truth: u64 = workloads.iter_mut().map(Workload::fail).sum();
    let (run, witness) = (fdtrace.stop(), witness.stop());
    let all = json!({});
    if witness.count(&all) != truth {
        return false;
    }
    assert_eq!(run.count(&all), MANY * KEYS);
    assert_eq!(run.count(&all) + run.lost("keys_full"), truth);
    assert!(!run.of_kind("lost", &all).is_empty(), "the loss was not reported live");
    // The programs' own log is a ring buffer, which old kernels lack.
    let has_log = std::env::var("FDTRACE_TEST_BUFFER").is_err();
    assert_eq!(run.stderr.contains("no slot is free"), has_log, "{}", run.stderr);
    true
}

fn a_full_ring_loses_no_count_and_no_name() {
    full_buffer_loses_no_count_and_no_name("ring", 7);
}

fn full_perf_buffers_lose_no_count_and_no_name() {
    full_buffer_loses_no_count_and_no_name("perf", MANY);
}

/// A page holds some 13 records; 120 processes fail before anybody reads.
fn full_buffer_loses_no_count_and_no_name(buffer: &str, failures: u64) {
    let spec = format!("failures={failures}");
    let mut workloads: Vec<_> = (0..120).map(|_| Workload::start(&spec)).collect();
    let fdtrace = Fdtrace::start(&["--ring-bytes", "4096", "--buffer", buffer]);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(fdtrace.pid()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    for workload in &mut workloads {
        assert_eq!(workload.fail(), failures);
    }
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
    let run = fdtrace.stop();
    assert!(!run.of_kind("lost", &json!({})).is_empty(), "the loss was not reported live");
    assert!(run.lost("ring_full") > 0, "the buffer was never full: this test tests nothing");
    for workload in &workloads {
        let fields = json!({
            "process": { "pid": workload.pid() },
            "listener": { "port": workload.port() },
        });
        assert_eq!(run.count(&fields), failures);
    }
}

fn keys_of_gone_processes_are_given_back() {
    // 18 processes through 8 slots, six at a time: two are left for others that may fail.
    const ROUND: usize = 6;
    let mut fdtrace = Fdtrace::start(&["--max-keys", "8"]);
    let mut pids = Vec::new();
    for _ in 0..3 {
        for _ in 0..ROUND {
            let mut workload = Workload::start(&format!("failures={MANY}"));
            assert_eq!(workload.fail(), MANY);
            pids.push(workload.pid());
            workload.end();
        }
        let mut gone = pids[pids.len() - ROUND..].to_vec();
        while !gone.is_empty() {
            let outcome = json!({ "outcome": "exited" });
            let (_, report) = fdtrace.wait_for_report("episode_closed", &outcome);
            gone.retain(|pid| u64::from(*pid) != number(&report, "/process/pid"));
        }
        // The slots are free a tick or two after the process was seen to be gone.
        std::thread::sleep(std::time::Duration::from_secs(4));
    }
    let run = fdtrace.stop();
    for pid in pids {
        assert_eq!(run.count(&json!({ "process": { "pid": pid } })), MANY);
    }
    run.assert_lost_nothing();
}

fn two_fdtrace_at_once_are_both_right() {
    let both = [Fdtrace::start(&[]), Fdtrace::start(&[])];
    let mut workload = Workload::start(&format!("failures={MANY}"));
    assert_eq!(workload.fail(), MANY);
    for fdtrace in both {
        let run = fdtrace.stop();
        assert_eq!(run.count(&json!({ "process": { "pid": workload.pid() } })), MANY);
        run.assert_lost_nothing();
    }
}
