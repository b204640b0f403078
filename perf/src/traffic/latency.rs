//! Round-trip times as a histogram.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Shortest time told apart, in nanoseconds.
const LOWEST_NS: u64 = 100;

/// Longest time told apart; longer ones count as this.
pub const LONGEST: Duration = Duration::from_secs(10);

/// Decimal digits kept of each time.
const DIGITS: u8 = 3;

/// Round-trip times of one measurement, and how many requests got no answer.
#[derive(Debug, Clone)]
pub struct Latency {
    histogram: Histogram<u64>,
    /// Requests sent within the window.
    pub sent: u64,
    /// Requests of the window whose answer did not come in time.
    pub lost: u64,
}

impl Latency {
    #[expect(clippy::expect_used, reason = "the three constants are a valid range")]
    pub(super) fn new() -> Self {
        let longest = LONGEST.as_nanos() as u64;
        let histogram = Histogram::new_with_bounds(LOWEST_NS, longest, DIGITS);
        Self { histogram: histogram.expect("bounds are constants"), sent: 0, lost: 0 }
    }

    pub(super) fn record(&mut self, round_trip: Duration) {
        let nanoseconds = u64::try_from(round_trip.as_nanos()).unwrap_or(u64::MAX);
        self.histogram.saturating_record(nanoseconds);
    }

    /// Answers that came.
    pub fn answered(&self) -> u64 {
        self.histogram.len()
    }

    /// The round-trip time that `share` (0.0 to 1.0) of the answers did not exceed, in
    /// microseconds; 0 when nothing was answered.
    pub fn quantile_us(&self, share: f64) -> f64 {
        self.histogram.value_at_quantile(share) as f64 / 1e3
    }

    /// Median, microseconds.
    pub fn p50_us(&self) -> f64 {
        self.quantile_us(0.5)
    }

    /// 90th percentile, microseconds.
    pub fn p90_us(&self) -> f64 {
        self.quantile_us(0.9)
    }

    /// 99th percentile, microseconds.
    pub fn p99_us(&self) -> f64 {
        self.quantile_us(0.99)
    }

    /// 99.9th percentile, microseconds.
    pub fn p999_us(&self) -> f64 {
        self.quantile_us(0.999)
    }

    /// Longest, microseconds.
    pub fn max_us(&self) -> f64 {
        self.histogram.max() as f64 / 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_microseconds() {
        let mut latency = Latency::new();
        (1..=1000).for_each(|us| latency.record(Duration::from_micros(us)));
        assert_eq!(latency.answered(), 1000);
        assert!((latency.p50_us() - 500.0).abs() < 2.0);
        assert!((latency.p99_us() - 990.0).abs() < 2.0);
        assert!((latency.max_us() - 1000.0).abs() < 2.0);
    }

    #[test]
    fn times_out_of_range_count_as_the_nearest() {
        let mut latency = Latency::new();
        latency.record(Duration::ZERO);
        latency.record(Duration::from_secs(3600));
        assert_eq!(latency.answered(), 2);
        assert!(latency.max_us() >= 9.9e6);
    }

    #[test]
    fn nothing_recorded_is_zero() {
        assert!(Latency::new().p50_us().abs() < f64::EPSILON);
    }
}
