//! Servers that listen and do not accept: their accept queue fills, and the kernel refuses clients
//! without a word to the server. Its name, its port and where its queue's limit comes from are what
//! the operator needs.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    panic::resume_unwind,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{
    Test,
    clients::{Answer, Clients, Crowd, HTTP, REDIS},
    server::{Home, Server, only_child, program},
    support::{Fdtrace, Run, number, same},
};

pub(crate) const TESTS: &[Test] = &[
    ("nginx_whose_worker_hangs_refuses_clients", nginx_hangs),
    ("go_that_does_not_accept_refuses_clients", go_does_not_accept),
    ("redis_that_hangs_refuses_clients", redis_hangs),
    ("haproxy_at_its_maxconn_refuses_clients", haproxy_at_maxconn),
    ("nginx_under_wrk_refuses_nobody", nginx_under_wrk),
];

/// Descriptors: enough for every server here.
const NOFILE: u64 = 1024;
const CLIENTS: u64 = 40;

/// The master owns the listener as well as the worker that does not come to accept.
fn nginx_hangs() {
    const BACKLOG: u64 = 8;
    let before = listen_overflows();
    // First, so that it sees the call of listen.
    let mut fdtrace = Fdtrace::start(&["--interval", "1s"]);
    let mut server = start_nginx(" backlog=8");
    let mut first = Clients::of(server.port(), HTTP);
    assert_eq!(first.open_each(1), [Answer::Served], "no worker runs");
    let worker = only_child(server.pid());
    let hung = Hung::new(worker);
    let clients = Crowd::knock(server.port(), CLIENTS);
    let fields = full(&server, BACKLOG, BACKLOG);
    let (_, opened) = fdtrace.wait_for_report("episode_opened", &fields);
    // The call of listen told of the master; who else has the listener is looked up meanwhile.
    assert_eq!(opened["process"]["comm"], "nginx", "{opened:#}");
    assert_eq!(owners(&opened)[0], server.pid(), "{opened:#}");
    let both = |report: &Value| {
        report["kind"] == "episode_updated"
            && same(report, &fields)
            && owners(report) == [server.pid(), worker]
    };
    fdtrace.wait_for(both, "update with master and worker");
    // Who was refused tries again after a second.
    thread::sleep(Duration::from_millis(500));
    // Before it goes on: all who try again at once may fill even a queue that is served.
    drop(clients);
    drop(hung);
    assert_eq!(first.open_each(1), [Answer::Served]);
    let closed = json!({ "listener": fields["listener"], "outcome": "recovered" });
    let (_, closed) = fdtrace.wait_for_report("episode_closed", &closed);
    assert_eq!(owners(&closed), [server.pid(), worker], "{closed:#}");
    drop(first);
    server.stop();

    let run = fdtrace.stop();
    let (kernel, counted) = (listen_overflows() - before, assert_refused(&run, &server));
    println!("    the kernel counted {kernel}, fdtrace {counted}");
    let refused = CLIENTS - BACKLOG - 1;
    assert!(counted >= 2 * refused, "{refused} clients were refused, twice: {closed:#}");
    assert!(kernel >= counted, "{:#}", run.summary());
    assert_eq!(number(&closed, "/refused/attempts"), counted);
    let connections = number(&closed, "/refused/connections");
    assert!(connections.abs_diff(refused) <= 2, "{refused} were refused: {closed:#}");
    let netns = own_netns();
    let namespaces = run.summary()["kernel"]["namespaces"].as_array().expect("namespaces");
    let own = namespaces.iter().find(|one| one["netns"] == netns).expect("its own namespace");
    assert_eq!(own["ListenOverflows"]["unattributed"], 0, "{own:#}");
}

/// Go asks for as much as the kernel lets it, so it is the kernel's setting that must be raised. It
/// is one of the network namespace: here, of one that has nothing else in it.
fn go_does_not_accept() {
    const SOMAXCONN: u64 = 16;
    let binary = build_go();
    let mut fdtrace = Fdtrace::start(&["--interval", "1s"]);
    let (server, exited) = in_new_netns(|| {
        fs::write("/proc/sys/net/core/somaxconn", SOMAXCONN.to_string()).unwrap();
        let home = Home::new();
        let port = home.port.to_string();
        // The thread stays until the server has ended: it would take it along.
        let mut server = home.start(Command::new(binary).arg(port), NOFILE, NOFILE);
        let clients = Crowd::knock(server.port(), CLIENTS);
        let mut fields = full(&server, SOMAXCONN, SOMAXCONN);
        fields["process"] = json!({ "pid": server.pid(), "comm": GO_PROGRAM });
        fields["listener"]["netns"] = json!(own_netns());
        let (_, opened) = fdtrace.wait_for_report("episode_opened", &fields);
        assert_eq!(owners(&opened), [server.pid()]);
        // At first, the namespace may be too new to be known.
        fields["backlog"]["somaxconn"] = json!(SOMAXCONN);
        fdtrace.wait_for_report("episode_updated", &fields);
        server.stop();
        drop(clients);
        let exited = json!({ "process": fields["process"], "outcome": "exited" });
        (server, fdtrace.wait_for_report("episode_closed", &exited).1)
    });
    let counted = assert_refused(&fdtrace.stop(), &server);
    assert_eq!(number(&exited, "/count"), counted);
}

