//! The inner header: where a frame comes from and goes to, sealed with it.

use crate::PeerName;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Length of the inner header, bytes.
pub const INNER_LEN: usize = size_of::<InnerHeader>();
/// Hop limit at the source.
pub const HOP_LIMIT: u8 = 16;
/// Largest number of fragments of one frame.
pub const MAX_FRAGMENTS: u8 = 16;

/// A request to complete the checksum of a TCP or UDP segment whose checksum
/// field holds the sum of its pseudo header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChecksumRequest {
    /// First byte the checksum covers, from the start of the frame: 1 to 255.
    pub start: u8,
    /// Where it is put.
    pub field: ChecksumField,
}

/// Place of a checksum field behind the start of its transport header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChecksumField {
    /// TCP: 16 bytes.
    Tcp,
    /// UDP: 6 bytes.
    Udp,
}

impl ChecksumField {
    /// Distance from the start of the transport header, bytes.
    #[must_use]
    pub const fn offset(self) -> u16 {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }
}

/// Shortest body of an echo, bytes: the number and the clock of who asks.
pub const ECHO_LEN: usize = 16;

/// What stands behind an inner header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// An Ethernet frame.
    Ethernet = 0,
    /// A body of [`ECHO_LEN`] bytes or more, for the destination to send back.
    EchoRequest = 1,
    /// That body, sent back.
    EchoReply = 2,
}

/// 16 bytes in front of each frame:
///
/// | bytes | bits | field |
/// | --- | --- | --- |
/// | 0-5 | | source peer |
/// | 6-11 | | destination peer, zero: broadcast |
/// | 12 | 7-3 | hop limit |
/// | 12 | 2-0 | kind: 0 Ethernet frame, 1 echo request, 2 echo reply |
/// | 13 | | checksum start, 0: none |
/// | 14 | 7 | checksum field at 6 (UDP) instead of 16 (TCP) |
/// | 14 | 6-3 | fragment index |
/// | 14 | 2 | last fragment |
/// | 14 | 1-0 | zero |
/// | 15 | | zero |
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct InnerHeader {
    source: [u8; 6],
    destination: [u8; 6],
    hops_kind: u8,
    checksum_start: u8,
    flags: u8,
    zero: u8,
}

const _: () = assert!(INNER_LEN == 16);

const FIELD_UDP: u8 = 0x80;
const LAST_FRAGMENT: u8 = 0x04;

impl InnerHeader {
    /// The header of a whole frame from `source`, to `destination` or to all.
    #[must_use]
    pub fn new(source: PeerName, destination: Option<PeerName>, checksum: Option<ChecksumRequest>) -> Self {
        let (start, field) = match checksum {
            Some(ChecksumRequest { start, field: ChecksumField::Tcp }) => (start, 0),
            Some(ChecksumRequest { start, field: ChecksumField::Udp }) => (start, FIELD_UDP),
            None => (0, 0),
        };
        Self {
            source: source.to_bytes(),
            destination: destination.map_or([0; 6], PeerName::to_bytes),
            hops_kind: HOP_LIMIT << 3 | FrameKind::Ethernet as u8,
            checksum_start: start,
            flags: field | LAST_FRAGMENT,
            zero: 0,
        }
    }

    /// The header of an echo from `source` to `destination`.
    #[must_use]
    pub fn echo(source: PeerName, destination: PeerName, kind: FrameKind) -> Self {
        Self { hops_kind: HOP_LIMIT << 3 | kind as u8, ..Self::new(source, Some(destination), None) }
    }

    /// The header with which a relay sends the frame on; `None` if the frame may
    /// cross no further link.
    #[must_use]
    pub const fn relayed(mut self) -> Option<Self> {
        match self.hop_limit() {
            0 | 1 => None,
            _ => {
                self.hops_kind -= 1 << 3;
                Some(self)
            }
        }
    }

    /// This header of a whole frame, for fragment `index` of it: 0 to 15.
    #[must_use]
    pub const fn of_fragment(mut self, index: u8, last: bool) -> Self {
        self.flags &= !(15 << 3 | LAST_FRAGMENT);
        self.flags |= (index & 15) << 3 | if last { LAST_FRAGMENT } else { 0 };
        self
    }

    /// True if `other` can be the header of another fragment of the same frame. (The
    /// checksum request counts in fragment 0 only.)
    #[must_use]
    pub fn is_of_same_frame(&self, other: &Self) -> bool {
        (self.source, self.destination, self.hops_kind) == (other.source, other.destination, other.hops_kind)
    }

    /// Splits the opened body of a datagram into header and frame.
    #[must_use]
    pub fn split(body: &[u8]) -> Option<(&Self, &[u8])> {
        Self::ref_from_prefix(body).ok()
    }

    /// The peer whose container sent the frame; `None` if the field is zero.
    #[must_use]
    pub fn source(&self) -> Option<PeerName> {
        PeerName::new(self.source)
    }

    /// The peer the frame is for; `None`: all peers.
    #[must_use]
    pub fn destination(&self) -> Option<PeerName> {
        PeerName::new(self.destination)
    }

