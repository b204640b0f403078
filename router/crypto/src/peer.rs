//! What the two sides of a handshake are.

use crate::{Identity, IdentityKey, Secrets};
use weave_wire::link::handshake::{Mode, Versions};
use weave_wire::{PeerName, SessionIndex, Uid};

/// This host, as it presents itself to every peer.
#[derive(Debug)]
pub struct LocalPeer {
    /// Name.
    pub name: PeerName,
    /// This run.
    pub uid: Uid,
    /// Identity key.
    pub identity: Identity,
    /// The secrets of the network.
    pub secrets: Secrets,
    /// Receiving shards, 1 to 64.
    pub shards: u8,
    /// Sending lanes, 1 to 64.
    pub lanes: u8,
    /// MTU of our side of the Ethernet, 576 to 65,535 bytes.
    pub mtu: u16,
    /// Optional abilities, one bit each.
    pub features: u64,
    /// Versions of the protocol: [`Versions::OURS`], but in tests.
    pub versions: Versions,
}

impl LocalPeer {
    /// The same host with other secrets of the same network: for the links to come.
    #[must_use]
    pub fn with_secrets(&self, secrets: Secrets) -> Self {
        Self { identity: self.identity.duplicate(), secrets, ..*self }
    }
}

/// What is chosen anew for each link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkChoice {
    /// What we will call the link in headers of datagrams sent to us: random,
    /// unlike any other session of ours.
    pub session: SessionIndex,
    /// True if we take the path to this address for a trusted subnet.
    pub trusted_subnet: bool,
}

/// The peer, as the handshake proved it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerInfo {
    /// Name.
    pub name: PeerName,
    /// Its run.
    pub uid: Uid,
    /// Identity key, by which it signed the handshake.
    pub identity: IdentityKey,
    /// What it calls the link in headers of datagrams sent to it.
    pub session: SessionIndex,
    /// Whether data is sealed.
    pub mode: Mode,
    /// Version of the protocol both use.
    pub version: u8,
    /// Features both have.
    pub features: u64,
    /// Its receiving shards, 1 to 64.
    pub shards: u8,
    /// Its sending lanes, 1 to 64.
    pub lanes: u8,
    /// MTU of its side of the Ethernet, bytes.
    pub mtu: u16,
    /// True if both sides take the path between them for a trusted subnet.
    pub trusted_subnet: bool,
}
