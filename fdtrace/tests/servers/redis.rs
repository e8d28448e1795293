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
    support::{Diagnosed, Fdtrace, Run, carry_out, number},
};

pub(crate) const TESTS: &[Test] = &[
    ("redis_in_its_busy_loop_is_counted_exactly", busy_loop),
    ("redis_with_a_log_file_fails_in_silence", silence),
    ("redis_has_its_limit_and_its_maxclients_lifted", lifted),
    ("redis_started_with_a_low_hard_limit", low_hard_limit),
];

pub(crate) const LIMIT: u64 = 64;
/// More clients than it takes at that limit.
const SERVED: usize = 150;
pub(crate) const FAILED: &str = "Accepting client connection: accept: Too many open files";

/// To stdout it logs every failure.
fn busy_loop() {
    let mut server = start("");
    let (opened, run, process) = exhaust(&server, |_, _| thread::sleep(Duration::from_millis(300)));
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
    let (_, run, process) = exhaust(&server, |fdtrace, process| {
        // That shows after some seconds, in which the other log would have grown by 100 MB.
        let said = Diagnosed::with(fdtrace, process, "busy_loop");
        let why = said.of_cause("busy_loop")["why"].as_str().unwrap();
        assert!(why.contains(" tries again at once after each EMFILE, "), "{why}");
    });
    server.stop();
    assert_eq!(server.lines("redis.log", "Ready to accept connections").len(), 1);
    assert_eq!(server.lines("redis.log", FAILED), [""; 0]);
    println!("    logged 0, counted {}", run.count(&process));
    // Once per turn of its loop; what else it does in one is too little to take a millisecond.
    assert!(run.count(&process) > 300, "{:#}", run.summary());
    run.assert_lost_nothing();
}

/// The limit alone ends the failures; for more clients than before, maxclients has to be lifted too,
/// and fdtrace has a command for each.
fn lifted() {
    const HARD: u64 = 1024;
    const MAXCLIENTS: usize = 20;
    let maxclients = MAXCLIENTS.to_string();
    // It needs 52, and leaves a limit that is as high as it is.
    let server = started("", &["--maxclients", &maxclients], LIMIT, HARD);
    let (said, mut fdtrace, mut clients) = lowered(&server, |open| format!("{open}:"));
    said.is("soft_limit_low", "certain", &["(hard 1024)"]);
    let pid = server.pid();
    let [limit, both, lift] = said.commands("now")[..] else { panic!("{:#}", said.first()) };
    assert!(both.starts_with(&format!("prlimit --pid {pid} --nofile=65536:")), "{both}");
    // As the user that it runs as: see `prlimit`.
    let limit = limit.strip_prefix(&format!("prlimit --pid {pid} --nofile="));
    prlimit(u64::from(pid), limit.unwrap());
    clients.last_are_served(1);
    let recovered = json!({ "process": { "pid": pid }, "outcome": "recovered" });
    let closed = fdtrace.reported("episode_closed", &recovered);
    // It refuses the rest by itself, and says so to them alone.
    let more = MAXCLIENTS - clients.count();
    assert_eq!(clients.open_each(more), vec![Answer::Served; more]);
    assert_eq!(clients.open_each(2), [Answer::Closed; 2]);
    // It would refuse redis-cli as well.
    clients.close();
    carry_out(lift);
    clients.open(SERVED);
    clients.last_are_served(SERVED);
    ends(fdtrace, server, &closed);
}

