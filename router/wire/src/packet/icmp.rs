//! Telling the sender of a packet that a path is too narrow for it: ICMP
//! "fragmentation needed" (RFC 1191) and ICMPv6 "packet too big" (RFC 8201).

use super::{EthernetHeader, Ipv4Header, Ipv6Header, ethertype, network_layer};
use crate::checksum::Sum;
use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{Immutable, IntoBytes, Unaligned};

/// Smallest MTU an answer may name over IPv4, bytes (RFC 791: every host takes it).
pub const MIN_MTU_V4: usize = 576;
/// Smallest MTU an answer may name over IPv6, bytes (RFC 8200 §5).
pub const MIN_MTU_V6: usize = 1280;
/// Longest answer, bytes: what IPv6 allows (RFC 4443 §2.4), with two VLAN tags.
pub const MAX_ANSWER: usize = MIN_MTU_V6 + 22;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// IPv6 extension headers looked through for the upper layer.
const MAX_EXTENSIONS: usize = 8;

/// "Destination unreachable, fragmentation needed and DF set" (RFC 1191 §4).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct FragmentationNeeded {
    kind: u8,
    code: u8,
    checksum: [u8; 2],
    zero: U16,
    mtu: U16,
}

/// "Packet too big" (RFC 4443 §3.2).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct PacketTooBig {
    kind: u8,
    code: u8,
    checksum: [u8; 2],
    mtu: U32,
}

/// Writes to `answer` the frame that tells the sender of `frame` that frames of
/// more than `room` bytes do not pass. False, and nothing of use in `answer`, if
/// there must be no such answer: the packet may be fragmented or is a later
/// fragment, an ICMP error, none of IP, not from one host to one other; or it is no
/// longer than the smallest MTU that may be named.
///
/// The answer comes from the address the packet was for: there is no router with an
/// address between the two.
pub fn too_big(frame: &[u8], room: usize, answer: &mut Vec<u8>) -> bool {
    answer.clear();
    answer_to(frame, room, answer).is_some()
}

fn answer_to(frame: &[u8], room: usize, answer: &mut Vec<u8>) -> Option<()> {
    let (ethernet, _) = EthernetHeader::split(frame)?;
    if ethernet.destination().is_group() || !ethernet.source().is_station() {
        return None;
    }
    let (kind, l3) = network_layer(frame)?;
    answer.extend_from_slice(&ethernet.source().0);
    answer.extend_from_slice(&ethernet.destination().0);
    // VLAN tags and EtherType are those of the packet.
    answer.extend_from_slice(frame.get(12..l3)?);
    let (packet, mtu) = (frame.get(l3..)?, room.saturating_sub(l3));
    match kind {
        ethertype::IPV4 => answer_v4(packet, mtu, answer),
        ethertype::IPV6 => answer_v6(packet, mtu, answer),
        _ => None,
    }
}

fn answer_v4(packet: &[u8], mtu: usize, answer: &mut Vec<u8>) -> Option<()> {
    let header = Ipv4Header::parse(packet)?;
    let (source, destination) = (header.source(), header.destination());
    let one_host = |address: std::net::Ipv4Addr| {
        !address.is_multicast() && !address.is_broadcast() && !address.is_unspecified()
    };
    let mtu = mtu.max(MIN_MTU_V4);
    if !header.dont_fragment()
        || header.is_later_fragment()
        || header.total_len() <= mtu
        || !one_host(source)
        || !one_host(destination)
    {
        return None;
    }
    if header.protocol() == ICMP && is_icmp_error(*packet.get(header.header_len())?) {
        return None;
    }
    // As much of the packet as fits an answer that every host takes (RFC 1812 §4.3.2.3).
    let quoted = packet.get(..header.total_len().min(MIN_MTU_V4 - Ipv4Header::LEN - 8))?;
    let mut message = FragmentationNeeded {
        kind: 3,
        code: 4,
        checksum: [0; 2],
        zero: U16::ZERO,
        mtu: U16::new(u16::try_from(mtu).unwrap_or(u16::MAX)),
    };
    message.checksum = Sum::default().with(message.as_bytes()).with(quoted).checksum();
    let len = u16::try_from(quoted.len() + 8).ok()?;
    answer.extend_from_slice(Ipv4Header::new(destination, source, ICMP, len).as_bytes());
    answer.extend_from_slice(message.as_bytes());
    answer.extend_from_slice(quoted);
    Some(())
}

