//! What a trace that runs for months has beside its reports: somebody who looks after it.

use std::{future::pending, time::Duration};

use tokio::sync::{mpsc::Receiver, oneshot};

use super::{Stop, trace::Trace};
use crate::{
    model::{Filter, Snapshot},
    output::Sink,
};

/// What may be asked of a trace while it runs.
#[derive(Debug)]
pub enum Ask {
    /// How it stands.
    Snapshot(oneshot::Sender<Box<Snapshot>>),
    /// To report other failures, or at another pace.
    Change {
        /// Which failures.
        filter: Filter,
        /// The time between two reports of an episode that lasts.
        interval: Duration,
    },
}

/// Whoever looks after a trace. All of it happens between two records: it must not take long.
pub trait Attendant {
    /// Everything from here on is counted, and no thread was started yet. Nothing observes the facts of
    /// the probes in `down`.
    fn attached(&mut self, down: &[&'static str], needs: &Needs<'_>) -> anyhow::Result<()>;
    /// About once a second, as long as the trace is not stuck.
    fn ticked(&mut self, down: &[&'static str]);
    /// The end has begun.
    fn stopping(&mut self);
}

/// What a trace that is attached goes on needing.
pub struct Needs<'a> {
    /// To attach the packet program, time after time.
    pub packets: bool,
    /// Says whether the kernel lets maps be used.
    pub may_use_maps: &'a dyn Fn() -> bool,
}

/// An attendant, and what it asks.
pub struct Attended<'a> {
    /// Who.
    pub attendant: &'a mut dyn Attendant,
    /// What.
    pub asks: Receiver<Ask>,
    /// How many series of failures a snapshot tells apart.
    pub most_series: usize,
}

impl Attended<'_> {
    pub(super) fn attached(&mut self, trace: &mut Trace) -> anyhow::Result<()> {
        trace.tally(self.most_series);
        let kernel = &trace.host.kernel;
        let needs =
            Needs { packets: kernel.looks_at_packets(), may_use_maps: &|| kernel.may_use_maps() };
        self.attendant.attached(&trace.down(), &needs)
    }
}

/// The next question; never where nobody can ask.
pub(super) async fn next(attended: Option<&mut Attended<'_>>) -> Ask {
    if let Some(attended) = attended
        && let Some(ask) = attended.asks.recv().await
    {
        return ask;
    }
    pending().await
}

pub(super) fn answer(ask: Ask, trace: &mut Trace, sink: &mut dyn Sink) -> Result<(), Stop> {
    match ask {
        Ask::Snapshot(answer) => {
            // Whoever asked may have given up.
            let _ = answer.send(Box::new(trace.snapshot(sink)?));
        }
        Ask::Change { filter, interval } => trace.change(filter, interval),
    }
    Ok(())
}
