//! Frames of other peers are sent on: whole, once, and no further than they may.

use crate::rig::mesh::{Mesh, between, number_between};
use crate::rig::{MAX_FRAME, Options, mac, name, wait};
use std::collections::HashSet;
use std::sync::Arc;
use weave_forward::{Command, DropReason, LinkId, Mode, Report, Routes};
use weave_wire::checksum;
use weave_wire::inner::{ChecksumField, ChecksumRequest, HOP_LIMIT};
use weave_wire::packet::Transport;
use weave_wire::vnet::{Gso, VNET_LEN, VnetHeader};
use weave_wire::{InnerHeader, PeerName};
use zerocopy::IntoBytes;

/// An inner header with `hops` left.
fn inner(source: PeerName, destination: Option<PeerName>, hops: u8) -> [u8; 16] {
    let mut bytes: [u8; 16] = InnerHeader::new(source, destination, None).as_bytes().try_into().unwrap();
    bytes[12] = hops << 3;
    bytes
}

/// Takes `count` frames from the tap of `side`, each once and unharmed.
#[track_caller]
fn take(mesh: &Mesh, side: u8, count: u64) {
    let mut numbers = HashSet::new();
    for _ in 0..count {
        let number = number_between(&mesh.side(side).receive());
        assert!(number < count && numbers.insert(number), "frame {number} came twice");
    }
}

#[test]
fn a_line_of_three_carries_every_frame_whole() {
    const COUNT: u64 = 3000;
    for mode in [Mode::Sealed, Mode::Authenticated, Mode::Clear] {
        let mesh = Mesh::line(&Options { mode, ..Options::default() }, 3);
        mesh.carries(1, 3, 7, 60);
        mesh.carries(3, 1, 8, MAX_FRAME);
        mesh.attach(1, 3);
        let mut bytes = 60 + MAX_FRAME as u64;
        std::thread::scope(|scope| {
            let tap = &mesh.side(1).taps[0];
            scope.spawn(move || {
                for number in 0..COUNT {
                    let frame = between(1, 3, number, 60 + number as usize % 1000);
                    tap.send(&[VnetHeader::plain().as_bytes(), &frame].concat()).unwrap();
                }
            });
            take(&mesh, 3, COUNT);
        });
        bytes += (0..COUNT).map(|number| 60 + number % 1000).sum::<u64>();
        let relay = mesh.side(2);
        assert_eq!(relay.counter("frames_relayed"), COUNT + 2, "{}", mesh.state());
        assert_eq!(relay.counter("bytes_relayed"), bytes);
        assert_eq!(relay.counter("tap_writes"), 0, "the relay's own tap got a frame of others");
        // On both links of the relay, as received and as sent.
        assert_eq!(mesh.link(2, 1).frames_received.get(), COUNT + 1);
        assert_eq!(mesh.link(2, 3).frames_sent.get(), COUNT + 1);
        assert_eq!(mesh.link(2, 1).bytes_received.get(), mesh.link(2, 3).bytes_sent.get());
        assert!(mesh.sides.iter().all(|side| side.state().contains("dropped []")), "{}", mesh.state());
    }
}

#[test]
fn five_routers_in_line_and_ring_reach_each_other_both_ways() {
    for ring in [false, true] {
        let mesh = if ring { Mesh::ring(&Options::default(), 5) } else { Mesh::line(&Options::default(), 5) };
        let mut number = 0;
        for from in 1..=5 {
            for to in (1..=5).filter(|&to| to != from) {
                for len in [60, MAX_FRAME] {
                    number += 1;
                    mesh.carries(from, to, number, len);
                }
            }
        }
        assert!(mesh.sides.iter().all(|side| side.state().contains("dropped []")), "{}", mesh.state());
    }
}

#[test]
fn several_lanes_keep_their_frames() {
    let mesh = Mesh::line(&Options { shards: 2, ..Options::default() }, 3);
    mesh.attach(1, 3);
    for number in 0..50 {
        for shard in 0..2 {
            let frame = between(1, 3, number, 200);
            mesh.side(1).send(shard, &frame);
            // Lane and shard are the same all the way.
            assert_eq!(mesh.side(3).receive_raw(shard)[VNET_LEN..], frame);
        }
    }
    assert_eq!(mesh.side(2).counter("handed_over"), 0);
}

