//! Whatever comes from the underlay is delivered whole or dropped under its reason, and forwarding
//! goes on.

use crate::rig::{
    self, Forger, LINK, MAX_FRAME, Options, Rig, frame, mac, name, not_interrupted, number_of, wait,
};
use std::collections::HashSet;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;
use weave_crypto::REPLAY_WINDOW;
use weave_forward::{Command, DropReason, MacChange, Mode, Report, boot_time};
use weave_wire::inner::{ChecksumField, ChecksumRequest};
use weave_wire::vnet::VNET_LEN;
use weave_wire::{InnerHeader, MacAddr, OUTER_LEN, SessionIndex};
use zerocopy::IntoBytes;

#[test]
fn an_honest_datagram_is_delivered() {
    let mut rig = Rig::usual();
    let mut forger = Forger::new(&rig);
    let frame = frame(7, MAX_FRAME);
    let datagram = forger.honest(&frame);
    forger.send(&datagram);
    assert_eq!(rig.b.receive(), frame);
    rig.works();
    assert_eq!(rig.b.drops(DropReason::Malformed), 0);
}

#[test]
fn garbage_is_malformed() {
    let mut rig = Rig::usual();
    let mut forger = Forger::new(&rig);
    let good = forger.honest(&frame(1, 100));
    for len in [0, 1, 2, OUTER_LEN - 1] {
        forger.send(&good[..len]);
    }
    // Kinds and versions that are none, reserved bytes, lanes that are none, room for no tag.
    for (place, value) in [(0, 0x00), (0, 0x15), (0, 0x20), (0, 0xff), (2, 1), (3, 1), (1, 64), (1, 254)] {
        let mut bad = good.clone();
        bad[place] = value;
        forger.send(&bad);
    }
    forger.send(&good[..OUTER_LEN]);
    forger.send(&good[..OUTER_LEN + 15]);
    // An empty datagram may pass without a trace.
    wait(|| rig.b.state(), || rig.b.drops(DropReason::Malformed) >= 13);
    rig.works();
    assert!(rig.b.drops(DropReason::Malformed) <= 14, "{}", rig.b.state());
}

#[test]
fn a_session_or_lane_without_keys_is_unknown() {
    let mut rig = Rig::usual();
    let mut forger = Forger::new(&rig);
    let mut datagram = forger.honest(&frame(1, 100));
    datagram[OUTER_LEN - 5] ^= 1;
    forger.send(&datagram);
    rig.dropped_at_b(DropReason::UnknownSession, 1);

    let mut rig = Rig::usual();
    let mut forger = Forger::new(&rig);
    let mut datagram = forger.honest(&frame(1, 100));
    datagram[1] = 9;
    forger.send(&datagram);
    rig.dropped_at_b(DropReason::UnknownLane, 1);
}

#[test]
fn a_dropped_session_is_unknown() {
    let mut rig = Rig::usual();
    let mut forger = Forger::new(&rig);
    let (first, second) = (forger.honest(&frame(1, 100)), forger.honest(&frame(2, 100)));
    forger.send(&first);
    assert_eq!(number_of(&rig.b.receive()), 1);
    rig.b.command(|_| Command::DropReceive(rig::FORGER_SESSION));
    rig.works();
    forger.send(&second);
    rig.dropped_at_b(DropReason::UnknownSession, 1);
}

#[test]
fn a_clear_datagram_of_a_sealed_session_is_dropped() {
    let mut rig = Rig::usual();
    let mut forger = Forger::new(&rig);
    let mut datagram = forger.honest(&frame(1, 100));
    // Clear, of the control lane, and authenticated.
    for kind in [0x11, 0x13, 0x14] {
        datagram[0] = kind;
        forger.send(&datagram);
    }
    rig.dropped_at_b(DropReason::WrongMode, 3);
}

