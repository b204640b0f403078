//! Messages of the control lane: which lanes pass, and how fast.
//!
//! Each is the whole body of one sealed datagram of lane 255.

use zerocopy::byteorder::network_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Length of the body of a keep-alive of a data lane, bytes, all zero.
pub const KEEP_ALIVE_LEN: usize = 8;

const HEARTBEAT: u8 = 1;
const HEARTBEAT_ACK: u8 = 2;
const CHALLENGE: u8 = 3;
const CHALLENGE_ACK: u8 = 4;
const PATH_ACK: u8 = 5;

/// Set in the flags of a message that came from the mesh port.
const MESH_PORT: u8 = 1;
/// Set in the flags of a message whose sender wants data sealed from now on.
const SEAL: u8 = 2;

/// Number and content of a heartbeat, and of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// Number of the heartbeat; the answer repeats it.
    pub sequence: u64,
    /// Data lanes received since the last heartbeat or answer, bit n for lane n.
    pub lanes_seen: u64,
    /// Those of them that came from a source port of their own.
    pub lanes_own: u64,
    /// It is sent from the mesh port: its source is where datagrams reach the
    /// sender, whatever stands between. Otherwise only its address is.
    pub mesh_port: bool,
    /// On a link of trusted subnets: one end is outside of them by now. Both seal
    /// data from now on.
    pub seal: bool,
}

/// What a peer must send back from where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Challenge {
    /// Random.
    pub nonce: u64,
    /// It is sent from the mesh port.
    pub mesh_port: bool,
    /// As in a [`Heartbeat`].
    pub seal: bool,
}

/// A message of the control lane. Answers leave by the kind of port, the mesh
/// port or the control core's own, that the question came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlMessage {
    /// Asks for an answer.
    Heartbeat(Heartbeat),
    /// The answer.
    HeartbeatAck(Heartbeat),
    /// Asks the peer to show that it is reached at the address this is sent to.
    Challenge(Challenge),
    /// The same back, by the same kind of port.
    ChallengeAck(Challenge),
    /// A probe of the path arrived whole.
    PathAck {
        /// The probe's number.
        number: u64,
        /// Its length: payload of UDP, bytes.
        len: u16,
    },
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    kind: u8,
    flags: u8,
    len: U16,
    zero: [u8; 4],
    number: U64,
    lanes_seen: U64,
    lanes_own: U64,
}

impl ControlMessage {
    /// Length of a message, bytes.
    pub const LEN: usize = size_of::<Raw>();

    /// The body of the datagram.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let blank = Heartbeat { sequence: 0, lanes_seen: 0, lanes_own: 0, mesh_port: false, seal: false };
        let (kind, len, body) = match *self {
            Self::Heartbeat(body) => (HEARTBEAT, 0, body),
            Self::HeartbeatAck(body) => (HEARTBEAT_ACK, 0, body),
            Self::Challenge(Challenge { nonce, mesh_port, seal }) => {
                (CHALLENGE, 0, Heartbeat { sequence: nonce, mesh_port, seal, ..blank })
            }
            Self::ChallengeAck(Challenge { nonce, mesh_port, seal }) => {
                (CHALLENGE_ACK, 0, Heartbeat { sequence: nonce, mesh_port, seal, ..blank })
            }
            Self::PathAck { number, len } => (PATH_ACK, len, Heartbeat { sequence: number, ..blank }),
        };
        zerocopy::transmute!(Raw {
            kind,
            flags: (u8::from(body.mesh_port) * MESH_PORT) | (u8::from(body.seal) * SEAL),
            len: U16::new(len),
            zero: [0; 4],
            number: U64::new(body.sequence),
            lanes_seen: U64::new(body.lanes_seen),
            lanes_own: U64::new(body.lanes_own),
        })
    }

    /// The message in an opened body. `None` for what this version does not
    /// know: it is dropped without a word.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        let (raw, _) = Raw::ref_from_prefix(body).ok()?;
        let number = raw.number.get();
        let (mesh_port, seal) = (raw.flags & MESH_PORT != 0, raw.flags & SEAL != 0);
        let heartbeat = Heartbeat {
            sequence: number,
            lanes_seen: raw.lanes_seen.get(),
            lanes_own: raw.lanes_own.get(),
            mesh_port,
            seal,
        };
        let challenge = Challenge { nonce: number, mesh_port, seal };
        match raw.kind {
            HEARTBEAT => Some(Self::Heartbeat(heartbeat)),
            HEARTBEAT_ACK => Some(Self::HeartbeatAck(heartbeat)),
            CHALLENGE => Some(Self::Challenge(challenge)),
            CHALLENGE_ACK => Some(Self::ChallengeAck(challenge)),
            PATH_ACK => Some(Self::PathAck { number, len: raw.len.get() }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn messages_survive_the_wire(number: u64, lanes_seen: u64, lanes_own: u64, mesh_port: bool, seal: bool, len: u16) {
            let body = Heartbeat { sequence: number, lanes_seen, lanes_own, mesh_port, seal };
            for message in [
                ControlMessage::Heartbeat(body),
                ControlMessage::HeartbeatAck(body),
                ControlMessage::Challenge(Challenge { nonce: number, mesh_port, seal }),
                ControlMessage::ChallengeAck(Challenge { nonce: number, mesh_port, seal }),
                ControlMessage::PathAck { number, len },
            ] {
                prop_assert_eq!(ControlMessage::parse(&message.encode()), Some(message));
            }
        }

        #[test]
        fn any_bytes_parse_without_panic(kind in 0_u8..8, rest in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut body = vec![kind];
            body.extend(rest);
            if ControlMessage::parse(&body).is_some() {
                prop_assert!(body.len() >= ControlMessage::LEN);
            }
        }
    }
}
