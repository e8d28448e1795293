//! A process that fails on purpose and counts how often.
//!
//! It is told what to do in `WORKLOAD` as `key=value` pairs, says `ready {…}` on stdout, waits for
//! a line on stdin, fails, says `done {…}`, and stays until stdin ends.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Barrier},
    thread,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    sched::{CloneFlags, unshare},
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        socket::{
            AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, SockaddrIn6, SockaddrLike,
            UnixAddr, accept, accept4, bind, connect, getsockname, listen, setsockopt, socket,
            socketpair, sockopt,
        },
        stat::Mode,
        wait::waitpid,
    },
    unistd::{ForkResult, fork, getpid},
};
use serde_json::{Value, json};

/// A workload that was started.
pub(crate) struct Workload {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    /// What it said when it was ready.
    pub(crate) ready: Value,
}

impl Workload {
    /// Starts one and waits until it is ready to fail.
    #[track_caller]
    pub(crate) fn start(spec: &str) -> Self {
        let mut child = Command::new("/proc/self/exe")
            .env("WORKLOAD", spec)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start a workload");
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut this = Self { child, stdin, stdout, ready: Value::Null };
        this.ready = this.line("ready");
        this
    }

    /// Lets it fail.
    pub(crate) fn go(&mut self) {
        self.tell("go");
    }

    /// Gives it a line.
    pub(crate) fn tell(&mut self, what: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{what}").unwrap();
    }

    /// Waits until it has failed as often as it should; returns what it counted.
    #[track_caller]
    pub(crate) fn done(&mut self) -> Value {
        self.line("done")
    }

    /// Lets it fail and waits for it; returns the number of failures.
    #[track_caller]
    pub(crate) fn fail(&mut self) -> u64 {
        self.go();
        self.done()["failures"].as_u64().unwrap()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its listener's port.
    pub(crate) fn port(&self) -> u64 {
        self.ready["port"].as_u64().unwrap()
    }

    /// Lets it end and waits until it is gone.
    #[track_caller]
    pub(crate) fn end(mut self) {
        self.stdin = None;
        assert!(self.child.wait().unwrap().success());
    }

    /// The next line that starts with `word`: the rest of it.
    #[track_caller]
    pub(crate) fn line(&mut self, word: &str) -> Value {
        loop {
            let mut line = String::new();
            let bytes = self.stdout.read_line(&mut line).unwrap();
            assert_ne!(bytes, 0, "the workload ended before it was {word}");
            if let Some(rest) = line.strip_prefix(word) {
                return serde_json::from_str(rest).unwrap();
            }
        }
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        self.stdin = None;
        let _ = self.child.wait();
    }
}

/// What `WORKLOAD` says.
pub(crate) struct Spec<'a>(pub(crate) &'a str);

impl<'a> Spec<'a> {
    pub(crate) fn text(&self, key: &str) -> Option<&'a str> {
        self.0.split(' ').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
    }

    pub(crate) fn number(&self, key: &str, default: usize) -> usize {
        self.text(key).map_or(default, |text| text.parse().unwrap())
    }
}

/// Runs a workload to its end.
pub(crate) fn run(spec: &str) {
    let spec = Spec(spec);
    // What the shell or a test runner left open above the limit would be counted as in use too.
    // SAFETY: nothing in this process has opened anything yet.
    unsafe { nix::libc::close_range(3, u32::MAX, 0) };
    if let Some(comm) = spec.text("comm") {
        // Escapes cannot stand in an environment's pair: `%1b` is one.
        let comm = comm.replace("%1b", "\x1b");
        nix::sys::prctl::set_name(&std::ffi::CString::new(comm).unwrap()).unwrap();
    }
    if let Some(user) = spec.text("user") {
        become_user(user.parse().unwrap());
    }
    if spec.text("netns").is_some() {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        // The new namespace's loopback is down, and nothing here needs it up.
    }
    let listener = Listener::open(&spec);
    let _clients = listener.connect(spec.number("queued", 0));
    let mut held = fill(spec.number("limit", 64));
    // Room for so many: then the call gets further than its descriptor.
    held.truncate(held.len() - spec.number("room", 0));
    let ready = json!({
        "pid": getpid().as_raw(),
        "port": listener.port,
        "path": listener.path,
        "netns": std::fs::read_link("/proc/self/ns/net").unwrap().to_string_lossy(),
        "held": held.len(),
    });
    say("ready", &ready);
    wait();

    let failures = spec.number("failures", 1);
    let door = Door::parse(spec.text("door").unwrap_or("accept4"));
    let fd = match spec.text("fd") {
        None => listener.fd.as_raw_fd(),
        Some("none") => 60,
        Some("file") => held[0].as_raw_fd(),
        Some(other) => panic!("fd={other}"),
    };
    if spec.text("fd") == Some("none") {
        drop(held);
    }
    match (spec.number("threads", 0), spec.number("forks", 0)) {
        (0, 0) => {
            let counted = door.fail(fd, failures);
            say("done", &counted);
        }
        (threads, 0) => {
            let barrier = Arc::new(Barrier::new(threads));
            let threads: Vec<_> = (0..threads)
                .map(|number| {
                    let barrier = Arc::clone(&barrier);
                    let thread = thread::Builder::new().name(format!("worker-{number}"));
                    thread
                        .spawn(move || {
                            barrier.wait();
                            door.fail(fd, failures)["failures"].as_u64().unwrap()
                        })
                        .unwrap()
                })
                .collect();
            let sum: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
            say("done", &json!({ "failures": sum }));
        }
        (_, forks) => {
            let children: Vec<_> = (0..forks).map(|_| forked(door, fd, failures)).collect();
            for child in children {
                waitpid(child, None).unwrap();
            }
            say("done", &json!({ "failures": forks * failures }));
        }
    }
    match spec.text("then") {
        None => wait(),
        Some("die") => {}
        Some("recover") => {
            wait();
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
            setrlimit(Resource::RLIMIT_NOFILE, 1024.min(hard), hard).unwrap();
            say("recovered", &json!({}));
            wait();
        }
        Some("fail-again") => {
            wait();
            say("done", &door.fail(fd, failures));
            wait();
        }
        Some(other) => panic!("then={other}"),
    }
}

