//! What the mesh decides, carried out.

use super::*;
use weave_api::names::ShortId;
use weave_crypto::verify_part;
use weave_host::names::{Held, Holder};
use weave_mesh::{LinkNumber, Output, OwnStation, Signer};
use weave_wire::link::gossip::{Gossip, NameEntry};

/// How long it is said that another host ran on a copy of this host's state.
const CLONE_SHOWN: Duration = Duration::from_secs(120);
/// Own addresses told to others, at most.
const OWN_ADDRESSES: usize = 16;

/// Signs for this host.
#[derive(Debug)]
pub(in crate::control) struct HostSigner(pub(super) Arc<LocalPeer>);

impl Signer for HostSigner {
    fn identity(&self) -> IdentityKey {
        self.0.identity.public()
    }

    fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        self.0.identity.sign_part(bytes)
    }

    fn verify(&self, key: &IdentityKey, bytes: &[u8], signature: &[u8; 64]) -> bool {
        verify_part(key, bytes, signature)
    }
}

impl Core {
    /// Does what is due in the mesh, and all it asks for.
    pub(super) fn run_mesh(&mut self) {
        let now = self.now();
        if self.mesh.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.mesh.handle_timeout(now);
        }
        while let Some(output) = self.mesh.poll_output() {
            match output {
                Output::Send(link, gossip) => self.send_gossip(link, gossip),
                Output::RoutesChanged => self.routes_changed = true,
                Output::PeersChanged => self.peers_changed = true,
                Output::StationsChanged(changes) => self.on_attached_elsewhere(changes),
                Output::AddressesChanged(addresses) => self.on_addresses_changed(&addresses),
                Output::NamesChanged(names) => self.on_names_changed(names),
                Output::Withdrawn(mac) => {
                    tracing::warn!(%mac, "another host claims a station attached here: it is there now");
                    self.withdrawn.insert(mac);
                    self.local_macs_changed = true;
                }
                Output::AddressWithdrawn(address) => {
                    tracing::warn!(%address, "another host claims an address attached here");
                }
                Output::Cloned { uid, must_rename } => self.on_cloned(uid, must_rename),
                Output::Refused(refused) => {
                    tracing::warn!("{refused}: a host that lost its state, or an impostor");
                }
            }
        }
        if self.peers_changed && self.discover_at <= now {
            self.peers_changed = false;
            self.discover_at = now.saturating_add(DISCOVER_EVERY);
            self.discover(now);
        }
    }

    fn send_gossip(&mut self, number: LinkNumber, gossip: Gossip) {
        let Some(id) = self.link_by_number(number.0) else { return };
        self.send(id, &Message::Gossip(gossip));
        let full =
            self.links.get(&id).and_then(|link| link.connection.as_ref()).is_none_or(Connection::is_full);
        if full {
            self.mesh.set_writable(number, false);
        }
    }

    /// The connection took what waited, or another one took its place.
    pub(super) fn on_drained(&mut self, connection: u64) {
        let number =
            self.link_of_connection(connection).and_then(|id| self.links.get(&id)).map(|link| link.number);
        if let Some(number) = number {
            self.mesh.set_writable(LinkNumber(number), true);
        }
    }

    /// Dials whom the mesh reaches and this host has no link to.
    fn discover(&mut self, now: Duration) {
        let candidates = if self.config.discovery && self.current_links() < self.link_limit() {
            let wanted = self.mesh.peers().filter(|peer| peer.route.is_some() && peer.link.is_none());
            wanted
                .map(|peer| {
                    // One address is one target, however it is written.
                    let canonical = |at: &SocketAddr| SocketAddr::new(at.ip().to_canonical(), at.port());
                    let dialled = peer.addresses.iter().filter(|address| weave_mesh::may_dial(**address));
                    let dialled = dialled.map(canonical).map(|at| (at.ip(), Target::from(at)));
                    (peer.name, dialled.collect())
                })
                .collect()
        } else {
            Vec::new()
        };
        self.dialler.set_discovered(candidates, self.local.name, now);
    }

    /// Tells the mesh where peers see us, or where the operator says we are.
    pub(super) fn tell_addresses(&mut self) {
        let now = self.now();
        let port = self.group.port();
        let advertised = self.config.advertise.iter().filter_map(|target| target.address(port));
        let mut addresses: Vec<SocketAddr> = advertised.collect();
        if addresses.is_empty() {
            let seen = self.links.values().filter_map(|link| link.observed);
            addresses =
                seen.map(|ip| SocketAddr::new(ip, port)).filter(|at| weave_mesh::may_dial(*at)).collect();
            addresses.sort_unstable();
            addresses.dedup();
        }
        addresses.truncate(OWN_ADDRESSES);
        self.mesh.set_addresses(addresses, now);
    }

    fn on_attached_elsewhere(&mut self, changes: Vec<(MacAddr, Option<PeerName>)>) {
        for (mac, peer) in changes {
            self.stations.forget(mac);
            self.local_macs_changed |= peer.is_none() && self.withdrawn.remove(&mac);
            self.mac_changes.push(MacChange { mac, peer, attached: peer.is_some() });
        }
    }

    /// Another host runs on a copy of our state. One of both takes a new name and
    /// key, unless it was told its name: then it leaves its links, each of which
    /// would take the place of one of the other's.
    fn on_cloned(&mut self, uid: weave_wire::Uid, must_rename: bool) {
        let reason = match (must_rename, self.config.name) {
            (true, None) => {
                tracing::error!("another host (run {uid}) runs on a copy of this host's state");
                self.say_bye("this host was a copy of another and takes a new name");
                self.end.get_or_insert(Ok(End::Renamed(self.local.secrets.clone())));
                return;
            }
            (true, Some(name)) => {
                self.leave_links();
                format!(
                    "another host (run {uid}) runs on a copy of this host's state and goes on as {name}; this one \
                     has no links any more: `weave reset` and launch again, with another --name or none"
                )
            }
            (false, _) => format!(
                "another host (run {uid}) runs on a copy of this host's state: unless it takes a new name by \
                 itself, `weave reset` and launch it again, with another --name or none"
            ),
        };
        tracing::error!("{reason}");
        self.degraded.retain(|(name, _)| *name != "cloned");
        self.degraded.push(("cloned", reason));
        self.cloned_at = Some(self.now());
    }

    /// A sidecar is told all names of other hosts, then what changes.
    pub(super) fn on_reads_names(&mut self, reader: rt::Sender<Names>) {
        let own = self.local.name;
        let mut all = Names::new();
        for (name, origin, address, container) in self.mesh.names().filter(|(_, origin, ..)| *origin != own) {
            let container = ShortId(container);
            all.entry(name.clone()).or_default().push(Says { origin, address, container });
        }
        self.names_readers.add(reader, all);
    }

    fn on_names_changed(&mut self, names: Vec<HostName>) {
        if self.names_readers.is_empty() {
            return;
        }
        let own = self.local.name;
        let says = |name: &HostName| {
            let all = self.mesh.name(name).filter(|(origin, ..)| *origin != own);
            all.map(|(origin, address, id)| Says { origin, address, container: ShortId(id) }).collect()
        };
        let change: Names = names.into_iter().map(|name| (name.clone(), says(&name))).collect();
        self.names_readers.tell(&change);
    }

    /// A keeper is told all addresses that are attached elsewhere, then what changes.
    pub(super) fn on_reads_addresses(&mut self, reader: rt::Sender<Addresses>) {
        let all = self.mesh.addresses_elsewhere().map(|(address, mac)| (address, Some(mac)));
        self.addresses_readers.add(reader, all.collect());
    }

    fn on_addresses_changed(&mut self, addresses: &[IpAddr]) {
        if self.addresses_readers.is_empty() {
            return;
        }
        let change = addresses.iter().map(|address| (*address, self.mesh.station_elsewhere(address)));
        self.addresses_readers.tell(&change.collect());
    }

    /// The names of this host are these from now on.
    pub(super) fn tell_names(&mut self, own: Vec<Held>) {
        let entries = own.into_iter().map(|held| NameEntry {
            name: held.name,
            address: held.address,
            container: match held.holder {
                Holder::Container(container) => ShortId::of(&container).0,
                Holder::Host | Holder::Outside => ShortId::default().0,
            },
        });
        let now = self.now();
        self.mesh.set_names(entries.collect(), now);
    }

    /// Ends all links and makes no new ones.
    fn leave_links(&mut self) {
        self.is_superseded = true;
        self.say_bye("another host runs on a copy of this host's state");
        for id in self.links.keys().copied().collect::<Vec<_>>() {
            self.lose_link(id, "another host goes on under this host's name");
        }
    }

    /// The state `cloned` ends once the other host was not heard of for a while.
    pub(super) fn forget_clone(&mut self, now: Duration) {
        if !self.is_superseded && self.cloned_at.is_some_and(|at| now.saturating_sub(at) >= CLONE_SHOWN) {
            self.cloned_at = None;
            self.degraded.retain(|(name, _)| *name != "cloned");
        }
    }

    /// Tells the shards which of the stations attached here are ours.
    pub(super) fn tell_local_macs(&mut self) {
        let ours = self.stations.attached().filter(|mac| !self.withdrawn.contains(mac));
        let local: Arc<Vec<_>> = Arc::new(ours.collect());
        self.command_all(|| Command::SetLocalMacs(Arc::clone(&local)));
    }

    /// The routes of the mesh, as the shards take them.
    pub(super) fn shard_routes(&self) -> Routes {
        // While one link follows another the peer may still use either.
        let mut by_number = HashMap::new();
        let mut by_peer: HashMap<PeerName, Vec<LinkId>> = HashMap::new();
        for link in self.links.values() {
            by_number.insert(link.number, link);
            by_peer.entry(link.peer.name).or_default().push(link.id);
        }
        let id = |number: &LinkNumber| by_number.get(&number.0).map(|link| link.id);
        let all = |numbers: &[LinkNumber]| -> Vec<LinkId> {
            let peers = numbers.iter().filter_map(|number| by_number.get(&number.0));
            peers.filter_map(|link| by_peer.get(&link.peer.name)).flatten().copied().collect()
        };
        // What a neighbour sends over its own link is its own, whether or not all others
        // have told yet that the link is there.
        let own = |peer: PeerName| {
            let links = self.links.values().filter(move |link| link.peer.name == peer);
            links.filter(|link| link.is_established()).map(|link| link.id)
        };
        let with_own = |mut from: Vec<LinkId>, peer: PeerName| {
            let missing: Vec<_> = own(peer).filter(|link| !from.contains(link)).collect();
            from.extend(missing);
            from
        };
        let routes = self.mesh.routes();
        // In a clear network nobody asks for more than there is.
        let encrypted = self.is_encrypted();
        let peers = routes.peers.iter().filter_map(|route| {
            let next = id(&route.next)?;
            Some(weave_forward::PeerRoute {
                peer: route.peer,
                next,
                next_sealed: if encrypted { route.next_sealed.as_ref().and_then(id) } else { Some(next) },
                sealed_only: route.sealed_only,
                unicast_from: with_own(all(&route.unicast_from), route.peer),
                broadcast_from: with_own(all(&route.broadcast_from), route.peer),
                broadcast_to: route.broadcast_to.iter().filter_map(id).collect(),
            })
        });
        let mut peers: Vec<_> = peers.collect();
        let mut broadcast: Vec<_> = routes.broadcast.iter().filter_map(id).collect();
        // A link that passes data is used before both ends have told all others of it,
        // unless its peer is reached by others so far.
        for link in self.links.values().filter(|link| link.carries()) {
            if peers.iter().all(|route| route.peer != link.peer.name) {
                let own = vec![link.id];
                peers.push(weave_forward::PeerRoute {
                    peer: link.peer.name,
                    next: link.id,
                    next_sealed: (link.is_encrypted() || !encrypted).then_some(link.id),
                    // Until it has told: perhaps it keeps its frames off unencrypted links.
                    sealed_only: encrypted,
                    unicast_from: own.clone(),
                    broadcast_from: own,
                    broadcast_to: Vec::new(),
                });
                if link.is_encrypted() || !self.config.require_encryption {
                    broadcast.push(link.id);
                }
            }
        }
        let followed = self.links.values().filter(|link| link.replaced.is_some());
        let followed = followed.filter_map(|link| Some((link.id, self.newest_to(link.peer.name)?.id)));
        Routes { peers, broadcast, sealed_only: self.config.require_encryption, followed: followed.collect() }
    }
}

/// The host itself where it is exposed: its bridge is a station like those of its containers.
pub(super) fn host_station(state_dir: &std::path::Path) -> Option<OwnStation> {
    let exposed = match weave_host::exposed::read_all(state_dir) {
        Ok(exposed) if exposed.is_empty() => return None,
        Ok(exposed) => exposed,
        Err(error) => {
            tracing::warn!("reading the exposed addresses: {error}");
            return None;
        }
    };
    let addresses = exposed.iter().map(|one| (one.cidr.addr(), one.cidr.prefix_len())).collect();
    Some(OwnStation { mac: weave_host::bridge::mac()?, addresses })
}

/// A record of an attachment as the mesh tells it.
pub(super) fn own_station(record: &weave_host::records::Record) -> OwnStation {
    let addresses = record.cidrs.iter().map(|cidr| (cidr.addr(), cidr.prefix_len())).collect();
    OwnStation { mac: record.mac, addresses }
}
