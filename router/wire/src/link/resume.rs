//! The three messages by which a link goes on over a new TCP connection.
//!
//! They stand where a handshake would and are framed like one.

use super::ParseError;
use super::handshake::{Role, VALUE_LEN, frame};
use zerocopy::byteorder::network_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Length of a link id, bytes.
pub const LINK_ID_LEN: usize = 16;

const REQUEST: u8 = 0x11;
const ACCEPT: u8 = 0x12;
const PROOF: u8 = 0x13;

/// Names a link to both of its ends, and tells others nothing.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(transparent)]
pub struct LinkId(pub [u8; LINK_ID_LEN]);

/// What a stranger's first message asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// A handshake (or anything else: its parser will tell).
    Handshake,
    /// To go on with this link.
    Resume(LinkId),
}

impl Opening {
    /// Looks at the first message of an accepted connection.
    #[must_use]
    pub fn of(message: &[u8]) -> Self {
        Request::parse(message).map_or(Self::Handshake, |request| Self::Resume(request.link))
    }
}

fn raw<T: FromBytes + KnownLayout + Immutable + Unaligned>(
    kind: u8,
    message: &[u8],
) -> Result<&T, ParseError> {
    let what = "a message of resumption";
    match message.split_first() {
        Some((&first, rest)) if first == kind => {
            T::ref_from_prefix(rest).map(|(raw, _)| raw).map_err(|_| ParseError::Truncated { what })
        }
        _ => Err(ParseError::Unexpected { what }),
    }
}

fn encode(kind: u8, raw: &[u8]) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend_from_slice(raw);
    frame(&message)
}

/// R1, from the side that dials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// The link.
    pub link: LinkId,
    /// The role the sender had in the handshake that made the link.
    pub role: Role,
    /// Number of this resumption as the sender counts: at least 1.
    pub count: u32,
    /// Fresh random bytes.
    pub nonce: [u8; VALUE_LEN],
    /// Ephemeral X25519 public key.
    pub ephemeral: [u8; VALUE_LEN],
    /// MAC over the fields above.
    pub mac: [u8; VALUE_LEN],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawRequest {
    link: LinkId,
    role: u8,
    count: U32,
    nonce: [u8; VALUE_LEN],
    ephemeral: [u8; VALUE_LEN],
    mac: [u8; VALUE_LEN],
}

impl Request {
    /// Length of what the MAC covers: the message up to the MAC, bytes.
    pub const COVERED: usize = 1 + size_of::<RawRequest>() - VALUE_LEN;

    /// The message, with its length in front.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let raw = RawRequest {
            link: self.link,
            role: match self.role {
                Role::Initiator => 0,
                Role::Responder => 1,
            },
            count: U32::new(self.count),
            nonce: self.nonce,
            ephemeral: self.ephemeral,
            mac: self.mac,
        };
        encode(REQUEST, raw.as_bytes())
    }

    /// The message of a peer.
    ///
    /// # Errors
    /// [`ParseError`] if it is none.
    pub fn parse(message: &[u8]) -> Result<Self, ParseError> {
        let raw: &RawRequest = raw(REQUEST, message)?;
        let role = match raw.role {
            0 => Role::Initiator,
            1 => Role::Responder,
            _ => return Err(ParseError::Invalid { what: "role" }),
        };
        Ok(Self {
            link: raw.link,
            role,
            count: raw.count.get(),
            nonce: raw.nonce,
            ephemeral: raw.ephemeral,
            mac: raw.mac,
        })
    }
}

/// R2, from the side that was dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accept {
    /// Number of this resumption: not below the request's.
    pub count: u32,
    /// Fresh random bytes.
    pub nonce: [u8; VALUE_LEN],
    /// Ephemeral X25519 public key.
    pub ephemeral: [u8; VALUE_LEN],
    /// MAC over the request and the fields above.
    pub mac: [u8; VALUE_LEN],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawAccept {
    count: U32,
    nonce: [u8; VALUE_LEN],
    ephemeral: [u8; VALUE_LEN],
    mac: [u8; VALUE_LEN],
}

impl Accept {
    /// Length of what the MAC covers of this message: all up to the MAC, bytes.
    pub const COVERED: usize = 1 + size_of::<RawAccept>() - VALUE_LEN;

    /// The message, with its length in front.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let raw = RawAccept {
            count: U32::new(self.count),
            nonce: self.nonce,
            ephemeral: self.ephemeral,
            mac: self.mac,
        };
        encode(ACCEPT, raw.as_bytes())
    }

    /// The message of a peer.
    ///
    /// # Errors
    /// [`ParseError`] if it is none.
    pub fn parse(message: &[u8]) -> Result<Self, ParseError> {
        let raw: &RawAccept = raw(ACCEPT, message)?;
        Ok(Self { count: raw.count.get(), nonce: raw.nonce, ephemeral: raw.ephemeral, mac: raw.mac })
    }
}

/// R3, from the side that dialled: it is there, and no recording of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// MAC over request and acceptance.
    pub mac: [u8; VALUE_LEN],
}

impl Proof {
    /// The message, with its length in front.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(PROOF, &self.mac)
    }

    /// The message of a peer.
    ///
    /// # Errors
    /// [`ParseError`] if it is none.
    pub fn parse(message: &[u8]) -> Result<Self, ParseError> {
        Ok(Self { mac: *raw(PROOF, message)? })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::link::handshake::LENGTH_LEN;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn messages_survive_the_wire(
            link: [u8; 16], initiator: bool, count: u32, nonce: [u8; 32], ephemeral: [u8; 32],
            mac: [u8; 32],
        ) {
            let role = if initiator { Role::Initiator } else { Role::Responder };
            let request = Request { link: LinkId(link), role, count, nonce, ephemeral, mac };
            let message = &request.encode()[LENGTH_LEN..];
            prop_assert_eq!(Request::parse(message), Ok(request));
            prop_assert_eq!(Opening::of(message), Opening::Resume(LinkId(link)));
            prop_assert_eq!(message.len(), Request::COVERED + mac.len());
            let accept = Accept { count, nonce, ephemeral, mac };
            let message = &accept.encode()[LENGTH_LEN..];
            prop_assert_eq!(Accept::parse(message), Ok(accept));
            prop_assert_eq!(message.len(), Accept::COVERED + mac.len());
            let proof = Proof { mac };
            prop_assert_eq!(Proof::parse(&proof.encode()[LENGTH_LEN..]), Ok(proof));
        }

        #[test]
        fn any_bytes_parse_without_panic(
            kind in 0x10_u8..0x15, rest in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut message = vec![kind];
            message.extend(rest);
            let _ = (Request::parse(&message), Accept::parse(&message), Proof::parse(&message));
            let _ = (Opening::of(&message), Opening::of(&[]));
        }
    }
}
