//! The order of the tunnels within a round.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// A seed that differs from run to run.
pub fn random_seed() -> u64 {
    // The standard library seeds its hashers from the kernel's random numbers.
    RandomState::new().build_hasher().finish()
}

/// Random orders that follow from a seed.
#[derive(Debug)]
pub struct Shuffle {
    state: u64,
}

impl Shuffle {
    /// The same seed gives the same orders.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The numbers below `count` in random order (Fisher and Yates).
    pub fn order(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            let other = (self.next() % (last as u64 + 1)) as usize;
            order.swap(last, other);
        }
        order
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_holds_every_number_once() {
        let mut shuffle = Shuffle::new(1);
        for count in 0..20 {
            let mut order = shuffle.order(count);
            order.sort_unstable();
            assert!(order.into_iter().eq(0..count));
        }
    }

    #[test]
    fn orders_change_from_round_to_round_and_follow_from_the_seed() {
        let orders = |seed| {
            let mut shuffle = Shuffle::new(seed);
            [shuffle.order(9), shuffle.order(9)]
        };
        assert_eq!(orders(7), orders(7));
        assert_ne!(orders(7)[0], orders(7)[1]);
        assert_ne!(orders(7), orders(8));
    }
}
