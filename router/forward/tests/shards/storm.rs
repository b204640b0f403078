//! Storms: frames for everybody pass up to a rate, and everything else passes as before.

use crate::rig::mesh::{Mesh, between, number_between};
use crate::rig::{Options, mac, name, wait};
use std::sync::Arc;
use std::time::{Duration, Instant};
use weave_forward::{Command, DropReason};
use weave_wire::checksum;
use weave_wire::inner::HOP_LIMIT;
use weave_wire::packet::Transport;
use weave_wire::vnet::{Gso, VNET_LEN, VnetHeader};
use weave_wire::{InnerHeader, PeerName};
use zerocopy::IntoBytes;

/// Rate of one source, frames a second, and what of it passes at once.
const RATE: u64 = 20_000;
const BURST: u64 = RATE / 10;
/// Segments of a super-frame and payload of each.
const SEGMENTS: u64 = 64;
const PAYLOAD: usize = 100;

/// A super-frame of UDP from the station of `from` to that of `to` (0: everybody), its offload
/// header first.
fn super_frame(from: u8, to: u8) -> Vec<u8> {
    let payload = SEGMENTS as usize * PAYLOAD;
    let mut frame = between(from, to, 1, 14);
    frame.truncate(12);
    frame.extend([8, 0, 0x45, 0]);
    frame.extend(((28 + payload) as u16).to_be_bytes());
    frame.extend([0, 1, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 255]);
    frame.extend([0, 80, 1, 2]);
    frame.extend(((8 + payload) as u16).to_be_bytes());
    frame.extend([0, 0]);
    frame.resize(frame.len() + payload, 9);
    let at = Transport::find(&frame).unwrap();
    at.ipv4_mut(&mut frame).unwrap().complete_checksum();
    checksum::prepare(&mut frame, &at);
    [VnetHeader::super_frame(Gso::Udp, 42, PAYLOAD as u16, 34, 6).as_bytes(), &frame].concat()
}

/// Segments in a frame of UDP that came to a tap.
fn segments_of(bytes: &[u8]) -> u64 {
    let at = Transport::find(&bytes[VNET_LEN..]).unwrap();
    ((at.end - at.payload) / PAYLOAD) as u64
}

/// The most that passes of one source in `time`.
fn most(time: Duration) -> u64 {
    BURST + SEGMENTS + (time.as_secs_f64() * RATE as f64) as u64
}

#[test]
fn a_storm_passes_at_the_rate_of_a_source_and_counts_by_segments() {
    const SUPER_FRAMES: u64 = 500;
    let mesh = Mesh::line(&Options::default(), 2);
    let (from, to) = (mesh.side(1), mesh.side(2));
    mesh.attach(1, 2);
    let began = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (0..SUPER_FRAMES).for_each(|_| from.send_raw(0, &super_frame(1, 0)));
            // By the same way, hence the last.
            from.send(0, &between(1, 2, 1, 80));
        });
        let mut passed = 0;
        loop {
            let bytes = to.receive_raw(0);
            if bytes[VNET_LEN..VNET_LEN + 6] == mac(2).0 {
                break;
            }
            passed += segments_of(&bytes);
        }
        let dropped = from.drops(DropReason::StormSource);
        assert_eq!(passed + dropped, SUPER_FRAMES * SEGMENTS, "{}", mesh.state());
        assert!((BURST..=most(began.elapsed())).contains(&passed), "{passed} passed; {}", mesh.state());
    });
}

#[test]
fn a_storm_takes_nothing_from_known_unicast_and_little_from_another_station() {
    const UNICAST: u64 = 3000;
    const QUIET: u64 = 50;
    let mesh = Mesh::line(&Options::default(), 2);
    let (from, to) = (mesh.side(1), mesh.side(2));
    mesh.attach(1, 2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..UNICAST {
                from.send_raw(0, &super_frame(1, 0));
                from.send(0, &between(1, 2, number, 80));
                if number % (UNICAST / QUIET) == 0 {
                    from.send(0, &between(7, 0, number, 80));
                }
            }
        });
        let (mut unicast, mut quiet) = (0, 0);
        while unicast < UNICAST || quiet < QUIET {
            let frame = to.receive_raw(0).split_off(VNET_LEN);
            match (frame[..6] == mac(2).0, frame[6..12] == mac(7).0) {
                (true, _) => {
                    assert_eq!(number_between(&frame), unicast);
                    unicast += 1;
                }
                (_, true) => quiet += 1,
                _ => {}
            }
        }
    });
    assert!(from.drops(DropReason::StormSource) > UNICAST, "{}", mesh.state());
    assert_eq!(from.drops(DropReason::StormTotal), 0, "{}", mesh.state());
}

