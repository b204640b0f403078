//! TCP (RFC 9293) and UDP (RFC 768) headers, and where they are in a frame.

use super::ethernet::{ethertype, network_layer};
use super::ip::{Ipv4Header, Ipv6Header};
use crate::inner::{ChecksumField, ChecksumRequest};
use std::ops::Range;
use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// IPv6 extension headers looked through before the transport header.
const MAX_EXTENSIONS: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION_OPTIONS: u8 = 60;

/// Flags of a TCP header, in its 14th byte.
pub mod tcp_flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
    /// Congestion window reduced (RFC 3168).
    pub const CWR: u8 = 0x80;
}

/// The fixed 20 bytes of a TCP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TcpHeader {
    source: U16,
    destination: U16,
    sequence: U32,
    acknowledgement: U32,
    data_offset: u8,
    flags: u8,
    window: U16,
    checksum: U16,
    urgent: U16,
}

impl TcpHeader {
    /// Length without options, bytes.
    pub const LEN: usize = size_of::<Self>();

    /// Length with options, bytes.
    #[must_use]
    pub fn header_len(&self) -> usize {
        usize::from(self.data_offset >> 4) * 4
    }

    /// Sequence number of the first byte.
    #[must_use]
    pub fn sequence(&self) -> u32 {
        self.sequence.get()
    }

    /// Sets the sequence number.
    pub fn set_sequence(&mut self, sequence: u32) {
        self.sequence.set(sequence);
    }

    /// The flags, see [`tcp_flags`].
    #[must_use]
    pub const fn flags(&self) -> u8 {
        self.flags
    }

    /// Sets the flags.
    pub const fn set_flags(&mut self, flags: u8) {
        self.flags = flags;
    }
}

/// A UDP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct UdpHeader {
    source: U16,
    destination: U16,
    len: U16,
    checksum: U16,
}

impl UdpHeader {
    /// Length, bytes.
    pub const LEN: usize = size_of::<Self>();

    /// Length of header and payload, bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len.get().into()
    }

    /// True if there is no payload.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() <= Self::LEN
    }

    /// Sets the length of header and payload, bytes.
    pub fn set_len(&mut self, len: u16) {
        self.len.set(len);
    }
}

/// Version of the Internet protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A transport protocol with an Internet checksum over a pseudo header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// The protocol numbered `number`, if it is one of the two.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            _ => None,
        }
    }

    /// Its number in IP headers.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// Where its checksum is.
    #[must_use]
    pub const fn checksum_field(self) -> ChecksumField {
        match self {
            Self::Tcp => ChecksumField::Tcp,
            Self::Udp => ChecksumField::Udp,
        }
    }
}

/// Where the transport segment of an unfragmented TCP or UDP packet lies in
/// its frame. All offsets count from the start of the frame and lie within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transport {
    /// Version of the IP header.
    pub version: IpVersion,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Start of the IP header.
    pub l3: usize,
    /// Start of the transport header.
    pub l4: usize,
    /// Start of the payload.
    pub payload: usize,
    /// End of the payload; what follows is padding of the frame.
    pub end: usize,
    /// True if the IP header has options or extension headers.
    pub has_options: bool,
}

impl Transport {
    /// Looks for the transport segment of `frame`; `None` if the frame is not
    /// TCP or UDP over IP, is a fragment, or has lengths that do not fit.
    #[must_use]
    pub fn find(frame: &[u8]) -> Option<Self> {
        let (ethertype, l3) = network_layer(frame)?;
        let packet = frame.get(l3..)?;
        match ethertype {
            ethertype::IPV4 => Self::find_v4(frame, packet, l3),
            ethertype::IPV6 => Self::find_v6(frame, packet, l3),
            _ => None,
        }
    }

    fn find_v4(frame: &[u8], packet: &[u8], l3: usize) -> Option<Self> {
        let header = Ipv4Header::parse(packet)?;
        if header.is_fragment() {
            return None;
        }
        let protocol = Protocol::from_number(header.protocol())?;
        let has_options = header.header_len() != Ipv4Header::LEN;
        Self::with_payload(
            frame,
            Self {
                version: IpVersion::V4,
                protocol,
                l3,
                l4: l3 + header.header_len(),
                payload: 0,
                end: l3 + header.total_len(),
                has_options,
            },
        )
    }

