//! The round trips of heartbeats over all links.

use hdrhistogram::Histogram;
use std::time::Duration;

/// Longest round trip told from longer ones, microseconds.
const LONGEST_US: u64 = 60_000_000;
/// Significant digits that are kept.
const DIGITS: u8 = 2;
/// Upper bounds of the buckets that are shown, microseconds.
pub(super) const BOUNDS_US: [u64; 14] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    5_000_000,
];

/// Round trips since the start.
#[derive(Debug)]
pub(in crate::control) struct RoundTrips {
    /// Absent only if its fixed bounds were wrong.
    histogram: Option<Histogram<u64>>,
    sum: Duration,
}

impl Default for RoundTrips {
    fn default() -> Self {
        Self { histogram: Histogram::new_with_bounds(1, LONGEST_US, DIGITS).ok(), sum: Duration::ZERO }
    }
}

impl RoundTrips {
    /// Adds one.
    pub(in crate::control) fn record(&mut self, time: Duration) {
        if let Some(histogram) = &mut self.histogram {
            histogram.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1));
            self.sum += time;
        }
    }

    /// How many were up to each of [`BOUNDS_US`] and over the bound before it, those longer than
    /// all last; and the sum of all.
    pub(super) fn buckets(&self) -> ([u64; BOUNDS_US.len() + 1], Duration) {
        let mut buckets = [0; BOUNDS_US.len() + 1];
        for value in self.histogram.iter().flat_map(Histogram::iter_recorded) {
            // A value stands for a range; its lower end decides.
            let lowest =
                self.histogram.as_ref().map_or(0, |h| h.lowest_equivalent(value.value_iterated_to()));
            let place = BOUNDS_US.partition_point(|bound| *bound < lowest);
            if let Some(bucket) = buckets.get_mut(place) {
                *bucket += value.count_since_last_iteration();
            }
        }
        (buckets, self.sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_are_counted_in_their_buckets() {
        let mut trips = RoundTrips::default();
        for us in [0, 90, 100, 700, 3_000, 100_000_000] {
            trips.record(Duration::from_micros(us));
        }
        let (buckets, sum) = trips.buckets();
        assert_eq!(buckets, [3, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(sum, Duration::from_micros(100_003_890));
    }
}
