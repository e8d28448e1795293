//! How descriptors became more over the minutes before.

use std::time::Duration;

use crate::model::FdSample;

/// Shorter than this, growth says nothing: any server fills up when it starts.
const LEAST: Duration = Duration::from_secs(60);
/// Fewer looks than this do not tell growth from chance.
const LEAST_SAMPLES: usize = 5;

/// Steady growth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Growth {
    /// Over so long.
    pub(super) lasting: Duration,
    /// Descriptors then and now.
    pub(super) from: u64,
    pub(super) to: u64,
    /// Descriptors per second.
    pub(super) per_second: f64,
    /// The part of it that connections account for; `None` where they were not counted.
    pub(super) by_connections: Option<f64>,
}

/// Growth over the samples, the oldest first; `None` where it is not steady, or where there are too
/// few to tell.
pub(super) fn growth(samples: &[FdSample]) -> Option<Growth> {
    let (first, now) = (samples.first()?, samples.last()?);
    let lasting = now.at.since(first.at);
    let grown = now.open.checked_sub(first.open)?;
    if samples.len() < LEAST_SAMPLES || lasting < LEAST || grown * 5 < first.open.max(50) {
        return None;
    }
    // Steady: whatever goes back is little against what is gained.
    let lost: u64 = samples.windows(2).map(|pair| pair[0].open.saturating_sub(pair[1].open)).sum();
    if lost * 4 > grown {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "no process has 2^53 descriptors")]
    let by_connections = first
        .connections
        .zip(now.connections)
        .map(|(from, to)| to.saturating_sub(from) as f64 / grown as f64);
    #[expect(clippy::cast_precision_loss, reason = "no process has 2^53 descriptors")]
    let per_second = grown as f64 / lasting.as_secs_f64();
    Some(Growth { lasting, from: first.open, to: now.open, per_second, by_connections })
}

impl Growth {
    /// Whether descriptors grow and connections do not.
    pub(super) fn is_without_connections(&self) -> bool {
        self.by_connections.is_some_and(|part| part < 0.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::BootTime;

    fn samples(every: u64, numbers: &[(u64, Option<u64>)]) -> Vec<FdSample> {
        let sample = |(turn, (open, connections)): (u64, &(u64, Option<u64>))| FdSample {
            at: BootTime(Duration::from_secs(turn * every)),
            open: *open,
            connections: *connections,
        };
        (0..).zip(numbers).map(sample).collect()
    }

    fn of(every: u64, open: &[u64]) -> Option<Growth> {
        let numbers: Vec<_> = open.iter().map(|open| (*open, None)).collect();
        growth(&samples(every, &numbers))
    }

    #[test]
    fn steady_growth() {
        let found = of(60, &[100, 200, 290, 400, 500]).unwrap();
        let expected = Growth {
            lasting: Duration::from_secs(240),
            from: 100,
            to: 500,
            per_second: 400.0 / 240.0,
            by_connections: None,
        };
        assert_eq!(found, expected);
        assert!(!found.is_without_connections(), "nobody counted them");
    }

    #[test]
    fn what_is_no_growth() {
        assert_eq!(of(60, &[]), None);
        assert_eq!(of(60, &[100, 200]), None, "too few");
        assert_eq!(of(10, &[100, 200, 300, 400, 500]), None, "too short");
        assert_eq!(of(60, &[1000, 1010, 1020, 1030, 1040]), None, "too little");
        assert_eq!(of(60, &[10, 12, 14, 16, 18]), None, "a few more are nothing");
        assert_eq!(of(60, &[100, 900, 50, 800, 500]), None, "up and down");
        assert_eq!(of(60, &[500, 400, 300, 200, 100]), None);
    }

    #[test]
    fn connections_beside() {
        let with = |last| {
            let numbers = [(100, 50), (200, 50), (300, 50), (400, 50), (500, last)];
            let numbers = numbers.map(|(open, connections)| (open, Some(connections)));
            growth(&samples(60, &numbers)).unwrap()
        };
        assert!(with(50).is_without_connections());
        assert!(with(10).is_without_connections());
        assert!(!with(450).is_without_connections());
    }
}