fn redis_hangs() {
    const BACKLOG: u64 = 5;
    let mut fdtrace = Fdtrace::start(&[]);
    let server = start_redis(BACKLOG);
    let mut first = Clients::of(server.port(), REDIS);
    assert_eq!(first.open_each(1), [Answer::Served]);
    let hung = Hung::new(server.pid());
    let clients = Crowd::knock(server.port(), CLIENTS);
    let mut fields = full(&server, BACKLOG, BACKLOG);
    fields["process"] = json!({ "pid": server.pid(), "comm": "redis-server" });
    let (_, opened) = fdtrace.wait_for_report("episode_opened", &fields);
    assert_eq!(owners(&opened), [server.pid()]);
    drop(clients);
    drop(hung);
    assert_eq!(first.ask_the_last(), Answer::Served);
    assert_refused(&fdtrace.stop(), &server);
}

#[track_caller]
pub(crate) fn start_redis(backlog: u64) -> Server {
    let home = Home::new();
    let mut command = Command::new(program("redis-server"));
    command
        .args(["--bind", "127.0.0.1", "--port", &home.port.to_string()])
        .args(["--tcp-backlog", &backlog.to_string()])
        .args(["--save", "", "--appendonly", "no"])
        .current_dir(home.path(""));
    home.start(&mut command, NOFILE, NOFILE)
}

/// At a frontend's `maxconn`, haproxy takes its listener out of its poll loop until a connection
/// ends. Nothing is logged, no call fails, and haproxy itself serves those it has: who comes waits
/// in the kernel's queue, which is as long as the frontend's `backlog` (by default its `maxconn`).
fn haproxy_at_maxconn() {
    const BACKLOG: u64 = 6;
    let mut fdtrace = Fdtrace::start(&[]);
    let home = Home::new();
    let config = format!(
        "defaults\n  \
           mode http\n  \
           timeout connect 5s\n  \
           timeout client 60s\n  \
           timeout server 60s\n\
         frontend one-at-a-time\n  \
           bind 127.0.0.1:{port}\n  \
           backlog {BACKLOG}\n  \
           maxconn 1\n  \
           http-request return status 200 content-type text/plain string \"ok\\n\"\n",
        port = home.port,
    );
    let config = home.file("haproxy.cfg", &config);
    let mut command = Command::new(program("haproxy"));
    // In the foreground, as one process.
    let server = home.start(command.arg("-db").arg("-f").arg(config), NOFILE, NOFILE);
    let mut first = Clients::of(server.port(), HTTP);
    assert_eq!(first.open_each(1), [Answer::Served]);
    let clients = Crowd::knock(server.port(), CLIENTS);
    let mut fields = full(&server, BACKLOG, BACKLOG);
    fields["process"] = json!({ "pid": server.pid(), "comm": "haproxy" });
    let (_, opened) = fdtrace.wait_for_report("episode_opened", &fields);
    assert_eq!(owners(&opened), [server.pid()]);
    assert_eq!(first.ask_the_last(), Answer::Served, "the one that it has");
    drop(clients);
    assert_refused(&fdtrace.stop(), &server);
}

/// A queue that is in use and never full.
fn nginx_under_wrk() {
    let fdtrace = Fdtrace::start(&[]);
    let server = start_nginx("");
    let mut command = Command::new(program("wrk"));
    command.args(["-t2", "-c64", "-d3s", &format!("http://127.0.0.1:{}/", server.port())]);
    let output = command.output().expect("run wrk");
    let said = String::from_utf8_lossy(&output.stdout);
    println!("    {}", said.lines().rfind(|line| line.contains("Requests/sec")).unwrap_or(&said));
    assert!(output.status.success(), "{said}");
    assert!(said.contains(" requests in "), "{said}");
    // wrk prints these lines only if there were any.
    for error in ["Socket errors", "Non-2xx"] {
        assert!(!said.contains(error), "{said}");
    }
    let run = fdtrace.stop();
    let listener = json!({ "listener": { "port": server.port() } });
    assert!(run.totals(&listener).is_empty(), "{:#}", run.summary());
    assert!(run.of_kind("episode_opened", &listener).is_empty(), "{:#?}", run.reports);
    run.assert_lost_nothing();
}

/// An episode of a server whose accept queue of that limit is full: one more fits than it says.
fn full(server: &Server, limit: u64, requested: u64) -> Value {
    json!({
        "listener": { "family": "inet", "address": "127.0.0.1", "port": server.port() },
        "target": "listener",
        "failure": "accept_queue_full",
        "accept_queue": { "length": limit + 1, "limit": limit },
        "backlog": { "requested": requested },
    })
}