/// What it may not raise by itself is raised where it is started, and not only in its configuration.
fn low_hard_limit() {
    let mut server = started("", &[], LIMIT, LIMIT);
    let fits = "Server can't set maximum open files to 10032";
    assert_eq!(server.lines("output", fits).len(), 1, "it has lowered maxclients");
    let (said, mut fdtrace, clients) = lowered(&server, |open| format!("{open}:{open}"));
    said.is("hard_limit_low", "likely", &["nofile limit ", "(soft and hard)"]);
    let [to_do] = said.texts("for_good")[..] else { panic!("{:#}", said.first()) };
    // Whether it was given that limit or has set it, nobody knows: both are told.
    let number_after = |words: &str| -> u64 {
        let rest = to_do.split_once(words).unwrap_or_else(|| panic!("{to_do}")).1;
        let digits = rest.split(|letter: char| !letter.is_ascii_digit()).next();
        digits.unwrap().parse().unwrap()
    };
    let clients_wanted = number_after("set \"maxclients ").to_string();
    let limit = number_after("restart it, with a hard limit of at least ");
    let before = json!({ "process": { "pid": server.pid() }, "outcome": "exited" });
    drop(clients);
    let mut again = command(server.home(), "", &["--maxclients", &clients_wanted]);
    server.restart(&mut again, limit, limit);
    let closed = fdtrace.reported("episode_closed", &before);
    let mut clients = Clients::of(server.port(), REDIS);
    clients.open(SERVED);
    clients.last_are_served(SERVED);
    ends(fdtrace, server, &closed);
}

/// Lowers its limits to what it has open, and lets one more client come: what fdtrace says of that.
#[track_caller]
fn lowered(server: &Server, to: impl Fn(usize) -> String) -> (Diagnosed, Fdtrace, Clients) {
    let mut fdtrace = Fdtrace::start(&[]);
    let mut clients = Clients::of(server.port(), REDIS);
    assert_eq!(clients.open_each(5), [Answer::Served; 5]);
    let pid = server.pid();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    prlimit(u64::from(pid), &to(open));
    clients.open(1);
    let fields = json!({ "process": { "pid": pid }, "failure": "EMFILE" });
    (Diagnosed::of(&mut fdtrace, &fields), fdtrace, clients)
}

#[track_caller]
fn ends(fdtrace: Fdtrace, mut server: Server, closed: &Value) {
    let run = fdtrace.stop();
    server.stop();
    let logged = server.lines("output", FAILED).len() as u64;
    let counted = run.count(&json!({ "listener": { "port": server.port() } }));
    println!("    logged {logged}, counted {counted}");
    assert_eq!((counted, number(closed, "/count")), (logged, logged), "{:#}", run.summary());
    run.assert_lost_nothing();
}

/// Takes its descriptors away, lets a client come, and lets all of them go.
#[track_caller]
fn exhaust(
    server: &Server,
    meanwhile: impl FnOnce(&mut Fdtrace, &Value),
) -> ((std::time::Instant, Value), Run, Value) {
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
    meanwhile(&mut fdtrace, &process);
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

#[track_caller]
pub(crate) fn start(log_file: &str) -> Server {
    started(log_file, &[], LIMIT, LIMIT)
}

#[track_caller]
fn started(log_file: &str, more: &[&str], soft: u64, hard: u64) -> Server {
    let home = Home::new();
    let mut command = command(&home, log_file, more);
    home.start(&mut command, soft, hard)
}

/// Not as root: that may raise its own hard limit, and Redis does, for 10 000 clients.
#[track_caller]
fn command(home: &Home, log_file: &str, more: &[&str]) -> Command {
    let nobody = User::from_name("nobody").unwrap().expect("the user nobody");
    let mut command = Command::new(program("redis-server"));
    command
        .args(["--bind", "127.0.0.1", "--port", &home.port.to_string()])
        .args(["--loglevel", "notice", "--save", "", "--appendonly", "no"])
        .args(more)
        .arg("--logfile");
    if log_file.is_empty() {
        command.arg("");
    } else {
        let file = home.file(log_file, "");
        chown(&file, Some(nobody.uid.as_raw()), Some(nobody.gid.as_raw())).unwrap();
        command.arg(file);
    }
    command.uid(nobody.uid.as_raw()).gid(nobody.gid.as_raw()).current_dir(home.path(""));
    command
}
