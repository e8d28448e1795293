//! SYN floods at the machine's full rate: no count is lost.

use std::{
    ops::RangeFrom,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{
    case::{Case, assert_equal},
    clients::Clients,
    network::Network,
    segments::Segments,
};
use crate::{Test, support::Fdtrace};

pub(crate) const TESTS: &[Test] =
    &[("a_flood_at_the_full_rate_is_counted_exactly", a_flood_at_the_full_rate)];

/// How long an ordinary run floods.
const SECONDS: u64 = 3;

/// Of all floods together: `FLOOD_SECONDS` may ask for more.
fn seconds() -> u64 {
    std::env::var("FLOOD_SECONDS").map_or(SECONDS, |seconds| seconds.parse().unwrap())
}

/// Each queue full in turn, and last the accept queue from two CPUs at once and from another
/// namespace. What is full stays so: there is nothing for the CPUs to race for.
fn a_flood_at_the_full_rate() {
    let fdtrace = Fdtrace::start(&[]);
    let server = json!({ "address": "0.0.0.0:0", "backlog": 4 });
    let mut cases = [
        (Case::new("SYN queue full, syncookies=0", 0, &[], &server), "TCPReqQFullDrop"),
        (Case::new("SYN queue full, syncookies=1", 1, &[], &server), "TCPReqQFullDoCookies"),
        (Case::new("accept queue full", 1, &[], &server), "ListenOverflows"),
        (Case::new("accept queue full, two CPUs", 1, &[], &server), "ListenOverflows"),
        (Case::new("accept queue full, veth", 1, &[], &server), "ListenOverflows"),
    ];
    let time = Duration::from_secs(seconds()) / u32::try_from(cases.len()).unwrap();
    let other = Network::new(&[]);
    let mut waiting = Vec::new();
    for (case, counter) in &mut cases {
        if *counter == "ListenOverflows" {
            waiting.push(Clients::knock(&case.network, &case.at("127.0.0.1"), 5));
        } else {
            case.segments().syn(0..5);
        }
        thread::sleep(Duration::from_millis(50));
        let mut floods = vec![case.flood()];
        if case.label.ends_with("two CPUs") {
            floods.push(case.flood());
        } else if case.label.ends_with("veth") {
            case.network.join(&other);
            floods = vec![case.flood_from(&other)];
        }
        let sent: u64 = thread::scope(|scope| {
            let senders: Vec<_> =
                floods.iter().map(|flood| scope.spawn(|| send(flood, 100.., time))).collect();
            senders.into_iter().map(|sender| sender.join().unwrap()).sum()
        });
        case.freeze();
        println!("  {}: {sent} SYNs", case.label);
        // In a long flood the requests in the SYN queue end, and a few SYNs take their places.
        let is_long = seconds() > SECONDS && *counter != "ListenOverflows";
        let let_in = if is_long { 1000 } else { 0 };
        let counted = case.kernel(counter);
        assert!((sent - let_in..=sent).contains(&counted), "{}: {counted} of {sent}", case.label);
    }
    assert_equal(&fdtrace.stop(), &cases.map(|(case, _)| case));
}

/// Sends SYNs for that long; returns how many.
fn send(flood: &Segments, clients: RangeFrom<u32>, time: Duration) -> u64 {
    let end = Instant::now() + time;
    let mut clients = clients.map(|client| client % (1 << 24));
    let mut sent = 0;
    while Instant::now() < end {
        flood.syn(clients.by_ref().take(100));
        sent += 100;
    }
    sent
}