#[test]
fn only_authenticated_datagrams_pass_in_an_authenticated_session() {
    let mut rig = Rig::new(Options { mode: Mode::Authenticated, ..Options::default() });
    let mut forger = Forger::new(&rig);
    let genuine = forger.honest(&frame(1, 100));
    // The frame can be read, and not changed.
    assert_eq!(genuine[OUTER_LEN + 16..OUTER_LEN + 116], frame(1, 100));
    for kind in [0x11, 0x13] {
        let mut bad = genuine.clone();
        bad[0] = kind;
        forger.send(&bad);
    }
    rig.b.dropped(DropReason::WrongMode, 2);
    // It is not taken for a sealed one, which may come too.
    let mut bad = genuine.clone();
    bad[0] = 0x10;
    forger.send(&bad);
    wait(|| rig.b.state(), || rig.b.drops(DropReason::Forged) == 1);
    for place in OUTER_LEN..genuine.len() {
        let mut bad = genuine.clone();
        bad[place] ^= 1;
        forger.send(&bad);
    }
    let changed = (genuine.len() - OUTER_LEN) as u64 + 1;
    wait(|| rig.b.state(), || rig.b.drops(DropReason::Forged) == changed);
    // A keep-alive is a sealed datagram: nothing else passes as one.
    let mut bad = genuine.clone();
    bad[0] = 0x12;
    forger.send(&bad);
    wait(|| rig.b.state(), || rig.b.drops(DropReason::Forged) == changed + 1);
    // From anywhere, once.
    forger.send_from(Ipv4Addr::new(127, 0, 0, 2).into(), &genuine);
    assert_eq!(rig.b.receive(), frame(1, 100));
    forger.send(&genuine);
    wait(|| rig.b.state(), || rig.b.drops(DropReason::Replayed) == 1);
    rig.works();
}

#[test]
fn an_authenticated_link_that_is_sealed_sends_sealed_frames_which_the_other_end_takes() {
    let mut rig = Rig::new(Options { mode: Mode::Authenticated, ..Options::default() });
    rig.works();
    let observer = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    observer.set_read_timeout(Some(rig::WITHIN)).unwrap();
    let (real, seen_by) = (rig.b.address, observer.local_addr().unwrap());
    let lead = |side: &rig::Side, address| {
        side.command(|_| Command::SetLink { link: LINK, address, counters: rig::link_counters() });
    };
    let readable = |sealed: bool| {
        lead(&rig.a, seen_by);
        rig.a.send(0, &frame(7, 100));
        let mut datagram = [0; 2_000];
        let len = not_interrupted(|| observer.recv(&mut datagram)).unwrap();
        lead(&rig.a, real);
        assert_eq!(datagram[0], if sealed { 0x10 } else { 0x14 });
        datagram[..len].windows(100).any(|part| part == frame(7, 100))
    };
    assert!(readable(false));
    rig.a.command(|_| Command::Seal(LINK));
    assert!(!readable(true));
    rig.works();
}

#[test]
fn a_datagram_with_a_tag_of_a_clear_session_is_dropped() {
    let mut rig = Rig::new(Options { mode: Mode::Clear, ..Options::default() });
    let mut forger = Forger::new(&rig);
    let mut datagram = forger.honest(&frame(1, 100));
    for kind in [0x10, 0x14] {
        datagram[0] = kind;
        forger.send(&datagram);
    }
    rig.dropped_at_b(DropReason::WrongMode, 2);
}

#[test]
fn a_clear_datagram_from_another_address_is_dropped() {
    let mut rig = Rig::new(Options { mode: Mode::Clear, ..Options::default() });
    let mut forger = Forger::new(&rig);
    let datagram = forger.honest(&frame(1, 100));
    forger.send_from(Ipv4Addr::new(127, 0, 0, 2).into(), &datagram);
    rig.dropped_at_b(DropReason::WrongMode, 1);
    // From the right one it was fine, and its number is not used up.
    forger.send(&datagram);
    assert_eq!(number_of(&rig.b.receive()), 1);
}

#[test]
fn an_expired_key_opens_nothing() {
    let mut rig = Rig::usual();
    let mut forger = Forger::with_lifetime(&rig, Duration::ZERO);
    let datagram = forger.honest(&frame(1, 100));
    forger.send(&datagram);
    rig.dropped_at_b(DropReason::KeyExpired, 1);
}

#[test]
fn a_replayed_datagram_is_delivered_once() {
    let mut rig = Rig::usual();
    let mut forger = Forger::new(&rig);
    let datagram = forger.honest(&frame(1, 100));
    for _ in 0..4 {
        forger.send(&datagram);
    }
    assert_eq!(number_of(&rig.b.receive()), 1);
    rig.dropped_at_b(DropReason::Replayed, 3);
}

#[test]
fn a_datagram_behind_the_window_is_too_old() {
    let mut rig = Rig::usual();
    let mut forger = Forger::new(&rig);
    let first = forger.honest(&frame(1, 100));
    for number in 0..REPLAY_WINDOW + 64 {
        let skipped = forger.honest(&frame(number.into(), 30));
        if number == REPLAY_WINDOW + 63 {
            forger.send(&skipped);
        }
    }
    assert_eq!(number_of(&rig.b.receive()), u64::from(REPLAY_WINDOW + 63));
    forger.send(&first);
    rig.dropped_at_b(DropReason::TooOld, 1);
}

