//! What others may read of the mesh.

use super::Mesh;
use crate::output::{LinkNumber, Signer};
use crate::paths::{Links, walk};
use crate::routes::PeerRoute;
use crate::store::Peer;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use weave_wire::link::gossip::{AnnouncedLink, HostPart, PartId};
use weave_wire::{HostName, IdentityKey, MacAddr, Nickname, PeerName, Uid};

/// A peer that is known.
#[derive(Debug, Clone)]
pub struct PeerView<'a> {
    /// Its name.
    pub name: PeerName,
    /// The key its name is bound to.
    pub identity: IdentityKey,
    /// Its run, as it told last.
    pub uid: Option<Uid>,
    /// What operators call it.
    pub nickname: Option<&'a Nickname>,
    /// UDP and TCP port it listens on.
    pub port: Option<u16>,
    /// Where it thinks it can be reached.
    pub addresses: &'a [SocketAddr],
    /// Its optional abilities, one bit each; none before it told.
    pub features: u64,
    /// The links it announces.
    pub links: &'a [AnnouncedLink],
    /// Our newest link to it, established or not.
    pub link: Option<LinkNumber>,
    /// The way to it, if it can be reached.
    pub route: Option<&'a PeerRoute>,
}

/// What is known of who is linked to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TopologyView {
    /// Peers that can be reached, we among them.
    pub peers: usize,
    /// Peers that are known but cannot be reached.
    pub unreachable: usize,
    /// Links that the former announce: each counts at both ends.
    pub links: usize,
    /// A number below 2^48 made of the former and their links: whoever knows the same has the same.
    pub digest: u64,
}

impl<S: Signer> Mesh<S> {
    /// Who is linked to whom, in numbers.
    #[must_use]
    pub fn topology(&self) -> TopologyView {
        let mut view = TopologyView::default();
        let mut add = |name, links: &[AnnouncedLink]| {
            view.peers += 1;
            view.links += links.len();
            // A sum: in whatever order they are added.
            let ends = links.iter().map(|link| mix(name, link.peer));
            view.digest = ends.fold(view.digest.wrapping_add(mix(name, name)), u64::wrapping_add);
        };
        add(self.config.name, &self.announced_links());
        for (name, peer) in self.store.peers() {
            if self.routes.peer(name).is_some() {
                add(name, peer.host.as_ref().map_or(&[], |host| &host.links));
            } else {
                view.unreachable += 1;
            }
        }
        view.digest >>= 16;
        view
    }

    /// Everybody known, by name, reachable or not, but us.
    pub fn peers(&self) -> impl Iterator<Item = PeerView<'_>> {
        let links = self.links_by_peer();
        self.store.peers().map(move |(name, peer)| self.view(name, peer, links.get(&name).copied()))
    }

    /// One peer, if it is known.
    #[must_use]
    pub fn peer(&self, name: PeerName) -> Option<PeerView<'_>> {
        let ours = self.links.iter().filter(|(_, link)| link.info.peer == name);
        let link = ours.max_by_key(|(_, link)| link.order).map(|(number, _)| *number);
        self.store.peer(name).map(|peer| self.view(name, peer, link))
    }

    /// The peers on the way of our frames to `peer`, itself last, each with whether the link
    /// that leads to it is unencrypted. Empty if no way leads there.
    #[must_use]
    pub fn way_to(&self, peer: PeerName) -> Vec<(PeerName, bool)> {
        let links = if self.routes.sealed_only { Links::Sealed } else { Links::Any };
        let (Some(us), Some(to)) = (self.topology.node(self.config.name), self.topology.node(peer)) else {
            return Vec::new();
        };
        let way = walk(&self.topology, links, us, to);
        way.iter().filter_map(|edge| Some((self.topology.name(edge.to)?, edge.unencrypted))).collect()
    }

    /// Where we tell others that we can be reached.
    #[must_use]
    pub fn own_addresses(&self) -> &[SocketAddr] {
        &self.config.addresses
    }

    /// The newest link to each neighbour, established or not.
    fn links_by_peer(&self) -> BTreeMap<PeerName, LinkNumber> {
        let mut links: Vec<_> = self.links.iter().collect();
        links.sort_unstable_by_key(|(_, link)| link.order);
        links.into_iter().map(|(number, link)| (link.info.peer, *number)).collect()
    }

    fn view<'a>(&'a self, name: PeerName, peer: &'a Peer, link: Option<LinkNumber>) -> PeerView<'a> {
        let host: Option<&HostPart> = peer.host.as_ref();
        PeerView {
            name,
            identity: peer.identity,
            uid: peer.parts.get(&PartId::HOST).map(|part| part.uid),
            nickname: host.map(|host| &host.nickname),
            port: host.map(|host| host.port),
            addresses: host.map_or(&[], |host| &host.addresses),
            features: host.map_or(0, |host| host.features),
            links: host.map_or(&[], |host| &host.links),
            link,
            route: self.routes.peer(name),
        }
    }

    /// The stations attached at other peers.
    pub fn stations(&self) -> impl Iterator<Item = (MacAddr, PeerName)> {
        self.stations_reported.iter().map(|(mac, peer)| (*mac, *peer))
    }

    /// All names, our own among them, each with whose it is, its address and container.
    pub fn names(&self) -> impl Iterator<Item = (&HostName, PeerName, IpAddr, [u8; 6])> {
        self.names_directory.iter().flat_map(|(name, says)| {
            says.iter().map(move |(key, (address, container))| (name, key.owner, *address, *container))
        })
    }

    /// How many entries [`Self::names`] has, ours and those of others; they may be very many, and are
    /// not walked.
    #[must_use]
    pub fn names_counted(&self) -> [usize; 2] {
        let ours = self.names_directory.count_of(self.config.name);
        [ours, self.names_directory.count().saturating_sub(ours)]
    }

    /// How many of them each peer has that has any; not walked either.
    pub fn names_by_peer(&self) -> impl Iterator<Item = (PeerName, usize)> {
        self.names_directory.counts()
    }

    /// How many [`Self::stations`] has.
    #[must_use]
    pub fn stations_counted(&self) -> usize {
        self.stations_reported.len()
    }

    /// What a name stands for: whose it is, address and container.
    pub fn name(&self, name: &HostName) -> impl Iterator<Item = (PeerName, IpAddr, [u8; 6])> {
        let says = self.names_directory.get(name).iter();
        says.map(|(key, (address, container))| (key.owner, *address, *container))
    }

    /// Peers in the graph of links: those that are known and told of their links, and we.
    #[must_use]
    pub fn peers_in_graph(&self) -> usize {
        self.topology.peers()
    }

    /// Links in that graph, each counted at both ends.
    #[must_use]
    pub const fn link_ends(&self) -> usize {
        self.topology.link_ends()
    }

    /// Bytes of the parts of others that are kept.
    #[must_use]
    pub const fn part_bytes(&self) -> usize {
        self.store.bytes()
    }

    /// Frees the name of a peer that there is no link to: another key may take
    /// it. False if it was not bound, or if there is a link.
    pub fn forget_identity(&mut self, name: PeerName) -> bool {
        let forgotten = self.store.forget(name);
        if forgotten {
            let now = self.routes_computed.unwrap_or_default();
            self.after_drops(now);
        }
        forgotten
    }
}

/// A number for a link from one peer to another, spread over all bits (the finisher of `SplitMix64`).
fn mix(from: PeerName, to: PeerName) -> u64 {
    let number = |name: PeerName| name.to_bytes().iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
    let mut mixed = number(from).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(number(to));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