/// As if it had been started by that user: a change of the user alone would hide it from itself.
fn become_user(user: u32) {
    nix::unistd::setgroups(&[]).unwrap();
    nix::unistd::setgid(user.into()).unwrap();
    nix::unistd::setuid(user.into()).unwrap();
    nix::sys::prctl::set_dumpable(true).unwrap();
}

fn forked(door: Door, fd: RawFd, failures: usize) -> nix::unistd::Pid {
    // SAFETY: this process has one thread, and the child only makes system calls and prints.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let mut counted = door.fail(fd, failures);
            counted["pid"] = json!(getpid().as_raw());
            say("child", &counted);
            // SAFETY: ends the child without running the parent's destructors.
            unsafe { nix::libc::_exit(0) }
        }
    }
}

pub(crate) fn say(word: &str, value: &Value) {
    // One write, so that lines of forked children do not mix.
    let line = format!("{word} {value}\n");
    std::io::stdout().write_all(line.as_bytes()).unwrap();
    std::io::stdout().flush().unwrap();
}

pub(crate) fn wait() {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).unwrap();
}

/// Lowers the soft limit and opens files until none can be opened.
fn fill(limit: usize) -> Vec<OwnedFd> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, limit as u64, hard).unwrap();
    let mut held = Vec::new();
    loop {
        match open("/dev/null", OFlag::O_RDONLY, Mode::empty()) {
            Ok(fd) => held.push(fd),
            Err(Errno::EMFILE) => return held,
            Err(error) => panic!("open: {error}"),
        }
    }
}

#[derive(Clone, Copy)]
enum Door {
    Accept,
    Accept4,
    Socket,
    Socketpair,
}

impl Door {
    fn parse(text: &str) -> Self {
        match text {
            "accept" => Self::Accept,
            "accept4" => Self::Accept4,
            "socket" => Self::Socket,
            "socketpair" => Self::Socketpair,
            other => panic!("door={other}"),
        }
    }

    fn call(self, fd: RawFd) -> Result<OwnedFd, Errno> {
        // SAFETY: the kernel has just given us the descriptor.
        let own = |fd| unsafe { OwnedFd::from_raw_fd(fd) };
        let (domain, kind) = (AddressFamily::Unix, SockType::Stream);
        match self {
            Self::Accept => accept(fd).map(own),
            Self::Accept4 => accept4(fd, SockFlag::SOCK_CLOEXEC).map(own),
            Self::Socket => socket(domain, kind, SockFlag::empty(), None),
            Self::Socketpair => {
                socketpair(domain, kind, None, SockFlag::empty()).map(|(one, _)| one)
            }
        }
    }

    /// Calls until that many calls have failed. "Again" is no failure, and counted apart.
    fn fail(self, fd: RawFd, failures: usize) -> Value {
        let (mut failed, mut again) = (0, 0);
        let mut errnos = std::collections::BTreeMap::new();
        while failed + again < failures {
            match self.call(fd) {
                Ok(_) => panic!("the call succeeded"),
                Err(Errno::EAGAIN | Errno::EINTR) => again += 1,
                Err(errno) => {
                    failed += 1;
                    *errnos.entry(errno as i32).or_insert(0_u64) += 1;
                }
            }
        }
        json!({ "failures": failed, "again": again, "errnos": errnos })
    }
}

