//! Nothing is refused: nothing is reported.

use std::{io::Read as _, net::TcpStream, thread, time::Duration};

use serde_json::json;

use super::{
    case::{Case, assert_equal},
    clients::Clients,
    segments::{ACK, PSH},
};
use crate::{
    Test,
    support::{Fdtrace, Run},
};

pub(crate) const TESTS: &[Test] = &[
    ("a_healthy_listener_is_not_mentioned", a_healthy_listener_is_not_mentioned),
    ("a_deferred_accept_is_no_refusal", a_deferred_accept_is_no_refusal),
    ("a_deferred_accept_on_a_full_queue", a_deferred_accept_on_a_full_queue),
];

#[track_caller]
fn assert_silent(run: &Run, case: &Case) {
    case.assert_kernel([
        ("ListenOverflows", 0),
        ("ListenDrops", 0),
        ("TCPReqQFullDrop", 0),
        ("TCPReqQFullDoCookies", 0),
    ]);
    let port = case.port();
    let spoken: Vec<_> = run
        .reports
        .iter()
        .filter(|(_, report)| report.pointer("/listener/port").is_some_and(|its| *its == port))
        .collect();
    assert!(spoken.is_empty(), "{spoken:?}");
}

fn a_healthy_listener_is_not_mentioned() {
    const CLIENTS: usize = 10_000;
    const THREADS: usize = 4;
    let fdtrace = Fdtrace::start(&[]);
    let server = json!({ "backlog": 128, "then": ["serve"] });
    let mut cases = [Case::new("healthy", 1, &[], &server)];
    let case = &mut cases[0];
    case.server.go();
    case.server.done();
    let address = case.at("127.0.0.1");
    case.network.enter(|| {
        // Threads are born where their parent is.
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..CLIENTS / THREADS {
                        let mut client = TcpStream::connect(&address).unwrap();
                        // The server closes when it has accepted: so few are on their way at once.
                        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
                    }
                });
            }
        });
    });
    case.freeze();
    let run = fdtrace.stop();
    assert_equal(&run, &cases);
    assert_silent(&run, &cases[0]);
}

/// Each bare ACK is dropped on purpose, and adds to the listener's sk_drops.
fn a_deferred_accept_is_no_refusal() {
    let fdtrace = Fdtrace::start(&[]);
    let server = json!({ "backlog": 128, "defer_accept": 5, "then": ["drops"] });
    let mut cases = [Case::new("deferred", 1, &[], &server)];
    let case = &mut cases[0];
    let clients = Clients::knock(&case.network, &case.at("127.0.0.1"), 100);
    thread::sleep(Duration::from_millis(50));
    clients.talk();
    case.freeze();
    case.server.go();
    let drops = case.server.done()["drops"].as_u64().unwrap();
    assert!(drops >= clients.len(), "sk_drops is only {drops}");
    let run = fdtrace.stop();
    assert_equal(&run, &cases);
    assert_silent(&run, &cases[0]);
}

/// The bare ACK is still dropped on purpose. What the client then sends is refused.
fn a_deferred_accept_on_a_full_queue() {
    let fdtrace = Fdtrace::start(&[]);
    let server = json!({ "backlog": 16, "defer_accept": 5 });
    let mut cases = [Case::new("deferred and full", 1, &[], &server)];
    let case = &mut cases[0];
    let segments = case.segments();
    segments.syn(0..7);
    let handshakes = segments.syn_acks();
    assert_eq!(handshakes.len(), 7);
    // One after the other: a request that waits for data takes the SYN queue's room.
    let waiting: Vec<_> = (0..17)
        .map(|_| {
            let client = Clients::knock(&case.network, &case.at("127.0.0.1"), 1);
            client.talk();
            client
        })
        .collect();
    thread::sleep(Duration::from_millis(50));
    segments.ack(&handshakes);
    assert_eq!(case.network.kernel().of("ListenOverflows"), 0);
    segments.acks(&handshakes, ACK | PSH, b"GET / HTTP/1.0\r\n\r\n");
    case.freeze();
    drop(waiting);
    case.refused = Some(7);
    case.assert_kernel([
        ("ListenOverflows", 7),
        ("ListenDrops", 7),
        ("TCPReqQFullDrop", 0),
        ("TCPReqQFullDoCookies", 0),
    ]);
    assert_equal(&fdtrace.stop(), &cases);
}
