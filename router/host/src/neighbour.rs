//! Frames by which stations claim addresses and ask who has one: ARP
//! (RFC 826, RFC 5227) and neighbour discovery (RFC 4861, RFC 4862). Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weave_wire::MacAddr;
use weave_wire::checksum::Sum;
use weave_wire::packet::{ArpPacket, EthernetHeader, ethertype};

const BROADCAST: MacAddr = MacAddr([0xff; 6]);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const ARP_REQUEST: u16 = 1;
const ARP_REPLY: u16 = 2;

const NEXT_HEADER_ICMPV6: u8 = 58;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// Flag of an advertisement: replaces what is in neighbour caches.
const OVERRIDE: u8 = 0x20;
const TARGET_LINK_LAYER_ADDRESS: u8 = 2;

/// Length of the fixed part of an IPv6 header, bytes.
const IPV6_LEN: usize = 40;
/// Length of a solicitation or advertisement without options, bytes.
const ND_LEN: usize = 24;

/// Frames that ask whether anybody has `address`, without claiming it.
pub(crate) fn probe(source: MacAddr, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => arp(source, ARP_REQUEST, Ipv4Addr::UNSPECIFIED, MacAddr([0; 6]), address),
        IpAddr::V6(address) => {
            let group = solicited_node(address);
            let body = nd_body(NEIGHBOUR_SOLICITATION, 0, address, None);
            icmpv6(source, Ipv6Addr::UNSPECIFIED, group, &body)
        }
    }
}

/// Frames that tell everybody that `address` is at `source` now.
pub(crate) fn announcements(source: MacAddr, address: IpAddr) -> Vec<Vec<u8>> {
    match address {
        // Stations differ in which of the two forms they take up.
        IpAddr::V4(address) => vec![
            arp(source, ARP_REQUEST, address, MacAddr([0; 6]), address),
            arp(source, ARP_REPLY, address, BROADCAST, address),
        ],
        IpAddr::V6(address) => {
            let body = nd_body(NEIGHBOUR_ADVERTISEMENT, OVERRIDE, address, Some(source));
            vec![icmpv6(source, address, ALL_NODES, &body)]
        }
    }
}

/// The address that the sender of `frame` claims or is about to claim, and its MAC.
pub(crate) fn claim(frame: &[u8]) -> Option<(MacAddr, IpAddr)> {
    let (ethernet, payload) = EthernetHeader::split(frame)?;
    match ethernet.ethertype() {
        ethertype::ARP => {
            let packet = ArpPacket::parse(payload)?;
            let (mac, address) = packet.sender();
            // A probe of another station that is after the same address (RFC 5227, 2.1.1).
            let address = if address.is_unspecified() { packet.target().1 } else { address };
            Some((mac, IpAddr::V4(address)))
        }
        ethertype::IPV6 => claim_nd(payload).map(|address| (ethernet.source(), IpAddr::V6(address))),
        _ => None,
    }
}

fn claim_nd(packet: &[u8]) -> Option<Ipv6Addr> {
    let (header, body) = packet.split_at_checked(IPV6_LEN)?;
    if header.first()? >> 4 != 6 || *header.get(6)? != NEXT_HEADER_ICMPV6 {
        return None;
    }
    // Only a neighbour can have sent it: routers would have lowered this (RFC 4861, 7.1).
    if *header.get(7)? != 255 {
        return None;
    }
    let source = <[u8; 16]>::try_from(header.get(8..24)?).ok().map(Ipv6Addr::from)?;
    let kind = *body.first()?;
    let is_claim = match kind {
        NEIGHBOUR_ADVERTISEMENT => true,
        // From the unspecified address: duplicate address detection of another station.
        NEIGHBOUR_SOLICITATION => source.is_unspecified(),
        _ => false,
    };
    let target = <[u8; 16]>::try_from(body.get(8..ND_LEN)?).ok().map(Ipv6Addr::from)?;
    is_claim.then_some(target)
}

fn arp(source: MacAddr, operation: u16, sender: Ipv4Addr, target_mac: MacAddr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST, source, ethertype::ARP);
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4]); // Ethernet, IPv4, their address lengths.
    frame.extend_from_slice(&operation.to_be_bytes());
    frame.extend_from_slice(&source.0);
    frame.extend_from_slice(&sender.octets());
    frame.extend_from_slice(&target_mac.0);
    frame.extend_from_slice(&target.octets());
    frame
}

fn ethernet(destination: MacAddr, source: MacAddr, ethertype: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(128);
    frame.extend_from_slice(&destination.0);
    frame.extend_from_slice(&source.0);
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame
}

