//! What is asked of a trace while it goes on.

use std::{path::Path, time::Duration};

use super::Trace;
use crate::{
    enrich::{boot_time, own_usage},
    model::{Filter, Snapshot},
    output::Sink,
    pipeline::{Stop, host::PROC, reconcile::sum},
};

impl Trace {
    /// How everything stands now, to the last failure.
    pub(in crate::pipeline) fn snapshot(&mut self, sink: &mut dyn Sink) -> Result<Snapshot, Stop> {
        self.drain(sink)?;
        if !self.aggregator.is_idle() {
            self.take_counts(sink)?;
        }
        let now = boot_time();
        let mut episodes = self.aggregator.open_episodes();
        for episode in &mut episodes {
            episode.cause = self.investigations.cause_of(episode);
        }
        let kernel = &self.host.kernel;
        let programs = kernel.is_measured().then(|| kernel.costs());
        Ok(Snapshot {
            started: self.clock.date(self.started),
            version: env!("CARGO_PKG_VERSION"),
            failures: self.aggregator.tallied(now),
            episodes,
            opened: self.aggregator.opened(),
            close: self.watch.close(&mut self.host),
            lost: self.losses(),
            undecoded: self.undecoded,
            kernel: sum(&self.host, &self.aggregator),
            probes: self.probes(),
            programs,
            own: own_usage(Path::new(PROC)),
        })
    }

    /// Keeps figures for [`Self::snapshot`].
    pub(in crate::pipeline) fn tally(&mut self, most_series: usize) {
        self.aggregator.tally(most_series);
    }

    /// Reports other failures, or at another pace, from here on.
    pub(in crate::pipeline) fn change(&mut self, filter: Filter, interval: Duration) {
        self.aggregator.set_filter(filter.clone());
        self.aggregator.set_interval(interval);
        self.watch.set_filter(filter, &mut self.host);
    }
}
