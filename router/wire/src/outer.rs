//! The outer header: what a datagram between two routers shows in clear.

use crate::SessionIndex;
use zerocopy::byteorder::network_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Length of the outer header, bytes.
pub const OUTER_LEN: usize = size_of::<OuterHeader>();

/// Offset of the lane in a datagram, bytes; the steering program reads it there.
pub const LANE_OFFSET: usize = 1;

/// Flow of datagrams from one sending shard to one peer, numbered by the shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane(u8);

impl Lane {
    /// Number of data lanes, one for each possible shard of a peer.
    pub const COUNT: usize = 64;
    /// The lane of the control core: heartbeats and probes.
    pub const CONTROL: Self = Self(255);

    /// The data lane `number`, 0 to 63.
    #[must_use]
    pub const fn data(number: u8) -> Option<Self> {
        if (number as usize) < Self::COUNT { Some(Self(number)) } else { None }
    }

    /// The lane in a received header: a data lane or the control lane.
    #[must_use]
    pub const fn from_wire(number: u8) -> Option<Self> {
        if number == Self::CONTROL.0 { Some(Self::CONTROL) } else { Self::data(number) }
    }

    /// The lane's number on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// What a datagram holds. The upper four bits of the type byte are the format
/// version (1), the lower four the kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatagramKind {
    /// A sealed frame (or fragment of one): inner header and frame, then the tag.
    Sealed,
    /// A frame of a clear network: inner header and frame, no tag.
    Clear,
    /// A keep-alive of a data lane: sealed, the body is [`crate::link::heartbeat::KEEP_ALIVE_LEN`] zero bytes.
    KeepAlive,
    /// A message of the control lane: sealed.
    Control,
    /// A frame (or fragment of one) on a link of a trusted subnet: inner header and
    /// frame in clear, then a tag over them and the outer header.
    Authenticated,
}

impl DatagramKind {
    /// The kind of a received type byte; unknown ones are dropped without a word.
    #[must_use]
    pub const fn from_wire(byte: u8) -> Option<Self> {
        match byte {
            0x10 => Some(Self::Sealed),
            0x11 => Some(Self::Clear),
            0x12 => Some(Self::KeepAlive),
            0x13 => Some(Self::Control),
            0x14 => Some(Self::Authenticated),
            _ => None,
        }
    }

    /// The type byte.
    #[must_use]
    pub const fn to_wire(self) -> u8 {
        match self {
            Self::Sealed => 0x10,
            Self::Clear => 0x11,
            Self::KeepAlive => 0x12,
            Self::Control => 0x13,
            Self::Authenticated => 0x14,
        }
    }
}

/// The first 16 bytes of every datagram. All of it is authenticated as
/// associated data where the datagram is sealed. Integers are big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct OuterHeader {
    kind: u8,
    lane: u8,
    zero: U16,
    session: U64,
    counter: U32,
}

const _: () = assert!(OUTER_LEN == 16);

impl OuterHeader {
    /// A header of a datagram of `kind` on `lane`, number `counter` under its key.
    #[must_use]
    pub const fn new(kind: DatagramKind, lane: Lane, session: SessionIndex, counter: u32) -> Self {
        Self {
            kind: kind.to_wire(),
            lane: lane.number(),
            zero: U16::ZERO,
            session: U64::new(session.0),
            counter: U32::new(counter),
        }
    }

    /// Splits a datagram into header and rest; `None` if it is shorter than a header.
    #[must_use]
    pub fn split(datagram: &[u8]) -> Option<(&Self, &[u8])> {
        Self::ref_from_prefix(datagram).ok()
    }

    /// The kind, if this version knows it and the reserved bytes are zero.
    #[must_use]
    pub fn kind(&self) -> Option<DatagramKind> {
        if self.zero.get() == 0 { DatagramKind::from_wire(self.kind) } else { None }
    }

    /// The lane, if it is one.
    #[must_use]
    pub fn lane(&self) -> Option<Lane> {
        Lane::from_wire(self.lane)
    }

    /// The receiver's name of the session.
    #[must_use]
    pub fn session(&self) -> SessionIndex {
        SessionIndex(self.session.get())
    }

    /// The number of this datagram under its key.
    #[must_use]
    pub fn counter(&self) -> u32 {
        self.counter.get()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_header_is_laid_out_as_documented() {
        let header = OuterHeader::new(
            DatagramKind::Sealed,
            Lane::data(3).unwrap(),
            SessionIndex(0x0102_0304_0506_0708),
            0x0a0b_0c0d,
        );
        assert_eq!(header.as_bytes(), [0x10, 3, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13]);
        assert_eq!(header.as_bytes()[LANE_OFFSET], 3);
    }

    #[test]
    fn reserved_bytes_and_foreign_lanes_are_refused() {
        let mut bytes: [u8; 16] = OuterHeader::new(DatagramKind::Sealed, Lane::CONTROL, SessionIndex(1), 1)
            .as_bytes()
            .try_into()
            .unwrap();
        bytes[2] = 1;
        assert_eq!(OuterHeader::split(&bytes).unwrap().0.kind(), None);
        bytes[LANE_OFFSET] = 64;
        assert_eq!(OuterHeader::split(&bytes).unwrap().0.lane(), None);
    }

    proptest! {
        #[test]
        fn any_bytes_split_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            match OuterHeader::split(&bytes) {
                Some((header, rest)) => {
                    prop_assert_eq!(rest.len() + OUTER_LEN, bytes.len());
                    if let (Some(kind), Some(lane)) = (header.kind(), header.lane()) {
                        let again = OuterHeader::new(kind, lane, header.session(), header.counter());
                        prop_assert_eq!(again.as_bytes(), &bytes[..OUTER_LEN]);
                    }
                }
                None => prop_assert!(bytes.len() < OUTER_LEN),
            }
        }
    }
}
