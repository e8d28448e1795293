//! The only file that wires stages: kernel → decode → enrich → aggregate → output.
//!
//! One task, one thread: a record is handled to the end before the next one is looked at, and
//! nothing wakes up while there is nothing to count.

use std::{
    collections::BTreeMap,
    io,
    os::fd::OwnedFd,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use fdtrace_common::{Counter, Lost};
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use crate::{
    aggregate::{Aggregator, Host, Settings, SlotCount},
    decode,
    enrich::Processes,
    kernel::{Kernel, Options},
    model::{
        BootTime, FailureEvent, FdLimits, FdUsage, Filter, LostCount, LostKind, LostReport,
        ProbeReport, ProcessId, Report, Started, Summary, WallClock,
    },
    output::Sink,
};

/// How often counts are read while failures are being counted.
const TICK: Duration = Duration::from_secs(1);

/// Boot times become dates by one reading of both clocks, so that the same boot time is always the
/// same date. The reading is replaced when the wall clock was set by more than this.
const CLOCK_DRIFT: Duration = Duration::from_millis(50);

/// What to trace and how.
#[derive(Debug)]
pub struct Config {
    /// How to load the programs.
    pub kernel: Options,
    /// Which failures.
    pub filter: Filter,
    /// The time between two reports of an episode that lasts.
    pub interval: Duration,
    /// When to stop by itself.
    pub duration: Option<Duration>,
    /// The descriptor reports are written to, where its reader can go away: a run with nothing to
    /// write would not notice.
    pub output: Option<OwnedFd>,
}

/// How a trace ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As asked.
    Done {
        /// Some failure that the user asked for said that something ran out.
        exhaustion: bool,
    },
    /// Nobody reads the output any more.
    OutputClosed,
}

/// Traces until a signal, the end of the duration, or a closed output.
pub async fn trace(config: Config, sink: &mut dyn Sink) -> anyhow::Result<End> {
    match run(config, sink).await {
        Ok(exhaustion) => Ok(End::Done { exhaustion }),
        Err(Stop::OutputClosed) => Ok(End::OutputClosed),
        Err(Stop::Failed(error)) => Err(error),
    }
}

async fn run(mut config: Config, sink: &mut dyn Sink) -> Result<bool, Stop> {
    // Before attaching, so that a signal never meets the default action.
    let mut interrupt = signal(SignalKind::interrupt()).context("handle SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("handle SIGTERM")?;

    let kernel = Kernel::attach(&config.kernel)?;
    let output = config.output.take().and_then(watch);
    let deadline = config.duration.map(|duration| Instant::now() + duration);
    let mut trace = Trace::new(config, kernel);
    trace.start(sink)?;

    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            ready = trace.host.kernel.wait() => {
                ready.context("wait for records")?;
                trace.drain(sink)?;
            }
            _ = tick.tick(), if !trace.aggregator.is_idle() => trace.tick(sink)?,
            () = closed(output.as_ref()), if output.is_some() => return Err(Stop::OutputClosed),
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => break,
        }
    }
    trace.finish(sink)
}

/// A pipe or a socket can be watched; a file cannot, and does not go away.
fn watch(output: OwnedFd) -> Option<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is one descriptor for life.
    unsafe { AsyncFd::register_with_interest(output, Interest::ERROR) }.ok()
}

/// Waits until nobody can read the output any more.
async fn closed(output: Option<&AsyncFd<OwnedFd>>) {
    if let Some(output) = output {
        // Only an error ends it: of a pipe that its last reader has closed (poll(2), POLLERR).
        let _ = output.ready(Interest::ERROR).await;
    }
}

/// Why a trace ends early.
enum Stop {
    OutputClosed,
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// Of outputs: nothing else here gives a bare `io::Error`.
impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::OutputClosed;
        }
        Self::Failed(anyhow::Error::new(error).context("cannot write the output"))
    }
}

/// What the aggregator asks: the kernel for counts, /proc for processes.
struct Live {
    kernel: Kernel,
    processes: Processes,
}

impl Host for Live {
    fn fds(&self, process: ProcessId, known: Option<FdLimits>) -> FdUsage {
        self.processes.fd_usage(process, known)
    }

    fn open_below(&self, process: ProcessId, limit: u64) -> Option<u64> {
        self.processes.open_below(process, limit)
    }

    fn is_alive(&self, process: ProcessId) -> bool {
        self.processes.is_alive(process)
    }

    fn count(&self, slot: u32) -> SlotCount {
        slot_count(self.kernel.count(slot))
    }
}

struct Trace {
    host: Live,
    aggregator: Aggregator,
    started: BootTime,
    /// Losses that were reported.
    lost: BTreeMap<&'static str, u64>,
    undecoded: u64,
    clock: WallClock,
}

impl Trace {
    fn new(config: Config, kernel: Kernel) -> Self {
        let Config { filter, interval, .. } = config;
        let processes = Processes::new(PathBuf::from("/proc"));
        Self {
            host: Live { kernel, processes },
            aggregator: Aggregator::new(Settings { filter, interval }),
            started: boot_time(),
            lost: BTreeMap::new(),
            undecoded: 0,
            clock: read_clocks(),
        }
    }

    fn start(&mut self, sink: &mut dyn Sink) -> Result<(), Stop> {
        let started = Started {
            at: self.started,
            version: env!("CARGO_PKG_VERSION"),
            kernel: kernel_release(),
            probes: probes(),
        };
        self.write(sink, &Report::Started(started))
    }

