//! nginx. A worker that cannot accept logs it, and stops listening for half a second
//! (`accept_mutex_delay`). It calls accept once per event, so that it fails when somebody comes.

use std::{fs, process::Command, time::Duration};

use jiff::Timestamp;
use serde_json::json;

use crate::{
    Test,
    clients::{Answer, Clients, HTTP},
    clock,
    server::{Home, Server, prlimit, program},
    support::{Diagnosed, Fdtrace, carry_out, number},
};

pub(crate) const TESTS: &[Test] = &[
    ("nginx_recovers_when_the_limit_is_raised", recovers_when_the_limit_is_raised),
    ("nginx_workers_are_told_apart", workers_are_told_apart),
    ("nginx_with_a_limit_of_its_own", limit_of_its_own),
    ("nginx_that_is_healthy_is_not_reported", healthy),
];

const LIMIT: u64 = 64;
const FAILED: &str = "accept4() failed (24: Too many open files)";

/// A soft limit below the hard one, as it comes from a shell or from systemd.
fn recovers_when_the_limit_is_raised() {
    const HARD: u64 = 1024;
    let mut server = start("worker_processes 1;", LIMIT, HARD);
    let mut fdtrace = Fdtrace::start(&["--interval", "1s"]);
    let mut clients = Clients::of(server.port(), HTTP);
    let (refused_at, answer) = clients.open_until_refused(100);
    assert_eq!(answer, Answer::Waiting);
    clients.open(9);

    let fields = json!({
        "process": { "comm": "nginx" },
        "listener": { "family": "inet", "address": "127.0.0.1", "port": server.port() },
        "failure": "EMFILE",
        "door": "accept4",
        "fds": { "open": LIMIT, "soft": LIMIT, "hard": HARD },
        "accept_queue": { "length": 1, "limit": 511 },
    });
    let opened = fdtrace.wait_for_report("episode_opened", &fields);
    let (pid, at) = failure(&server.wait_for_line("error.log", FAILED));
    clock::assert_prompt(&opened, refused_at);
    // The log has no fractions of a second.
    assert!(at + Duration::from_secs(1) > refused_at, "logged at {at}, refused at {refused_at}");
    assert_eq!(number(&opened.1, "/process/pid"), pid);
    assert_ne!(pid, u64::from(server.pid()), "the worker accepts, and not the master");
    let all_wait = json!({ "process": { "pid": pid }, "accept_queue": { "length": 10 } });
    fdtrace.wait_for_report("episode_updated", &all_wait);

    // What fdtrace says is to be done: nobody is disconnected, nothing restarted.
    prlimit(pid, &format!("{HARD}:"));
    clients.last_are_served(10);
    let closed = json!({ "process": { "pid": pid }, "outcome": "recovered" });
    fdtrace.wait_for_report("episode_closed", &closed);

    let run = fdtrace.stop();
    server.stop();
    let logged = server.lines("error.log", FAILED).len() as u64;
    let counted = run.count(&json!({ "listener": { "port": server.port() } }));
    println!("    logged {logged}, counted {counted}");
    assert_eq!(counted, logged, "{:#}", run.summary());
    run.assert_lost_nothing();
}

/// Two processes, one listener. Their limit is nginx's own setting, for soft and hard.
fn workers_are_told_apart() {
    let mut server = start("worker_processes 2; worker_rlimit_nofile 64;", 1024, 1024);
    let mut fdtrace = Fdtrace::start(&[]);
    let mut clients = Clients::of(server.port(), HTTP);
    let (_, answer) = clients.open_until_refused(200);
    assert_eq!(answer, Answer::Waiting);
    // The other worker may have room: a new connection wakes one of them (EPOLLEXCLUSIVE), and where
    // that one fails, the other learns of nothing until the next connection comes.
    clients.open(100);
    let listener = json!({ "listener": { "port": server.port() } });
    let fields = json!({
        "listener": listener["listener"],
        "fds": { "open": LIMIT, "soft": LIMIT, "hard": LIMIT },
    });
    for _ in 0..2 {
        fdtrace.wait_for_report("episode_opened", &fields);
    }
    clients.close_until_served();
    for _ in 0..2 {
        let closed = json!({ "listener": listener["listener"], "outcome": "recovered" });
        fdtrace.wait_for_report("episode_closed", &closed);
    }
    let run = fdtrace.stop();
    server.stop();
    let mut logged = std::collections::BTreeMap::<u64, u64>::new();
    for line in server.lines("error.log", FAILED) {
        *logged.entry(failure(&line).0).or_default() += 1;
    }
    let counted: std::collections::BTreeMap<_, _> = run
        .totals(&listener)
        .into_iter()
        .map(|total| (number(total, "/process/pid"), number(total, "/count")))
        .collect();
    println!("    logged {logged:?}, counted {counted:?}");
    assert_eq!(counted, logged, "{:#}", run.summary());
    assert_eq!(logged.len(), 2, "both workers fail");
    run.assert_lost_nothing();
}

