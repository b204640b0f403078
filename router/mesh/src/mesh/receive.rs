//! What others tell.

use super::{Mesh, Rival};
use crate::output::{LinkNumber, Output, Signer};
use crate::store::{Accepted, Rejection};
use std::time::Duration;
use weave_wire::PeerName;
use weave_wire::link::gossip::{Digest, Gossip, MAX_ENTRIES, PartId, PartKey, SignedPart, Version};

/// Versions not below our first that one foreign run must show before it is taken for a
/// living clone. Where runs were not counted, copies that one before ours left behind are few.
const CLONE_RISES: u32 = 3;
/// So far above a foreign run's copy ours goes: a clone whose links change all the
/// time must hear of ours, too, however fast its own versions rise.
const ABOVE_RIVAL: u64 = 1 << 16;
/// Foreign runs of ours remembered, at most.
const RIVALS: usize = 64;
/// How often late answers are looked for.
pub(super) const CHECK_PULLS: Duration = Duration::from_millis(500);

impl<S: Signer> Mesh<S> {
    /// A message came over a link. Nothing in it closes the link.
    pub fn on_gossip(&mut self, link: LinkNumber, gossip: Gossip, now: Duration) {
        let Some(peer) = self.links.get(&link).map(|entry| entry.info.peer) else { return };
        match gossip {
            Gossip::Summary(hashes) => self.on_summary(link, &hashes),
            Gossip::Digests(digests) => self.on_digests(link, peer, &digests, now),
            Gossip::Pull(keys) => self.on_pull(link, &keys),
            Gossip::Part(part) => self.on_part(link, *part, now),
        }
        self.ask(now);
    }

    fn on_digests(&mut self, link: LinkNumber, peer: PeerName, digests: &[Digest], now: Duration) {
        let mut newer_here = Vec::new();
        for digest in digests {
            let (key, version) = (digest.key, digest.version);
            if version.version == u64::MAX {
                self.counters.version_limit += 1;
                continue;
            }
            let is_ours = key.owner == self.config.name;
            let held = if is_ours { self.own.part(key.part) } else { self.store.held(key) };
            let held = held.map(SignedPart::digest);
            if is_ours && self.is_news_of_rival(key.part, version) {
                // Also below ours: two runs that keep above each other would never meet.
                self.wants_changed |= self.wants.add(key, version, link, key.owner == peer);
            }
            if held.is_some_and(|held| held.version == version) {
                if let Some(holders) = self.pending.get_mut(&key)
                    && !holders.contains(&link)
                {
                    holders.push(link);
                }
            } else if let Some(held) = held.filter(|held| held.version > version) {
                if self.is_announced(key.owner) || key.owner == peer {
                    newer_here.push(held);
                }
            } else if !is_ours && self.store.is_stale(key, version) {
                self.counters.stale += 1;
            } else if self.store.has_no_place_for(key) {
                self.counters.parts_full += 1;
            } else {
                self.wants_changed |= self.wants.add(key, version, link, key.owner == peer);
            }
        }
        self.counters.wants_full = self.wants.refused;
        self.send_digests(link, newer_here);
        if self.check_pulls_at.is_none() && self.wants_changed {
            self.check_pulls_at = Some(now.saturating_add(CHECK_PULLS));
        }
    }

    fn on_pull(&mut self, link: LinkNumber, keys: &[PartKey]) {
        let Some(entry) = self.links.get_mut(&link) else { return };
        let room = MAX_ENTRIES.saturating_sub(entry.pulled.len());
        entry.pulled.extend(keys.iter().take(room));
        self.counters.pulls_full += keys.len().saturating_sub(room) as u64;
        self.serve(link);
    }

    /// Asks for what is wanted, as far as links may be asked.
    pub(super) fn ask(&mut self, now: Duration) {
        if !std::mem::take(&mut self.wants_changed) {
            return;
        }
        for (link, keys) in self.wants.due(now) {
            self.send(link, Gossip::Pull(keys));
        }
        if self.check_pulls_at.is_none() && self.wants.is_waiting() {
            self.check_pulls_at = Some(now.saturating_add(CHECK_PULLS));
        }
    }

