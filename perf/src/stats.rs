//! Medians and spread of repeated measurements.
//!
//! Measurements on a shared machine have outliers on one side (somebody else had the core), so the
//! middle is the median and the spread the median absolute deviation, both of which a few outliers
//! do not move; minimum and maximum stand beside them.

use serde::Serialize;

/// What a series of measurements of one quantity says, in the unit of that quantity.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// How many measurements.
    pub count: usize,
    /// Smallest.
    pub min: f64,
    /// The middle one, or the mean of the middle two.
    pub median: f64,
    /// Largest.
    pub max: f64,
    /// Median absolute deviation from the median.
    pub mad: f64,
}

impl Summary {
    /// Sums up `samples`; `None` when there are none. Values that are no number are left out.
    pub fn of(samples: &[f64]) -> Option<Self> {
        let sorted = sorted(samples.iter().copied());
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let median = middle(&sorted)?;
        let deviations = self::sorted(sorted.iter().map(|x| (x - median).abs()));
        Some(Self { count: sorted.len(), min, median, max, mad: middle(&deviations)? })
    }
}

/// The ratio of each sample to the one of the same round in `base`, where both are there.
///
/// Comparing within a round cancels what changes between rounds: a slow minute of the machine is
/// slow for both.
pub fn ratios(samples: &[Option<f64>], base: &[Option<f64>]) -> Vec<f64> {
    let pairs = samples.iter().zip(base);
    pairs.filter_map(|(sample, base)| Some((*sample)? / base.filter(|b| *b != 0.0)?)).collect()
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.filter(|v| v.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The median of a sorted series.
fn middle(sorted: &[f64]) -> Option<f64> {
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *sorted.get(sorted.len() / 2 - 1)?;
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_median_of_an_odd_series_is_its_middle() {
        let s = Summary::of(&[9.0, 1.0, 3.0]).unwrap();
        assert_eq!((s.min, s.median, s.max, s.mad), (1.0, 3.0, 9.0, 2.0));
    }

    #[test]
    fn the_median_of_an_even_series_is_the_mean_of_the_middle_two() {
        let s = Summary::of(&[4.0, 1.0, 2.0, 100.0]).unwrap();
        assert_eq!((s.count, s.median, s.mad), (4, 3.0, 1.5));
    }

    #[test]
    fn one_outlier_moves_neither_median_nor_deviation_much() {
        let s = Summary::of(&[10.0, 10.1, 9.9, 10.0, 0.1]).unwrap();
        assert!((s.median - 10.0).abs() < 1e-9);
        assert!(s.mad < 0.11);
    }

    #[test]
    fn no_samples_have_no_summary_and_what_is_no_number_is_left_out() {
        assert_eq!(Summary::of(&[]), None);
        assert_eq!(Summary::of(&[f64::NAN]), None);
        assert_eq!(Summary::of(&[f64::NAN, 2.0]).unwrap().count, 1);
    }

    #[test]
    fn ratios_pair_rounds_and_skip_what_is_missing_or_zero() {
        let ours = [Some(6.0), None, Some(5.0), Some(1.0)];
        let base = [Some(12.0), Some(1.0), Some(10.0), Some(0.0)];
        assert_eq!(ratios(&ours, &base), [0.5, 0.5]);
    }
}
