//! Programs that need descriptors for other things than clients, with `--fds`. The truth is what they
//! count themselves, or log.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    Test,
    clients::{Answer, Clients, ECHO, HTTP, MISSING},
    nginx,
    server::{Home, prepare, program},
    support::{Fdtrace, Run, number},
};

pub(crate) const TESTS: &[Test] = &[
    ("python_without_a_descriptor", python),
    ("node_without_a_descriptor", node),
    ("node_on_io_uring_without_a_descriptor", node_on_io_uring),
    ("nginx_cannot_open_what_it_serves", nginx_cannot_open),
    ("an_io_uring_server_that_never_accepts_again", io_uring_server),
];

const LIMIT: u64 = 64;

/// A program that has failed and said how often; it ends with this.
struct Program {
    child: Child,
    counts: BTreeMap<String, u64>,
}

impl Program {
    #[track_caller]
    fn run(command: &mut Command, limit: u64) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // SAFETY: `prepare` makes system calls only, which is allowed between fork and exec.
        unsafe { command.pre_exec(move || prepare(limit, limit)) };
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let counts = serde_json::from_str(&line);
        let counts = counts.unwrap_or_else(|error| panic!("{command:?}: {error}: {line:?}"));
        Self { child, counts }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn script(name: &str) -> String {
    format!("{}/tests/servers/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Whether fdtrace sees every refused descriptor, and not only those of calls by name.
fn sees_allocations(run: &Run) -> bool {
    let probes = run.summary()["probes"].as_array().unwrap();
    let fds = probes.iter().find(|probe| probe["probe"] == "fds").unwrap();
    fds["form"] == "fexit" || fds["form"] == "kprobe"
}

/// What fdtrace counted of a process, by call; all of it EMFILE.
#[track_caller]
fn counted(run: &Run, process: &Value) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for total in run.totals(&json!({ "process": process })) {
        assert_eq!(total["failure"], "EMFILE", "{total}");
        let door = total["door"].as_str().unwrap().to_owned();
        *counts.entry(door).or_default() += number(total, "/count");
    }
    counts
}

fn python() {
    let fdtrace = Fdtrace::start(&["--fds"]);
    let mut command = Command::new(program("python3"));
    let python = Program::run(command.arg(script("exhausted.py")), LIMIT);
    let run = fdtrace.stop();
    println!("    {:?}", python.counts);
    assert_eq!(counted(&run, &json!({ "pid": python.child.id() })), python.counts);
    run.assert_lost_nothing();
}

/// libuv opens files on threads of its own.
fn node() {
    let (run, node) = run_node("0");
    let mut truth = node.counts.clone();
    let on_threads = truth.remove("async").unwrap();
    *truth.get_mut("openat").unwrap() += on_threads;
    assert_eq!(counted(&run, &json!({ "pid": node.child.id() })), truth);
}

/// The same, where libuv lets the kernel do it: a thread of the kernel takes it from the ring.
fn node_on_io_uring() {
    let (run, node) = run_node("1");
    let mut truth = node.counts.clone();
    let in_ring = truth.remove("async").unwrap();
    if sees_allocations(&run) {
        truth.insert("io_uring".to_owned(), in_ring);
    } else {
        println!("    io_uring: not seen by this form");
    }
    assert_eq!(counted(&run, &json!({ "pid": node.child.id() })), truth);
}

#[track_caller]
fn run_node(io_uring: &str) -> (Run, Program) {
    let fdtrace = Fdtrace::start(&["--fds"]);
    let mut command = Command::new(program("node"));
    command.arg(script("exhausted.js")).env("UV_USE_IO_URING", io_uring);
    let node = Program::run(&mut command, LIMIT);
    let run = fdtrace.stop();
    println!("    {:?}", node.counts);
    run.assert_lost_nothing();
    (run, node)
}

/// Clients have taken every descriptor: who asks for a file gets error 500.
fn nginx_cannot_open() {
    const ASKED: usize = 7;
    const FAILED: &str = "failed (24: Too many open files)";
    let mut server = nginx::start("worker_processes 1;", LIMIT, LIMIT);
    fs::write(server.path("file"), "ok\n").unwrap();
    let mut fdtrace = Fdtrace::start(&["--fds"]);
    let mut clients = Clients::of(server.port(), HTTP);
    let (_, answer) = clients.open_until_refused(100);
    assert_eq!(answer, Answer::Waiting);
    let first_waiting = clients.count() - 1;
    clients.open(ASKED - 1);
    // With error 500 nginx ends the connection, and accepts somebody who waits.
    for client in 0..ASKED {
        assert_eq!(clients.ask_on(client, MISSING), Answer::Served);
        clients.is_served(first_waiting + client);
    }
    let fields = json!({
        "process": { "comm": "nginx" },
        "listener": null,
        "failure": "EMFILE",
        "door": "openat",
        "fds": { "open": LIMIT, "soft": LIMIT },
    });
    let (_, opened) = fdtrace.wait_for_report("episode_opened", &fields);
    let run = fdtrace.stop();
    server.stop();
    let logged =
        |call| server.lines("error.log", FAILED).iter().filter(|l| l.contains(call)).count();
    let (opens, accepts) = (logged(" open() "), logged(" accept4() "));
    println!("    asked {ASKED}, logged {opens} of open and {accepts} of accept4");
    assert_eq!(opens, ASKED);
    let truth = [("openat", opens), ("accept4", accepts)];
    let truth = truth.map(|(door, count)| (door.to_owned(), count as u64)).into();
    assert_eq!(counted(&run, &json!({ "pid": opened["process"]["pid"] })), truth);
    run.assert_lost_nothing();
}

/// An example of the io-uring crate. It arms three accepts and replaces those that took somebody: those
/// that failed are gone, and after three it never accepts again.
fn io_uring_server() {
    const PORT: u16 = 3456;
    const FAILED: &str = "token Some(Accept) error: Os { code: 24,";
    let mut command = Command::new("/proc/self/exe");
    let mut server = Home::at(PORT).start(command.env("SERVER", "tcp_echo"), LIMIT, LIMIT);
    let mut fdtrace = Fdtrace::start(&[]);
    let mut clients = Clients::of(PORT, ECHO);
    let (_, answer) = clients.open_until_refused(100);
    assert_eq!(answer, Answer::Waiting);
    let fields = json!({
        "process": { "pid": server.pid() },
        "listener": { "family": "inet", "address": "127.0.0.1", "port": PORT },
        "failure": "EMFILE",
        "door": "io_uring_accept",
        "fds": { "open": LIMIT, "soft": LIMIT },
        "limit": { "kind": "nofile", "value": LIMIT },
    });
    fdtrace.wait_for_report("episode_opened", &fields);
    clients.open(5);
    // Everybody who is served leaves, and still nobody is accepted.
    clients.close();
    assert_eq!(clients.open_each(2), [Answer::Waiting; 2]);
    let run = fdtrace.stop();
    server.stop();
    let logged = server.lines("output", FAILED).len() as u64;
    let counted = run.count(&json!({ "listener": { "port": PORT } }));
    println!("    logged {logged}, counted {counted}");
    assert_eq!((counted, logged), (3, 3), "{:#}", run.summary());
    run.assert_lost_nothing();
}