#[test]
fn a_broadcast_reaches_everybody_once() {
    const COUNT: u64 = 200;
    for ring in [false, true] {
        let mesh = if ring { Mesh::ring(&Options::default(), 5) } else { Mesh::line(&Options::default(), 5) };
        for from in 1..=5 {
            for number in 0..COUNT {
                mesh.side(from).send(0, &between(from, 0, number, 100));
            }
            for to in (1..=5).filter(|&to| to != from) {
                take(&mesh, to, COUNT);
            }
        }
        // Nothing is left that could still come.
        mesh.settle();
        let writes = || mesh.sides.iter().map(|side| side.counter("tap_writes")).sum::<u64>();
        // A write is counted after the frame is there.
        wait(|| mesh.state(), || writes() >= 5 * 4 * COUNT);
        assert_eq!(writes(), 5 * 4 * COUNT, "{}", mesh.state());
        assert!(mesh.sides.iter().all(|side| side.state().contains("dropped []")), "{}", mesh.state());
    }
}

#[test]
fn stations_are_learned_where_frames_arrive_with_their_source() {
    let mesh = Mesh::line(&Options::default(), 3);
    let learned = |side: u8| mesh.side(side).reports.try_recv();
    mesh.carries(1, 3, 1, 100);
    let report = mesh.side(3).await_report("a station", |report| matches!(report, Report::MacSeen { .. }));
    assert_eq!(report, Report::MacSeen { mac: mac(1), peer: name(1) });
    assert!(learned(2).is_err(), "the relay of a unicast frame learned a station");
    mesh.side(1).send(0, &between(1, 0, 2, 100));
    for side in [2, 3] {
        mesh.side(side).receive();
    }
    let report = mesh.side(2).await_report("a station", |report| matches!(report, Report::MacSeen { .. }));
    assert_eq!(report, Report::MacSeen { mac: mac(1), peer: name(1) });
}

#[test]
fn the_hop_limit_goes_down_by_one_and_ends() {
    let mesh = Mesh::line(&Options::default(), 3);
    let mut forger = mesh.forger(2, 1);
    let frame = between(1, 3, 5, 100);
    for (hops, arrives) in [(31, true), (HOP_LIMIT, true), (2, true), (1, false)] {
        let datagram = forger.datagram(0, inner(name(1), Some(name(3)), hops), &frame);
        forger.send(&datagram);
        if arrives {
            assert_eq!(mesh.side(3).receive(), frame, "{hops} hops");
        } else {
            mesh.side(2).dropped(DropReason::HopLimit, 1);
        }
    }
    // For everybody: here, but no further.
    let frame = between(1, 0, 6, 100);
    let datagram = forger.datagram(0, inner(name(1), None, 1), &frame);
    forger.send(&datagram);
    assert_eq!(mesh.side(2).receive(), frame);
    mesh.side(2).dropped(DropReason::HopLimit, 2);
    wait(|| mesh.state(), || mesh.side(3).counter("tap_writes") == 3);
}

#[test]
fn what_cannot_have_come_that_way_goes_nowhere() {
    let mesh = Mesh::line(&Options::default(), 4);
    let mut forger = mesh.forger(2, 1);
    let mut sent = 0;
    for (source, destination, reason) in [
        // From behind us, to us, on and to everybody; from nobody known.
        (3, Some(2), DropReason::SourcePeer),
        (4, Some(3), DropReason::SourcePeer),
        (3, None, DropReason::SourcePeer),
        (9, Some(3), DropReason::SourcePeer),
        (9, None, DropReason::SourcePeer),
        // From us.
        (2, Some(3), DropReason::Loop),
        (2, None, DropReason::Loop),
        // Back where it came from, and to nobody known.
        (1, Some(1), DropReason::NoRoute),
        (1, Some(9), DropReason::NoRoute),
    ] {
        let before = mesh.side(2).drops(reason);
        let frame = between(source, destination.unwrap_or(0), 1, 100);
        let datagram = forger.datagram(0, inner(name(source), destination.map(name), HOP_LIMIT), &frame);
        forger.send(&datagram);
        sent += 1;
        wait(|| mesh.state(), || mesh.side(2).drops(reason) == before + 1);
    }
    assert_eq!(mesh.side(2).counter("datagrams_received"), sent + 2);
    assert_eq!(mesh.side(2).counter("frames_relayed"), 0);
    mesh.carries(1, 4, 9, 100);
}

