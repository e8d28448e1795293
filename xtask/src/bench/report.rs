//! The report, as JSON and as docs/overhead.md.

mod budgets;
pub(super) mod machines;
mod missed;

use std::{
    fmt::{self, Write as _},
    fs,
    process::Command,
    time::Duration,
};

use anyhow::Result;
use serde::Serialize;

use super::{
    attachment::Attachment,
    idle::Alone,
    sample::{Compared, Row},
    work::Work,
    wrk::Nginx,
};
use crate::proc::output;

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    date: String,
    machine: String,
    kernel: String,
    cpus: usize,
    commit: String,
    turns: u32,
    milliseconds: u128,
    compared: Vec<Compared>,
    pub(crate) nginx: Option<Nginx>,
    pub(crate) alone: Option<Alone>,
    /// Tools that are not installed here.
    pub(crate) missing: Vec<&'static str>,
}

/// Today, as a page has it.
pub(super) fn date() -> Result<String> {
    said(Command::new("date").args(["-u", "+%Y-%m-%d"]))
}

/// What of the project is measured.
pub(super) fn commit() -> String {
    said(Command::new("git").args(["describe", "--always", "--dirty"]))
        .unwrap_or_else(|_| "unknown".to_owned())
}

fn said(command: &mut Command) -> Result<String> {
    Ok(output(command)?.trim().to_owned())
}

impl Report {
    pub(crate) fn new(turns: u32, time: Duration) -> Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model =
            cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
        Ok(Self {
            date: date()?,
            machine: model.unwrap_or("unknown").to_owned(),
            kernel: said(Command::new("uname").args(["-s", "-r", "-m"]))?,
            cpus: std::thread::available_parallelism()?.get(),
            commit: commit(),
            turns,
            milliseconds: time.as_millis(),
            compared: Vec::new(),
            nginx: None,
            alone: None,
            missing: Vec::new(),
        })
    }

    pub(crate) fn add_work(&mut self, compared: Compared) {
        self.compared.push(compared);
    }

    fn work(&self, work: Work) -> Option<&Compared> {
        self.compared.iter().find(|compared| compared.work == work)
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, to: &mut String) -> fmt::Result {
        self.write_head(to)?;
        let budgets = budgets::of(self);
        budgets::write(&budgets, to)?;
        missed::write(self, &budgets, to)?;
        for compared in &self.compared {
            write_work(compared, to)?;
        }
        self.write_nginx(to)?;
        self.write_alone(to)?;
        Ok(())
    }

    fn write_head(&self, to: &mut String) -> fmt::Result {
        let Self { date, machine, kernel, cpus, commit, turns, milliseconds, alone, .. } = self;
        writeln!(
            to,
            "# What fdtrace costs\n\n\
             Measured on {date} at {commit}: {machine}, {cpus} CPUs, {kernel}."
        )?;
        if let Some(alone) = alone {
            writeln!(to, "Forms of the probes there: {}.", alone.form)?;
        }
        writeln!(
            to,
            "\n`cargo xtask bench --write` measures it again, on any machine, and writes this page. \
             Medians of {turns} samples of {milliseconds} ms, in brackets the middle half; ratios are \
             of samples taken one after the other. \"Empty programs\" do nothing at the same attach \
             points: what the kernel charges for a program there, whoever wrote it."
        )
    }

    fn write_nginx(&self, to: &mut String) -> fmt::Result {
        let Some(Nginx { nothing, empty, fdtrace }) = &self.nginx else { return Ok(()) };
        writeln!(
            to,
            "\n## nginx, requests by wrk\n\n\
             | attached | requests in a second |\n| --- | --- |\n\
             | nothing | {:.0} |\n\
             | empty programs | × {:.3} ({:.3} to {:.3}) |\n\
             | fdtrace | × {:.3} ({:.3} to {:.3}) |",
            nothing.median,
            empty.median,
            empty.low,
            empty.high,
            fdtrace.median,
            fdtrace.low,
            fdtrace.high,
        )
    }

    fn write_alone(&self, to: &mut String) -> fmt::Result {
        let Some(Alone { idle, start_ms, binary_bytes, latency, .. }) = &self.alone else {
            return Ok(());
        };
        #[expect(clippy::cast_precision_loss, reason = "a few MiB")]
        let (rss, highest, binary) = (
            idle.rss_kib as f64 / 1024.0,
            idle.highest_rss_kib as f64 / 1024.0,
            *binary_bytes as f64 / 1_048_576.0,
        );
        writeln!(
            to,
            "\n## fdtrace alone\n\n\
             | what | measured |\n| --- | --- |\n\
             | CPU on an idle host | {:.3} % of one |\n\
             | wakeups on an idle host | {:.2} a second |\n\
             | resident memory | {rss:.1} MiB, at most {highest:.1} MiB |\n\
             | from exec to attached | {:.0} ms ({:.0} to {:.0}) |\n\
             | binary | {binary:.1} MiB |\n\
             | from the failing call's return to the line on stdout | {:.2} ms, p99 {:.2} ms, of {} |",
            idle.cpu_percent,
            idle.wakeups_per_second,
            start_ms.median,
            start_ms.low,
            start_ms.high,
            latency.p50_ms,
            latency.p99_ms,
            latency.failures,
        )
    }
}

fn write_work(compared: &Compared, to: &mut String) -> fmt::Result {
    // Only failures are there to be told of; the limit of refused SYNs is that of the queue.
    let fails = matches!(compared.work, Work::Refused | Work::RefusedTwice | Work::Flood);
    writeln!(to, "\n## {}\n", capital(compared.work.unit()))?;
    write!(to, "| attached | ns | to nothing | to empty programs |")?;
    writeln!(to, "{}", if fails { " told of | process | port | limit |" } else { "" })?;
    writeln!(
        to,
        "| --- | --- | --- | --- |{}",
        if fails { " --- | --- | --- | --- |" } else { "" }
    )?;
    for row in &compared.rows {
        write!(
            to,
            "| {} | {:.0} | {:.3} ({:.3} to {:.3}) |",
            row.attached,
            row.each_ns.median,
            row.to_nothing.median,
            row.to_nothing.low,
            row.to_nothing.high
        )?;
        match row.to_empty.filter(|_| row.attached != Attachment::Nothing.name()) {
            Some(to_empty) => {
                write!(
                    to,
                    " {:.3} ({:.3} to {:.3}) |",
                    to_empty.median, to_empty.low, to_empty.high
                )?;
            }
            None => write!(to, " |")?,
        }
        if fails {
            write!(to, " {}", told(row))?;
        }
        writeln!(to)?;
    }
    Ok(())
}

/// What the operator learns of the failures.
fn told(row: &Row) -> String {
    let tells = match row.attachment {
        Attachment::Nothing | Attachment::Empty => return "| | | |".to_owned(),
        Attachment::Fdtrace | Attachment::FdtraceAlways => [true; 3],
        Attachment::Peer(peer) => [peer.tells.process, peer.tells.port, peer.tells.limit],
    };
    let count = match row.seen {
        Some(seen) if seen == row.operations => "all".to_owned(),
        Some(seen) => format!("{seen} of {}", row.operations),
        None => "unknown".to_owned(),
    };
    let [process, port, limit] = tells.map(|tells| if tells { "yes" } else { "no" });
    format!("{count} | {process} | {port} | {limit} |")
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
