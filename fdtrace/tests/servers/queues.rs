//! Accept queues that overflow, to the end: the cause, the remedy, and that nobody is refused after
//! it.

use std::{fs, process::Command, thread::sleep, time::Duration};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use serde_json::{Value, json};

use crate::{
    Test,
    clients::{Answer, Clients, Crowd, REDIS},
    overflow::{Hung, in_new_netns, start_redis},
    server::{Home, Server},
    started::LATER,
    support::{Diagnosed, Fdtrace, Run, carry_out, number},
};

pub(crate) const TESTS: &[Test] = &[
    ("a_queue_that_the_program_asked_for_is_too_short", backlog_of_the_program),
    ("a_queue_that_somaxconn_allows_is_too_short", somaxconn),
    ("a_listener_older_than_its_somaxconn", older_than_somaxconn),
    ("an_acceptor_that_computes", computes),
    ("an_acceptor_that_was_stopped", stopped),
];

const NOFILE: u64 = 1024;
const CLIENTS: u64 = 40;

fn command(port: u16, backlog: u32, what: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.env("SERVER", format!("{port},{backlog},{what}"));
    command
}

/// listen(fd, 1): two wait, and everybody else is refused.
fn backlog_of_the_program() {
    const BACKLOG: u32 = 1;
    let mut fdtrace = Fdtrace::start(&[]);
    let home = Home::new();
    let port = home.port;
    let mut server = home.start(&mut command(port, BACKLOG, "late"), NOFILE, NOFILE);
    let (said, pid) = overflows(&mut fdtrace, &server);
    said.is("backlog_too_small", "likely", &["holds 2 connections, as the program asked"]);
    let [to_do] = said.texts("for_good")[..] else { panic!("{:#}", said.first()) };
    let wanted = to_do.strip_prefix("have the program ask for more in listen(2), ");
    let wanted = wanted.and_then(|rest| rest.split_once(' ')).unwrap_or_else(|| panic!("{to_do}"));
    let wanted = wanted.0.parse().unwrap();
    server.restart(&mut command(port, wanted, "late"), NOFILE, NOFILE);
    ends(fdtrace, &server, pid);
}

/// The same where it is the kernel that gives no more: in a network namespace of its own, so that no
/// setting of the host is touched.
fn somaxconn() {
    const SOMAXCONN: u32 = 4;
    let mut fdtrace = Fdtrace::start(&[]);
    in_new_netns(|| {
        fs::write("/proc/sys/net/core/somaxconn", SOMAXCONN.to_string()).unwrap();
        let home = Home::new();
        let port = home.port;
        let mut server = home.start(&mut command(port, 4096, "late"), NOFILE, NOFILE);
        let (said, pid) = overflows(&mut fdtrace, &server);
        said.is("backlog_too_small", "likely", &["holds 5 connections: net.core.somaxconn"]);
        let expected = format!("nsenter --net=/proc/{pid}/ns/net sysctl -w net.core.somaxconn=");
        let to_do = said.command("for_good");
        assert!(to_do.starts_with(&expected), "{to_do}");
        carry_out(to_do);
        assert!(said.texts("for_good")[1].starts_with("restart the program"));
        server.restart(&mut command(port, 4096, "late"), NOFILE, NOFILE);
        ends(fdtrace, &server, pid);
    });
}

/// The setting was raised, at once and for every boot, and nothing is better: the listener is the
/// old one. Everything happens inside a namespace, by an fdtrace which was not there when the program
/// called listen(2).
fn older_than_somaxconn() {
    const SOMAXCONN: u32 = 4;
    in_new_netns(|| {
        let etc = Home::new();
        own_sysctl_d(&etc);
        fs::write("/proc/sys/net/core/somaxconn", SOMAXCONN.to_string()).unwrap();
        let home = Home::new();
        let port = home.port;
        let mut server = home.start(&mut command(port, 4096, "late"), NOFILE, NOFILE);
        let mut fdtrace = Fdtrace::start(&[]);
        let (said, pid) = overflows(&mut fdtrace, &server);
        said.is("backlog_too_small", "likely", &["holds 5 connections: net.core.somaxconn"]);
        sleep(LATER);
        carry_out(said.command("for_good"));
        fdtrace.stop();

        let mut fdtrace = Fdtrace::start(&[]);
        let (said, _) = overflows(&mut fdtrace, &server);
        let file = "/etc/sysctl.d/90-somaxconn.conf";
        let changed = format!("the program started before {file}:1 was changed to");
        let keeps = "a listener keeps what it was given";
        said.is("backlog_too_small", "likely", &["holds 5 connections", &changed, keeps]);
        let evidence = said.first()["evidence"].as_array().unwrap();
        let bound = evidence.iter().find(|one| one["fact"] == "bound_by").unwrap();
        assert_eq!(bound["value"], "somaxconn_at_listen");
        let [to_do] = said.texts("for_good")[..] else { panic!("{:#}", said.first()) };
        assert!(to_do.starts_with("restart the program"), "{to_do}");
        server.restart(&mut command(port, 4096, "late"), NOFILE, NOFILE);
        ends(fdtrace, &server, pid);
    });
}

