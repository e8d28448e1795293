//! A process that holds what it is told to.
//!
//! It is told in `HOLDER` as `key=number` pairs, opens that, says `ready PORT` on stdout, and stays
//! until stdin ends. A number on stdin makes it accept so many connections and say `accepted`, the
//! word `read` makes it read once from so many, the first ones, as it then says.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
};

use fdtrace::model::{BootTime, Census, OpenFds, Pid, ProcessId};
use nix::{
    sched::{CloneFlags, unshare},
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::SigSet,
        signalfd::SignalFd,
        socket::{Backlog, listen},
    },
    unistd::{close, pipe, sysconf},
};

/// What it has before it opens anything: pipes on stdin and stdout, /dev/null on stderr.
pub(crate) const AT_START: [(&str, u64); 2] = [("pipe", 2), ("device", 1)];

/// Some of every kind that needs no privilege: what to say, and what it holds then besides.
pub(crate) const EVERY_KIND: (&str, &[(&str, u64)]) = (
    "tcp_unconnected=3 tcp6_listener=2 udp=4 netlink=2 unix_pair=3 pipe_pair=5 same_file=7 \
     new_file=2 deleted_file=3 fifo=2 directory=4 device=3 netns_file=2 epoll=3 eventfd=5 \
     timerfd=2 signalfd=3 inotify=2 memfd=4 pidfd=2",
    &[
        ("tcp_unlisted", 3),
        ("tcp_listen", 2),
        ("udp", 4),
        ("netlink", 2),
        ("unix", 6),
        ("pipe", 10),
        ("file", 9),
        ("deleted_file", 3),
        ("fifo", 2),
        ("directory", 4),
        ("device", 3),
        ("namespace", 2),
        ("epoll", 3),
        ("eventfd", 5),
        ("timerfd", 2),
        ("signalfd", 3),
        ("inotify", 2),
        ("memfd", 4),
        ("pidfd", 2),
    ],
);

/// One that was started. It ends when this is dropped.
pub(crate) struct Holder {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    /// Its listener's port.
    pub(crate) port: u16,
}

impl Holder {
    #[track_caller]
    pub(crate) fn start(spec: &str) -> Self {
        let mut child = Command::new("/proc/self/exe")
            .env("HOLDER", spec)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut this = Self { child, stdin, stdout, port: 0 };
        this.port = this.line("ready").parse().unwrap();
        this
    }

    /// Connects a client from a local address of its own, and has it accepted.
    #[track_caller]
    pub(crate) fn connect(&mut self, from: &str, count: usize) -> Vec<TcpStream> {
        let to = format!("127.0.0.1:{}", self.port);
        let clients = (0..count).map(|_| connect(from, &to)).collect();
        self.accept(count);
        clients
    }

    #[track_caller]
    pub(crate) fn accept(&mut self, count: usize) {
        writeln!(self.stdin.as_mut().unwrap(), "{count}").unwrap();
        self.line("accepted");
    }

    /// Reads once from connections accepted, the first ones.
    #[track_caller]
    pub(crate) fn read(&mut self, count: usize) {
        writeln!(self.stdin.as_mut().unwrap(), "read {count}").unwrap();
        self.line("was read");
    }

    #[track_caller]
    fn line(&mut self, word: &str) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        let rest = line.trim().strip_prefix(word);
        rest.unwrap_or_else(|| panic!("{word} was expected, not {line:?}")).trim().to_owned()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn id(&self) -> ProcessId {
        id(self.pid())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // It may be stopped.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // It may have made none.
        let _ = fs::remove_dir_all(files(self.child.id()));
    }
}

fn kinds(census: &Census) -> BTreeMap<String, u64> {
    census.kinds.iter().map(|(kind, count)| (kind.to_string(), *count)).collect()
}

/// What a holder has open: what it was told to, its listener, and what it started with.
fn expected(more: &[(&str, u64)]) -> BTreeMap<String, u64> {
    let mut kinds = BTreeMap::from([("tcp_listen".to_owned(), 1)]);
    for (kind, count) in AT_START.iter().chain(more) {
        *kinds.entry((*kind).to_owned()).or_default() += count;
    }
    kinds
}

