use std::time::Duration;

use super::*;
use crate::model::{
    BootTime, Comm, DistinctPeers, FdKind, ListenerAddress, ListenerShare, OpenFds, PathShare,
    Peer, PeerShare, Pid, Silence, TcpState, Thread, ThreadState, Tid,
};

fn with(open: u64, kinds: &[(FdKind, u64)]) -> Census {
    let mut kinds = kinds.to_vec();
    let rest = open - kinds.iter().map(|(_, count)| count).sum::<u64>();
    kinds.push((FdKind::Device, rest));
    kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    Census { kinds, ..Census::empty(open) }
}

fn client(ip: &str, established: u64, close_wait: u64) -> PeerShare {
    let connections = established + close_wait;
    PeerShare { peer: Peer::Client(ip.parse().unwrap()), connections, established, close_wait }
}

fn listener(established: u64, close_wait: u64) -> ListenerShare {
    ListenerShare {
        address: ListenerAddress::Inet { ip: [0, 0, 0, 0].into(), port: 80, dual_stack: None },
        is_held: true,
        connections: established + close_wait,
        established,
        close_wait,
    }
}

const CLOSE_WAIT: FdKind = FdKind::Tcp(TcpState::CloseWait);
const ESTABLISHED: FdKind = FdKind::Tcp(TcpState::Established);

/// 900 of 1024 in CLOSE_WAIT.
fn leaker() -> Census {
    Census {
        peers: vec![client("10.0.0.7", 20, 890), client("10.0.0.8", 0, 10)],
        distinct_peers: DistinctPeers { clients: 2, servers: 0 },
        listeners: vec![listener(20, 900)],
        end_was_read: 900,
        ..with(1024, &[(CLOSE_WAIT, 900), (ESTABLISHED, 20)])
    }
}

/// 900 of 1024 established, from many.
fn loaded() -> Census {
    Census {
        peers: vec![client("10.0.0.7", 20, 0), client("10.0.0.8", 10, 0)],
        distinct_peers: DistinctPeers { clients: 400, servers: 0 },
        listeners: vec![listener(900, 0)],
        ..with(1024, &[(ESTABLISHED, 900)])
    }
}

const fn facts(census: &Census) -> HeldFacts<'_> {
    let at = BootTime(Duration::from_secs(100));
    HeldFacts { census, at, before: &[], earlier: None, acceptor: None }
}

fn diagnose(census: &Census) -> Vec<Diagnosis> {
    held(&facts(census))
}

#[track_caller]
fn one(census: &Census) -> Diagnosis {
    let mut diagnoses = diagnose(census);
    assert_eq!(diagnoses.len(), 1, "{diagnoses:#?}");
    diagnoses.remove(0)
}

fn silent(state: TcpState, seconds: u64) -> Vec<Silence> {
    let of = Duration::from_secs(seconds);
    vec![Silence { state, median: of, longest: of * 2 }]
}

#[test]
fn close_wait() {
    let found = one(&leaker());
    assert_eq!((found.cause, found.certainty), (Cause::FdLeak, Certainty::Certain));
    assert_eq!(
        found.why,
        "900 of 1024 descriptors are connections in CLOSE_WAIT, most of them from 10.0.0.7: the \
         program does not close what its peer has closed, though it has read its end"
    );
    assert_eq!(found.unknown, ["how it grew: nobody looked before"]);
    // It may be about to.
    let unread = one(&Census { end_was_read: 0, ..leaker() });
    assert_eq!((unread.cause, unread.certainty), (Cause::FdLeak, Certainty::Likely));
    let old = Census { end_was_read: 0, silence: silent(TcpState::CloseWait, 2400), ..leaker() };
    let old = one(&old);
    assert_eq!(old.certainty, Certainty::Certain);
    assert!(old.why.ends_with("half of them have been so for 40 min or longer"), "{}", old.why);
}

