//! How full the queue is, and of how many.

use std::{
    fs,
    io::ErrorKind,
    net::{Ipv4Addr, TcpStream},
    os::{
        fd::{FromRawFd as _, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    time::Duration,
};

use nix::sys::{
    resource::{Resource, getrlimit},
    socket::{AddressFamily, Backlog, SockFlag, SockType, listen, setsockopt, socket, sockopt},
};
use serde_json::json;
use tempfile::TempDir;

use crate::{
    listener::{Listener, backlog, inode},
    output::{alone, assert_same, listed, netns, run, somaxconn, with_inode},
    support::number,
};

#[test]
fn queue_limit_and_owner() {
    let _alone = alone();
    let listener = Listener::new("127.0.0.1:0", backlog(7)).with_clients(3);
    let lines = listed(&["--port", &listener.port()]);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    let line = with_inode(&lines, listener.inode());
    let comm = fs::read_to_string("/proc/self/comm").unwrap();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let exe = std::env::current_exe().unwrap();
    assert_same(
        line,
        &json!({
            "process": {"pid": std::process::id(), "comm": comm.trim_end(), "exe": exe},
            "listener": {
                "family": "inet", "address": "127.0.0.1", "port": listener.address.port(),
                "path": null, "netns": netns(),
            },
            "accept_queue": {"length": 3, "limit": 7},
            "backlog": {"requested": null, "somaxconn": somaxconn()},
            "limit_set_by": "application",
            "fds": {"pid": std::process::id(), "soft": soft, "hard": hard},
            "drops_at_most": 0,
            "notes": ["small_limit"],
        }),
    );
    assert_eq!(line["processes"], json!([line["process"]]));
    assert!(number(line, "/fds/open") >= 4);
    // 3 of 7 is not more than half.
    assert!(!line["risks"].to_string().contains("queue"), "{line:#}");
    drop(listener);
}

#[test]
fn a_full_queue_is_at_risk_and_drops() {
    let _alone = alone();
    let listener = Listener::new("127.0.0.1:0", backlog(2)).with_clients(3);
    let port = listener.port();
    let refused = TcpStream::connect_timeout(&listener.address, Duration::from_millis(50));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::TimedOut);
    let line = &listed(&["--port", &port])[0];
    assert_same(line, &json!({"accept_queue": {"length": 3, "limit": 2}}));
    assert_eq!(line["risks"][0], "accept_queue_full");
    assert!(number(line, "/drops_at_most") >= 1, "{line:#}");

    let text = String::from_utf8(run(&["--port", &port]).stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let header = ["RISK", "PROCESS", "LISTENER", "QUEUE", "LIMIT", "BY", "FDS", "DROPS"];
    assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), header);
    assert!(lines[1].starts_with("FULL"), "{text}");
    assert!(lines[1].contains(&format!("[{}]  127.0.0.1:{port}  3/2 ", std::process::id())));
    assert_eq!(lines[2], "1 listener, 1 at risk, 1 with a limit below 128");

    let exhausted = run(&["--port", &port, "--fail-on-exhaustion"]);
    assert_eq!(exhausted.status.code(), Some(10));
}

#[test]
fn a_limit_capped_by_somaxconn() {
    let _alone = alone();
    let listener = Listener::new("127.0.0.1:0", Backlog::MAXALLOWABLE);
    let lines = listed(&["--port", &listener.port()]);
    let limit = json!({"length": 0, "limit": somaxconn()});
    assert_same(&lines[0], &json!({"accept_queue": limit, "limit_set_by": "somaxconn"}));
    let calm = run(&["--port", &listener.port(), "--fail-on-exhaustion"]);
    assert_eq!(calm.status.code(), Some(0));
}