/// Errors of ICMP, obsolete ones too (RFC 792, RFC 1122 §3.2.2).
const fn is_icmp_error(kind: u8) -> bool {
    matches!(kind, 3 | 4 | 5 | 11 | 12)
}

fn answer_v6(packet: &[u8], mtu: usize, answer: &mut Vec<u8>) -> Option<()> {
    let header = Ipv6Header::parse(packet)?;
    let len = Ipv6Header::LEN + header.payload_len();
    let (source, destination) = (header.source(), header.destination());
    let mtu = mtu.max(MIN_MTU_V6);
    let one_host = |address: std::net::Ipv6Addr| !address.is_multicast() && !address.is_unspecified();
    if len <= mtu
        || !one_host(source)
        || !one_host(destination)
        || !may_be_answered_v6(packet.get(..len)?, header.next_header())?
    {
        return None;
    }
    let quoted = packet.get(..len.min(MIN_MTU_V6 - Ipv6Header::LEN - 8))?;
    let mut message = PacketTooBig {
        kind: 2,
        code: 0,
        checksum: [0; 2],
        mtu: U32::new(u32::try_from(mtu).unwrap_or(u32::MAX)),
    };
    let len = u16::try_from(quoted.len() + 8).ok()?;
    message.checksum = Sum::default()
        .with(&destination.octets())
        .with(&source.octets())
        .with_u16(len)
        .with_u16(u16::from(ICMPV6))
        .with(message.as_bytes())
        .with(quoted)
        .checksum();
    answer.extend_from_slice(Ipv6Header::new(destination, source, ICMPV6, len).as_bytes());
    answer.extend_from_slice(message.as_bytes());
    answer.extend_from_slice(quoted);
    Some(())
}

