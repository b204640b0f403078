//! What all peers say of keys (MACs, addresses, names): an index over their parts.
//!
//! Which entries of one key are in does not depend on the order in which parts come. Beyond the limit
//! of all, who has most gives way to who has less; of those who have few, who came last to who was
//! there before, so that inventing peers drives out nobody. Beyond the limit of a peer, which nobody
//! reaches who keeps to the limits for his own, those that came first stay. Our own never give way.

use std::cmp::Reverse;
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

/// Who has at most one of so many parts of all places has few. Of those that came first as many keep
/// that, whatever others tell.
const FEW: usize = 512;

/// Who comes before whom where there is no room for all: the lower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank(pub u64);

/// How good an entry of a peer is, of those of one key; the better stay.
type Weight = Option<(u32, PeerName)>;

/// What there is of one peer.
#[derive(Debug)]
struct Owner<K, V> {
    rank: Rank,
    /// Its entries that are in.
    held: BTreeSet<(PartKey, K, V)>,
    /// Those that wait for a place of their key.
    wait_for_key: BTreeSet<(PartKey, K, V)>,
    /// Those that wait for a place of the peer, or of all.
    wait_for_room: BTreeSet<(PartKey, K, V)>,
    /// More did not fit than may wait.
    overflowed: bool,
}

impl<K, V> Owner<K, V> {
    fn waiting(&self) -> usize {
        self.wait_for_key.len() + self.wait_for_room.len()
    }

    fn is_empty(&self) -> bool {
        self.held.is_empty() && self.waiting() == 0 && !self.overflowed
    }
}

/// What an entry has to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lacks {
    /// A place of its key.
    Key,
    /// A place of its peer, or of all.
    Room,
}

/// What waits for a place of one key.
#[derive(Debug)]
struct Waiting<V> {
    of_owners: BTreeMap<PeerName, BTreeSet<(PartKey, V)>>,
    /// The owners, those whose first entry is best first.
    best: BTreeSet<(Reverse<Weight>, PeerName)>,
}

impl<V: Ord + Clone> Waiting<V> {
    const fn new() -> Self {
        Self { of_owners: BTreeMap::new(), best: BTreeSet::new() }
    }

    /// Changes what waits of an owner.
    fn change(
        &mut self,
        owner: PeerName,
        weight: fn(PeerName, &V) -> Weight,
        change: impl FnOnce(&mut BTreeSet<(PartKey, V)>),
    ) {
        let weigh = |waiting: &BTreeSet<(PartKey, V)>| {
            waiting.first().map(|(_, value)| Reverse(weight(owner, value)))
        };
        let waiting = self.of_owners.entry(owner).or_default();
        let before = weigh(waiting);
        change(waiting);
        let now = weigh(waiting);
        if before != now {
            before.map(|before| self.best.remove(&(before, owner)));
            self.best.extend(now.map(|now| (now, owner)));
        }
        if now.is_none() {
            self.of_owners.remove(&owner);
        }
    }
}

/// Who gets the next place of all: those who have few as they came, then who has fewest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    Few(Rank),
    Many(usize),
}

impl Turn {
    const fn of(count: usize, rank: Rank, few: usize) -> Self {
        if count < few { Self::Few(rank) } else { Self::Many(count) }
    }
}

/// The index. An entry beyond a limit waits until there is room for it.
#[derive(Debug)]
pub(crate) struct Directory<K, V> {
    limits: Limits,
    /// Whose entries stay.
    ours: Option<PeerName>,
    weight: fn(PeerName, &V) -> Weight,
    /// By rising part and value.
    entries: BTreeMap<K, Vec<(PartKey, V)>>,
    /// What each part says, in order.
    sources: BTreeMap<PartKey, Vec<(K, V)>>,
    owners: BTreeMap<PeerName, Owner<K, V>>,
    /// Owners with entries, and how many.
    by_count: BTreeSet<(usize, PeerName)>,
    /// Owners with entries, as they came.
    by_rank: BTreeSet<(Rank, PeerName)>,
    /// Those of them, and of those without any, that only lack a place of all, in the order in which
    /// they get one.
    short: BTreeSet<(Turn, PeerName)>,
    total: usize,
    /// What waits for a place of its key.
    waiting: BTreeMap<K, Waiting<V>>,
    /// Keys of which an entry went, until others had their turn.
    freed: BTreeSet<K>,
    /// Peers that had more than may wait, and of which none waits any more.
    drained: BTreeSet<PeerName>,
    changed: BTreeSet<K>,
    /// How often an entry did not fit.
    pub(crate) refused: u64,
}

