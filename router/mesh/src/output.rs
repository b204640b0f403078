//! What the mesh tells its driver, and what the driver tells it.

use std::net::{IpAddr, SocketAddr};
use weave_wire::link::gossip::Gossip;
use weave_wire::{HostName, IdentityKey, MacAddr, Nickname, PeerName, Uid};

/// Signs for this host and verifies what others signed.
pub trait Signer {
    /// The key that verifies our signatures.
    fn identity(&self) -> IdentityKey;
    /// Signs with our key.
    fn sign(&self, bytes: &[u8]) -> [u8; 64];
    /// True if the owner of `key` signed `bytes`.
    fn verify(&self, key: &IdentityKey, bytes: &[u8], signature: &[u8; 64]) -> bool;
}

/// Who we are.
#[derive(Debug, Clone)]
pub struct MeshConfig {
    /// Our name.
    pub name: PeerName,
    /// Our run.
    pub uid: Uid,
    /// What operators call us.
    pub nickname: Nickname,
    /// UDP and TCP port we listen on.
    pub port: u16,
    /// Where we think we can be reached.
    pub addresses: Vec<SocketAddr>,
    /// Our stations' frames go by links only that are not unencrypted.
    pub sealed_only: bool,
    /// Our optional abilities, one bit each.
    pub features: u64,
    /// How often this state was launched: versions start at `run << 32`.
    pub run: u32,
    /// Of the jitter.
    pub seed: u64,
}

/// A link, numbered by the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkNumber(pub u64);

/// What the handshake told of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkInfo {
    /// The other end.
    pub peer: PeerName,
    /// Its run.
    pub uid: Uid,
    /// Its key.
    pub identity: IdentityKey,
    /// True if data crosses it in clear.
    pub unencrypted: bool,
    /// True if this host dialled.
    pub outbound: bool,
    /// What a frame's passage costs, at least 1.
    pub cost: u16,
}

/// A station attached on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnStation {
    /// Its MAC address.
    pub mac: MacAddr,
    /// Its addresses with the lengths of their prefixes, bits.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// A second key for a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{name} has another identity ({bound}) than the one offered ({offered})")]
pub struct Refused {
    /// The name.
    pub name: PeerName,
    /// The key it is bound to.
    pub bound: IdentityKey,
    /// The key refused.
    pub offered: IdentityKey,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Queue on the link's TCP connection.
    Send(LinkNumber, Gossip),
    /// Read the routes again.
    RoutesChanged,
    /// Read the peers again: addresses to dial, what to show.
    PeersChanged,
    /// Stations attached at other peers: appeared or moved (`Some`) or gone (`None`).
    StationsChanged(Vec<(MacAddr, Option<PeerName>)>),
    /// Addresses that another station may have now, here or at another peer.
    AddressesChanged(Vec<IpAddr>),
    /// Names whose set of addresses changed.
    NamesChanged(Vec<HostName>),
    /// Another peer's claim on a station attached here is higher: our entry was withdrawn.
    Withdrawn(MacAddr),
    /// Another peer's claim on an address attached here is higher: ours was withdrawn.
    AddressWithdrawn(IpAddr),
    /// Another host runs on a copy of our state.
    Cloned {
        /// The other host's run.
        uid: Uid,
        /// True if it is we who take a new name and key; nothing more is published.
        must_rename: bool,
    },
    /// A second key for a name; at most once a minute and name.
    Refused(Refused),
}

/// Why the mesh wants to be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Own changes are to be published.
    Publish,
    /// What was accepted is to be announced.
    Announce,
    /// A part that was asked for may be overdue.
    Pulls,
    /// Routes are to be computed.
    Routes,
    /// More of what became reachable is to be taken into the directories.
    Index,
    /// Former paths are no longer accepted.
    FormerPaths,
    /// Summaries are due.
    Summary,
    /// Unreachable peers may be collected.
    Collect,
}
