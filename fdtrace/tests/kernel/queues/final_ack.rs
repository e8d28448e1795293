//! A final ACK meets a full accept queue: the client believes that it is connected.

use std::{path::Path, thread, time::Duration};

use serde_json::json;

use super::{
    case::{Case, assert_equal, wait_and_freeze},
    clients::Clients,
    segments::{ACK, FIN, FIRST, PSH, RST, SYN},
};
use crate::{Test, support::Fdtrace};

pub(crate) const TESTS: &[Test] = &[
    ("a_final_ack_meets_a_full_accept_queue", a_final_ack_meets_a_full_accept_queue),
    ("each_segment_of_a_request_counts_once", each_segment_of_a_request_counts_once),
    ("segments_that_are_refused_for_another_reason", segments_refused_for_another_reason),
    ("a_cookie_meets_a_full_accept_queue", a_cookie_meets_a_full_accept_queue),
    ("an_ack_that_brings_no_cookie", an_ack_that_brings_no_cookie),
];

/// Seventeen fit, into the SYN queue and into the accept queue.
const BACKLOG: u64 = 16;

fn a_final_ack_meets_a_full_accept_queue() {
    let fdtrace = Fdtrace::start(&[]);
    let server = |address| json!({ "address": address, "backlog": BACKLOG });
    let mut cases = Vec::new();
    for abort in [0, 1] {
        let sysctls = &[("ipv4/tcp_abort_on_overflow", abort)];
        for (name, address, ip) in [
            ("IPv4", "127.0.0.1:0", "127.0.0.1"),
            ("IPv6", "[::1]:0", "[::1]"),
            ("IPv4 client of [::]", "[::]:0", "127.0.0.1"),
        ] {
            let label = format!("{name}, abort_on_overflow={abort}");
            cases.push((Case::new(&label, 0, sysctls, &server(address)), ip));
        }
    }
    if Path::new("/proc/sys/net/mptcp/enabled").exists() {
        let mptcp = json!({ "backlog": BACKLOG, "mptcp": 1 });
        cases.push((Case::new("MPTCP", 0, &[], &mptcp), "127.0.0.1"));
    }
    // Nearly fill the accept queue, then begin more handshakes than it has room for.
    let queued: Vec<_> =
        cases.iter().map(|(case, ip)| Clients::knock(&case.network, &case.at(ip), 16)).collect();
    thread::sleep(Duration::from_millis(100));
    let deaf: Vec<_> = cases
        .iter()
        .map(|(case, ip)| Clients::knock_deaf(&case.network, &case.at(ip), 17))
        .collect();
    thread::sleep(Duration::from_millis(100));
    deaf.iter().for_each(Clients::listen);
    // The SYN-ACK comes again after one second. One more fits.
    thread::sleep(Duration::from_millis(1400));
    deaf.iter().for_each(Clients::talk);
    let mut cases: Vec<_> = cases.into_iter().map(|(case, _)| case).collect();
    wait_and_freeze(&mut cases, Duration::from_secs(2));
    drop((queued, deaf));
    for case in &mut cases {
        let attempts = case.kernel("ListenOverflows");
        assert!(attempts >= 16, "{}: only {attempts} attempts", case.label);
        case.refused = Some(16);
    }
    let run = fdtrace.stop();
    assert_equal(&run, &cases);
    for case in &cases {
        let fields = json!({
            "listener": case.listener(), "failure": "accept_queue_full", "door": "ack",
        });
        assert_eq!(run.count(&fields), case.kernel("ListenOverflows"), "{}", case.label);
    }
}

fn each_segment_of_a_request_counts_once() {
    let fdtrace = Fdtrace::start(&[]);
    let mut cases = [Case::new("each segment", 0, &[], &json!({ "backlog": BACKLOG }))];
    let case = &mut cases[0];
    let queued = Clients::knock(&case.network, &case.at("127.0.0.1"), 16);
    thread::sleep(Duration::from_millis(100));
    let segments = case.segments();
    segments.syn(0..17);
    let mut handshakes = segments.syn_acks();
    assert_eq!(handshakes.len(), 17);
    let mut counted = 0;
    let mut step = |what: &str, each: u64| {
        counted += each;
        assert_eq!(case.network.kernel().of("ListenOverflows"), counted, "{what}");
    };
    segments.ack(&handshakes);
    step("the final ACK of the seventeenth fits", 16);
    handshakes.pop_first();
    segments.syn(handshakes.keys().copied());
    step("a SYN of a request that exists is answered, full or not", 0);
    segments.ack(&handshakes);
    step("the ACK again", 16);
    segments.acks(&handshakes, ACK | PSH, b"GET / HTTP/1.0\r\n\r\n");
    step("the ACK with data", 16);
    segments.acks(&handshakes, ACK | FIN, b"");
    step("the ACK with FIN", 16);
    segments.acks(&handshakes, RST, b"");
    segments.ack(&handshakes);
    step("an ACK without a request", 0);
    segments.syn(handshakes.keys().copied());
    step("a SYN without a request", 16);
    wait_and_freeze(&mut cases, Duration::ZERO);
    drop(queued);
    cases[0].assert_kernel([
        ("ListenOverflows", 80),
        ("ListenDrops", 80),
        ("TCPReqQFullDrop", 0),
        ("TCPReqQFullDoCookies", 0),
    ]);
    let run = fdtrace.stop();
    assert_equal(&run, &cases);
    for (door, count) in [("ack", 64), ("syn", 16)] {
        let fields = json!({ "listener": cases[0].listener(), "door": door });
        assert_eq!(run.count(&fields), count, "{door}");
    }
}