#[test]
fn a_route_that_leads_back_is_none() {
    let mesh = Mesh::line(&Options::default(), 3);
    mesh.attach(1, 3);
    // 2 believes 3 to be behind 1.
    let mut routes = mesh.routes(2);
    routes.peers.iter_mut().for_each(|route| route.next = LinkId(1));
    mesh.set_routes(2, routes);
    mesh.side(1).send(0, &between(1, 3, 1, 100));
    mesh.side(2).dropped(DropReason::NoRoute, 1);
    mesh.set_routes(2, Routes::default());
    mesh.side(1).send(0, &between(1, 3, 1, 100));
    mesh.side(2).dropped(DropReason::NoRoute, 2);
    mesh.set_routes(2, mesh.routes(2));
    mesh.carries(1, 3, 2, 100);
}

#[test]
fn a_frame_to_a_link_without_a_key_is_dropped_by_the_relay() {
    let mesh = Mesh::line(&Options::default(), 3);
    mesh.attach(1, 3);
    mesh.side(2).command(|_| Command::DropLink(LinkId(3)));
    mesh.side(1).send(0, &between(1, 3, 1, 100));
    mesh.side(2).dropped(DropReason::NoRoute, 1);
    let address = mesh.side(3).address;
    mesh.side(2).command(|_| Command::SetLink { link: LinkId(3), address, counters: Arc::default() });
    mesh.side(1).send(0, &between(1, 3, 1, 100));
    wait(|| mesh.state(), || mesh.side(2).drops(DropReason::NoSendKey) == 1);
}