    fn find_v6(frame: &[u8], packet: &[u8], l3: usize) -> Option<Self> {
        let header = Ipv6Header::parse(packet)?;
        let mut next = header.next_header();
        let mut l4 = l3 + Ipv6Header::LEN;
        let end = l4 + header.payload_len();
        let mut has_options = false;
        for _ in 0..MAX_EXTENSIONS {
            if !matches!(next, HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS) {
                break;
            }
            // RFC 8200 §4.3: next header, then the length in units of 8 bytes, the first not counted.
            let extension = frame.get(l4..end)?.first_chunk::<2>()?;
            next = extension[0];
            l4 += (usize::from(extension[1]) + 1) * 8;
            has_options = true;
        }
        let protocol = Protocol::from_number(next)?;
        Self::with_payload(
            frame,
            Self { version: IpVersion::V6, protocol, l3, l4, payload: 0, end, has_options },
        )
    }

    fn with_payload(frame: &[u8], mut at: Self) -> Option<Self> {
        let segment = frame.get(at.l4..at.end)?;
        let header_len = match at.protocol {
            Protocol::Tcp => {
                let (header, _) = TcpHeader::ref_from_prefix(segment).ok()?;
                header.header_len().max(TcpHeader::LEN)
            }
            Protocol::Udp => {
                let (header, _) = UdpHeader::ref_from_prefix(segment).ok()?;
                // A length field of 0 or one that differs from IP's is left to the receiver to judge.
                let _ = header;
                UdpHeader::LEN
            }
        };
        if header_len > segment.len() {
            return None;
        }
        at.payload = at.l4 + header_len;
        Some(at)
    }

    /// The bytes of the checksum field.
    #[must_use]
    pub const fn checksum_field(&self) -> Range<usize> {
        let start = self.l4 + self.protocol.checksum_field().offset() as usize;
        start..start + 2
    }

    /// The bytes of source and destination address, one behind the other.
    #[must_use]
    pub const fn addresses(&self) -> Range<usize> {
        match self.version {
            IpVersion::V4 => self.l3 + 12..self.l3 + 20,
            IpVersion::V6 => self.l3 + 8..self.l3 + 40,
        }
    }

    /// The request to complete this segment's checksum, if its position can be
    /// said in an inner header.
    #[must_use]
    pub fn checksum_request(&self) -> Option<ChecksumRequest> {
        let start = u8::try_from(self.l4).ok()?;
        Some(ChecksumRequest { start, field: self.protocol.checksum_field() })
    }

