use std::net::{IpAddr, Ipv4Addr};

use super::*;

/// Of 10 000 cookies so many came back.
fn facts(returned: Option<u64>, clients: u64, tcp_syncookies: Option<u8>) -> SynFacts<'static> {
    let handshakes = returned.map(|returned| Handshakes {
        cookies_sent: Some(10_000),
        cookies_returned: Some(returned),
        cookies_invalid: Some(3),
        completed: None,
    });
    SynFacts {
        lasting: Duration::from_secs(10),
        cookies_sent: 10_000,
        clients: Some(clients),
        handshakes,
        tcp_syncookies,
        ..SynFacts::default()
    }
}

fn half(requests: u64, unanswered: u64, addresses: u64, most: u64) -> HalfOpen {
    let busiest = Some((IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)), most));
    HalfOpen { requests, unanswered, addresses, busiest }
}

#[test]
fn who_completes_decides() {
    let cases = [
        (Some(0), 9_000, None, Cause::SynFlood, Certainty::Certain),
        (Some(999), 100, None, Cause::SynFlood, Certainty::Certain),
        (Some(0), 99, None, Cause::Unknown, Certainty::Likely),
        (Some(3_000), 9_000, None, Cause::Unknown, Certainty::Likely),
        (Some(5_000), 9_000, None, Cause::BacklogTooSmall, Certainty::Likely),
        (None, 9_000, None, Cause::Unknown, Certainty::Likely),
        // Of the requests in the queue, too few to tell.
        (None, 9_000, Some(half(15, 15, 15, 1)), Cause::Unknown, Certainty::Likely),
        (None, 9_000, Some(half(129, 120, 100, 2)), Cause::SynFlood, Certainty::Likely),
        // Real clients are among them.
        (Some(3_000), 9_000, Some(half(129, 120, 100, 2)), Cause::SynFlood, Certainty::Likely),
        (Some(9_000), 9_000, Some(half(129, 129, 100, 2)), Cause::Unknown, Certainty::Likely),
        (Some(9_000), 9_000, Some(half(129, 2, 100, 2)), Cause::BacklogTooSmall, Certainty::Likely),
        // They answer, and yet nobody completes: their answers are lost, for one.
        (Some(0), 9_000, Some(half(129, 2, 100, 2)), Cause::Unknown, Certainty::Likely),
    ];
    for (returned, clients, half_open, cause, certainty) in cases {
        let facts = SynFacts { half_open, ..facts(returned, clients, Some(1)) };
        let found = syn_flood(&facts);
        assert_eq!((found.cause, found.certainty), (cause, certainty), "{facts:?}");
    }
    let flood = syn_flood(&facts(Some(0), 9_000, Some(1)));
    assert_eq!(
        flood.why,
        "a SYN flood: 10000 SYNs (1000/s) from about 9000 clients found the SYN queue full, and \
         0 % of the cookies come back"
    );
    assert!(flood.remedies.iter().all(|remedy| remedy.command.is_none()));
    let too_many = SynFacts { clients: None, ..facts(Some(0), 0, Some(1)) };
    assert_eq!(syn_flood(&too_many).cause, Cause::SynFlood);
}

#[test]
fn where_it_comes_from() {
    let of = |half_open| syn_flood(&SynFacts { half_open, ..facts(Some(0), 9_000, Some(1)) });
    let spread = of(Some(half(129, 120, 100, 2))).why;
    let end = "of 129 half-open requests, from 100 addresses, 120 have not answered for a second or \
               longer";
    assert!(spread.ends_with(end), "{spread}");
    let one = of(Some(half(129, 120, 3, 110)));
    assert!(one.why.contains("110 of them 203.0.113.9's, 120 have not"), "{}", one.why);
}

#[test]
fn without_cookies_the_connections_of_the_namespace_tell() {
    let dropped = |completed, dropped_meanwhile, half_open| SynFacts {
        cookies_sent: 0,
        dropped: 500,
        handshakes: Some(Handshakes { completed: Some(completed), ..Handshakes::default() }),
        dropped_meanwhile,
        half_open,
        ..facts(None, 400, Some(0))
    };
    let cases = [
        (0, 400, None, Cause::SynFlood, Certainty::Certain),
        // Those of other listeners.
        (300, 400, Some(half(129, 129, 90, 1)), Cause::SynFlood, Certainty::Likely),
        (300, 400, None, Cause::Unknown, Certainty::Likely),
        (150, 400, Some(half(129, 0, 90, 1)), Cause::BacklogTooSmall, Certainty::Likely),
        (900, 400, None, Cause::BacklogTooSmall, Certainty::Likely),
        (900, 0, None, Cause::Unknown, Certainty::Likely),
    ];
    for (completed, meanwhile, half_open, cause, certainty) in cases {
        let facts = dropped(completed, meanwhile, half_open);
        let found = syn_flood(&facts);
        assert_eq!((found.cause, found.certainty), (cause, certainty), "{facts:?}");
    }
    let flood = dropped(0, 400, None);
    let found = syn_flood(&flood);
    assert_eq!(
        found.why,
        "a SYN flood: 500 SYNs (50/s) from about 400 clients are dropped, and next to none of them \
         complete a connection"
    );
    let commands: Vec<_> =
        found.remedies.iter().filter_map(|remedy| remedy.command.as_deref()).collect();
    assert_eq!(
        commands,
        [
            "sysctl -w net.ipv4.tcp_syncookies=1",
            "sysctl -w net.ipv4.tcp_syncookies=1 && \
             echo 'net.ipv4.tcp_syncookies = 1' > /etc/sysctl.d/90-syncookies.conf",
        ]
    );
    let elsewhere = SynFacts { netns: Some(2), own_netns: Some(1), ..flood };
    assert!(syn_flood(&elsewhere).remedies.iter().all(|remedy| remedy.command.is_none()));
    let nothing = syn_flood(&SynFacts::default());
    assert_eq!(nothing.cause, Cause::Unknown);
}
