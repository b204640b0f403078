//! Randomness, passed in.

use crate::key::Secret;

/// A source of random bytes fit for keys: the kernel's in the daemon, a seeded
/// one in tests. Any `FnMut(&mut [u8])` is one.
pub trait Entropy {
    /// Fills `bytes`.
    fn fill(&mut self, bytes: &mut [u8]);
}

impl<F: FnMut(&mut [u8])> Entropy for F {
    fn fill(&mut self, bytes: &mut [u8]) {
        self(bytes);
    }
}

/// Public random bytes.
pub(crate) fn draw<const N: usize>(entropy: &mut dyn Entropy) -> [u8; N] {
    let mut bytes = [0; N];
    entropy.fill(&mut bytes);
    bytes
}

/// Secret random bytes.
pub(crate) fn draw_secret<const N: usize>(entropy: &mut dyn Entropy) -> Secret<N> {
    let mut secret = Secret::zeroed();
    entropy.fill(&mut secret.0);
    secret
}
