//! Limits that a server was started with, by a real supervisor or script. fdtrace says why and what
//! to do, that is done, and the server has what it needs.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    process::Command,
    thread::sleep,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    Test,
    clients::{Answer, Clients, HTTP},
    go,
    server::{Home, Server, has_sys_resource, only_child, program},
    support::{Diagnosed, Fdtrace, binary, carry_out, number},
};

pub(crate) const TESTS: &[Test] = &[
    ("started_by_supervisord_before_its_limit_was_raised", before_minfds_was_raised),
    ("started_by_a_script_with_a_low_limit", by_a_script),
    ("started_by_a_shell_with_a_low_limit", by_a_shell),
    ("started_by_a_go_program_with_a_low_limit", by_go),
    ("started_by_runit_with_a_low_limit", by_runit),
    ("started_by_runit_before_its_limit_was_raised", before_the_run_script_was_raised),
];

const LIMIT: u64 = 64;
/// What the test gives to who starts the server: as much as any host lets it have.
const HARD: u64 = 4096;
/// A date is not compared more exactly than this.
pub(crate) const LATER: Duration = Duration::from_millis(2500);

/// The story that fdtrace was written for, to its end: the limit was raised, the program was started
/// again, and nothing was better, for supervisord itself was the old one.
fn before_minfds_was_raised() {
    const BEFORE: u64 = 1024;
    let mut server = go::under_supervisord(BEFORE);
    let config = server.path("supervisord.conf");
    sleep(LATER);
    let text = fs::read_to_string(&config).unwrap();
    let line = 1 + text.lines().position(|line| line == "minfds = 1024").unwrap();
    fs::write(&config, text.replace("minfds = 1024", "minfds = 3000")).unwrap();
    go::supervisorctl(&server, "restart");
    server.wait_until_it_listens();

    let mut fdtrace = Fdtrace::start(&[]);
    let pid = go::pid_of_supervisorctl(&server);
    let mut clients = Clients::of(server.port(), HTTP);
    assert_eq!(clients.open_until_refused(1100).1, Answer::Waiting);
    let said = Diagnosed::of(&mut fdtrace, &emfile(pid));
    let place = format!("{}:{line}", config.display());
    said.is(
        "raised_after_start",
        "certain",
        &[
            &format!("inherited from supervisord[{}] (also 1024), which started", server.pid()),
            &format!("before minfds in {place} was changed to 3000"),
        ],
    );
    assert_eq!(said.source("configured_limit"), place);
    let expected = format!(
        "the setting is right by now: restart supervisord[{}] itself, and {}[{pid}] with it",
        server.pid(),
        go::PROGRAM
    );
    let [to_do] = said.texts("for_good")[..] else { panic!("{:#}", said.first()) };
    assert!(to_do.starts_with(&expected), "{to_do}");

    audit_says_so(pid, &format!("its limit is 1024; {place} says 3000, but was changed "));

    // Who starts supervisord has a limit of its own for it.
    server.restart(&mut go::supervisord(&config), BEFORE, HARD);
    let closed = fdtrace.reported("episode_closed", &exited(pid));
    drop(clients);
    serves(&server, 1500);
    let run = fdtrace.stop();
    server.stop();
    let logged = server.lines("server.log", go::FAILED).len() as u64;
    println!("    logged {logged}, counted {}", run.count(&emfile(pid)));
    assert_eq!((run.count(&of(&server)), number(&closed, "/count")), (logged, logged));
    run.assert_lost_nothing();
}

