//! Failures by what metrics tell apart: figures that only grow, whatever becomes of the lines of the
//! totals.

use std::collections::BTreeMap;

use super::subject::Subject;
use crate::model::{Failure, Series, SeriesCount, Who};

/// Sums of what subjects have handed over.
#[derive(Debug)]
pub(super) struct Tally {
    series: BTreeMap<Series, u64>,
    /// How many of them are somebody's: those of everybody else are few, one for each failure and door.
    told_apart: usize,
    /// Failures of which nothing is known any more.
    unknown: u64,
    most: usize,
    /// Episodes opened.
    pub(super) opened: BTreeMap<Failure, u64>,
}

impl Tally {
    /// Tells so many series apart.
    pub(super) fn new(most: usize) -> Self {
        Self { series: BTreeMap::new(), told_apart: 0, unknown: 0, most, opened: BTreeMap::new() }
    }

    /// Takes what a subject has counted since the last time. What was handed over stays where it is,
    /// also if its owner turns out to be another.
    pub(super) fn take(&mut self, subject: &mut Subject) {
        let new = subject.total - std::mem::replace(&mut subject.tallied, subject.total);
        if new == 0 {
            return;
        }
        let failure = match subject.key.failure {
            Failure::AcceptQueueFull { .. } => Failure::AcceptQueueFull { syn_queue_full: false },
            failure => failure,
        };
        let who = Some(Who::of(&subject.owners, &subject.key.target));
        let mut series = Series { who, failure, door: subject.key.door };
        if !self.series.contains_key(&series) {
            if self.told_apart < self.most {
                self.told_apart += 1;
            } else {
                // What fails can still be told, and alerted on.
                series.who = None;
            }
        }
        *self.series.entry(series).or_default() += new;
    }

    /// Takes failures of which nothing else is known any more.
    pub(super) fn take_unknown(&mut self, new: u64) {
        self.unknown += new;
    }

    pub(super) fn counts(&self) -> Vec<SeriesCount> {
        let known = self.series.iter();
        let known = known
            .map(|(series, count)| SeriesCount { series: Some(series.clone()), count: *count });
        let unknown = SeriesCount { series: None, count: self.unknown };
        known.chain((self.unknown > 0).then_some(unknown)).collect()
    }
}
