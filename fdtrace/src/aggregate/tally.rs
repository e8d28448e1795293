//! Failures by what metrics tell apart: figures that only grow, whatever becomes of the lines of the
//! totals.

use std::collections::BTreeMap;

use super::subject::Subject;
use crate::model::{Failure, Series, SeriesCount, Who};

/// Sums of what subjects have handed over.
#[derive(Debug)]
pub(super) struct Tally {
    series: BTreeMap<Series, u64>,
    /// What there was no more room to tell apart.
    other: u64,
    most: usize,
    /// Episodes opened.
    pub(super) opened: BTreeMap<Failure, u64>,
}

impl Tally {
    /// Tells so many series apart.
    pub(super) fn new(most: usize) -> Self {
        Self { series: BTreeMap::new(), other: 0, most, opened: BTreeMap::new() }
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
        let who = Who::of(&subject.owners, &subject.key.target);
        let series = Series { who, failure, door: subject.key.door };
        let has_room = self.series.len() < self.most;
        match self.series.get_mut(&series) {
            Some(count) => *count += new,
            None if has_room => {
                self.series.insert(series, new);
            }
            None => self.other += new,
        }
    }

    /// Takes failures of which nothing else is known any more.
    pub(super) fn take_unknown(&mut self, new: u64) {
        self.other += new;
    }

    pub(super) fn counts(&self) -> Vec<SeriesCount> {
        let known = self.series.iter();
        let known = known
            .map(|(series, count)| SeriesCount { series: Some(series.clone()), count: *count });
        let other = (self.other > 0).then_some(SeriesCount { series: None, count: self.other });
        known.chain(other).collect()
    }
}
