//! What the mesh decides, carried out (`core/gossip.rs`).

use super::*;
use std::collections::btree_map::Entry;

/// Own addresses told to others, at most.
const OWN_ADDRESSES: usize = 16;
/// From this many bytes or messages on no more gossip is queued.
const FULL: (usize, usize) = (256 << 10, 256);

impl Host {
    pub(super) fn run_mesh(&mut self, now: Duration) {
        if let Some((at, timer)) = self.mesh.poll_timeout()
            && at <= now
        {
            let watch = self.route_times.as_mut().filter(|_| timer == weave_mesh::Timer::Routes);
            let begun = watch.as_ref().map(|watch| (watch.clock)());
            self.mesh.handle_timeout(now);
            if let (Some(watch), Some(begun)) = (watch, begun) {
                watch.note((watch.clock)().saturating_sub(begun));
            }
        }
        while let Some(output) = self.mesh.poll_output() {
            match output {
                Output::Send(link, gossip) => self.send_gossip(link, gossip, now),
                Output::RoutesChanged => self.routes_changed = true,
                Output::PeersChanged => self.peers_changed = true,
                Output::NamesChanged(names) => self.names_changed.extend(names),
                Output::Cloned { must_rename, .. } => self.on_cloned(must_rename),
                Output::StationsChanged(_)
                | Output::AddressesChanged(_)
                | Output::Withdrawn(_)
                | Output::AddressWithdrawn(_)
                | Output::Refused(_) => {}
            }
        }
        if std::mem::take(&mut self.peers_changed) {
            self.discover(now);
        }
    }

    /// Another host runs on a copy of our state. Who must, goes on as another.
    pub(super) fn on_cloned(&mut self, must_rename: bool) {
        if must_rename && !std::mem::replace(&mut self.superseded, true) {
            self.effects.push(Effect::Rename);
        }
    }

    /// Sends gossip over a link, whatever it is.
    pub fn send_gossip(&mut self, number: LinkNumber, gossip: Gossip, now: Duration) {
        let Some(session) = self.by_number.get(&number.0).copied() else { return };
        let id = self.links.get(&session).and_then(|link| link.connection.as_ref()).map(|c| c.id);
        if let Some(id) = id {
            self.send(id, &Message::Gossip(gossip), now);
        }
        let connection = self.links.get_mut(&session).and_then(|link| link.connection.as_mut());
        let is_full = connection.is_none_or(|connection| {
            connection.full = connection.queued >= FULL.0 || connection.messages >= FULL.1;
            connection.full
        });
        if is_full {
            self.mesh.set_writable(number, false);
        }
    }

    pub(super) fn discover(&mut self, now: Duration) {
        let limit = self.settings.conn_limit.min(MAX_LINKS - 1);
        let candidates = if self.settings.discovery && self.current_links() < limit {
            let wanted = self.mesh.peers().filter(|peer| peer.route.is_some() && peer.link.is_none());
            wanted
                .map(|peer| {
                    let dialled = peer.addresses.iter().filter(|address| weave_mesh::may_dial(**address));
                    (peer.name, dialled.map(|at| (at.ip(), *at)).collect())
                })
                .collect()
        } else {
            Vec::new()
        };
        self.dialler.set_discovered(candidates, self.state.name, now);
    }

    pub(super) fn tell_addresses(&mut self, now: Duration) {
        let seen = self.links.values().filter_map(|link| link.observed);
        let mut addresses: Vec<_> =
            seen.map(|ip| SocketAddr::new(ip, PORT)).filter(|at| weave_mesh::may_dial(*at)).collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(OWN_ADDRESSES);
        self.mesh.set_addresses(addresses, now);
    }

    pub(super) fn shard_routes(&self) -> RouteTable {
        let session = |number: &LinkNumber| self.by_number.get(&number.0).copied();
        // While one link follows another the peer may still use either.
        let all = |numbers: &[LinkNumber]| -> Vec<Session> {
            let links = numbers.iter().filter_map(|n| self.links.get(&session(n)?));
            links.filter_map(|link| self.by_peer.get(&link.peer.name)).flatten().copied().collect()
        };
        let routes = self.mesh.routes();
        let peers = routes.peers.iter().filter_map(|route| {
            let shard = ShardRoute {
                next: session(&route.next)?,
                unicast_from: all(&route.unicast_from),
                broadcast_from: all(&route.broadcast_from),
                broadcast_to: route.broadcast_to.iter().filter_map(session).collect(),
            };
            Some((route.peer, shard))
        });
        let followed = self.links.values().filter(|link| !link.is_current());
        let followed =
            followed.filter_map(|link| Some((link.session, self.newest_to(link.peer.name)?.session)));
        let mut table = RouteTable {
            peers: peers.collect(),
            broadcast: routes.broadcast.iter().filter_map(session).collect(),
            followed: followed.collect(),
        };
        // A link that passes data is used before both ends have told all others of it,
        // unless its peer is reached by others so far.
        for link in self.links.values().filter(|link| link.carries()) {
            if let Entry::Vacant(vacant) = table.peers.entry(link.peer.name) {
                let own = vec![link.session];
                let route = ShardRoute {
                    next: link.session,
                    unicast_from: own.clone(),
                    broadcast_from: own,
                    broadcast_to: Vec::new(),
                };
                vacant.insert(route);
                table.broadcast.push(link.session);
            }
        }
        table
    }
}
