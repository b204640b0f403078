//! Routes, and what depends on who can be reached.

use super::Mesh;
use crate::output::{Output, Signer};
use crate::routes::compute;
use crate::store::PEERS;
use std::collections::BTreeSet;
use std::time::Duration;
use weave_wire::PeerName;
use weave_wire::link::gossip::PartKey;

/// Routes are computed at most this often. With 300 peers all linked to each
/// other one computation takes a few milliseconds, with 1,000 of 30 links each
/// about ten: a storm of changes costs a tenth of a core, and fewer than that
/// change nothing for anybody sooner than the next announcement comes.
const ROUTES_EVERY: Duration = Duration::from_millis(50);
/// After a computation there is none for so long for each link that it looked at: ten times what
/// looking at one takes, so that routes cost a tenth of a core whatever peers tell of their links.
const PAUSE_PER_LINK: Duration = Duration::from_nanos(100);
/// Nor longer than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Links of all peers, each counted at both ends, at most: 1,024 peers of as many as one can have.
pub const LINK_ENDS: usize = 1 << 19;
/// A peer's share of them.
const FAIR_LINKS: usize = LINK_ENDS / PEERS;
/// Content of parts that is indexed at once, about, bytes: whoever makes many peers reachable at
/// once makes no long turn by that.
const INDEXED_AT_ONCE: usize = 256 << 10;
/// Time until the rest has its turn.
const INDEX_PAUSE: Duration = Duration::from_millis(5);

impl<S: Signer> Mesh<S> {
    pub(super) fn routes_dirty(&mut self, now: Duration) {
        if self.routes_at.is_none() {
            let earliest = self.routes_computed.map_or(now, |last| last.saturating_add(self.routes_pause));
            self.routes_at = Some(earliest.max(now));
        }
    }

    pub(super) fn recompute(&mut self, now: Duration) {
        self.routes_at = None;
        self.routes_computed = Some(now);
        self.counters.route_runs += 1;
        let announced = self.announced_links();
        self.topology.set(self.config.name, announced);
        let (ours, own) = (self.config.name, self.config.sealed_only);
        let host = |name| self.store.peer(name).and_then(|peer| peer.host.as_ref());
        let is_sealed_only =
            |name| if name == ours { own } else { host(name).is_some_and(|host| host.sealed_only) };
        let (routes, looked) = compute(&self.topology, ours, &self.newest_links(), is_sealed_only);
        let looked = u32::try_from(looked).unwrap_or(u32::MAX);
        self.routes_pause = PAUSE_PER_LINK.saturating_mul(looked).clamp(ROUTES_EVERY, LONGEST_PAUSE);
        let reached: BTreeSet<PeerName> = routes.peers.iter().map(|route| route.peer).collect();
        self.paths.replace(routes, now);
        self.refresh_routes();
        self.note_reachable(&reached, now);
    }

    /// Former paths are accepted no longer.
    pub(super) fn refresh_routes(&mut self) {
        let routes = self.paths.routes();
        if self.routes != routes {
            self.routes = routes;
            self.outputs.push_back(Output::RoutesChanged);
        }
    }

    fn note_reachable(&mut self, reached: &BTreeSet<PeerName>, now: Duration) {
        let changes = self.store.peers().map(|(name, peer)| (name, peer.reachable, reached.contains(&name)));
        let changed: Vec<_> =
            changes.filter(|(_, was, is)| was != is).map(|(name, _, is)| (name, is)).collect();
        if changed.is_empty() {
            return;
        }
        self.summary = None;
        self.outputs.push_back(Output::PeersChanged);
        for (name, is) in changed {
            let Some(peer) = self.store.peer_mut(name) else { continue };
            peer.reachable = is;
            peer.since = now;
            let parts: Vec<_> = peer.parts.keys().copied().filter(|_| is).collect();
            for part in parts {
                self.announce(PartKey { owner: name, part }, &[], now);
            }
            self.to_index.insert(name);
        }
        self.index_some(now);
    }

    /// Takes peers into the directories or out of them that became reachable or unreachable, until
    /// they are enough for once.
    pub(super) fn index_some(&mut self, now: Duration) {
        let mut bytes = 0;
        while bytes < INDEXED_AT_ONCE
            && let Some(name) = self.to_index.pop_first()
        {
            let parts = self.store.peer(name).map(|peer| peer.parts.values());
            bytes += parts.into_iter().flatten().map(|part| part.content.len()).sum::<usize>();
            self.index_peer(name, now);
        }
        self.index_at = (!self.to_index.is_empty()).then(|| now.saturating_add(INDEX_PAUSE));
    }

    /// Beyond [`LINK_ENDS`] the newest strangers with more links than [`FAIR_LINKS`] give way, or else
    /// the newest with any: who has few, or was there before, has its place.
    pub(super) fn bound_links(&mut self, now: Duration) {
        while self.topology.link_ends() > LINK_ENDS {
            let links = |name| self.topology.node(name).map_or(0, |node| self.topology.edges(node).len());
            let gave_way = self.store.give_way(|name| links(name) > FAIR_LINKS, now, &mut self.counters)
                || self.store.give_way(|name| links(name) > 0, now, &mut self.counters);
            if !gave_way {
                return;
            }
            self.after_drops(now);
        }
    }

    /// Peers were dropped from the store: from everything else, too.
    pub(super) fn after_drops(&mut self, now: Duration) {
        for name in self.store.take_dropped() {
            if self.topology.remove(name) {
                self.routes_dirty(now);
            }
            self.summary = None;
            self.index_peer(name, now);
            self.outputs.push_back(Output::PeersChanged);
        }
    }
}
