//! A running `fdtrace daemon`, and what it tells systemd, the journal and Prometheus.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::{net::UnixDatagram, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    libc,
    sys::prctl::set_pdeathsig,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use super::fdtrace::{binary, form_arguments};

/// How long anything may take before the test gives up: generous, for emulated machines.
const PATIENCE: Duration = Duration::from_secs(30);

/// `fdtrace daemon`, attached.
pub(crate) struct Daemon {
    child: Child,
    dir: TempDir,
    port: u16,
    notify: UnixDatagram,
    pub(crate) journal: UnixDatagram,
}

/// How it ended.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stderr: String,
    pub(crate) stdout: String,
}

impl Daemon {
    /// Starts it with that configuration and waits until it is ready. `DIR` stands for a directory
    /// of its own, `PORT` for a free port.
    #[track_caller]
    pub(crate) fn start(config: &str) -> Self {
        Self::start_changed(config, |_| Ok(()))
    }

    /// The same, changed by `prepare` in the child before it starts.
    #[track_caller]
    pub(crate) fn start_changed(
        config: &str,
        prepare: impl Fn(&Path) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let port = free_port();
        let bind = |name| {
            let socket = UnixDatagram::bind(dir.path().join(name)).expect("a socket");
            socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            socket
        };
        let (notify, journal) = (bind("notify"), bind("journal"));
        configure(dir.path(), port, config);
        let child = spawn(dir.path(), prepare);
        let this = Self { child, dir, port, notify, journal };
        this.wait_for_notice("READY=1");
        this
    }

    /// Ends it as nothing that it could answer to.
    #[track_caller]
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("kill fdtrace");
        self.child.wait().expect("wait for fdtrace");
    }

    /// Starts it once more, with all that is in its directory.
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        self.forget_notices();
        self.child = spawn(self.dir.path(), |_| Ok(()));
        self.wait_for_notice("READY=1");
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sets its soft limit of descriptors; gives what it was.
    #[track_caller]
    pub(crate) fn limit_descriptors(&self, soft: u64) -> u64 {
        let pid = i32::try_from(self.pid()).expect("a pid");
        let mut old = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: both are valid for the call, or null.
        let result =
            unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, std::ptr::null(), &raw mut old) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        let new = libc::rlimit { rlim_cur: soft, ..old };
        let none = std::ptr::null_mut();
        // SAFETY: the same.
        let result = unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, &raw const new, none) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        old.rlim_cur
    }

    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(self.path("stderr")).expect("stderr")
    }

    /// Waits until systemd is told that; gives the whole notice.
    #[track_caller]
    pub(crate) fn wait_for_notice(&self, what: &str) -> String {
        loop {
            let mut bytes = [0; 4096];
            let length = self.notify.recv(&mut bytes).unwrap_or_else(|error| {
                panic!("no {what}: {error}: {}", self.stderr());
            });
            let notice = String::from_utf8_lossy(&bytes[..length]).into_owned();
            if notice.split('\n').any(|line| line == what) {
                return notice;
            }
        }
    }

    /// Makes room for notices: the kernel keeps but some ten, and others are not sent.
    pub(crate) fn forget_notices(&self) {
        self.notify.set_nonblocking(true).expect("no waiting");
        while self.notify.recv(&mut [0; 4096]).is_ok() {}
        self.notify.set_nonblocking(false).expect("waiting");
    }

    /// Another configuration, by SIGHUP.
    #[track_caller]
    pub(crate) fn reload(&self, config: &str) {
        configure(self.dir.path(), self.port, config);
        self.forget_notices();
        self.signal(Signal::SIGHUP);
        let notice = self.wait_for_notice("RELOADING=1");
        assert!(notice.contains("MONOTONIC_USEC="), "{notice}");
        self.wait_for_notice("READY=1");
    }

    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("signal fdtrace");
    }

    /// Asks; gives the status and the body.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let answer = self.ask(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let (head, body) = answer.split_once("\r\n\r\n").expect("an empty line");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.expect("a status"), body.to_owned())
    }

    /// Sends a request; gives the answer.
    #[track_caller]
    pub(crate) fn ask(&self, request: &str) -> String {
        self.connect().ask(request)
    }

    /// A connection on which something may be asked, later.
    #[track_caller]
    pub(crate) fn connect(&self) -> Connection {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Connection(stream)
    }

    /// The sum of a metric's samples that have all of those labels.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        // A text is good for 100 ms.
        thread::sleep(Duration::from_millis(120));
        let (status, text) = self.get("/metrics");
        assert_eq!(status, 200, "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
        let samples = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        });
        let value =
            |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
        samples.map(|line| value(line).unwrap_or_else(|| panic!("{line}"))).sum::<f64>() + 0.0
    }

    /// Ends it as systemd does.
    #[track_caller]
    pub(crate) fn stop(mut self) -> Ended {
        self.forget_notices();
        self.signal(Signal::SIGTERM);
        self.wait_for_notice("STOPPING=1");
        let status = self.child.wait().expect("wait for fdtrace");
        let stdout = fs::read_to_string(self.path("stdout")).expect("stdout");
        Ended { status, stderr: self.stderr(), stdout }
    }
}

/// A connection to a daemon.
pub(crate) struct Connection(TcpStream);

impl Connection {
    /// Sends a request; gives the answer.
    #[track_caller]
    pub(crate) fn ask(mut self, request: &str) -> String {
        self.0.write_all(request.as_bytes()).expect("send a request");
        let mut answer = String::new();
        self.0.read_to_string(&mut answer).expect("an answer");
        answer
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Only where a test failed: `stop` has waited for it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn spawn(dir: &Path, prepare: impl Fn(&Path) -> io::Result<()> + Send + Sync + 'static) -> Child {
    let file = |name| File::create(dir.join(name)).expect("a file");
    let mut command = Command::new(binary());
    let path = dir.to_owned();
    // A test binary that is killed must not leave a tracer behind.
    // SAFETY: system calls only, but for one path.
    unsafe {
        command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?));
        command.pre_exec(move || prepare(&path));
    }
    command
        .args(["daemon", "--config"])
        .arg(dir.join("fdtrace.toml"))
        .arg("--journal-socket")
        .arg(dir.join("journal"))
        .args(form_arguments())
        .env("NOTIFY_SOCKET", dir.join("notify"))
        .env("WATCHDOG_USEC", "3000000")
        .stdin(Stdio::null())
        .stdout(file("stdout"))
        .stderr(file("stderr"));
    command.spawn().expect("start fdtrace daemon")
}

fn configure(dir: &Path, port: u16, config: &str) {
    let config = config.replace("DIR", &dir.to_string_lossy()).replace("PORT", &port.to_string());
    fs::write(dir.join("fdtrace.toml"), config).expect("write the configuration");
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    listener.local_addr().expect("an address").port()
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}