/// The audit finds the process at risk, and the setting that it does not have, among those of the host.
#[track_caller]
fn audit_says_so(pid: u32, what: &str) {
    let output = Command::new(binary()).args(["audit", "--json"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let lines = said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let is_of_it = |one: &Value| {
        let processes = one["processes"].as_array();
        processes.is_some_and(|all| all.iter().any(|process| process["pid"] == pid))
    };
    let audited = lines.into_iter().find(is_of_it).unwrap_or_else(|| panic!("{said}"));
    let findings = audited["findings"].as_array().unwrap();
    let outdated = findings.iter().find(|one| one["finding"] == "limit_outdated");
    let outdated = outdated.unwrap_or_else(|| panic!("{audited:#}"));
    assert_eq!(
        (&outdated["level"], &outdated["cause"]),
        (&"risk".into(), &"raised_after_start".into())
    );
    assert!(outdated["what"].as_str().unwrap().starts_with(what), "{outdated:#}");
}

/// A script that stays, with its limit in a line of its own.
fn by_a_script() {
    let home = Home::new();
    let script = script(&home, "start.sh", &format!("ulimit -n {LIMIT}"), "");
    let place = format!("{}:2", script.display());
    let mut server = home.start(&mut Command::new(&script), HARD, HARD);
    let inherited = format!("inherited from start.sh[{}] (also {LIMIT})", server.pid());
    let says = [inherited, format!("the script's limit in {place}")];
    let (fdtrace, pid) = runs_out(&server, only_child(server.pid()), &says, |said| {
        assert_eq!(said.source("configured_limit"), place);
        let [to_do] = said.texts("for_good")[..] else { panic!("{:#}", said.first()) };
        let then = format!(", then end start.sh[{}] and start it again", server.pid());
        assert!(to_do.ends_with(&then), "{to_do}");
        carry_out(said.command("for_good"));
    });
    server.restart(&mut Command::new(&script), HARD, HARD);
    settle(fdtrace, server, pid);
}

/// A line for a shell, which nobody wrote to a file: fdtrace says what to run, and the test runs it.
fn by_a_shell() {
    let home = Home::new();
    let line = |limit| format!("ulimit -n {limit}; {} {}; exit", go::build().display(), home.port);
    let mut command = Command::new("sh");
    command.arg("-c").arg(line(LIMIT));
    let again = |said: &Diagnosed| {
        let [to_do] = said.texts("for_good")[..] else { panic!("{:#}", said.first()) };
        let limit = to_do.strip_prefix("run \"ulimit -n ").and_then(|rest| rest.split_once('"'));
        let (limit, rest) = limit.unwrap_or_else(|| panic!("{to_do}"));
        assert_eq!(rest, " in the shell or script before it starts the program");
        let mut command = Command::new("sh");
        command.arg("-c").arg(line(limit.parse().unwrap()));
        command
    };
    let mut command_again = None;
    let port_home = Home::at(home.port);
    let mut server = port_home.start(&mut command, HARD, HARD);
    let says = [
        format!("inherited from sh[{}] (also {LIMIT})", server.pid()),
        "the script's limit on its command line".to_owned(),
    ];
    let (fdtrace, pid) = runs_out(&server, only_child(server.pid()), &says, |said| {
        command_again = Some(again(said));
    });
    server.restart(&mut command_again.unwrap(), HARD, HARD);
    settle(fdtrace, server, pid);
}

/// Go raises the parent's own soft limit. Since 1.19.9 and 1.20.4 it starts others with the one that
/// it got, before with the raised one.
fn by_go() {
    const RAISED: u64 = 1024;
    let home = Home::new();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/asyncio_server.py");
    let mut command = Command::new(go::compile("parent/main.go", "goparent"));
    command.arg(program("python3")).args(["-u", script, &home.port.to_string()]);
    let server = home.start(&mut command, LIMIT, RAISED);
    assert_eq!(soft_limit(server.pid()), RAISED);
    let pid = only_child(server.pid());
    let gives_on_what_it_got = soft_limit(pid) == LIMIT;
    let (limit, (cause, certainty), says) = if gives_on_what_it_got {
        let parent = format!("; goparent[{}] has {RAISED}: Go raises its own", server.pid());
        (LIMIT, ("soft_limit_low", "certain"), parent)
    } else {
        let parent = format!("inherited from goparent[{}] (also {RAISED})", server.pid());
        (RAISED, ("hard_limit_low", "likely"), parent)
    };
    println!("    {}: the child has {limit}", go::compiler().display());
    let mut fdtrace = Fdtrace::start(&[]);
    let mut clients = Clients::of(server.port(), HTTP);
    let (_, answer) = clients.open_until_refused(usize::try_from(limit).unwrap() + 36);
    assert_eq!(answer, Answer::Waiting);
    let of_pid = json!({ "process": { "pid": pid }, "failure": "EMFILE" });
    let said = Diagnosed::of(&mut fdtrace, &of_pid);
    said.is(cause, certainty, &[&says]);
    if !gives_on_what_it_got && !has_sys_resource() {
        return;
    }
    carry_out(said.command("now"));
    let recovered = json!({ "process": { "pid": pid }, "outcome": "recovered" });
    fdtrace.reported("episode_closed", &recovered);
    clients.open(100);
    clients.last_are_served(100);
    fdtrace.stop().assert_lost_nothing();
}

fn soft_limit(pid: u32) -> u64 {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// runit's supervisor runs the script anew for each start of the service.
fn by_runit() {
    let home = Home::new();
    let server = runsv(home);
    let script = server.path("run");
    let says = [format!("the script's limit in {}:2", script.display())];
    let (fdtrace, pid) = runs_out(&server, only_child(server.pid()), &says, |said| {
        carry_out(said.command("for_good"));
    });
    server.wait_until_it_listens();
    assert_ne!(only_child(server.pid()), pid, "runit has started it again");
    settle(fdtrace, server, pid);
}

fn before_the_run_script_was_raised() {
    let server = runsv(Home::new());
    let script = server.path("run");
    sleep(LATER);
    let text = fs::read_to_string(&script).unwrap();
    fs::write(&script, text.replace("ulimit -n 64", "ulimit -n 3000")).unwrap();
    let mut fdtrace = Fdtrace::start(&[]);
    let pid = only_child(server.pid());
    let mut clients = Clients::of(server.port(), HTTP);
    assert_eq!(clients.open_until_refused(100).1, Answer::Waiting);
    let said = Diagnosed::of(&mut fdtrace, &emfile(pid));
    let changed = format!("the script's limit in {}:2 was changed to 3000", script.display());
    said.is("raised_after_start", "certain", &[&changed]);
    carry_out(said.command("for_good"));
    server.wait_until_it_listens();
    settle(fdtrace, server, pid);
}

/// Fails at the limit for the reason given, and `acts` on it.
#[track_caller]
fn runs_out(
    server: &Server,
    pid: u32,
    says: &[String],
    act: impl FnOnce(&Diagnosed),
) -> (Fdtrace, u32) {
    let mut fdtrace = Fdtrace::start(&[]);
    let mut clients = Clients::of(server.port(), HTTP);
    assert_eq!(clients.open_until_refused(100).1, Answer::Waiting);
    let said = Diagnosed::of(&mut fdtrace, &emfile(pid));
    let says: Vec<_> = says.iter().map(String::as_str).collect();
    said.is("hard_limit_low", "certain", &says);
    act(&said);
    (fdtrace, pid)
}

/// The process that failed is gone, the next one serves more than it could, and what was counted is
/// what Go has logged.
#[track_caller]
fn settle(mut fdtrace: Fdtrace, mut server: Server, pid: u32) {
    let closed = fdtrace.reported("episode_closed", &exited(pid));
    serves(&server, 200);
    let run = fdtrace.stop();
    server.stop();
    let logged = server.lines("output", go::FAILED).len() as u64;
    println!("    logged {logged}, counted {}", run.count(&emfile(pid)));
    assert_eq!((run.count(&of(&server)), number(&closed, "/count")), (logged, logged));
    run.assert_lost_nothing();
}

/// As many clients at once.
#[track_caller]
fn serves(server: &Server, count: usize) {
    let mut clients = Clients::of(server.port(), HTTP);
    clients.open(count);
    clients.last_are_served(count);
}

/// Whatever failed there, of whichever process.
fn of(server: &Server) -> Value {
    json!({ "listener": { "port": server.port() } })
}

fn emfile(pid: u32) -> Value {
    json!({ "process": { "pid": pid, "comm": go::PROGRAM }, "failure": "EMFILE" })
}

fn exited(pid: u32) -> Value {
    json!({ "process": { "pid": pid }, "outcome": "exited" })
}

/// A script that sets something and starts the Go server in a way.
#[track_caller]
fn script(home: &Home, name: &str, first: &str, how: &str) -> std::path::PathBuf {
    let program = go::build();
    let text = format!(
        "#!/bin/sh\n{first}\n{how}{program} {port}\nexit $?\n",
        program = program.display(),
        port = home.port
    );
    let path = home.file(name, &text);
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    path
}

#[track_caller]
fn runsv(home: Home) -> Server {
    script(&home, "run", &format!("ulimit -n {LIMIT}"), "exec ");
    let mut command = Command::new(program("runsv"));
    command.arg(home.path(""));
    home.start(&mut command, HARD, HARD)
}