    fn on_part(&mut self, link: LinkNumber, part: SignedPart, now: Duration) {
        let key = part.key();
        self.wants.answered(key, link, now);
        self.wants_changed = true;
        if key.owner == self.config.name {
            return self.on_own_copy(&part, now);
        }
        let (version, offered) = (part.version(), part.identity);
        let signer = &self.signer;
        let is_signed =
            |part: &SignedPart| signer.verify(&part.identity, &part.signed_bytes(), &part.signature);
        let run = |store: &crate::store::Store| {
            store.peer(key.owner).and_then(|peer| peer.parts.get(&PartId::HOST)).map(|host| host.uid)
        };
        let run_before = run(&self.store);
        let accepted = self.store.accept(part, is_signed, now, &mut self.counters);
        self.after_drops(now);
        match accepted {
            Ok(accepted) => {
                self.counters.accepted += 1;
                let mut holders = self.wants.have(key, version);
                holders.push(link);
                self.after_accept(key, accepted, &holders, now);
                if run_before != run(&self.store) {
                    // Another run's parts may have gone or become live.
                    self.index_peer(key.owner, now);
                }
            }
            Err(Rejection::KeyConflict { bound }) => {
                self.refuse(key.owner, bound, offered, now);
            }
            Err(Rejection::Stale) => self.counters.stale += 1,
            Err(Rejection::VersionLimit) => self.counters.version_limit += 1,
            Err(Rejection::Forged) => self.counters.forged += 1,
            Err(Rejection::Farewelled) => self.counters.farewelled += 1,
            Err(Rejection::PeersFull) => self.counters.peers_full += 1,
            Err(Rejection::PartsFull) => self.counters.parts_full += 1,
            Err(Rejection::BytesFull) => self.counters.bytes_full += 1,
        }
    }

    fn after_accept(&mut self, key: PartKey, accepted: Accepted, holders: &[LinkNumber], now: Duration) {
        self.summary = None;
        // Who has the version before need not have this one.
        self.pending.remove(&key);
        if key.part == PartId::HOST {
            let host = self.store.peer(key.owner).and_then(|peer| peer.host.as_ref());
            let links = host.map_or_else(Vec::new, |host| host.links.clone());
            if host.is_none() && accepted == Accepted::Stored {
                self.counters.unreadable += 1;
            }
            // Who left for good was taken out with all else of it.
            if accepted != Accepted::Farewell && self.topology.set(key.owner, links) {
                self.routes_dirty(now);
            }
            self.bound_links(now);
            self.outputs.push_back(Output::PeersChanged);
        } else {
            self.index_part(key, now);
        }
        if accepted == Accepted::Farewell || self.is_announced(key.owner) {
            self.announce(key, holders, now);
        }
    }

    /// A copy of one of our own parts: ours goes above it. If a foreign run's
    /// keeps rising after that, it is alive, and one of us must give way.
    fn on_own_copy(&mut self, part: &SignedPart, now: Duration) {
        let ours = self.signer.identity();
        if part.identity != ours {
            self.refuse(part.owner, ours, part.identity, now);
            return;
        }
        if part.version == u64::MAX {
            self.counters.version_limit += 1;
            return;
        }
        let (version, held) = (part.version(), self.own.part(part.part).map(SignedPart::version));
        let is_above = held.is_none_or(|held| held < version);
        if !(is_above || self.is_news_of_rival(part.part, version)) || self.superseded {
            self.counters.stale += 1;
            return;
        }
        if !self.signer.verify(&ours, &part.signed_bytes(), &part.signature) {
            self.counters.forged += 1;
            return;
        }
        self.counters.own_copies += 1;
        self.note_rival(part);
        let margin = if part.uid == self.config.uid { 0 } else { ABOVE_RIVAL };
        if is_above && !self.superseded && self.own.raise_above(part.part, version, margin) {
            self.change_own(part.part, true, now);
        }
    }

    /// True if this is more than was known of a foreign run of ours. What a run before ours wrote is
    /// none: others may have kept any number of its texts, and told of each, they rise.
    fn is_news_of_rival(&self, part: PartId, version: Version) -> bool {
        let known = self.rivals.get(&(version.uid, part)).map_or(0, |rival| rival.version);
        version.uid != self.config.uid
            && !self.own.is_of_former_run(version)
            && version.version > known
            && version.version != u64::MAX
    }

    fn note_rival(&mut self, part: &SignedPart) {
        let foreign = part.uid;
        if foreign == self.config.uid || self.own.is_of_former_run(part.version()) {
            return;
        }
        let key = (foreign, part.part);
        if self.rivals.len() >= RIVALS && !self.rivals.contains_key(&key) {
            self.rivals.pop_first();
        }
        let rival = self.rivals.entry(key).or_insert(Rival { version: 0, rises: 0 });
        if part.version <= rival.version {
            return;
        }
        *rival = Rival { version: part.version, rises: rival.rises.saturating_add(1) };
        // Runs on this state before ours have smaller names: a larger one is no old copy.
        let needed = if foreign > self.config.uid { 1 } else { CLONE_RISES };
        if rival.rises == needed || part.version >= u64::MAX - 1 {
            let must_rename = self.config.uid > foreign;
            self.superseded |= must_rename;
            self.outputs.push_back(Output::Cloned { uid: foreign, must_rename });
        }
    }
}
