//! Storm control: how many frames for everybody (broadcast, multicast, unknown unicast) a
//! host lets through.
//!
//! Each such frame costs every host of the mesh and every container on it, so that one
//! container could drown all. Frames from the tap are limited by their source MAC, frames
//! of other peers that are sent on by their source peer, and either kind in all. Known
//! unicast never comes here.
//!
//! The limits are those of the host. Shards share them, the one thing that they share: a
//! share for each shard would leave a multicast stream, which has one flow and hence one
//! shard, a sixty-fourth of its limit on a large host. What is shared costs little: a few
//! relaxed loads for a frame that is dropped and three updates without a lock for one that
//! passes, of which there are 100,000 a second at most.
//!
//! # What a source that changes its address can do
//!
//! A bucket is chosen by a keyed hash of the source and is never given to anybody else, so
//! that no number of addresses makes room in the table or frees a source of its limit: who
//! sends under a million addresses fills all buckets a little, not one. All addresses
//! together stay under the limit in all, and those that are not attached to this host leave
//! half of its burst to those that are, which therefore come first. Two sources that meet
//! in a bucket would share its rate; each has two, in rows with hashes of their own, and is
//! held back only when both are empty. The limit in all lets no more than five sources
//! empty their buckets at a time, so that a bystander is hit with a chance of
//! (5 / 1024)², and nobody can choose whom without the key. (Who takes the very address of
//! another uses up that one's bucket. That is spoofing, which no count prevents.)

use crate::counters::DropReason;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use weave_wire::{MacAddr, PeerName};

/// Frames for everybody of one source, a second.
pub const SOURCE_RATE: u64 = 20_000;
/// Frames for everybody of all sources, a second.
pub const TOTAL_RATE: u64 = 100_000;
/// What passes at once after a silence: as much as the rate gives in this time.
const BURST: Duration = Duration::from_millis(100);
/// Buckets of a row.
const BUCKETS: usize = 1024;
/// Rows, each with a hash of its own.
const ROWS: usize = 2;
const NANOS_PER_SECOND: u64 = 1_000_000_000;
#[expect(clippy::cast_possible_truncation, reason = "a fraction of a second")]
const BURST_NANOS: u64 = BURST.as_nanos() as u64;

/// The limits of one host.
#[derive(Debug, Default)]
pub struct StormControl {
    stations: Limiter,
    peers: Limiter,
}

impl StormControl {
    /// Whether `frames` frames for everybody from the station `source` may pass, which is or
    /// is not attached to this host.
    ///
    /// # Errors
    /// [`DropReason::StormSource`] or [`DropReason::StormTotal`].
    pub fn admit_station(
        &self,
        source: MacAddr,
        attached: bool,
        frames: usize,
        now: Duration,
    ) -> Result<(), DropReason> {
        let precedence = if attached { Precedence::First } else { Precedence::Last };
        self.stations.admit(source.0, precedence, frames, now).map_err(|excess| match excess {
            Excess::Source => DropReason::StormSource,
            Excess::Total => DropReason::StormTotal,
        })
    }

    /// Whether a frame for everybody of another peer may be sent on.
    ///
    /// # Errors
    /// [`DropReason::StormPeer`] or [`DropReason::StormTotal`].
    pub fn admit_peer(&self, source: PeerName, now: Duration) -> Result<(), DropReason> {
        self.peers.admit(source.to_bytes(), Precedence::First, 1, now).map_err(|excess| match excess {
            Excess::Source => DropReason::StormPeer,
            Excess::Total => DropReason::StormTotal,
        })
    }
}

/// Which limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Excess {
    Source,
    Total,
}

/// How much of the burst of all a source may take.
#[derive(Debug, Clone, Copy)]
enum Precedence {
    First,
    Last,
}

impl Precedence {
    const fn burst(self) -> u64 {
        match self {
            Self::First => BURST_NANOS,
            Self::Last => BURST_NANOS / 2,
        }
    }
}

/// Limits of sources of one kind, and of all together.
#[derive(Debug)]
struct Limiter {
    hash: RandomState,
    rows: [Box<[Bucket]>; ROWS],
    total: Bucket,
}

impl Default for Limiter {
    fn default() -> Self {
        let row = || (0..BUCKETS).map(|_| Bucket::default()).collect();
        Self { hash: RandomState::new(), rows: std::array::from_fn(|_| row()), total: Bucket::default() }
    }
}

