//! What is attached while a workload runs.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::peers::{Peer, Seen};

/// A tool that does not say in this time that it is ready is not measured.
const PATIENCE: Duration = Duration::from_secs(30);

const MOUNT_TRACEFS: &str = "mountpoint -q /sys/kernel/tracing || \
                             mount -t tracefs tracefs /sys/kernel/tracing";

#[derive(Clone, Copy, Debug)]
pub(crate) enum Attachment {
    Nothing,
    /// Empty programs where fdtrace's are: what the kernel itself charges.
    Empty,
    /// As it is for most of its time: on a host where nothing is about to run out.
    Fdtrace,
    /// With everything attached, also what looks at packets.
    FdtraceAlways,
    Peer(&'static Peer),
}

impl Attachment {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Empty => "empty programs",
            Self::Fdtrace => "fdtrace",
            Self::FdtraceAlways => "fdtrace --packets always",
            Self::Peer(peer) => peer.name,
        }
    }

    /// Starts it, and waits until it observes. `pid` is the process that will work.
    pub(crate) fn start(self, fdtrace: &Path, pid: u32) -> Result<Option<Tool>> {
        let (mut command, ready) = match self {
            Self::Nothing => return Ok(None),
            Self::Empty => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("bench-empty");
                (command, Ready::Line("ready"))
            }
            Self::Fdtrace => return self::fdtrace(fdtrace).map(Some),
            Self::FdtraceAlways => (fdtrace_always(fdtrace), STARTED),
            Self::Peer(peer) => {
                // In mounts of its own, so that the host's stay as they are. Each program gives way
                // to the next, so that our signal reaches the tool.
                let mut command = Command::new("unshare");
                let tool = peer.command.replace("{pid}", &pid.to_string());
                command.args(["--mount", "sh", "-c"]).arg(format!("{MOUNT_TRACEFS}; {tool}"));
                (command, peer.ready)
            }
        };
        let name = self.name();
        let tool = Tool::start(&mut command, ready).with_context(|| format!("start {name}"))?;
        Ok(Some(tool))
    }

    /// How many of the failures of a process it told of, if it counts them.
    pub(crate) fn seen(self, pid: u32, output: &str) -> Option<u64> {
        match self {
            Self::Nothing | Self::Empty => None,
            Self::Fdtrace | Self::FdtraceAlways => seen_by_fdtrace(pid, output),
            Self::Peer(peer) => match peer.seen {
                Seen::Lines(text) => {
                    u64::try_from(output.lines().filter(|line| line.contains(text)).count()).ok()
                }
                Seen::Number(find) => find(output),
            },
        }
    }
}

/// Starts fdtrace, and waits until it looks at no packets: it does that while a listener may refuse
/// clients.
pub(super) fn fdtrace(path: &Path) -> Result<Tool> {
    /// Two looks.
    const PATIENCE: Duration = Duration::from_millis(2500);
    let mut command = Command::new(path);
    command.args(["--json", "--packets-rest", "1ms"]);
    let tool = Tool::start(&mut command, STARTED).context("start fdtrace")?;
    let begun = Instant::now();
    while looks_at_packets(tool.child.id()) && begun.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(20));
    }
    Ok(tool)
}

/// fdtrace that looks at every packet.
pub(super) fn fdtrace_always(path: &Path) -> Command {
    let mut command = Command::new(path);
    command.args(["--json", "--packets", "always"]);
    command
}

fn looks_at_packets(pid: u32) -> bool {
    let infos = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
    let mut texts = infos.filter_map(|info| fs::read_to_string(info.path()).ok());
    texts.any(|text| text.contains("link_type:\tcgroup"))
}

pub(super) const STARTED: Ready = Ready::Line("\"kind\":\"started\"");

