//! What metrics and the comparison with the kernel's counters are made of.

use std::{collections::hash_map::Entry, time::Duration};

use super::{Aggregator, Refused};
use crate::{
    aggregate::{
        episode::Episode,
        subject::{Subject, SubjectId},
        tally::Tally,
    },
    model::{BootTime, Failure, Filter, OpenEpisode, SeriesCount},
};

/// So long may the failures of an unknown owner be missing in metrics.
const TALLY_PATIENCE: Duration = Duration::from_secs(5);

/// Network namespaces whose folded failures are remembered, by why.
const MOST_FOLDED: usize = 4096;

impl Aggregator {
    /// Keeps figures for metrics from here on: so many are told apart.
    pub fn tally(&mut self, most_series: usize) {
        self.tally = Some(Tally::new(most_series));
    }

    /// The failures the user asked for, by what metrics tell apart. Each figure only grows.
    pub fn tallied(&mut self, now: BootTime) -> Vec<SeriesCount> {
        self.hand_in(Some(now));
        self.tally.as_ref().map(Tally::counts).unwrap_or_default()
    }

    /// How many episodes were opened, by why, where metrics are kept.
    #[must_use]
    pub fn opened(&self) -> Vec<(Failure, u64)> {
        let opened = self.tally.iter().flat_map(|tally| &tally.opened);
        opened.map(|(failure, count)| (*failure, *count)).collect()
    }

    /// The episodes that are open, without their causes.
    #[must_use]
    pub fn open_episodes(&self) -> Vec<OpenEpisode> {
        self.episodes.values().map(Episode::to_open).collect()
    }

    /// Asks for other failures from here on. What was asked for so far stays in the metrics.
    pub fn set_filter(&mut self, filter: Filter) {
        self.hand_in(None);
        self.settings.filter = filter;
    }

    /// Another time between two reports of an episode that lasts.
    pub const fn set_interval(&mut self, interval: Duration) {
        self.settings.interval = interval;
    }

    /// Has subjects hand over what they counted; with a time, only those whose owner is known as
    /// well as can be.
    fn hand_in(&mut self, now: Option<BootTime>) {
        let Some(tally) = &mut self.tally else { return };
        let filter = &self.settings.filter;
        for subject in self.subjects.values_mut() {
            let is_early = |now: BootTime| now.since(subject.first) < TALLY_PATIENCE;
            let may_change = !subject.has_owners && now.is_some_and(is_early);
            if !may_change && wants(filter, subject) {
                tally.take(subject);
            }
        }
    }

    /// All refused segments, whoever asked for what.
    #[must_use]
    pub fn refused(&self) -> Refused {
        let mut refused = self.folded_refused.clone();
        for subject in self.subjects.values() {
            if let Some(key) = refusal(subject) {
                *refused.entry(key).or_default() += subject.total;
            }
        }
        refused
    }

    /// Keeps of a line what its figures are needed for.
    pub(super) fn forget(&mut self, id: SubjectId, mut subject: Subject) {
        self.ids.remove(&subject.key);
        if let Some(inode) = subject.key.inode
            && let Entry::Occupied(mut of) = self.refusing.entry(inode)
        {
            of.get_mut().retain(|other| *other != id);
            if of.get().is_empty() {
                of.remove();
            }
        }
        self.folded += subject.total;
        if let Some(tally) = &mut self.tally
            && wants(&self.settings.filter, &subject)
        {
            tally.take(&mut subject);
        }
        if let Some(key) = refusal(&subject) {
            let has_room = self.folded_refused.len() < MOST_FOLDED;
            if has_room || self.folded_refused.contains_key(&key) {
                *self.folded_refused.entry(key).or_default() += subject.total;
            }
        }
    }
}

/// Where a client was refused, and why.
fn refusal(subject: &Subject) -> Option<(u32, Failure)> {
    let failure = subject.key.failure;
    let listener = subject.key.target.listener().filter(|_| failure.is_refusal())?;
    Some((listener.netns?, failure))
}

/// Whether the user asked for a line.
pub(super) fn wants(filter: &Filter, subject: &Subject) -> bool {
    let Subject { owners, key, .. } = subject;
    filter.wants(owners, &key.target, key.failure)
}
