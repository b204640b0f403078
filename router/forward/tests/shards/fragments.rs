//! Frames in fragments of the tunnel.

use crate::rig::{Forger, MAX_FRAME, Rig, frame, name, wait};
use weave_forward::DropReason;
use weave_wire::InnerHeader;
use zerocopy::IntoBytes;

/// The inner header of an honest fragment.
fn fragment(index: u8, last: bool) -> [u8; 16] {
    let header = InnerHeader::new(name(3), Some(name(2)), None);
    header.of_fragment(index, last).as_bytes().try_into().unwrap()
}

#[test]
fn fragments_in_any_order_are_put_together() {
    let mut rig = Rig::usual();
    let mut forger = Forger::new(&rig);
    let frame = frame(1, MAX_FRAME);
    let size = MAX_FRAME.div_ceil(16);
    for turn in 0..16 {
        let mut parts: Vec<_> = frame
            .chunks(size)
            .enumerate()
            .map(|(index, piece)| forger.datagram(0, fragment(index as u8, index == 15), piece))
            .collect();
        parts.rotate_left(turn);
        for part in &parts {
            forger.send(part);
        }
        assert_eq!(rig.b.receive(), frame, "turned by {turn}");
    }
    assert_eq!(rig.b.counter("fragments_received"), 256);
    assert_eq!(rig.b.counter("frames_reassembled"), 16);
    rig.works();
}

#[test]
fn fragments_without_the_others_are_dropped_after_a_second() {
    let mut rig = Rig::usual();
    let mut forger = Forger::new(&rig);
    let frame = frame(1, 200);
    let parts = [(0, false, 0..100), (1, true, 100..200)]
        .map(|(index, last, piece)| forger.datagram(0, fragment(index, last), &frame[piece]));
    forger.send(&parts[0]);
    wait(|| rig.b.state(), || rig.b.counter("fragments_received") == 1);
    // Every frame is a turn of its loop.
    while rig.b.drops(DropReason::FragmentTimeout) == 0 {
        rig.works();
    }
    forger.send(&parts[1]);
    wait(|| rig.b.state(), || rig.b.counter("fragments_received") == 2);
    assert_eq!(rig.b.counter("frames_reassembled"), 0);
}

#[test]
fn fragments_that_contradict_each_other_are_dropped() {
    let mut rig = Rig::usual();
    let mut forger = Forger::new(&rig);
    // Two that are the last; nothing in it; too much in all. Numbers follow each other.
    let pairs = [
        ((0, true, 0), (1, true, 10), DropReason::FragmentInconsistent),
        ((0, false, 0), (1, true, 50), DropReason::FragmentInconsistent),
        ((0, false, MAX_FRAME), (1, true, 1), DropReason::FrameTooLong),
        // As a frame it would be too short.
        ((0, false, 6), (1, true, 7), DropReason::FrameTooShort),
    ];
    for (count, (first, second, reason)) in pairs.into_iter().enumerate() {
        for (index, last, len) in [first, second] {
            // Index 0 and last is a whole frame: made a fragment by another index.
            let header = if index == 0 && last { fragment(5, true) } else { fragment(index, last) };
            let datagram = forger.datagram(0, header, &frame(1, 2000)[..len]);
            forger.send(&datagram);
        }
        let before = count as u64;
        wait(
            || format!("{count}: {}", rig.b.state()),
            || DropReason::ALL.iter().map(|reason| rig.b.drops(*reason)).sum::<u64>() > before,
        );
        assert!(rig.b.drops(reason) > 0, "{count}: {}", rig.b.state());
    }
    rig.works();
}

#[test]
fn a_link_holds_eight_frames_in_fragments_and_the_oldest_goes() {
    let mut rig = Rig::usual();
    let mut forger = Forger::new(&rig);
    let frame = frame(1, 200);
    let mut second = Vec::new();
    for _ in 0..20 {
        let part = forger.datagram(0, fragment(0, false), &frame[..100]);
        forger.send(&part);
        second = forger.datagram(0, fragment(1, true), &frame[100..]);
    }
    rig.b.dropped(DropReason::FragmentLimit, 12);
    forger.send(&second);
    assert_eq!(rig.b.receive(), frame);
    rig.works();
}