struct Listener {
    fd: OwnedFd,
    port: Option<u16>,
    path: Option<String>,
    family: AddressFamily,
}

impl Listener {
    fn open(spec: &Spec<'_>) -> Self {
        let kind = match spec.text("type") {
            None => SockType::Stream,
            Some("dgram") => SockType::Datagram,
            Some(other) => panic!("type={other}"),
        };
        let flags = match spec.text("nonblock") {
            None => SockFlag::empty(),
            Some(_) => SockFlag::SOCK_NONBLOCK,
        };
        let port = u16::try_from(spec.number("port", 0)).unwrap();
        let (fd, path) = match spec.text("family").unwrap_or("inet") {
            "inet" => {
                let fd = socket(AddressFamily::Inet, kind, flags, None).unwrap();
                reuse(&fd, spec);
                bind(fd.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, port)).unwrap();
                (fd, None)
            }
            "mptcp" => {
                // SAFETY: no pointers; IPPROTO_MPTCP is 262.
                let fd =
                    unsafe { nix::libc::socket(nix::libc::AF_INET, nix::libc::SOCK_STREAM, 262) };
                let fd = Errno::result(fd).unwrap();
                // SAFETY: the kernel has just given us the descriptor.
                let fd = unsafe { OwnedFd::from_raw_fd(fd) };
                bind(fd.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, port)).unwrap();
                (fd, None)
            }
            "any" => {
                let fd = socket(AddressFamily::Inet, kind, flags, None).unwrap();
                bind(fd.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, port)).unwrap();
                (fd, None)
            }
            // Only v6, on ::1; and both families, on ::.
            family @ ("inet6" | "dual") => {
                let fd = socket(AddressFamily::Inet6, kind, flags, None).unwrap();
                setsockopt(&fd, sockopt::Ipv6V6Only, &(family == "inet6")).unwrap();
                let ip = if family == "inet6" { "::1" } else { "::" };
                let ip: std::net::Ipv6Addr = ip.parse().unwrap();
                let address = std::net::SocketAddrV6::new(ip, port, 0, 0);
                bind(fd.as_raw_fd(), &SockaddrIn6::from(address)).unwrap();
                (fd, None)
            }
            "unix" => {
                let fd = socket(AddressFamily::Unix, kind, flags, None).unwrap();
                let path = format!("/tmp/fdtrace-test-{}.sock", getpid());
                let _ = std::fs::remove_file(&path);
                bind(fd.as_raw_fd(), &UnixAddr::new(path.as_str()).unwrap()).unwrap();
                (fd, Some(path))
            }
            "abstract" => {
                let fd = socket(AddressFamily::Unix, kind, flags, None).unwrap();
                let name = format!("fdtrace-test-{}", getpid());
                let address = UnixAddr::new_abstract(name.as_bytes()).unwrap();
                bind(fd.as_raw_fd(), &address).unwrap();
                (fd, Some(format!("@{name}")))
            }
            other => panic!("family={other}"),
        };
        if spec.text("listen").is_none() {
            let backlog = i32::try_from(spec.number("backlog", 128)).unwrap();
            listen(&fd, Backlog::new(backlog).unwrap()).unwrap();
        }
        let (family, port) = local(&fd);
        Self { fd, port, path, family }
    }

    /// Connects clients that stay in the accept queue.
    fn connect(&self, clients: usize) -> Vec<OwnedFd> {
        let flags = SockFlag::SOCK_CLOEXEC;
        (0..clients)
            .map(|_| {
                let client = socket(self.family, SockType::Stream, flags, None).unwrap();
                let address: nix::sys::socket::SockaddrStorage =
                    getsockname(self.fd.as_raw_fd()).unwrap();
                connect(client.as_raw_fd(), &address).unwrap();
                client
            })
            .collect()
    }
}

fn reuse(fd: &OwnedFd, spec: &Spec<'_>) {
    if spec.text("reuseport").is_some() {
        setsockopt(fd, sockopt::ReusePort, &true).unwrap();
    }
}

fn local(fd: &OwnedFd) -> (AddressFamily, Option<u16>) {
    let address: nix::sys::socket::SockaddrStorage = getsockname(fd.as_raw_fd()).unwrap();
    let family = address.family().unwrap();
    let port = match family {
        AddressFamily::Inet => address.as_sockaddr_in().map(SockaddrIn::port),
        AddressFamily::Inet6 => address.as_sockaddr_in6().map(SockaddrIn6::port),
        _ => None,
    };
    (family, port)
}
