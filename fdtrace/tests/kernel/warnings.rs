//! Warnings come before something runs out, once, and with the right numbers.
//!
//! The workload is a server that holds as many descriptors as it is told, and knows how many.

use std::{
    io::{BufRead as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    libc,
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        socket::{
            AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, accept4, bind, connect,
            getsockname, listen, socket,
        },
    },
};
use serde_json::{Value, json};

use crate::{
    Test,
    support::{Fdtrace, Run, number},
    workload::{Spec, Workload},
};

pub(crate) const TESTS: &[Test] = &[
    ("warnings_at_each_threshold_and_when_it_is_over", each_threshold_and_when_it_is_over),
    ("warnings_say_how_long_it_takes", how_long_it_takes),
    ("warnings_do_not_flap", no_flapping),
    ("warnings_of_accept_queues", of_accept_queues),
    ("warnings_give_way_to_episodes", episodes_say_more),
    ("warnings_end_with_the_process", a_process_that_exits),
    ("warnings_that_nobody_asked_for", nobody_asked),
];

/// Descriptors that the server may have.
const LIMIT: u64 = 256;
/// The three standard ones and its listener.
const OWN: u64 = 4;

/// A server, and its clients in this process.
pub(crate) struct Server {
    workload: Workload,
    clients: Vec<TcpStream>,
}

impl Server {
    pub(crate) fn start(backlog: u32) -> Self {
        let workload = Workload::start(&format!("holds={LIMIT} backlog={backlog}"));
        Self { workload, clients: Vec::new() }
    }

    pub(crate) fn process(&self) -> Value {
        json!({ "process": { "pid": self.workload.pid() } })
    }

    fn address(&self) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, u16::try_from(self.workload.port()).unwrap())
    }

    /// Has so many clients connected that nobody accepts yet.
    fn queue(&mut self, clients: usize) {
        for _ in 0..clients {
            self.clients.push(TcpStream::connect(self.address()).unwrap());
        }
    }

    /// Has it hold so many descriptors.
    #[track_caller]
    pub(crate) fn hold(&mut self, open: u64) {
        let wanted = usize::try_from(open - OWN).unwrap();
        self.workload.tell(&format!("hold {open}"));
        while self.clients.len() < wanted {
            self.queue(1);
        }
        assert_eq!(number(&self.workload.line("done"), "/open"), open);
        self.clients.truncate(wanted);
    }

    /// Waits for a warning of it.
    #[track_caller]
    fn raised(&self, fdtrace: &mut Fdtrace, threshold: u32, open: u64) -> Value {
        let (_, warning) = fdtrace.wait_for_report("warning_raised", &self.process());
        let expected = json!({
            "resource": "fds",
            "threshold": threshold,
            "fds": { "open": open, "soft": LIMIT },
            "accept_queue": null,
            "listener": { "family": "inet", "port": self.workload.port() },
        });
        assert!(crate::support::same(&warning, &expected), "{warning:#}\n{expected:#}");
        warning
    }

    /// How many warnings there were of it, and how many were over.
    fn said(&self, run: &Run) -> (usize, usize) {
        let of = |kind| run.of_kind(kind, &self.process()).len();
        (of("warning_raised"), of("warning_cleared"))
    }
}

fn each_threshold_and_when_it_is_over() {
    let mut fdtrace = Fdtrace::start(&[]);
    let (mut server, mut other) = (Server::start(128), Server::start(128));
    other.hold(LIMIT / 2);
    server.hold(LIMIT / 2);
    thread::sleep(Duration::from_millis(1500));
    // 85 %, then 96 %.
    server.hold(218);
    let warning = server.raised(&mut fdtrace, 80, 218);
    assert_eq!(warning["share"], json!(0.852));
    server.hold(246);
    let warning = server.raised(&mut fdtrace, 95, 246);
    assert_eq!((&warning["share"], number(&warning, "/most")), (&json!(0.961), 246));
    server.hold(20);
    let (_, over) = fdtrace.wait_for_report("warning_cleared", &server.process());
    let expected = json!({
        "outcome": "recovered",
        "fds": { "open": 20, "soft": LIMIT },
        "most": 246,
        "per_second": null,
        "since": warning["since"],
    });
    assert!(crate::support::same(&over, &expected), "{over:#}");
    let run = fdtrace.stop();
    assert_eq!((server.said(&run), other.said(&run)), ((2, 1), (0, 0)));
    run.assert_lost_nothing();
}

