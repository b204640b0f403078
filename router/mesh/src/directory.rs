//! What all peers say of keys (MACs, addresses, names): an index over their parts.
//!
//! Which entries of one key are in does not depend on the order in which parts come; beyond the limits
//! of a peer and of all, which nobody reaches who keeps to the limits for his own, those that came
//! first stay.

use hashbrown::HashMap;
use std::collections::{BTreeMap, BTreeSet};
use weave_wire::PeerName;
use weave_wire::link::gossip::{PartId, PartKey};

/// How much is indexed, at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Entries in all.
    pub total: usize,
    /// Entries of one peer.
    pub per_peer: usize,
    /// Entries of one key.
    pub per_key: usize,
}

/// Entries of one peer that wait for room, at most. Further ones are refused until their part
/// changes, or none waits any more.
const WAITING_PER_PEER: usize = 256;

/// The index. An entry beyond a limit waits until there is room for it.
#[derive(Debug)]
pub(crate) struct Directory<K, V> {
    limits: Limits,
    entries: BTreeMap<K, Vec<(PartKey, V)>>,
    /// What each part says, in order.
    sources: BTreeMap<PartKey, Vec<(K, V)>>,
    per_peer: HashMap<PeerName, usize>,
    total: usize,
    /// Entries that did not fit when their part came, [`WAITING_PER_PEER`] at most.
    waiting: BTreeMap<PeerName, BTreeSet<(PartKey, K, V)>>,
    /// Peers of which more did not fit than may wait.
    overflowed: BTreeSet<PeerName>,
    changed: BTreeSet<K>,
    /// How often an entry did not fit.
    pub(crate) refused: u64,
}

