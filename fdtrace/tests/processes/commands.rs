//! What `fdtrace explain` and `fdtrace audit` say of processes that know what they hold, as root and
//! as nobody.

use std::{
    fs,
    os::{
        fd::AsRawFd as _,
        unix::{fs::PermissionsExt as _, process::CommandExt as _},
    },
    process::{Command, Output},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, kill},
        socket::{
            AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, getsockname, listen,
            socket,
        },
    },
    unistd::{Pid, geteuid},
};
use serde_json::Value;
use tempfile::TempDir;

use super::{Test, holder::Holder, support::binary};

pub(crate) const TESTS: &[Test] = &[
    ("explain_a_leaker_and_apply_the_remedy", leaker),
    ("explain_by_port_address_and_name", subjects),
    ("explain_what_is_not_there", nothing),
    ("explain_a_stopped_listener", stopped),
    ("explain_a_full_queue", full_queue),
    ("explain_a_full_queue_of_an_exhausted_process", full_and_exhausted),
    ("explain_and_audit_as_nobody", nobody),
    ("audit_limits_and_backlogs", audit),
    ("audit_of_a_host_with_nothing_worse_than_warnings", only_warnings),
    ("audit_is_quick", quick),
];

fn run(args: &[&str]) -> Output {
    Command::new(binary()).args(args).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The objects of `--json`, each as its page's schema says.
#[track_caller]
fn lines(args: &[&str]) -> Vec<Value> {
    let output = run(&[args, &["--json"]].concat());
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{error}");
    let path = format!("{}/../docs/{}.schema.json", env!("CARGO_MANIFEST_DIR"), args[0]);
    let schema = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let schema = jsonschema::draft202012::new(&schema).unwrap();
    let text = text(&output);
    let lines = text.lines().map(|line| {
        let value: Value = serde_json::from_str(line).unwrap();
        let errors: Vec<String> =
            schema.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{value:#}\n{errors:#?}");
        value
    });
    lines.collect()
}

#[track_caller]
fn explained(subject: &str) -> Value {
    lines(&["explain", subject]).remove(0)
}

/// Changes the limits of a running process, as the remedy `prlimit` does.
#[track_caller]
fn prlimit(pid: u32, soft: u64, hard: u64) {
    let limits = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    let pid = pid.cast_signed();
    // SAFETY: the call reads `limits`, and writes nothing.
    let done =
        unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, &raw const limits, std::ptr::null_mut()) };
    Errno::result(done).unwrap();
}

fn causes(explanation: &Value) -> Vec<&str> {
    let found = explanation["diagnoses"].as_array().unwrap();
    found.iter().map(|found| found["cause"].as_str().unwrap()).collect()
}

/// It has 60 connections in CLOSE_WAIT whose end it has read, and its limit is 72.
fn leaker() {
    let mut holder = Holder::start("");
    drop(holder.connect("127.0.0.7", 60));
    holder.read(60);
    prlimit(holder.pid(), 72, 4096);
    let pid = holder.pid().to_string();
    let found = explained(&pid);
    assert_eq!(found["verdict"], "at_risk", "{found:#}");
    assert_eq!(found["fds"], serde_json::json!({"open": 64, "soft": 72, "hard": 4096}));
    assert_eq!(causes(&found), ["fd_leak", "soft_limit_low"]);
    assert_eq!(found["diagnoses"][0]["certainty"], "certain");
    assert_eq!(found["census"]["kinds"][0]["kind"], "tcp_close_wait");
    assert_eq!(found["census"]["kinds"][0]["count"], 60);
    assert_eq!(found["census"]["peers"][0]["peer"], "127.0.0.7");
    assert_eq!(found["listeners"][0]["port"], holder.port);
    assert_eq!(found["limit_chain"][1]["pid"], std::process::id());

    // Exhausted, by lowering its limit further.
    prlimit(holder.pid(), 64, 4096);
    let output = run(&["explain", &pid]);
    let said = text(&output);
    let first = said.lines().next().unwrap();
    let port = holder.port;
    assert!(first.starts_with("EXHAUSTED  "), "{said}");
    assert!(first.contains(&format!("[{pid}] 127.0.0.1:{port}  fds 64/64 soft (hard 4096)")));
    let lines: Vec<&str> = said.lines().collect();
    assert!(
        lines[1].starts_with("  why   60 of 64 descriptors are connections in CLOSE_WAIT from")
    );
    assert!(said.contains("\n  tcp   60 CLOSE_WAIT, 1 LISTEN\n"), "{said}");
    assert!(said.ends_with("\n  more  docs/causes.md#fd_leak\n"), "{said}");
    assert!(lines.iter().all(|line| line.chars().count() <= 100), "{said}");

    // What it says to do now helps.
    let command = format!("prlimit --pid {pid} --nofile=4096:");
    assert!(said.contains(&format!("$ {command}\n")), "{said}");
    let applied = Command::new("sh").args(["-c", &command]).status().unwrap();
    assert!(applied.success(), "{command}");
    let found = explained(&pid);
    assert_ne!(found["verdict"], "exhausted", "{found:#}");
    assert_eq!(found["fds"]["soft"], 4096);
}