#[test]
fn ipv6_alone_and_with_ipv4() {
    let _alone = alone();
    for (only, text) in [(false, "*:"), (true, "[::]:")] {
        let flags = SockFlag::SOCK_CLOEXEC;
        let Ok(socket) = socket(AddressFamily::Inet6, SockType::Stream, flags, None) else {
            return;
        };
        setsockopt(&socket, sockopt::Ipv6V6Only, &only).unwrap();
        let listener = Listener::on(socket, "[::]:0".parse().unwrap(), backlog(200));
        let port = listener.port();
        let listed = listed(&["--port", &port]);
        let wanted = json!({"family": "inet6", "address": "::", "port": listener.address.port()});
        assert_same(&listed[0], &json!({"listener": wanted}));
        let table = String::from_utf8(run(&["--port", &port]).stdout).unwrap();
        let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row[1..3], [&format!("{text}{port}"), "0/200"], "{table}");
    }
}

#[test]
fn one_line_for_each_socket_of_a_port() {
    let _alone = alone();
    let one = Listener::new("127.0.0.1:0", backlog(100));
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
    let other = Listener::on(socket, one.address, backlog(50));
    let _clients: Vec<_> = (0..9).map(|_| TcpStream::connect(one.address).unwrap()).collect();
    let lines = listed(&["--port", &one.port()]);
    assert_eq!(lines.len(), 2);
    let one = with_inode(&lines, one.inode());
    let other = with_inode(&lines, other.inode());
    assert_same(one, &json!({"accept_queue": {"limit": 100}}));
    assert_same(other, &json!({"accept_queue": {"limit": 50}}));
    let lengths = [one, other].map(|line| number(line, "/accept_queue/length"));
    assert_eq!(lengths.iter().sum::<u64>(), 9);
}

/// The TCP subflow of an MPTCP listener has the queue, and the MPTCP socket's inode.
#[test]
fn mptcp() {
    let _alone = alone();
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    // SAFETY: one system call.
    let fd = unsafe { libc::socket(libc::AF_INET, kind, libc::IPPROTO_MPTCP) };
    if fd < 0 {
        return;
    }
    // SAFETY: the call has just made it, and nobody else knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let address = (Ipv4Addr::LOCALHOST, 0).into();
    let listener = Listener::on(socket, address, backlog(20)).with_clients(2);
    let lines = listed(&["--port", &listener.port()]);
    assert_eq!(lines.len(), 1);
    let wanted = json!({
        "process": {"pid": std::process::id()},
        "accept_queue": {"length": 2, "limit": 20},
    });
    assert_same(with_inode(&lines, listener.inode()), &wanted);
}

#[test]
fn unix_listeners() {
    let _alone = alone();
    let dir = TempDir::new().unwrap();
    let own = std::process::id().to_string();
    let listener = |name| {
        let path = dir.path().join(name);
        let listener = UnixListener::bind(&path).unwrap();
        listen(&listener, backlog(4)).unwrap();
        (listener, path)
    };
    let ((calm, _), (full, path)) = (listener("calm"), listener("full"));
    let _clients: Vec<_> = (0..5).map(|_| UnixStream::connect(&path).unwrap()).collect();
    if run(&["-v"]).stderr.windows(10).any(|text| text == b"no AF_UNIX") {
        return;
    }
    let at_risk = listed(&["--pid", &own]);
    let wanted = json!({
        "process": {"pid": std::process::id()},
        "listener": {"family": "unix", "address": null, "port": null, "path": path},
        "accept_queue": {"length": 5, "limit": 4},
        "drops_at_most": null,
    });
    assert_same(with_inode(&at_risk, inode(&full)), &wanted);
    assert!(at_risk.iter().all(|line| line["inode"] != inode(&calm)), "{at_risk:#?}");
    let all = listed(&["--pid", &own, "--unix"]);
    let wanted = json!({"accept_queue": {"length": 0, "limit": 4}});
    assert_same(with_inode(&all, inode(&calm)), &wanted);
    assert!(listed(&["--port", "1", "--unix"]).is_empty());
}
