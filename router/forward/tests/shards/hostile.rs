//! Whatever comes from the underlay is delivered whole or dropped under its reason, and forwarding
//! goes on.

use crate::rig::{
    self, FORGER_LINK, Forger, LINK, MAX_FRAME, Options, Rig, frame, mac, name, not_interrupted, number_of,
    wait,
};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;
use weave_crypto::REPLAY_WINDOW;
use weave_forward::{Command, DropReason, MacChange, Mode};
use weave_wire::inner::{ChecksumField, ChecksumRequest};
use weave_wire::{InnerHeader, MacAddr, OUTER_LEN};
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
fn clear_datagrams_are_taken_from_where_a_link_has_moved_to() {
    let rig = Rig::new(Options { mode: Mode::Clear, ..Options::default() });
    let mut forger = Forger::new(&rig);
    let moved = Ipv4Addr::new(127, 0, 0, 2).into();
    let address = SocketAddr::new(moved, rig.a.address.port());
    rig.b.command(|_| Command::SetLink { link: FORGER_LINK, address, counters: rig::link_counters() });
    let datagram = forger.honest(&frame(1, 100));
    wait(
        || rig.b.state(),
        || {
            forger.send_from(moved, &datagram);
            rig.b.counter("tap_writes") > 0
        },
    );
    assert_eq!(number_of(&rig.b.receive()), 1);
    // And from nowhere else any more.
    let (next, dropped) = (forger.honest(&frame(2, 100)), rig.b.drops(DropReason::WrongMode));
    forger.send(&next);
    wait(|| rig.b.state(), || rig.b.drops(DropReason::WrongMode) == dropped + 1);
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
