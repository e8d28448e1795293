//! A running fdtrace.

use std::{
    io::{self, BufRead as _, BufReader, Read as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    sys::prctl::set_pdeathsig,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::json::{number, same};

/// How long anything may take before the test gives up: generous, for emulated machines.
const PATIENCE: Duration = Duration::from_secs(30);

/// The program under test: `FDTRACE_BIN`, as in a virtual machine, or what cargo built.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("FDTRACE_BIN")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_fdtrace")), PathBuf::from)
}

/// The form and the buffer that the tests are run for: `FDTRACE_TEST_FORM`, `FDTRACE_TEST_BUFFER`.
pub(crate) fn form_arguments() -> Vec<String> {
    let form = std::env::var("FDTRACE_TEST_FORM").ok();
    let form = form.map(|form| vec!["--form".to_owned(), form]);
    [form.unwrap_or_default(), buffer_arguments()].concat()
}

/// The buffer that the tests are run for.
pub(crate) fn buffer_arguments() -> Vec<String> {
    let buffer = std::env::var("FDTRACE_TEST_BUFFER").ok();
    buffer.map(|buffer| vec![format!("--buffer={buffer}")]).unwrap_or_default()
}

/// `fdtrace --json`, attached.
pub(crate) struct Fdtrace {
    child: Child,
    lines: Receiver<(Instant, Value)>,
    seen: Vec<(Instant, Value)>,
    stderr: Option<JoinHandle<String>>,
}

/// What it said, all of it.
pub(crate) struct Run {
    /// Each report, with when it was read.
    pub(crate) reports: Vec<(Instant, Value)>,
    pub(crate) status: ExitStatus,
    pub(crate) stderr: String,
}

impl Fdtrace {
    /// Starts it and waits until it says that it is attached.
    #[track_caller]
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_changed(args, || Ok(()))
    }

    /// The same, changed by `prepare` in the child before it starts.
    #[track_caller]
    pub(crate) fn start_changed(
        args: &[&str],
        prepare: impl Fn() -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::start_program(&binary(), args, prepare)
    }

    /// The same, of a copy of the program.
    #[track_caller]
    pub(crate) fn start_program(
        program: &Path,
        args: &[&str],
        prepare: impl Fn() -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let mut command = Command::new(program);
        // A test binary that is killed must not leave a tracer behind.
        // SAFETY: system calls only.
        unsafe {
            command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?));
            command.pre_exec(prepare);
        }
        let mut child = command
            .arg("--json")
            .args(form_arguments())
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start fdtrace");
        let stdout = child.stdout.take().expect("piped");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let line = line.expect("read fdtrace's stdout");
                let value = serde_json::from_str(&line)
                    .unwrap_or_else(|error| panic!("not JSON: {error}: {line}"));
                if sender.send((Instant::now(), value)).is_err() {
                    return;
                }
            }
        });
        let mut stderr = child.stderr.take().expect("piped");
        let stderr = thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).expect("read fdtrace's stderr");
            text
        });
        let mut this = Self { child, lines, seen: Vec::new(), stderr: Some(stderr) };
        this.wait_for(|report| report["kind"] == "started", "the start line");
        this
    }

    /// Waits for the next report like that.
    #[track_caller]
    pub(crate) fn wait_for(
        &mut self,
        is_it: impl Fn(&Value) -> bool,
        what: &str,
    ) -> (Instant, Value) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok((at, report)) => {
                    self.seen.push((at, report.clone()));
                    if is_it(&report) {
                        return (at, report);
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("no {what} in time; got {:#?}", self.seen),
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait();
                    let stderr = self.stderr.take().map(JoinHandle::join);
                    panic!("fdtrace ended ({status:?}) before {what}: {stderr:?}");
                }
            }
        }
    }

    /// Waits for the next report of that kind with those fields.
    #[track_caller]
    pub(crate) fn wait_for_report(&mut self, kind: &str, fields: &Value) -> (Instant, Value) {
        let what = format!("{kind} with {fields}");
        self.wait_for(|report| report["kind"] == kind && same(report, fields), &what)
    }

    /// The same, if it was not there already.
    #[track_caller]
    pub(crate) fn reported(&mut self, kind: &str, fields: &Value) -> Value {
        let is_it = |report: &Value| report["kind"] == kind && same(report, fields);
        self.find(is_it, &format!("{kind} with {fields}"))
    }

    /// The first report like that, whether it was there already or not.
    #[track_caller]
    pub(crate) fn find(&mut self, is_it: impl Fn(&Value) -> bool, what: &str) -> Value {
        match self.seen.iter().find(|(_, report)| is_it(report)) {
            Some((_, report)) => report.clone(),
            None => self.wait_for(is_it, what).1,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as Ctrl-C does, and takes everything it said.
    #[track_caller]
    pub(crate) fn stop(self) -> Run {
        self.stop_with(Signal::SIGINT)
    }

    /// Ends it with a signal.
    #[track_caller]
    pub(crate) fn stop_with(mut self, signal: Signal) -> Run {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("signal fdtrace");
        let status = self.child.wait().expect("wait for fdtrace");
        let mut reports = std::mem::take(&mut self.seen);
        reports.extend(self.lines.iter());
        let stderr = self.stderr.take().map(JoinHandle::join);
        let stderr = stderr.expect("joined once").expect("stderr's thread");
        Run { reports, status, stderr }
    }
}

impl Drop for Fdtrace {
    fn drop(&mut self) {
        // Only where a test failed: `stop` has waited for it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Run {
    /// The last report.
    #[track_caller]
    pub(crate) fn summary(&self) -> &Value {
        let (_, last) = self.reports.last().expect("reports");
        assert_eq!(last["kind"], "summary", "{last:#}");
        last
    }

    /// Lines of the totals with those fields.
    pub(crate) fn totals(&self, fields: &Value) -> Vec<&Value> {
        let totals = self.summary()["totals"].as_array().expect("totals");
        totals.iter().filter(|total| same(total, fields)).collect()
    }

    /// The sum of the totals with those fields.
    pub(crate) fn count(&self, fields: &Value) -> u64 {
        self.totals(fields).iter().map(|total| number(total, "/count")).sum()
    }

    /// Reports of that kind with those fields.
    pub(crate) fn of_kind(&self, kind: &str, fields: &Value) -> Vec<&Value> {
        let reports = self.reports.iter().map(|(_, report)| report);
        reports.filter(|report| report["kind"] == kind && same(report, fields)).collect()
    }

    /// How often something was lost for that reason; unknown is 0.
    pub(crate) fn lost(&self, reason: &str) -> u64 {
        self.summary()["lost"][reason].as_u64().unwrap_or(0)
    }

    /// Fails unless nothing at all was lost.
    #[track_caller]
    pub(crate) fn assert_lost_nothing(&self) {
        let lost = self.summary()["lost"].as_object().expect("lost");
        let some: Vec<_> = lost.iter().filter(|(_, count)| count.as_u64() > Some(0)).collect();
        assert!(some.is_empty(), "lost {some:?}");
        assert!(self.status.success(), "{:?}: {}", self.status, self.stderr);
    }
}