#[test]
fn close_wait_of_what_stands_still_is_no_leak() {
    let thread = Thread {
        tid: Tid(7),
        comm: Comm::default(),
        state: ThreadState::Stopped,
        is_steady: true,
        cpu: Some(0.0),
        starved: None,
        wchan: None,
        syscall: None,
    };
    let acceptor = Acceptor {
        pid: Pid(7),
        window: Duration::from_millis(100),
        thread_count: 1,
        threads: vec![thread],
        tracer: None,
        unknown: Vec::new(),
    };
    let census = leaker();
    let found = held(&HeldFacts { acceptor: Some(&acceptor), ..facts(&census) });
    assert!(found.iter().all(|diagnosis| diagnosis.cause == Cause::Unknown), "{found:#?}");
}

#[test]
fn load_from_many() {
    let found = one(&loaded());
    assert_eq!((found.cause, found.certainty), (Cause::Load, Certainty::Certain));
    assert_eq!(
        found.why,
        "900 of 1024 descriptors are established connections of clients on 0.0.0.0:80, from 400 \
         addresses"
    );
    let silent = Census { silence: silent(TcpState::Established, 3600), ..loaded() };
    let found = one(&silent);
    assert_eq!((found.cause, found.certainty), (Cause::Load, Certainty::Likely));
    assert!(found.why.ends_with("silent for 60 min or longer"), "{}", found.why);
    assert!(found.remedies.iter().any(|remedy| remedy.text.contains("keepalive")));
}

#[test]
fn load_from_one() {
    let found = one(&Census { peers: vec![client("10.0.0.7", 800, 0)], ..loaded() });
    assert_eq!((found.cause, found.certainty), (Cause::Load, Certainty::Likely));
    assert!(found.why.ends_with("one client, 10.0.0.7, has 800 of them"), "{}", found.why);
    assert!(found.unknown.iter().any(|unknown| unknown.contains("a proxy")));
}

#[test]
fn load_of_a_proxy() {
    let census = Census {
        listeners: vec![listener(480, 0)],
        ..Census { kinds: vec![(ESTABLISHED, 980)], ..loaded() }
    };
    let found = one(&census);
    assert_eq!((found.cause, found.certainty), (Cause::Load, Certainty::Certain));
    assert!(found.why.contains("500 lead onward"), "{}", found.why);
}

#[test]
fn connections_onward_alone_are_no_load() {
    let found = one(&Census { listeners: vec![listener(3, 0)], ..loaded() });
    assert_eq!(found.cause, Cause::Unknown);
    assert!(found.why.starts_with("900 of 1024 descriptors are tcp_established;"), "{}", found.why);
}

#[test]
fn both_at_once() {
    let census = Census {
        listeners: vec![listener(440, 460)],
        peers: vec![client("10.0.0.7", 1, 2)],
        distinct_peers: DistinctPeers { clients: 400, servers: 0 },
        end_was_read: 460,
        ..with(1024, &[(CLOSE_WAIT, 460), (ESTABLISHED, 440)])
    };
    let found = diagnose(&census);
    let causes: Vec<_> = found.iter().map(|found| (found.cause, found.certainty)).collect();
    let expected = [(Cause::FdLeak, Certainty::Likely), (Cause::Load, Certainty::Likely)];
    assert_eq!(causes, expected);
}

#[test]
fn the_same_file() {
    let path = |files| PathShare { path: "/var/log/x.log".into(), fds: 700, files };
    let kinds = with(1024, &[(FdKind::File, 1000)]);
    let same = Census { paths: vec![path(None)], ..kinds.clone() };
    let found = one(&same);
    assert_eq!((found.cause, found.certainty), (Cause::FdLeak, Certainty::Likely));
    assert!(found.why.starts_with("700 of 1024 descriptors are the same file, /var/log/x.log"));
    // A database has many files open, and needs them.
    let many = one(&Census { paths: vec![path(Some(700))], ..kinds });
    assert_eq!(many.cause, Cause::Unknown);
}

