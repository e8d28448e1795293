//! `cargo xtask bench`: what fdtrace costs, beside what nothing, empty programs and other tools cost,
//! in one run. Samples of one workload are taken in turn, so that what the machine does meanwhile
//! meets all alike; ratios are of one turn. docs/overhead.md is written by it.

pub(crate) mod attachment;
mod bpf;
pub(crate) mod empty;
pub(crate) mod guest;
mod idle;
mod peers;
mod programs;
mod report;
mod sample;
mod statistics;
pub(crate) mod vm;
pub(crate) mod work;
mod wrk;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    proc::{heading, is_root},
    repo,
};
use attachment::{Attachment, build_fdtrace};
use report::{Report, machines};
use sample::Bench;
use work::Work;

/// By root, on a machine that does nothing else.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often each sample is taken
    #[arg(long, default_value_t = 9)]
    turns: u32,
    /// How long a workload runs for a sample, in milliseconds
    #[arg(long, default_value_t = 700)]
    milliseconds: u64,
    /// Only these workloads
    #[arg(long, value_enum)]
    only: Vec<Work>,
    /// This fdtrace, not one that is built first
    #[arg(long)]
    fdtrace: Option<PathBuf>,
    /// What is left out
    #[arg(long, value_enum)]
    without: Vec<Part>,
    /// Write docs/overhead.md
    #[arg(long)]
    write: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Empty programs. They are at tracepoints, and say nothing where fdtrace has better forms
    Empty,
    /// Other tools
    Peers,
    /// What is asked of fdtrace alone: idle, start, latency, nginx
    Alone,
}

/// Those in which packets come.
const WITH_PACKETS: [Work; 4] = [Work::Accept, Work::Traffic, Work::Connections, Work::Flood];
const COMPARED: [Work; 7] = [
    Work::Getppid,
    Work::Accept,
    Work::Refused,
    Work::RefusedTwice,
    Work::Traffic,
    Work::Connections,
    Work::Flood,
];

pub(crate) fn run(args: &Args) -> Result<()> {
    if !is_root()? {
        bail!("this needs root: run it as root");
    }
    let fdtrace = args.fdtrace.clone().map_or_else(build_fdtrace, Ok)?;
    let bench = Bench {
        fdtrace: &fdtrace,
        turns: args.turns,
        time: Duration::from_millis(args.milliseconds),
    };
    let without = |part| args.without.contains(&part);
    let mut report = Report::new(args.turns, bench.time)?;
    for work in COMPARED {
        if !args.only.is_empty() && !args.only.contains(&work) {
            continue;
        }
        heading(work.unit());
        let mut attachments = vec![Attachment::Nothing, Attachment::Empty, Attachment::Fdtrace];
        attachments
            .retain(|attachment| !without(Part::Empty) || !matches!(attachment, Attachment::Empty));
        if WITH_PACKETS.contains(&work) {
            attachments.push(Attachment::FdtraceAlways);
        }
        if !without(Part::Peers) {
            let peers = peers::beside(work).iter().filter(|peer| peer.is_here());
            attachments.extend(peers.map(Attachment::Peer));
        }
        report.add_work(bench.compare(work, &attachments)?);
    }
    report.missing = peers::all().filter(|peer| !peer.is_here()).map(|peer| peer.name).collect();
    if !without(Part::Alone) {
        heading("fdtrace alone");
        report.nginx = wrk::run(&bench)?;
        report.alone = Some(idle::measure(&bench)?);
    }
    print!("{}", report.markdown());
    save(&report, args.write)
}

fn save(report: &Report, write_docs: bool) -> Result<()> {
    let directory = repo::target_dir().join("bench");
    fs::create_dir_all(&directory)?;
    let json = directory.join("overhead.json");
    write(&json, &format!("{}\n", serde_json::to_string_pretty(report)?))?;
    if write_docs {
        let path = repo::root().join("docs/overhead.md");
        let mut page = report.markdown();
        // What `bench-vm` wrote stays.
        let before = fs::read_to_string(&path).unwrap_or_default();
        if let Some(section) = machines::kept(&before) {
            page = machines::put(&page, section);
        }
        write(&path, &page)?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    println!("wrote {}", path.display());
    Ok(())
}
