//! Telling others what we have: digests of changes, and summaries of all.

use super::Mesh;
use crate::output::{LinkInfo, LinkNumber, Output, Signer};
use crate::random::Random;
use crate::store::{PART_OVERHEAD, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use weave_wire::PeerName;
use weave_wire::link::gossip::{
    AnnouncedLink, BUCKETS, Digest, Gossip, MAX_ENTRIES, PartKey, SignedPart, Summary, bucket_of,
};

/// What is accepted is announced after a time from the first to the second.
const ANNOUNCE_WAIT: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(50));
/// Summaries go out after a time from the first to the second.
const SUMMARY_WAIT: (Duration, Duration) = (Duration::from_millis(22_500), Duration::from_millis(37_500));

/// Of those linked to the owner of a part and to one of the others that the owner is linked to, so
/// many tell that one, too: where nothing passes between these two but datagrams, the owner cannot.
const TELL_BESIDE: usize = 2;

/// Time until the next summaries: 30 s on average.
pub(super) fn summary_wait(random: &mut Random) -> Duration {
    random.between(SUMMARY_WAIT.0, SUMMARY_WAIT.1)
}

impl<S: Signer> Mesh<S> {
    /// True for owners whose parts we announce: ourselves and whom we can reach.
    /// What only others still have of a dead peer thus cannot travel in circles.
    pub(super) fn is_announced(&self, owner: PeerName) -> bool {
        owner == self.config.name || self.store.peer(owner).is_some_and(|peer| peer.reachable)
    }

    /// A part of anybody, as it is now.
    pub(super) fn part(&self, key: PartKey) -> Option<&SignedPart> {
        if key.owner == self.config.name { self.own.part(key.part) } else { self.store.part(key) }
    }

    fn announced_digests(&self) -> impl Iterator<Item = Digest> {
        let reachable = self.store.peers().filter(|(_, peer)| peer.reachable);
        let others = reachable.flat_map(|(_, peer)| peer.parts.values());
        self.own.parts().chain(others).map(SignedPart::digest)
    }

    pub(super) fn hashes(&mut self) -> Box<[u64; BUCKETS]> {
        if self.summary.is_none() {
            let mut summary = Summary::default();
            self.announced_digests().for_each(|digest| summary.add(&digest));
            self.summary = Some(summary);
        }
        Box::new(self.summary.as_ref().map_or([0; BUCKETS], |summary| *summary.hashes()))
    }

    pub(super) fn send_summary(&mut self, link: LinkNumber) {
        let hashes = self.hashes();
        self.send(link, Gossip::Summary(hashes));
    }

    pub(super) fn send_summaries(&mut self, now: Duration) {
        self.summary_at = now.saturating_add(summary_wait(&mut self.random));
        for link in self.links.keys().copied().collect::<Vec<_>>() {
            self.send_summary(link);
        }
    }

    /// Answers a summary with our digests of the buckets that differ.
    pub(super) fn on_summary(&mut self, link: LinkNumber, theirs: &[u64; BUCKETS]) {
        let ours = self.hashes();
        let Some(entry) = self.links.get_mut(&link) else { return };
        for (bucket, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
            if ours != theirs {
                entry.telling.add(bucket);
            }
        }
        self.serve(link);
    }

    /// Tells a link of at most [`MAX_ENTRIES`] digests; if it can take none, of all in their buckets
    /// when it can.
    pub(super) fn send_digests(&mut self, link: LinkNumber, digests: Vec<Digest>) {
        let Some(entry) = self.links.get_mut(&link) else { return };
        if !entry.writable {
            digests.iter().for_each(|digest| entry.telling.add(bucket_of(digest.key.owner)));
        } else if !digests.is_empty() {
            self.send(link, Gossip::Digests(digests));
        }
    }

    /// A part is to be announced; `holder` has it already.
    pub(super) fn announce(&mut self, key: PartKey, holders: &[LinkNumber], now: Duration) {
        self.pending.entry(key).or_default().extend_from_slice(holders);
        if self.announce_at.is_none() {
            let wait = self.random.between(ANNOUNCE_WAIT.0, ANNOUNCE_WAIT.1);
            self.announce_at = Some(now.saturating_add(wait));
        }
    }

