//! Routes, and what depends on who can be reached.

use super::Mesh;
use crate::output::{Output, Signer};
use crate::routes::compute;
use std::collections::BTreeSet;
use std::time::Duration;
use weave_wire::PeerName;
use weave_wire::link::gossip::PartKey;

/// Routes are computed at most this often. With 300 peers all linked to each
/// other one computation takes a few milliseconds, with 1,000 of 30 links each
/// about ten: a storm of changes costs a tenth of a core, and fewer than that
/// change nothing for anybody sooner than the next announcement comes.
const ROUTES_EVERY: Duration = Duration::from_millis(50);

impl<S: Signer> Mesh<S> {
    pub(super) fn routes_dirty(&mut self, now: Duration) {
        if self.routes_at.is_none() {
            let earliest = self.routes_computed.map_or(now, |last| last.saturating_add(ROUTES_EVERY));
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
        let routes = compute(&self.topology, ours, &self.newest_links(), is_sealed_only);
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
            self.index_peer(name, now);
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
