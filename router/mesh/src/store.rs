//! The parts of other peers' states, and which key each name is bound to.

use crate::counters::MeshCounters;
use crate::directory::Rank;
use std::collections::BTreeMap;
use std::time::Duration;
use weave_wire::link::gossip::{Digest, HostPart, PartId, PartKey, SignedPart, Version};
use weave_wire::{IdentityKey, PeerName};

/// Peers known, at most.
pub const PEERS: usize = 4_096;
/// Parts of one peer, at most.
pub const PARTS_PER_PEER: usize = 128;
/// Parts of all peers, bytes, at most.
pub const PART_BYTES: usize = 64 << 20;
/// What a part costs beside its content, bytes.
pub(crate) const PART_OVERHEAD: usize = 256;
/// How long the parts of a peer are kept after it was reachable last.
pub const PARTS_KEPT: Duration = Duration::from_secs(600);
/// How long a name stays bound to its key after it was reachable last.
pub const BINDING_KEPT: Duration = Duration::from_secs(3600);
/// Names that stay bound though all else of their peers gave way to others, at most.
const BINDINGS: usize = 4_096;
/// How long a farewell keeps old copies away.
pub const FAREWELL_KEPT: Duration = Duration::from_secs(1800);
/// Farewells remembered, at most.
const FAREWELLS: usize = 4_096;
/// Farewells told again on a new link, at most.
const FAREWELLS_RETOLD: usize = 256;

/// A peer that is known.
#[derive(Debug)]
pub(crate) struct Peer {
    /// The key its name is bound to.
    pub identity: IdentityKey,
    /// Its parts.
    pub parts: BTreeMap<PartId, SignedPart>,
    /// What its part 0 says, if it can be read.
    pub host: Option<HostPart>,
    /// Links we have to it, established or not.
    pub links: usize,
    /// There was a link to it: its key was proved here.
    was_linked: bool,
    /// True if it can be reached.
    pub reachable: bool,
    /// When it was reachable last, or seen first.
    pub since: Duration,
    /// Rises from peer to peer as they are seen first.
    order: u64,
}

impl Peer {
    /// True if a part has an effect: it is of the same run as part 0.
    pub(crate) fn is_live(&self, part: &SignedPart) -> bool {
        self.parts.get(&PartId::HOST).is_some_and(|host| host.uid == part.uid)
    }

    /// True if there is no place for a part beside those held. Which ones are kept
    /// does not depend on the order in which they come: all hosts keep the same.
    fn has_no_place_for(&self, part: PartId) -> bool {
        let is_full = self.parts.len() >= PARTS_PER_PEER && !self.parts.contains_key(&part);
        is_full && self.last_part().is_none_or(|last| rank(part) > rank(last))
    }

    /// The part that goes first if there are too many.
    fn last_part(&self) -> Option<PartId> {
        self.parts.keys().copied().max_by_key(|part| rank(*part))
    }

    /// True for a version of a part (not of part 0) that a run before the current one wrote.
    fn is_of_former_run(&self, part: PartId, version: Version) -> bool {
        part != PartId::HOST
            && self
                .parts
                .get(&PartId::HOST)
                .is_some_and(|host| host.uid != version.uid && version.version < host.version)
    }
}

/// A name that stays bound though its peer gave way to others.
#[derive(Debug)]
struct Binding {
    identity: IdentityKey,
    /// When the peer was reachable last.
    since: Duration,
}

#[derive(Debug)]
struct Farewell {
    part: SignedPart,
    at: Duration,
}

/// Why a part is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rejection {
    Stale,
    VersionLimit,
    Forged,
    Farewelled,
    PeersFull,
    PartsFull,
    BytesFull,
    KeyConflict {
        /// The key the name is bound to.
        bound: IdentityKey,
    },
}

/// What became of a part that was not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// It is there.
    Stored,
    /// Its owner is gone for good.
    Farewell,
}

/// All that is known of other peers.
#[derive(Debug, Default)]
pub(crate) struct Store {
    peers: BTreeMap<PeerName, Peer>,
    farewells: BTreeMap<PeerName, Farewell>,
    bindings: BTreeMap<PeerName, Binding>,
    bytes: usize,
    next_order: u64,
    /// Peers that were dropped; whoever keeps an index must drop them too.
    dropped: Vec<PeerName>,
}

