//! Go's net/http. It waits 5 ms after a failed accept, then twice as long each time, up to 1 s, and
//! logs each. It calls accept again at once after each connection, so that it fails as soon as its
//! last descriptor is taken, before anybody is refused.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use jiff::Timestamp;
use serde_json::json;

use crate::{
    Test,
    clients::{Answer, Clients, HTTP, SETTLED},
    clock,
    server::{Home, Server, program},
    support::{Diagnosed, Fdtrace, number},
};

pub(crate) const TESTS: &[Test] =
    &[("go_under_supervisord", go_under_supervisord), ("go_raises_its_soft_limit", go_alone)];

/// Its name, too: 15 bytes are what the kernel keeps.
pub(crate) const PROGRAM: &str = "dataforwardsrv";
pub(crate) const FAILED: &str = "http: Accept error: accept";

/// The story that fdtrace was written for: supervisord's limit is its children's.
fn go_under_supervisord() {
    const LIMIT: u64 = 1024;
    let server = under_supervisord(LIMIT);
    let mut fdtrace = Fdtrace::start(&["--interval", "1s"]);
    let mut clients = Clients::of(server.port(), HTTP);

    let (_, answer) = clients.open_until_refused(1100);
    assert_eq!(answer, Answer::Waiting);
    clients.open(30);
    let fields = json!({
        "process": { "pid": pid_of_supervisorctl(&server), "comm": PROGRAM },
        "listener": { "family": "inet6", "address": "::", "port": server.port() },
        "failure": "EMFILE",
        "door": "accept4",
        "fds": { "open": LIMIT, "soft": LIMIT, "hard": LIMIT },
    });
    let opened = fdtrace.wait_for_report("episode_opened", &fields);
    clock::assert_prompt(&opened, first_failure(&server, "server.log"));
    // Go asks for as much as the kernel lets it.
    let limit: u64 =
        std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().parse().unwrap();
    assert_eq!(number(&opened.1, "/accept_queue/limit"), limit);
    let all_wait = json!({ "accept_queue": { "length": 31 } });
    fdtrace.wait_for_report("episode_updated", &all_wait);
    let process = json!({ "process": fields["process"] });
    let said = Diagnosed::with(&mut fdtrace, &process, "backs_off");
    let why = said.of_cause("backs_off")["why"].as_str().unwrap();
    assert!(why.contains(" waits after each EMFILE, longer every time, up to "), "{why}");

    settle(fdtrace, server, clients, "server.log", &fields);
}

/// Since 1.19, Go makes its soft limit as high as the hard one, and it is that one which is hit.
fn go_alone() {
    let home = Home::new();
    let mut command = Command::new(build());
    let port = home.port.to_string();
    let server = home.start(command.arg(port), 64, 128);
    let mut fdtrace = Fdtrace::start(&[]);
    let mut clients = Clients::of(server.port(), HTTP);
    let (_, answer) = clients.open_until_refused(200);
    assert_eq!(answer, Answer::Waiting);
    let fields = json!({
        "process": { "pid": server.pid(), "comm": PROGRAM },
        "listener": { "port": server.port() },
        "failure": "EMFILE",
        "fds": { "open": 128, "soft": 128, "hard": 128 },
    });
    let opened = fdtrace.wait_for_report("episode_opened", &fields);
    clock::assert_prompt(&opened, first_failure(&server, "output"));
    settle(fdtrace, server, clients, "output", &fields);
}

/// Lets all clients go and compares the numbers: what was logged, what was counted.
#[track_caller]
fn settle(
    mut fdtrace: Fdtrace,
    mut server: Server,
    mut clients: Clients,
    log: &str,
    fields: &serde_json::Value,
) {
    let process = json!({ "process": { "pid": fields["process"]["pid"] } });
    clients.close();
    let closed = json!({ "process": process["process"], "outcome": "recovered" });
    let (_, closed) = fdtrace.wait_for_report("episode_closed", &closed);
    // The lines before this one have come through supervisord when this one has.
    Clients::of(server.port(), SETTLED).close_until_served();
    server.wait_for_line(log, "asked for /settled");
    let run = fdtrace.stop();
    server.stop();
    let logged = server.lines(log, FAILED).len() as u64;
    println!("    logged {logged}, counted {}", run.count(&process));
    assert_eq!(run.count(&process), logged, "{:#}", run.summary());
    assert_eq!(number(&closed, "/count"), logged);
    assert_eq!(run.of_kind("episode_opened", &process).len(), 1);
    run.assert_lost_nothing();
}

