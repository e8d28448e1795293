//! What an acceptor does about its failures, told of servers that do it.

use std::{
    fs::File,
    net::{TcpListener, TcpStream},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        socket::{SockFlag, accept4},
    },
};
use serde_json::{Value, json};

use crate::{
    Test,
    support::Fdtrace,
    workload::{Spec, Workload, say, wait},
};

pub(crate) const TESTS: &[Test] = &[
    ("an_acceptor_in_a_busy_loop", busy_loop),
    ("an_acceptor_that_backs_off", backs_off),
    ("an_acceptor_with_a_spare_descriptor", spare_descriptor),
    ("an_acceptor_that_gave_up", gave_up),
];

const SOFT: u64 = 64;

/// A server at its limit: after the first line on stdin it does what `retries=` says for so long.
pub(crate) fn run(spec: &str) {
    let spec = Spec(spec);
    // SAFETY: nothing in this process has opened anything yet.
    unsafe { nix::libc::close_range(3, u32::MAX, 0) };
    // The port of the one before it, or any.
    let port = u16::try_from(spec.number("port", 0)).unwrap();
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, SOFT, hard).unwrap();
    let mut held: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    say("ready", &json!({ "port": listener.local_addr().unwrap().port() }));
    wait();
    let end = Instant::now() + Duration::from_secs(spec.number("seconds", 6) as u64);
    let mut failures = 0_u64;
    let mut fail = || {
        failures += 1;
        assert_eq!(accept(&listener).unwrap_err(), Errno::EMFILE);
    };
    match spec.text("retries").unwrap() {
        "busy" => {
            while Instant::now() < end {
                fail();
            }
        }
        "back_off" => {
            let mut pause = Duration::from_millis(5);
            while Instant::now() < end {
                fail();
                thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        }
        "spare" => {
            while Instant::now() < end {
                let polled = std::os::fd::AsFd::as_fd(&listener);
                let mut polled = [PollFd::new(polled, PollFlags::POLLIN)];
                if poll(&mut polled, PollTimeout::from(100_u8)).unwrap() == 0 {
                    continue;
                }
                fail();
                held.pop();
                drop(accept(&listener).unwrap());
                held.push(File::open("/dev/null").unwrap());
            }
        }
        "give_up" => fail(),
        "recover" => {
            held.clear();
            for _ in 0..spec.number("clients", 0) {
                held.push(accept(&listener).unwrap().into());
            }
        }
        other => panic!("retries={other}"),
    }
    say("done", &json!({ "failures": failures }));
    wait();
}

fn accept(listener: &TcpListener) -> Result<OwnedFd, Errno> {
    let fd = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC)?;
    // SAFETY: the kernel has just given us the descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Waits until fdtrace has told that cause of the workload; gives the diagnosis.
#[track_caller]
fn told(fdtrace: &mut Fdtrace, pid: u32, cause: &str) -> Value {
    let is_it = |report: &Value| {
        let causes = report["diagnoses"].as_array();
        report["process"]["pid"] == pid
            && causes.is_some_and(|all| all.iter().any(|one| one["cause"] == cause))
    };
    let (_, report) = fdtrace.wait_for(is_it, cause);
    let diagnoses = report["diagnoses"].as_array().unwrap();
    let found = diagnoses.iter().find(|one| one["cause"] == cause).unwrap().clone();
    println!("  {}", found["why"]);
    found
}

/// The part of the evidence with that name.
fn fact<'a>(diagnosis: &'a Value, name: &str) -> &'a Value {
    let evidence = diagnosis["evidence"].as_array().unwrap();
    &evidence.iter().find(|one| one["fact"] == name).unwrap()["value"]
}

/// Nothing of the kind may be told of a workload but that.
fn assert_only(run: &crate::support::Run, pid: u32, cause: &str) {
    for report in run.of_kind("episode_diagnosed", &json!({ "process": { "pid": pid } })) {
        for found in report["diagnoses"].as_array().unwrap() {
            let found = found["cause"].as_str().unwrap();
            let of_retries = ["busy_loop", "backs_off", "drains_while_failing", "gave_up"];
            assert!(!of_retries.contains(&found) || found == cause, "{report:#}");
        }
    }
}