#[test]
fn a_datagram_changed_anywhere_is_forged_and_the_true_one_still_passes() {
    let mut rig = Rig::usual();
    let mut forger = Forger::new(&rig);
    let datagram = forger.honest(&frame(1, 60));
    // The kind's and lane's bytes, session and counter lead elsewhere: see the other tests.
    for place in OUTER_LEN..datagram.len() {
        let mut bad = datagram.clone();
        bad[place] ^= 0x40;
        forger.send(&bad);
    }
    rig.dropped_at_b(DropReason::Forged, (datagram.len() - OUTER_LEN) as u64);
    forger.send(&datagram);
    assert_eq!(number_of(&rig.b.receive()), 1);
}

#[test]
fn a_frame_for_or_from_somebody_else_is_dropped() {
    let mut rig = Rig::usual();
    let mut forger = Forger::new(&rig);
    let frame = frame(1, 100);
    let of = |source, destination| InnerHeader::new(source, destination, None).as_bytes().try_into().unwrap();
    let mut no_hop: [u8; 16] = Forger::inner();
    no_hop[12] = 0;
    let mut nobody = Forger::inner();
    nobody[..6].fill(0);
    for (inner, reason, count) in [
        // Another peer's name, to us and to everybody; nobody's name; our own.
        (of(name(1), Some(name(2))), DropReason::SourcePeer, 1),
        (of(name(1), None), DropReason::SourcePeer, 2),
        (nobody, DropReason::SourcePeer, 3),
        (of(name(2), Some(name(2))), DropReason::Loop, 1),
        (of(name(2), None), DropReason::Loop, 2),
        (no_hop, DropReason::HopLimit, 1),
        (of(name(3), Some(name(9))), DropReason::NoRoute, 1),
    ] {
        let datagram = forger.datagram(0, inner, &frame);
        forger.send(&datagram);
        wait(|| rig.b.state(), || rig.b.drops(reason) == count);
    }
    rig.works();
    // To everybody is to us, too.
    let datagram = forger.datagram(0, of(name(3), None), &frame);
    forger.send(&datagram);
    assert_eq!(rig.b.receive(), frame);
}

#[test]
fn inner_headers_of_a_later_version_are_dropped() {
    let mut rig = Rig::usual();
    let mut forger = Forger::new(&rig);
    for (place, bits) in [(12, 3), (12, 7), (14, 1), (14, 2), (15, 1)] {
        let mut inner = Forger::inner();
        inner[place] |= bits;
        let datagram = forger.datagram(0, inner, &frame(1, 100));
        forger.send(&datagram);
    }
    rig.dropped_at_b(DropReason::Malformed, 5);
}

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

#[test]
fn frames_too_short_and_too_long_are_dropped() {
    let mut rig = Rig::usual();
    let mut forger = Forger::new(&rig);
    for len in [0, 1, 13] {
        let datagram = forger.datagram(0, Forger::inner(), &frame(1, 100)[..len]);
        forger.send(&datagram);
    }
    rig.b.dropped(DropReason::FrameTooShort, 3);
    for len in [MAX_FRAME + 1, 9000, 60_000] {
        let datagram = forger.honest(&frame(1, len));
        forger.send(&datagram);
    }
    wait(|| rig.b.state(), || rig.b.drops(DropReason::FrameTooLong) == 3);
    rig.works();
    // The shortest there is.
    let datagram = forger.honest(&frame(1, 100)[..14]);
    forger.send(&datagram);
    assert_eq!(rig.b.receive(), frame(1, 100)[..14]);
}

#[test]
fn a_checksum_request_that_does_not_fit_its_frame_is_dropped() {
    let mut rig = Rig::usual();
    let mut forger = Forger::new(&rig);
    let mut sent = 0;
    // No IP at all; within the frame, at its end, behind it.
    for start in [1, 14, 34, 99, 255] {
        for field in [ChecksumField::Tcp, ChecksumField::Udp] {
            let request = ChecksumRequest { start, field };
            let inner = InnerHeader::new(name(3), None, Some(request)).as_bytes().try_into().unwrap();
            let datagram = forger.datagram(0, inner, &frame(1, 100));
            forger.send(&datagram);
            sent += 1;
        }
    }
    rig.dropped_at_b(DropReason::BadOffload, sent);
}