fn subjects() {
    let holder = Holder::start("");
    let pid = holder.pid();
    for subject in [
        format!(":{}", holder.port),
        format!("*:{}", holder.port),
        format!("127.0.0.1:{}", holder.port),
    ] {
        let found = explained(&subject);
        assert_eq!(found["process"]["pid"], pid, "{subject}");
        assert_eq!(found["verdict"], "fine");
        assert_eq!(found["listeners"][0]["port"], holder.port);
    }
    // Two of one name.
    let other = Holder::start("");
    let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    let all = lines(&["explain", comm.trim_end()]);
    let summary = all.last().unwrap();
    assert_eq!(summary["kind"], "explain_summary");
    let pids: Vec<u64> = all[..all.len() - 1]
        .iter()
        .map(|one| &one["process"]["pid"])
        .chain(summary["others"].as_array().unwrap())
        .map(|pid| pid.as_u64().unwrap())
        .collect();
    assert!(pids.contains(&u64::from(pid)) && pids.contains(&u64::from(other.pid())), "{pids:?}");
    assert_eq!(summary["explained"], all.len() - 1);
}

fn nothing() {
    for (subject, expected) in [
        ("4194305", "there is no process 4194305"),
        (":1", "nothing listens on :1 (looked at "),
        ("unix:/run/none.sock", "nothing listens on unix:/run/none.sock (looked at "),
        ("no-such-name", "no process is called \"no-such-name\", nor its systemd unit (looked at "),
        ("65000", "there is no process 65000; a port is :65000"),
    ] {
        // Somebody may have that number.
        if fs::exists(format!("/proc/{subject}")).unwrap() {
            continue;
        }
        let output = run(&["explain", subject]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{subject}: {error}");
        assert!(error.contains(expected), "{subject}: {error}");
        assert!(output.stdout.is_empty());
    }
    assert_eq!(run(&["explain"]).status.code(), Some(2));
    assert_eq!(run(&["explain", ":0"]).status.code(), Some(2));
    assert_eq!(run(&["audit", "--fail-on", "fine"]).status.code(), Some(2));
}

fn stopped() {
    let holder = Holder::start("");
    let pid = Pid::from_raw(holder.pid().cast_signed());
    kill(pid, Signal::SIGSTOP).unwrap();
    let found = explained(&pid.to_string());
    assert_eq!((&found["verdict"], &found["behaviour"]), (&"at_risk".into(), &"stopped".into()));
    assert_eq!(causes(&found)[0], "slow_acceptor");
    let command = &found["diagnoses"][0]["remedies"][0]["command"];
    assert_eq!(*command, format!("kill -CONT {pid}"));
    kill(pid, Signal::SIGCONT).unwrap();
    assert_eq!(explained(&pid.to_string())["verdict"], "fine");
}

/// A listener of this very process, that nobody accepts from.
struct Listener {
    socket: std::os::fd::OwnedFd,
    port: u16,
}

impl Listener {
    fn new(backlog: i32) -> Self {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
        let local = SockaddrIn::new(127, 0, 0, 1, 0);
        bind(socket.as_raw_fd(), &local).unwrap();
        listen(&socket, Backlog::new(backlog).unwrap()).unwrap();
        let bound: SockaddrIn = getsockname(socket.as_raw_fd()).unwrap();
        Self { socket, port: bound.port() }
    }
}

fn full_queue() {
    let listener = Listener::new(1);
    let to = ("127.0.0.1", listener.port);
    let _clients = [(); 2].map(|()| std::net::TcpStream::connect(to).unwrap());
    let began = Instant::now();
    let subject = format!(":{}", listener.port);
    let found = explained(&subject);
    assert_eq!(found["verdict"], "exhausted", "{found:#}");
    let queue = serde_json::json!({"length": 2, "limit": 1});
    assert_eq!(found["listeners"][0]["accept_queue"], queue);
    // It was watched, and never became shorter.
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(causes(&found).contains(&"slow_acceptor"), "{found:#}");
    let said = text(&run(&["explain", &subject]));
    assert!(said.lines().next().unwrap().ends_with("  queue 2/1 full"), "{said}");
    drop(listener.socket);
}

/// It cannot accept, and so its queue is full: the one is the other's consequence.
fn full_and_exhausted() {
    let holder = Holder::start("backlog=2");
    let (pid, port) = (holder.pid(), holder.port);
    let _clients = [(); 3].map(|()| std::net::TcpStream::connect(("127.0.0.1", port)).unwrap());
    let subject = format!(":{port}");
    let before = explained(&subject);
    assert!(!causes(&before).contains(&"accept_fails"), "{before:#}");
    // It has four.
    prlimit(pid, 4, 4096);
    let found = explained(&subject);
    assert_eq!(found["verdict"], "exhausted", "{found:#}");
    assert_eq!(causes(&found), ["soft_limit_low", "accept_fails"]);
    assert_eq!(found["diagnoses"][1]["certainty"], "certain");
    let said = text(&run(&["explain", &subject]));
    let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let consequence =
        "accept fails with EMFILE, and leaves connections in the queue until it is full";
    assert!(words.contains(consequence), "{said}");
}

fn finding<'a>(all: &'a [Value], pid: u32, kind: &str) -> Option<&'a Value> {
    let of = |one: &&Value| {
        let processes = one["processes"].as_array();
        processes.is_some_and(|all| all.iter().any(|process| process["pid"] == pid))
    };
    let one = all.iter().find(of)?;
    one["findings"].as_array()?.iter().find(|finding| finding["finding"] == kind)
}