/// False for later fragments and ICMPv6 errors; `None` if the headers end early.
fn may_be_answered_v6(packet: &[u8], first: u8) -> Option<bool> {
    const FRAGMENT: u8 = 44;
    let (mut next, mut at) = (first, Ipv6Header::LEN);
    for _ in 0..MAX_EXTENSIONS {
        let &[following, length, a, b, ..] = packet.get(at..)? else { return Some(next != ICMPV6) };
        match next {
            // Hop-by-hop, routing, destination options (RFC 8200 §4): length in units of 8 bytes.
            0 | 43 | 60 => at += (usize::from(length) + 1) * 8,
            FRAGMENT => {
                if u16::from_be_bytes([a, b]) & 0xfff8 != 0 {
                    return Some(false);
                }
                at += 8;
            }
            // Errors have numbers below 128 (RFC 4443 §2.1).
            ICMPV6 => return Some(following >= 128),
            _ => return Some(true),
        }
        next = following;
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const A4: [u8; 4] = [10, 0, 0, 1];
    const B4: [u8; 4] = [10, 0, 0, 2];

    fn v4(len: usize) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        let header = Ipv4Header::new(A4.into(), B4.into(), 17, (len - 34) as u16);
        frame.extend_from_slice(header.as_bytes());
        frame.extend((frame.len()..len).map(|place| place as u8));
        frame
    }

    fn v6(len: usize, next: u8) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd];
        let header = Ipv6Header::new([0xfd; 16].into(), [0xfc; 16].into(), next, (len - 54) as u16);
        frame.extend_from_slice(header.as_bytes());
        frame.resize(len, 0);
        frame
    }

    fn answer(frame: &[u8], room: usize) -> Option<Vec<u8>> {
        let mut answer = Vec::new();
        too_big(frame, room, &mut answer).then_some(answer)
    }

    #[test]
    fn the_sender_over_ipv4_learns_the_mtu() {
        let frame = v4(1390);
        let answer = answer(&frame, 1014).unwrap();
        assert_eq!(answer[..14], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
        let header = Ipv4Header::parse(&answer[14..]).unwrap();
        assert_eq!(
            (header.source(), header.destination(), header.protocol(), header.total_len()),
            (B4.into(), A4.into(), 1, 576)
        );
        assert_eq!(Sum::default().with(&answer[14..34]).checksum(), [0, 0]);
        let message = &answer[34..];
        assert_eq!(message[..2], [3, 4]);
        assert_eq!(message[4..8], [0, 0, 1000u16.to_be_bytes()[0], 1000u16.to_be_bytes()[1]]);
        assert_eq!(Sum::default().with(message).checksum(), [0, 0]);
        assert_eq!(message[8..], frame[14..14 + message.len() - 8]);
    }

    #[test]
    fn the_sender_over_ipv6_learns_the_mtu() {
        let frame = v6(1414, 17);
        let answer = answer(&frame, 1314).unwrap();
        assert_eq!(answer.len(), 14 + MIN_MTU_V6);
        let header = Ipv6Header::parse(&answer[14..]).unwrap();
        assert_eq!(header.destination().octets(), [0xfd; 16]);
        let message = &answer[54..];
        assert_eq!(message[..2], [2, 0]);
        assert_eq!(message[4..8], 1300u32.to_be_bytes());
        let sum =
            Sum::default().with(&answer[22..54]).with_u16(message.len() as u16).with_u16(58).with(message);
        assert_eq!(sum.checksum(), [0, 0]);
        assert_eq!(message[8..], frame[14..14 + message.len() - 8]);
    }

    #[test]
    fn vlan_tags_are_kept_and_count() {
        let mut frame = v4(1390);
        frame.splice(12..12, [0x81, 0, 0, 7]);
        let answer = answer(&frame, 1018).unwrap();
        assert_eq!(answer[12..18], [0x81, 0, 0, 7, 8, 0]);
        assert_eq!(answer[18 + 26..18 + 28], 1000u16.to_be_bytes());
    }

    #[test]
    fn no_answer_names_less_than_every_host_takes() {
        let mtu = |frame: &[u8], room| answer(frame, room);
        assert_eq!(mtu(&v4(1390), 100).unwrap()[14 + 26..14 + 28], 576u16.to_be_bytes());
        assert_eq!(mtu(&v6(1414, 17), 100).unwrap()[54 + 4..54 + 8], 1280u32.to_be_bytes());
        // What is no longer than that is not answered: it has to get through another way.
        assert_eq!(mtu(&v4(14 + 576), 100), None);
        assert_eq!(mtu(&v6(14 + 1280, 17), 100), None);
    }

    #[test]
    fn what_must_not_be_answered_is_not() {
        let change = |place: usize, value: u8| {
            let mut frame = v4(1390);
            frame[place] = value;
            answer(&frame, 1000)
        };
        assert!(change(8, 1).is_some());
        // To a group; from a group; other protocols; may be fragmented; a later fragment; from
        // nobody; to a multicast group, to everybody.
        for (place, value) in [(0, 3), (6, 3), (13, 6), (20, 0), (21, 1), (26, 224), (30, 224), (30, 0xe0)] {
            assert_eq!(change(place, value), None, "{value} at {place}");
        }
        for address in [26, 30] {
            for bytes in [[0; 4], [255; 4]] {
                let mut frame = v4(1390);
                frame[address..address + 4].copy_from_slice(&bytes);
                assert_eq!(answer(&frame, 1000), None);
            }
        }
        for (kind, answered) in [(3, false), (11, false), (8, true), (0, true)] {
            let mut frame = v4(1390);
            frame[23] = ICMP;
            frame[34] = kind;
            assert_eq!(answer(&frame, 1000).is_some(), answered, "ICMP {kind}");
        }
        for (kind, answered) in [(1, false), (2, false), (127, false), (128, true)] {
            let mut frame = v6(1414, ICMPV6);
            frame[54] = kind;
            assert_eq!(answer(&frame, 1300).is_some(), answered, "ICMPv6 {kind}");
            // Behind a fragment header: the first, then another.
            let mut frame = v6(1414, 44);
            frame[54] = ICMPV6;
            frame[62] = kind;
            assert_eq!(answer(&frame, 1300).is_some(), answered, "first fragment of ICMPv6 {kind}");
            frame[57] = 8;
            assert_eq!(answer(&frame, 1300), None);
        }
        for address in [22, 38] {
            for first in [0, 0xff] {
                let mut frame = v6(1414, 17);
                frame[address..address + 16].fill(first);
                assert_eq!(answer(&frame, 1300), None);
            }
        }
    }

    proptest! {
        #[test]
        fn any_frame_is_answered_shortly_or_not(mut frame in prop::collection::vec(any::<u8>(), 0..1600), v4: bool, first: u8, room in 0usize..2000) {
            if let Some(bytes) = frame.get_mut(12..15) {
                bytes.copy_from_slice(if v4 { &[8, 0, 0x45] } else { &[0x86, 0xdd, 0x60] });
            }
            if let Some(byte) = frame.get_mut(if v4 { 23 } else { 20 }) { *byte = first; }
            if let Some(answer) = answer(&frame, room) {
                prop_assert!(answer.len() <= MAX_ANSWER);
            }
        }
    }
}
