//! When to warn, and when to say that it is over.
//!
//! A threshold counts as reached only when a second look finds it so, and a warning as over only
//! after a while well below: what goes up and down around a threshold is one warning.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use crate::model::{BootTime, Filling, Gauge, Outcome, ProcessId, Thresholds, Warning};

/// A threshold must have been reached for so long: looks come once a second, or a little earlier.
const RISEN: Duration = Duration::from_millis(800);
/// And a warning is over after so long
const FALLEN: Duration = Duration::from_secs(2);
/// below this many points under its threshold.
const POINTS: u8 = 5;

/// Growth is that of the last so long,
const GROWTH_OVER: Duration = Duration::from_secs(30);
/// and of at least so long.
const GROWTH_LEAST: Duration = Duration::from_millis(500);

/// More is not watched at once.
const MOST_WATCHED: usize = 1024;
/// Looks that are remembered of each. When there are more, every second one of the older half goes.
const MOST_SAMPLES: usize = 128;

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Watched {
    /// Descriptors of a process.
    Fds(ProcessId),
    /// The accept queue of a socket, by its inode.
    Queue(u64),
}

/// How much was in use at one look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When.
    pub at: BootTime,
    /// How much.
    pub used: u64,
}

/// Everything that is close to its limit.
#[derive(Debug)]
pub struct Warnings {
    thresholds: Thresholds,
    watched: HashMap<Watched, Watch>,
}

#[derive(Debug)]
struct Watch {
    gauge: Gauge,
    samples: VecDeque<Sample>,
    /// One of each threshold.
    steps: Vec<Step>,
    /// How many thresholds were warned of.
    level: usize,
    /// An episode said more than a warning would: nothing is said until it has fallen.
    is_silent: bool,
    since: BootTime,
    most: u64,
}

/// Since when a threshold is reached, or well out of reach.
#[derive(Clone, Copy, Debug, Default)]
struct Step {
    above: Option<BootTime>,
    below: Option<BootTime>,
}

impl Warnings {
    /// Nothing is close to its limit.
    #[must_use]
    pub fn new(thresholds: Thresholds) -> Self {
        Self { thresholds, watched: HashMap::new() }
    }

    /// Whether it is worth another look soon.
    #[must_use]
    pub fn watches(&self, what: Watched) -> bool {
        self.watched.contains_key(&what)
    }

    /// The looks at it, the oldest first.
    pub fn samples(&self, what: Watched) -> impl Iterator<Item = Sample> {
        self.watched.get(&what).into_iter().flat_map(|watch| watch.samples.iter().copied())
    }

    /// How full it was at the last look, where it was warned of and that is not over.
    #[must_use]
    pub fn raised(&self, what: Watched) -> Option<Gauge> {
        self.watched.get(&what).filter(|watch| watch.level > 0).map(|watch| watch.gauge)
    }

    /// Takes a look. `is_superseded`: an episode tells of its exhaustion already.
    pub fn look(
        &mut self,
        now: BootTime,
        what: Watched,
        gauge: Gauge,
        is_superseded: bool,
    ) -> Option<Warning> {
        // Of none, nothing is a share.
        let lowest = self.thresholds.lowest().filter(|_| gauge.limit > 0)?;
        let is_near = is_near(what, gauge, lowest);
        if !self.watched.contains_key(&what) && (!is_near || self.watched.len() >= MOST_WATCHED) {
            return None;
        }
        let percents = self.thresholds.percents();
        let watch = self.watched.entry(what).or_insert_with(|| Watch::new(gauge, percents.len()));
        watch.take(now, gauge);
        let warning = if is_superseded {
            watch.supersede();
            None
        } else {
            watch.advance(now, percents)
        };
        if !is_near && watch.level == 0 {
            self.watched.remove(&what);
        }
        warning
    }

    /// It is gone, and so is its warning.
    pub fn gone(&mut self, now: BootTime, what: Watched) -> Option<Warning> {
        let watch = self.watched.remove(&what)?;
        let threshold = *self.thresholds.percents().get(watch.level.checked_sub(1)?)?;
        let warning =
            Warning { filling: None, ..watch.warning(now, threshold, Some(Outcome::Exited)) };
        (!watch.is_silent).then_some(warning)
    }
}