/// The remedy is for the file that says it: the next workers have more, and nothing is restarted.
fn limit_of_its_own() {
    const MORE: usize = 200;
    let mut server = start("worker_processes 1;\nworker_rlimit_nofile 64;", 1024, 1024);
    let mut fdtrace = Fdtrace::start(&[]);
    let mut clients = Clients::of(server.port(), HTTP);
    assert_eq!(clients.open_until_refused(100).1, Answer::Waiting);
    let fields = json!({ "process": { "comm": "nginx" }, "failure": "EMFILE" });
    let said = Diagnosed::of(&mut fdtrace, &fields);
    let config = server.path("nginx.conf");
    let text = fs::read_to_string(&config).unwrap();
    let line = 1 + text.lines().position(|line| line.starts_with("worker_rlimit_nofile")).unwrap();
    let place = format!("{}:{line}", config.display());
    said.is("own_setting", "certain", &[&format!("worker_rlimit_nofile in {place}")]);
    assert_eq!(said.source("configured_limit"), place);
    carry_out(said.command("for_good"));
    // The old worker keeps its clients until they leave.
    clients.close_until_served();
    let before = number(&said.0, "/process/pid");
    fdtrace.reported("episode_closed", &json!({ "process": { "pid": before } }));
    clients.open(MORE);
    clients.last_are_served(MORE);
    let run = fdtrace.stop();
    server.stop();
    let logged = server.lines("error.log", FAILED).len() as u64;
    let listener = json!({ "listener": { "port": server.port() } });
    let counted = run.count(&listener);
    println!("    logged {logged}, counted {counted}");
    let closed = run.of_kind("episode_closed", &listener);
    let in_episodes: u64 = closed.iter().map(|closed| number(closed, "/count")).sum();
    assert_eq!((counted, in_episodes), (logged, logged), "{:#?}", run.reports);
    run.assert_lost_nothing();
}

fn healthy() {
    let server = start("worker_processes 2;", 1024, 1024);
    let fdtrace = Fdtrace::start(&["--port", &server.port().to_string()]);
    let mut clients = Clients::of(server.port(), HTTP);
    for _ in 0..300 {
        clients.open(1);
        clients.last_are_served(1);
        for _ in 0..9 {
            assert_eq!(clients.ask_the_last(), Answer::Served);
        }
    }
    assert_eq!(clients.count(), 300);
    clients.close();
    for _ in 0..700 {
        clients.open(1);
        clients.last_are_served(1);
        clients.close();
    }
    let run = fdtrace.stop();
    assert_eq!(run.summary()["totals"], json!([]));
    assert_eq!(run.reports.len(), 2, "the start line and the summary: {:#?}", run.reports);
    run.assert_lost_nothing();
}

/// `2024/07/29 21:56:43 [crit] 14807#14807: accept4() failed (24: Too many open files)`: who, when.
#[track_caller]
fn failure(line: &str) -> (u64, Timestamp) {
    let (time, rest) = line.split_once(" [crit] ").unwrap();
    let (pid, _) = rest.split_once('#').unwrap();
    (pid.parse().unwrap(), clock::utc("%Y/%m/%d %H:%M:%S", time))
}

/// Room for more connections than the limit allows, which is the mistake that is made.
#[track_caller]
pub(crate) fn start(workers: &str, soft: u64, hard: u64) -> Server {
    let home = Home::new();
    let config = format!(
        "daemon off;\n\
         pid {dir}nginx.pid;\n\
         user www-data;\n\
         {workers}\n\
         error_log {dir}error.log warn;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n\
           access_log off;\n\
           keepalive_timeout 120s;\n\
           client_body_temp_path {dir}body;\n\
           proxy_temp_path {dir}proxy;\n\
           fastcgi_temp_path {dir}fastcgi;\n\
           scgi_temp_path {dir}scgi;\n\
           uwsgi_temp_path {dir}uwsgi;\n\
           server {{\n\
             listen 127.0.0.1:{port};\n\
             location / {{ return 200 \"ok\\n\"; }}\n\
             location = /file {{ root {dir}; }}\n\
           }}\n\
         }}\n",
        dir = home.path("").display(),
        port = home.port,
    );
    let config = home.file("nginx.conf", &config);
    let mut command = Command::new(program("nginx"));
    command.arg("-e").arg(home.path("error.log")).arg("-c").arg(config);
    home.start(&mut command, soft, hard)
}
