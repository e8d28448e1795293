//! Node's http. At the limit, libuv closes a spare descriptor that it keeps for this, accepts
//! everybody who waits, closes them, and opens the spare one again (`uv__emfile_trick`): clients
//! are connected and at once disconnected, and no log says why.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    process::Command,
    thread::sleep,
    time::Duration,
};

use serde_json::json;

use crate::{
    Test,
    clients::{Answer, Clients, HTTP},
    clock,
    server::{Home, Server, has_sys_resource, only_child, prlimit, program},
    support::{Diagnosed, Fdtrace, carry_out, number},
};

pub(crate) const TESTS: &[Test] = &[
    ("node_that_closes_clients_without_a_word", closes_clients_without_a_word),
    ("node_whose_limit_is_lowered_while_it_runs", lowered_while_it_runs),
    ("node_started_by_a_script_with_a_low_hard_limit", started_by_a_script),
];

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/node_server.js");
const LIMIT: u64 = 64;
const HARD: u64 = 1024;
/// More clients than the low limit has room for.
const SERVED: usize = 150;
/// So many are closed at it.
const CLOSED: usize = 6;

fn command(port: u16) -> Command {
    let mut command = Command::new(program("node"));
    command.arg(SCRIPT).arg(port.to_string());
    command
}

/// The truth is what the clients see. Each comes when the one before is gone, so that for each
/// there is one accept4 that fails with EMFILE, one that takes the client, and one with EAGAIN.
fn closes_clients_without_a_word() {
    const CLIENTS: usize = 23;
    let home = Home::new();
    // Node makes its soft limit as high as the hard one.
    let mut command = command(home.port);
    let server = home.start(&mut command, 48, LIMIT);
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
    // Irregularly, as clients come: what it does with them shows after some seconds.
    let pauses = [150, 420, 230, 610].map(Duration::from_millis).repeat(5);
    for pause in &pauses {
        sleep(*pause);
        assert_eq!(clients.open_each(1), [Answer::Closed]);
    }
    let process = json!({ "process": fields["process"] });
    let said = Diagnosed::with(&mut fdtrace, &process, "drains_while_failing");
    let why = said.of_cause("drains_while_failing")["why"].as_str().unwrap();
    assert!(why.contains("it takes clients only to close them at once"), "{why}");
    let refused = 1 + CLIENTS + pauses.len() + clients.close_until_served();
    let closed = json!({ "process": fields["process"], "outcome": "recovered" });
    fdtrace.wait_for_report("episode_closed", &closed);
    let run = fdtrace.stop();
    assert_eq!(server.lines("output", ""), ["listening"], "Node itself says nothing");
    println!("    refused {refused}, counted {}", run.count(&process));
    assert_eq!(run.count(&process), refused as u64, "{:#}", run.summary());
    run.assert_lost_nothing();
}

/// It has raised its limit as far as it could; who lowers it while it runs takes that back. Nobody is
/// disconnected, and nothing restarted.
fn lowered_while_it_runs() {
    let home = Home::new();
    let mut command = command(home.port);
    let server = home.start(&mut command, LIMIT, HARD);
    let pid = server.pid();
    prlimit(u64::from(pid), &format!("{LIMIT}:"));
    let (said, fdtrace, mut clients) = runs_out(&server, pid);
    let raised = "Node.js raises it to the hard one at start, so it was lowered";
    said.is("soft_limit_low", "certain", &["soft nofile limit 64 (hard 1024)", raised]);
    let to_do = said.command("now");
    assert_eq!(to_do, format!("prlimit --pid {pid} --nofile={HARD}:"));
    carry_out(to_do);
    let [find] = said.texts("for_good")[..] else { panic!("{:#}", said.first()) };
    assert!(find.starts_with("find out what changes its limits while it runs"), "{find}");
    clients.open(SERVED);
    clients.last_are_served(SERVED);
    ends(fdtrace, &server, pid, "recovered");
}

/// A low hard limit binds it: a script's here, which sets the soft one lower still.
fn started_by_a_script() {
    let home = Home::new();
    let path = home.path("start.sh");
    let text = format!(
        "#!/bin/sh\nulimit -Sn 48\nulimit -Hn {LIMIT}\n{node} {SCRIPT} {port}\nexit $?\n",
        node = program("node").display(),
        port = home.port
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    let mut server = home.start(&mut Command::new(&path), HARD, HARD);
    let pid = only_child(server.pid());
    let (said, fdtrace, mut clients) = runs_out(&server, pid);
    let place = format!("{}:3", path.display());
    said.is(
        "hard_limit_low",
        "certain",
        &["nofile limit 64 (soft and hard)", &format!("the script's limit in {place}")],
    );
    assert_eq!(said.source("configured_limit"), place);

    // A hard limit may be raised by a root that has all of its capabilities, and by nobody else.
    let to_do = said.command("now");
    let outcome = if has_sys_resource() {
        carry_out(to_do);
        clients.open(SERVED);
        clients.last_are_served(SERVED);
        "recovered"
    } else {
        let [now] = said.texts("now")[..] else { panic!("{:#}", said.first()) };
        assert!(now.contains("needs CAP_SYS_RESOURCE"), "{now}");
        println!("    not here: $ {to_do}");
        "exited"
    };
    drop(clients);
    carry_out(said.command("for_good"));
    server.restart(&mut Command::new(&path), HARD, HARD);
    let mut clients = Clients::of(server.port(), HTTP);
    clients.open(SERVED);
    clients.last_are_served(SERVED);
    ends(fdtrace, &server, pid, outcome);
}

/// At its limit, where each client is closed: what fdtrace says of that.
#[track_caller]
fn runs_out(server: &Server, pid: u32) -> (Diagnosed, Fdtrace, Clients) {
    let mut fdtrace = Fdtrace::start(&[]);
    let mut clients = Clients::of(server.port(), HTTP);
    assert_eq!(clients.open_until_refused(100).1, Answer::Closed);
    assert_eq!(clients.open_each(CLOSED - 1), [Answer::Closed; CLOSED - 1]);
    let fields = json!({ "process": { "pid": pid, "comm": "node" }, "failure": "EMFILE" });
    (Diagnosed::of(&mut fdtrace, &fields), fdtrace, clients)
}

/// The episode ends like that, and has counted each client that was closed.
#[track_caller]
fn ends(mut fdtrace: Fdtrace, server: &Server, pid: u32, outcome: &str) {
    let ended = json!({ "process": { "pid": pid }, "outcome": outcome });
    let closed = fdtrace.reported("episode_closed", &ended);
    let run = fdtrace.stop();
    let counted = run.count(&json!({ "listener": { "port": server.port() } }));
    println!("    closed {CLOSED}, counted {counted}");
    let truth = CLOSED as u64;
    assert_eq!((counted, number(&closed, "/count")), (truth, truth), "{:#}", run.summary());
    run.assert_lost_nothing();
}
