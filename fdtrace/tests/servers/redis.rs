//! Redis. It allows itself fewer clients than descriptors (`maxclients`, 32 fewer) and refuses the
//! rest by itself; accept fails only where the limit was lowered later, or where descriptors went
//! elsewhere. It accepts until there is nobody left, so that it fails right after it has taken its
//! last descriptor; and it tries again at once for as long as somebody waits: a busy loop.

use std::{
    os::unix::{fs::chown, process::CommandExt as _},
    process::Command,
    thread,
    time::Duration,
};

use jiff::Timestamp;
use nix::unistd::User;
use serde_json::{Value, json};

use crate::{
    Test,
    clients::{Answer, Clients, REDIS},
    clock,
    server::{Home, Server, prlimit, program},
    support::{Fdtrace, Run},
};

pub(crate) const TESTS: &[Test] = &[
    ("redis_in_its_busy_loop_is_counted_exactly", busy_loop),
    ("redis_with_a_log_file_fails_in_silence", silence),
];

const LIMIT: u64 = 64;
const FAILED: &str = "Accepting client connection: accept: Too many open files";

/// To stdout it logs every failure.
fn busy_loop() {
    let mut server = start("");
    let (opened, run, process) = exhaust(&server);
    server.stop();
    clock::assert_prompt(&opened, first_failure(&server));
    let (logged, counted) = (server.lines("output", FAILED).len() as u64, run.count(&process));
    println!("    logged {logged}, counted {counted}");
    assert_eq!(counted, logged, "{:#}", run.summary());
    run.assert_lost_nothing();
}

/// It opens its log file anew for each line, and at its limit it cannot: nobody but fdtrace tells.
fn silence() {
    let mut server = start("redis.log");
    let (_, run, process) = exhaust(&server);
    server.stop();
    assert_eq!(server.lines("redis.log", "Ready to accept connections").len(), 1);
    assert_eq!(server.lines("redis.log", FAILED), [""; 0]);
    println!("    logged 0, counted {}", run.count(&process));
    // Once per turn of its loop; what else it does in one is too little to take a millisecond.
    assert!(run.count(&process) > 300, "{:#}", run.summary());
    run.assert_lost_nothing();
}

/// Takes its descriptors away, lets a client come, and lets all of them go.
#[track_caller]
fn exhaust(server: &Server) -> ((std::time::Instant, Value), Run, Value) {
    let mut fdtrace = Fdtrace::start(&[]);
    let mut clients = Clients::of(server.port(), REDIS);
    assert_eq!(clients.open_each(5), [Answer::Served; 5]);
    // Their numbers have no gaps, so that as many as are open is as high as they go.
    let pid = server.pid();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    prlimit(u64::from(pid), &format!("{open}:{LIMIT}"));
    clients.open(1);
    let process = json!({ "process": { "pid": pid, "comm": "redis-server" } });
    let fields = json!({
        "process": process["process"],
        "listener": { "family": "inet", "address": "127.0.0.1", "port": server.port() },
        "failure": "EMFILE",
        "door": "accept4",
        "fds": { "open": open, "soft": open, "hard": LIMIT },
        "accept_queue": { "length": 1, "limit": 511 },
    });
    let opened = fdtrace.wait_for_report("episode_opened", &fields);
    thread::sleep(Duration::from_millis(300));
    clients.close_until_served();
    let closed = json!({ "process": process["process"], "outcome": "recovered" });
    fdtrace.wait_for_report("episode_closed", &closed);
    (opened, fdtrace.stop(), process)
}

/// `14807:M 29 Jul 2024 21:56:43.120 # Accepting client connection: …`
#[track_caller]
fn first_failure(server: &Server) -> Timestamp {
    let line = server.wait_for_line("output", FAILED);
    let (_, rest) = line.split_once(":M ").unwrap();
    let (time, _) = rest.split_once(" # ").unwrap();
    clock::utc("%d %b %Y %H:%M:%S%.f", time)
}

/// Not as root: that may raise its own hard limit, and Redis does, for 10 000 clients.
#[track_caller]
fn start(log_file: &str) -> Server {
    let nobody = User::from_name("nobody").unwrap().expect("the user nobody");
    let home = Home::new();
    let mut command = Command::new(program("redis-server"));
    command.args(["--bind", "127.0.0.1", "--port", &home.port.to_string()]).args([
        "--loglevel",
        "notice",
        "--save",
        "",
        "--appendonly",
        "no",
        "--logfile",
    ]);
    if log_file.is_empty() {
        command.arg("");
    } else {
        let file = home.file(log_file, "");
        chown(&file, Some(nobody.uid.as_raw()), Some(nobody.gid.as_raw())).unwrap();
        command.arg(file);
    }
    command.uid(nobody.uid.as_raw()).gid(nobody.gid.as_raw()).current_dir(home.path(""));
    home.start(&mut command, LIMIT, LIMIT)
}