    /// Links the frame may still cross.
    #[must_use]
    pub const fn hop_limit(&self) -> u8 {
        self.hops_kind >> 3
    }

    /// What follows; `None` for a kind that this version does not know, and where a
    /// reserved bit is set.
    #[must_use]
    pub const fn kind(&self) -> Option<FrameKind> {
        if self.flags & 3 != 0 || self.zero != 0 {
            return None;
        }
        match self.hops_kind & 7 {
            0 => Some(FrameKind::Ethernet),
            1 => Some(FrameKind::EchoRequest),
            2 => Some(FrameKind::EchoReply),
            _ => None,
        }
    }

    /// True if an Ethernet frame follows.
    #[must_use]
    pub const fn is_ethernet(&self) -> bool {
        matches!(self.kind(), Some(FrameKind::Ethernet))
    }

    /// The request to complete a checksum, if there is one.
    #[must_use]
    pub const fn checksum(&self) -> Option<ChecksumRequest> {
        if self.checksum_start == 0 {
            return None;
        }
        let field = if self.flags & FIELD_UDP == 0 { ChecksumField::Tcp } else { ChecksumField::Udp };
        Some(ChecksumRequest { start: self.checksum_start, field })
    }

    /// Fragment index, 0 to 15.
    #[must_use]
    pub const fn fragment(&self) -> u8 {
        self.flags >> 3 & 15
    }

    /// True if no fragment follows this one.
    #[must_use]
    pub const fn is_last_fragment(&self) -> bool {
        self.flags & LAST_FRAGMENT != 0
    }

    /// True if the datagram holds a whole frame.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.fragment() == 0 && self.is_last_fragment()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn name(last: u8) -> PeerName {
        PeerName::new([2, 0, 0, 0, 0, last]).unwrap()
    }

    #[test]
    fn a_header_is_laid_out_as_documented() {
        let request = ChecksumRequest { start: 34, field: ChecksumField::Udp };
        let header = InnerHeader::new(name(1), Some(name(2)), Some(request));
        assert_eq!(header.as_bytes(), [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x80, 34, 0x84, 0]);
        assert_eq!(header.checksum(), Some(request));
        assert_eq!(header.hop_limit(), HOP_LIMIT);
        assert!(header.is_whole() && header.kind() == Some(FrameKind::Ethernet));
    }

    #[test]
    fn unknown_kinds_and_reserved_bits_are_told() {
        let mut header = InnerHeader::echo(name(1), name(2), FrameKind::EchoRequest);
        assert_eq!(header.kind(), Some(FrameKind::EchoRequest));
        assert_eq!(header.relayed().and_then(|on| on.kind()), Some(FrameKind::EchoRequest));
        for kind in 3..8 {
            header.hops_kind = HOP_LIMIT << 3 | kind;
            assert_eq!(header.kind(), None);
        }
        let plain = InnerHeader::new(name(1), None, None);
        assert_eq!(InnerHeader { flags: plain.flags | 1, ..plain }.kind(), None);
        assert_eq!(InnerHeader { zero: 1, ..plain }.kind(), None);
    }

    #[test]
    fn no_destination_is_everybody() {
        let header = InnerHeader::new(name(1), None, None);
        assert_eq!(header.destination(), None);
        assert_eq!(header.checksum(), None);
    }

    #[test]
    fn a_relay_changes_the_hop_limit_only_and_ends_at_zero() {
        let mut header = InnerHeader::new(name(1), Some(name(2)), None);
        for left in (1..HOP_LIMIT).rev() {
            header = header.relayed().unwrap();
            let mut expected = InnerHeader::new(name(1), Some(name(2)), None);
            expected.hops_kind = left << 3;
            assert_eq!(header, expected);
        }
        assert_eq!(header.relayed(), None);
        header.hops_kind = 0;
        assert_eq!(header.relayed(), None);
    }

    #[test]
    fn fragments_differ_in_their_place_only() {
        let request = ChecksumRequest { start: 34, field: ChecksumField::Udp };
        let whole = InnerHeader::new(name(1), Some(name(2)), Some(request));
        for index in 0..MAX_FRAGMENTS {
            for last in [false, true] {
                let part = whole.of_fragment(index, last);
                assert_eq!((part.fragment(), part.is_last_fragment()), (index, last));
                assert!(part.is_of_same_frame(&whole) && part.kind() == whole.kind());
                assert_eq!(part.checksum(), Some(request));
                assert_eq!(part.of_fragment(0, true), whole);
            }
        }
        for other in [
            InnerHeader::new(name(3), Some(name(2)), Some(request)),
            InnerHeader::new(name(1), None, Some(request)),
            whole.relayed().unwrap(),
        ] {
            assert!(!other.is_of_same_frame(&whole));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_split_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Some((header, frame)) = InnerHeader::split(&bytes) {
                prop_assert_eq!(frame.len() + INNER_LEN, bytes.len());
                let _ = (header.source(), header.destination(), header.checksum(), header.fragment());
                prop_assert!(header.hop_limit() < 32);
            } else {
                prop_assert!(bytes.len() < INNER_LEN);
            }
        }
    }
}
