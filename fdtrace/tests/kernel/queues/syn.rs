//! A SYN meets a full accept queue.

use std::{
    io::Read as _,
    net::{SocketAddr, TcpStream},
    os::fd::{AsRawFd as _, FromRawFd as _},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{SockaddrStorage, bind, connect, setsockopt, sockopt},
};
use serde_json::json;

use super::{
    case::{Case, assert_equal, wait_and_freeze},
    clients::Clients,
    network::Network,
};
use crate::{
    Test,
    support::{Fdtrace, number},
};

pub(crate) const TESTS: &[Test] = &[
    ("a_syn_meets_a_full_accept_queue", a_syn_meets_a_full_accept_queue),
    ("clients_of_another_namespace", clients_of_another_namespace),
    ("each_socket_of_a_shared_port_has_its_own_queue", each_socket_of_a_shared_port),
    ("a_syn_that_reopens_a_connection_meets_a_full_accept_queue", a_syn_that_reopens),
    ("the_first_refusal_is_reported_at_once", the_first_refusal_is_reported_at_once),
];

/// With a backlog of 4 five connections fit.
const BACKLOG: u64 = 4;
const CLIENTS: usize = 50;
const REFUSED: u64 = CLIENTS as u64 - BACKLOG - 1;
/// The backlog asked for is more than the namespace allows.
const CAPPED: &str = "somaxconn";

fn a_syn_meets_a_full_accept_queue() {
    let fdtrace = Fdtrace::start(&[]);
    let server = |address| json!({ "address": address, "backlog": BACKLOG });
    let v4 = server("127.0.0.1:0");
    let abort = &[("ipv4/tcp_abort_on_overflow", 1)];
    let mut cases = vec![
        (Case::new("syncookies=0", 0, &[], &v4), "127.0.0.1"),
        (Case::new("syncookies=1", 1, &[], &v4), "127.0.0.1"),
        (Case::new("syncookies=2", 2, &[], &v4), "127.0.0.1"),
        (Case::new("abort_on_overflow", 1, abort, &v4), "127.0.0.1"),
        (Case::new("any address", 1, &[], &server("0.0.0.0:0")), "127.0.0.1"),
        (Case::new("IPv6", 1, &[], &server("[::1]:0")), "[::1]"),
        // The v6 functions call the v4 ones: once is right.
        (Case::new("IPv4 client of [::]", 1, &[], &server("[::]:0")), "127.0.0.1"),
        (Case::new("IPv6 client of [::]", 1, &[], &server("[::]:0")), "[::1]"),
        (Case::new(CAPPED, 1, &[("core/somaxconn", 4)], &json!({ "backlog": 999 })), "127.0.0.1"),
    ];
    if std::path::Path::new("/proc/sys/net/mptcp/enabled").exists() {
        let mptcp = json!({ "backlog": BACKLOG, "mptcp": 1 });
        cases.push((Case::new("MPTCP", 1, &[], &mptcp), "127.0.0.1"));
    }
    let clients: Vec<_> = cases
        .iter()
        .map(|(case, ip)| Clients::knock(&case.network, &case.at(ip), CLIENTS))
        .collect();
    let mut cases: Vec<_> = cases.into_iter().map(|(case, _)| case).collect();
    // Those that were refused knock again after one second, and after three or two.
    wait_and_freeze(&mut cases, Duration::from_millis(3500));
    drop(clients);
    for case in &mut cases {
        let attempts = case.kernel("ListenOverflows");
        assert!(attempts >= REFUSED * 2, "{}: only {attempts} attempts", case.label);
        case.refused = Some(REFUSED);
    }
    let run = fdtrace.stop();
    assert_equal(&run, &cases);
    for case in &cases {
        // All of them at that door, and each attempt in the episode.
        let fields = json!({ "listener": case.listener(), "failure": "accept_queue_full" });
        let attempts = case.kernel("ListenOverflows");
        assert_eq!(run.totals(&fields).len(), 1, "{}", case.label);
        assert_eq!(run.totals(&fields)[0]["door"], "syn", "{}", case.label);
        let closed = run.of_kind("episode_closed", &fields);
        assert_eq!(number(closed[0], "/refused/attempts"), attempts, "{}", case.label);
        let queue = json!({ "length": BACKLOG + 1, "limit": BACKLOG });
        assert_eq!(closed[0]["accept_queue"], queue, "{}", case.label);
        let (requested, somaxconn) = if case.label == CAPPED { (999, 4) } else { (BACKLOG, 4096) };
        let backlog = json!({ "requested": requested, "somaxconn": somaxconn });
        assert_eq!(closed[0]["backlog"], backlog, "{}", case.label);
    }
}

/// Through a device that is not loopback.
fn clients_of_another_namespace() {
    let fdtrace = Fdtrace::start(&[]);
    let other = Network::new(&[]);
    let server = json!({ "address": "0.0.0.0:0", "backlog": BACKLOG });
    let mut cases = [Case::new("veth", 1, &[], &server)];
    let case = &mut cases[0];
    case.network.join(&other);
    let clients = Clients::knock(&other, &case.at("10.8.0.1"), CLIENTS);
    // Each of them knocks again after a second; a machine that is busy takes longer.
    let begun = Instant::now();
    while cases[0].network.kernel().of("ListenOverflows") < REFUSED * 2 {
        assert!(begun.elapsed() < Duration::from_secs(20), "nobody knocks again");
        std::thread::sleep(Duration::from_millis(50));
    }
    wait_and_freeze(&mut cases, Duration::ZERO);
    drop(clients);
    cases[0].refused = Some(REFUSED);
    assert_equal(&fdtrace.stop(), &cases);
}

