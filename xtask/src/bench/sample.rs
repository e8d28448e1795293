//! Taking samples.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use super::{
    attachment::{Attachment, Tool},
    statistics::Spread,
    work::{Done, Work},
};

pub(crate) struct Bench<'a> {
    pub(crate) fdtrace: &'a Path,
    pub(crate) turns: u32,
    pub(crate) time: Duration,
}

/// A workload under each attachment.
#[derive(Debug, Serialize)]
pub(crate) struct Compared {
    pub(crate) work: Work,
    pub(crate) rows: Vec<Row>,
    /// Tools that did not run beside it, and why.
    pub(crate) failed: Vec<(&'static str, String)>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) attached: &'static str,
    /// Nanoseconds for one operation.
    pub(crate) each_ns: Spread,
    /// To what the same took in the same turn with nothing attached.
    pub(crate) to_nothing: Spread,
    /// The same to empty programs.
    pub(crate) to_empty: Option<Spread>,
    /// Operations in all turns.
    pub(crate) operations: u64,
    /// How many of them the tool told of, where it counts them.
    pub(crate) seen: Option<u64>,
    #[serde(skip)]
    pub(crate) attachment: Attachment,
}

impl Compared {
    pub(crate) fn row(&self, attached: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.attached == attached)
    }
}

/// What one attachment gave in all turns.
struct Samples {
    attachment: Attachment,
    each_ns: Vec<f64>,
    operations: u64,
    seen: Option<u64>,
}

impl Bench<'_> {
    /// Takes a sample under each attachment in turn. One that cannot be had is left out, and said.
    pub(crate) fn compare(&self, work: Work, attachments: &[Attachment]) -> Result<Compared> {
        let mut all: Vec<_> = attachments
            .iter()
            .map(|&attachment| Samples {
                attachment,
                each_ns: Vec::new(),
                operations: 0,
                seen: Some(0),
            })
            .collect();
        // Once for nothing: caches are warm then, and who cannot run here is known.
        let mut failed = Vec::new();
        for attachment in attachments {
            match (self.sample(work, *attachment), attachment) {
                (Err(error), Attachment::Peer(peer)) => {
                    println!("  without {}: {error:#}", peer.name);
                    let why = peer.words(&format!("{error:#}"));
                    failed.push((peer.name, why));
                    all.retain(|samples| samples.attachment.name() != peer.name);
                }
                (result, _) => drop(result?),
            }
        }
        for turn in 0..self.turns {
            // Who comes first changes, so that nobody always follows the same.
            let first = turn as usize % all.len();
            for place in 0..all.len() {
                let index = (first + place) % all.len();
                let samples = &mut all[index];
                let (done, seen) = self.sample(work, samples.attachment)?;
                samples.each_ns.push(done.each_ns);
                samples.operations += done.operations;
                samples.seen = samples.seen.zip(seen).map(|(sum, seen)| sum + seen);
            }
        }
        let rows = rows(&all)?;
        for row in &rows {
            println!(
                "  {:<32} {:>10.0} ns  {:.3} ({:.3} to {:.3})",
                row.attached,
                row.each_ns.median,
                row.to_nothing.median,
                row.to_nothing.low,
                row.to_nothing.high
            );
        }
        Ok(Compared { work, rows, failed })
    }

    fn sample(&self, work: Work, attachment: Attachment) -> Result<(Done, Option<u64>)> {
        let worker = Worker::start(work, self.time)?;
        let pid = worker.pid();
        let tool = match attachment.start(self.fdtrace, pid) {
            Ok(tool) => tool,
            Err(error) => {
                worker.abandon();
                return Err(error);
            }
        };
        let done = worker.run()?;
        let output = tool.map(Tool::stop).transpose()?;
        Ok((done, output.and_then(|output| attachment.seen(pid, &output))))
    }
}

fn rows(all: &[Samples]) -> Result<Vec<Row>> {
    let of = |name: &str| all.iter().find(|samples| samples.attachment.name() == name);
    let nothing = of(Attachment::Nothing.name()).context("nothing is always measured")?;
    let empty = of(Attachment::Empty.name());
    let ratios = |samples: &Samples, to: &Samples| {
        let pairs = samples.each_ns.iter().zip(&to.each_ns);
        Spread::of(&pairs.map(|(a, b)| a / b).collect::<Vec<_>>())
    };
    all.iter()
        .map(|samples| {
            Ok(Row {
                attached: samples.attachment.name(),
                each_ns: Spread::of(&samples.each_ns).context("no samples")?,
                to_nothing: ratios(samples, nothing).context("no samples")?,
                to_empty: empty.and_then(|empty| ratios(samples, empty)),
                operations: samples.operations,
                seen: samples.seen,
                attachment: samples.attachment,
            })
        })
        .collect()
}

/// A process that works: see `work`.
pub(crate) struct Worker {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    pid: u32,
}

impl Worker {
    /// Starts it, and waits until it has prepared everything.
    pub(crate) fn start(work: Work, time: Duration) -> Result<Self> {
        let name = clap::ValueEnum::to_possible_value(&work).context("every work has a name")?;
        let mut child = Command::new(std::env::current_exe()?)
            .args(["bench-work", name.get_name(), &time.as_millis().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the workload")?;
        let stdin = child.stdin.take().context("stdin is piped")?;
        let mut stdout = BufReader::new(child.stdout.take().context("stdout is piped")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let pid = line.trim().strip_prefix("ready ").and_then(|pid| pid.parse().ok());
        let Some(pid) = pid else {
            bail!("the workload is not ready: {line:?} {:?}", child.wait())
        };
        Ok(Self { child, stdin, stdout, pid })
    }

    pub(crate) const fn pid(&self) -> u32 {
        self.pid
    }

    /// Ends it before it has worked.
    fn abandon(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Lets it work, and returns what it did.
    pub(crate) fn run(mut self) -> Result<Done> {
        writeln!(self.stdin, "go")?;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        let status = self.child.wait()?;
        serde_json::from_str(&line).with_context(|| format!("the workload ended ({status})"))
    }
}