#[test]
fn a_frame_of_a_station_of_ours_does_not_come_back() {
    let mut rig = Rig::usual();
    let mut forger = Forger::new(&rig);
    let frame = frame(1, 100);
    let station = MacAddr(frame[6..12].try_into().unwrap());
    // The genuine frames of the rig have the same source: not yet sent.
    let macs = Arc::new(vec![mac(1), station, mac(9)]);
    rig.b.command(|_| Command::SetLocalMacs(Arc::clone(&macs)));
    let datagram = forger.honest(&frame);
    forger.send(&datagram);
    rig.b.dropped(DropReason::Loop, 1);
    rig.b.command(|_| Command::SetLocalMacs(Arc::default()));
    rig.works();
}

#[test]
fn a_frame_of_a_station_attached_at_another_peer_is_dropped() {
    let mut rig = Rig::usual();
    let mut forger = Forger::new(&rig);
    let mut frame = frame(1, 100);
    frame[6..12].copy_from_slice(&mac(1).0);
    let attached = |peer| Arc::new(vec![MacChange { mac: mac(1), peer, attached: true }]);
    let elsewhere = attached(Some(name(1)));
    rig.b.command(|_| Command::ChangeMacs(Arc::clone(&elsewhere)));
    for count in 1..3 {
        let datagram = forger.honest(&frame);
        forger.send(&datagram);
        wait(|| rig.b.state(), || rig.b.drops(DropReason::MacConflict) == count);
    }
    rig.works();
    let nowhere = attached(None);
    rig.b.command(|_| Command::ChangeMacs(Arc::clone(&nowhere)));
    let datagram = forger.honest(&frame);
    forger.send(&datagram);
    assert_eq!(rig.b.receive(), frame);
}

#[test]
fn a_full_table_of_stations_is_counted_and_frames_pass() {
    let mut rig = Rig::usual();
    let mut forger = Forger::new(&rig);
    let changes =
        (0..20_000).map(|number| MacChange { mac: mac(number), peer: Some(name(3)), attached: false });
    let changes = Arc::new(changes.collect::<Vec<_>>());
    rig.b.command(|_| Command::ChangeMacs(Arc::clone(&changes)));
    for number in 0..10 {
        let mut frame = frame(number, 100);
        frame[6..12].copy_from_slice(&mac(90_000 + number as u32).0);
        let datagram = forger.honest(&frame);
        forger.send(&datagram);
        assert_eq!(rig.b.receive(), frame);
    }
    assert_eq!(rig.b.counter("mac_table_full"), 10, "{}", rig.b.state());
    rig.works();
}

#[test]
fn a_station_whose_report_was_lost_is_reported_again() {
    let rig = Rig::usual();
    let mut forger = Forger::new(&rig);
    let from = |number: u32| {
        let mut frame = frame(number.into(), 60);
        frame[6..12].copy_from_slice(&mac(number).0);
        frame
    };
    // Nobody reads reports for a while.
    let mut last = 0;
    while rig.b.drops(DropReason::ReportFull) == 0 {
        last += 1;
        assert!(last < 10_000, "reports are never full: {}", rig.b.state());
        let datagram = forger.honest(&from(last));
        forger.send(&datagram);
        assert_eq!(rig.b.receive(), from(last));
    }
    while rig.b.reports.try_recv().is_ok() {}
    let datagram = forger.honest(&from(last));
    forger.send(&datagram);
    let wanted = Report::MacSeen { mac: mac(last), peer: name(3) };
    rig.b.await_report("the station", |report| *report == wanted);
}

#[test]
fn datagrams_merged_across_lanes_reach_their_owners() {
    const EACH: u64 = 20;
    let mut rig = Rig::new(Options { shards: 2, ..Options::default() });
    let mut forger = Forger::new(&rig);
    let merged: Vec<_> = (0..2 * EACH)
        .map(|number| forger.datagram(number as usize % 2, Forger::inner(), &frame(number, 120)))
        .collect();
    forger.send_merged(&merged);
    for shard in 0..2 {
        let numbers: HashSet<_> =
            (0..EACH).map(|_| number_of(&rig.b.receive_raw(shard)[VNET_LEN..])).collect();
        assert_eq!(numbers, (0..EACH).map(|i| 2 * i + shard as u64).collect(), "tap {shard}");
    }
    assert_eq!(rig.b.counter("handed_over"), EACH, "{}", rig.b.state());
    rig.works();
}