fn how_long_it_takes() {
    let mut fdtrace = Fdtrace::start(&["--warn-at", "80"]);
    let mut server = Server::start(128);
    server.hold(190);
    let began = Instant::now();
    // 10 a second: 80 % after a second and a half, and on until well after the warning.
    for open in 191..=246 {
        server.hold(open);
        let due = Duration::from_millis(100) * (u32::try_from(open).unwrap() - 190);
        thread::sleep(due.saturating_sub(began.elapsed()));
    }
    // Slower, where the machine is an emulated one.
    let grown = 56.0 / began.elapsed().as_secs_f64();
    let (_, warning) = fdtrace.wait_for_report("warning_raised", &server.process());
    let open = number(&warning, "/fds/open");
    assert!((205..=246).contains(&open), "{warning:#}");
    let per_second = warning["per_second"].as_f64().unwrap();
    assert!((0.7 * grown..=1.3 * grown).contains(&per_second), "{grown} a second: {warning:#}");
    let left = f64::from(u32::try_from(LIMIT - open).unwrap()) / per_second;
    assert!((warning["full_in_s"].as_f64().unwrap() - left).abs() < 0.1, "{warning:#}");
    assert_eq!(server.said(&fdtrace.stop()), (1, 0));
}

fn no_flapping() {
    let mut fdtrace = Fdtrace::start(&[]);
    let mut server = Server::start(128);
    server.hold(207);
    server.raised(&mut fdtrace, 80, 207);
    // 80 % is 205, and 75 % is 192.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(7) {
        for open in [201, 206, 195, 210] {
            server.hold(open);
            thread::sleep(Duration::from_millis(130));
        }
    }
    assert_eq!(server.said(&fdtrace.stop()), (1, 0));
}

fn of_accept_queues() {
    let mut fdtrace = Fdtrace::start(&[]);
    let (mut server, mut other) = (Server::start(20), Server::start(20));
    other.queue(10);
    server.queue(18);
    let queue = |length, threshold| {
        json!({
            "process": { "pid": server.workload.pid() },
            "listener": { "family": "inet", "address": "127.0.0.1", "port": server.workload.port() },
            "resource": "accept_queue",
            "threshold": threshold,
            "accept_queue": { "length": length, "limit": 20 },
            "fds": null,
        })
    };
    let (first, second, over) = (queue(18, 80), queue(20, 95), queue(0, 95));
    fdtrace.wait_for_report("warning_raised", &first);
    server.queue(2);
    fdtrace.wait_for_report("warning_raised", &second);
    server.hold(OWN + 20);
    let (_, over) = fdtrace.wait_for_report("warning_cleared", &over);
    assert_eq!((number(&over, "/most"), &over["outcome"]), (20, &json!("recovered")));
    let run = fdtrace.stop();
    assert_eq!((server.said(&run), other.said(&run)), ((2, 1), (0, 0)));
    run.assert_lost_nothing();
}

fn episodes_say_more() {
    let mut fdtrace = Fdtrace::start(&[]);
    let (mut server, mut refusing) = (Server::start(128), Server::start(20));
    server.hold(218);
    server.raised(&mut fdtrace, 80, 218);
    server.hold(LIMIT);
    server.queue(1);
    server.workload.tell("fail");
    server.workload.line("done");
    let (_, episode) = fdtrace.wait_for_report("episode_opened", &server.process());
    assert_eq!(episode["failure"], "EMFILE");
    // One more than the limit fits, and the rest is refused.
    refusing.queue(21);
    let _refused: Vec<_> = (0..3).map(|_| begin(refusing.address())).collect();
    let full = json!({ "process": refusing.process()["process"], "failure": "accept_queue_full" });
    fdtrace.wait_for_report("episode_opened", &full);
    thread::sleep(Duration::from_secs(3));
    server.hold(20);
    fdtrace.wait_for_report("episode_closed", &server.process());
    thread::sleep(Duration::from_secs(3));
    let run = fdtrace.stop();
    assert_eq!((server.said(&run), refusing.said(&run)), ((1, 0), (0, 0)));
    // It was watched when it failed.
    let diagnosed = run.of_kind("episode_diagnosed", &server.process());
    let text = diagnosed.iter().map(ToString::to_string).collect::<String>();
    assert!(!text.contains("nobody looked before"), "{text}");
}

