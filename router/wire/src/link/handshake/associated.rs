//! What a peer states of itself in the handshake.

use super::{MAX_LANES, MIN_MTU, VALUE_LEN};
use crate::link::ParseError;
use crate::{PeerName, SessionIndex, Uid};
use zerocopy::byteorder::network_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What a peer states of itself beside its share, bound to the password
/// exchange as CPace's associated data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AssociatedData {
    /// Ephemeral X25519 public key.
    pub ephemeral: [u8; VALUE_LEN],
    /// Ed25519 public key of the host.
    pub identity: [u8; VALUE_LEN],
    /// Name of the peer.
    pub name: PeerName,
    /// Its run.
    pub uid: Uid,
    /// What it will call the link in the headers of datagrams sent to it.
    pub session: SessionIndex,
    /// Features both hellos named.
    pub features: u64,
    /// Version chosen from both hellos.
    pub version: u8,
    /// Receiving shards, 1 to [`MAX_LANES`].
    pub shards: u8,
    /// Sending lanes, 1 to [`MAX_LANES`].
    pub lanes: u8,
    /// True if the sender takes the path between both for a trusted subnet.
    pub trusted_subnet: bool,
    /// MTU of the sender's side of the Ethernet, at least [`MIN_MTU`], bytes.
    pub mtu: u16,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawAssociatedData {
    ephemeral: [u8; VALUE_LEN],
    identity: [u8; VALUE_LEN],
    name: [u8; 6],
    uid: U64,
    session: U64,
    features: U64,
    version: u8,
    shards: u8,
    lanes: u8,
    flags: u8,
    mtu: U16,
}

/// The only flag of this version; others are ignored.
const TRUSTED_SUBNET: u8 = 1;

impl AssociatedData {
    pub(super) fn encode(&self) -> [u8; size_of::<RawAssociatedData>()] {
        zerocopy::transmute!(RawAssociatedData {
            ephemeral: self.ephemeral,
            identity: self.identity,
            name: self.name.to_bytes(),
            uid: U64::new(self.uid.0),
            session: U64::new(self.session.0),
            features: U64::new(self.features),
            version: self.version,
            shards: self.shards,
            lanes: self.lanes,
            flags: if self.trusted_subnet { TRUSTED_SUBNET } else { 0 },
            mtu: U16::new(self.mtu),
        })
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let (raw, _) = RawAssociatedData::ref_from_prefix(bytes)
            .map_err(|_| ParseError::Truncated { what: "associated data" })?;
        for (count, what) in [(raw.shards, "shard count"), (raw.lanes, "lane count")] {
            if !(1..=MAX_LANES).contains(&count) {
                return Err(ParseError::Invalid { what });
            }
        }
        if raw.mtu.get() < MIN_MTU {
            return Err(ParseError::Invalid { what: "MTU" });
        }
        Ok(Self {
            ephemeral: raw.ephemeral,
            identity: raw.identity,
            name: PeerName::new(raw.name).ok_or(ParseError::Invalid { what: "peer name" })?,
            uid: Uid(raw.uid.get()),
            session: SessionIndex(raw.session.get()),
            features: raw.features.get(),
            version: raw.version,
            shards: raw.shards,
            lanes: raw.lanes,
            trusted_subnet: raw.flags & TRUSTED_SUBNET != 0,
            mtu: raw.mtu.get(),
        })
    }
}