impl Limiter {
    fn admit(
        &self,
        source: [u8; 6],
        precedence: Precedence,
        frames: usize,
        now: Duration,
    ) -> Result<(), Excess> {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let frames = frames as u64;
        let buckets = self.buckets(source);
        if !buckets.iter().any(|bucket| bucket.has_room(now, BURST_NANOS)) {
            return Err(Excess::Source);
        }
        if !self.total.has_room(now, precedence.burst()) {
            return Err(Excess::Total);
        }
        for bucket in buckets {
            bucket.take(now, frames * (NANOS_PER_SECOND / SOURCE_RATE));
        }
        self.total.take(now, frames * (NANOS_PER_SECOND / TOTAL_RATE));
        Ok(())
    }

    /// The buckets of `source`, one in each row.
    fn buckets(&self, source: [u8; 6]) -> [&Bucket; ROWS] {
        let hash = self.hash.hash_one(source);
        #[expect(clippy::cast_possible_truncation, reason = "what is cut off belongs to other rows")]
        let place = |row: usize| (hash >> (row * 32)) as usize % BUCKETS;
        std::array::from_fn(|row| &self.rows[row][place(row)])
    }
}

/// A bucket of tokens, kept as the time since boot until which its rate is used up, ns (the
/// generic cell rate algorithm of ITU-T I.371): what is not in the future is a full bucket.
#[derive(Debug, Default)]
struct Bucket(AtomicU64);

impl Bucket {
    /// True if less than `burst` ns of the rate are used up beforehand. One frame more may
    /// pass then, and a super-frame whole: its bucket is in debt until that is paid.
    fn has_room(&self, now: u64, burst: u64) -> bool {
        self.0.load(Ordering::Relaxed) <= now.saturating_add(burst)
    }