fn audit() {
    let holder = Holder::start("");
    let listener = Listener::new(1);
    let (own, pid) = (std::process::id(), holder.pid());
    let of = |kind| {
        let all = lines(&["audit", "--all"]);
        finding(&all, pid, kind).cloned()
    };
    // Soft and hard are as high as this test's.
    prlimit(pid, 256, 4096);
    let low = of("limit_low").unwrap();
    assert_eq!((&low["level"], &low["cause"]), (&"warn".into(), &"soft_limit_low".into()));
    assert_eq!(low["what"], "its soft limit is 256, and its hard one 4096");
    let text_of = |all: &str| text(&run(&["audit", all]));
    let said = text_of("--all");
    assert!(said.contains("      warn  its soft limit is 256, and its hard one 4096\n"), "{said}");
    // It has four.
    prlimit(pid, 5, 4096);
    let filling = of("fds_filling").unwrap();
    assert_eq!(filling["level"], "risk");
    assert_eq!(filling["fix"]["command"], format!("prlimit --pid {pid} --nofile=4096:"));
    prlimit(pid, 4, 4096);
    assert_eq!(of("fds_exhausted").unwrap()["level"], "risk");
    assert_eq!(run(&["audit", "--fail-on", "risk"]).status.code(), Some(10));
    assert_eq!(run(&["audit", "--fail-on=warn", "--json"]).status.code(), Some(10));
    assert_eq!(run(&["audit"]).status.code(), Some(0));

    let all = lines(&["audit"]);
    let small = finding(&all, own, "backlog_small").unwrap();
    let ports: Vec<_> =
        small["listeners"].as_array().unwrap().iter().map(|one| &one["port"]).collect();
    assert_eq!(ports, [listener.port], "{small:#}");
    assert_eq!(small["what"], "its accept queue holds 2 connections, as it asked");
    // It is gone with its process, and somebody else may have one.
    drop(holder);
    assert_eq!(finding(&lines(&["audit", "--all"]), pid, "limit_low"), None);
    drop(listener);
}

