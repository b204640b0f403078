//! The six messages by which two routers meet.
//!
//! Each is preceded by its length (u16). The layouts are fixed; bytes after the
//! last known field are ignored by this version and, like all others, part of
//! the transcript, so that a later version can add fields.

mod associated;
pub mod features;

pub use associated::AssociatedData;

use super::ParseError;
use zerocopy::byteorder::network_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Longest message before authentication, without its length field, bytes.
pub const MAX_LEN: usize = 512;
/// Length of the length field in front of each message, bytes.
pub const LENGTH_LEN: usize = 2;
/// Oldest version of the protocol that this code speaks.
pub const VERSION_MIN: u8 = 1;
/// Newest version of the protocol that this code speaks.
pub const VERSION_MAX: u8 = 1;
/// Length of a nonce, of a share and of any key here, bytes.
pub const VALUE_LEN: usize = 32;
/// Length of an Ed25519 signature, bytes.
pub const SIGNATURE_LEN: usize = 64;
/// Largest number of shards and of lanes of a peer.
pub const MAX_LANES: u8 = 64;
/// Smallest MTU of an IPv4 interface (RFC 791).
pub const MIN_MTU: u16 = 576;

/// First bytes of either hello: tells a router from anything else that listens.
const MAGIC: [u8; 5] = *b"weave";

/// Length of the message that follows this length field.
///
/// # Errors
/// If it is zero or over [`MAX_LEN`].
pub fn message_len(field: [u8; LENGTH_LEN]) -> Result<usize, ParseError> {
    match usize::from(u16::from_be_bytes(field)) {
        0 => Err(ParseError::Truncated { what: "a handshake" }),
        len if len > MAX_LEN => Err(ParseError::TooLong { len, limit: MAX_LEN }),
        len => Ok(len),
    }
}

/// Puts the length field in front of a message.
pub(super) fn frame(message: &[u8]) -> Vec<u8> {
    debug_assert!((1..=MAX_LEN).contains(&message.len()));
    let mut framed = Vec::with_capacity(LENGTH_LEN + message.len());
    // Every message built here is far shorter than 512 bytes.
    framed.extend_from_slice(&(message.len() as u16).to_be_bytes());
    framed.extend_from_slice(message);
    framed
}

/// Who speaks: the side that dialled or the one that was dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Opened the TCP connection.
    Initiator,
    /// Accepted it.
    Responder,
}

impl Role {
    /// The role of the peer.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Initiator => Self::Responder,
            Self::Responder => Self::Initiator,
        }
    }
}

/// Place of a message in the handshake: its first byte.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Hello,
    Share,
    Confirm,
}

impl Step {
    const fn to_wire(self, role: Role) -> u8 {
        match (self, role) {
            (Self::Hello, Role::Initiator) => 1,
            (Self::Hello, Role::Responder) => 2,
            (Self::Share, Role::Initiator) => 3,
            (Self::Share, Role::Responder) => 4,
            (Self::Confirm, Role::Initiator) => 5,
            (Self::Confirm, Role::Responder) => 6,
        }
    }

    const fn describe(self) -> &'static str {
        match self {
            Self::Hello => "the hello of a weave router",
            Self::Share => "a key share",
            Self::Confirm => "a confirmation",
        }
    }

    /// The message without its first byte.
    fn strip(self, role: Role, message: &[u8]) -> Result<&[u8], ParseError> {
        match message.split_first() {
            Some((&kind, rest)) if kind == self.to_wire(role) => Ok(rest),
            _ => Err(ParseError::Unexpected { what: self.describe() }),
        }
    }
}

/// Whether a network has a password. Both ends of a link agree or part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// No password: data crosses the underlay in clear.
    Clear,
    /// With a password: data is sealed.
    Encrypted,
}

impl Mode {
    const fn to_wire(self) -> u8 {
        match self {
            Self::Clear => 0,
            Self::Encrypted => 1,
        }
    }

    const fn from_wire(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Clear),
            1 => Some(Self::Encrypted),
            _ => None,
        }
    }
}

/// The versions a router speaks, oldest and newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// The oldest.
    pub min: u8,
    /// The newest; not below `min`.
    pub max: u8,
}

impl Versions {
    /// The versions of this code.
    pub const OURS: Self = Self { min: VERSION_MIN, max: VERSION_MAX };

    /// The newest version both speak.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u8> {
        let newest = self.max.min(other.max);
        (newest >= self.min.max(other.min)).then_some(newest)
    }
}