/// Fails unless the census is of all that a holder has.
#[track_caller]
pub(crate) fn assert_exact(census: &Census, more: &[(&str, u64)]) {
    let expected = expected(more);
    assert_eq!(kinds(census), expected);
    let open = expected.values().sum();
    assert_eq!((census.open, census.looked_at), (OpenFds::Exact(open), open));
    assert!(!census.is_sampled());
    assert_eq!(census.unknown, [""; 0]);
}

/// A process by its number.
pub(crate) fn id(pid: u32) -> ProcessId {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let ticks = stat.rsplit(')').next().unwrap().split_ascii_whitespace().nth(19).unwrap();
    let ticks: u64 = ticks.parse().unwrap();
    let per_second = sysconf(nix::unistd::SysconfVar::CLK_TCK).unwrap().unwrap();
    let nanos = 1_000_000_000 / u64::try_from(per_second).unwrap();
    ProcessId { pid: Pid(pid), started: BootTime::from_nanos(ticks * nanos) }
}

fn connect(from: &str, to: &str) -> TcpStream {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
    use std::{net::SocketAddrV4, str::FromStr as _};
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
    let from = SocketAddrV4::from_str(&format!("{from}:0")).unwrap();
    bind(socket.as_raw_fd(), &SockaddrIn::from(from)).unwrap();
    connect(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::from_str(to).unwrap())).unwrap();
    socket.into()
}

