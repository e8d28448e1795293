//! Medians, and how far the middle half of the samples spreads.

use serde::Serialize;

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    /// A quarter of the samples are below.
    pub(crate) low: f64,
    /// A quarter of the samples are above.
    pub(crate) high: f64,
    pub(crate) samples: usize,
}

impl Spread {
    /// `None` of no samples.
    pub(crate) fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Self {
            median: quantile(&sorted, 0.5)?,
            low: quantile(&sorted, 0.25)?,
            high: quantile(&sorted, 0.75)?,
            samples: sorted.len(),
        })
    }
}

/// Between two samples where it falls between them.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    #[expect(clippy::cast_precision_loss, reason = "few samples")]
    let place = share * last as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within them")]
    let below = place.floor() as usize;
    let (a, b) = (sorted[below], sorted[(below + 1).min(last)]);
    Some((b - a).mul_add(place.fract(), a))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_quartiles() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 2.0, 5.0]).unwrap();
        assert_eq!((spread.low, spread.median, spread.high), (2.0, 3.0, 4.0));
        assert_eq!(spread.samples, 5);
        assert!((quantile(&[1.0, 2.0], 0.5).unwrap() - 1.5).abs() < 1e-9);
        assert!(Spread::of(&[]).is_none());
    }
}