/// Whether it could reach the lowest threshold before anybody looks again unasked.
fn is_near(what: Watched, gauge: Gauge, lowest: u8) -> bool {
    // The kernel side looks at some of 32 descriptors in a row.
    let ahead = match what {
        Watched::Fds(_) => 64,
        Watched::Queue(_) => 0,
    };
    Gauge { used: gauge.used + ahead, ..gauge }.reaches(well_below(lowest))
}

/// Where a threshold is out of reach.
fn well_below(percent: u8) -> u8 {
    percent - POINTS.min(percent / 2)
}

impl Watch {
    fn new(gauge: Gauge, thresholds: usize) -> Self {
        Self {
            gauge,
            samples: VecDeque::new(),
            steps: vec![Step::default(); thresholds],
            level: 0,
            is_silent: false,
            since: BootTime::default(),
            most: 0,
        }
    }

    fn take(&mut self, now: BootTime, gauge: Gauge) {
        self.gauge = gauge;
        self.most = self.most.max(gauge.used);
        self.samples.push_back(Sample { at: now, used: gauge.used });
        if self.samples.len() > MOST_SAMPLES {
            let mut number = 0;
            self.samples.retain(|_| {
                number += 1;
                number > MOST_SAMPLES / 2 || number % 2 == 1
            });
        }
    }

    fn supersede(&mut self) {
        self.level = self.steps.len();
        self.is_silent = true;
        self.steps.fill(Step::default());
    }

    fn advance(&mut self, now: BootTime, percents: &[u8]) -> Option<Warning> {
        let gauge = self.gauge;
        for (step, percent) in self.steps.iter_mut().zip(percents) {
            step.above = gauge.reaches(*percent).then(|| step.above.unwrap_or(now));
            let is_below = !gauge.reaches(well_below(*percent));
            step.below = is_below.then(|| step.below.unwrap_or(now));
        }
        let has_been = |since: Option<BootTime>, so_long| {
            since.is_some_and(|since| now.since(since) >= so_long)
        };
        let risen = self.steps.iter().rposition(|step| has_been(step.above, RISEN));
        if let Some(highest) = risen.filter(|highest| *highest >= self.level) {
            if self.level == 0 || self.is_silent {
                self.since = self.steps[0].above.unwrap_or(now);
                self.most = gauge.used;
            }
            self.level = highest + 1;
            self.is_silent = false;
            return Some(self.warning(now, percents[highest], None));
        }
        let before = self.level;
        while self.level > 0 && has_been(self.steps[self.level - 1].below, FALLEN) {
            self.level -= 1;
        }
        // From a higher threshold to a lower one is no news: it is still close to its limit.
        let is_over = before > 0 && self.level == 0;
        let was_silent = self.is_silent && is_over;
        self.is_silent &= !is_over;
        let threshold = *percents.get(before.checked_sub(1)?)?;
        let over = || self.warning(now, threshold, Some(Outcome::Recovered));
        (is_over && !was_silent).then(over)
    }

    fn warning(&self, now: BootTime, threshold: u8, outcome: Option<Outcome>) -> Warning {
        Warning {
            outcome,
            threshold,
            gauge: self.gauge,
            filling: if outcome.is_some() { None } else { self.filling(now) },
            since: self.since,
            most: self.most,
        }
    }

    fn filling(&self, now: BootTime) -> Option<Filling> {
        let is_recent = |sample: &&Sample| now.since(sample.at) <= GROWTH_OVER;
        let first = self.samples.iter().find(is_recent)?;
        let over = now.since(first.at);
        let grown = self.gauge.used.checked_sub(first.used).filter(|grown| *grown > 0)?;
        if over < GROWTH_LEAST {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "nothing here has 2^53")]
        let (grown, left) = (grown as f64, self.gauge.limit.saturating_sub(self.gauge.used) as f64);
        let per_second = grown / over.as_secs_f64();
        let full_in = Duration::try_from_secs_f64(left / per_second).ok()?;
        Some(Filling { per_second, full_in })
    }
}

#[cfg(test)]
mod tests;
