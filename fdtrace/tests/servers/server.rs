//! A server in a place of its own, that ends with the test.

use std::{
    fs::{self, File, Permissions},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    libc,
    sys::{
        prctl,
        resource::{Resource, getrlimit, setrlimit},
        signal::{Signal, kill, killpg},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};
use tempfile::TempDir;

/// How long a server may take to start, to write what it must write, or to stop.
const PATIENCE: Duration = Duration::from_secs(10);

/// More descriptors than the clients of any test need.
const OWN_LIMIT: u64 = 4096;

/// Lets this process have as many clients as it needs.
pub(crate) fn raise_own_limit() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // Above the hard limit only with CAP_SYS_RESOURCE, which not every root has.
    setrlimit(Resource::RLIMIT_NOFILE, OWN_LIMIT, hard.max(OWN_LIMIT))
        .expect("room for the clients' descriptors");
}

/// The path of a program; Debian's own, where there is another of the same name.
#[track_caller]
pub(crate) fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let debian = ["/usr/sbin", "/usr/bin"].map(PathBuf::from);
    debian
        .into_iter()
        .chain(std::env::split_paths(&path))
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{name} is not installed: run `cargo xtask setup`"))
}

/// Changes a running process's limit as fdtrace's remedy tells the operator to, but as the user
/// that the process runs as: root without CAP_SYS_RESOURCE may change nobody else's.
#[track_caller]
pub(crate) fn prlimit(pid: u64, nofile: &str) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let id = |name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    let mut command = Command::new(program("prlimit"));
    command
        .args([format!("--pid={pid}"), format!("--nofile={nofile}")])
        .uid(id("Uid:"))
        .gid(id("Gid:"));
    assert!(command.status().expect("run prlimit").success(), "{command:?}");
}

/// Whether this root may raise another process's hard limit: not every one has `CAP_SYS_RESOURCE`.
#[track_caller]
pub(crate) fn has_sys_resource() -> bool {
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let caps = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(caps.trim(), 16).unwrap() >> CAP_SYS_RESOURCE & 1 == 1
}

/// A port that nobody listens on. Clients' own ports come from above, so none of them takes it.
#[track_caller]
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 12_000;
    const COUNT: u32 = 20_000;
    // Two runs at once begin at different ports.
    let own = std::process::id() % COUNT;
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(FIRST + (own + step) % COUNT).unwrap();
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

/// Where a server runs: a directory and a port.
pub(crate) struct Home {
    dir: TempDir,
    pub(crate) port: u16,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self::at(free_port())
    }

    /// Of a server whose port cannot be chosen.
    pub(crate) fn at(port: u16) -> Self {
        // Servers that give up root must still get in.
        let mode = Permissions::from_mode(0o755);
        let mut dir = tempfile::Builder::new();
        let dir = dir.prefix("fdtrace-server-").permissions(mode).tempdir().unwrap();
        Self { dir, port }
    }

    /// A file in the directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file and says where.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Starts a server with these limits, and waits until it listens.
    #[track_caller]
    pub(crate) fn start(self, command: &mut Command, soft: u64, hard: u64) -> Server {
        let child = self.spawn(command, soft, hard);
        let server = Server { child, runs: true, home: self };
        server.wait_until_it_listens();
        server
    }

    #[track_caller]
    fn spawn(&self, command: &mut Command, soft: u64, hard: u64) -> Child {
        let output = File::options().append(true).create(true).open(self.path("output")).unwrap();
        command
            .env("TZ", "UTC")
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .process_group(0);
        // SAFETY: `prepare` makes system calls only, which is allowed between fork and exec.
        unsafe { command.pre_exec(move || prepare(soft, hard)) };
        command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }
}

/// A process's only child: what a script, or a master, has started.
#[track_caller]
pub(crate) fn only_child(pid: u32) -> u32 {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.trim().parse().unwrap_or_else(|_| panic!("not one child: {children:?}"))
}

/// Between fork and exec.
pub(crate) fn prepare(soft: u64, hard: u64) -> std::io::Result<()> {
    // Should the test be killed. supervisord and nginx take their children with them.
    prctl::set_pdeathsig(Signal::SIGTERM)?;
    // What the test inherited, such as cargo's pipes, must not be among the server's descriptors:
    // one above the limit is open and takes no place.
    // SAFETY: no pointers. Marked and not closed, since std reports a failed exec through one.
    let closed = unsafe {
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
    Errno::result(closed)?;
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
    Ok(())
}

/// A running server, in a process group of its own.
pub(crate) struct Server {
    child: Child,
    /// Nobody has waited for it, so that its number is still its own and its group's.
    runs: bool,
    home: Home,
}

impl Server {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn home(&self) -> &Home {
        &self.home
    }

    pub(crate) fn port(&self) -> u16 {
        self.home.port
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path(name)
    }

    /// Lines of a file of the server that have that in them. `output` is what it printed.
    pub(crate) fn lines(&self, file: &str, with: &str) -> Vec<String> {
        let bytes = fs::read(self.path(file)).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        text.lines().filter(|line| line.contains(with)).map(str::to_owned).collect()
    }

    /// Waits for the first such line.
    #[track_caller]
    pub(crate) fn wait_for_line(&self, file: &str, with: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = self.lines(file, with).into_iter().next() {
                return line;
            }
            assert!(Instant::now() < deadline, "no {with:?} in {file}: {}", self.said());
            thread::sleep(Duration::from_millis(20));
        }
    }

    #[track_caller]
    pub(crate) fn wait_until_it_listens(&self) {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port())).is_err() {
            assert!(!self.has_ended(), "the server ended: {}", self.said());
            assert!(Instant::now() < deadline, "the server does not listen: {}", self.said());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Who was killed with its group may take a moment to end, and whoever is not the test's own child
    /// cannot be waited for.
    #[track_caller]
    fn wait_until_nobody_listens(&self) {
        let deadline = Instant::now() + PATIENCE;
        while TcpListener::bind((Ipv4Addr::UNSPECIFIED, self.port())).is_err() {
            assert!(Instant::now() < deadline, "somebody still listens: {}", self.said());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The end of what it printed.
    fn said(&self) -> String {
        let lines = self.lines("output", "");
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn leader(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// Looks without waiting for it.
    fn has_ended(&self) -> bool {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        !matches!(waitid(Id::Pid(self.leader()), flags), Ok(WaitStatus::StillAlive))
    }

    /// Ends it and starts it again, in the same place.
    #[track_caller]
    pub(crate) fn restart(&mut self, command: &mut Command, soft: u64, hard: u64) {
        self.stop();
        self.wait_until_nobody_listens();
        self.child = self.home.spawn(command, soft, hard);
        self.runs = true;
        self.wait_until_it_listens();
    }

    /// Ends it as an operator would, so that nothing it has to write is missing.
    pub(crate) fn stop(&mut self) {
        if !std::mem::take(&mut self.runs) {
            return;
        }
        let _ = kill(self.leader(), Signal::SIGTERM);
        let deadline = Instant::now() + PATIENCE;
        while !self.has_ended() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        let _ = killpg(self.leader(), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
