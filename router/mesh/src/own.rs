//! Our own parts: their versions, and when changes of them are published.

use crate::random::Random;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use weave_wire::link::gossip::{PartId, SignedPart, Version};

/// A change waits this long at least, so that what belongs to it can join it; not
/// that of stations after a while without any: one that moves is not to be
/// believed where it was.
const SHORTEST_WAIT: Duration = Duration::from_millis(20);
/// A change waits this long at most, if it is the first for a while.
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// Shortest time between two publications with an urgent change of names or stations: each
/// is to be known everywhere within 100 ms of the one before.
const URGENT_WAIT: Duration = Duration::from_millis(50);
/// The same of a lost link, which changes the routes of all.
const LOSS_WAIT: Duration = Duration::from_millis(100);
/// Longest time between two publications under constant change: with 300 peers
/// that all meet at once, each new link changes two records that all must read.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Our parts as published.
#[derive(Debug)]
pub(crate) struct OwnParts {
    parts: BTreeMap<PartId, SignedPart>,
    /// Versions seen of our parts, or that a former run may have used.
    floors: BTreeMap<PartId, u64>,
    first_version: u64,
    changed: BTreeSet<PartId>,
    /// To be published again even if the content is the same.
    forced: BTreeSet<PartId>,
    publish_at: Option<Duration>,
    published: Option<Duration>,
    wait: Duration,
}

impl OwnParts {
    pub(crate) fn new(run: u32) -> Self {
        Self {
            parts: BTreeMap::new(),
            floors: BTreeMap::new(),
            first_version: u64::from(run) << 32,
            changed: BTreeSet::new(),
            forced: BTreeSet::new(),
            publish_at: None,
            published: None,
            wait: FIRST_WAIT,
        }
    }

    pub(crate) fn part(&self, part: PartId) -> Option<&SignedPart> {
        self.parts.get(&part)
    }

    /// True for a version that a run before ours may have written. A host that runs on a copy of our
    /// state hears ours, and goes above them.
    pub(crate) const fn is_of_former_run(&self, version: Version) -> bool {
        version.version < self.first_version
    }

    pub(crate) fn parts(&self) -> impl Iterator<Item = &SignedPart> {
        self.parts.values()
    }

    /// Notes that the content of a part changed; `urgent`: something is gone.
    pub(crate) fn change(&mut self, part: PartId, urgent: bool, now: Duration, random: &mut Random) {
        self.changed.insert(part);
        // What is lost with a link comes in pieces, and two runs of one name must not
        // keep step: links wait.
        let shortest = if part == PartId::HOST { LOSS_WAIT } else { URGENT_WAIT };
        let quiet = self.published.is_none_or(|last| now.saturating_sub(last) >= shortest);
        let wait = if urgent && quiet && part != PartId::HOST {
            Duration::ZERO
        } else {
            random.between(SHORTEST_WAIT, FIRST_WAIT)
        };
        let soon = now.saturating_add(wait);
        let wait = if urgent { self.wait.min(shortest) } else { self.wait };
        let at = self.published.map_or(soon, |last| soon.max(last.saturating_add(wait)));
        self.publish_at = Some(self.publish_at.map_or(at, |before| before.min(at)));
    }

    /// A copy of one of our parts is at or above ours: ours goes above it, by
    /// `margin` at least. False if there is no version above it.
    pub(crate) fn raise_above(&mut self, part: PartId, seen: Version, margin: u64) -> bool {
        if seen.version >= u64::MAX - 1 {
            return false;
        }
        let floor = self.floors.entry(part).or_default();
        *floor = seen.version.saturating_add(margin).min(u64::MAX - 2).max(*floor);
        self.forced.insert(part);
        true
    }

    /// When changes are to be published.
    pub(crate) const fn publish_at(&self) -> Option<Duration> {
        self.publish_at
    }

    /// Takes the parts to be published now.
    pub(crate) fn take_changed(&mut self, now: Duration) -> BTreeSet<PartId> {
        self.publish_at = None;
        let quiet = self.published.is_none_or(|last| now.saturating_sub(last) > 2 * LONGEST_WAIT);
        self.wait = if quiet { FIRST_WAIT } else { (self.wait * 2).min(LONGEST_WAIT) };
        self.published = Some(now);
        std::mem::take(&mut self.changed)
    }

