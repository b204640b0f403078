//! IPv4 (RFC 791) and IPv6 (RFC 8200) headers.

use crate::checksum::Sum;
use std::net::{Ipv4Addr, Ipv6Addr};
use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const DONT_FRAGMENT: u16 = 0x4000;
const FRAGMENT_MASK: u16 = 0x3fff;
const OFFSET_MASK: u16 = 0x1fff;
const HOP_LIMIT: u8 = 64;

/// The fixed 20 bytes of an IPv4 header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ipv4Header {
    version_length: u8,
    tos: u8,
    total_len: U16,
    id: U16,
    fragment: U16,
    ttl: u8,
    protocol: u8,
    checksum: [u8; 2],
    source: [u8; 4],
    destination: [u8; 4],
}

impl Ipv4Header {
    /// Length without options, bytes.
    pub const LEN: usize = size_of::<Self>();

    /// The header at the start of `packet`, if it is an IPv4 header whose
    /// lengths fit each other and `packet`.
    #[must_use]
    pub fn parse(packet: &[u8]) -> Option<&Self> {
        let (header, _) = Self::ref_from_prefix(packet).ok()?;
        let total = usize::from(header.total_len.get());
        let fits = header.version_length >> 4 == 4
            && header.header_len() >= Self::LEN
            && header.header_len() <= total
            && total <= packet.len();
        fits.then_some(header)
    }

    /// A header without options in front of `payload_len` bytes of `protocol`, its
    /// checksum complete. Its packet is not to be fragmented.
    #[must_use]
    pub fn new(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload_len: u16) -> Self {
        let mut header = Self {
            version_length: 0x45,
            tos: 0,
            total_len: U16::new(payload_len.saturating_add(Self::LEN as u16)),
            id: U16::ZERO,
            fragment: U16::new(DONT_FRAGMENT),
            ttl: HOP_LIMIT,
            protocol,
            checksum: [0; 2],
            source: source.octets(),
            destination: destination.octets(),
        };
        header.complete_checksum();
        header
    }

    /// Source address.
    #[must_use]
    pub fn source(&self) -> Ipv4Addr {
        self.source.into()
    }

    /// Destination address.
    #[must_use]
    pub fn destination(&self) -> Ipv4Addr {
        self.destination.into()
    }

    /// True for every fragment but the first one.
    #[must_use]
    pub fn is_later_fragment(&self) -> bool {
        self.fragment.get() & OFFSET_MASK != 0
    }

    /// Length of the header with options, bytes.
    #[must_use]
    pub fn header_len(&self) -> usize {
        usize::from(self.version_length & 15) * 4
    }

    /// Length of header and payload, bytes.
    #[must_use]
    pub fn total_len(&self) -> usize {
        self.total_len.get().into()
    }

    /// Sets the length of header and payload, bytes.
    pub fn set_total_len(&mut self, len: u16) {
        self.total_len.set(len);
    }

    /// The identification field.
    #[must_use]
    pub fn id(&self) -> u16 {
        self.id.get()
    }

    /// Sets the identification field.
    pub fn set_id(&mut self, id: u16) {
        self.id.set(id);
    }

    /// Type of service.
    #[must_use]
    pub const fn tos(&self) -> u8 {
        self.tos
    }

    /// Time to live.
    #[must_use]
    pub const fn ttl(&self) -> u8 {
        self.ttl
    }

    /// Number of the transport protocol.
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        self.protocol
    }

    /// True for every fragment, the first one too.
    #[must_use]
    pub fn is_fragment(&self) -> bool {
        self.fragment.get() & FRAGMENT_MASK != 0
    }

    /// True if routers must not fragment the packet.
    #[must_use]
    pub fn dont_fragment(&self) -> bool {
        self.fragment.get() & DONT_FRAGMENT != 0
    }

    /// The flags and fragment offset, as on the wire.
    #[must_use]
    pub fn fragment_field(&self) -> u16 {
        self.fragment.get()
    }

    /// Recomputes the header checksum; only for headers without options.
    pub fn complete_checksum(&mut self) {
        self.checksum = [0; 2];
        self.checksum = Sum::default().with(self.as_bytes()).checksum();
    }
}

/// The fixed 40 bytes of an IPv6 header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ipv6Header {
    version_class_flow: U32,
    payload_len: U16,
    next_header: u8,
    hop_limit: u8,
    source: [u8; 16],
    destination: [u8; 16],
}

impl Ipv6Header {
    /// Length without extension headers, bytes.
    pub const LEN: usize = size_of::<Self>();

    /// The header at the start of `packet`, if it is an IPv6 header whose
    /// length fits `packet`. Jumbograms (RFC 2675) are not parsed.
    #[must_use]
    pub fn parse(packet: &[u8]) -> Option<&Self> {
        let (header, rest) = Self::ref_from_prefix(packet).ok()?;
        let fits = header.version_class_flow.get() >> 28 == 6 && header.payload_len() <= rest.len();
        fits.then_some(header)
    }

    /// A header in front of `payload_len` bytes that begin with `next_header`.
    #[must_use]
    pub fn new(source: Ipv6Addr, destination: Ipv6Addr, next_header: u8, payload_len: u16) -> Self {
        Self {
            version_class_flow: U32::new(6 << 28),
            payload_len: U16::new(payload_len),
            next_header,
            hop_limit: HOP_LIMIT,
            source: source.octets(),
            destination: destination.octets(),
        }
    }

    /// Source address.
    #[must_use]
    pub fn source(&self) -> Ipv6Addr {
        self.source.into()
    }

    /// Destination address.
    #[must_use]
    pub fn destination(&self) -> Ipv6Addr {
        self.destination.into()
    }

    /// Length of what follows this header, bytes.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.payload_len.get().into()
    }

    /// Sets the length of what follows this header, bytes.
    pub fn set_payload_len(&mut self, len: u16) {
        self.payload_len.set(len);
    }

    /// Number of the header that follows.
    #[must_use]
    pub const fn next_header(&self) -> u8 {
        self.next_header
    }

    /// Version, traffic class and flow label.
    #[must_use]
    pub fn version_class_flow(&self) -> u32 {
        self.version_class_flow.get()
    }

    /// Hop limit.
    #[must_use]
    pub const fn hop_limit(&self) -> u8 {
        self.hop_limit
    }
}
