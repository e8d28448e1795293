use super::*;

fn facts(completed: Option<u64>, clients: u64, tcp_syncookies: Option<u8>) -> SynFacts<'static> {
    let lasting = Duration::from_secs(10);
    SynFacts {
        lasting,
        cookies_sent: 10_000,
        clients,
        completed,
        tcp_syncookies,
        ..SynFacts::default()
    }
}

#[test]
fn who_completes_decides() {
    let cases = [
        (Some(0), 9_000, Cause::SynFlood, Certainty::Certain),
        (Some(999), 100, Cause::SynFlood, Certainty::Certain),
        (Some(0), 99, Cause::Unknown, Certainty::Likely),
        (Some(3_000), 9_000, Cause::Unknown, Certainty::Likely),
        (Some(5_000), 9_000, Cause::BacklogTooSmall, Certainty::Likely),
        (None, 9_000, Cause::Unknown, Certainty::Likely),
    ];
    for (completed, clients, cause, certainty) in cases {
        let found = syn_flood(&facts(completed, clients, Some(1)));
        assert_eq!((found.cause, found.certainty), (cause, certainty), "{completed:?} {clients}");
        assert_eq!(found.unknown.is_empty(), completed.is_some());
    }
    let flood = syn_flood(&facts(Some(0), 9_000, Some(1)));
    assert_eq!(
        flood.why,
        "10000 SYNs (1000/s) from about 9000 addresses found the SYN queue full, and 0 % of them \
         complete a connection: a SYN flood"
    );
    assert!(flood.remedies.iter().all(|remedy| remedy.command.is_none()));
}

#[test]
fn without_cookies_nobody_can_complete() {
    let dropped = SynFacts { cookies_sent: 0, dropped: 500, ..facts(Some(0), 400, Some(0)) };
    let found = syn_flood(&dropped);
    assert_eq!(found.cause, Cause::Unknown);
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
    let elsewhere = SynFacts { netns: Some(2), own_netns: Some(1), ..dropped };
    assert!(syn_flood(&elsewhere).remedies.iter().all(|remedy| remedy.command.is_none()));
    let nothing = syn_flood(&SynFacts::default());
    assert_eq!(nothing.cause, Cause::Unknown);
}
