//! A full SYN queue: a flood is told from a rush of clients.

use std::{
    io::Read as _,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{case::Case, clients::Clients};
use crate::{
    Test,
    support::{Fdtrace, carry_out, same},
};

pub(crate) const TESTS: &[Test] = &[
    ("a_flood_is_told_from_a_rush_of_clients", flood_and_herd),
    ("a_flood_without_cookies_is_told", flood_without_cookies),
    ("a_queue_that_is_always_full_is_told_from_a_burst", always_or_burst),
];

const COOKIE: &str = "syn_cookie_sent";

/// Waits for what is told of a listener in the end.
#[track_caller]
fn told(fdtrace: &mut Fdtrace, case: &Case, failure: &str) -> Value {
    let fields = json!({ "listener": case.listener(), "failure": failure });
    let report = fdtrace.reported("episode_diagnosed", &fields);
    let found = report["diagnoses"][0].clone();
    println!("  {}: {}", case.label, found["why"]);
    found
}

/// SYNs of clients that never answer, for so long.
fn flood(case: &Case, time: Duration) {
    let flood = case.flood();
    let end = Instant::now() + time;
    for first in (0..).step_by(50) {
        if Instant::now() >= end {
            return;
        }
        flood.syn(first..first + 50);
        thread::sleep(Duration::from_millis(20));
    }
}

/// Both at once, each in a network namespace of its own: each is told for what it is.
fn flood_and_herd() {
    let mut fdtrace = Fdtrace::start(&[]);
    let server = json!({ "backlog": 64, "then": ["serve"] });
    let mut flooded = Case::new("flood", 1, &[], &server);
    let mut rushed = Case::new("rush", 1, &[], &server);
    for case in [&mut flooded, &mut rushed] {
        case.server.go();
        case.server.done();
    }
    // Slow clients fill the SYN queue, and hear an answer only later.
    let slow = Clients::knock_deaf(&rushed.network, &rushed.at("127.0.0.1"), 80);
    let time = Duration::from_secs(5);
    thread::scope(|scope| {
        scope.spawn(|| flood(&flooded, time));
        scope.spawn(|| rush(&rushed, time));
        thread::sleep(Duration::from_millis(2500));
        slow.listen();
    });
    let of_flood = told(&mut fdtrace, &flooded, COOKIE);
    let of_rush = told(&mut fdtrace, &rushed, COOKIE);
    assert_eq!(
        (&of_flood["cause"], &of_flood["certainty"]),
        (&json!("syn_flood"), &json!("certain"))
    );
    assert_ne!(of_rush["cause"], "syn_flood", "{of_rush:#}");
    assert_eq!(of_rush["cause"], "backlog_too_small", "{of_rush:#}");
    let run = fdtrace.stop();
    let of = |case: &Case| json!({ "listener": case.listener(), "failure": COOKIE });
    assert_eq!(run.of_kind("episode_closed", &of(&flooded))[0]["cause"], "syn_flood");
    assert_eq!(run.of_kind("episode_closed", &of(&rushed))[0]["cause"], "backlog_too_small");
}

/// Clients that connect and go, for so long.
fn rush(case: &Case, time: Duration) {
    let server = SocketAddr::from((Ipv4Addr::LOCALHOST, case.port()));
    let end = Instant::now() + time;
    case.network.enter(|| {
        while Instant::now() < end {
            drop(TcpStream::connect_timeout(&server, Duration::from_secs(5)));
            thread::sleep(Duration::from_millis(2));
        }
    });
}

fn flood_without_cookies() {
    let mut fdtrace = Fdtrace::start(&[]);
    let mut case = Case::new("no cookies", 0, &[], &json!({ "backlog": 64, "then": ["serve"] }));
    case.server.go();
    case.server.done();
    flood(&case, Duration::from_secs(5));
    let found = told(&mut fdtrace, &case, "syn_queue_full");
    assert_eq!((&found["cause"], &found["certainty"]), (&json!("syn_flood"), &json!("certain")));
    assert!(!is_served(&case), "a client gets in, and nothing is wrong");

    let command = found["remedies"][0]["command"].as_str().unwrap();
    let pid = case.server.pid();
    let expected = format!("nsenter --net=/proc/{pid}/ns/net sysctl -w net.ipv4.tcp_syncookies=1");
    assert_eq!((&found["remedies"][0]["when"], command), (&json!("now"), &*expected));
    carry_out(command);
    let dropped = || case.network.kernel().of("TCPReqQFullDrop");
    let before = dropped();
    // The flood goes on.
    thread::scope(|scope| {
        scope.spawn(|| flood(&case, Duration::from_secs(5)));
        thread::sleep(Duration::from_secs(1));
        assert!((0..10).all(|_| is_served(&case)), "no client gets in during the flood");
    });
    assert_eq!(dropped(), before, "SYNs are dropped all the same");
    let dropped = json!({ "listener": case.listener(), "failure": "syn_queue_full" });
    let recovered = json!({ "outcome": "recovered", "listener": case.listener() });
    let is_it = |report: &Value| {
        report["kind"] == "episode_closed" && same(report, &dropped) && same(report, &recovered)
    };
    let closed = fdtrace.find(is_it, "the end of the episode");
    assert_eq!((&closed["cause"], &closed["count"]), (&json!("syn_flood"), &json!(before)));
    let run = fdtrace.stop();
    assert_eq!(run.count(&dropped), before, "{:#}", run.summary());
}

/// Whether a client is accepted, which lets it go at once.
fn is_served(case: &Case) -> bool {
    let server = SocketAddr::from((Ipv4Addr::LOCALHOST, case.port()));
    case.network.enter(|| {
        let Ok(mut client) = TcpStream::connect_timeout(&server, Duration::from_secs(1)) else {
            return false;
        };
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        matches!(client.read(&mut [0]), Ok(0))
    })
}

/// Both at once: of one nobody takes the clients, of the other they are taken after a moment.
fn always_or_burst() {
    let mut fdtrace = Fdtrace::start(&[]);
    let mut burst = Case::new("burst", 1, &[], &json!({ "backlog": 4, "then": ["serve"] }));
    let always = Case::new("always", 1, &[], &json!({ "backlog": 4 }));
    let _clients =
        [&burst, &always].map(|case| Clients::knock(&case.network, &case.at("127.0.0.1"), 8));
    thread::sleep(Duration::from_millis(300));
    burst.server.go();
    burst.server.done();
    let slow = |report: &Value| {
        let listener = &report["listener"];
        listener["port"] == always.port()
            && listener["netns"] == always.network.number()
            && report["diagnoses"][0]["cause"] == "slow_acceptor"
    };
    let (_, told) = fdtrace.wait_for(slow, "slow_acceptor");
    println!("  always: {}", told["diagnoses"][0]["why"]);
    let surer = |report: &Value| {
        report["listener"]["netns"] == burst.network.number() && report["certainty"] == "certain"
    };
    let (_, closed) = fdtrace.wait_for(surer, "a cause that is certain");
    assert_eq!(closed["cause"], "backlog_too_small", "{closed:#}");
    fdtrace.stop();
}
