//! Descriptors that are not given back, and clients that are simply too many: what fills the table is
//! told beside the limit.

use std::{
    io::Read as _,
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    os::fd::AsRawFd as _,
    process::Command,
    time::Duration,
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
use serde_json::json;

use crate::{
    Test, nginx,
    server::{Home, Server, prlimit},
    support::{Diagnosed, Fdtrace, number},
};

pub(crate) const TESTS: &[Test] = &[
    ("a_server_that_forgets_its_clients", forgets),
    ("a_server_that_forgets_its_files", files),
    ("nginx_with_too_many_clients", many),
];

const LIMIT: u64 = 64;
/// A file that is open a few dozen times is not said to leak.
const LIMIT_OF_FILES: u64 = 256;

/// A connection from an address of loopback.
#[track_caller]
fn from(last: u8, port: u16) -> TcpStream {
    let client =
        socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let own = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::new(127, 0, 1, last), 0));
    bind(client.as_raw_fd(), &own).unwrap();
    let server = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
    connect(client.as_raw_fd(), &server).unwrap();
    client.into()
}

/// CLOSE_WAIT: only the program can end it, and a higher limit only postpones it.
fn forgets() {
    let (said, fdtrace, server) = leak("forgets", LIMIT);
    said.is("fd_leak", "certain", &["CLOSE_WAIT from 127.0.1.7", "though it has read its end"]);
    ends_with_a_restart(&said, fdtrace, server, "forgets", LIMIT);
}

fn files() {
    let (said, fdtrace, server) = leak("files", LIMIT_OF_FILES);
    let leak = said.of_cause("fd_leak");
    assert!(leak["why"].as_str().unwrap().contains("are the same file"), "{leak:#}");
    ends_with_a_restart(&said, fdtrace, server, "files", LIMIT_OF_FILES);
}

fn command(port: u16, what: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.env("SERVER", format!("{port},128,{what}"));
    command
}

/// Clients come and go, one after the other, and something of each stays.
#[track_caller]
fn leak(what: &str, limit: u64) -> (Diagnosed, Fdtrace, Server) {
    let home = Home::new();
    let port = home.port;
    let server = home.start(&mut command(port, what), limit, limit);
    let mut fdtrace = Fdtrace::start(&[]);
    // Starting it has taken one client already.
    for _ in 0..limit {
        let mut client = from(7, port);
        client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let mut answer = [0; 3];
        if client.read_exact(&mut answer).is_err() {
            break;
        }
    }
    let fields = json!({ "process": { "pid": server.pid() }, "failure": "EMFILE" });
    (Diagnosed::of(&mut fdtrace, &fields), fdtrace, server)
}

/// As fdtrace says: a restart gives all descriptors back, with the same limit.
#[track_caller]
fn ends_with_a_restart(
    said: &Diagnosed,
    mut fdtrace: Fdtrace,
    mut server: Server,
    what: &str,
    limit: u64,
) {
    let now = &said.of_cause("fd_leak")["remedies"][0];
    assert_eq!(now["when"], "now");
    assert!(now["text"].as_str().unwrap().contains("a restart gives all descriptors back"));
    let process = json!({ "process": { "pid": server.pid() } });
    let port = server.port();
    let all = json!({ "listener": { "port": port } });
    server.restart(&mut command(port, what), limit, limit);
    let exited = json!({ "process": process["process"], "outcome": "exited" });
    let closed = fdtrace.reported("episode_closed", &exited);
    for _ in 0..40 {
        let mut answer = [0; 3];
        from(7, port).read_exact(&mut answer).expect("the new one serves");
    }
    let run = fdtrace.stop();
    server.stop();
    let logged = server.lines("output", "failed: Too many open files").len() as u64;
    println!("    logged {logged}, counted {}", run.count(&all));
    assert_eq!((run.count(&all), number(&closed, "/count")), (logged, logged));
    run.assert_lost_nothing();
}

/// Each is somebody else: nothing leaks, and the limit is what is to be raised.
fn many() {
    let mut server = nginx::start("worker_processes 1;", LIMIT, 1024);
    let mut fdtrace = Fdtrace::start(&[]);
    let clients: Vec<_> = (1..=90).map(|last| from(last, server.port())).collect();
    let fields = json!({ "process": { "comm": "nginx" }, "failure": "EMFILE" });
    let said = Diagnosed::of(&mut fdtrace, &fields);
    said.is("soft_limit_low", "certain", &["soft nofile limit 64 (hard 1024)"]);
    let load = &said.0["diagnoses"][1];
    assert_eq!((&load["cause"], &load["certainty"]), (&json!("load"), &json!("certain")));
    assert!(load["why"].as_str().unwrap().ends_with("addresses"), "{load:#}");
    // As the user that it runs as, where root may not change another's: see `prlimit`.
    let pid = number(&said.0, "/process/pid");
    let command = said.command("now");
    let limit = command.strip_prefix(&format!("prlimit --pid {pid} --nofile="));
    prlimit(pid, limit.unwrap_or_else(|| panic!("{command}")));
    let recovered = json!({ "process": { "pid": pid }, "outcome": "recovered" });
    let closed = fdtrace.reported("episode_closed", &recovered);
    drop(clients);
    let run = fdtrace.stop();
    server.stop();
    let logged = server.lines("error.log", "accept4() failed (24").len() as u64;
    let counted = run.count(&json!({ "listener": { "port": server.port() } }));
    println!("    logged {logged}, counted {counted}");
    assert_eq!((counted, number(&closed, "/count")), (logged, logged));
    run.assert_lost_nothing();
}