fn busy_loop() {
    let mut fdtrace = Fdtrace::start(&[]);
    let mut server = Workload::start("retries=busy seconds=5");
    server.go();
    let found = told(&mut fdtrace, server.pid(), "busy_loop");
    assert!(fact(&found, "failed_calls").as_f64() > Some(1000.0), "{found:#}");
    let failures = server.done()["failures"].as_u64().unwrap();
    let run = fdtrace.stop();
    assert_eq!(run.count(&json!({ "process": { "pid": server.pid() } })), failures);
    assert_only(&run, server.pid(), "busy_loop");
    // Why accept fails is another matter, and told at the end.
    let closed = run.of_kind("episode_closed", &json!({ "process": { "pid": server.pid() } }));
    assert_eq!(closed[0]["cause"], "soft_limit_low", "{closed:#?}");
    assert_eq!(closed[0]["certainty"], "certain");
    server.end();
}

fn backs_off() {
    let mut fdtrace = Fdtrace::start(&[]);
    let mut server = Workload::start("retries=back_off seconds=7");
    server.go();
    let found = told(&mut fdtrace, server.pid(), "backs_off");
    assert!(fact(&found, "longest_pause").as_f64() >= Some(0.5), "{found:#}");
    server.done();
    assert_only(&fdtrace.stop(), server.pid(), "backs_off");
    server.end();
}

fn spare_descriptor() {
    let mut fdtrace = Fdtrace::start(&[]);
    let mut server = Workload::start("retries=spare seconds=8");
    server.go();
    let port = u16::try_from(server.port()).unwrap();
    let clients = thread::spawn(move || {
        let end = Instant::now() + Duration::from_millis(7500);
        let mut clients = 0_u64;
        // Irregular, as clients are.
        for pause in [150, 420, 230, 610].into_iter().cycle() {
            if Instant::now() >= end {
                return clients;
            }
            drop(TcpStream::connect(("127.0.0.1", port)).unwrap());
            clients += 1;
            thread::sleep(Duration::from_millis(pause));
        }
        clients
    });
    let found = told(&mut fdtrace, server.pid(), "drains_while_failing");
    let connected = clients.join().unwrap();
    let failures = server.done()["failures"].as_u64().unwrap();
    assert_eq!(failures, connected, "one failure for each client");
    let told = fact(&found, "failed_calls").as_u64().unwrap();
    assert!((3..=connected).contains(&told), "{told} of {connected}");
    assert_only(&fdtrace.stop(), server.pid(), "drains_while_failing");
    server.end();
}

fn gave_up() {
    let mut fdtrace = Fdtrace::start(&[]);
    let mut server = Workload::start("retries=give_up");
    let port = u16::try_from(server.port()).unwrap();
    let mut clients = vec![TcpStream::connect(("127.0.0.1", port)).unwrap()];
    server.go();
    assert_eq!(server.done()["failures"], 1);
    for _ in 0..3 {
        thread::sleep(Duration::from_secs(2));
        clients.push(TcpStream::connect(("127.0.0.1", port)).unwrap());
    }
    let found = told(&mut fdtrace, server.pid(), "gave_up");
    assert_eq!(*fact(&found, "accept_queue"), 4, "{found:#}");
    assert!(fact(&found, "silent_for").as_f64() >= Some(10.0), "{found:#}");

    // What it says is done: somebody starts it again, and whoever waits comes again.
    let pid = server.pid();
    let now = &found["remedies"][0];
    let expected = format!("restart process {pid}: it will not accept again by itself");
    assert_eq!((&now["when"], &now["text"]), (&json!("now"), &json!(expected)));
    drop(clients);
    server.end();
    let mut server = Workload::start(&format!("retries=recover clients=4 port={port}"));
    let again: Vec<_> = (0..4).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    server.go();
    assert_eq!(server.done()["failures"], 0);
    let exited = json!({ "process": { "pid": pid }, "outcome": "exited" });
    let closed = fdtrace.reported("episode_closed", &exited);
    let run = fdtrace.stop();
    assert_only(&run, pid, "gave_up");
    let counted = run.count(&json!({ "listener": { "port": port } }));
    assert_eq!((counted, closed["count"].as_u64()), (1, Some(1)), "{:#}", run.summary());
    drop(again);
    server.end();
}
