//! Python's asyncio. At the limit it calls accept as often as its backlog is long (100), without
//! looking at the result, and then waits for one second (`ACCEPT_RETRY_DELAY`).

use std::process::Command;

use jiff::Timestamp;
use serde_json::json;

use crate::{
    Test,
    clients::{Answer, Clients, HTTP},
    clock,
    server::{Home, Server, program},
    support::Fdtrace,
};

/// It takes its port.
pub(crate) const SCRIPT: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/asyncio_server.py");

pub(crate) const TESTS: &[Test] = &[("asyncio_fails_by_the_hundred", asyncio_fails_by_the_hundred)];

const LIMIT: u64 = 64;
pub(crate) const FAILED: &str = "socket.accept() out of system resource: [Errno 24]";

fn asyncio_fails_by_the_hundred() {
    let home = Home::new();
    let port = home.port.to_string();
    let mut command = Command::new(program("python3"));
    let mut server = home.start(command.args(["-u", SCRIPT, &port]), LIMIT, LIMIT);
    let mut fdtrace = Fdtrace::start(&["--interval", "1s"]);
    let mut clients = Clients::of(server.port(), HTTP);
    let (_, answer) = clients.open_until_refused(100);
    assert_eq!(answer, Answer::Waiting);
    clients.open(6);
    let fields = json!({
        "process": { "pid": server.pid() },
        "listener": { "family": "inet", "address": "127.0.0.1", "port": server.port() },
        "failure": "EMFILE",
        "door": "accept4",
        "fds": { "open": LIMIT, "soft": LIMIT, "hard": LIMIT },
    });
    let opened = fdtrace.wait_for_report("episode_opened", &fields);
    clock::assert_prompt(&opened, first_failure(&server));
    let process = json!({ "process": fields["process"] });
    let all_wait = json!({ "process": fields["process"], "accept_queue": { "length": 7 } });
    fdtrace.wait_for_report("episode_updated", &all_wait);

    clients.close_until_served();
    let closed = json!({ "process": fields["process"], "outcome": "recovered" });
    fdtrace.wait_for_report("episode_closed", &closed);
    let run = fdtrace.stop();
    server.stop();
    let logged = server.lines("output", FAILED).len() as u64;
    println!("    logged {logged}, counted {}", run.count(&process));
    assert_eq!(run.count(&process), logged, "{:#}", run.summary());
    assert_eq!(run.of_kind("episode_opened", &process).len(), 1);
    run.assert_lost_nothing();
}

/// `1722290203.120456 socket.accept() out of system resource: [Errno 24] Too many open files`
#[track_caller]
fn first_failure(server: &Server) -> Timestamp {
    let line = server.wait_for_line("output", FAILED);
    let (time, _) = line.split_once(' ').unwrap();
    let seconds: f64 = time.parse().unwrap();
    Timestamp::UNIX_EPOCH + std::time::Duration::from_secs_f64(seconds)
}