/// A super-frame of TCP from the station of 1 to that of 3 with `payload` bytes, its offload
/// header first.
fn super_frame(to: u8, payload: usize) -> Vec<u8> {
    const SEGMENT: u16 = 1336;
    let mut frame = between(1, to, 1, 14);
    frame.truncate(12);
    frame.extend([8, 0, 0x45, 0]);
    frame.extend(((40 + payload) as u16).to_be_bytes());
    frame.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend([0, 80, 1, 2, 0, 0, 0, 1, 0, 0, 0, 7, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    frame.extend((0..payload).map(|place| (place % 251) as u8));
    let at = Transport::find(&frame).unwrap();
    at.ipv4_mut(&mut frame).unwrap().complete_checksum();
    checksum::prepare(&mut frame, &at);
    let header = VnetHeader::super_frame(Gso::TcpV4, 54, SEGMENT, 34, 16);
    [header.as_bytes(), &frame].concat()
}

/// Takes super-frames at `side` until `payload` bytes came; returns them and the number of frames.
#[track_caller]
fn take_payload(mesh: &Mesh, side: u8, payload: usize) -> (Vec<u8>, usize) {
    let (mut bytes, mut frames) = (Vec::new(), 0);
    while bytes.len() < payload {
        let frame = mesh.side(side).receive_raw(0).split_off(VNET_LEN);
        let at = Transport::find(&frame).unwrap();
        bytes.extend_from_slice(&frame[at.payload..at.end]);
        frames += 1;
    }
    (bytes, frames)
}

#[test]
fn a_relayed_super_frame_takes_two_sends_and_arrives_as_super_frames() {
    const PAYLOAD: usize = 65_535 - 54;
    let mesh = Mesh::line(&Options::default(), 3);
    mesh.carries(1, 3, 1, 100);
    mesh.settle();
    let (sends, datagrams) = (mesh.side(2).counter("sends"), mesh.side(2).counter("datagrams_sent"));
    mesh.side(1).send_raw(0, &super_frame(3, PAYLOAD));
    let (bytes, frames) = take_payload(&mesh, 3, PAYLOAD);
    assert!(bytes.iter().enumerate().all(|(place, byte)| *byte == (place % 251) as u8));
    assert!(frames <= 2, "{frames} frames for one super-frame");
    let relay = mesh.side(2);
    wait(|| mesh.state(), || relay.counter("datagrams_sent") - datagrams == PAYLOAD.div_ceil(1336) as u64);
    assert!(relay.counter("sends") - sends <= 2, "{}", mesh.state());
}

#[test]
fn a_super_frame_for_everybody_takes_two_sends_to_each_link_and_is_delivered() {
    const PAYLOAD: usize = 65_535 - 54;
    // From 2 the frame goes to 1 and 3; from 3 on to 4.
    let mesh = Mesh::ring(&Options::default(), 5);
    let relays = [2, 5];
    let before: Vec<_> = relays.iter().map(|&relay| mesh.side(relay).counter("sends")).collect();
    mesh.side(1).send_raw(0, &super_frame(0, PAYLOAD));
    for side in 2..=5 {
        let (bytes, frames) = take_payload(&mesh, side, PAYLOAD);
        assert!(bytes.iter().enumerate().all(|(place, byte)| *byte == (place % 251) as u8), "at {side}");
        assert!(frames <= 2, "{frames} frames at {side}");
    }
    for (&relay, before) in relays.iter().zip(before) {
        assert!(mesh.side(relay).counter("sends") - before <= 2, "{}", mesh.state());
    }
}

#[test]
fn a_checksum_request_crosses_the_relay() {
    let mesh = Mesh::line(&Options::default(), 3);
    mesh.carries(1, 3, 1, 100);
    let mut frame = super_frame(3, 500).split_off(VNET_LEN);
    frame[40] = 0x77;
    let header = VnetHeader::checksum(34, ChecksumField::Tcp.offset());
    mesh.side(1).send_raw(0, &[header.as_bytes(), &frame].concat());
    assert_eq!(mesh.side(3).receive_raw(0), [header.as_bytes(), &frame].concat());
    // One that does not fit is refused where it would be believed.
    let request = ChecksumRequest { start: 99, field: ChecksumField::Tcp };
    let header = InnerHeader::new(name(1), Some(name(3)), Some(request)).as_bytes().try_into().unwrap();
    let mut forger = mesh.forger(2, 1);
    let datagram = forger.datagram(0, header, &between(1, 3, 1, 200));
    forger.send(&datagram);
    mesh.side(3).dropped(DropReason::BadOffload, 1);
}

#[test]
fn frames_merged_across_lanes_are_sent_on_by_their_owners() {
    const EACH: u64 = 20;
    let mesh = Mesh::line(&Options { shards: 2, ..Options::default() }, 3);
    let mut forger = mesh.forger(2, 1);
    for destination in [Some(name(3)), None] {
        let to = if destination.is_some() { 3 } else { 0 };
        let merged: Vec<_> = (0..2 * EACH)
            .map(|number| {
                let frame = between(1, to, number, 120);
                forger.datagram(number as usize % 2, inner(name(1), destination, HOP_LIMIT), &frame)
            })
            .collect();
        forger.send_merged(&merged);
        for side in if to == 3 { &[3][..] } else { &[2, 3] } {
            for shard in 0..2 {
                let numbers: HashSet<_> = (0..EACH)
                    .map(|_| number_between(&mesh.side(*side).receive_raw(shard)[VNET_LEN..]))
                    .collect();
                assert_eq!(numbers, (0..EACH).map(|i| 2 * i + shard as u64).collect(), "tap {shard}");
            }
        }
    }
    assert_eq!(mesh.side(2).counter("handed_over"), 2 * EACH, "{}", mesh.state());
}

#[test]
fn a_relay_whose_way_out_is_full_drops_and_its_own_tap_goes_on() {
    // What the forger pours in at once is sent on forty times: more than a socket and all slots hold.
    const POURED: u64 = 800;
    const OWN: u64 = 300;
    const MARK: u64 = 1 << 40;
    let options = Options { discipline: Some("tbf rate 80mbit burst 2mb latency 10s"), ..Options::default() };
    let mesh = Mesh::line(&options, 3);
    mesh.attach(2, 3);
    let mut forger = mesh.forger(2, 1);
    let mut routes = mesh.routes(2);
    for route in &mut routes.peers {
        route.broadcast_to = vec![LinkId(3); 40];
    }
    mesh.set_routes(2, routes);
    let relay = mesh.side(2);
    for number in 0..POURED {
        let datagram =
            forger.datagram(0, inner(name(1), None, HOP_LIMIT), &between(1, 0, MARK | number, MAX_FRAME));
        forger.send(&datagram);
    }
    wait(|| mesh.state(), || relay.counter("tap_writes") == POURED);
    assert!(relay.drops(DropReason::RelayFull) > 0, "{}", mesh.state());
    for number in 0..OWN {
        relay.send(0, &between(2, 3, number, MAX_FRAME));
    }
    let mut own = HashSet::new();
    while own.len() < OWN as usize {
        let number = number_between(&mesh.side(3).receive());
        if number < MARK {
            assert!(own.insert(number), "frame {number} came twice");
        }
    }
    // Every copy was sent or counted as dropped.
    let relayed = relay.counter("frames_relayed");
    assert_eq!(relayed + relay.drops(DropReason::RelayFull), 40 * POURED, "{}", mesh.state());
    assert_eq!(relay.drops(DropReason::SendQueueFull), 0, "{}", mesh.state());
}

#[test]
fn an_echo_goes_the_way_of_frames_and_comes_back() {
    for mode in [Mode::Sealed, Mode::Authenticated, Mode::Clear] {
        let mesh = Mesh::line(&Options { mode, ..Options::default() }, 3);
        // One as long as a frame may be, and what is shorter than an echo or longer than a frame.
        for (number, len) in [(7, MAX_FRAME as u16), (8, 0), (9, u16::MAX)] {
            mesh.side(1).command(|_| Command::Echo { peer: name(3), number, len });
            let report = mesh.side(1).await_report("an echo", |r| matches!(r, Report::EchoSeen { .. }));
            let Report::EchoSeen { peer, number: seen, round_trip } = report else { unreachable!() };
            assert_eq!((peer, seen), (name(3), number));
            assert!(!round_trip.is_zero() && round_trip < std::time::Duration::from_secs(20));
        }
        assert_eq!(mesh.side(3).counter("echoes_answered"), 3);
        assert_eq!(mesh.side(2).counter("frames_relayed"), 6, "both ways by the relay");
        let writes: u64 = mesh.sides.iter().map(|side| side.counter("tap_writes")).sum();
        assert_eq!(writes, 0, "an echo is nothing for a tap");
        mesh.side(1).command(|_| Command::Echo { peer: name(9), number: 1, len: 60 });
        mesh.side(1).dropped(DropReason::NoRoute, 1);
    }
}

#[test]
fn echoes_for_all_too_short_or_too_many_get_no_answer() {
    let mesh = Mesh::line(&Options::default(), 2);
    let mut forger = mesh.forger(2, 1);
    let mut ask = |destination, kind: u8, body: &[u8]| {
        let mut header = inner(name(1), destination, HOP_LIMIT);
        header[12] |= kind;
        let datagram = forger.datagram(0, header, body);
        forger.send(&datagram);
    };
    ask(None, 1, &[0; 16]);
    ask(Some(name(2)), 3, &[0; 60]);
    mesh.side(2).dropped(DropReason::Malformed, 2);
    ask(Some(name(2)), 1, &[0; 15]);
    ask(Some(name(2)), 2, &[0; 15]);
    wait(|| mesh.state(), || mesh.side(2).drops(DropReason::FrameTooShort) == 2);
    assert_eq!(mesh.side(2).counter("echoes_answered"), 0);
    // Requests and answers that nobody asked for, more than a second's worth in some second.
    let begun = std::time::Instant::now();
    for kind in [1, 2] {
        let before = mesh.side(2).drops(DropReason::EchoLimit);
        while mesh.side(2).drops(DropReason::EchoLimit) == before {
            ask(Some(name(2)), kind, &[0; 16]);
            assert!(begun.elapsed().as_secs() < 30, "{}", mesh.state());
        }
    }
}