/// Parts that this version reads come before all others; there is always room for them.
const fn rank(part: PartId) -> (bool, u16) {
    let is_read = part.0 == PartId::HOST.0 || part.is_stations() || part.is_names();
    (!is_read, part.0)
}

fn size(part: &SignedPart) -> usize {
    part.content.len() + PART_OVERHEAD
}

impl Store {
    /// The peers by name.
    pub(crate) fn peers(&self) -> impl Iterator<Item = (PeerName, &Peer)> {
        self.peers.iter().map(|(name, peer)| (*name, peer))
    }

    pub(crate) fn peer(&self, name: PeerName) -> Option<&Peer> {
        self.peers.get(&name)
    }

    /// The key a name is bound to.
    pub(crate) fn bound(&self, name: PeerName) -> Option<IdentityKey> {
        let known = self.peers.get(&name).map(|peer| peer.identity);
        known.or_else(|| self.bindings.get(&name).map(|binding| binding.identity))
    }

    pub(crate) fn peer_mut(&mut self, name: PeerName) -> Option<&mut Peer> {
        self.peers.get_mut(&name)
    }

    /// Peers that were linked here come first, then all in the order in which they were heard of.
    pub(crate) fn rank(&self, name: PeerName) -> Rank {
        const TOLD_OF: u64 = 1 << 63;
        let rank = |peer: &Peer| peer.order | if peer.was_linked { 0 } else { TOLD_OF };
        Rank(self.peers.get(&name).map_or(u64::MAX, rank))
    }

    /// A part of a peer that is known.
    pub(crate) fn held(&self, key: PartKey) -> Option<&SignedPart> {
        self.peers.get(&key.owner).and_then(|peer| peer.parts.get(&key.part))
    }

    /// A part to be passed on: one that is held, or a farewell.
    pub(crate) fn part(&self, key: PartKey) -> Option<&SignedPart> {
        self.held(key)
            .or_else(|| self.farewells.get(&key.owner).map(|f| &f.part).filter(|_| key.part == PartId::HOST))
    }

    /// Digests of the newest farewells, [`FAREWELLS_RETOLD`] at most.
    pub(crate) fn newest_farewells(&self) -> Vec<Digest> {
        let mut farewells: Vec<_> = self.farewells.values().collect();
        farewells.sort_by_key(|farewell| std::cmp::Reverse(farewell.at));
        farewells.iter().take(FAREWELLS_RETOLD).map(|farewell| farewell.part.digest()).collect()
    }

    /// True if a peer has too many parts for this one, too.
    pub(crate) fn has_no_place_for(&self, key: PartKey) -> bool {
        self.peers.get(&key.owner).is_some_and(|peer| peer.has_no_place_for(key.part))
    }

    /// True if a part of this version is of no use.
    pub(crate) fn is_stale(&self, key: PartKey, version: Version) -> bool {
        if self.held(key).is_some_and(|held| held.version() >= version) {
            return true;
        }
        let farewelled = self.farewells.get(&key.owner).is_some_and(|farewell| {
            farewell.part.uid == version.uid
                && (key.part != PartId::HOST || version.version <= farewell.part.version)
        });
        farewelled || self.peers.get(&key.owner).is_some_and(|peer| peer.is_of_former_run(key.part, version))
    }

    /// Bytes of all parts.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes the names of the peers dropped since the last call.
    pub(crate) fn take_dropped(&mut self) -> Vec<PeerName> {
        std::mem::take(&mut self.dropped)
    }

    /// A link proved that `name` has this key.
    ///
    /// # Errors
    /// The key the name is bound to, if it is another.
    pub(crate) fn link_added(
        &mut self,
        name: PeerName,
        identity: IdentityKey,
        now: Duration,
        counters: &mut MeshCounters,
    ) -> Result<(), IdentityKey> {
        if let Some(bound) = self.bound(name).filter(|bound| *bound != identity) {
            return Err(bound);
        }
        if self.peers.len() >= PEERS && !self.peers.contains_key(&name) {
            self.evict(true, now, counters);
        }
        let peer = self.insert(name, identity, now);
        peer.links += 1;
        peer.was_linked = true;
        Ok(())
    }

    /// A link to `name` is gone. One made after the peer's farewell binds its name no longer.
    pub(crate) fn link_removed(&mut self, name: PeerName) {
        let Some(peer) = self.peers.get_mut(&name) else { return };
        peer.links = peer.links.saturating_sub(1);
        let farewell = self.farewells.get(&name).filter(|f| f.part.identity == peer.identity);
        if peer.links == 0 && peer.parts.is_empty() && farewell.is_some() {
            self.remove(name);
        }
    }