    /// Uses up `cost` ns of the rate. A bucket without room has no more than that to pay
    /// for what passed by room in another: else the debt of a bucket that two sources share
    /// would grow for ever.
    fn take(&self, now: u64, cost: u64) {
        let empty = now.saturating_add(BURST_NANOS + cost);
        let spend = |until: u64| Some(until.max(until.max(now).saturating_add(cost).min(empty)));
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const START: Duration = Duration::from_secs(100);
    const SECOND: Duration = Duration::from_secs(1);

    fn mac(number: u32) -> MacAddr {
        let [a, b, c, d] = number.to_be_bytes();
        MacAddr([2, 7, a, b, c, d])
    }

    /// Sources that share no bucket with one another, each in another bucket of every row.
    fn strangers(storm: &StormControl, count: usize) -> Vec<MacAddr> {
        let mut taken: Vec<*const Bucket> = Vec::new();
        let mut found = Vec::new();
        for number in 0.. {
            if found.len() == count {
                break;
            }
            let buckets = storm.stations.buckets(mac(number).0).map(std::ptr::from_ref);
            if !buckets.iter().any(|bucket| taken.contains(bucket)) {
                taken.extend(buckets);
                found.push(mac(number));
            }
        }
        found
    }

    /// Frames of each source that pass in `time` when each offers `rate` a second.
    fn passing(storm: &StormControl, sources: &[(MacAddr, bool)], rate: u64, time: Duration) -> Vec<u64> {
        let mut passed = vec![0; sources.len()];
        for step in 0..rate * time.as_secs() {
            let now = START + Duration::from_nanos(step * (NANOS_PER_SECOND / rate));
            for (passed, (source, attached)) in passed.iter_mut().zip(sources) {
                *passed += u64::from(storm.admit_station(*source, *attached, 1, now).is_ok());
            }
        }
        passed
    }

    /// What may pass of `rate` in `seconds`.
    fn most(rate: u64, seconds: u64) -> u64 {
        rate * seconds + rate / 10 + 1
    }

    #[test]
    fn a_source_within_its_rate_loses_nothing() {
        let storm = StormControl::default();
        assert_eq!(passing(&storm, &[(mac(1), false)], SOURCE_RATE, 3 * SECOND), [3 * SOURCE_RATE]);
    }

    #[test]
    fn a_storm_passes_at_the_rate_of_one_source() {
        let storm = StormControl::default();
        let [passed] = passing(&storm, &[(mac(1), true)], 500_000, 3 * SECOND)[..] else { panic!() };
        assert!((3 * SOURCE_RATE..=most(SOURCE_RATE, 3)).contains(&passed), "{passed}");
        let late = START + 3 * SECOND;
        let _ = storm.admit_station(mac(1), true, 1, late);
        assert_eq!(storm.admit_station(mac(1), true, 1, late), Err(DropReason::StormSource));
        // After a silence as at first.
        assert_eq!(storm.admit_station(mac(1), true, 1, late + SECOND), Ok(()));
    }

    #[test]
    fn a_super_frame_counts_as_its_segments() {
        let storm = StormControl::default();
        let offered = 10_000;
        let of = |step| START + Duration::from_nanos(step * (NANOS_PER_SECOND / offered));
        let passed = (0..2 * offered).filter(|&step| storm.admit_station(mac(1), true, 64, of(step)).is_ok());
        let frames = 64 * passed.count() as u64;
        assert!((2 * SOURCE_RATE..=most(SOURCE_RATE, 2) + 64).contains(&frames), "{frames}");
    }

    #[test]
    fn all_sources_together_pass_at_the_rate_of_all() {
        let storm = StormControl::default();
        let sources: Vec<_> = strangers(&storm, 20).into_iter().map(|source| (source, true)).collect();
        let passed: u64 = passing(&storm, &sources, SOURCE_RATE, 2 * SECOND).iter().sum();
        assert!((2 * TOTAL_RATE..=most(TOTAL_RATE, 2)).contains(&passed), "{passed}");
        let late = START + 2 * SECOND;
        // Their own buckets have room, and drops say what they lack.
        assert_eq!(storm.admit_station(mac(1 << 30), false, 1, late), Err(DropReason::StormTotal));
    }

    #[test]
    fn a_million_addresses_free_nobody_of_the_limit_and_hold_nobody_attached_back() {
        let storm = StormControl::default();
        let [heavy, quiet] = strangers(&storm, 2)[..] else { panic!() };
        let (mut passed, mut flood) = ([0; 2], 0);
        const ADDRESSES: u32 = 1_000_000;
        // A million a second, in which the heavy one offers 100,000 and the quiet one 100.
        for number in 0..ADDRESSES {
            let now = START + Duration::from_micros(number.into());
            flood += u64::from(storm.admit_station(mac(1 << 20 | number), false, 1, now).is_ok());
            for (index, source, each) in [(0, heavy, 10), (1, quiet, 10_000)] {
                let due = number % each == 0;
                passed[index] += u64::from(due && storm.admit_station(source, true, 1, now).is_ok());
            }
        }
        assert!(passed[0] <= most(SOURCE_RATE, 1), "the heavy source passes with {}", passed[0]);
        // The flood takes a little of its buckets, a hundredth at most.
        assert!(passed[0] >= SOURCE_RATE * 9 / 10, "the heavy source passes with {} only", passed[0]);
        assert_eq!(passed[1], 100, "the quiet source lost frames");
        assert!(flood + passed[0] + passed[1] <= most(TOTAL_RATE, 1), "{flood} and {passed:?}");
    }

    #[test]
    fn who_shares_a_bucket_with_a_storm_still_has_the_other() {
        let storm = StormControl::default();
        let heavy = mac(1);
        let [shared, _] = storm.stations.buckets(heavy.0);
        let meets = |number: &u32| {
            let [first, second] = storm.stations.buckets(mac(*number).0);
            std::ptr::eq(first, shared) && !std::ptr::eq(second, storm.stations.buckets(heavy.0)[1])
        };
        let bystander = mac((2..).find(meets).unwrap());
        let passed = passing(&storm, &[(heavy, true), (bystander, true)], 50_000, 2 * SECOND);
        for passed in passed {
            // Neither is held back by the other, nor does the room of one add to that of the other.
            assert!((2 * SOURCE_RATE..=most(SOURCE_RATE, 2)).contains(&passed), "{passed}");
        }
        // And nothing is left of it.
        let late = START + 2 * SECOND + BURST;
        assert_eq!(storm.admit_station(bystander, true, 1, late), Ok(()));
    }

    #[test]
    fn peers_have_limits_of_their_own() {
        let storm = StormControl::default();
        let peer = |number| PeerName::new([2, 0, 0, 0, 0, number]).unwrap();
        let admitted = (0..SOURCE_RATE).filter(|_| storm.admit_peer(peer(1), START).is_ok()).count() as u64;
        assert_eq!(admitted, SOURCE_RATE / 10 + 1);
        assert_eq!(storm.admit_peer(peer(1), START), Err(DropReason::StormPeer));
        let many = (2..=100).map(|number| {
            (0..SOURCE_RATE / 10).filter(|_| storm.admit_peer(peer(number), START).is_ok()).count() as u64
        });
        assert!(many.sum::<u64>() <= TOTAL_RATE / 10);
        assert_eq!(storm.admit_peer(peer(101), START), Err(DropReason::StormTotal));
        // What is sent on for others takes nothing from the containers of this host.
        assert_eq!(storm.admit_station(mac(1), false, 1, START), Ok(()));
    }
}
