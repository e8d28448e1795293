//! A listener that goes away while clients are being refused.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

use super::{
    case::{Case, assert_equal},
    clients::Clients,
    segments::Segments,
};
use crate::{Test, support::Fdtrace};

pub(crate) const TESTS: &[Test] = &[
    ("a_listener_that_closes_in_a_flood", a_listener_that_closes_in_a_flood),
    ("a_process_that_is_killed_in_a_flood", a_process_that_is_killed_in_a_flood),
    ("a_queue_that_is_full_off_and_on", a_queue_that_is_full_off_and_on),
    ("an_overflow_ends_when_somebody_accepts", an_overflow_ends_when_somebody_accepts),
];

/// Refuses clients as fast as they can come, before `end` and after it; returns the outcome.
fn flood_while(label: &str, end: impl FnOnce(&mut Case)) -> String {
    let fdtrace = Fdtrace::start(&[]);
    let server = json!({ "backlog": 4, "then": ["close"] });
    let mut cases = [Case::new(label, 1, &[], &server)];
    let case = &mut cases[0];
    let waiting = Clients::knock(&case.network, &case.at("127.0.0.1"), 5);
    let segments = case.flood();
    let go_on = AtomicBool::new(true);
    thread::scope(|scope| {
        scope.spawn(|| flood(&segments, &go_on));
        thread::sleep(Duration::from_millis(500));
        end(case);
        thread::sleep(Duration::from_millis(500));
        go_on.store(false, Ordering::Relaxed);
    });
    // The kernel may close the listener between fdtrace's look at a segment and its own.
    case.off_by = 1;
    case.freeze();
    drop(waiting);
    assert!(case.kernel("ListenOverflows") > 1000, "{}", case.kernel("ListenOverflows"));
    let run = fdtrace.stop();
    assert_equal(&run, &cases);
    let closed = run.of_kind("episode_closed", &json!({ "listener": cases[0].listener() }));
    assert_eq!(closed.len(), 1, "{closed:#?}");
    closed[0]["outcome"].as_str().unwrap().to_owned()
}

fn flood(segments: &Segments, go_on: &AtomicBool) {
    let mut clients = 0..;
    while go_on.load(Ordering::Relaxed) {
        segments.syn(clients.by_ref().take(100));
    }
}

fn a_listener_that_closes_in_a_flood() {
    flood_while("closes", |case| {
        case.server.go();
        case.server.done();
    });
}

/// Then nobody is left in the namespace.
fn a_process_that_is_killed_in_a_flood() {
    let outcome = flood_while("killed", |case| {
        let pid = Pid::from_raw(i32::try_from(case.server.pid()).unwrap());
        kill(pid, Signal::SIGKILL).unwrap();
    });
    assert_eq!(outcome, "exited");
}

fn an_overflow_ends_when_somebody_accepts() {
    let mut fdtrace = Fdtrace::start(&[]);
    let server = json!({ "backlog": 4, "then": ["serve"] });
    let mut cases = [Case::new("recovers", 0, &[], &server)];
    let case = &mut cases[0];
    let clients = Clients::knock(&case.network, &case.at("127.0.0.1"), 20);
    let fields = json!({ "listener": case.listener(), "failure": "accept_queue_full" });
    fdtrace.wait_for_report("episode_opened", &fields);
    case.server.go();
    case.server.done();
    // The fifteen come again at once, perhaps faster than the server accepts, and are let in at
    // last. Nobody is refused any more for ten seconds.
    let (_, closed) = fdtrace.wait_for_report("episode_closed", &fields);
    assert_eq!(closed["outcome"], "recovered");
    case.freeze();
    drop(clients);
    case.refused = Some(15);
    assert!(case.kernel("ListenOverflows") >= 15);
    let run = fdtrace.stop();
    assert_equal(&run, &cases);
    assert_eq!(run.of_kind("episode_closed", &fields).len(), 1);
}

/// The server accepts on one CPU while clients come on another: between fdtrace's look at the queue
/// and the kernel's own there may be one connection less in it, so each connection accepted can
/// mislead fdtrace once. That is rare where the kernel looks at once, and up to a tenth of all where
/// it has a cookie to check first.
fn a_queue_that_is_full_off_and_on() {
    const ROUNDS: usize = 4;
    const CLIENTS: usize = 100;
    let fdtrace = Fdtrace::start(&[]);
    let server = json!({ "backlog": 4, "then": ["serve"] });
    let mut cases = [
        Case::new("off and on, syncookies=0", 0, &[], &server),
        Case::new("off and on, syncookies=1", 1, &[], &server),
    ];
    for (case, tolerance) in cases.iter_mut().zip([50, 5]) {
        case.server.go();
        case.server.done();
        let address = case.at("127.0.0.1");
        let crowd = || {
            let knock = |_| Clients::knock(&case.network, &address, CLIENTS);
            (0..ROUNDS).map(knock).collect::<Vec<_>>()
        };
        let crowds = thread::scope(|scope| {
            let crowds = [scope.spawn(crowd), scope.spawn(crowd)];
            crowds.map(|crowd| crowd.join().unwrap())
        });
        thread::sleep(Duration::from_millis(1500));
        case.freeze();
        drop(crowds);
        case.off_by = case.kernel("ListenOverflows") / tolerance;
    }
    assert_equal(&fdtrace.stop(), &cases);
}