/// `2024/07/29 21:56:43.120456 http: Accept error: accept tcp [::]:9088: accept4: too many open
/// files; retrying in 5ms`
#[track_caller]
fn first_failure(server: &Server, log: &str) -> Timestamp {
    let line = server.wait_for_line(log, FAILED);
    assert!(line.contains("accept4: too many open files"), "{line}");
    let (time, _) = line.split_once(" http:").unwrap();
    clock::utc("%Y/%m/%d %H:%M:%S%.f", time)
}

#[track_caller]
pub(crate) fn under_supervisord(limit: u64) -> Server {
    let home = Home::new();
    let command = format!("{} {}", build().display(), home.port);
    let config = supervisord_conf(&home, &format!("minfds = {limit}\n"), &command);
    home.start(&mut supervisord(&config), limit, limit)
}

/// Writes supervisord's configuration for a server, with what is to stand in its own section.
#[track_caller]
pub(crate) fn supervisord_conf(home: &Home, own: &str, command: &str) -> PathBuf {
    let dir = home.path("");
    let config = format!(
        "[supervisord]\n\
         nodaemon = true\n\
         user = root\n\
         {own}\
         logfile = {dir}supervisord.log\n\
         pidfile = {dir}supervisord.pid\n\
         childlogdir = {dir}\n\
         [unix_http_server]\n\
         file = {dir}supervisor.sock\n\
         [rpcinterface:supervisor]\n\
         supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n\
         [supervisorctl]\n\
         serverurl = unix://{dir}supervisor.sock\n\
         [program:{PROGRAM}]\n\
         command = {command}\n\
         autorestart = false\n\
         stopwaitsecs = 2\n\
         redirect_stderr = true\n\
         stdout_logfile = {dir}server.log\n\
         stdout_logfile_maxbytes = 0\n",
        dir = dir.display(),
    );
    home.file("supervisord.conf", &config)
}

pub(crate) fn supervisord(config: &Path) -> Command {
    let mut command = Command::new(program("supervisord"));
    command.arg("--nodaemon").arg("--configuration").arg(config);
    command
}

/// Whom supervisord says it started.
#[track_caller]
pub(crate) fn pid_of_supervisorctl(server: &Server) -> u32 {
    let text = supervisorctl(server, "pid");
    text.trim().parse().unwrap_or_else(|_| panic!("supervisorctl says {text:?}"))
}

/// What supervisorctl says when it does that to the server.
#[track_caller]
pub(crate) fn supervisorctl(server: &Server, what: &str) -> String {
    let mut command = Command::new(program("supervisorctl"));
    command.arg("--configuration").arg(server.path("supervisord.conf")).args([what, PROGRAM]);
    let output = command.output().expect("run supervisorctl");
    String::from_utf8(output.stdout).unwrap()
}

/// Compiles the server.
#[track_caller]
pub(crate) fn build() -> PathBuf {
    compile("main.go", PROGRAM)
}

/// The compiler: Debian's, or another one that is named.
pub(crate) fn compiler() -> PathBuf {
    std::env::var_os("FDTRACE_TEST_GO").map_or_else(|| program("go"), PathBuf::from)
}

/// Compiles a source beside this file; cargo's directory keeps what is compiled already.
#[track_caller]
pub(crate) fn compile(source: &str, name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("servers-go");
    let binary = dir.join(name);
    let output = Command::new(compiler())
        .args(["build", "-o"])
        .arg(&binary)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/go").join(source))
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
