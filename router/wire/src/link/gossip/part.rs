//! Parts of a peer's state, their versions and digests.

use super::ParseError;
use crate::{IdentityKey, PeerName, Uid};

/// Longest content of a part, bytes.
pub const MAX_CONTENT_LEN: usize = 16 * 1024;

/// What a signature covers first.
const LABEL: &[u8] = b"weave 1 part";

/// Which part of a peer's state. Numbers this version does not read are carried on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartId(pub u16);

impl PartId {
    /// The peer itself and its links ([`super::HostPart`]).
    pub const HOST: Self = Self(0);
    /// First of [`Self::STATIONS`] parts of attached stations ([`super::StationsPart`]).
    const FIRST_STATIONS: u16 = 0x0100;
    /// First of [`Self::NAMES`] parts of names ([`super::NamesPart`]).
    const FIRST_NAMES: u16 = 0x0200;
    /// Number of parts of stations.
    pub const STATIONS: u16 = 16;
    /// Number of parts of names.
    pub const NAMES: u16 = 64;

    /// A part of stations; `index` counts modulo [`Self::STATIONS`].
    #[must_use]
    pub const fn stations(index: u16) -> Self {
        Self(Self::FIRST_STATIONS + index % Self::STATIONS)
    }

    /// A part of names; `index` counts modulo [`Self::NAMES`].
    #[must_use]
    pub const fn names(index: u16) -> Self {
        Self(Self::FIRST_NAMES + index % Self::NAMES)
    }

    /// True for a part of stations.
    #[must_use]
    pub const fn is_stations(self) -> bool {
        self.0 >= Self::FIRST_STATIONS && self.0 < Self::FIRST_STATIONS + Self::STATIONS
    }

    /// True for a part of names.
    #[must_use]
    pub const fn is_names(self) -> bool {
        self.0 >= Self::FIRST_NAMES && self.0 < Self::FIRST_NAMES + Self::NAMES
    }
}

/// One part of one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartKey {
    /// Whose state it is part of.
    pub owner: PeerName,
    /// Which part.
    pub part: PartId,
}

/// A name of six bytes that must not be all zero.
pub(super) fn peer_name(bytes: [u8; 6], what: &'static str) -> Result<PeerName, ParseError> {
    PeerName::new(bytes).ok_or(ParseError::Invalid { what })
}

impl PartKey {
    pub(super) const LEN: usize = 8;

    pub(super) fn encode(&self) -> [u8; Self::LEN] {
        let ([a, b, c, d, e, f], [g, h]) = (self.owner.to_bytes(), self.part.0.to_be_bytes());
        [a, b, c, d, e, f, g, h]
    }

    pub(super) fn parse(bytes: &[u8; Self::LEN]) -> Result<Self, ParseError> {
        let [a, b, c, d, e, f, g, h] = *bytes;
        let owner = peer_name([a, b, c, d, e, f], "owner")?;
        Ok(Self { owner, part: PartId(u16::from_be_bytes([g, h])) })
    }
}

/// Which of two texts of one part is newer: the larger number, then the larger UID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Raised by the owner with every change; never `u64::MAX`.
    pub version: u64,
    /// The owner's run that wrote it.
    pub uid: Uid,
}

/// That a peer has a part, and in which version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    /// The part.
    pub key: PartKey,
    /// Its version.
    pub version: Version,
}

impl Digest {
    /// Its length on the wire, bytes.
    pub const LEN: usize = PartKey::LEN + 16;

    pub(super) fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let (key, rest) = bytes.split_at_mut(PartKey::LEN);
        let (version, uid) = rest.split_at_mut(8);
        key.copy_from_slice(&self.key.encode());
        version.copy_from_slice(&self.version.version.to_be_bytes());
        uid.copy_from_slice(&self.version.uid.0.to_be_bytes());
        bytes
    }

    pub(super) fn parse(bytes: &[u8; Self::LEN]) -> Result<Self, ParseError> {
        let what = "digest";
        let (key, rest) = bytes.split_first_chunk().ok_or(ParseError::Truncated { what })?;
        let (version, rest) = rest.split_first_chunk().ok_or(ParseError::Truncated { what })?;
        let uid = rest.first_chunk().ok_or(ParseError::Truncated { what })?;
        let version = Version { version: u64::from_be_bytes(*version), uid: Uid(u64::from_be_bytes(*uid)) };
        Ok(Self { key: PartKey::parse(key)?, version })
    }
}

/// A part, signed by its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedPart {
    /// Whose state it is part of.
    pub owner: PeerName,
    /// The owner's key, which signed.
    pub identity: IdentityKey,
    /// The owner's run that wrote it.
    pub uid: Uid,
    /// Which part.
    pub part: PartId,
    /// Raised by the owner with every change.
    pub version: u64,
    /// What it says, at most [`MAX_CONTENT_LEN`] bytes.
    pub content: Vec<u8>,
    /// Ed25519 signature of the owner.
    pub signature: [u8; 64],
}

impl SignedPart {
    /// What the signature covers: a label and every other field. All but the
    /// last are of fixed length, so that no two parts have the same bytes.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        [
            LABEL,
            &self.owner.to_bytes(),
            &self.identity.to_bytes(),
            &self.uid.0.to_be_bytes(),
            &self.part.0.to_be_bytes(),
            &self.version.to_be_bytes(),
            &self.content,
        ]
        .concat()
    }

    /// Which part of whom it is.
    #[must_use]
    pub const fn key(&self) -> PartKey {
        PartKey { owner: self.owner, part: self.part }
    }

    /// Its version.
    #[must_use]
    pub const fn version(&self) -> Version {
        Version { version: self.version, uid: self.uid }
    }

    /// Its digest.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        Digest { key: self.key(), version: self.version() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_field_of_a_part_is_signed() {
        let part = SignedPart {
            owner: PeerName::new([1; 6]).unwrap(),
            identity: IdentityKey::from_bytes([2; 32]),
            uid: Uid(3),
            part: PartId(4),
            version: 5,
            content: vec![6],
            signature: [7; 64],
        };
        let others = [
            SignedPart { owner: PeerName::new([9; 6]).unwrap(), ..part.clone() },
            SignedPart { identity: IdentityKey::from_bytes([9; 32]), ..part.clone() },
            SignedPart { uid: Uid(9), ..part.clone() },
            SignedPart { part: PartId(9), ..part.clone() },
            SignedPart { version: 9, ..part.clone() },
            SignedPart { content: vec![6, 6], ..part.clone() },
            SignedPart { content: vec![9], ..part.clone() },
        ];
        for other in &others {
            assert_ne!(other.signed_bytes(), part.signed_bytes());
        }
        assert_eq!(SignedPart { signature: [0; 64], ..part.clone() }.signed_bytes(), part.signed_bytes());
    }

    #[test]
    fn a_newer_number_wins_over_a_larger_uid() {
        let version = |version, uid| Version { version, uid: Uid(uid) };
        assert!(version(2, 1) > version(1, 9));
        assert!(version(2, 2) > version(2, 1));
    }

    #[test]
    fn ranges_of_parts_do_not_overlap() {
        assert_eq!(PartId::stations(15), PartId(0x010f));
        assert_eq!(PartId::names(63), PartId(0x023f));
        for id in 0..=0x400 {
            let id = PartId(id);
            assert!(
                [id == PartId::HOST, id.is_stations(), id.is_names()].iter().filter(|is| **is).count() <= 1
            );
        }
    }
}