/// M1 (initiator) and M2 (responder): who could speak what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// Clear or encrypted.
    pub mode: Mode,
    /// The versions the sender speaks.
    pub versions: Versions,
    /// Which of the responder's passwords is meant, where it has several; it
    /// takes the number modulo their count. Zero in M2.
    pub password_slot: u8,
    /// Optional abilities of the sender, one bit each ([`features`]).
    pub features: u64,
    /// Fresh random bytes.
    pub nonce: [u8; VALUE_LEN],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHello {
    magic: [u8; 5],
    mode: u8,
    version_min: u8,
    version_max: u8,
    password_slot: u8,
    features: U64,
    nonce: [u8; VALUE_LEN],
}

impl Hello {
    /// The message, with its length in front.
    #[must_use]
    pub fn encode(&self, role: Role) -> Vec<u8> {
        let raw = RawHello {
            magic: MAGIC,
            mode: self.mode.to_wire(),
            version_min: self.versions.min,
            version_max: self.versions.max,
            password_slot: self.password_slot,
            features: U64::new(self.features),
            nonce: self.nonce,
        };
        let mut message = vec![Step::Hello.to_wire(role)];
        message.extend_from_slice(raw.as_bytes());
        frame(&message)
    }

    /// The hello of a peer in the role `role`.
    ///
    /// # Errors
    /// [`ParseError`] if it is none.
    pub fn parse(role: Role, message: &[u8]) -> Result<Self, ParseError> {
        let rest = Step::Hello.strip(role, message)?;
        if !rest.starts_with(&MAGIC) {
            return Err(ParseError::Unexpected { what: Step::Hello.describe() });
        }
        let (raw, _) =
            RawHello::ref_from_prefix(rest).map_err(|_| ParseError::Truncated { what: "a hello" })?;
        let mode = Mode::from_wire(raw.mode).ok_or(ParseError::Invalid { what: "mode" })?;
        if raw.version_min == 0 || raw.version_min > raw.version_max {
            return Err(ParseError::Invalid { what: "range of versions" });
        }
        Ok(Self {
            mode,
            versions: Versions { min: raw.version_min, max: raw.version_max },
            password_slot: raw.password_slot,
            features: raw.features.get(),
            nonce: raw.nonce,
        })
    }
}

/// M3 (initiator) and M4 (responder): the share of the password exchange, and
/// what it vouches for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share<'a> {
    /// CPace public share, an encoded ristretto255 point; absent in a clear network.
    pub point: Option<[u8; VALUE_LEN]>,
    /// The associated data.
    pub data: AssociatedData,
    /// The associated data as sent, unknown trailing bytes included.
    pub raw_data: &'a [u8],
}

impl<'a> Share<'a> {
    /// The message, with its length in front.
    #[must_use]
    pub fn encode(role: Role, point: Option<&[u8; VALUE_LEN]>, data: &AssociatedData) -> Vec<u8> {
        let mut message = vec![Step::Share.to_wire(role)];
        message.extend(point.into_iter().flatten());
        message.extend_from_slice(&data.encode());
        frame(&message)
    }

    /// The share of a peer in the role `role` of a network of this `mode`.
    ///
    /// # Errors
    /// [`ParseError`] if it is none. The point and keys are not looked at.
    pub fn parse(role: Role, mode: Mode, message: &'a [u8]) -> Result<Self, ParseError> {
        let rest = Step::Share.strip(role, message)?;
        let (point, raw_data) = match mode {
            Mode::Clear => (None, rest),
            Mode::Encrypted => {
                let (point, rest) =
                    rest.split_first_chunk().ok_or(ParseError::Truncated { what: "a share" })?;
                (Some(*point), rest)
            }
        };
        Ok(Self { point, data: AssociatedData::parse(raw_data)?, raw_data })
    }
}

/// M5 (initiator) and M6 (responder): proof of the same key and of the identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirm {
    /// MAC over the transcript.
    pub mac: [u8; VALUE_LEN],
    /// Signature of the transcript by the identity key.
    pub signature: [u8; SIGNATURE_LEN],
}

impl Confirm {
    /// The message, with its length in front.
    #[must_use]
    pub fn encode(&self, role: Role) -> Vec<u8> {
        let mut message = vec![Step::Confirm.to_wire(role)];
        message.extend_from_slice(&self.mac);
        message.extend_from_slice(&self.signature);
        frame(&message)
    }

