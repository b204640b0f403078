//! Paths that are too narrow for a frame: TCP is cut again, senders are told, the rest goes in
//! fragments.

use crate::rig::mesh::{Mesh, between};
use crate::rig::{self, LINK, MAX_FRAME, Options, Rig, frame, wait};
use weave_forward::{Command, DropReason, LinkId, Mode};
use weave_wire::checksum;
use weave_wire::packet::{IpVersion, Protocol, Transport};
use weave_wire::vnet::{Gso, VNET_LEN, VnetHeader};
use weave_wire::{INNER_LEN, OUTER_LEN, TAG_LEN};
use zerocopy::IntoBytes;

/// The datagram in which a sealed frame of `len` bytes goes.
const fn datagram(len: usize) -> u16 {
    (OUTER_LEN + INNER_LEN + len + TAG_LEN) as u16
}

/// A packet of the container at `from` (see `between`) of `payload` bytes, its checksum open.
fn packet(version: IpVersion, protocol: Protocol, from: (u8, u8), payload: usize, flags: u8) -> Vec<u8> {
    let mut frame = between(from.0, from.1, 1, 14);
    frame.truncate(12);
    let header = if protocol == Protocol::Tcp { 20 } else { 8 };
    let len = (header + payload) as u16;
    match version {
        IpVersion::V4 => {
            frame.extend([8, 0, 0x45, 0]);
            frame.extend((len + 20).to_be_bytes());
            frame.extend([0, 1, flags, 0, 64, protocol.number(), 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        }
        IpVersion::V6 => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(len.to_be_bytes());
            frame.extend([protocol.number(), 64]);
            frame.extend([0xfd; 16]);
            frame.extend([0xfc; 16]);
        }
    }
    frame.extend([0, 80, 1, 2]);
    match protocol {
        Protocol::Tcp => frame.extend([0, 0, 0, 1, 0, 0, 0, 7, 0x50, 0x18, 1, 0, 0, 0, 0, 0]),
        Protocol::Udp => {
            frame.extend(len.to_be_bytes());
            frame.extend([0, 0]);
        }
    }
    frame.extend((0..payload).map(|place| (place % 251) as u8));
    let at = Transport::find(&frame).unwrap();
    if let Some(header) = at.ipv4_mut(&mut frame) {
        header.complete_checksum();
    }
    checksum::prepare(&mut frame, &at);
    frame
}

const DONT_FRAGMENT: u8 = 0x40;

/// Tells side A that its link passes frames of `len` bytes.
fn narrow(rig: &Rig, len: usize) {
    rig.a.command(|_| Command::SetPathMtu { link: LINK, datagram: datagram(len), advise: true });
}

#[test]
fn what_the_path_passes_goes_whole_and_one_byte_more_in_two_fragments() {
    let mut rig = Rig::usual();
    narrow(&rig, 1000);
    for (len, fragments) in [(1000, 0), (1001, 2), (MAX_FRAME, 4), (999, 4)] {
        rig.a.send(0, &frame(7, len));
        assert_eq!(rig.b.receive(), frame(7, len));
        assert_eq!(rig.a.counter("fragments_sent"), fragments, "{len} bytes");
    }
    assert_eq!((rig.b.counter("fragments_received"), rig.b.counter("frames_reassembled")), (4, 2));
    assert_eq!(rig.a.counter("icmp_too_big_sent"), 0);
    // The path has grown.
    rig.a.command(|_| Command::SetPathMtu { link: LINK, datagram: u16::MAX, advise: true });
    rig.a.send(0, &frame(8, MAX_FRAME));
    assert_eq!(rig.b.receive(), frame(8, MAX_FRAME));
    assert_eq!(rig.a.counter("fragments_sent"), 4);
    rig.works();
}

#[test]
fn a_path_is_never_taken_for_narrower_than_any_is() {
    let mut rig = Rig::new(Options { mode: Mode::Clear, ..Options::default() });
    for datagram in [0, 1, 48, 511, 512] {
        rig.a.command(|_| Command::SetPathMtu { link: LINK, datagram, advise: true });
        rig.a.send(0, &frame(7, MAX_FRAME));
        assert_eq!(rig.b.receive(), frame(7, MAX_FRAME));
    }
    assert_eq!(rig.a.counter("fragments_sent"), 5 * MAX_FRAME.div_ceil(512 - 32) as u64);
    rig.works();
}

#[test]
fn a_super_frame_of_tcp_is_cut_again() {
    const PAYLOAD: usize = 40_000;
    let mut rig = Rig::usual();
    narrow(&rig, 700);
    for (version, gso) in [(IpVersion::V4, Gso::TcpV4), (IpVersion::V6, Gso::TcpV6)] {
        let frame = packet(version, Protocol::Tcp, (1, 0), PAYLOAD, DONT_FRAGMENT);
        let at = Transport::find(&frame).unwrap();
        let header = VnetHeader::super_frame(gso, at.payload as u16, 1300, at.l4 as u16, 16);
        rig.a.send_raw(0, &[header.as_bytes(), &frame].concat());
        let mut payload = Vec::new();
        while payload.len() < PAYLOAD {
            let bytes = rig.b.receive_raw(0).split_off(VNET_LEN);
            let at = Transport::find(&bytes).unwrap();
            assert_eq!(at.tcp(&bytes).unwrap().sequence(), 1 + payload.len() as u32);
            payload.extend_from_slice(&bytes[at.payload..]);
        }
        assert_eq!(payload, frame[at.payload..]);
    }
    assert_eq!(rig.a.counter("fragments_sent") + rig.a.counter("icmp_too_big_sent"), 0);
    let enough = 2 * (PAYLOAD as u64 / 650);
    wait(|| rig.a.state(), || rig.a.counter("datagrams_sent") > enough);
    rig.works();
}

#[test]
fn a_packet_that_must_not_be_fragmented_is_answered() {
    let mut rig = Rig::usual();
    narrow(&rig, 1014);
    let v4 = packet(IpVersion::V4, Protocol::Udp, (1, 2), 1200, DONT_FRAGMENT);
    rig.a.send(0, &v4);
    let answer = rig.a.receive();
    assert_eq!((&answer[..6], &answer[6..12]), (&v4[6..12], &v4[..6]));
    assert_eq!(answer[34..36], [3, 4]);
    assert_eq!(answer[40..42], 1000u16.to_be_bytes());
    rig.a.dropped(DropReason::TooBig, 1);
    // Over IPv6 no answer names less than 1,280: shorter packets go in fragments.
    let v6 = packet(IpVersion::V6, Protocol::Udp, (1, 2), 1280 - 48, 0);
    rig.a.send(0, &v6);
    assert_eq!(rig.b.receive(), v6);
    let v6 = packet(IpVersion::V6, Protocol::Udp, (1, 2), 1281 - 48, 0);
    rig.a.send(0, &v6);
    let answer = rig.a.receive();
    assert_eq!((&answer[54..56], &answer[58..62]), (&[2, 0][..], &1280u32.to_be_bytes()[..]));
    assert_eq!(rig.a.counter("icmp_too_big_sent"), 2);
    // One that may be fragmented, and one for many.
    for (to, flags) in [(2, 0), (0, DONT_FRAGMENT)] {
        let frame = packet(IpVersion::V4, Protocol::Udp, (1, to), 1200, flags);
        rig.a.send(0, &frame);
        assert_eq!(rig.b.receive(), frame);
    }
    assert_eq!(rig.a.counter("fragments_sent"), 6);
    rig.works();
}

#[test]
fn a_hundred_senders_a_second_are_told() {
    const COUNT: u64 = 1000;
    let mut rig = Rig::usual();
    narrow(&rig, 1014);
    let frame = packet(IpVersion::V4, Protocol::Udp, (1, 2), 1200, DONT_FRAGMENT);
    for _ in 0..COUNT {
        rig.a.send(0, &frame);
    }
    wait(|| rig.a.state(), || rig.a.drops(DropReason::TooBig) == COUNT);
    let (sent, limited) = (rig.a.counter("icmp_too_big_sent"), rig.a.counter("icmp_too_big_limited"));
    assert_eq!(sent + limited, COUNT);
    assert!((100..=COUNT / 2).contains(&sent), "{}", rig.a.state());
    for _ in 0..sent {
        assert_eq!(rig.a.receive()[34..36], [3, 4]);
    }
    rig.works();
}

#[test]
fn datagrams_of_a_super_frame_of_udp_are_fragmented_or_answered_once() {
    let mut rig = Rig::usual();
    narrow(&rig, 1000);
    // Four of 1,200 bytes and one of 300.
    let super_frame = |flags| {
        let frame = packet(IpVersion::V4, Protocol::Udp, (1, 2), 4 * 1200 + 300, flags);
        [VnetHeader::super_frame(Gso::Udp, 42, 1200, 34, 6).as_bytes(), &frame].concat()
    };
    rig.a.send_raw(0, &super_frame(0));
    let payload = |bytes: &[u8]| {
        let frame = &bytes[VNET_LEN..];
        let at = Transport::find(frame).unwrap();
        frame[at.payload..at.end].to_vec()
    };
    let all: Vec<u8> = (0..5).flat_map(|_| payload(&rig.b.receive_raw(0))).collect();
    assert_eq!(all, (0..5100).map(|place| (place % 251) as u8).collect::<Vec<_>>());
    assert_eq!(rig.a.counter("fragments_sent"), 8);

    rig.a.send_raw(0, &super_frame(DONT_FRAGMENT));
    assert_eq!(rig.a.receive()[34..36], [3, 4]);
    assert_eq!(payload(&rig.b.receive_raw(0)).len(), 300);
    rig.a.dropped(DropReason::TooBig, 4);
    assert_eq!(rig.a.counter("icmp_too_big_sent"), 1);
    rig.works();
}

#[test]
fn a_checksum_request_counts_in_the_first_fragment() {
    let rig = Rig::usual();
    narrow(&rig, 600);
    let frame = packet(IpVersion::V4, Protocol::Udp, (1, 2), 1200, 0);
    let bytes = [VnetHeader::checksum(34, 6).as_bytes(), &frame].concat();
    rig.a.send_raw(0, &bytes);
    assert_eq!(rig.b.receive_raw(0), bytes);
    assert_eq!(rig.a.counter("fragments_sent"), 3);
}

#[test]
fn a_relay_fragments_and_puts_together() {
    let mesh = Mesh::line(&Options::default(), 4);
    let narrow = |from: u8, to: u8, len| {
        let (link, datagram) = (LinkId(to.into()), datagram(len));
        mesh.side(from).command(|_| Command::SetPathMtu { link, datagram, advise: true });
    };
    // Three fragments, then two, then whole.
    narrow(1, 2, 600);
    narrow(2, 3, 900);
    mesh.carries(1, 4, 5, MAX_FRAME);
    // A relay tells nobody, whatever the packet says.
    let frame = packet(IpVersion::V4, Protocol::Udp, (4, 1), 1300, DONT_FRAGMENT);
    narrow(3, 2, 700);
    mesh.attach(4, 1);
    mesh.side(4).send(0, &frame);
    assert_eq!(mesh.side(1).receive(), frame);
    for (side, sent, received) in [(1, 3, 0), (2, 2, 5), (3, 2, 2), (4, 0, 0)] {
        let side = mesh.side(side);
        assert_eq!(
            (side.counter("fragments_sent"), side.counter("fragments_received")),
            (sent, received),
            "{}",
            mesh.state()
        );
        assert_eq!(side.counter("icmp_too_big_sent"), 0);
    }
    // To everybody: each link as it needs.
    let frame = between(1, 0, 9, MAX_FRAME);
    mesh.side(1).send(0, &frame);
    for side in 2..=4 {
        assert_eq!(mesh.side(side).receive(), frame, "at {side}");
    }
    assert!(mesh.sides.iter().all(|side| side.state().contains("dropped []")), "{}", mesh.state());
}

#[test]
fn fragments_handed_over_are_put_together_by_the_owner_of_their_lane() {
    let mesh = Mesh::line(&Options { shards: 2, ..Options::default() }, 3);
    let mut forger = mesh.forger(2, 1);
    let frame = between(1, 3, 1, 400);
    let header = weave_wire::InnerHeader::new(rig::name(1), Some(rig::name(3)), None);
    // The first of the train leads all to shard 0; the fragments are of lane 1.
    let mut train = vec![forger.datagram(0, header.as_bytes().try_into().unwrap(), &frame[..200])];
    for (index, piece) in frame.chunks(200).enumerate() {
        let header = header.of_fragment(index as u8, index == 1);
        train.push(forger.datagram(1, header.as_bytes().try_into().unwrap(), piece));
    }
    forger.send_merged(&train);
    assert_eq!(mesh.side(3).receive_raw(1)[VNET_LEN..], frame);
    assert_eq!(mesh.side(2).counter("handed_over"), 2);
}