#[test]
fn a_control_datagram_among_others_reaches_the_control_core() {
    let mut rig = Rig::usual();
    let mut forger = Forger::new(&rig);
    let first = forger.honest(&frame(1, 100));
    let mut control = forger.honest(&frame(2, 100));
    control[..2].copy_from_slice(&[0x13, 255]);
    let last = forger.honest(&frame(3, 100));
    forger.send_merged(&[first, control.clone(), last]);
    assert_eq!([1, 3], [(); 2].map(|()| number_of(&rig.b.receive())));
    let report = rig.b.await_report("a control datagram", |r| matches!(r, Report::ControlDatagram { .. }));
    let Report::ControlDatagram { datagram, .. } = report else { unreachable!() };
    assert_eq!(*datagram, *control);
    rig.works();
}

#[test]
fn more_control_datagrams_than_the_core_takes_are_counted() {
    let mut rig = Rig::usual();
    let mut forger = Forger::new(&rig);
    let first = forger.honest(&frame(1, 100));
    let mut control = first.clone();
    control[..2].copy_from_slice(&[0x13, 255]);
    // The first one is forged: only its lane leads the others here.
    let mut train = vec![control; 60];
    train[0] = first;
    train[0][OUTER_LEN + 3] ^= 1;
    for _ in 0..100 {
        forger.send_merged(&train);
    }
    wait(|| rig.b.state(), || rig.b.drops(DropReason::Forged) == 100);
    assert!(rig.b.drops(DropReason::ReportFull) >= 100 * 59 - 4096, "{}", rig.b.state());
    rig.works();
}

#[test]
fn what_is_reported_once_only_is_not_lost() {
    let rig = Rig::usual();
    let mut forger = Forger::new(&rig);
    // Nobody reads reports for a while, and strangers have filled their queue.
    let mut control = forger.honest(&frame(1, 100));
    control[..2].copy_from_slice(&[0x13, 255]);
    let mut train = vec![control; 60];
    train[0][..2].copy_from_slice(&[0x10, 0]);
    while rig.b.drops(DropReason::ReportFull) == 0 {
        forger.send_merged(&train);
    }
    let session = SessionIndex(0x5000);
    rig.b.command(|_| rig.b.receive_keys(3, rig.a.address, session, boot_time() + Duration::from_secs(60)));
    // The shard has come past it.
    let datagrams = rig.b.counter("datagrams_received");
    forger.send_merged(&train);
    wait(|| rig.b.state(), || rig.b.counter("datagrams_received") > datagrams);
    // It may find room while the queue is emptied, else in its next turn.
    let is_installed = |report: &Report| matches!(report, Report::ReceiveInstalled { .. });
    let emptied: Vec<_> = std::iter::from_fn(|| rig.b.reports.try_recv().ok()).collect();
    if !emptied.iter().any(is_installed) {
        forger.send(&train[1]);
        forger.send(&train[0]);
        rig.b.await_report("installed keys", is_installed);
    }
}

#[test]
fn a_full_inbox_is_counted_and_empties_again() {
    let mut rig = Rig::new(Options { shards: 2, tap_buffer: 8192, ..Options::default() });
    let mut forger = Forger::new(&rig);
    // All but the first of each train belong to shard 1, whose tap nobody empties.
    let mut sent = 0;
    while rig.b.drops(DropReason::HandOverFull) == 0 {
        assert!(sent < 200 * 40, "no inbox is ever full: {}", rig.b.state());
        let train: Vec<_> = (0..40)
            .map(|i| forger.datagram(usize::from(i > 0), Forger::inner(), &frame(sent + i, 300)))
            .collect();
        forger.send_merged(&train);
        assert_eq!(number_of(&rig.b.receive()), sent);
        sent += 40;
        wait(|| rig.b.state(), || rig.b.counter("datagrams_received") >= sent);
    }
    // What was taken in comes out, once each.
    let handed = rig.b.counter("handed_over");
    let mut numbers = HashSet::new();
    for _ in 0..handed {
        assert!(numbers.insert(number_of(&rig.b.receive_raw(1)[VNET_LEN..])), "delivered twice");
    }
    // And the next ones pass.
    let train: Vec<_> =
        (0..40).map(|i| forger.datagram(usize::from(i > 0), Forger::inner(), &frame(i, 300))).collect();
    forger.send_merged(&train);
    for _ in 1..40 {
        rig.b.receive_raw(1);
    }
    assert_eq!(number_of(&rig.b.receive()), 0);
    rig.works();
}