    /// The confirmation of a peer in the role `role`.
    ///
    /// # Errors
    /// [`ParseError`] if it is none.
    pub fn parse(role: Role, message: &[u8]) -> Result<Self, ParseError> {
        let rest = Step::Confirm.strip(role, message)?;
        let truncated = ParseError::Truncated { what: "a confirmation" };
        let (mac, rest) = rest.split_first_chunk().ok_or(truncated)?;
        let (signature, _) = rest.split_first_chunk().ok_or(truncated)?;
        Ok(Self { mac: *mac, signature: *signature })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{PeerName, SessionIndex, Uid};
    use proptest::prelude::*;

    /// The message behind the length field, which must fit.
    fn unframe(framed: &[u8]) -> &[u8] {
        let (field, message) = framed.split_first_chunk().unwrap();
        assert_eq!(message_len(*field), Ok(message.len()));
        message
    }

    fn roles() -> impl Strategy<Value = Role> {
        prop_oneof![Just(Role::Initiator), Just(Role::Responder)]
    }

    fn modes() -> impl Strategy<Value = Mode> {
        prop_oneof![Just(Mode::Clear), Just(Mode::Encrypted)]
    }

    fn data() -> impl Strategy<Value = AssociatedData> {
        (
            any::<([u8; 32], [u8; 32], u64, u64, u64, u8, bool)>(),
            any::<[u8; 6]>().prop_filter_map("zero", PeerName::new),
            (1..=MAX_LANES, 1..=MAX_LANES, MIN_MTU..),
        )
            .prop_map(|(any, name, (shards, lanes, mtu))| AssociatedData {
                ephemeral: any.0,
                identity: any.1,
                name,
                uid: Uid(any.2),
                session: SessionIndex(any.3),
                features: any.4,
                version: any.5,
                shards,
                lanes,
                trusted_subnet: any.6,
                mtu,
            })
    }

    #[test]
    fn a_length_over_the_limit_is_refused() {
        assert!(message_len([0, 0]).is_err());
        assert_eq!(message_len([2, 0]), Ok(512));
        assert!(message_len([2, 1]).is_err());
    }

    #[test]
    fn the_newest_common_version_is_taken() {
        let range = |min, max| Versions { min, max };
        assert_eq!(range(1, 3).common(range(2, 5)), Some(3));
        assert_eq!(range(1, 1).common(range(1, 9)), Some(1));
        assert_eq!(range(1, 1).common(range(2, 3)), None);
    }

    #[test]
    fn counts_and_mtu_out_of_range_are_refused() {
        let good = AssociatedData {
            ephemeral: [1; 32],
            identity: [2; 32],
            name: PeerName::new([2; 6]).unwrap(),
            uid: Uid(3),
            session: SessionIndex(4),
            features: 0,
            version: 1,
            shards: 1,
            lanes: 64,
            trusted_subnet: false,
            mtu: 1376,
        };
        assert_eq!(AssociatedData::parse(&good.encode()), Ok(good));
        for bad in [
            AssociatedData { shards: 0, ..good },
            AssociatedData { lanes: 65, ..good },
            AssociatedData { mtu: 575, ..good },
        ] {
            assert!(AssociatedData::parse(&bad.encode()).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_hello_survives_the_wire(
            role in roles(), mode in modes(), min in 1_u8.., more: u8, slot: u8, features: u64,
            nonce: [u8; 32], tail in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let versions = Versions { min, max: min.saturating_add(more) };
            let hello = Hello { mode, versions, password_slot: slot, features, nonce };
            let mut message = unframe(&hello.encode(role)).to_vec();
            message.extend(tail);
            prop_assert_eq!(Hello::parse(role, &message), Ok(hello));
            prop_assert!(Hello::parse(role.other(), &message).is_err());
        }

        #[test]
        fn a_share_survives_the_wire(
            role in roles(), point: Option<[u8; 32]>, data in data(),
            tail in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let mode = if point.is_some() { Mode::Encrypted } else { Mode::Clear };
            let mut message = unframe(&Share::encode(role, point.as_ref(), &data)).to_vec();
            message.extend(&tail);
            let share = Share::parse(role, mode, &message).unwrap();
            prop_assert_eq!((share.point, share.data), (point, data));
            prop_assert!(share.raw_data.ends_with(&tail));
            prop_assert!(Share::parse(role.other(), mode, &message).is_err());
        }

        #[test]
        fn a_confirmation_survives_the_wire(role in roles(), mac: [u8; 32], half: [u8; 32]) {
            let mut signature = [7; 64];
            signature[..32].copy_from_slice(&half);
            let confirm = Confirm { mac, signature };
            let framed = confirm.encode(role);
            prop_assert_eq!(Confirm::parse(role, unframe(&framed)), Ok(confirm));
            prop_assert!(Confirm::parse(role.other(), unframe(&framed)).is_err());
        }

        #[test]
        fn any_bytes_parse_without_panic(
            role in roles(), mode in modes(), kind in 0_u8..8, weave: bool,
            rest in prop::collection::vec(any::<u8>(), 0..250),
        ) {
            let mut message = vec![kind];
            if weave { message.extend(MAGIC); }
            message.extend(rest);
            let _ = Hello::parse(role, &message);
            let _ = Share::parse(role, mode, &message);
            let _ = Confirm::parse(role, &message);
            let _ = Confirm::parse(role, &[]);
        }
    }
}