/// A host of its own: a pid and a network namespace with one listener, whose limit is 1024.
fn only_warnings() {
    const SCRIPT: &str = r#"
ulimit -n 1024
sleep 30 | HOLDER= "$0" > "$1/ready" &
until grep -q ready "$1/ready"; do sleep 0.05; done
for level in risk warn; do "$2" audit --json --fail-on $level; echo "exit code $?"; done
"#;
    let dir = TempDir::new().unwrap();
    let mut command = Command::new("unshare");
    command.args(["--fork", "--kill-child", "--pid", "--mount-proc", "--net", "sh", "-c", SCRIPT]);
    command.arg(std::env::current_exe().unwrap()).arg(dir.path()).arg(binary());
    let said = text(&command.output().unwrap());
    let codes: Vec<_> = said.lines().filter(|line| line.starts_with("exit code")).collect();
    assert_eq!(codes, ["exit code 0", "exit code 10"], "{said}");
    let first: Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
    let findings = first["findings"].as_array().unwrap();
    assert!(findings.iter().any(|finding| finding["finding"] == "limit_low"), "{said}");
    assert!(findings.iter().all(|finding| finding["level"] == "warn"), "{said}");
}

/// Of a hundred listeners and more, with a process each.
fn quick() {
    let holders: Vec<Holder> = (0..100).map(|_| Holder::start("")).collect();
    let began = Instant::now();
    let all = lines(&["audit", "--all"]);
    let took = began.elapsed();
    let summary = all.last().unwrap();
    assert!(summary["processes"].as_u64().unwrap() >= 100, "{summary}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    drop(holders);
}

fn nobody() {
    const NOBODY: u32 = 65534;
    if !geteuid().is_root() {
        return;
    }
    let holder = Holder::start("");
    let dir = TempDir::new().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = dir.path().join("fdtrace");
    fs::copy(binary(), &program).unwrap();
    let run = |args: &[&str]| {
        let mut command = Command::new(&program);
        command.uid(NOBODY).gid(NOBODY).current_dir("/").args(args).output().unwrap()
    };
    let pid = holder.pid().to_string();
    // Its limits are no secret, and its descriptors are.
    let output = run(&["explain", &pid]);
    assert_eq!(output.status.code(), Some(0));
    let said = text(&output);
    let first = said.lines().next().unwrap();
    assert!(
        first.starts_with("UNKNOWN    ") && first.contains(&format!("[{pid}]  fds ?/")),
        "{said}"
    );
    let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("what its descriptors are: not permitted to look"), "{said}");
    assert!(words.contains("what it listens on, for the same reason"), "{said}");
    // The listener is seen, and its process is not.
    let said = text(&run(&["explain", &format!(":{}", holder.port)]));
    assert!(said.starts_with(&format!("UNKNOWN    ? 127.0.0.1:{}  fds ?  queue 0/", holder.port)));
    let output = run(&["audit", "--all"]);
    assert_eq!(output.status.code(), Some(0));
    let error = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(error.contains("processes of other users cannot be looked into"), "{error}");
    let said = text(&output);
    let row = said.lines().find(|line| line.contains(&format!(":{} ", holder.port))).unwrap();
    assert_eq!(row.split_whitespace().take(2).collect::<Vec<_>>(), ["?", "?"], "{said}");
}
