//! SYNs of a flood meet a full SYN queue: they are dropped, or answered with a cookie.

use std::{thread, time::Duration};

use serde_json::json;

use super::{
    case::{Case, assert_equal},
    clients::Clients,
};
use crate::{Test, support::Fdtrace};

pub(crate) const TESTS: &[Test] = &[
    ("a_flood_meets_a_full_syn_queue", a_flood_meets_a_full_syn_queue),
    ("both_queues_are_full", both_queues_are_full),
];

const FLOOD: u32 = 1000;

fn a_flood_meets_a_full_syn_queue() {
    let fdtrace = Fdtrace::start(&[]);
    let server = json!({ "backlog": 64 });
    let reserve = &[("ipv4/tcp_max_syn_backlog", 256)];
    // ListenOverflows, ListenDrops, TCPReqQFullDrop, TCPReqQFullDoCookies: 65 SYNs fit.
    let mut cases = [
        (Case::new("syncookies=0", 0, &[], &server), [0, 935, 935, 0]),
        (Case::new("syncookies=1", 1, &[], &server), [0, 0, 0, 935]),
        (Case::new("syncookies=2", 2, &[], &server), [0, 0, 0, 1000]),
        // The last quarter is for clients the kernel knows: that is no full queue, and nobody's
        // listener can be blamed for it.
        (Case::new("max_syn_backlog", 0, reserve, &json!({ "backlog": 4096 })), [0, 807, 0, 0]),
    ];
    for (case, expected) in &mut cases {
        case.segments().syn(0..FLOOD);
        case.freeze();
        let [overflows, drops, dropped, cookies] = *expected;
        case.assert_kernel([
            ("ListenOverflows", overflows),
            ("ListenDrops", drops),
            ("TCPReqQFullDrop", dropped),
            ("TCPReqQFullDoCookies", cookies),
        ]);
    }
    let run = fdtrace.stop();
    let cases = cases.map(|(case, _)| case);
    assert_equal(&run, &cases);
    for (case, episodes) in cases.iter().zip([1, 1, 0, 0]) {
        let opened = run.of_kind("episode_opened", &json!({ "listener": case.listener() }));
        assert_eq!(opened.len(), episodes, "{}: {opened:#?}", case.label);
    }
    // A cookie is a full answer: nobody was refused.
    let answered = run.of_kind("episode_closed", &json!({ "listener": cases[1].listener() }));
    let refused = &answered[0]["refused"];
    assert!(refused.is_null() || refused["attempts"] == 0, "{refused}");
}

/// The kernel counts the SYN in both places then: it would have had a cookie, and is refused.
fn both_queues_are_full() {
    let fdtrace = Fdtrace::start(&[]);
    let mut cases = [
        Case::new("both full, syncookies=0", 0, &[], &json!({ "backlog": 4 })),
        Case::new("both full, syncookies=1", 1, &[], &json!({ "backlog": 4 })),
    ];
    let [without, with] = &mut cases;
    // Five handshakes begin before the queue is full, and do not end.
    for case in [&*without, with] {
        case.segments().syn(0..5);
    }
    // No cookies: the accept queue must fill first, which leaves no room for half a handshake.
    let five = Clients::knock(&with.network, &with.at("127.0.0.1"), 5);
    thread::sleep(Duration::from_millis(100));
    without.segments().syn(100..200);
    with.segments().syn(100..200);
    without.freeze();
    with.freeze();
    drop(five);
    without.assert_kernel([
        ("ListenOverflows", 0),
        ("ListenDrops", 100),
        ("TCPReqQFullDrop", 100),
        ("TCPReqQFullDoCookies", 0),
    ]);
    with.assert_kernel([
        ("ListenOverflows", 100),
        ("ListenDrops", 100),
        ("TCPReqQFullDrop", 0),
        ("TCPReqQFullDoCookies", 105),
    ]);
    let run = fdtrace.stop();
    assert_equal(&run, &cases);
    let fields = json!({
        "listener": cases[1].listener(), "failure": "accept_queue_full", "syn_queue_full": true,
    });
    assert_eq!(run.count(&fields), 100);
}
