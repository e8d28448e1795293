//! Whose listener it is. A segment is refused where no process is current.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    case::{Case, assert_equal, wait_and_freeze},
    clients::Clients,
};
use crate::{
    Test,
    support::{Fdtrace, number, same},
};

pub(crate) const TESTS: &[Test] = &[
    ("all_processes_that_share_a_listener_are_its_owners", all_processes_that_share_a_listener),
    ("a_listener_may_be_older_than_fdtrace", a_listener_may_be_older_than_fdtrace),
    ("refusals_belong_to_the_exhaustion_that_causes_them", refusals_belong_to_the_exhaustion),
    ("refusals_before_the_exhaustion_are_an_overflow", refusals_before_the_exhaustion),
];

fn all_processes_that_share_a_listener() {
    let server = json!({ "backlog": 4, "children": 3 });
    let older = Case::new("pre-forked, older", 1, &[], &server);
    let fdtrace = Fdtrace::start(&[]);
    let mut cases = [older, Case::new("pre-forked, younger", 1, &[], &server)];
    let clients: Vec<_> =
        cases.iter().map(|case| Clients::knock(&case.network, &case.at("127.0.0.1"), 20)).collect();
    wait_and_freeze(&mut cases, Duration::from_millis(1500));
    drop(clients);
    for case in &mut cases {
        case.refused = Some(15);
    }
    let run = fdtrace.stop();
    assert_equal(&run, &cases);
    for case in &cases {
        let children = case.server.ready["children"].as_array().unwrap();
        let mut all: Vec<_> = children.iter().map(|pid| pid.as_u64().unwrap()).collect();
        all.push(case.server.pid().into());
        all.sort_unstable();
        let closed = run.of_kind("episode_closed", &json!({ "listener": case.listener() }));
        let totals = run.totals(&json!({ "listener": case.listener() }));
        for report in [closed[0], totals[0]] {
            let processes = report["processes"].as_array().unwrap();
            let mut found: Vec<_> =
                processes.iter().map(|process| number(process, "/pid")).collect();
            found.sort_unstable();
            assert_eq!(found, all, "{}: {report}", case.label);
        }
    }
}

/// Refused before fdtrace came is not refused under its eyes.
fn a_listener_may_be_older_than_fdtrace() {
    let mut cases = [Case::new("older", 1, &[], &json!({ "backlog": 4 }))];
    let case = &mut cases[0];
    let waiting = Clients::knock(&case.network, &case.at("127.0.0.1"), 5);
    thread::sleep(Duration::from_millis(50));
    let segments = case.segments();
    segments.syn(0..100);
    case.forget();
    let mut fdtrace = Fdtrace::start(&[]);
    let start = Instant::now();
    segments.syn(0..70);
    // Another, of the same clients and of new ones.
    segments.syn(60..80);
    // Nobody saw who called listen: the owner is looked for in /proc.
    let fields = json!({ "listener": case.listener(), "process": { "pid": case.server.pid() } });
    let (at, _) = fdtrace.wait_for_report("episode_opened", &fields);
    let latency = at - start;
    println!("  reported after {latency:?}");
    assert!(latency < Duration::from_secs(1), "{latency:?}");
    case.freeze();
    drop(waiting);
    case.refused = Some(80);
    case.assert_kernel([
        ("ListenOverflows", 90),
        ("ListenDrops", 90),
        ("TCPReqQFullDrop", 0),
        ("TCPReqQFullDoCookies", 0),
    ]);
    assert_equal(&fdtrace.stop(), &cases);
}

/// A process that cannot accept makes its queue overflow: one episode, with both.
fn refusals_belong_to_the_exhaustion() {
    let fdtrace = Fdtrace::start(&[]);
    let server = json!({ "backlog": 4, "fds": 64, "failures": 40, "then": ["fail"] });
    let mut cases = [Case::new("exhausted", 1, &[], &server)];
    let case = &mut cases[0];
    case.server.go();
    thread::sleep(Duration::from_millis(100));
    let clients = Clients::knock(&case.network, &case.at("127.0.0.1"), 20);
    // Twice a second's wait, and the clients have come three times.
    let failures = number(&case.server.done(), "/failures");
    case.freeze();
    drop(clients);
    let run = fdtrace.stop();
    assert_equal(&run, &cases);
    let case = &cases[0];
    let listener = json!({ "listener": case.listener() });
    for kind in ["episode_opened", "episode_closed"] {
        let reports = run.of_kind(kind, &listener);
        assert_eq!(reports.len(), 1, "{reports:#?}");
        assert_eq!(reports[0]["failure"], "EMFILE", "{}", reports[0]);
    }
    let closed = run.of_kind("episode_closed", &listener)[0];
    assert_eq!(number(closed, "/count"), failures);
    let attempts = case.kernel("ListenOverflows");
    // Each of them came twice at least, also on a machine that is slow.
    assert!(attempts >= 20, "{attempts}");
    assert_eq!(number(closed, "/refused/attempts"), attempts);
    let connections = number(closed, "/refused/connections");
    assert!(connections.abs_diff(15) <= 2, "{connections}");
}

/// Clients were refused before the process reached its limit: that was not the reason then.
fn refusals_before_the_exhaustion() {
    let mut fdtrace = Fdtrace::start(&[]);
    let server = json!({ "backlog": 4, "fds": 64, "failures": 30, "then": ["fail"] });
    let mut cases = [Case::new("overflow, then exhausted", 1, &[], &server)];
    let case = &mut cases[0];
    let clients = Clients::knock(&case.network, &case.at("127.0.0.1"), 20);
    thread::sleep(Duration::from_millis(500));
    case.server.go();
    case.server.done();
    // From then on it was.
    let overflow = json!({ "listener": case.listener(), "failure": "accept_queue_full" });
    let is_it = |report: &Value| {
        let found = report["diagnoses"].as_array().into_iter().flatten();
        same(report, &overflow) && found.into_iter().any(|one| one["cause"] == "accept_fails")
    };
    let (_, said) = fdtrace.wait_for(is_it, "diagnosis of the overflow as a consequence");
    let found = &said["diagnoses"][0];
    assert_eq!((&found["cause"], &found["certainty"]), (&"accept_fails".into(), &"certain".into()));
    assert!(found["why"].as_str().unwrap().starts_with("accept fails with EMFILE"), "{found}");
    case.freeze();
    drop(clients);
    let run = fdtrace.stop();
    assert_equal(&run, &cases);
    let case = &cases[0];
    let closed = run.of_kind("episode_closed", &json!({ "listener": case.listener() }));
    let of_queue = closed.iter().find(|report| report["failure"] == "accept_queue_full");
    assert_eq!(of_queue.unwrap()["cause"], "accept_fails", "{closed:#?}");
    let failures: Vec<_> = closed.iter().map(|report| report["failure"].as_str()).collect();
    assert!(failures.contains(&Some("EMFILE")), "{failures:?}");
    assert!(failures.contains(&Some("accept_queue_full")), "{failures:?}");
    // Each refusal is in one of them.
    let attempts = closed.iter().filter_map(|report| report["refused"]["attempts"].as_u64());
    assert_eq!(attempts.sum::<u64>(), case.kernel("ListenOverflows"), "{closed:#?}");
}