/// The queue is full, and that is not why these are refused.
fn segments_refused_for_another_reason() {
    let fdtrace = Fdtrace::start(&[]);
    let mut cases = ["wrong ack", "out of window", "SYN with another number", "no request"]
        .map(|label| Case::new(label, 0, &[], &json!({ "backlog": BACKLOG })));
    let mut queued = Vec::new();
    for case in &cases {
        let segments = case.segments();
        segments.syn(0..10);
        let handshakes = segments.syn_acks();
        queued.push(Clients::knock(&case.network, &case.at("127.0.0.1"), 17));
        thread::sleep(Duration::from_millis(100));
        for (&client, &answer) in &handshakes {
            let (next, acked) = (FIRST + 1, answer.wrapping_add(1));
            match case.label.as_str() {
                "wrong ack" => segments.send(client, ACK, next, acked ^ 1 << 20, b""),
                "out of window" => segments.send(client, ACK, next ^ 1 << 30, acked, b"x"),
                "SYN with another number" => segments.send(client, SYN, FIRST + 9, 0, b""),
                _ => segments.send(client + 1000, ACK, next, acked, b""),
            }
        }
    }
    wait_and_freeze(&mut cases, Duration::ZERO);
    drop(queued);
    for case in &cases {
        assert_eq!(case.kernel("ListenDrops"), 0, "{}", case.label);
    }
    assert_equal(&fdtrace.stop(), &cases);
}

/// The kernel keeps nothing of a client it sent a cookie, until the cookie comes back.
fn a_cookie_meets_a_full_accept_queue() {
    let fdtrace = Fdtrace::start(&[]);
    let server = json!({ "backlog": 4 });
    let shared = json!({ "backlog": 4, "reuseport": 1 });
    let mut cases = [
        Case::new("syncookies=2", 2, &[], &server),
        Case::new("syncookies=1, SYN queue full", 1, &[], &server),
        // When the last cookie was sent is written elsewhere.
        Case::new("syncookies=1, SYN queue full, SO_REUSEPORT", 1, &[], &shared),
    ];
    for case in &mut cases {
        let segments = case.segments();
        if !case.label.starts_with("syncookies=2") {
            segments.syn(1000..1005);
            segments.syn_acks();
        }
        segments.syn(0..50);
        let mut handshakes = segments.syn_acks();
        assert_eq!(handshakes.len(), 50, "{}", case.label);
        segments.ack(&handshakes);
        for _ in 0..5 {
            handshakes.pop_first();
        }
        segments.acks(&handshakes, ACK | PSH, b"GET / HTTP/1.0\r\n\r\n");
        case.refused = Some(45);
        case.freeze();
        case.assert_kernel([
            ("ListenOverflows", 90),
            ("ListenDrops", 90),
            ("TCPReqQFullDrop", 0),
            ("TCPReqQFullDoCookies", 50),
        ]);
    }
    let run = fdtrace.stop();
    assert_equal(&run, &cases);
    for case in &cases {
        let fields = json!({ "listener": case.listener(), "door": "ack" });
        assert_eq!(run.count(&fields), 90, "{}", case.label);
    }
}

/// Only the kernel can tell a cookie from any other number. fdtrace takes for a refused client what
/// comes to a full listener soon after cookies were sent, and shows that the kernel does not.
fn an_ack_that_brings_no_cookie() {
    const STRAY: u32 = 30;
    let fdtrace = Fdtrace::start(&[]);
    let server = json!({ "backlog": 4 });
    let mut cases = [
        Case::new("no cookie was sent", 1, &[], &server),
        Case::new("syncookies=0", 0, &[], &server),
        Case::new("cookies were sent", 1, &[], &server),
    ];
    for case in &mut cases {
        let segments = case.segments();
        if case.label == "cookies were sent" {
            segments.syn(1000..1006);
            case.off_by = STRAY.into();
        }
        let waiting = Clients::knock(&case.network, &case.at("127.0.0.1"), 5);
        thread::sleep(Duration::from_millis(50));
        for client in 0..STRAY {
            segments.send(client, ACK, FIRST + 1, client, b"");
        }
        case.freeze();
        drop(waiting);
        assert_eq!(case.kernel("ListenOverflows"), 0, "{}", case.label);
    }
    assert_equal(&fdtrace.stop(), &cases);
}