/// The listener's owners in a report, the lead one first.
#[track_caller]
fn owners(report: &Value) -> Vec<u32> {
    let all = report["processes"].as_array().expect("processes");
    let pids: Vec<_> =
        all.iter().map(|process| u32::try_from(number(process, "/pid")).expect("a pid")).collect();
    assert_eq!(report["process"], all[0], "the lead one is the first");
    pids
}

/// Fails unless clients were refused because the accept queue was full, and nothing else failed.
/// Says how often; one episode told of it.
#[track_caller]
fn assert_refused(run: &Run, server: &Server) -> u64 {
    let listener = json!({ "listener": { "port": server.port() } });
    let count = run.count(&json!({
        "listener": listener["listener"],
        "failure": "accept_queue_full",
    }));
    println!("    counted {count}");
    assert!(count > 0, "{:#}", run.summary());
    assert_eq!(run.count(&listener), count, "{:#}", run.summary());
    assert_eq!(run.of_kind("episode_opened", &listener).len(), 1, "{:#?}", run.reports);
    run.assert_lost_nothing();
    count
}

/// A process that is alive and does nothing, as in a deadlock, until this is dropped.
pub(crate) struct Hung(Pid);

impl Hung {
    /// Stops it, and waits until it has.
    #[track_caller]
    pub(crate) fn new(pid: u32) -> Self {
        let process = Pid::from_raw(i32::try_from(pid).unwrap());
        kill(process, Signal::SIGSTOP).expect("stop the server");
        let hung = Self(process);
        let deadline = Instant::now() + Duration::from_secs(5);
        while !fs::read_to_string(format!("/proc/{pid}/status")).unwrap().contains("State:\tT") {
            assert!(Instant::now() < deadline, "{pid} does not stop");
            thread::sleep(Duration::from_millis(5));
        }
        hung
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

/// This thread's network namespace.
fn own_netns() -> u64 {
    fs::metadata("/proc/thread-self/ns/net").unwrap().ino()
}

/// What the kernel counts in this network namespace.
fn listen_overflows() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let counters: BTreeMap<_, _> = names.split(' ').zip(values.split(' ')).collect();
    counters["ListenOverflows"].parse().unwrap()
}

/// Does something in a network namespace that has its own settings, and loopback. It lasts as long
/// as something in it.
pub(crate) fn in_new_netns<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    let inside = || {
        // Only this thread moves: the test itself stays where it is.
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let mut command = Command::new(program("ip"));
        let status = command.args(["link", "set", "lo", "up"]).status().expect("run ip");
        assert!(status.success(), "{command:?}");
        act()
    };
    let result = thread::scope(|scope| scope.spawn(inside).join());
    result.unwrap_or_else(|panic| resume_unwind(panic))
}

const GO_PROGRAM: &str = "busyelsewhere";

/// Compiles the server; cargo's directory keeps what is compiled already.
#[track_caller]
fn build_go() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("servers-go");
    let binary = dir.join(GO_PROGRAM);
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/go/listener/main.go");
    let output = Command::new(program("go"))
        .args(["build", "-o"])
        .args([&binary, Path::new(source)])
        // It has no dependencies: nothing may be looked for on the network, no C compiler is needed.
        .envs([("GO111MODULE", "off"), ("GOFLAGS", ""), ("GOPROXY", "off")])
        .envs([("GOTOOLCHAIN", "local"), ("GOENV", "off"), ("CGO_ENABLED", "0")])
        .env("GOCACHE", dir.join("cache"))
        .env("GOPATH", dir.join("path"))
        .output()
        .expect("run go");
    assert!(output.status.success(), "go build: {}", String::from_utf8_lossy(&output.stderr));
    binary
}

/// With one worker, and what is to follow the address in `listen`.
#[track_caller]
fn start_nginx(listen: &str) -> Server {
    let home = Home::new();
    let dir = home.path("");
    let dir = dir.display();
    let places = ["client_body", "proxy", "fastcgi", "scgi", "uwsgi"];
    let places = places.map(|name| format!("{name}_temp_path {dir}{name};\n")).concat();
    let config = format!(
        "daemon off;\n\
         pid {dir}nginx.pid;\n\
         user www-data;\n\
         worker_processes 1;\n\
         error_log {dir}error.log warn;\n\
         events {{ worker_connections 512; }}\n\
         http {{\n\
           access_log off;\n\
           {places}\
           server {{\n\
             listen 127.0.0.1:{port}{listen};\n\
             location / {{ return 200 \"ok\\n\"; }}\n\
           }}\n\
         }}\n",
        port = home.port,
    );
    let config = home.file("nginx.conf", &config);
    let mut command = Command::new(program("nginx"));
    command.arg("-e").arg(home.path("error.log")).arg("-c").arg(config);
    home.start(&mut command, NOFILE, NOFILE)
}
