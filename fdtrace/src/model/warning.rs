//! What is about to run out.

use std::time::Duration;

use super::{BootTime, FdLimits, Outcome, Process, Target};

/// At which shares to warn, in percent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Thresholds(Vec<u8>);

impl Thresholds {
    /// In any order; `None` where one is not from 1 to 99. None at all is never to warn.
    #[must_use]
    pub fn new(mut percents: Vec<u8>) -> Option<Self> {
        percents.sort_unstable();
        percents.dedup();
        percents.iter().all(|percent| (1..=99).contains(percent)).then_some(Self(percents))
    }

    /// The lowest first.
    #[must_use]
    pub fn percents(&self) -> &[u8] {
        &self.0
    }

    /// The lowest; `None` where there is never to be a warning.
    #[must_use]
    pub fn lowest(&self) -> Option<u8> {
        self.0.first().copied()
    }
}

/// How full something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gauge {
    /// In use.
    pub used: u64,
    /// Allowed.
    pub limit: u64,
}

impl Gauge {
    /// Whether so many percent are in use.
    #[must_use]
    pub fn reaches(self, percent: u8) -> bool {
        u128::from(self.used) * 100 >= u128::from(self.limit) * u128::from(percent)
    }

    /// The part that is in use: 1 is all of it. It can be more.
    #[must_use]
    pub fn share(self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "nothing here has 2^53")]
        let (used, limit) = (self.used as f64, self.limit as f64);
        used / limit
    }
}

/// How fast it fills.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Filling {
    /// So many more a second.
    pub per_second: f64,
    /// Until it is full, if it goes on like that.
    pub full_in: Duration,
}

/// What fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Descriptors of a process; the gauge has its soft limit.
    Fds(FdLimits),
    /// The accept queue of a listener.
    AcceptQueue,
}

/// A warning at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Warning {
    /// Whether it is over, and how.
    pub outcome: Option<Outcome>,
    /// The highest threshold that was reached, in percent.
    pub threshold: u8,
    /// How full it is; or was, when it was seen last.
    pub gauge: Gauge,
    /// How fast it fills, if it does.
    pub filling: Option<Filling>,
    /// When the lowest threshold was reached.
    pub since: BootTime,
    /// The most that was in use since then.
    pub most: u64,
}

/// A warning, and what it is about.
#[derive(Clone, Debug, PartialEq)]
pub struct WarningReport {
    /// When.
    pub at: BootTime,
    /// Whose descriptors; or who owns the listener, the lead one first.
    pub owners: Vec<Process>,
    /// The listener; of descriptors, that whose connections take them.
    pub target: Target,
    /// What fills.
    pub resource: Resource,
    /// How far.
    pub warning: Warning,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_sorted_and_possible() {
        let of = |percents: &[u8]| Thresholds::new(percents.to_vec());
        assert_eq!(of(&[95, 80, 95]).unwrap().percents(), [80, 95]);
        assert_eq!(of(&[95, 80]).unwrap().lowest(), Some(80));
        assert_eq!(of(&[]).unwrap().lowest(), None);
        assert_eq!(of(&[0]), None);
        assert_eq!(of(&[80, 100]), None);
    }

    #[test]
    fn a_share_is_reached_exactly() {
        let gauge = |used| Gauge { used, limit: 1024 };
        assert!(!gauge(819).reaches(80));
        assert!(gauge(820).reaches(80));
        assert!(Gauge { used: u64::MAX, limit: u64::MAX }.reaches(99));
        assert!((gauge(512).share() - 0.5).abs() < f64::EPSILON);
    }
}
