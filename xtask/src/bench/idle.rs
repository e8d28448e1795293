//! What only fdtrace can be asked: what it takes when nothing happens, how long it needs to start,
//! and how soon it tells.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;
use serde_json::Value;

use super::{
    attachment::fdtrace,
    sample::{Bench, Worker},
    statistics::{Spread, quantile},
    work::Work,
};

const IDLE: Duration = Duration::from_secs(20);
const STARTS: usize = 15;
const FAILURES: Duration = Duration::from_secs(4);

#[derive(Debug, Serialize)]
pub(crate) struct Alone {
    pub(crate) idle: Idle,
    /// From exec to all programs attached, in milliseconds.
    pub(crate) start_ms: Spread,
    pub(crate) binary_bytes: u64,
    pub(crate) latency: Latency,
    /// The forms of its probes.
    pub(crate) form: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Idle {
    /// Of one CPU, in percent.
    pub(crate) cpu_percent: f64,
    pub(crate) wakeups_per_second: f64,
    pub(crate) rss_kib: u64,
    pub(crate) highest_rss_kib: u64,
}

/// From the return of the failing call to the line on stdout, in milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) failures: usize,
}

pub(crate) fn measure(bench: &Bench<'_>) -> Result<Alone> {
    let (idle, form) = idle(bench)?;
    println!("  {idle:?}");
    let start_ms = start(bench)?;
    println!("  start {:.0} ms ({:.0} to {:.0})", start_ms.median, start_ms.low, start_ms.high);
    let latency = latency(bench)?;
    println!("  {latency:?}");
    let binary_bytes = fs::metadata(bench.fdtrace)?.len();
    Ok(Alone { idle, start_ms, binary_bytes, latency, form })
}

fn idle(bench: &Bench<'_>) -> Result<(Idle, String)> {
    let tool = fdtrace(bench.fdtrace)?;
    // What is done once after the start is not idling.
    thread::sleep(Duration::from_secs(3));
    let (before, start) = (Usage::of(tool.pid())?, Instant::now());
    thread::sleep(IDLE);
    let (after, seconds) = (Usage::of(tool.pid())?, start.elapsed().as_secs_f64());
    let status = fs::read_to_string(format!("/proc/{}/status", tool.pid()))?;
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).context("no memory")
    };
    let idle = Idle {
        cpu_percent: (after.cpu_seconds - before.cpu_seconds) / seconds * 100.0,
        wakeups_per_second: (after.switches - before.switches) / seconds,
        rss_kib: kib("VmRSS")?,
        highest_rss_kib: kib("VmHWM")?,
    };
    let output = tool.stop()?;
    let started = output.lines().find(|line| line.contains("\"kind\":\"started\""));
    let started: Value = serde_json::from_str(started.context("it started")?)?;
    let forms = started["probes"].as_array().context("it has probes")?.iter();
    let mut forms: Vec<_> = forms.filter_map(|probe| probe["form"].as_str()).collect();
    forms.dedup();
    Ok((idle, forms.join(", ")))
}

/// Of all threads of a process.
struct Usage {
    cpu_seconds: f64,
    /// How often one of them went to sleep: each time something had woken it.
    switches: f64,
}

impl Usage {
    fn of(pid: u32) -> Result<Self> {
        let mut usage = Self { cpu_seconds: 0.0, switches: 0.0 };
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?.path();
            // Nanoseconds on a CPU come first; utime and stime are of clock ticks.
            let schedstat = fs::read_to_string(task.join("schedstat"))?;
            let nanoseconds: f64 = schedstat
                .split(' ')
                .next()
                .and_then(|word| word.parse().ok())
                .context("schedstat")?;
            usage.cpu_seconds += nanoseconds / 1e9;
            let status = fs::read_to_string(task.join("status"))?;
            let switches =
                status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            usage.switches +=
                switches.and_then(|number| number.trim().parse::<f64>().ok()).context("status")?;
        }
        Ok(usage)
    }
}

fn start(bench: &Bench<'_>) -> Result<Spread> {
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let tool = fdtrace(bench.fdtrace)?;
        times.push(tool.start.as_secs_f64() * 1e3);
        tool.stop()?;
    }
    Spread::of(&times).context("no starts")
}

fn latency(bench: &Bench<'_>) -> Result<Latency> {
    let mut tool = fdtrace(bench.fdtrace)?;
    let worker = Worker::start(Work::Latency, FAILURES)?;
    let pid = worker.pid();
    // Both clocks are the monotonic one; std does not give its number.
    let (here, now) = (Instant::now(), clock_gettime(ClockId::CLOCK_MONOTONIC)?);
    let now = Duration::from(now);
    let done = worker.run()?;
    thread::sleep(Duration::from_millis(200));
    let mut told = Vec::new();
    for (at, line) in tool.take_lines() {
        let Ok(report) = serde_json::from_str::<Value>(&line) else { continue };
        if report["kind"] == "episode_opened" && report["process"]["pid"] == pid {
            let port = report["listener"]["port"].as_u64().context("it has a port")?;
            told.push((port, now + at.saturating_duration_since(here)));
        }
    }
    tool.stop()?;
    let mut latencies = Vec::new();
    for (port, returned) in &done.moments {
        let (_, at) = told
            .iter()
            .find(|(told, _)| *told == u64::from(*port))
            .with_context(|| format!("the failure on port {port} was not told of"))?;
        latencies.push(at.saturating_sub(Duration::from_nanos(*returned)).as_secs_f64() * 1e3);
    }
    latencies.sort_by(f64::total_cmp);
    let at = |share| quantile(&latencies, share).context("no failures");
    Ok(Latency { p50_ms: at(0.5)?, p99_ms: at(0.99)?, failures: latencies.len() })
}