    /// Takes every waiting record.
    fn drain(&mut self, sink: &mut dyn Sink) -> Result<(), Stop> {
        let mut records = Vec::new();
        self.host.kernel.drain(|bytes| records.push(decode::failure(bytes)));
        for record in records {
            self.take(record, sink)?;
        }
        Ok(())
    }

    fn take(
        &mut self,
        record: Result<FailureEvent, decode::DecodeError>,
        sink: &mut dyn Sink,
    ) -> Result<(), Stop> {
        let event = match record {
            Ok(event) => event,
            Err(error) => {
                log::warn!("a record of the eBPF side cannot be decoded: {error}");
                self.undecoded += 1;
                return Ok(());
            }
        };
        let Self { host, aggregator, .. } = self;
        let described = host.processes.describe(event.process, &event.comm);
        match aggregator.record(boot_time(), &event, host, |_| described) {
            Some(report) => self.write(sink, &report),
            None => Ok(()),
        }
    }

    /// Takes counts, gives slots back, reports what is due and what was lost.
    fn tick(&mut self, sink: &mut dyn Sink) -> Result<(), Stop> {
        if self.grew(Counter::RingFull) {
            self.take_undelivered(sink)?;
        }
        let now = boot_time();
        for report in self.aggregator.tick(now, &self.host) {
            self.write(sink, &report)?;
        }
        for slot in self.aggregator.retire(now, &self.host) {
            self.host.kernel.retire(slot)?;
        }
        let recyclable = self.aggregator.recyclable(now);
        if !recyclable.is_empty() {
            // A record of the slot's old key must not be read after its new key's.
            self.drain(sink)?;
        }
        for slot in recyclable {
            let count = slot_count(self.host.kernel.recycle(slot)?);
            if let Some(report) = self.aggregator.recycled(now, slot, count, &self.host) {
                self.write(sink, &report)?;
            }
        }
        self.report_lost(sink)
    }

    /// Everything that is still to be said.
    fn finish(&mut self, sink: &mut dyn Sink) -> Result<bool, Stop> {
        self.drain(sink)?;
        self.take_undelivered(sink)?;
        let now = boot_time();
        for report in self.aggregator.finish(now, &self.host) {
            self.write(sink, &report)?;
        }
        self.report_lost(sink)?;
        let summary = Summary {
            started: self.started,
            at: now,
            totals: self.aggregator.totals(),
            lost: self.losses(),
            probes: probes(),
        };
        let exhaustion = summary.totals.iter().any(|total| total.errno.is_exhaustion());
        self.write(sink, &Report::Summary(summary))?;
        Ok(exhaustion)
    }

    /// Keys whose every record met a full ring buffer.
    fn take_undelivered(&mut self, sink: &mut dyn Sink) -> Result<(), Stop> {
        for slot in 0..self.host.kernel.slot_count() {
            if self.aggregator.knows(slot) {
                continue;
            }
            if let Some(bytes) = self.host.kernel.first_record(slot) {
                self.take(decode::failure(&bytes), sink)?;
            }
        }
        Ok(())
    }

    fn grew(&self, counter: Counter) -> bool {
        let before = self.lost.get(counter.name()).copied().unwrap_or(0);
        self.host.kernel.counter(counter) > before
    }

    fn losses(&self) -> Vec<LostCount> {
        let counters = Counter::ALL.iter().map(|counter| LostCount {
            reason: counter.name(),
            kind: match counter.lost() {
                Lost::Failures => LostKind::Failures,
                Lost::Notices => LostKind::Notices,
                Lost::Attribution => LostKind::Attribution,
            },
            count: Some(self.host.kernel.counter(*counter)),
        });
        let ours = [
            ("program_skipped", LostKind::Calls, self.host.kernel.skipped_runs()),
            ("record_undecoded", LostKind::Notices, Some(self.undecoded)),
            ("totals_full", LostKind::Attribution, Some(self.aggregator.folded())),
        ];
        let ours = ours.into_iter().map(|(reason, kind, count)| LostCount { reason, kind, count });
        counters.chain(ours).collect()
    }

    fn write(&mut self, sink: &mut dyn Sink, report: &Report) -> Result<(), Stop> {
        let now = read_clocks();
        let expected = self.clock.date(now.boot);
        let drift = now.wall.duration_since(expected).unwrap_or_else(|early| early.duration());
        if drift > CLOCK_DRIFT {
            self.clock = now;
        }
        Ok(sink.write(report, &self.clock)?)
    }

    fn report_lost(&mut self, sink: &mut dyn Sink) -> Result<(), Stop> {
        let mut lost = self.losses();
        lost.retain(|loss| {
            let before = self.lost.get(loss.reason).copied().unwrap_or(0);
            loss.count.is_some_and(|count| count > before)
        });
        if lost.is_empty() {
            return Ok(());
        }
        self.lost.extend(lost.iter().filter_map(|loss| Some((loss.reason, loss.count?))));
        self.write(sink, &Report::Lost(LostReport { at: boot_time(), lost }))
    }
}

fn read_clocks() -> WallClock {
    WallClock { boot: boot_time(), wall: SystemTime::now() }
}

fn probes() -> Vec<ProbeReport> {
    Kernel::probes().map(|(probe, form)| ProbeReport { probe, form }).collect()
}

fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".to_owned(), |release| release.trim().to_owned())
}

fn slot_count(count: crate::kernel::Count) -> SlotCount {
    SlotCount { total: count.total, last: BootTime::from_nanos(count.last_boot_ns) }
}

fn boot_time() -> BootTime {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the result; every kernel with BTF has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    BootTime(Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0)))
}
