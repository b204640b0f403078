//! Which digests a link is still to be told, by buckets of their owners: however many there are, no
//! more than one message of them waits for a link.

use weave_wire::link::gossip::{BUCKETS, Digest, PartKey, bucket_of};

const _: () = assert!(BUCKETS == u64::BITS as usize);

/// What is still to be told, and how far it was told.
#[derive(Debug, Default)]
pub(crate) struct Telling {
    /// Bit N: all of bucket N, from its start.
    buckets: u64,
    /// The last one told of the bucket that is under way.
    under_way: Option<PartKey>,
    /// The bucket that is next in turn.
    turn: u32,
}

impl Telling {
    /// All there is.
    pub(crate) const fn add_all(&mut self) {
        self.buckets = u64::MAX;
    }

    /// All of one bucket. If it is under way, once more after that, so that others have their turn
    /// however often one is added.
    pub(crate) const fn add(&mut self, bucket: usize) {
        self.buckets |= 1 << (bucket % BUCKETS);
    }

    /// True if there is nothing to tell.
    pub(crate) const fn is_empty(&self) -> bool {
        self.buckets == 0 && self.under_way.is_none()
    }

    /// The next digests, at most `max`, each bucket by rising key. `of_bucket` gives those of a bucket
    /// in any order.
    pub(crate) fn next(&mut self, max: usize, of_bucket: impl Fn(usize) -> Vec<Digest>) -> Vec<Digest> {
        let mut next = Vec::new();
        while next.len() < max && !self.is_empty() {
            let (bucket, after) = match self.under_way.take() {
                Some(last) => (bucket_of(last.owner), Some(last)),
                None => (self.take_bucket(), None),
            };
            let mut digests = of_bucket(bucket);
            digests.retain(|digest| after.is_none_or(|after| digest.key > after));
            digests.sort_unstable_by_key(|digest| digest.key);
            let room = max - next.len();
            if digests.len() > room {
                digests.truncate(room);
                self.under_way = digests.last().map(|digest| digest.key);
            }
            next.append(&mut digests);
        }
        next
    }

    fn take_bucket(&mut self) -> usize {
        let bucket = (self.turn + self.buckets.rotate_right(self.turn).trailing_zeros()) % u64::BITS;
        self.buckets &= !(1 << bucket);
        self.turn = (bucket + 1) % u64::BITS;
        bucket as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use weave_wire::link::gossip::{PartId, Version};
    use weave_wire::{PeerName, Uid};

    /// Parts of owners that share bucket `bucket`.
    fn bucket(bucket: usize) -> Vec<Digest> {
        let digest = |(owner, part): (u8, u16)| {
            #[expect(clippy::cast_possible_truncation, reason = "a bucket is under 64")]
            let owner = PeerName::new([2, owner, 0, 0, 0, bucket as u8])?;
            let version = Version { version: 1, uid: Uid(1) };
            Some(Digest { key: PartKey { owner, part: PartId(part) }, version })
        };
        let keys = (0..5).rev().flat_map(|owner| (0..10).map(move |part| (owner, part)));
        keys.filter_map(digest).collect()
    }

    #[test]
    fn everything_is_told_once_in_pieces_of_any_size() {
        for max in [1, 7, 50, 51, 100, 4096] {
            let mut telling = Telling::default();
            telling.add_all();
            let mut told = Vec::new();
            while !telling.is_empty() {
                let next = telling.next(max, bucket);
                assert!(next.len() <= max && (!next.is_empty() || telling.is_empty()));
                told.extend(next.into_iter().map(|digest| digest.key));
            }
            let different: BTreeSet<_> = told.iter().copied().collect();
            assert_eq!((told.len(), different.len()), (64 * 50, 64 * 50), "{max}");
        }
    }

    #[test]
    fn a_bucket_that_is_added_again_and_again_keeps_no_other_from_its_turn() {
        let mut telling = Telling::default();
        telling.add_all();
        let mut buckets = BTreeSet::new();
        for _ in 0..64 * 2 * 2 {
            telling.add(3);
            buckets.extend(telling.next(25, bucket).iter().map(|digest| bucket_of(digest.key.owner)));
        }
        assert_eq!(buckets.len(), 64);
    }
}