fn seen_by_fdtrace(pid: u32, output: &str) -> Option<u64> {
    let summary = output.lines().find(|line| line.contains("\"kind\":\"summary\""))?;
    let summary: Value = serde_json::from_str(summary).ok()?;
    let totals = summary["totals"].as_array()?;
    let of_it = totals.iter().filter(|total| {
        total["process"]["pid"] == pid
            || total["processes"]
                .as_array()
                .is_some_and(|all| all.iter().any(|process| process["pid"] == pid))
    });
    Some(of_it.filter_map(|total| total["count"].as_u64()).sum())
}

/// How a tool lets us know that it observes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ready {
    /// It writes a line with this in it.
    Line(&'static str),
    /// It says nothing; this long after its start it surely does.
    After(Duration),
}

/// A running tool.
pub(crate) struct Tool {
    child: Child,
    lines: Receiver<(Instant, String)>,
    output: String,
    readers: Vec<JoinHandle<()>>,
    /// From its start until it said it was ready.
    pub(crate) start: Duration,
}

impl Tool {
    pub(crate) fn start(command: &mut Command, ready: Ready) -> Result<Self> {
        let start = Instant::now();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let (send, lines) = channel();
        let stdout = child.stdout.take().context("stdout is piped")?;
        let stderr = child.stderr.take().context("stderr is piped")?;
        let read = |from: Box<dyn Read + Send>| {
            let send = send.clone();
            thread::spawn(move || {
                for line in BufReader::new(from).lines().map_while(Result::ok) {
                    if send.send((Instant::now(), line)).is_err() {
                        return;
                    }
                }
            })
        };
        let readers = vec![read(Box::new(stdout)), read(Box::new(stderr))];
        let mut tool = Self { child, lines, output: String::new(), readers, start: Duration::ZERO };
        match ready {
            Ready::After(time) => thread::sleep(time),
            Ready::Line(text) => {
                let Some((at, _)) = tool.wait_for(text)? else {
                    tool.kill();
                    bail!("not ready: {}", tool.output.trim_end());
                };
                tool.start = at - start;
            }
        }
        if let Some(status) = tool.child.try_wait()? {
            tool.take_lines();
            bail!("it ended at once ({status}): {}", tool.output.trim_end());
        }
        Ok(tool)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written and was looked at.
    pub(super) fn output(&self) -> &str {
        &self.output
    }

    /// The next line with this in it, and when it came.
    pub(crate) fn wait_for(&mut self, text: &str) -> Result<Option<(Instant, String)>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok((at, line)) => {
                    let found = line.contains(text);
                    self.keep(&line);
                    if found {
                        return Ok(Some((at, line)));
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    return Ok(None);
                }
            }
        }
    }

    /// The lines that have come and nobody waited for.
    pub(crate) fn take_lines(&mut self) -> Vec<(Instant, String)> {
        let lines: Vec<_> = self.lines.try_iter().collect();
        for (_, line) in &lines {
            self.keep(line);
        }
        lines
    }

    /// Ends it as an operator would, by Ctrl-C, and returns all that it wrote.
    pub(crate) fn stop(mut self) -> Result<String> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGINT)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.take_lines();
            if let Some(status) = self.child.try_wait()? {
                let of_signal = status.signal().is_some();
                for reader in self.readers.drain(..) {
                    let _ = reader.join();
                }
                let rest: Vec<_> = self.lines.try_iter().collect();
                for (_, line) in &rest {
                    self.keep(line);
                }
                // Many tools end by the signal, or with what they please.
                if !status.success() && !of_signal && self.output.is_empty() {
                    bail!("it failed: {status}");
                }
                return Ok(std::mem::take(&mut self.output));
            }
            if Instant::now() > deadline {
                self.kill();
                bail!("it does not end on SIGINT");
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn keep(&mut self, line: &str) {
        self.output.push_str(line);
        self.output.push('\n');
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.take_lines();
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill();
        }
    }
}

/// The binary that is measured, built as it is released.
pub(crate) fn build_fdtrace() -> Result<PathBuf> {
    crate::proc::run(crate::proc::cargo().args(["build", "--release", "-p", "fdtrace"]))?;
    Ok(crate::repo::target_dir().join("release/fdtrace"))
}
