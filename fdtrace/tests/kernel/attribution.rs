//! The right process, the right listener, the right numbers.

use serde_json::json;

use crate::{
    Test,
    support::{Fdtrace, number},
    workload::Workload,
};

pub(crate) const TESTS: &[Test] = &[
    ("limits_use_and_queue_at_the_first_failure", limits_use_and_queue_at_the_first_failure),
    ("another_network_namespace", another_network_namespace),
    ("a_reused_pid_is_another_process", a_reused_pid_is_another_process),
    ("a_process_that_dies_at_once_is_named", a_process_that_dies_at_once_is_named),
    ("sockets_that_share_a_port_are_one_listener", sockets_that_share_a_port_are_one_listener),
    ("socket_and_socketpair_have_no_listener", socket_and_socketpair_have_no_listener),
    ("filters_show_what_was_asked_for", filters_show_what_was_asked_for),
    ("mptcp_listeners_have_their_queue", mptcp_listeners_have_their_queue),
];

/// EMFILE comes with an empty queue too; where clients wait, the queue says how many.
fn limits_use_and_queue_at_the_first_failure() {
    for (queued, family) in [(0, "inet"), (5, "inet"), (5, "dual"), (3, "unix")] {
        let mut fdtrace = Fdtrace::start(&[]);
        let spec = format!("family={family} queued={queued} backlog=7 limit=97 failures=1");
        let mut workload = Workload::start(&spec);
        assert_eq!(workload.fail(), 1);
        let fields = json!({
            "process": { "pid": workload.pid() },
            "fds": { "open": 97, "soft": 97 },
            "accept_queue": { "length": queued, "limit": 7 },
            "count": 1,
        });
        let (_, report) = fdtrace.wait_for_report("episode_opened", &fields);
        let (_, hard) =
            nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(number(&report, "/fds/hard"), hard);
        assert!(report["process"]["exe"].is_string(), "{report}");
        assert!(report["process"]["start_time"].is_string(), "{report}");
        fdtrace.stop().assert_lost_nothing();
    }
}

fn another_network_namespace() {
    let fdtrace = Fdtrace::start(&[]);
    let mut there = Workload::start("netns=new family=any port=9088 failures=11");
    let mut here = Workload::start("family=any port=9088 failures=13");
    assert_ne!(there.ready["netns"], here.ready["netns"]);
    assert_eq!((there.fail(), here.fail()), (11, 13));
    let run = fdtrace.stop();
    for (workload, count) in [(&there, 11), (&here, 13)] {
        // net:[4026531840]
        let text = workload.ready["netns"].as_str().unwrap();
        let netns: u64 = text.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
        let fields = json!({ "listener": { "port": 9088, "netns": netns }, "failure": "EMFILE" });
        assert_eq!(run.count(&fields), count);
    }
    run.assert_lost_nothing();
}

fn a_reused_pid_is_another_process() {
    let fdtrace = Fdtrace::start(&[]);
    let mut first = Workload::start("failures=17");
    let pid = first.pid();
    assert_eq!(first.fail(), 17);
    first.end();
    let mut second = None;
    // Another process may take the number first.
    for _ in 0..200 {
        std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).unwrap();
        let candidate = Workload::start("failures=19");
        if candidate.pid() == pid {
            second = Some(candidate);
            break;
        }
    }
    let mut second = second.expect("the pid came back");
    assert_eq!(second.fail(), 19);
    let run = fdtrace.stop();
    let totals = run.totals(&json!({ "process": { "pid": pid } }));
    let mut counts: Vec<_> = totals.iter().map(|total| number(total, "/count")).collect();
    counts.sort_unstable();
    assert_eq!(counts, [17, 19], "{totals:#?}");
    assert_ne!(totals[0]["process"]["start_time"], totals[1]["process"]["start_time"]);
    run.assert_lost_nothing();
}