/// What the holder itself does.
pub(crate) fn run(spec: &str) {
    // What cargo and its like leave open.
    for fd in open_beyond_stderr() {
        // Among them is the directory that was listed.
        let _ = close(fd);
    }
    let pairs: Vec<(String, usize)> = spec
        .split_ascii_whitespace()
        .map(|pair| pair.split_once('=').unwrap())
        .map(|(key, number)| (key.to_owned(), number.parse().unwrap()))
        .collect();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let get = |key: &str| pairs.iter().find(|pair| pair.0 == key).map_or(0, |pair| pair.1);
    if get("netns") > 0 {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    if let backlog @ 1.. = get("backlog") {
        listen(&listener, Backlog::new(i32::try_from(backlog).unwrap()).unwrap()).unwrap();
    }
    let mut held = Vec::new();
    for (kind, count) in &pairs {
        for _ in 0..*count {
            open(kind, &listener, &mut held);
        }
    }
    println!("ready {}", listener.local_addr().unwrap().port());
    if get("vfork") > 0 {
        wait_for_a_child();
    }
    let mut accepted = Vec::new();
    let mut serve = move || {
        for line in std::io::stdin().lines() {
            let line = line.unwrap();
            if let Some(count) = line.strip_prefix("read ") {
                for connection in accepted.iter_mut().take(count.parse().unwrap()) {
                    assert_eq!(TcpStream::read(connection, &mut [0; 16]).unwrap(), 0);
                }
                println!("was read");
                continue;
            }
            let count: usize = line.parse().unwrap();
            accepted.extend((0..count).map(|_| listener.accept().unwrap().0));
            println!("accepted");
        }
    };
    if get("no_first_thread") > 0 {
        thread::spawn(serve);
        // SAFETY: only this thread ends, and nothing on its stack is borrowed by another.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    } else {
        serve();
    }
}

fn open_beyond_stderr() -> Vec<RawFd> {
    let entries = fs::read_dir("/proc/self/fd").unwrap();
    let number = |name: std::ffi::OsString| name.to_str().unwrap().parse().unwrap();
    entries.map(|entry| number(entry.unwrap().file_name())).filter(|fd| *fd > 2).collect()
}

/// Opens one of a kind.
fn open(kind: &str, listener: &TcpListener, held: &mut Vec<OwnedFd>) {
    let socket = |family: i32, kind: i32, protocol: i32| {
        // SAFETY: the call takes no pointers.
        owned(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) })
    };
    let file = |path: &str| File::open(path).unwrap().into();
    let me = || i32::try_from(std::process::id()).unwrap();
    let opened = match kind {
        "tcp_unconnected" => socket(libc::AF_INET, libc::SOCK_STREAM, 0),
        "tcp6_listener" => TcpListener::bind("[::1]:0").unwrap().into(),
        "udp" => UdpSocket::bind("127.0.0.1:0").unwrap().into(),
        "raw" => socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
        "packet" => socket(libc::AF_PACKET, libc::SOCK_RAW, 0),
        "netlink" => socket(libc::AF_NETLINK, libc::SOCK_RAW, 0),
        "unix_pair" => {
            let (one, other) = UnixStream::pair().unwrap();
            held.push(one.into());
            other.into()
        }
        "pipe_pair" => {
            let (one, other) = pipe().unwrap();
            held.push(one);
            other
        }
        // The same file each time, and another one each time.
        "same_file" => file(std::env::current_exe().unwrap().to_str().unwrap()),
        "new_file" | "deleted_file" | "fifo" => new_file(kind, held.len()),
        "directory" => file("/proc"),
        "device" => file("/dev/zero"),
        "netns_file" => file("/proc/self/ns/net"),
        // SAFETY: none of these calls takes a pointer, but for a name that is static.
        "epoll" => owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }),
        // SAFETY: as above.
        "eventfd" => owned(unsafe { libc::eventfd(0, 0) }),
        // SAFETY: as above.
        "timerfd" => owned(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, 0) }),
        // SAFETY: as above.
        "inotify" => owned(unsafe { libc::inotify_init1(0) }),
        // SAFETY: as above.
        "memfd" => owned(unsafe { libc::memfd_create(c"held".as_ptr(), 0) }),
        "signalfd" => {
            SignalFd::new(&SigSet::empty()).unwrap().as_fd().try_clone_to_owned().unwrap()
        }
        "pidfd" => {
            // SAFETY: the call takes no pointers.
            let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, me(), 0) };
            owned(fd.try_into().unwrap())
        }
        // Both ends of a connection to itself.
        "loopback_pair" => {
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            held.push(client.into());
            listener.accept().unwrap().0.into()
        }
        "spinner" => return spin(),
        "acceptor" => {
            let listener = listener.try_clone().unwrap();
            let waits = move || drop(listener.accept());
            thread::Builder::new().name("waits".to_owned()).spawn(waits).unwrap();
            return;
        }
        // Those that `run` itself reads.
        "netns" | "no_first_thread" | "backlog" | "vfork" => return,
        other => panic!("{other}?"),
    };
    held.push(opened);
}

/// As vfork(2), but for the memory: it waits until its child runs a program, which that never does.
fn wait_for_a_child() {
    let flags = libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: without CLONE_VM and CLONE_SETTLS it is a fork, which takes no pointers; the child makes
    // two system calls.
    unsafe {
        if libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) == 0 {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::pause();
            libc::_exit(0);
        }
    }
}

/// A thread that does nothing as fast as it can.
fn spin() {
    let spins = || loop {
        std::hint::spin_loop();
    };
    thread::Builder::new().name("spins".to_owned()).spawn(spins).unwrap();
}

/// Where a holder has files of its own.
pub(crate) fn files(pid: u32) -> PathBuf {
    std::env::temp_dir().join(format!("fdtrace-held-{pid}"))
}

fn new_file(kind: &str, number: usize) -> OwnedFd {
    let dir = files(std::process::id());
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join(number.to_string());
    if kind == "fifo" {
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let both = File::options().read(true).write(true).open(&path).unwrap();
        return both.into();
    }
    let file = File::create(&path).unwrap();
    if kind == "deleted_file" {
        fs::remove_file(&path).unwrap();
    }
    file.into()
}

#[track_caller]
fn owned(fd: RawFd) -> OwnedFd {
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: it was just opened, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