/// The kernel chooses a socket by a hash and does not look at its queue.
fn each_socket_of_a_shared_port() {
    let fdtrace = Fdtrace::start(&[]);
    let network = Network::new(&[]);
    let server = |port| {
        let address = format!("127.0.0.1:{port}");
        let then = ["drops"];
        network.server(&json!({
            "address": address, "backlog": BACKLOG, "reuseport": 1, "then": then,
        }))
    };
    let first = server(0);
    let second = server(first.port());
    let (port, netns) = (first.port(), network.number());
    let clients = Clients::knock(&network, &format!("127.0.0.1:{port}"), 100);
    std::thread::sleep(Duration::from_millis(1500));
    let kernel = network.freeze();
    drop(clients);
    let run = fdtrace.stop();
    let mut sum = 0;
    for mut server in [first, second] {
        server.go();
        let drops = server.done()["drops"].as_u64().unwrap();
        let fields = json!({
            "process": { "pid": server.pid() },
            "listener": { "port": port, "netns": netns },
            "failure": "accept_queue_full",
        });
        println!("  shared port: sk_drops {drops}; fdtrace {}", run.count(&fields));
        assert_eq!(run.count(&fields), drops, "{:#?}", run.summary()["totals"]);
        sum += drops;
    }
    assert_eq!(sum, kernel.of("ListenOverflows"));
    run.assert_lost_nothing();
}

/// The server closed first, so that it has the old connection in TIME_WAIT when its client comes
/// again from the same port: that SYN takes another way through the kernel.
fn a_syn_that_reopens() {
    let fdtrace = Fdtrace::start(&[]);
    let server = json!({ "backlog": BACKLOG, "then": ["accept_one"] });
    let mut cases = [Case::new("TIME_WAIT", 1, &[], &server)];
    let case = &mut cases[0];
    let from: SocketAddr = "127.0.0.1:40000".parse().unwrap();
    let to: SocketAddr = case.at("127.0.0.1").parse().unwrap();
    case.server.go();
    case.network.enter(|| {
        let mut stream = stream_from(from, to).unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    });
    case.server.done();
    wait_for_time_wait(&case.network, case.port(), from.port());
    let waiting = Clients::knock(&case.network, &case.at("127.0.0.1"), 5);
    let again = case.network.enter(|| stream_from(from, to));
    assert!(again.is_err(), "connected to a full queue");
    wait_and_freeze(&mut cases, Duration::ZERO);
    drop(waiting);
    // The SYN, and at least once more.
    assert!(cases[0].kernel("ListenOverflows") >= 2, "{:?}", cases[0].kernel("ListenOverflows"));
    cases[0].refused = Some(1);
    assert_equal(&fdtrace.stop(), &cases);
}

/// The last segments of a connection may still be on their way when both ends have closed it.
fn wait_for_time_wait(network: &Network, server: u16, client: u16) {
    // Ports in hexadecimal, then the state.
    let old = format!("0100007F:{server:04X} 0100007F:{client:04X} 06 ");
    let connections =
        || network.enter(|| std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap());
    let deadline = Instant::now() + Duration::from_secs(10);
    while !connections().contains(&old) {
        assert!(Instant::now() < deadline, "not in TIME_WAIT: {}", connections());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Connects from a certain port, for two and a half seconds.
fn stream_from(from: SocketAddr, to: SocketAddr) -> nix::Result<TcpStream> {
    // SAFETY: numbers only.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    // SAFETY: the kernel has just given us the descriptor.
    let stream = unsafe { TcpStream::from_raw_fd(Errno::result(fd)?) };
    setsockopt(&stream, sockopt::ReuseAddr, &true)?;
    // connect(2) obeys it.
    let time = nix::sys::time::TimeVal::new(2, 500_000);
    setsockopt(&stream, sockopt::SendTimeout, &time)?;
    bind(stream.as_raw_fd(), &SockaddrStorage::from(from))?;
    connect(stream.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(stream)
}

/// With its owner: softirq has no current process, so somebody had to look for it.
fn the_first_refusal_is_reported_at_once() {
    let mut fdtrace = Fdtrace::start(&[]);
    let mut cases = [Case::new("one client", 1, &[], &json!({ "backlog": BACKLOG }))];
    let case = &cases[0];
    let five = Clients::knock(&case.network, &case.at("127.0.0.1"), 5);
    let start = Instant::now();
    let sixth = Clients::knock(&case.network, &case.at("127.0.0.1"), 1);
    let fields = json!({
        "listener": case.listener(),
        "failure": "accept_queue_full",
        "door": "syn",
        "process": { "pid": case.server.pid() },
        "accept_queue": { "length": BACKLOG + 1, "limit": BACKLOG },
    });
    let (at, _) = fdtrace.wait_for_report("episode_opened", &fields);
    let latency = at - start;
    println!("  reported after {latency:?}");
    assert!(latency < Duration::from_secs(1), "{latency:?}");
    wait_and_freeze(&mut cases, Duration::ZERO);
    drop((five, sixth));
    cases[0].refused = Some(1);
    assert_equal(&fdtrace.stop(), &cases);
}
