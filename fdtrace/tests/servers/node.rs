//! Node's http. At the limit, libuv closes a spare descriptor that it keeps for this, accepts
//! everybody who waits, closes them, and opens the spare one again (`uv__emfile_trick`): clients
//! are connected and at once disconnected, and no log says why.

use std::process::Command;

use serde_json::json;

use crate::{
    Test,
    clients::{Answer, Clients, HTTP},
    clock,
    server::{Home, program},
    support::{Fdtrace, number},
};

pub(crate) const TESTS: &[Test] =
    &[("node_that_closes_clients_without_a_word", closes_clients_without_a_word)];

/// The truth is what the clients see. Each comes when the one before is gone, so that for each
/// there is one accept4 that fails with EMFILE, one that takes the client, and one with EAGAIN.
fn closes_clients_without_a_word() {
    const LIMIT: u64 = 64;
    const CLIENTS: usize = 23;
    let home = Home::new();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/node_server.js");
    let port = home.port.to_string();
    // Node makes its soft limit as high as the hard one.
    let server = home.start(Command::new(program("node")).args([script, &port]), 48, LIMIT);
    let mut fdtrace = Fdtrace::start(&[]);
    let mut clients = Clients::of(server.port(), HTTP);
    let (refused_at, answer) = clients.open_until_refused(100);
    assert_eq!(answer, Answer::Closed);
    let fields = json!({
        "process": { "pid": server.pid(), "comm": "node" },
        "listener": { "family": "inet", "address": "127.0.0.1", "port": server.port() },
        "failure": "EMFILE",
        "door": "accept4",
        "fds": { "soft": LIMIT, "hard": LIMIT },
        "accept_queue": { "length": 1, "limit": 511 },
    });
    let opened = fdtrace.wait_for_report("episode_opened", &fields);
    clock::assert_prompt(&opened, refused_at);
    // The spare one may be closed just then.
    let open = number(&opened.1, "/fds/open");
    assert!((LIMIT - 1..=LIMIT).contains(&open), "{open} open");

    assert_eq!(clients.open_each(CLIENTS), [Answer::Closed; CLIENTS]);
    let refused = 1 + CLIENTS + clients.close_until_served();
    let process = json!({ "process": fields["process"] });
    let closed = json!({ "process": fields["process"], "outcome": "recovered" });
    fdtrace.wait_for_report("episode_closed", &closed);
    let run = fdtrace.stop();
    assert_eq!(server.lines("output", ""), ["listening"], "Node itself says nothing");
    println!("    refused {refused}, counted {}", run.count(&process));
    assert_eq!(run.count(&process), refused as u64, "{:#}", run.summary());
    run.assert_lost_nothing();
}
