//! Random numbers that a seed brings back.

/// SplitMix64 (Steele, Lea, Flood 2014): small, and good enough to make trouble.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The numbers of `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The numbers of `WEAVE_TEST_SEED`, or of a new seed. Says which, so that a failure can be
    /// brought back.
    #[must_use]
    pub fn from_environment() -> Self {
        use std::hash::{BuildHasher, Hasher};
        let given = std::env::var("WEAVE_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        // The standard library seeds its hashers from the kernel's random numbers.
        let fresh = || std::collections::hash_map::RandomState::new().build_hasher().finish();
        let seed = given.unwrap_or_else(fresh);
        eprintln!("to repeat this run: WEAVE_TEST_SEED={seed}");
        Self(seed)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number under `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit
    }

    /// True in `per_mille` of 1,000 cases.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }
}