    fn insert(&mut self, name: PeerName, identity: IdentityKey, now: Duration) -> &mut Peer {
        let order = self.next_order;
        self.next_order += 1;
        let was_linked = self.bindings.remove(&name).is_some();
        self.peers.entry(name).or_insert(Peer {
            identity,
            parts: BTreeMap::new(),
            host: None,
            links: 0,
            was_linked,
            reachable: false,
            since: now,
            order,
        })
    }

    /// Makes room: the newest unreachable peer goes, or else, if `by_force`, the
    /// newest that is no neighbour. The newest, so that inventing peers drives
    /// out nobody who was there before.
    fn evict(&mut self, by_force: bool, now: Duration, counters: &mut MeshCounters) -> bool {
        self.give_way_if(|_, peer| by_force || !peer.reachable, now, counters)
    }

    /// The newest unreachable peer of these goes, or else the newest that is no neighbour.
    pub(crate) fn give_way(
        &mut self,
        of: impl Fn(PeerName) -> bool,
        now: Duration,
        counters: &mut MeshCounters,
    ) -> bool {
        self.give_way_if(|name, _| of(name), now, counters)
    }

    fn give_way_if(
        &mut self,
        may: impl Fn(PeerName, &Peer) -> bool,
        now: Duration,
        counters: &mut MeshCounters,
    ) -> bool {
        let strangers = self.peers.iter().filter(|(_, peer)| peer.links == 0);
        let victim = strangers
            .filter(|(name, peer)| may(**name, peer))
            .max_by_key(|(_, peer)| (!peer.reachable, peer.order))
            .map(|(name, _)| *name);
        let Some((name, peer)) = victim.and_then(|name| Some((name, self.remove(name)?))) else {
            return false;
        };
        counters.evicted += 1;
        // All else can be told again; whose the name is was proved once. Peers that were never
        // linked here are invented as easily as their keys.
        if peer.was_linked {
            if self.bindings.len() >= BINDINGS
                && let Some(oldest) = self.bindings.iter().min_by_key(|(_, b)| b.since).map(|(name, _)| *name)
            {
                self.bindings.remove(&oldest);
            }
            let since = if peer.reachable { now } else { peer.since };
            self.bindings.insert(name, Binding { identity: peer.identity, since });
        }
        true
    }

    fn remove(&mut self, name: PeerName) -> Option<Peer> {
        let peer = self.peers.remove(&name)?;
        self.bytes = self.bytes.saturating_sub(peer.parts.values().map(size).sum());
        self.dropped.push(name);
        Some(peer)
    }

    /// Takes in a part, if it is newer, its owner's and within the limits.
    ///
    /// # Errors
    /// [`Rejection`]; nothing changed, but that peers may have given way.
    pub(crate) fn accept(
        &mut self,
        part: SignedPart,
        is_signed: impl FnOnce(&SignedPart) -> bool,
        now: Duration,
        counters: &mut MeshCounters,
    ) -> Result<Accepted, Rejection> {
        let (key, version) = (part.key(), part.version());
        if version.version == u64::MAX {
            return Err(Rejection::VersionLimit);
        }
        let farewell = self.farewells.get(&key.owner).filter(|f| f.part.identity == part.identity);
        if farewell.is_some_and(|f| key.part != PartId::HOST || part.version <= f.part.version) {
            return Err(Rejection::Farewelled);
        }
        if let Some(bound) = self.bound(key.owner).filter(|bound| *bound != part.identity) {
            return Err(Rejection::KeyConflict { bound });
        }
        if let Some(peer) = self.peers.get(&key.owner) {
            let is_held = peer.parts.get(&key.part).is_some_and(|held| held.version() >= version);
            if is_held || peer.is_of_former_run(key.part, version) {
                return Err(Rejection::Stale);
            }
        }
        if !is_signed(&part) {
            return Err(Rejection::Forged);
        }
        let host = if key.part == PartId::HOST { HostPart::parse(&part.content).ok() } else { None };
        if host.as_ref().is_some_and(|host| host.farewell) {
            return self.part_for_good(part, now);
        }
        self.make_room(&part, now, counters)?;
        self.put(part, host, now);
        Ok(Accepted::Stored)
    }