impl<K: Ord + Clone, V: Ord + Clone> Directory<K, V> {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            ours: None,
            weight: |_, _| None,
            entries: BTreeMap::new(),
            sources: BTreeMap::new(),
            owners: BTreeMap::new(),
            by_count: BTreeSet::new(),
            by_rank: BTreeSet::new(),
            short: BTreeSet::new(),
            total: 0,
            waiting: BTreeMap::new(),
            freed: BTreeSet::new(),
            drained: BTreeSet::new(),
            changed: BTreeSet::new(),
            refused: 0,
        }
    }

    /// The entries of `ours` never give way; of those of one key that are too many the ones of the
    /// largest `weight` stay.
    pub(crate) fn of(self, ours: PeerName, weight: fn(PeerName, &V) -> Weight) -> Self {
        Self { ours: Some(ours), weight, ..self }
    }

    /// As [`Self::set`], for a peer of this rank.
    pub(crate) fn set_ranked(&mut self, source: PartKey, rank: Rank, new: Vec<(K, V)>) {
        if new.is_empty() && !self.sources.contains_key(&source) {
            return;
        }
        if self.owners.get(&source.owner).is_none_or(|owner| owner.rank != rank) {
            self.update(source.owner, |owner| owner.rank = rank);
        }
        self.set(source, new);
    }

    /// What part `source` says from now on; nothing removes it.
    pub(crate) fn set(&mut self, source: PartKey, mut new: Vec<(K, V)>) {
        new.sort();
        new.dedup();
        self.refused += truncate(&mut new, self.limits.per_key);
        let old = if new.is_empty() {
            self.sources.remove(&source)
        } else {
            self.sources.insert(source, new.clone())
        };
        let old = old.unwrap_or_default();
        for (key, value) in old.iter().filter(|entry| new.binary_search(entry).is_err()) {
            let entry = (source, key.clone(), value.clone());
            if !self.wait_no_more(&entry) && self.take_out(&entry) {
                self.freed.insert(entry.1);
            }
        }
        let overflowed = self.owners.get(&source.owner).is_some_and(|owner| owner.overflowed);
        for (key, value) in new {
            let entry = (source, key, value);
            let is_new =
                old.binary_search_by(|(key, value)| (key, value).cmp(&(&entry.1, &entry.2))).is_err();
            if is_new || (overflowed && !self.has(&entry)) {
                self.offer(entry);
            }
        }
        self.settle();
        self.forget_empty(source.owner);
    }

    /// Takes an entry in, or lets it wait.
    fn offer(&mut self, entry: (PartKey, K, V)) {
        if let Err(lacks) = self.insert(&entry) {
            self.refused += 1;
            self.wait(entry, lacks);
        }
    }

    /// Gives places that became free to those that wait for them.
    fn settle(&mut self) {
        loop {
            if let Some(key) = self.freed.pop_first() {
                self.refill(&key);
            } else if let Some(entry) = self.next_for_room() {
                self.wait_no_more(&entry);
                if let Err(lacks) = self.insert(&entry) {
                    self.wait(entry, lacks);
                }
            } else if let Some(owner) = self.drained.pop_first() {
                self.offer_lost(owner);
            } else {
                return;
            }
        }
    }

    /// Gives the places of a key to the first of those that wait for one.
    fn refill(&mut self, key: &K) {
        // Each that lacks room in all waits for that from then on.
        for _ in 0..2 * self.limits.per_key {
            let Some(entry) = self.first_for_key(key) else { return };
            self.wait_no_more(&entry);
            let Err(lacks) = self.insert(&entry) else { continue };
            self.wait(entry, lacks);
            if lacks == Lacks::Key {
                return;
            }
        }
    }

    /// Of the entries that wait for a place of a key the one that comes first: see [`last_with`].
    fn first_for_key(&self, key: &K) -> Option<(PartKey, K, V)> {
        let held = self.get(key);
        let waiting = self.waiting.get(key)?;
        let own = self.ours.and_then(|ours| waiting.of_owners.get(&ours)?.first());
        if let Some((source, value)) = own {
            return Some((*source, key.clone(), value.clone()));
        }
        let mut first: Option<(usize, &(PartKey, V))> = None;
        for (_, owner) in &waiting.best {
            let entry = waiting.of_owners.get(owner)?.first()?;
            let before = held.iter().take_while(|held| *held < entry);
            let has = before.filter(|(source, _)| source.owner == *owner).count();
            if first.is_none_or(|(least, _)| has < least) {
                first = Some((has, entry));
            }
            if has == 0 {
                break;
            }
        }
        first.map(|(_, (source, value))| (*source, key.clone(), value.clone()))
    }

    /// If there is a place of all: the entry it goes to, one of the first of those who have few, or of
    /// the peer that has fewest.
    fn next_for_room(&self) -> Option<(PartKey, K, V)> {
        let (_, owner) = self.short.first().filter(|_| self.total < self.limits.total)?;
        self.owners.get(owner)?.wait_for_room.first().cloned()
    }

    /// Offers what a peer said that could not even wait, until that is so again.
    fn offer_lost(&mut self, owner: PeerName) {
        self.update(owner, |owner| owner.overflowed = false);
        loop {
            let of_owner = self.sources.range(PartKey { owner, part: PartId(0) }..);
            let lost: Vec<_> = of_owner
                .take_while(|(source, _)| source.owner == owner)
                .flat_map(|(source, says)| {
                    says.iter().map(|(key, value)| (*source, key.clone(), value.clone()))
                })
                .filter(|entry| !self.has(entry))
                .take(WAITING_PER_PEER + 1)
                .collect();
            if lost.is_empty() {
                return;
            }
            for entry in lost {
                self.offer(entry);
                if self.owners.get(&owner).is_some_and(|owner| owner.overflowed) {
                    return;
                }
            }
        }
    }

    /// True if an entry is in, or waits.
    fn has(&self, entry: &(PartKey, K, V)) -> bool {
        self.owners.get(&entry.0.owner).is_some_and(|owner| {
            [&owner.held, &owner.wait_for_key, &owner.wait_for_room].iter().any(|set| set.contains(entry))
        })
    }

    fn insert(&mut self, entry: &(PartKey, K, V)) -> Result<(), Lacks> {
        let (source, key, value) = entry;
        let own = self.count_of(source.owner);
        if own >= self.limits.per_peer {
            return Err(Lacks::Room);
        }
        if self.get(key).len() >= self.limits.per_key {
            let new = (*source, value.clone());
            let last = last_with(self.get(key), &new, self.ours, self.weight).ok_or(Lacks::Key)?;
            let last = (last.0, key.clone(), last.1.clone());
            self.take_out(&last);
            self.wait(last, Lacks::Key);
        } else if self.total >= self.limits.total {
            self.make_room(source.owner, own)?;
        }
        self.put_in(entry);
        Ok(())
    }

    /// Makes room in all for an entry of a peer that has `own`: the peer that has most gives way, or,
    /// where nobody has more than few, who came last.
    fn make_room(&mut self, name: PeerName, own: usize) -> Result<(), Lacks> {
        let is_ours = self.ours == Some(name);
        let has_few = own < self.few() || is_ours;
        let mut by_count = self.by_count.iter().rev().filter(|(_, owner)| Some(*owner) != self.ours);
        let least = if has_few { self.few() } else { own + 1 };
        let most = by_count.next().filter(|(most, _)| *most > least).map(|(_, owner)| *owner);
        let rank = self.owners.get(&name).map_or(Rank(u64::MAX), |owner| owner.rank);
        let newest = || {
            let mut by_rank = self.by_rank.iter().rev().filter(|(_, owner)| Some(*owner) != self.ours);
            by_rank
                .next()
                .filter(|(newest, _)| has_few && (*newest > rank || is_ours))
                .map(|(_, owner)| *owner)
        };
        let victim = most.or_else(newest);
        let last = victim.and_then(|owner| self.owners.get(&owner)?.held.last().cloned());
        let last = last.ok_or(Lacks::Room)?;
        self.take_out(&last);
        self.freed.insert(last.1.clone());
        self.refused += 1;
        self.wait(last, Lacks::Room);
        Ok(())
    }

    /// Who has no more has few.
    const fn few(&self) -> usize {
        self.limits.total / FEW
    }

    fn put_in(&mut self, entry: &(PartKey, K, V)) {
        let (source, key, value) = entry;
        let entries = self.entries.entry(key.clone()).or_default();
        let new = (*source, value.clone());
        let Err(at) = entries.binary_search(&new) else { return };
        entries.insert(at, new);
        self.total += 1;
        self.changed.insert(key.clone());
        self.update(source.owner, |owner| {
            owner.held.insert(entry.clone());
        });
    }

    /// Takes an entry out; false if it is not in.
    fn take_out(&mut self, entry: &(PartKey, K, V)) -> bool {
        let (source, key, value) = entry;
        let Some(entries) = self.entries.get_mut(key) else { return false };
        let at = entries.binary_search_by(|(from, says)| (from, says).cmp(&(source, value)));
        let Ok(at) = at else { return false };
        entries.remove(at);
        if entries.is_empty() {
            self.entries.remove(key);
        }
        self.total = self.total.saturating_sub(1);
        self.changed.insert(key.clone());
        self.update(source.owner, |owner| {
            owner.held.remove(entry);
        });
        true
    }

    fn wait(&mut self, entry: (PartKey, K, V), lacks: Lacks) {
        let name = entry.0.owner;
        if self.owners.get(&name).is_some_and(|owner| owner.waiting() >= WAITING_PER_PEER) {
            return self.update(name, |owner| owner.overflowed = true);
        }
        if lacks == Lacks::Key {
            let of_key = self.waiting.entry(entry.1.clone()).or_insert_with(Waiting::new);
            of_key.change(name, self.weight, |waiting| {
                waiting.insert((entry.0, entry.2.clone()));
            });
        }
        self.update(name, |owner| {
            match lacks {
                Lacks::Key => owner.wait_for_key.insert(entry),
                Lacks::Room => owner.wait_for_room.insert(entry),
            };
        });
    }

    /// An entry waits no longer; false if it did not.
    fn wait_no_more(&mut self, entry: &(PartKey, K, V)) -> bool {
        let (source, key, value) = entry;
        let Some(owner) = self.owners.get(&source.owner) else { return false };
        let lacks = if owner.wait_for_room.contains(entry) {
            Lacks::Room
        } else if owner.wait_for_key.contains(entry) {
            Lacks::Key
        } else {
            return false;
        };
        if owner.overflowed && owner.waiting() == 1 {
            self.drained.insert(source.owner);
        }
        if lacks == Lacks::Key
            && let Some(of_key) = self.waiting.get_mut(key)
        {
            of_key.change(source.owner, self.weight, |waiting| {
                waiting.remove(&(*source, value.clone()));
            });
            if of_key.of_owners.is_empty() {
                self.waiting.remove(key);
            }
        }
        self.update(source.owner, |owner| {
            match lacks {
                Lacks::Room => owner.wait_for_room.remove(entry),
                Lacks::Key => owner.wait_for_key.remove(entry),
            };
        });
        true
    }

    /// Changes what there is of a peer, and what is counted of that.
    fn update(&mut self, name: PeerName, change: impl FnOnce(&mut Owner<K, V>)) {
        let few = self.few();
        let first = if self.ours == Some(name) { Rank(0) } else { Rank(u64::MAX) };
        let owner = self.owners.entry(name).or_insert_with(|| Owner {
            rank: first,
            held: BTreeSet::new(),
            wait_for_key: BTreeSet::new(),
            wait_for_room: BTreeSet::new(),
            overflowed: false,
        });
        let (before, rank_before) = (owner.held.len(), owner.rank);
        change(owner);
        let (now, rank) = (owner.held.len(), owner.rank);
        let is_short = !owner.wait_for_room.is_empty() && now < self.limits.per_peer;
        if (before, rank_before) != (now, rank) {
            self.by_count.remove(&(before, name));
            self.by_rank.remove(&(rank_before, name));
            self.short.remove(&(Turn::of(before, rank_before, few), name));
            if now > 0 {
                self.by_count.insert((now, name));
                self.by_rank.insert((rank, name));
            }
        }
        let turn = (Turn::of(now, rank, few), name);
        if is_short {
            self.short.insert(turn);
        } else {
            self.short.remove(&turn);
        }
    }

    /// Forgets an owner of whom there is nothing.
    fn forget_empty(&mut self, name: PeerName) {
        if self.owners.get(&name).is_some_and(Owner::is_empty) {
            self.owners.remove(&name);
        }
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
        self.owners.get(&owner).map_or(0, |owner| owner.held.len())
    }

    /// Entries of each peer that has any; not walked.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (PeerName, usize)> {
        self.by_count.iter().map(|(count, owner)| (*owner, *count))
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

