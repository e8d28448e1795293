//! A server that does not accept, and knows how many clients its listener refused.
//!
//! It is told what to be in `WORKLOAD`, as JSON: every key is in [`Spec`]. It says `ready {…}`, and
//! at each line on stdin it does the next thing in `then` and says `done {…}`. It stays until stdin
//! ends.

use std::{
    io::{BufRead as _, Write as _},
    net::{SocketAddr, TcpListener},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    libc,
    sys::{
        prctl::set_pdeathsig,
        resource::{Resource, getrlimit, setrlimit},
        signal::Signal,
        socket::{SockFlag, accept4},
        stat::Mode,
    },
    unistd::{ForkResult, fork, getpid, pause},
};
use serde_json::{Value, json};

/// IPPROTO_MPTCP
const MPTCP: i32 = 262;

/// What `WORKLOAD` says.
struct Spec(Value);

impl Spec {
    /// Where it listens: address and port. On `[::]` for both families.
    fn address(&self) -> SocketAddr {
        self.0["address"].as_str().unwrap_or("127.0.0.1:0").parse().unwrap()
    }

    /// listen(2)'s argument.
    fn backlog(&self) -> i32 {
        i32::try_from(self.number("backlog")).unwrap()
    }

    /// `reuseport` and `defer_accept` are socket options, `mptcp` the protocol, `children` how many
    /// share the listener by fork(2), `fds` a limit to be at, `failures` how often accept(2) is to
    /// fail because of it. What is not there is 0.
    fn number(&self, key: &str) -> u64 {
        self.0[key].as_u64().unwrap_or(0)
    }

    fn then(&self) -> Vec<&str> {
        let then = self.0["then"].as_array().into_iter().flatten();
        then.map(|what| what.as_str().unwrap()).collect()
    }
}

/// Runs it to its end.
pub(crate) fn run(spec: &str) {
    let spec = Spec(serde_json::from_str(spec).unwrap());
    // What the shell or a test runner left open would count against `fds`.
    // SAFETY: nothing in this process has opened anything yet.
    unsafe { libc::close_range(3, u32::MAX, 0) };
    let mut listener = Some(listen(&spec));
    let children: Vec<_> = (0..spec.number("children")).map(|_| child()).collect();
    let held = fill(spec.number("fds"));
    let ready = json!({
        "pid": getpid().as_raw(),
        "port": listener.as_ref().unwrap().local_addr().unwrap().port(),
        "children": children,
        "held": held.len(),
    });
    say("ready", &ready);
    for what in spec.then() {
        if !wait() {
            return;
        }
        let done = match what {
            "close" => {
                listener = None;
                json!({})
            }
            "fail" => fail(listener.as_ref().unwrap(), spec.number("failures")),
            "drops" => json!({ "drops": drops(listener.as_ref().unwrap()) }),
            "accept_one" => {
                // Ours is the first FIN: TIME_WAIT stays here.
                listener.as_ref().unwrap().accept().unwrap();
                json!({})
            }
            "serve" => {
                let listener = listener.as_ref().unwrap().try_clone().unwrap();
                thread::spawn(move || listener.incoming().for_each(drop));
                json!({})
            }
            other => panic!("then={other}"),
        };
        say("done", &done);
    }
    while wait() {}
}

fn listen(spec: &Spec) -> TcpListener {
    let address = spec.address();
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let protocol = if spec.number("mptcp") == 1 { MPTCP } else { 0 };
    // SAFETY: numbers only.
    let fd = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, protocol) };
    let fd = Errno::result(fd).unwrap();
    // SAFETY: the kernel has just given us the descriptor.
    let listener = unsafe { TcpListener::from_raw_fd(fd) };
    let set = |level, option, value: i32| {
        let (pointer, size) = ((&raw const value).cast(), size_of::<i32>());
        // SAFETY: the kernel copies `size` bytes of a value that lives here.
        let result = unsafe {
            libc::setsockopt(fd, level, option, pointer, libc::socklen_t::try_from(size).unwrap())
        };
        Errno::result(result).unwrap();
    };
    if spec.number("reuseport") == 1 {
        set(libc::SOL_SOCKET, libc::SO_REUSEPORT, 1);
    }
    let seconds = i32::try_from(spec.number("defer_accept")).unwrap();
    if seconds != 0 {
        set(libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, seconds);
    }
    let address = nix::sys::socket::SockaddrStorage::from(address);
    nix::sys::socket::bind(fd, &address).unwrap();
    // SAFETY: numbers only. nix's Backlog refuses what is above the default somaxconn.
    Errno::result(unsafe { libc::listen(fd, spec.backlog()) }).unwrap();
    listener
}

/// A process that shares the listener and does nothing with it.
fn child() -> i32 {
    // SAFETY: this process has one thread, and the child only makes system calls.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => child.as_raw(),
        ForkResult::Child => {
            set_pdeathsig(Signal::SIGKILL).unwrap();
            loop {
                pause();
            }
        }
    }
}

/// Lowers the soft limit to `limit` and opens files until none can be opened; 0 is no limit.
fn fill(limit: u64) -> Vec<OwnedFd> {
    let mut held = Vec::new();
    if limit == 0 {
        return held;
    }
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, limit, hard).unwrap();
    loop {
        match open("/dev/null", OFlag::O_RDONLY, Mode::empty()) {
            Ok(fd) => held.push(fd),
            Err(Errno::EMFILE) => return held,
            Err(error) => panic!("open: {error}"),
        }
    }
}

/// Fails to accept so many times, with the pauses of a careful server.
fn fail(listener: &TcpListener, failures: u64) -> Value {
    for _ in 0..failures {
        let result = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC);
        assert_eq!(result, Err(Errno::EMFILE));
        thread::sleep(Duration::from_millis(50));
    }
    json!({ "failures": failures })
}

/// The listener's sk_drops. SYNs that are refused add one each.
fn drops(listener: &TcpListener) -> u32 {
    const SO_MEMINFO: i32 = 55;
    const DROPS: usize = 8;
    let mut values = [0_u32; DROPS + 1];
    let mut size = libc::socklen_t::try_from(size_of_val(&values)).unwrap();
    let (fd, pointer) = (listener.as_raw_fd(), values.as_mut_ptr().cast());
    // SAFETY: the kernel writes at most `size` bytes there.
    let result =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, SO_MEMINFO, pointer, &raw mut size) };
    Errno::result(result).unwrap();
    values[DROPS]
}

fn say(word: &str, value: &Value) {
    let line = format!("{word} {value}\n");
    std::io::stdout().write_all(line.as_bytes()).unwrap();
    std::io::stdout().flush().unwrap();
}

/// Whether there was another line.
fn wait() -> bool {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).unwrap() > 0
}