#[test]
fn addresses_without_number_pass_at_the_rate_of_all_and_leave_room_for_attached_ones() {
    const FLOOD: u32 = 40_000;
    const EVERY: u32 = 400;
    let mesh = Mesh::line(&Options::default(), 2);
    let (from, to) = (mesh.side(1), mesh.side(2));
    let attached = Arc::new(vec![mac(9)]);
    from.command(|_| Command::SetLocalMacs(Arc::clone(&attached)));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..FLOOD {
                let mut frame = super_frame(1, 0);
                frame[VNET_LEN + 6..VNET_LEN + 12].copy_from_slice(&mac(1 << 20 | number).0);
                from.send_raw(0, &frame);
                if number % EVERY == 0 {
                    from.send(0, &between(9, 0, number.into(), 80));
                }
            }
        });
        let mut attached = 0;
        while attached < FLOOD / EVERY {
            let frame = to.receive_raw(0).split_off(VNET_LEN);
            attached += u32::from(frame[6..12] == mac(9).0);
        }
    });
    assert!(from.drops(DropReason::StormTotal) > u64::from(FLOOD), "{}", mesh.state());
    assert_eq!(from.drops(DropReason::StormSource), 0, "{}", mesh.state());
}

#[test]
fn shards_share_the_limit_of_a_source_and_one_alone_has_all_of_it() {
    const SUPER_FRAMES: u64 = 200;
    let mesh = Mesh::line(&Options { shards: 2, ..Options::default() }, 2);
    let (from, to) = (mesh.side(1), mesh.side(2));
    mesh.attach(1, 2);
    for (station, taps) in [(1, &[0][..]), (7, &[0, 1])] {
        let (began, before) = (Instant::now(), from.drops(DropReason::StormSource));
        std::thread::scope(|scope| {
            for &tap in taps {
                scope.spawn(move || {
                    (0..SUPER_FRAMES).for_each(|_| from.send_raw(tap, &super_frame(station, 0)));
                    from.send(tap, &between(1, 2, 1, 80));
                });
            }
            let receiving = taps.iter().map(|&tap| {
                scope.spawn(move || {
                    let all = std::iter::repeat_with(|| to.receive_raw(tap));
                    let storm = all.take_while(|bytes| bytes[VNET_LEN..VNET_LEN + 6] != mac(2).0);
                    storm.map(|bytes| segments_of(&bytes)).sum::<u64>()
                })
            });
            let passed: u64 =
                receiving.collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap()).sum();
            let dropped = from.drops(DropReason::StormSource) - before;
            assert_eq!(passed + dropped, taps.len() as u64 * SUPER_FRAMES * SEGMENTS, "{}", mesh.state());
            // Each shard may have looked at the last of the room.
            let most = most(began.elapsed()) + SEGMENTS;
            assert!((BURST..=most).contains(&passed), "{passed} passed, {most} may; {}", mesh.state());
        });
    }
}

#[test]
fn a_frame_for_a_station_of_this_host_goes_nowhere() {
    let mesh = Mesh::line(&Options::default(), 2);
    let from = mesh.side(1);
    let attached = Arc::new(vec![mac(5)]);
    // It is flooded while nobody knows the station, and no more from then on.
    from.send(0, &between(1, 5, 1, 100));
    assert_eq!(number_between(&mesh.side(2).receive()), 1);
    from.command(|_| Command::SetLocalMacs(Arc::clone(&attached)));
    from.send_raw(0, &super_frame(1, 5));
    from.dropped(DropReason::Local, SEGMENTS);
    from.send(0, &between(1, 6, 2, 100));
    assert_eq!(number_between(&mesh.side(2).receive()), 2);
    assert_eq!(mesh.link(1, 2).frames_sent.get(), 2, "{}", mesh.state());
}

/// The inner header of a frame of `source` for everybody.
fn for_everybody(source: PeerName) -> [u8; 16] {
    let mut bytes: [u8; 16] = InnerHeader::new(source, None, None).as_bytes().try_into().unwrap();
    bytes[12] = HOP_LIMIT << 3;
    bytes
}

#[test]
fn a_relay_sends_on_the_rate_of_a_source_peer_and_delivers_all() {
    const ROUNDS: u64 = 20;
    const BATCHES: u64 = 20;
    // The forger is 1.
    let mesh = Mesh::line(&Options::default(), 3);
    let relay = mesh.side(2);
    let mut forger = mesh.forger(2, 1);
    let began = Instant::now();
    for _ in 0..ROUNDS {
        for _ in 0..BATCHES {
            let frames = (0..SEGMENTS).map(|number| between(1, 0, number, 80));
            let datagrams: Vec<_> =
                frames.map(|frame| forger.datagram(0, for_everybody(name(1)), &frame)).collect();
            forger.send_merged(&datagrams);
        }
        for _ in 0..BATCHES * SEGMENTS {
            relay.receive();
        }
    }
    let sent_on = || relay.counter("frames_relayed");
    let offered = ROUNDS * BATCHES * SEGMENTS;
    wait(|| mesh.state(), || sent_on() + relay.drops(DropReason::StormPeer) == offered);
    assert!((BURST..=most(began.elapsed())).contains(&sent_on()), "{}", mesh.state());
    assert!(relay.drops(DropReason::StormPeer) > 0, "{}", mesh.state());
    // Frames of another peer are sent on all the same.
    let before = sent_on();
    mesh.side(3).send(0, &between(3, 0, 1, 100));
    assert_eq!(number_between(&relay.receive()), 1);
    wait(|| mesh.state(), || sent_on() == before + 1);
}
