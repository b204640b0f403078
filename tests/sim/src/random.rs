//! All chance in a simulation, from one seed.

use std::time::Duration;

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The numbers that follow from `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Numbers of their own for one purpose: what one part of the simulation
    /// draws changes nothing for the others.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self(self.next_u64())
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`; 0 if there is none.
    pub fn below(&mut self, limit: usize) -> usize {
        let number = self.next_u64() % (limit.max(1) as u64);
        usize::try_from(number).unwrap_or_default()
    }

    /// A number from `low` to `high`.
    pub fn within(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True in so many of a thousand cases.
    pub fn chance(&mut self, per_mille: u16) -> bool {
        per_mille > 0 && self.below(1000) < usize::from(per_mille)
    }

    /// A time from `low` to `high`, whole microseconds.
    pub fn time(&mut self, low: Duration, high: Duration) -> Duration {
        let span = u64::try_from(high.saturating_sub(low).as_micros()).unwrap_or(u64::MAX);
        low + Duration::from_micros(self.next_u64() % span.saturating_add(1).max(1))
    }

    /// A time from `low` to `high` whose order of magnitude is uniform: short ones
    /// are as likely as long ones.
    pub fn time_of_any_size(&mut self, low: Duration, high: Duration) -> Duration {
        let (low, high) = (low.as_secs_f64().max(1e-6).ln(), high.as_secs_f64().max(1e-6).ln());
        Duration::from_secs_f64((low + (high - low) * self.unit()).exp())
    }

    /// A number from 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are enough")]
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// One of `choices`.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> Option<&'a T> {
        choices.get(self.below(choices.len()))
    }

    /// Puts `items` into any order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.below(end + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_within_their_bounds_and_follow_from_the_seed() {
        let (mut a, mut b) = (Random::new(3), Random::new(3));
        let (low, high) = (Duration::from_millis(100), Duration::from_secs(60));
        for _ in 0..1000 {
            let number = a.within(2, 5);
            assert!((2..=5).contains(&number));
            assert_eq!(number, b.within(2, 5));
            let time = a.time_of_any_size(low, high);
            assert!(time >= low.mul_f64(0.999) && time <= high.mul_f64(1.001));
            assert_eq!(time, b.time_of_any_size(low, high));
        }
    }
}