    /// Sends the digests of all parts to be announced: to all links, but those
    /// known to have the part and those to its owner and to whom the owner says it
    /// has a link: those the owner tells itself, and few others.
    pub(super) fn flush_announcements(&mut self) {
        self.announce_at = None;
        let mut digests: BTreeMap<LinkNumber, Vec<Digest>> = BTreeMap::new();
        let mut of_owner: Option<(PeerName, BTreeSet<LinkNumber>)> = None;
        for (key, holders) in std::mem::take(&mut self.pending) {
            let Some(digest) = self.part(key).map(SignedPart::digest) else { continue };
            // The parts of an owner follow each other.
            if of_owner.as_ref().is_none_or(|(owner, _)| *owner != key.owner) {
                of_owner = Some((key.owner, self.told_by(key.owner)));
            }
            for (number, link) in &mut self.links {
                let LinkInfo { peer, uid, .. } = link.info;
                // An owner must hear of its own part only if another run wrote it.
                let is_told = holders.contains(number)
                    || (peer == key.owner && uid == digest.version.uid)
                    || of_owner.as_ref().is_some_and(|(_, links)| links.contains(number));
                if is_told {
                    continue;
                }
                let told = digests.entry(*number).or_default();
                // One message at once, the rest in turn with other links.
                if told.len() < MAX_ENTRIES {
                    told.push(digest);
                } else {
                    link.telling.add(bucket_of(key.owner));
                }
            }
        }
        for (link, digests) in digests {
            self.send_digests(link, digests);
            self.serve(link);
        }
    }

    /// Links to whom an owner says it has a link, so that we need not tell them of its parts.
    fn told_by(&self, owner: PeerName) -> BTreeSet<LinkNumber> {
        let host = self.store.peer(owner).and_then(|owner| owner.host.as_ref());
        let Some(links) = host.map(|host| &host.links) else { return BTreeSet::new() };
        // What a stranger says of us makes no work.
        let is_linked = self.links.values().any(|link| link.established && link.info.peer == owner);
        let told = self.links.iter().filter(|(_, link)| {
            let peer = link.info.peer;
            let beside = || is_linked && tells_beside(self.config.name, owner, links, peer, &self.store);
            is_among(links, peer) && !beside()
        });
        told.map(|(number, _)| *number).collect()
    }

    /// The next message that a link is to be told or asked for and can take, links in turn.
    pub(super) fn serve_next(&mut self) -> Option<Output> {
        while let Some(number) = self.to_serve.pop_front() {
            let Some(link) = self.links.get_mut(&number).filter(|link| link.writable) else { continue };
            let mut telling = std::mem::take(&mut link.telling);
            // What was asked for and what is to be told wait for each other no longer than for as many bytes.
            let is_turn_of_parts = telling.is_empty() || link.parts_due > 0;
            let pulled = if is_turn_of_parts { link.pulled.pop_front() } else { None };
            let part = pulled.and_then(|key| self.part(key)).map(|part| Box::new(part.clone()));
            let (gossip, parts_due) = match part {
                Some(part) => {
                    let due = self.links.get(&number).map_or(0, |link| link.parts_due);
                    let due = due.saturating_sub(part.content.len() + PART_OVERHEAD);
                    (Some(Gossip::Part(part)), due)
                }
                None => {
                    let digests = telling.next(MAX_ENTRIES, |bucket| self.announced_of(bucket));
                    let due = digests.len() * Digest::LEN;
                    ((!digests.is_empty()).then_some(Gossip::Digests(digests)), due)
                }
            };
            if let Some(link) = self.links.get_mut(&number) {
                link.telling = telling;
                link.parts_due = parts_due;
                if !link.telling.is_empty() || !link.pulled.is_empty() {
                    self.to_serve.push_back(number);
                }
            }
            if let Some(gossip) = gossip {
                return Some(Output::Send(number, gossip));
            }
        }
        None
    }

    /// The digests of what is announced of a bucket's owners.
    fn announced_of(&self, bucket: usize) -> Vec<Digest> {
        let own = self.own.parts().filter(|_| bucket_of(self.config.name) == bucket);
        let others = self.store.peers().filter(|(name, peer)| bucket_of(*name) == bucket && peer.reachable);
        own.chain(others.flat_map(|(_, peer)| peer.parts.values())).map(SignedPart::digest).collect()
    }

    /// A link is to be told something or asked for parts, or can take them again.
    pub(super) fn serve(&mut self, link: LinkNumber) {
        if !self.to_serve.contains(&link) {
            self.to_serve.push_back(link);
        }
    }
}

fn is_among(links: &[AnnouncedLink], peer: PeerName) -> bool {
    links.binary_search_by_key(&peer, |link| link.peer).is_ok()
}

/// True if `us` are among those that tell `peer` of the parts of `owner`, though that has `links`
/// to both: the first behind the owner's name, so that each has a few others to tell.
fn tells_beside(
    us: PeerName,
    owner: PeerName,
    links: &[AnnouncedLink],
    peer: PeerName,
    store: &Store,
) -> bool {
    let Some(host) = store.peer(peer).and_then(|peer| peer.host.as_ref()) else { return false };
    let (before, behind) = links.split_at(links.partition_point(|link| link.peer < owner));
    let both = behind.iter().chain(before).filter(|link| is_among(&host.links, link.peer));
    both.take(TELL_BESIDE).any(|link| link.peer == us)
}