    fn make_room(
        &mut self,
        part: &SignedPart,
        now: Duration,
        counters: &mut MeshCounters,
    ) -> Result<(), Rejection> {
        let peer = self.peers.get(&part.owner);
        let old = peer.and_then(|peer| peer.parts.get(&part.part)).map(size);
        let is_neighbour = peer.is_some_and(|peer| peer.links > 0);
        let is_known = peer.is_some();
        if peer.is_some_and(|peer| peer.has_no_place_for(part.part)) {
            return Err(Rejection::PartsFull);
        }
        if !is_known && self.peers.len() >= PEERS && !self.evict(false, now, counters) {
            return Err(Rejection::PeersFull);
        }
        let fits = |bytes: usize| bytes + size(part) <= PART_BYTES + old.unwrap_or(0);
        while !fits(self.bytes) && self.evict(is_neighbour, now, counters) {}
        let is_still_known = self.peers.contains_key(&part.owner);
        if fits(self.bytes) && is_known == is_still_known { Ok(()) } else { Err(Rejection::BytesFull) }
    }

    fn put(&mut self, part: SignedPart, host: Option<HostPart>, now: Duration) {
        let (name, identity) = (part.owner, part.identity);
        if !self.peers.contains_key(&name) {
            self.insert(name, identity, now);
        }
        let Some(peer) = self.peers.get_mut(&name) else { return };
        let mut bytes = self.bytes + size(&part);
        if part.part == PartId::HOST {
            self.farewells.remove(&name);
            peer.host = host;
            peer.parts.retain(|id, held| {
                let stays = *id == PartId::HOST || held.uid == part.uid || held.version > part.version;
                bytes -= if stays { 0 } else { size(held) };
                stays
            });
        }
        if let Some(old) = peer.parts.insert(part.part, part) {
            bytes -= size(&old);
        }
        // One that this version does not read: it reads fewer than fit.
        if peer.parts.len() > PARTS_PER_PEER
            && let Some(last) = peer.last_part().and_then(|last| peer.parts.remove(&last))
        {
            bytes -= size(&last);
        }
        self.bytes = bytes;
    }

    /// The owner leaves for good: its name is free. One that nobody knows here
    /// frees nothing.
    fn part_for_good(&mut self, part: SignedPart, now: Duration) -> Result<Accepted, Rejection> {
        let name = part.owner;
        let was_bound = self.bindings.remove(&name).is_some();
        if self.remove(name).is_none() && !was_bound {
            return Err(Rejection::Farewelled);
        }
        if self.farewells.len() >= FAREWELLS
            && let Some(oldest) = self.farewells.iter().min_by_key(|(_, f)| f.at).map(|(name, _)| *name)
        {
            self.farewells.remove(&oldest);
        }
        self.farewells.insert(name, Farewell { part, at: now });
        Ok(Accepted::Farewell)
    }

    /// Frees a name, unless there is a link to its owner. True if it was bound.
    pub(crate) fn forget(&mut self, name: PeerName) -> bool {
        let was_bound = self.bindings.remove(&name).is_some();
        let is_free = self.peers.get(&name).is_some_and(|peer| peer.links == 0);
        was_bound || (is_free && self.remove(name).is_some())
    }

    /// Drops what only unreachable peers had and what is bound for too long.
    /// Returns the peers whose parts went.
    pub(crate) fn collect(&mut self, now: Duration) -> Vec<PeerName> {
        self.farewells.retain(|_, farewell| now.saturating_sub(farewell.at) < FAREWELL_KEPT);
        self.bindings.retain(|_, binding| now.saturating_sub(binding.since) < BINDING_KEPT);
        let mut emptied = Vec::new();
        let mut unbound = Vec::new();
        for (name, peer) in &mut self.peers {
            if peer.reachable || peer.links > 0 {
                peer.since = now;
                continue;
            }
            let age = now.saturating_sub(peer.since);
            if age >= PARTS_KEPT && !peer.parts.is_empty() {
                self.bytes = self.bytes.saturating_sub(peer.parts.values().map(size).sum());
                peer.parts.clear();
                peer.host = None;
                emptied.push(*name);
            }
            if age >= BINDING_KEPT {
                unbound.push(*name);
            }
        }
        for name in unbound {
            self.remove(name);
        }
        emptied
    }
}

#[cfg(test)]
mod tests;