fn a_process_that_exits() {
    let mut fdtrace = Fdtrace::start(&[]);
    let mut server = Server::start(128);
    server.hold(218);
    server.raised(&mut fdtrace, 80, 218);
    let process = server.process();
    drop(server);
    let (_, over) = fdtrace.wait_for_report("warning_cleared", &process);
    let expected = json!({ "outcome": "exited", "threshold": 80, "most": 218 });
    assert!(crate::support::same(&over, &expected), "{over:#}");
    fdtrace.stop();
}

fn nobody_asked() {
    // Two, for clients that come at once can overflow a short queue.
    let (mut server, mut waiting) = (Server::start(128), Server::start(20));
    let ports = format!("{},{}", server.workload.port(), waiting.workload.port());
    let pids = format!("{},{}", server.workload.pid(), waiting.workload.pid());
    let silent: [&[&str]; 5] = [
        &["--warn-at", "off"],
        &["--warn-at", "99"],
        &["--errno", "EMFILE"],
        &["--port", "1"],
        &["--comm", "nobody", "--pid", &pids],
    ];
    let silent = silent.map(Fdtrace::start);
    let mut telling = Fdtrace::start(&["--port", &ports, "--pid", &pids, "--warn-at", "60"]);
    server.hold(LIMIT * 65 / 100);
    server.raised(&mut telling, 60, LIMIT * 65 / 100);
    server.hold(218);
    waiting.queue(18);
    telling.wait_for_report("warning_raised", &waiting.process());
    for run in silent.map(Fdtrace::stop) {
        assert_eq!((server.said(&run), waiting.said(&run)), ((0, 0), (0, 0)));
    }
    telling.stop();
}

/// A client whose connect is on its way.
fn begin(address: SocketAddrV4) -> OwnedFd {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let client = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
    let begun = connect(client.as_raw_fd(), &SockaddrIn::from(address));
    assert_eq!(begun, Err(Errno::EINPROGRESS));
    client
}

/// The server: holds as many descriptors as it is told.
pub(crate) fn run(spec: &str) {
    let spec = Spec(spec);
    // SAFETY: nothing in this process has opened anything yet.
    unsafe { libc::close_range(3, u32::MAX, 0) };
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let limit = u64::try_from(spec.number("holds", 0)).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, limit, hard).unwrap();
    let listener =
        socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(listener.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    let backlog = i32::try_from(spec.number("backlog", 0)).unwrap();
    listen(&listener, Backlog::new(backlog).unwrap()).unwrap();
    let at: SockaddrIn = getsockname(listener.as_raw_fd()).unwrap();
    say("ready", &json!({ "port": at.port() }));
    let listener = TcpListener::from(listener);
    let own = usize::try_from(OWN).unwrap();
    let mut held = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let accept = || accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC);
        if let Some(open) = line.strip_prefix("hold ") {
            let wanted = open.parse::<usize>().unwrap() - own;
            held.truncate(wanted);
            while held.len() < wanted {
                // SAFETY: the kernel has just given us the descriptor.
                held.push(unsafe { OwnedFd::from_raw_fd(accept().unwrap()) });
            }
        } else {
            assert_eq!(accept(), Err(Errno::EMFILE));
        }
        say("done", &json!({ "open": held.len() + own }));
    }
}

fn say(word: &str, value: &Value) {
    let mut out = std::io::stdout();
    writeln!(out, "{word} {value}").unwrap();
    out.flush().unwrap();
}