    /// The version the part with this content gets; `None` if it says nothing
    /// new, or if there is no version left.
    pub(crate) fn next_version(&mut self, part: PartId, content: &[u8]) -> Option<u64> {
        let forced = self.forced.remove(&part);
        let old = self.parts.get(&part);
        if !forced && old.map_or(content.is_empty(), |old| old.content == content) {
            return None;
        }
        let floor = self.floors.get(&part).copied().unwrap_or_default();
        let last = old.map_or(self.first_version, |old| old.version).max(floor);
        last.checked_add(1).filter(|version| *version != u64::MAX)
    }

    pub(crate) fn insert(&mut self, part: SignedPart) {
        self.parts.insert(part.part, part);
    }
}

/// Distributes entries over `parts` parts of at most `limit` bytes: each goes
/// where its hash says, so that a change touches one part, or to the next part
/// with room. Returns the parts and how many entries found no room.
pub(crate) fn place<T>(
    entries: impl IntoIterator<Item = (u64, usize, T)>,
    parts: u16,
    limit: usize,
) -> (Vec<Vec<T>>, u64) {
    let mut placed: Vec<(usize, Vec<T>)> = (0..parts).map(|_| (0, Vec::new())).collect();
    let mut homeless = 0;
    for (hash, len, entry) in entries {
        let first = usize::try_from(hash % u64::from(parts.max(1))).unwrap_or_default();
        let first = first.min(placed.len());
        let (before, from) = placed.split_at_mut(first);
        match from.iter_mut().chain(before).find(|(used, _)| used + len <= limit) {
            Some((used, entries)) => {
                *used += len;
                entries.push(entry);
            }
            None => homeless += 1,
        }
    }
    (placed.into_iter().map(|(_, entries)| entries).collect(), homeless)
}

/// FNV-1a, 64 bits (draft-eastlake-fnv): only decides in which of our parts an entry is.
pub(crate) fn placement_hash(bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weave_wire::Uid;

    #[test]
    fn four_thousand_names_and_stations_fit() {
        for (parts, len) in [(PartId::STATIONS, 43), (PartId::NAMES, 200)] {
            let entries = (0..4096_u64).map(|n| (placement_hash(&n.to_be_bytes()), len, n));
            let (placed, homeless) = place(entries, parts, 16 * 1024);
            assert_eq!(homeless, 0);
            assert_eq!(placed.iter().map(Vec::len).sum::<usize>(), 4096);
            assert!(placed.iter().all(|entries| entries.len() * len <= 16 * 1024));
        }
        let (_, homeless) = place((0..5_u64).map(|n| (n, 10, n)), 2, 20);
        assert_eq!(homeless, 1);
    }

    #[test]
    fn a_version_is_above_the_run_and_all_that_was_seen() {
        let mut own = OwnParts::new(3);
        assert_eq!(own.next_version(PartId::HOST, b"a"), Some((3 << 32) + 1));
        assert_eq!(own.next_version(PartId::names(1), b""), None, "nothing to say");
        assert!(own.raise_above(PartId::names(1), Version { version: 5 << 32, uid: Uid(1) }, 0));
        assert_eq!(own.next_version(PartId::names(1), b""), Some((5 << 32) + 1));
        assert!(own.raise_above(PartId::HOST, Version { version: 6 << 32, uid: Uid(1) }, 100));
        assert_eq!(own.next_version(PartId::HOST, b"b"), Some((6 << 32) + 101));
        assert!(!own.raise_above(PartId::HOST, Version { version: u64::MAX - 1, uid: Uid(1) }, 0));
    }

    #[test]
    fn constant_change_is_published_less_often_and_a_loss_soon() {
        let mut own = OwnParts::new(0);
        let mut random = Random::new(1);
        let (mut now, mut count) = (Duration::ZERO, 0);
        while now < Duration::from_secs(10) {
            own.change(PartId::HOST, false, now, &mut random);
            if own.publish_at().is_some_and(|at| at <= now) {
                count += 1;
                own.take_changed(now);
            }
            now += Duration::from_millis(5);
        }
        assert!((10..20).contains(&count), "{count}");
        own.change(PartId::HOST, true, now, &mut random);
        assert!(own.publish_at().is_some_and(|at| at <= now + LOSS_WAIT));
    }
}
