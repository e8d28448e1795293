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
    /// Descriptors per second.
    pub(super) per_second: f64,
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
    let per_second = grown as f64 / lasting.as_secs_f64();
    Some(Growth { lasting, per_second })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::BootTime;

    fn of(every: u64, open: &[u64]) -> Option<Growth> {
        let at = |turn: u64| BootTime(Duration::from_secs(turn * every));
        let samples = (0..).zip(open).map(|(turn, open)| FdSample { at: at(turn), open: *open });
        growth(&samples.collect::<Vec<_>>())
    }

    #[test]
    fn steady_growth() {
        let found = of(60, &[100, 200, 290, 400, 500]).unwrap();
        let lasting = Duration::from_secs(240);
        assert_eq!(found, Growth { lasting, per_second: 400.0 / 240.0 });
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
}