fn a_process_that_dies_at_once_is_named() {
    let mut fdtrace = Fdtrace::start(&[]);
    let mut workload = Workload::start("failures=1 comm=shortlived then=die");
    assert_eq!(workload.fail(), 1);
    let fields = json!({
        "process": { "pid": workload.pid(), "comm": "shortlived" },
        "listener": { "port": workload.port() },
        "fds": { "open": 64, "soft": 64 },
    });
    fdtrace.wait_for_report("episode_opened", &fields);
    fdtrace.stop().assert_lost_nothing();
}

fn sockets_that_share_a_port_are_one_listener() {
    let fdtrace = Fdtrace::start(&[]);
    let mut one = Workload::start("port=9089 reuseport=1 failures=23");
    let mut two = Workload::start("port=9089 reuseport=1 failures=29");
    assert_eq!((one.fail(), two.fail()), (23, 29));
    let run = fdtrace.stop();
    assert_eq!(run.count(&json!({ "process": { "pid": one.pid() } })), 23);
    assert_eq!(run.count(&json!({ "process": { "pid": two.pid() } })), 29);
    assert_eq!(run.count(&json!({ "listener": { "port": 9089 } })), 52);
    run.assert_lost_nothing();
}

fn socket_and_socketpair_have_no_listener() {
    let mut fdtrace = Fdtrace::start(&[]);
    for door in ["socket", "socketpair"] {
        let mut workload = Workload::start(&format!("door={door} failures=31"));
        assert_eq!(workload.fail(), 31);
        let fields = json!({
            "process": { "pid": workload.pid() },
            "door": door,
            "failure": "EMFILE",
            "listener": null,
            "target": "none",
        });
        fdtrace.wait_for_report("episode_opened", &fields);
    }
    let run = fdtrace.stop();
    for door in ["socket", "socketpair"] {
        assert_eq!(run.count(&json!({ "door": door, "failure": "EMFILE" })), 31);
    }
    run.assert_lost_nothing();
}

fn filters_show_what_was_asked_for() {
    let mut workloads =
        [Workload::start("failures=3 comm=wanted"), Workload::start("failures=5 comm=other")];
    let (pid, port) = (workloads[0].pid().to_string(), workloads[0].port().to_string());
    let filters: [&[&str]; 4] =
        [&["--pid", &pid], &["--port", &port], &["--comm", "wanted"], &["--errno", "ENFILE"]];
    let running: Vec<_> = filters.iter().map(|args| Fdtrace::start(args)).collect();
    assert_eq!((workloads[0].fail(), workloads[1].fail()), (3, 5));
    let runs: Vec<_> = running.into_iter().map(Fdtrace::stop).collect();
    for run in &runs[..3] {
        let totals = run.summary()["totals"].as_array().unwrap();
        assert_eq!(totals.len(), 1, "{totals:#?}");
        assert_eq!(number(&totals[0], "/count"), 3);
        assert_eq!(run.of_kind("episode_opened", &json!({})).len(), 1);
    }
    assert_eq!(runs[3].summary()["totals"], json!([]));
}

/// Go listens with MPTCP where it can: the queue is that of the first subflow.
fn mptcp_listeners_have_their_queue() {
    if std::fs::read_to_string("/proc/sys/net/mptcp/enabled").is_ok_and(|on| on.trim() == "1") {
        let mut fdtrace = Fdtrace::start(&[]);
        let mut workload = Workload::start("family=mptcp queued=4 backlog=9 failures=37");
        assert_eq!(workload.fail(), 37);
        let fields = json!({
            "process": { "pid": workload.pid() },
            "listener": { "family": "inet", "port": workload.port() },
            "accept_queue": { "length": 4, "limit": 9 },
        });
        fdtrace.wait_for_report("episode_opened", &fields);
        assert_eq!(fdtrace.stop().count(&json!({ "process": { "pid": workload.pid() } })), 37);
    } else {
        println!("no MPTCP on this kernel: nothing to test");
    }
}
