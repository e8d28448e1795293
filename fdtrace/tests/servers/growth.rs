//! What becomes more between the first warning and the failure tells a leak from load.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    process::Command,
    thread::sleep,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    Test,
    server::{Home, Server, program},
    support::{Diagnosed, Fdtrace},
};

pub(crate) const TESTS: &[Test] =
    &[("eventfds_that_grow_and_clients_that_do_not", leak), ("clients_that_grow", load)];

const LIMIT: u64 = 256;
/// The three standard ones and the listener.
const OWN: u64 = 4;
/// Above 80 %.
const WARNED: u64 = 212;

/// Has it keep one more of something; gives the connection, or `None` where it does not answer.
#[track_caller]
fn keep(server: &Server, what: u8) -> Option<TcpStream> {
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    client.write_all(&[what]).unwrap();
    client.read_exact(&mut [0]).ok()?;
    Some(client)
}

/// Of so many of each, the one grows until accept fails, a few seconds after the warning.
#[track_caller]
fn fails(clients: u64, eventfds: u64, grows: u8) -> (Diagnosed, Fdtrace, Server) {
    let home = Home::new();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/keeper.py");
    let port = home.port.to_string();
    let mut command = Command::new(program("python3"));
    let server = home.start(command.args(["-u", script, &port]), LIMIT, LIMIT);
    let mut fdtrace = Fdtrace::start(&[]);
    let mut kept = Vec::new();
    for (what, count) in [(b'c', clients), (b'e', eventfds)] {
        kept.extend((0..count).map(|_| keep(&server, what).expect("an answer")));
    }
    let of_it = json!({ "process": { "pid": server.pid() } });
    fdtrace.reported("warning_raised", &of_it);
    sleep(Duration::from_secs(4));
    while let Some(client) = keep(&server, grows) {
        kept.push(client);
    }
    let fields = json!({ "process": of_it["process"], "failure": "EMFILE" });
    (Diagnosed::of(&mut fdtrace, &fields), fdtrace, server)
}

fn caused_by<'a>(said: &'a Diagnosed, cause: &str) -> Option<&'a Value> {
    said.0["diagnoses"].as_array().unwrap().iter().find(|one| one["cause"] == cause)
}

fn leak() {
    const CLIENTS: u64 = 20;
    let (said, fdtrace, server) = fails(CLIENTS, WARNED - OWN - CLIENTS, b'e');
    let leak = caused_by(&said, "fd_leak").expect("a leak");
    assert_eq!(leak["certainty"], "likely");
    let why = leak["why"].as_str().unwrap();
    assert!(why.starts_with(&format!("descriptors grew from {WARNED} to {LIMIT} in ")), "{why}");
    let more = LIMIT - WARNED;
    assert!(why.contains(&format!("and {more} of the {more} are eventfd, while conn")), "{why}");
    let now = leak["remedies"][0]["text"].as_str().unwrap();
    assert!(now.contains("a restart gives all descriptors back"), "{now}");
    assert!(caused_by(&said, "load").is_none(), "{:#}", said.0);
    fdtrace.stop().assert_lost_nothing();
    drop(server);
}

fn load() {
    const EVENTFDS: u64 = 20;
    let (said, fdtrace, server) = fails(WARNED - OWN - EVENTFDS, EVENTFDS, b'c');
    let load = caused_by(&said, "load").expect("load");
    assert!(load["why"].as_str().unwrap().contains("established connections"), "{load:#}");
    assert!(caused_by(&said, "fd_leak").is_none(), "{:#}", said.0);
    fdtrace.stop().assert_lost_nothing();
    drop(server);
}