#[test]
fn deleted_files_and_sockets_without_a_connection() {
    for kind in [FdKind::DeletedFile, FdKind::TcpUnlisted] {
        let found = one(&with(1024, &[(kind.clone(), 600)]));
        assert_eq!((found.cause, found.certainty), (Cause::FdLeak, Certainty::Likely), "{kind}");
        assert_eq!(one(&with(1024, &[(kind, 500)])).cause, Cause::Unknown);
    }
}

/// A supervisor has pipes for each of its children: only growth tells it from a leak.
#[test]
fn pipes_are_a_leak_only_where_they_grow() {
    let census =
        |open, pipes, clients| with(open, &[(FdKind::Pipe, pipes), (ESTABLISHED, clients)]);
    let now = census(1024, 900, 20);
    assert_eq!(one(&now).cause, Cause::Unknown);
    let since = |seconds: u64, before: Census| {
        let at = BootTime(Duration::from_secs(100 - seconds));
        let earlier = EarlierCensus { at, census: before };
        let mut found = held(&HeldFacts { earlier: Some(&earlier), ..facts(&now) });
        assert_eq!(found.len(), 1);
        found.remove(0)
    };
    let found = since(60, census(820, 700, 18));
    assert_eq!((found.cause, found.certainty), (Cause::FdLeak, Certainty::Likely));
    assert_eq!(
        found.why,
        "descriptors grew from 820 to 1024 in 60 s, and 200 of the 204 are pipe, while connections \
         went from 18 to 20"
    );
    assert!(found.unknown.iter().all(|what| !what.contains("nobody looked")), "{found:#?}");
    // Too soon; too little; no more at all.
    for (seconds, before) in
        [(2, census(820, 700, 18)), (60, census(1000, 880, 20)), (60, census(1024, 900, 20))]
    {
        assert_eq!(since(seconds, before).cause, Cause::Unknown);
    }
}

/// Clients of AF_UNIX sockets are connections too.
#[test]
fn connections_that_grow_are_no_leak() {
    for kind in [ESTABLISHED, FdKind::Unix, CLOSE_WAIT, FdKind::Udp] {
        let census = |open, of_kind| with(open, &[(kind.clone(), of_kind), (FdKind::Pipe, 100)]);
        let earlier = EarlierCensus { at: BootTime::default(), census: census(820, 700) };
        let now = census(1024, 904);
        let found = held(&HeldFacts { earlier: Some(&earlier), ..facts(&now) });
        let by_growth = found.iter().any(|found| found.why.contains("grew"));
        assert!(!by_growth, "{found:#?}");
    }
}

#[test]
fn nothing_stands_out() {
    let census = with(
        1024,
        &[(FdKind::Pipe, 300), (FdKind::File, 300), (ESTABLISHED, 100), (CLOSE_WAIT, 100)],
    );
    let found = one(&census);
    assert_eq!(found.cause, Cause::Unknown);
    assert!(
        found.why.starts_with("no one kind fills its descriptors: 29 % pipe, 29 % file"),
        "{}",
        found.why
    );
    assert!(found.remedies.is_empty());
    assert_eq!(one(&Census::empty(0)).cause, Cause::Unknown);
}

#[test]
fn a_sample_must_be_clear() {
    // 26 % of 50 may as well be 14 %.
    let census = |looked_at| Census {
        open: OpenFds::Exact(100_000),
        looked_at,
        end_was_read: 26_000,
        ..with(100_000, &[(CLOSE_WAIT, 26_000)])
    };
    assert_eq!(one(&census(50)).cause, Cause::Unknown);
    let found = one(&census(50_000));
    assert_eq!((found.cause, found.certainty), (Cause::FdLeak, Certainty::Likely));
    assert!(found.why.starts_with("about 26000 of 100000 descriptors"), "{}", found.why);
    let looked_at = found.evidence.iter().find(|of| of.fact == "looked_at").unwrap();
    assert_eq!(looked_at.value, crate::model::Value::Count(50_000));
}
