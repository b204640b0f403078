//! Frames by which a container speaks for others: for a router, a server of addresses, a neighbour.

use std::net::{Ipv4Addr, Ipv6Addr};

use weave_wire::MacAddr;

use crate::checksums::sum;

const BROADCAST: MacAddr = MacAddr([0xff; 6]);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// An EtherType for experiments (IEEE 802).
const EXPERIMENT: u16 = 0x88b5;

/// A frame and what it pretends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lie {
    /// In words.
    pub what: &'static str,
    /// From the Ethernet header on.
    pub frame: Vec<u8>,
}

/// A station by its addresses.
#[derive(Debug, Clone, Copy)]
pub struct Station {
    /// Of its interface.
    pub mac: MacAddr,
    /// IPv4.
    pub v4: Ipv4Addr,
    /// IPv6.
    pub v6: Ipv6Addr,
}

/// What `liar` says for the network: routes, addresses, a better way. `host` is an address of the
/// host, `router` one that it sends by.
#[must_use]
pub fn of_networks(liar: Station, host: Ipv4Addr, router: Ipv4Addr) -> Vec<Lie> {
    let own = link_local(liar.mac);
    let advertisement = advertisement(liar.mac);
    let hidden = behind_options(&icmpv6(own, ALL_NODES, &advertisement));
    let redirect = redirect(host, liar.v4);
    let tagged = arp(liar.mac, 2, (liar.mac, router), (BROADCAST, router));
    vec![
        lie("a router advertisement", multicast(liar.mac, &icmpv6(own, ALL_NODES, &advertisement))),
        lie("a router advertisement behind options", multicast(liar.mac, &hidden)),
        lie("an ICMPv6 redirect", multicast(liar.mac, &icmpv6(own, ALL_NODES, &redirect_v6(liar)))),
        lie("an ICMP redirect", broadcast(liar.mac, 0x0800, &ipv4(router, host, ICMP, &redirect))),
        lie("a DHCP offer", broadcast(liar.mac, 0x0800, &offer(liar))),
        lie("a DHCPv6 reply", multicast(liar.mac, &udp_v6(own, ALL_NODES, 547, 546, &[7, 0, 0, 1]))),
        lie("the address of a router of the host, claimed", claim(liar.mac, router)),
        lie("an address of the host, claimed", claim(liar.mac, host)),
        lie("the same with the priority tag", [&tagged[..12], &[0x81, 0, 0, 0], &tagged[12..]].concat()),
    ]
}

/// What `liar` says in the name of `other`, a container.
#[must_use]
pub fn of_stations(liar: Station, other: Station) -> Vec<Lie> {
    let own = link_local(liar.mac);
    let [mut advertised, mut asked] = [136, 135].map(|kind| vec![kind, 0, 0, 0, 0, 0, 0, 0]);
    advertised[4] = 0x20;
    for (body, option) in [(&mut advertised, 2), (&mut asked, 1)] {
        body.extend(other.v6.octets());
        body.extend([option, 1]);
        body.extend(liar.mac.0);
    }
    let name = |what, mac| lie(what, broadcast(mac, EXPERIMENT, &[1; 46]));
    vec![
        lie("ARP for another", claim(liar.mac, other.v4)),
        lie("an ARP answer for another", arp(liar.mac, 2, (liar.mac, other.v4), (BROADCAST, other.v4))),
        lie("ARP with the MAC of another", arp(liar.mac, 2, (other.mac, liar.v4), (BROADCAST, liar.v4))),
        lie(
            "a neighbour advertisement for another",
            multicast(liar.mac, &icmpv6(own, ALL_NODES, &advertised)),
        ),
        lie("a neighbour solicitation by another", multicast(liar.mac, &icmpv6(other.v6, ALL_NODES, &asked))),
        name("a frame with the MAC of another", other.mac),
        lie(
            "a datagram by another",
            broadcast(liar.mac, 0x0800, &udp(other.v4, Ipv4Addr::BROADCAST, 9, 9, b"lie!")),
        ),
        lie("an IPv6 datagram by another", multicast(liar.mac, &udp_v6(other.v6, ALL_NODES, 9, 9, b"lie!"))),
    ]
}

/// A frame to everybody that lies about nothing; unlike those with other numbers.
#[must_use]
pub fn truth(source: MacAddr, number: u8) -> Vec<u8> {
    broadcast(source, EXPERIMENT, &[number; 60])
}

/// A request that claims `address` for `mac`, as who moves sends it.
fn claim(mac: MacAddr, address: Ipv4Addr) -> Vec<u8> {
    arp(mac, 1, (mac, address), (MacAddr([0; 6]), address))
}

/// Asks who has `address`, in its own name.
#[must_use]
pub fn question(station: Station, address: Ipv4Addr) -> Vec<u8> {
    arp(station.mac, 1, (station.mac, station.v4), (MacAddr([0; 6]), address))
}

const fn lie(what: &'static str, frame: Vec<u8>) -> Lie {
    Lie { what, frame }
}

fn ethernet(to: MacAddr, from: MacAddr, ethertype: u16, body: &[u8]) -> Vec<u8> {
    [&to.0[..], &from.0, &ethertype.to_be_bytes(), body].concat()
}