impl<K: Ord + Clone, V: Ord + Clone> Directory<K, V> {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            entries: BTreeMap::new(),
            sources: BTreeMap::new(),
            per_peer: HashMap::new(),
            total: 0,
            waiting: BTreeMap::new(),
            overflowed: BTreeSet::new(),
            changed: BTreeSet::new(),
            refused: 0,
        }
    }

    /// What part `source` says from now on; nothing removes it.
    pub(crate) fn set(&mut self, source: PartKey, mut new: Vec<(K, V)>) {
        new.sort();
        new.dedup();
        let old = if new.is_empty() {
            self.sources.remove(&source)
        } else {
            self.sources.insert(source, new.clone())
        };
        let old = old.unwrap_or_default();
        let mut removed = false;
        for entry in old.iter().filter(|entry| new.binary_search(entry).is_err()) {
            removed |= self.remove(source, entry);
        }
        let overflowed = self.overflowed.contains(&source.owner);
        for entry in new {
            let is_old = old.binary_search(&entry).is_ok();
            if !is_old || (overflowed && !self.holds(source, &entry)) {
                self.offer(source, entry);
            }
        }
        if removed {
            self.retry();
        }
    }

    /// Takes an entry in, or lets it wait.
    fn offer(&mut self, source: PartKey, (key, value): (K, V)) {
        if !self.insert(source, key.clone(), value.clone()) {
            self.refused += 1;
            self.wait(source, key, value);
        }
    }

    fn wait(&mut self, source: PartKey, key: K, value: V) {
        let waiting = self.waiting.entry(source.owner).or_default();
        if waiting.len() < WAITING_PER_PEER {
            waiting.insert((source, key, value));
        } else {
            self.overflowed.insert(source.owner);
        }
    }

    /// True if an entry is there, or waits.
    fn holds(&self, source: PartKey, (key, value): &(K, V)) -> bool {
        let waiting = self.waiting.get(&source.owner);
        self.get(key).iter().any(|(from, says)| *from == source && says == value)
            || waiting.is_some_and(|waiting| waiting.contains(&(source, key.clone(), value.clone())))
    }

    /// Takes in what waited, as far as there is room now, and then what could not even wait.
    fn retry(&mut self) {
        self.retry_waiting();
        let is_over = |owner: &PeerName| !self.waiting.contains_key(owner);
        let over: Vec<_> = self.overflowed.iter().copied().filter(is_over).collect();
        for owner in over {
            self.overflowed.remove(&owner);
            let of_owner = self.sources.range(PartKey { owner, part: PartId(0) }..);
            let lost: Vec<_> = of_owner
                .take_while(|(source, _)| source.owner == owner)
                .flat_map(|(source, says)| says.iter().map(|entry| (*source, entry)))
                .filter(|(source, entry)| !self.holds(*source, entry))
                .map(|(source, entry)| (source, entry.clone()))
                .collect();
            for (source, entry) in lost {
                self.offer(source, entry);
            }
        }
    }

    fn retry_waiting(&mut self) {
        for (source, key, value) in std::mem::take(&mut self.waiting).into_values().flatten() {
            if !self.insert(source, key.clone(), value.clone()) {
                self.wait(source, key, value);
            }
        }
    }

    fn insert(&mut self, source: PartKey, key: K, value: V) -> bool {
        let own = self.per_peer.get(&source.owner).copied().unwrap_or_default();
        if own >= self.limits.per_peer {
            return false;
        }
        if self.get(&key).len() >= self.limits.per_key {
            let last = self.last_with(&key, (source, value.clone()));
            let Some((last_source, last_value)) = last else { return false };
            self.remove(last_source, &(key.clone(), last_value.clone()));
            self.wait(last_source, key.clone(), last_value);
        } else if self.total >= self.limits.total {
            return false;
        }
        let own = self.per_peer.get(&source.owner).copied().unwrap_or_default();
        self.per_peer.insert(source.owner, own + 1);
        self.total += 1;
        self.changed.insert(key.clone());
        self.entries.entry(key).or_default().push((source, value));
        true
    }

    /// Which entry of a key has to go for `new`; `None`: that itself. Everywhere the same one, in
    /// whatever order parts come: each peer's first before any peer's second, so that nobody takes all
    /// places of a key, and of those the lowest.
    fn last_with(&self, key: &K, new: (PartKey, V)) -> Option<(PartKey, V)> {
        let mut all: Vec<_> = self.get(key).iter().chain([&new]).collect();
        all.sort();
        let mut counts = BTreeMap::<PeerName, usize>::new();
        let ranked = all.into_iter().map(|entry| {
            let count = counts.entry(entry.0.owner).or_default();
            *count += 1;
            (*count, entry)
        });
        let (_, last) = ranked.max()?;
        (*last != new).then(|| last.clone())
    }

    fn remove(&mut self, source: PartKey, (key, value): &(K, V)) -> bool {
        let waiting = self.waiting.get_mut(&source.owner);
        if waiting.is_some_and(|waiting| waiting.remove(&(source, key.clone(), value.clone()))) {
            return false;
        }
        let Some(entries) = self.entries.get_mut(key) else { return false };
        let Some(at) = entries.iter().position(|(from, says)| *from == source && says == value) else {
            return false;
        };
        entries.remove(at);
        if entries.is_empty() {
            self.entries.remove(key);
        }
        if let Some(own) = self.per_peer.get_mut(&source.owner) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                self.per_peer.remove(&source.owner);
            }
        }
        self.total = self.total.saturating_sub(1);
        self.changed.insert(key.clone());
        true
    }

    /// What is said of a key, and in which part.
    pub(crate) fn get(&self, key: &K) -> &[(PartKey, V)] {
        self.entries.get(key).map_or(&[], Vec::as_slice)
    }

    /// Entries in all; not walked.
    pub(crate) const fn count(&self) -> usize {
        self.total
    }

    /// Entries of one peer; not walked.
    pub(crate) fn count_of(&self, owner: PeerName) -> usize {
        self.per_peer.get(&owner).copied().unwrap_or_default()
    }

    /// Entries of each peer that has any; not walked.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (PeerName, usize)> {
        self.per_peer.iter().filter(|(_, count)| **count > 0).map(|(owner, count)| (*owner, *count))
    }

    /// All keys and what is said of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &[(PartKey, V)])> {
        self.entries.iter().map(|(key, says)| (key, says.as_slice()))
    }

    /// Takes the keys of which something else is said than at the last call.
    pub(crate) fn take_changed(&mut self) -> BTreeSet<K> {
        std::mem::take(&mut self.changed)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::topology::tests::peer;
    use proptest::prelude::*;

    fn source(owner: u16, part: u16) -> PartKey {
        PartKey { owner: peer(owner), part: PartId(part) }
    }

    #[test]
    fn only_what_differs_counts_as_changed() {
        let mut directory = Directory::new(Limits { total: 9, per_peer: 9, per_key: 9 });
        directory.set(source(1, 0), vec![("a", 1), ("b", 1)]);
        assert_eq!(directory.take_changed(), BTreeSet::from(["a", "b"]));
        directory.set(source(1, 0), vec![("a", 1), ("b", 2)]);
        assert_eq!(directory.take_changed(), BTreeSet::from(["b"]));
        directory.set(source(1, 0), Vec::new());
        assert_eq!(directory.take_changed(), BTreeSet::from(["a", "b"]));
        assert_eq!(directory.iter().count(), 0);
    }

    #[test]
    fn what_does_not_fit_waits_for_room() {
        let mut directory = Directory::new(Limits { total: 3, per_peer: 2, per_key: 1 });
        directory.set(source(1, 0), vec![("a", 1), ("b", 1), ("c", 1)]);
        directory.set(source(2, 0), vec![("a", 1), ("d", 1), ("e", 1)]);
        assert_eq!(directory.iter().map(|(key, _)| *key).collect::<Vec<_>>(), ["a", "b", "d"]);
        assert_eq!(directory.refused, 3);
        assert_eq!((directory.count(), directory.count_of(peer(1)), directory.count_of(peer(2))), (3, 2, 1));
        directory.set(source(1, 0), Vec::new());
        assert_eq!(directory.iter().map(|(key, _)| *key).collect::<Vec<_>>(), ["a", "d"]);
        assert_eq!((directory.count(), directory.count_of(peer(1)), directory.count_of(peer(3))), (2, 0, 0));
        assert_eq!(directory.get(&"a")[0].0.owner, peer(2));
    }

    #[test]
    fn nobody_takes_all_places_of_a_key() {
        let mut directory = Directory::new(Limits { total: 99, per_peer: 99, per_key: 4 });
        let of = |directory: &Directory<_, _>, owner: u16| {
            directory.get(&"a").iter().filter(|(from, _)| from.owner == peer(owner)).count()
        };
        directory.set(source(1, 0), (0..9).map(|n| ("a", n)).collect());
        assert_eq!(of(&directory, 1), 4);
        directory.set(source(2, 0), vec![("a", 1)]);
        assert_eq!([1, 2].map(|owner| of(&directory, owner)), [3, 1]);
        // Never more than the others have, but what is free.
        directory.set(source(2, 0), (0..9).map(|n| ("a", n)).collect());
        assert_eq!([1, 2].map(|owner| of(&directory, owner)), [2, 2]);
        assert_eq!((directory.count(), directory.count_of(peer(1)), directory.count_of(peer(2))), (4, 2, 2));
        for owner in 3..=9 {
            directory.set(source(owner, 0), vec![("a", 1)]);
        }
        assert_eq!([1, 2, 3, 4, 5].map(|owner| of(&directory, owner)), [1, 1, 1, 1, 0]);
        // Whoever waited comes when others go, as far as there is room.
        (2..=9).for_each(|owner| directory.set(source(owner, 0), Vec::new()));
        assert_eq!((of(&directory, 1), directory.count()), (4, 4));
    }

    #[test]
    fn what_could_not_even_wait_comes_when_there_is_room_at_last() {
        const KEPT: usize = 10;
        let said: Vec<_> = (0..KEPT + WAITING_PER_PEER + 50).map(|n| ("a", n)).collect();
        let limits = Limits { total: 1_000, per_peer: 1_000, per_key: KEPT };
        // Its part changes while others wait; or it does not, and none is left to wait.
        for touched in [true, false] {
            let mut directory = Directory::new(limits);
            directory.set(source(2, 0), (1_000..1_000 + KEPT).map(|n| ("a", n)).collect());
            directory.set(source(1, 0), said.clone());
            assert_eq!(directory.count(), KEPT);
            let mut left = said.clone();
            while left.len() > KEPT {
                // Those that are in give way, ten by ten.
                let gone: Vec<_> = directory.get(&"a").iter().map(|(_, n)| ("a", *n)).collect();
                left.retain(|entry| !gone.contains(entry));
                directory.set(source(2, 0), Vec::new());
                directory.set(source(1, 0), left.clone());
                if touched {
                    directory.set(source(1, 1), vec![("b", left.len())]);
                }
                let has = directory.get(&"a").len();
                assert_eq!(has, KEPT.min(left.len()), "of {}", left.len());
            }
        }
    }

    /// The first entry of each peer, then the second of each, up to a limit; sorted.
    fn first(says: BTreeSet<(PartKey, u8)>, limit: usize) -> Vec<(PartKey, u8)> {
        let mut of_peers = BTreeMap::<PeerName, Vec<(PartKey, u8)>>::new();
        for entry in says {
            of_peers.entry(entry.0.owner).or_default().push(entry);
        }
        let turns = (0..8).flat_map(|turn| of_peers.values().filter_map(move |entries| entries.get(turn)));
        let mut first: Vec<_> = turns.take(limit).copied().collect();
        first.sort();
        first
    }

    type Said = Vec<(PartKey, Vec<(u8, u8)>)>;

    /// What parts say, several versions of some.
    fn said() -> impl Strategy<Value = Said> {
        let says = proptest::collection::vec((0_u8..3, 0_u8..4), 0..8);
        let part = (1_u16..4, 0_u16..3).prop_map(|(owner, part)| source(owner, part));
        proptest::collection::vec((part, says), 0..20)
    }

    proptest! {
        /// The last version of each part counts, in whatever order parts come and however often.
        #[test]
        fn the_index_depends_on_the_last_versions_only(
            said in said(),
            order in any::<prop::sample::Index>(),
            limit in 1_usize..5,
        ) {
            let limits = Limits { total: 1000, per_peer: 1000, per_key: limit };
            let last: BTreeMap<PartKey, Vec<(u8, u8)>> = said.iter().cloned().collect();
            let mut wanted: BTreeMap<u8, BTreeSet<(PartKey, u8)>> = BTreeMap::new();
            for (source, says) in &last {
                for (key, value) in says {
                    wanted.entry(*key).or_default().insert((*source, *value));
                }
            }
            let wanted: Vec<(u8, Vec<(PartKey, u8)>)> =
                wanted.into_iter().map(|(key, says)| (key, first(says, limit))).collect();
            let found = |directory: &Directory<u8, u8>| {
                let sorted = |says: &[(PartKey, u8)]| {
                    let mut says = says.to_vec();
                    says.sort();
                    says
                };
                directory.iter().map(|(key, says)| (*key, sorted(says))).collect::<Vec<_>>()
            };
            let mut first = Directory::new(limits);
            for (source, says) in &said {
                first.set(*source, says.clone());
            }
            prop_assert_eq!(found(&first), wanted.clone());
            prop_assert_eq!(first.count(), wanted.iter().map(|(_, says)| says.len()).sum::<usize>());
            // Another order, each twice.
            let mut second = Directory::new(limits);
            let mut parts: Vec<_> = last.into_iter().collect();
            if !parts.is_empty() {
                let by = order.index(parts.len());
                parts.rotate_left(by);
                parts[by..].reverse();
            }
            for (source, says) in parts.iter().chain(&parts) {
                second.set(*source, says.clone());
            }
            prop_assert_eq!(found(&second), wanted);
        }
    }

    #[test]
    #[expect(clippy::print_stdout, reason = "figures for people")]
    fn a_hundred_thousand_names_are_counted_without_walking_them() {
        use std::time::Instant;
        use weave_wire::HostName;
        let mut directory = Directory::new(Limits { total: 1 << 17, per_peer: 1 << 12, per_key: 64 });
        for owner in 0..25 {
            let name = |n: u32| format!("web-{n}.host{owner}.weave.local").parse::<HostName>().unwrap();
            directory.set(source(owner, 0), (0..4000).map(|n| (name(n), n)).collect());
        }
        let count = || {
            let begun = Instant::now();
            let counted = (directory.count(), directory.count_of(peer(7)));
            (begun.elapsed(), counted)
        };
        // The best of several: what else the machine does makes one of them long, not all.
        let (counting, counted) = (0..10).map(|_| count()).min().unwrap_or_default();
        let mut by_peer: Vec<_> = directory.counts().collect();
        by_peer.sort_unstable();
        assert_eq!(by_peer, (0..25).map(|owner| (peer(owner), 4000)).collect::<Vec<_>>());
        let begun = Instant::now();
        let walked = directory.iter().flat_map(|(_, says)| says).count();
        let walking = begun.elapsed();
        println!("100,000 entries: counted in {counting:?}, walked in {walking:?}");
        let begun = Instant::now();
        let copies: Vec<HostName> =
            directory.iter().flat_map(|(name, says)| says.iter().map(|_| name.clone())).collect();
        println!("copied in {:?}", begun.elapsed());
        assert_eq!((counted, walked, copies.len()), ((100_000, 4_000), 100_000, 100_000));
        assert!(counting * 10 < walking, "counted in {counting:?}, walked in {walking:?}");
    }
}