fn nd_body(kind: u8, flags: u8, target: Ipv6Addr, link_layer: Option<MacAddr>) -> Vec<u8> {
    let mut body = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    body.extend_from_slice(&target.octets());
    if let Some(mac) = link_layer {
        body.extend_from_slice(&[TARGET_LINK_LAYER_ADDRESS, 1]); // Length in units of 8 bytes.
        body.extend_from_slice(&mac.0);
    }
    body
}

fn icmpv6(mac: MacAddr, source: Ipv6Addr, destination: Ipv6Addr, body: &[u8]) -> Vec<u8> {
    let len = (body.len() as u16).to_be_bytes();
    let [checksum_high, checksum_low] = Sum::default()
        .with(&source.octets())
        .with(&destination.octets())
        .with(&len)
        .with_u16(u16::from(NEXT_HEADER_ICMPV6))
        .with(body)
        .checksum();
    let mut frame = ethernet(group_mac(destination), mac, ethertype::IPV6);
    frame.extend_from_slice(&[0x60, 0, 0, 0, len[0], len[1], NEXT_HEADER_ICMPV6, 255]);
    frame.extend_from_slice(&source.octets());
    frame.extend_from_slice(&destination.octets());
    let checksum_at = frame.len() + 2;
    frame.extend_from_slice(body);
    if let Some(field) = frame.get_mut(checksum_at..checksum_at + 2) {
        field.copy_from_slice(&[checksum_high, checksum_low]);
    }
    frame
}

/// The group that whoever has `address` listens to (RFC 4291, 2.7.1).
fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

/// The Ethernet address of an IPv6 group (RFC 2464, section 7).
fn group_mac(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr([0x33, 0x33, a, b, c, d])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

    #[test]
    fn a_probe_for_ipv4_is_an_arp_request_without_sender() {
        let frame = probe(MAC, "10.2.1.7".parse().unwrap());
        let expected = [
            &[0xff; 6][..],
            &MAC.0,
            &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
            &MAC.0,
            &[0; 4],
            &[0; 6],
            &[10, 2, 1, 7],
        ];
        assert_eq!(frame, expected.concat());
    }

    #[test]
    fn a_probe_for_ipv6_goes_to_the_solicited_node_group() {
        let frame = probe(MAC, "fd00::1:2:3:4567".parse().unwrap());
        assert_eq!(frame[..6], [0x33, 0x33, 0xff, 0x03, 0x45, 0x67]);
        assert_eq!(frame[22..38], [0; 16], "from the unspecified address");
        assert_eq!(frame.len(), 14 + IPV6_LEN + ND_LEN);
        assert_checksum(&frame);
    }

    #[test]
    fn announcements_claim_what_they_announce() {
        for address in ["10.2.1.7", "fd00::7"] {
            let address: IpAddr = address.parse().unwrap();
            for frame in announcements(MAC, address) {
                assert_eq!(claim(&frame), Some((MAC, address)));
            }
        }
        assert_checksum(&announcements(MAC, "fd00::7".parse().unwrap())[0]);
    }

    #[test]
    fn a_probe_of_another_station_is_a_claim() {
        for address in ["10.2.1.7", "fd00::7"] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(claim(&probe(MAC, address)), Some((MAC, address)));
        }
    }

    #[test]
    fn an_advertisement_that_crossed_a_router_claims_nothing() {
        let mut frame = announcements(MAC, "fd00::7".parse().unwrap()).remove(0);
        frame[14 + 7] = 254;
        assert_eq!(claim(&frame), None);
    }

    #[test]
    fn cut_and_mangled_frames_claim_nothing_and_do_not_panic() {
        for address in ["10.2.1.7", "fd00::7"] {
            let frame = announcements(MAC, address.parse().unwrap()).remove(0);
            for len in 0..frame.len() {
                let cut = claim(&frame[..len]);
                assert!(cut.is_none() || len >= 14 + IPV6_LEN + ND_LEN, "{len}");
            }
            for position in 12..frame.len() {
                for bit in 0..8 {
                    let mut mangled = frame.clone();
                    mangled[position] ^= 1 << bit;
                    let _ = claim(&mangled);
                }
            }
        }
    }

    fn assert_checksum(frame: &[u8]) {
        let body = &frame[14 + IPV6_LEN..];
        let sum = Sum::default()
            .with(&frame[22..54])
            .with(&(body.len() as u16).to_be_bytes())
            .with_u16(58)
            .with(body);
        assert_eq!(sum.checksum(), [0, 0]);
    }
}
