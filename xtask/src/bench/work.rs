//! What is measured: each workload runs in a process of its own, says `ready`, waits for `go`, works
//! for the time it was given and says what it did. Nothing leaves the loopback device.

mod calls;
mod connections;
mod flood;

use std::{
    io::{self, BufRead as _, Write as _},
    process,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

/// How many operations are done between two looks at the clock.
const BATCH: u64 = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Work {
    /// A system call that has nothing to do with files or sockets
    Getppid,
    /// connect(2), accept4(2) and two close(2), by one thread over loopback
    Accept,
    /// accept4(2) that fails with EMFILE, as fast as one thread can call it
    Refused,
    /// The same by two threads on one listener
    RefusedTwice,
    /// A byte there and a byte back on an established connection
    Traffic,
    /// Connections made by one thread and accepted by another
    Connections,
    /// SYNs from addresses that nobody has, to a listener whose accept queue is full
    Flood,
    /// One EMFILE on each of many listeners, to be told of at once
    Latency,
}

impl Work {
    /// What one of its operations is.
    pub(crate) const fn unit(self) -> &'static str {
        match self {
            Self::Getppid => "getppid(2)",
            Self::Accept => "connect + accept4 + close",
            Self::Refused => "failed accept4(2)",
            Self::RefusedTwice => "failed accept4(2), two threads",
            Self::Traffic => "round trip of a byte",
            Self::Connections => "connection, two threads",
            Self::Flood => "SYN to a full listener",
            Self::Latency => "failure to its line on stdout",
        }
    }
}

#[derive(clap::Args)]
pub(crate) struct Args {
    work: Work,
    /// For how long, in milliseconds
    milliseconds: u64,
}

/// What a workload did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Done {
    /// How often it did what it does.
    pub(crate) operations: u64,
    /// Time of one operation, in nanoseconds.
    pub(crate) each_ns: f64,
    /// Of the latency workload: the port, and when the call had returned, of the monotonic clock in
    /// nanoseconds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) moments: Vec<(u16, u64)>,
}

impl Done {
    fn new(operations: u64, time: Duration, threads: u32) -> Self {
        let nanoseconds = time.as_secs_f64() * 1e9 * f64::from(threads);
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52 operations")]
        let each_ns = nanoseconds / operations.max(1) as f64;
        Self { operations, each_ns, moments: Vec::new() }
    }
}

/// The process that works: a verb of its own, not meant for people.
pub(crate) fn run(args: &Args) -> Result<()> {
    let time = Duration::from_millis(args.milliseconds);
    let done = match args.work {
        Work::Getppid => {
            ready()?;
            calls::getppid(time)
        }
        Work::Accept => connections::one_thread(time)?,
        Work::Refused => calls::refused(time, 1)?,
        Work::RefusedTwice => calls::refused(time, 2)?,
        Work::Traffic => connections::traffic(time)?,
        Work::Connections => connections::two_threads(time)?,
        Work::Flood => flood::flood(time)?,
        Work::Latency => calls::latency(time)?,
    };
    let mut stdout = io::stdout().lock();
    serde_json::to_writer(&mut stdout, &done)?;
    writeln!(stdout).context("say what was done")
}

/// Tells that everything is prepared, and waits for leave to begin.
fn ready() -> Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "ready {}", process::id())?;
    stdout.flush()?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    if line.trim() != "go" {
        bail!("expected go, got {:?}", line.trim());
    }
    Ok(())
}

/// Repeats until the time is over.
fn repeat(time: Duration, mut batch: impl FnMut() -> Result<u64>) -> Result<Done> {
    let start = Instant::now();
    let mut operations = 0;
    while start.elapsed() < time {
        operations += batch()?;
    }
    Ok(Done::new(operations, start.elapsed(), 1))
}
