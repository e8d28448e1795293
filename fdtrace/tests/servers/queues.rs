//! Accept queues that overflow, to the end: the cause, the remedy, and that nobody is refused after
//! it.

use std::{process::Command, time::Duration};

use serde_json::{Value, json};

use crate::{
    Test,
    clients::Crowd,
    overflow::in_new_netns,
    server::{Home, Server},
    support::{Diagnosed, Fdtrace, carry_out, number},
};

pub(crate) const TESTS: &[Test] = &[
    ("a_queue_that_the_program_asked_for_is_too_short", backlog_of_the_program),
    ("a_queue_that_somaxconn_allows_is_too_short", somaxconn),
    ("an_acceptor_that_computes", computes),
];

const NOFILE: u64 = 1024;
const CLIENTS: u64 = 40;

fn command(port: u16, backlog: u32, what: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.env("SERVER", format!("{port},{backlog},{what}"));
    command
}

/// listen(fd, 1): two wait, and everybody else is refused.
fn backlog_of_the_program() {
    const BACKLOG: u32 = 1;
    let mut fdtrace = Fdtrace::start(&[]);
    let home = Home::new();
    let port = home.port;
    let mut server = home.start(&mut command(port, BACKLOG, "late"), NOFILE, NOFILE);
    let (said, pid) = overflows(&mut fdtrace, &server);
    said.is("backlog_too_small", "likely", &["holds 2 connections, as the program asked"]);
    let [to_do] = said.texts("for_good")[..] else { panic!("{:#}", said.first()) };
    let wanted = to_do.strip_prefix("have the program ask for more in listen(2), ");
    let wanted = wanted.and_then(|rest| rest.split_once(' ')).unwrap_or_else(|| panic!("{to_do}"));
    let wanted = wanted.0.parse().unwrap();
    server.restart(&mut command(port, wanted, "late"), NOFILE, NOFILE);
    ends(fdtrace, &server, pid);
}

/// The same where it is the kernel that gives no more: in a network namespace of its own, so that no
/// setting of the host is touched.
fn somaxconn() {
    const SOMAXCONN: u32 = 4;
    let mut fdtrace = Fdtrace::start(&[]);
    in_new_netns(|| {
        std::fs::write("/proc/sys/net/core/somaxconn", SOMAXCONN.to_string()).unwrap();
        let home = Home::new();
        let port = home.port;
        let mut server = home.start(&mut command(port, 4096, "late"), NOFILE, NOFILE);
        let (said, pid) = overflows(&mut fdtrace, &server);
        said.is("backlog_too_small", "likely", &["holds 5 connections: net.core.somaxconn"]);
        let expected = format!("nsenter --net=/proc/{pid}/ns/net sysctl -w net.core.somaxconn=");
        let to_do = said.command("for_good");
        assert!(to_do.starts_with(&expected), "{to_do}");
        carry_out(to_do);
        assert!(said.texts("for_good")[1].starts_with("restart the program"));
        server.restart(&mut command(port, 4096, "late"), NOFILE, NOFILE);
        ends(fdtrace, &server, pid);
    });
}

/// Its only thread uses a core up, and accepts now and then. On a host that is busy itself it may
/// have had too little of a core to tell: then it is started anew.
fn computes() {
    const ATTEMPTS: u32 = 4;
    let attempt = |_| {
        let mut fdtrace = Fdtrace::start(&[]);
        let home = Home::new();
        let port = home.port;
        let mut server = home.start(&mut command(port, 4, "busy"), NOFILE, NOFILE);
        let (said, pid) = overflows(&mut fdtrace, &server);
        let is_told = said.first()["cause"] == "slow_acceptor";
        if is_told {
            let why = said.first()["why"].as_str().unwrap();
            let computes = why.starts_with("one thread, ") && why.contains(" uses a core up ");
            assert!(computes || why.contains(" gets no core for "), "{why}");
            if computes {
                let to_do = said.texts("for_good")[0];
                assert!(to_do.ends_with("or take the work off the accepting one"), "{to_do}");
            }
            // The work is taken off it, and its queue has room.
            server.restart(&mut command(port, 4096, "late"), NOFILE, NOFILE);
            ends(fdtrace, &server, pid);
        }
        is_told
    };
    assert!((0..ATTEMPTS).any(attempt), "{ATTEMPTS} times, nobody saw what it does");
}

fn listener(server: &Server) -> Value {
    json!({ "listener": { "port": server.port() }, "failure": "accept_queue_full" })
}

/// More clients come at once than there is room for: what is said of that.
#[track_caller]
fn overflows(fdtrace: &mut Fdtrace, server: &Server) -> (Diagnosed, u32) {
    let _clients = Crowd::knock(server.port(), CLIENTS);
    (Diagnosed::of(fdtrace, &listener(server)), server.pid())
}

/// The listener is gone with its process; the next one has room for as many.
#[track_caller]
fn ends(mut fdtrace: Fdtrace, server: &Server, before: u32) {
    let exited = json!({ "process": { "pid": before }, "outcome": "exited" });
    let closed = fdtrace.reported("episode_closed", &exited);
    let clients = Crowd::knock(server.port(), CLIENTS);
    // Who were refused would try again after a second.
    std::thread::sleep(Duration::from_millis(1200));
    drop(clients);
    let run = fdtrace.stop();
    let counted = run.count(&listener(server));
    println!("    counted {counted}");
    assert_eq!(counted, number(&closed, "/count"), "{:#}", run.summary());
    assert_eq!(run.of_kind("episode_opened", &listener(server)).len(), 1);
    run.assert_lost_nothing();
}