    /// The IPv4 header; `None` for IPv6.
    #[must_use]
    pub fn ipv4<'a>(&self, frame: &'a [u8]) -> Option<&'a Ipv4Header> {
        if self.version != IpVersion::V4 {
            return None;
        }
        Ipv4Header::ref_from_prefix(frame.get(self.l3..)?).ok().map(|(header, _)| header)
    }

    /// The IPv4 header to change; `None` for IPv6.
    #[must_use]
    pub fn ipv4_mut<'a>(&self, frame: &'a mut [u8]) -> Option<&'a mut Ipv4Header> {
        if self.version != IpVersion::V4 {
            return None;
        }
        Ipv4Header::mut_from_prefix(frame.get_mut(self.l3..)?).ok().map(|(header, _)| header)
    }

    /// The IPv6 header to change; `None` for IPv4.
    #[must_use]
    pub fn ipv6_mut<'a>(&self, frame: &'a mut [u8]) -> Option<&'a mut Ipv6Header> {
        if self.version != IpVersion::V6 {
            return None;
        }
        Ipv6Header::mut_from_prefix(frame.get_mut(self.l3..)?).ok().map(|(header, _)| header)
    }

    /// The TCP header; `None` for UDP.
    #[must_use]
    pub fn tcp<'a>(&self, frame: &'a [u8]) -> Option<&'a TcpHeader> {
        if self.protocol != Protocol::Tcp {
            return None;
        }
        TcpHeader::ref_from_prefix(frame.get(self.l4..)?).ok().map(|(header, _)| header)
    }

    /// The TCP header to change; `None` for UDP.
    #[must_use]
    pub fn tcp_mut<'a>(&self, frame: &'a mut [u8]) -> Option<&'a mut TcpHeader> {
        if self.protocol != Protocol::Tcp {
            return None;
        }
        TcpHeader::mut_from_prefix(frame.get_mut(self.l4..)?).ok().map(|(header, _)| header)
    }

    /// The UDP header; `None` for TCP.
    #[must_use]
    pub fn udp<'a>(&self, frame: &'a [u8]) -> Option<&'a UdpHeader> {
        if self.protocol != Protocol::Udp {
            return None;
        }
        UdpHeader::ref_from_prefix(frame.get(self.l4..)?).ok().map(|(header, _)| header)
    }

    /// The UDP header to change; `None` for TCP.
    #[must_use]
    pub fn udp_mut<'a>(&self, frame: &'a mut [u8]) -> Option<&'a mut UdpHeader> {
        if self.protocol != Protocol::Udp {
            return None;
        }
        UdpHeader::mut_from_prefix(frame.get_mut(self.l4..)?).ok().map(|(header, _)| header)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ETHERNET_LEN;
    use crate::checksum;
    use crate::packet::VlanTag;
    use proptest::prelude::*;

    /// Frames that parse: Ethernet, tags, IP, TCP or UDP, `payload` bytes.
    pub(crate) fn frame(version: IpVersion, protocol: Protocol, tags: usize, payload: usize) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for _ in 0..tags {
            bytes.extend([0x81, 0x00, 0x00, 0x07]);
        }
        let header = match protocol {
            Protocol::Tcp => 20,
            Protocol::Udp => 8,
        };
        let len = u16::try_from(header + payload).unwrap();
        match version {
            IpVersion::V4 => {
                bytes.extend([0x08, 0x00, 0x45, 0]);
                bytes.extend((len + 20).to_be_bytes());
                bytes.extend([0, 1, 0x40, 0, 64, protocol.number(), 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
            }
            IpVersion::V6 => {
                bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                bytes.extend(len.to_be_bytes());
                bytes.extend([protocol.number(), 64]);
                bytes.extend([0xfd; 16]);
                bytes.extend([0xfe; 16]);
            }
        }
        match protocol {
            Protocol::Tcp => {
                bytes.extend([0, 1, 0, 2, 0, 0, 0, 9, 0, 0, 0, 8, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0])
            }
            Protocol::Udp => {
                bytes.extend([0, 1, 0, 2]);
                bytes.extend(len.to_be_bytes());
                bytes.extend([0, 0]);
            }
        }
        bytes.extend((0..payload).map(|i| (i * 7) as u8));
        bytes
    }

    fn kinds() -> impl Strategy<Value = (IpVersion, Protocol)> {
        (any::<bool>(), any::<bool>()).prop_map(|(v, p)| {
            (if v { IpVersion::V4 } else { IpVersion::V6 }, if p { Protocol::Tcp } else { Protocol::Udp })
        })
    }

    #[test]
    fn a_fragment_has_no_transport_header_to_trust() {
        let mut bytes = frame(IpVersion::V4, Protocol::Udp, 0, 32);
        assert!(Transport::find(&bytes).is_some());
        bytes[20] = 0x20;
        assert_eq!(Transport::find(&bytes), None);
    }

    proptest! {
        #[test]
        fn segments_are_found_behind_tags((version, protocol) in kinds(), tags in 0usize..=2, payload in 0usize..1400, padding in 0usize..20) {
            let mut bytes = frame(version, protocol, tags, payload);
            let end = bytes.len();
            bytes.extend(vec![0; padding]);
            let at = Transport::find(&bytes).unwrap();
            prop_assert_eq!(at.l3, ETHERNET_LEN + tags * VlanTag::LEN);
            prop_assert_eq!((at.version, at.protocol, at.end, at.end - at.payload), (version, protocol, end, payload));
        }

        #[test]
        fn a_completed_checksum_verifies_and_a_changed_byte_does_not((version, protocol) in kinds(), payload in 1usize..1400, flip: prop::sample::Index) {
            let mut bytes = frame(version, protocol, 0, payload);
            let at = Transport::find(&bytes).unwrap();
            checksum::complete(&mut bytes, &at);
            prop_assert!(checksum::verify(&bytes, &at));
            let index = at.payload + flip.index(payload);
            bytes[index] ^= 0x10;
            prop_assert!(!checksum::verify(&bytes, &at));
        }

        #[test]
        fn any_bytes_are_looked_at_without_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), ethertype in prop::sample::select(vec![0x0800u16, 0x86dd, 0x8100, 0x88a8, 0x0806]), first: u8) {
            if let Some(field) = bytes.get_mut(12..14) { field.copy_from_slice(&ethertype.to_be_bytes()); }
            if let Some(byte) = bytes.get_mut(14) { *byte = first; }
            if let Some(at) = Transport::find(&bytes) {
                prop_assert!(at.l3 < at.l4 && at.l4 < at.payload && at.payload <= at.end && at.end <= bytes.len());
                checksum::complete(&mut bytes, &at);
            }
            let _ = crate::packet::ArpPacket::parse(&bytes);
        }

        #[test]
        fn a_frame_cut_short_is_refused((version, protocol) in kinds(), payload in 0usize..100, keep: prop::sample::Index) {
            let bytes = frame(version, protocol, 1, payload);
            prop_assert_eq!(Transport::find(&bytes[..keep.index(bytes.len())]), None);
        }
    }
}
