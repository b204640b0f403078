//! Messages of the control lane: which lanes pass, and how fast.
//!
//! Each is the whole body of one sealed datagram of lane 255.

use zerocopy::byteorder::network_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Length of the body of a keep-alive of a data lane, bytes, all zero.
pub const KEEP_ALIVE_LEN: usize = 8;

const HEARTBEAT: u8 = 1;
const HEARTBEAT_ACK: u8 = 2;
/// Kind of a probe of path or address (not used by this version).
pub const PROBE: u8 = 3;
/// Kind of the answer to a probe (not used by this version).
pub const PROBE_ACK: u8 = 4;

/// Number and content of a heartbeat, and of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// Number of the heartbeat; the answer repeats it.
    pub sequence: u64,
    /// Data lanes received since the last heartbeat or answer, bit n for lane n.
    pub lanes_seen: u64,
}

/// A message of the control lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlMessage {
    /// Asks for an answer.
    Heartbeat(Heartbeat),
    /// The answer.
    HeartbeatAck(Heartbeat),
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    kind: u8,
    zero: [u8; 7],
    sequence: U64,
    lanes_seen: U64,
}

impl ControlMessage {
    /// Length of a message, bytes.
    pub const LEN: usize = size_of::<Raw>();

    /// The body of the datagram.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let (kind, body) = match self {
            Self::Heartbeat(body) => (HEARTBEAT, body),
            Self::HeartbeatAck(body) => (HEARTBEAT_ACK, body),
        };
        zerocopy::transmute!(Raw {
            kind,
            zero: [0; 7],
            sequence: U64::new(body.sequence),
            lanes_seen: U64::new(body.lanes_seen),
        })
    }

    /// The message in an opened body. `None` for what this version does not
    /// know: it is dropped without a word.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        let (raw, _) = Raw::ref_from_prefix(body).ok()?;
        let heartbeat = Heartbeat { sequence: raw.sequence.get(), lanes_seen: raw.lanes_seen.get() };
        match raw.kind {
            HEARTBEAT => Some(Self::Heartbeat(heartbeat)),
            HEARTBEAT_ACK => Some(Self::HeartbeatAck(heartbeat)),
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
        fn messages_survive_the_wire(sequence: u64, lanes_seen: u64) {
            let body = Heartbeat { sequence, lanes_seen };
            for message in [ControlMessage::Heartbeat(body), ControlMessage::HeartbeatAck(body)] {
                prop_assert_eq!(ControlMessage::parse(&message.encode()), Some(message));
            }
        }

        #[test]
        fn any_bytes_parse_without_panic(kind in 0_u8..6, rest in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut body = vec![kind];
            body.extend(rest);
            if let Some(message) = ControlMessage::parse(&body) {
                prop_assert!(body.len() >= ControlMessage::LEN);
                prop_assert_eq!(&message.encode()[8..], &body[8..ControlMessage::LEN]);
            }
        }
    }
}
