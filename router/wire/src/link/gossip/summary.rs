//! Hashes by which two peers find what one of them lacks.

use super::part::Digest;
use crate::PeerName;

/// Number of buckets of owners in a summary.
pub const BUCKETS: usize = 64;

/// The bucket of an owner: the last byte of its name modulo [`BUCKETS`].
#[must_use]
pub const fn bucket_of(owner: PeerName) -> usize {
    let [.., last] = owner.to_bytes();
    last as usize % BUCKETS
}

/// The hashes of a set of digests, per bucket of owners: the sum of the hashes
/// of the digests, so that their order is of no account. A collision, even a
/// wilful one, only hides that something was missed; changes flood anyway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary(Box<[u64; BUCKETS]>);

impl Default for Summary {
    fn default() -> Self {
        Self(Box::new([0; BUCKETS]))
    }
}

impl Summary {
    /// Adds a digest.
    pub fn add(&mut self, digest: &Digest) {
        if let Some(sum) = self.0.get_mut(bucket_of(digest.key.owner)) {
            *sum = sum.wrapping_add(hash(digest));
        }
    }

    /// The hash of each bucket.
    #[must_use]
    pub fn hashes(&self) -> &[u64; BUCKETS] {
        &self.0
    }
}

/// `mix(mix(mix(owner ‖ part) + version) + UID)`.
fn hash(digest: &Digest) -> u64 {
    let key = u64::from_be_bytes(digest.key.encode());
    let with_version = mix(key).wrapping_add(digest.version.version);
    mix(mix(with_version).wrapping_add(digest.version.uid.0))
}

/// The finishing step of SplitMix64 (Steele, Lea, Flood 2014).
const fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::part::{PartId, PartKey, Version};
    use super::*;
    use crate::Uid;

    fn digest(owner: u8, part: u16, version: u64, uid: u64) -> Digest {
        let owner = PeerName::new([2, 0, 0, 0, 0, owner]).unwrap();
        Digest { key: PartKey { owner, part: PartId(part) }, version: Version { version, uid: Uid(uid) } }
    }

    fn summary(digests: &[Digest]) -> Summary {
        let mut summary = Summary::default();
        digests.iter().for_each(|digest| summary.add(digest));
        summary
    }

    #[test]
    fn the_order_of_digests_is_of_no_account_and_everything_else_is() {
        let (a, b) = (digest(1, 0, 5, 7), digest(65, 1, 5, 7));
        assert_eq!(summary(&[a, b]), summary(&[b, a]));
        for other in [digest(1, 0, 6, 7), digest(1, 0, 5, 8), digest(1, 1, 5, 7), digest(129, 0, 5, 7)] {
            assert_ne!(summary(&[a, b]), summary(&[other, b]));
        }
    }

    /// The example of `docs/wire.md`.
    #[test]
    fn the_hash_is_that_of_the_specification() {
        let summary = summary(&[digest(1, 0, 5, 7)]);
        assert_eq!(summary.hashes()[1], EXAMPLE);
        assert_eq!(summary.hashes().iter().filter(|hash| **hash != 0).count(), 1);
    }

    const EXAMPLE: u64 = 0x1cc3_32ed_d92a_427e;
}