fn broadcast(from: MacAddr, ethertype: u16, body: &[u8]) -> Vec<u8> {
    ethernet(BROADCAST, from, ethertype, body)
}

/// An IPv6 packet to all nodes.
fn multicast(from: MacAddr, packet: &[u8]) -> Vec<u8> {
    ethernet(MacAddr([0x33, 0x33, 0, 0, 0, 1]), from, 0x86dd, packet)
}

fn arp(from: MacAddr, operation: u16, sender: (MacAddr, Ipv4Addr), target: (MacAddr, Ipv4Addr)) -> Vec<u8> {
    let mut body = vec![0, 1, 8, 0, 6, 4];
    body.extend(operation.to_be_bytes());
    for (mac, address) in [sender, target] {
        body.extend(mac.0);
        body.extend(address.octets());
    }
    broadcast(from, 0x0806, &body)
}

fn link_local(MacAddr([a, b, c, d, e, f]): MacAddr) -> Ipv6Addr {
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, body: &[u8]) -> Vec<u8> {
    let [high, low] = (20 + body.len() as u16).to_be_bytes();
    let mut packet = vec![0x45, 0, high, low, 0, 0, 0, 0, 64, protocol, 0, 0];
    packet.extend(from.octets());
    packet.extend(to.octets());
    let checksum = !sum(&[&packet]);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(body);
    packet
}

/// With a hop limit that shows the sender to be a neighbour.
fn ipv6(from: Ipv6Addr, to: Ipv6Addr, next: u8, body: &[u8]) -> Vec<u8> {
    let [high, low] = (body.len() as u16).to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, high, low, next, 255];
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(body);
    packet
}

fn udp(from: Ipv4Addr, to: Ipv4Addr, source: u16, destination: u16, data: &[u8]) -> Vec<u8> {
    // No checksum, which IPv4 permits.
    ipv4(from, to, UDP, &udp_datagram(source, destination, data))
}

fn udp_v6(from: Ipv6Addr, to: Ipv6Addr, source: u16, destination: u16, data: &[u8]) -> Vec<u8> {
    let mut datagram = udp_datagram(source, destination, data);
    let checksum = checksum_v6(from, to, UDP, &datagram);
    datagram[6..8].copy_from_slice(&checksum);
    ipv6(from, to, UDP, &datagram)
}

fn udp_datagram(source: u16, destination: u16, data: &[u8]) -> Vec<u8> {
    let length = (8 + data.len() as u16).to_be_bytes();
    [&source.to_be_bytes()[..], &destination.to_be_bytes(), &length, &[0, 0], data].concat()
}

fn icmpv6(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let checksum = checksum_v6(from, to, ICMPV6, &message);
    message[2..4].copy_from_slice(&checksum);
    ipv6(from, to, ICMPV6, &message)
}

fn checksum_v6(from: Ipv6Addr, to: Ipv6Addr, protocol: u8, body: &[u8]) -> [u8; 2] {
    let length = (body.len() as u32).to_be_bytes();
    (!sum(&[&from.octets(), &to.octets(), &length, &[0, 0, 0, protocol], body])).to_be_bytes()
}

/// Puts destination options that say nothing between header and message.
fn behind_options(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let next = std::mem::replace(&mut packet[6], 60);
    packet[5] += 8;
    let options = [next, 0, 1, 4, 0, 0, 0, 0];
    packet.splice(40..40, options);
    packet
}

/// A default route and a prefix to make addresses of (RFC 4861, 4.2 and 4.6.2).
fn advertisement(mac: MacAddr) -> Vec<u8> {
    let mut message = vec![134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    message.extend([1, 1]);
    message.extend(mac.0);
    message.extend([3, 4, 64, 0xc0, 0, 0, 7, 8, 0, 0, 7, 8, 0, 0, 0, 0]);
    message.extend(Ipv6Addr::new(0xfd66, 0x6c69, 0x6173, 0, 0, 0, 0, 0).octets());
    message
}

/// Another way to a far address (RFC 4861, 4.5).
fn redirect_v6(liar: Station) -> Vec<u8> {
    let mut message = vec![137, 0, 0, 0, 0, 0, 0, 0];
    message.extend(link_local(liar.mac).octets());
    message.extend(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).octets());
    message
}

/// `better` is the way to 198.51.100.1, says an answer to an echo request of `host` (RFC 792).
fn redirect(host: Ipv4Addr, better: Ipv4Addr) -> Vec<u8> {
    let quoted = ipv4(host, Ipv4Addr::new(198, 51, 100, 1), ICMP, &[8, 0, 0xf7, 0xff, 0, 0, 0, 0]);
    let mut message = vec![5, 1, 0, 0];
    message.extend(better.octets());
    message.extend(quoted);
    let checksum = !sum(&[&message]);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    message
}

/// Offers an address to whoever asked (RFC 2131).
fn offer(liar: Station) -> Vec<u8> {
    let mut message = vec![2, 1, 6, 0, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0];
    message.extend(Ipv4Addr::new(10, 66, 0, 9).octets());
    message.extend(liar.v4.octets());
    message.resize(236, 0);
    message.extend([99, 130, 83, 99, 53, 1, 2, 54, 4]);
    message.extend(liar.v4.octets());
    message.push(255);
    udp(liar.v4, Ipv4Addr::BROADCAST, 67, 68, &message)
}