/// Leaves the first `limit` of each key, of entries in order: no more of one part can ever be in.
/// Returns how many went.
fn truncate<K: Ord + Clone, V>(entries: &mut Vec<(K, V)>, limit: usize) -> u64 {
    let before = entries.len();
    let (mut last, mut count): (Option<K>, usize) = (None, 0);
    entries.retain(|(key, _)| {
        if last.as_ref() == Some(key) {
            count += 1;
        } else {
            (last, count) = (Some(key.clone()), 1);
        }
        count <= limit
    });
    (before - entries.len()) as u64
}

/// Which entry of a key has to go for `new`; `None`: that itself. Everywhere the same one, in
/// whatever order parts come, but that our own stay: each peer's first before any peer's second, so
/// that nobody takes all places of a key, of those the largest weight, and of these the lowest.
/// `entries` are in order.
fn last_with<'a, V: Ord>(
    entries: &'a [(PartKey, V)],
    new: &'a (PartKey, V),
    ours: Option<PeerName>,
    weight: fn(PeerName, &V) -> Weight,
) -> Option<&'a (PartKey, V)> {
    let at = entries.partition_point(|entry| entry < new);
    let (before, after) = entries.split_at(at);
    let (mut owner, mut count) = (None, 0);
    let ranked = before.iter().chain([new]).chain(after).map(|entry| {
        let name = entry.0.owner;
        count = if owner == Some(name) { count + 1 } else { 1 };
        owner = Some(name);
        (ours != Some(name), count, Reverse(weight(name, &entry.1)), entry)
    });
    let (.., last) = ranked.max()?;
    (last != new).then_some(last)
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
        const ALL: usize = KEPT + WAITING_PER_PEER + 54;
        let limits = Limits { total: 1_000, per_peer: 1_000, per_key: KEPT };
        // All parts come again while others wait; or only those do that change, and none is left to wait.
        for again in [true, false] {
            let mut directory = Directory::new(limits);
            directory.set(source(2, 0), (1_000..1_000 + KEPT).map(|n| ("a", n)).collect());
            let mut left: BTreeSet<usize> = (0..ALL).collect();
            let part = |left: &BTreeSet<usize>, at: usize| {
                left.range(at * KEPT..(at + 1) * KEPT).map(|n| ("a", *n)).collect::<Vec<_>>()
            };
            for at in 0..ALL / KEPT {
                directory.set(source(1, at as u16), part(&left, at));
            }
            assert_eq!(directory.count(), KEPT);
            directory.set(source(2, 0), Vec::new());
            while left.len() > KEPT {
                // Those that are in give way, ten by ten.
                for (_, n) in directory.get(&"a") {
                    left.remove(n);
                }
                for at in 0..ALL / KEPT {
                    let says = part(&left, at);
                    if again || directory.sources.get(&source(1, at as u16)) != Some(&says) {
                        directory.set(source(1, at as u16), says);
                    }
                }
                let has = directory.get(&"a").len();
                assert_eq!(has, KEPT.min(left.len()), "of {}", left.len());
            }
        }
    }

    #[test]
    fn who_has_most_gives_way_to_who_has_less_and_gets_free_places_last() {
        let mut directory = Directory::new(Limits { total: 60, per_peer: 40, per_key: 4 });
        let says = |owner: u32, count: u32| (0..count).map(|n| (owner * 1_000 + n, 0)).collect::<Vec<_>>();
        let counts = |directory: &Directory<_, _>| [1, 2, 3].map(|owner| directory.count_of(peer(owner)));
        directory.set(source(1, 0), says(1, 50));
        directory.set(source(2, 0), says(2, 50));
        assert_eq!(counts(&directory), [30, 30, 0]);
        directory.set(source(3, 0), says(3, 8));
        assert_eq!(counts(&directory), [26, 26, 8]);
        // It goes for a moment, others take its places, and it has them again.
        directory.set(source(3, 0), Vec::new());
        assert_eq!(counts(&directory), [30, 30, 0]);
        directory.set(source(3, 0), says(3, 8));
        assert_eq!(counts(&directory), [26, 26, 8]);
        assert_eq!((directory.count(), directory.iter().count()), (60, 60));
        directory.set(source(1, 0), Vec::new());
        assert_eq!(counts(&directory), [0, 40, 8]);
    }

    /// Whoever claims what others have claimed often, and that often, makes no work by it.
    #[test]
    #[expect(clippy::print_stdout, reason = "figures for people")]
    fn many_entries_of_few_keys_cost_little_each() {
        use std::time::{Duration, Instant};
        let mut directory = Directory::new(Limits { total: 16_384, per_peer: 4_096, per_key: 64 });
        let begun = Instant::now();
        for owner in 0..80 {
            for part in 0..4 {
                directory.set(source(owner, part), (0..1_500).map(|n| (n % 8, n)).collect());
            }
        }
        for owner in 0..80 {
            directory.set(source(owner, 0), Vec::new());
        }
        let took = begun.elapsed();
        println!("480,000 entries of eight keys: {took:?}");
        assert!(directory.iter().all(|(_, says)| says.len() <= 64));
        assert!(took < Duration::from_secs(8), "{took:?}");
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