/// Gives this thread, and whatever it starts, an /etc/sysctl.d of its own.
#[track_caller]
fn own_sysctl_d(home: &Home) {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
    let (from, to) = (home.path(""), "/etc/sysctl.d");
    mount(Some(&from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
}

/// Stopped by Ctrl-Z, or by whoever forgot it. It goes on as fdtrace says, and whoever waits is served.
fn stopped() {
    /// With room for all but a few: those few fit, too, when they try again.
    const BACKLOG: u64 = 32;
    let mut fdtrace = Fdtrace::start(&[]);
    let server = start_redis(BACKLOG);
    let pid = server.pid();
    let mut clients = Clients::of(server.port(), REDIS);
    assert_eq!(clients.open_each(1), [Answer::Served]);
    let _hung = Hung::new(pid);
    let crowd = Crowd::knock(server.port(), CLIENTS);
    let said = Diagnosed::of(&mut fdtrace, &listener(&server));
    said.is("slow_acceptor", "certain", &[&format!("process {pid} was stopped by a signal")]);
    let to_do = said.command("now");
    assert_eq!(to_do, format!("kill -CONT {pid}"));
    assert_eq!(said.texts("for_good"), [""; 0], "nothing is wrong with the program");
    carry_out(to_do);
    assert_eq!(clients.ask_the_last(), Answer::Served);
    crowd.is_let_in();
    let recovered = json!({ "listener": { "port": server.port() }, "outcome": "recovered" });
    let closed = fdtrace.reported("episode_closed", &recovered);
    assert_eq!(
        (&closed["cause"], &closed["certainty"]),
        (&json!("slow_acceptor"), &json!("certain"))
    );
    // As many as before had room.
    Crowd::knock(server.port(), BACKLOG).is_let_in();
    assert_eq!(clients.open_each(3), [Answer::Served; 3]);
    is_counted(&fdtrace.stop(), &server, &closed);
}

/// Its only thread uses a core up, and accepts now and then. On a host that is busy itself it may
/// have had too little of a core to tell: then it is started anew.
///
/// The remedy is put to the test alone: the same work, the same queue, the same clients, and only
/// another thread for the work.
fn computes() {
    const ATTEMPTS: u32 = 10;
    const BACKLOG: u32 = 4;
    // Five wait at once: who accepts may be kept from its core for a tenth of a second.
    const PAUSE: Duration = Duration::from_millis(20);
    let attempt = |_| {
        let mut fdtrace = Fdtrace::start(&[]);
        let home = Home::new();
        let port = home.port;
        let mut server = home.start(&mut command(port, BACKLOG, "busy"), NOFILE, NOFILE);
        let clients = Crowd::come(port, CLIENTS, PAUSE);
        let (said, pid) = (Diagnosed::of(&mut fdtrace, &listener(&server)), server.pid());
        drop(clients);
        // Of one that has too little of a core to tell, more of it is what is asked for.
        let to_do = "accept on a thread of its own, or take the work off the accepting one";
        let is_told = said.texts("for_good").contains(&to_do);
        if is_told {
            assert_eq!(said.first()["cause"], "slow_acceptor");
            let why = said.first()["why"].as_str().unwrap();
            let computes = why.starts_with("one thread, ") && why.contains(" uses a core up ");
            assert!(computes || why.contains(" gets no core for "), "{why}");
            server.restart(&mut command(port, BACKLOG, "aside"), NOFILE, NOFILE);
            ends_with(fdtrace, &server, pid, || Crowd::come(port, CLIENTS, PAUSE));
        }
        is_told
    };
    assert!((0..ATTEMPTS).any(attempt), "{ATTEMPTS} times, nobody saw what it does");
}

fn listener(server: &Server) -> Value {
    json!({ "listener": { "port": server.port() }, "failure": "accept_queue_full" })
}

/// More clients come at once than there is room for: what is said of that.
#[track_caller]
fn overflows(fdtrace: &mut Fdtrace, server: &Server) -> (Diagnosed, u32) {
    let _clients = Crowd::knock(server.port(), CLIENTS);
    (Diagnosed::of(fdtrace, &listener(server)), server.pid())
}

/// The listener is gone with its process; the next one has room for as many.
#[track_caller]
fn ends(fdtrace: Fdtrace, server: &Server, before: u32) {
    ends_with(fdtrace, server, before, || Crowd::knock(server.port(), CLIENTS));
}

/// The same with clients that come as before.
#[track_caller]
fn ends_with(mut fdtrace: Fdtrace, server: &Server, before: u32, come: impl FnOnce() -> Crowd) {
    let exited = json!({ "process": { "pid": before }, "outcome": "exited" });
    let closed = fdtrace.reported("episode_closed", &exited);
    let clients = come();
    // Who were refused would try again after a second.
    sleep(Duration::from_millis(1200));
    clients.is_let_in();
    is_counted(&fdtrace.stop(), server, &closed);
}

/// Nobody was refused but in the one episode.
#[track_caller]
fn is_counted(run: &Run, server: &Server, closed: &Value) {
    let counted = run.count(&listener(server));
    println!("    counted {counted}");
    assert_eq!(counted, number(closed, "/count"), "{:#}", run.summary());
    assert_eq!(run.of_kind("episode_opened", &listener(server)).len(), 1);
    run.assert_lost_nothing();
}
