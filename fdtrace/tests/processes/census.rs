//! The census of a process is what the process knows to have open.

use std::{
    fs,
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use fdtrace::{
    enrich::census::{self, Budget},
    model::{
        Census, DistinctPeers, FdKind, ListenerAddress, ListenerShare, OpenFds, Peer, PeerShare,
        TcpState,
    },
};
use nix::{
    sys::resource::{Resource, getrlimit},
    unistd::geteuid,
};

use super::{
    Test,
    holder::{EVERY_KIND, Holder, assert_exact, files, id},
};

pub(crate) const TESTS: &[Test] = &[
    ("census_of_every_kind", every_kind),
    ("census_of_privileged_sockets", privileged_sockets),
    ("census_of_connections", connections),
    ("census_of_ends_that_were_read", ends_that_were_read),
    ("census_of_connections_to_oneself", to_oneself),
    ("census_of_paths", paths),
    ("census_in_another_namespace", another_namespace),
    ("census_without_a_first_thread", without_a_first_thread),
    ("census_of_a_process_that_is_gone", gone),
    ("census_of_many_is_a_fair_sample", fair_sample),
    ("census_keeps_to_its_budget", keeps_to_its_budget),
];

#[track_caller]
fn take(holder: &Holder) -> Census {
    take_within(holder, Budget { cpu: Duration::from_secs(5), wall: Duration::from_secs(10) })
}

#[track_caller]
fn take_within(holder: &Holder, budget: Budget) -> Census {
    census::take(Path::new("/proc"), holder.id(), budget).unwrap()
}

fn every_kind() {
    let (spec, expected) = EVERY_KIND;
    assert_exact(&take(&Holder::start(spec)), expected);
}

fn privileged_sockets() {
    if geteuid().is_root() {
        let holder = Holder::start("raw=2 packet=3");
        assert_exact(&take(&holder), &[("raw", 2), ("packet", 3)]);
    }
}

fn connections() {
    let mut holder = Holder::start("");
    let _established = [holder.connect("127.0.0.7", 5), holder.connect("127.0.0.8", 2)];
    let leaving = [holder.connect("127.0.0.7", 20), holder.connect("127.0.0.9", 4)];
    let left = Instant::now();
    drop(leaving);
    thread::sleep(Duration::from_millis(300));
    let before = left.elapsed();
    let census = take(&holder);
    assert_exact(&census, &[("tcp_established", 7), ("tcp_close_wait", 24)]);
    let peer = |ip: &str, connections, established, close_wait| PeerShare {
        peer: Peer::Client(ip.parse().unwrap()),
        connections,
        established,
        close_wait,
    };
    let peers =
        [peer("127.0.0.7", 25, 5, 20), peer("127.0.0.9", 4, 0, 4), peer("127.0.0.8", 2, 2, 0)];
    assert_eq!(census.peers, peers);
    assert_eq!(census.distinct_peers, DistinctPeers { clients: 3, servers: 0 });
    let ip: IpAddr = "127.0.0.1".parse().unwrap();
    let listener = ListenerShare {
        address: ListenerAddress::Inet { ip, port: holder.port, dual_stack: None },
        is_held: true,
        connections: 31,
        established: 7,
        close_wait: 24,
    };
    assert_eq!(census.listeners, [listener]);
    assert_eq!(census.local_ports, [(holder.port, 31)]);
    // A connection in CLOSE_WAIT has been there since its client left.
    let silence = census.silence_of(TcpState::CloseWait).unwrap();
    assert!(silence.median >= before.saturating_sub(Duration::from_millis(20)), "{silence:?}");
    assert!(silence.longest <= left.elapsed() + Duration::from_millis(20), "{silence:?}");
}

/// What tells a program that does not close from one that does not look.
fn ends_that_were_read() {
    let mut holder = Holder::start("");
    drop(holder.connect("127.0.0.7", 9));
    let _established = holder.connect("127.0.0.7", 3);
    assert_eq!(take(&holder).end_was_read, 0);
    holder.read(5);
    let census = take(&holder);
    assert_eq!((census.tcp(TcpState::CloseWait), census.end_was_read), (9, 5));
}

fn to_oneself() {
    let holder = Holder::start("loopback_pair=6");
    let census = take(&holder);
    assert_exact(&census, &[("tcp_established", 12)]);
    let at: SocketAddr = format!("127.0.0.1:{}", holder.port).parse().unwrap();
    let of = |peer| census.peers.iter().find(|share| share.peer == peer).unwrap().connections;
    assert_eq!((of(Peer::Client(at.ip())), of(Peer::Server(at))), (6, 6));
    assert_eq!(census.distinct_peers, DistinctPeers { clients: 1, servers: 1 });
    assert_eq!(census.listeners[0].connections, 6);
}

fn paths() {
    let holder = Holder::start("same_file=300 new_file=40 eventfd=2");
    let census = take(&holder);
    assert_exact(&census, &[("file", 340), ("eventfd", 2)]);
    let [first, second, ..] = &census.paths[..] else {
        panic!("{:?}", census.paths);
    };
    let exe = std::env::current_exe().unwrap();
    assert_eq!((&first.path, first.fds, first.files), (&exe, 300, None));
    let dir = files(holder.pid());
    assert_eq!((&second.path, second.fds, second.files), (&dir, 40, Some(40)));
}

/// The listener is in a namespace where the test is not.
fn another_namespace() {
    if geteuid().is_root() {
        let holder = Holder::start("netns=1 udp=0 eventfd=2");
        assert_exact(&take(&holder), &[("eventfd", 2)]);
    }
}

fn without_a_first_thread() {
    let holder = Holder::start("no_first_thread=1 eventfd=9");
    // It says that it is ready before its first thread ends.
    let deadline = Instant::now() + Duration::from_secs(5);
    let stat = || fs::read_to_string(format!("/proc/{}/stat", holder.pid())).unwrap();
    while !stat().contains(") Z ") && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    assert_exact(&take(&holder), &[("eventfd", 9)]);
}

fn gone() {
    let holder = Holder::start("");
    let id = holder.id();
    drop(holder);
    let error = census::take(Path::new("/proc"), id, Budget::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    // A pid that has another owner.
    let mut other = self::id(std::process::id());
    other.started.0 += Duration::from_secs(5);
    let error = census::take(Path::new("/proc"), other, Budget::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

/// Descriptors in a row: first all of one kind, then all of the next.
fn fair_sample() {
    let holder = Holder::start("eventfd=3000 loopback_pair=2000 pipe_pair=1500 epoll=2500");
    // As much time as this machine needs for a sample, and not for all.
    let mut cpu = Duration::from_millis(10);
    let census = loop {
        let census = take_within(&holder, Budget { cpu, wall: Duration::from_secs(20) });
        if census.looked_at > 1_000 {
            break census;
        }
        cpu += cpu / 2;
    };
    assert!(census.is_sampled(), "{} in {cpu:?}", census.looked_at);
    assert_open(&census, 12_504);
    let share = |kind: &FdKind| census.share(census.count(|found| found == kind));
    // Four times the standard deviation of a share of a half.
    let sampled = f64::from(u32::try_from(census.looked_at).unwrap());
    let most_off = 4.0 * (0.25 / sampled).sqrt();
    let connections =
        census.count(|kind| matches!(kind, FdKind::Tcp(TcpState::Established) | FdKind::TcpUnread));
    for (name, found, expected) in [
        ("eventfd", share(&FdKind::EventFd), 3000.0 / 12_504.0),
        ("pipe", share(&FdKind::Pipe), 3002.0 / 12_504.0),
        ("epoll", share(&FdKind::Epoll), 2500.0 / 12_504.0),
        ("connections", census.share(connections), 4000.0 / 12_504.0),
    ] {
        assert!((found - expected).abs() < most_off, "{name}: {found} {expected} {most_off}");
    }
}

/// Kernels before v6.2 do not count descriptors: of a sample, their number is an estimate.
#[track_caller]
fn assert_open(census: &Census, open: u64) {
    match census.open {
        OpenFds::Exact(counted) => assert_eq!(counted, open),
        OpenFds::About(about) => assert!(about.abs_diff(open) * 10 < open, "{about} {open}"),
    }
}

/// As many as this host allows, up to 100 000.
fn keeps_to_its_budget() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let most = usize::try_from(hard).unwrap() - 64;
    let budget = Budget::default();
    for wanted in [1_000, 20_000, 100_000] {
        for (name, fds_each) in [("loopback_pair", 2), ("eventfd", 1), ("same_file", 1)] {
            let count = wanted.min(most) / fds_each;
            // A client takes a port, of which there are 28 000.
            let count = if fds_each == 2 { count.min(25_000) } else { count };
            let holder = Holder::start(&format!("{name}={count}"));
            // A core that the host takes from a virtual machine counts as used in it.
            let takes = [(); 3].map(|()| take_within(&holder, budget));
            let census = takes.into_iter().min_by_key(|census| census.cost).unwrap();
            assert!(census.cost <= budget.cpu, "{count} {name}: {:?}", census.cost);
            assert!(census.looked_at > 0);
            assert_open(&census, u64::try_from(count * fds_each).unwrap() + 4);
        }
        if wanted > most {
            break;
        }
    }
}
