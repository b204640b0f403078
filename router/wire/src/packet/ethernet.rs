//! Ethernet (IEEE 802.3, 802.1Q) and ARP (RFC 826).

use crate::{ETHERNET_LEN, MacAddr};
use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// EtherTypes this router looks at; frames of every other type pass unread.
pub mod ethertype {
    /// IPv4 (RFC 894).
    pub const IPV4: u16 = 0x0800;
    /// ARP (RFC 826).
    pub const ARP: u16 = 0x0806;
    /// IPv6 (RFC 2464).
    pub const IPV6: u16 = 0x86dd;
    /// Customer VLAN tag (802.1Q).
    pub const VLAN: u16 = 0x8100;
    /// Service VLAN tag (802.1ad).
    pub const SERVICE_VLAN: u16 = 0x88a8;
}

/// The 14 bytes in front of every frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct EthernetHeader {
    destination: [u8; 6],
    source: [u8; 6],
    ethertype: U16,
}

impl EthernetHeader {
    /// A header.
    #[must_use]
    pub const fn new(destination: MacAddr, source: MacAddr, ethertype: u16) -> Self {
        Self { destination: destination.0, source: source.0, ethertype: U16::new(ethertype) }
    }

    /// Splits a frame; `None` if it is shorter than a header.
    #[must_use]
    pub fn split(frame: &[u8]) -> Option<(&Self, &[u8])> {
        Self::ref_from_prefix(frame).ok()
    }

    /// Where the frame goes.
    #[must_use]
    pub const fn destination(&self) -> MacAddr {
        MacAddr(self.destination)
    }

    /// Where it comes from.
    #[must_use]
    pub const fn source(&self) -> MacAddr {
        MacAddr(self.source)
    }

    /// What follows, in host order.
    #[must_use]
    pub fn ethertype(&self) -> u16 {
        self.ethertype.get()
    }
}

/// A VLAN tag: control bits and number, then the EtherType of what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct VlanTag {
    control: U16,
    ethertype: U16,
}

impl VlanTag {
    /// Length of a tag, bytes.
    pub const LEN: usize = size_of::<Self>();

    /// Priority, drop eligibility and VLAN number.
    #[must_use]
    pub fn control(&self) -> u16 {
        self.control.get()
    }

    /// What follows the tag, in host order.
    #[must_use]
    pub fn ethertype(&self) -> u16 {
        self.ethertype.get()
    }
}

/// VLAN tags a frame may carry and still be looked into.
const MAX_VLAN_TAGS: usize = 2;

/// EtherType and start of what a frame carries behind its VLAN tags; `None` if
/// the frame ends before it.
#[must_use]
pub fn network_layer(frame: &[u8]) -> Option<(u16, usize)> {
    let (ethernet, _) = EthernetHeader::split(frame)?;
    let mut ethertype = ethernet.ethertype();
    let mut start = ETHERNET_LEN;
    for _ in 0..MAX_VLAN_TAGS {
        if ethertype != ethertype::VLAN && ethertype != ethertype::SERVICE_VLAN {
            break;
        }
        let (tag, _) = VlanTag::ref_from_prefix(frame.get(start..)?).ok()?;
        ethertype = tag.ethertype();
        start += VlanTag::LEN;
    }
    Some((ethertype, start))
}

/// An ARP packet for IPv4 over Ethernet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ArpPacket {
    hardware: U16,
    protocol: U16,
    hardware_len: u8,
    protocol_len: u8,
    operation: U16,
    sender_mac: [u8; 6],
    sender_address: [u8; 4],
    target_mac: [u8; 6],
    target_address: [u8; 4],
}

impl ArpPacket {
    /// Reads the packet behind an Ethernet header; `None` if it is not for
    /// IPv4 over Ethernet.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<&Self> {
        let (packet, _) = Self::ref_from_prefix(payload).ok()?;
        let known = packet.hardware.get() == 1
            && packet.protocol.get() == ethertype::IPV4
            && packet.hardware_len == 6
            && packet.protocol_len == 4;
        known.then_some(packet)
    }

    /// 1: request, 2: reply.
    #[must_use]
    pub fn operation(&self) -> u16 {
        self.operation.get()
    }

    /// MAC and IPv4 address the sender claims.
    #[must_use]
    pub fn sender(&self) -> (MacAddr, std::net::Ipv4Addr) {
        (MacAddr(self.sender_mac), self.sender_address.into())
    }

    /// MAC (zero in requests) and IPv4 address asked for.
    #[must_use]
    pub fn target(&self) -> (MacAddr, std::net::Ipv4Addr) {
        (MacAddr(self.target_mac), self.target_address.into())
    }
}
