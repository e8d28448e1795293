//! The only file that wires stages: kernel → decode → enrich → aggregate → output.
//!
//! One task, one thread: a record is handled to the end before the next one is looked at. Besides
//! records, only a tick a second wakes it up.

mod attend;
mod descriptors;
mod follow;
mod host;
mod investigate;
mod on_demand;
mod polled;
mod reconcile;
mod tick;
mod told;
mod trace;
mod watch;

use std::{io, os::fd::OwnedFd, time::Duration};

use anyhow::Context as _;
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep_until},
};

pub use self::{
    attend::{Ask, Attendant, Attended, Needs},
    descriptors::descriptors,
};
use self::{tick::Ticks, trace::Trace};
use crate::{
    kernel::Options,
    model::{Filter, Thresholds},
    output::Sink,
};

/// How often counts are read, and namespaces looked for.
const TICK: Duration = Duration::from_secs(1);

/// What to trace and how.
#[derive(Debug)]
pub struct Config {
    /// How to load the programs.
    pub kernel: Options,
    /// Which failures.
    pub filter: Filter,
    /// The time between two reports of an episode that lasts.
    pub interval: Duration,
    /// At which shares of a limit to warn.
    pub thresholds: Thresholds,
    /// After how long a time without anything to see the packet program is detached until there may
    /// be something; `None` is never.
    pub packets_rest: Option<Duration>,
    /// How many lines of the totals are kept, at some 3 KiB each; the oldest become one number.
    pub most_lines: usize,
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
    end(run(config, sink, None).await)
}

/// The same, looked after: somebody is told how it goes, and may ask.
pub async fn attend(
    config: Config,
    sink: &mut dyn Sink,
    attended: Attended<'_>,
) -> anyhow::Result<End> {
    end(run(config, sink, Some(attended)).await)
}

fn end(result: Result<bool, Stop>) -> anyhow::Result<End> {
    match result {
        Ok(exhaustion) => Ok(End::Done { exhaustion }),
        Err(Stop::OutputClosed) => Ok(End::OutputClosed),
        Err(Stop::Failed(error)) => Err(error),
    }
}

async fn run(
    mut config: Config,
    sink: &mut dyn Sink,
    mut attended: Option<Attended<'_>>,
) -> Result<bool, Stop> {
    // Before attaching, so that a signal never meets the default action.
    let mut interrupt = signal(SignalKind::interrupt()).context("handle SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("handle SIGTERM")?;

    let output = config.output.take().and_then(watch);
    let duration = config.duration;
    let mut trace = Trace::new(config)?;
    let deadline = duration.map(|duration| Instant::now() + duration);
    // Before anything is written: an output may start a thread.
    if let Some(attended) = &mut attended {
        attended.attached(&mut trace)?;
    }
    trace.start(sink)?;

    let mut ticks = Ticks::every(TICK).context("make a timer")?;
    loop {
        let host = &mut trace.host;
        tokio::select! {
            ready = host.kernel.wait() => {
                ready.context("wait for records")?;
                trace.drain(sink)?;
            }
            () = host.owners.scanned() => trace.take_owners(sink)?,
            found = trace.investigations.next() => trace.diagnose(found, sink)?,
            tick = ticks.next() => {
                tick.context("wait for the timer")?;
                trace.tick(sink)?;
                if let Some(attended) = &mut attended {
                    attended.attendant.ticked(&trace.down());
                }
            }
            ask = attend::next(attended.as_mut()) => attend::answer(ask, &mut trace, sink)?,
            () = closed(output.as_ref()), if output.is_some() => return Err(Stop::OutputClosed),
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => break,
        }
    }
    if let Some(attended) = &mut attended {
        attended.attendant.stopping();
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
