//! A member that knows the password and sends frames that break every rule: they cost nobody else
//! anything, and a counter names each refusal.

use std::time::{Duration, Instant};

use weave_api::status::MacSource;
use weave_tests::honest::Honest;
use weave_tests::member::Member;
use weave_tests::numbered::all_drops;
use weave_tests::random::Random;
use weave_tests::wait_until;
use weave_tests::world::{LINK_WITHIN, v4};
use weave_wire::inner::{ChecksumField, ChecksumRequest};
use weave_wire::link::gossip::{PartId, StationAddress, StationEntry, StationsPart};
use weave_wire::{INNER_LEN, InnerHeader, MacAddr, PeerName};
use zerocopy::{FromBytes, IntoBytes};

const MIB: u64 = 1 << 20;
/// What a router may grow by: stations of one peer and frames in fragments are bounded.
const ROOM: u64 = 24 * MIB;
/// How long frames of one kind are sent.
const SENDING: Duration = Duration::from_millis(1_500);
/// Frames per second: what is refused is to cost nobody a frame, while what overruns two cores does.
const RATE: f64 = 20_000.0;

fn name() -> PeerName {
    PeerName::new([2, 0xee, 0, 0, 0, 1]).unwrap()
}

/// A broadcast of nothing that anybody listens to.
fn frame(source: [u8; 6], len: usize) -> Vec<u8> {
    let mut frame = [&[0xff; 6][..], &source, &[0x88, 0xb5]].concat();
    frame.resize(len, 0);
    frame
}

const STATION: [u8; 6] = [2, 0x66, 0, 0, 0, 1];

/// A header with the byte at `at` changed.
fn with_byte(header: InnerHeader, at: usize, byte: u8) -> InnerHeader {
    let mut bytes: [u8; INNER_LEN] = header.as_bytes().try_into().unwrap();
    bytes[at] = byte;
    InnerHeader::read_from_bytes(&bytes).unwrap()
}

/// Sends what `next` makes, at [`RATE`], and waits until the router of host 0 has dropped
/// some of it for each of the `reasons`.
#[track_caller]
fn refused(
    honest: &Honest,
    member: &mut Member,
    reasons: &[&str],
    mut next: impl FnMut(u64) -> (InnerHeader, Vec<u8>),
) {
    let before: Vec<u64> = reasons.iter().map(|reason| honest.world.drops(0, reason)).collect();
    let begun = Instant::now();
    let mut sent = 0;
    while begun.elapsed() < SENDING {
        let (inner, frame) = next(sent);
        member.frames.send_behind(&inner, &frame);
        sent += 1;
        let due = Duration::from_secs_f64(sent as f64 / RATE);
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
    }
    for (reason, before) in reasons.iter().zip(before) {
        let dropped = || honest.world.drops(0, reason);
        let what =
            || format!("{sent} sent, and nothing dropped as {reason}: {:?}", all_drops(&honest.world, 0));
        wait_until(LINK_WITHIN, what, || dropped() > before);
    }
    println!("{reasons:?}: {sent} sent, {:?}", all_drops(&honest.world, 0));
}

#[test]
fn frames_in_the_name_of_others_and_of_any_hop_limit() {
    let honest = Honest::hosts(3);
    let mut member = Member::join(&honest.world, honest.stranger(), 0, name());
    let others = [honest.name(0), honest.name(1), honest.name(2), PeerName::new([2; 6]).unwrap()];
    refused(&honest, &mut member, &["source_peer"], |n| {
        let destination = [None, Some(honest.name(0)), Some(honest.name(1))][n as usize / 4 % 3];
        (InnerHeader::new(others[n as usize % 4], destination, None), frame(STATION, 60))
    });
    // Its own, through host 0 to the others: what may cross no further link is not sent on.
    refused(&honest, &mut member, &["hop_limit"], |n| {
        let destination = [None, Some(honest.name(1)), Some(honest.name(2))][n as usize % 3];
        let inner = InnerHeader::new(name(), destination, None);
        (with_byte(inner, 12, (n as u8 % 32) << 3), frame(STATION, 60))
    });
    // Kinds to come, reserved bits, and a source that is nobody.
    refused(&honest, &mut member, &["malformed"], |n| {
        let inner = InnerHeader::new(name(), None, None);
        let at = [12, 14, 15][n as usize % 3];
        (with_byte(inner, at, inner.as_bytes()[at] | 1), frame(STATION, 60))
    });
    honest.unharmed(ROOM);
}

#[test]
fn fragments_that_are_never_complete_and_those_that_contradict_each_other() {
    let honest = Honest::hosts(2);
    let mut member = Member::join(&honest.world, honest.stranger(), 0, name());
    let whole = InnerHeader::new(name(), None, None);
    // Each of another frame: the number less the index is never the same twice.
    refused(&honest, &mut member, &["fragment_limit"], |_| {
        (whole.of_fragment(0, false), frame(STATION, 1_300))
    });
    wait_until(
        LINK_WITHIN,
        || format!("{:?}", all_drops(&honest.world, 0)),
        || honest.world.drops(0, "fragment_timeout") > 0,
    );
    let mut random = Random::from_environment();
    refused(&honest, &mut member, &["fragment_inconsistent"], |n| {
        let (index, last) = (n as u8 % 16, random.chance(300));
        (whole.of_fragment(index, last), frame(STATION, random.below(1_400) as usize))
    });
    // Put together they are longer than any frame.
    refused(&honest, &mut member, &["frame_too_long"], |n| {
        (whole.of_fragment(n as u8 % 16, false), vec![0; 1_400])
    });
    println!("grown {} KiB", honest.grown(0) / 1024);
    honest.unharmed(ROOM);
}

#[test]
fn odd_requests_to_complete_a_checksum_and_odd_lengths() {
    let honest = Honest::hosts(2);
    let mut member = Member::join(&honest.world, honest.stranger(), 0, name());
    let mut random = Random::from_environment();
    refused(&honest, &mut member, &["bad_offload", "frame_too_short"], |n| {
        let field = if random.chance(500) { ChecksumField::Tcp } else { ChecksumField::Udp };
        let request = ChecksumRequest { start: 1 + random.below(255) as u8, field };
        let mut bytes = frame(STATION, 14 + random.below(200) as usize);
        // Many look like the headers they are not.
        bytes[12..14].copy_from_slice([&[8, 0], &[0x86, 0xdd], &[0x81, 0], &[0x88, 0xb5]][n as usize % 4]);
        bytes.iter_mut().skip(14).for_each(|byte| *byte = random.number() as u8);
        if let Some(byte) = bytes.get_mut(14) {
            *byte = [0x45, 0x60, 0x4f, *byte][random.below(4) as usize];
        }
        bytes.truncate(random.below(2 * bytes.len() as u64) as usize);
        (InnerHeader::new(name(), None, Some(request)), bytes)
    });
    assert_eq!(honest.world.drops(0, "tap_error"), 0, "the kernel refused what the router let through");
    honest.unharmed(ROOM);
}

#[test]
fn frames_from_stations_that_are_attached_elsewhere_move_nothing() {
    let honest = Honest::hosts(2);
    let mut member = Member::join(&honest.world, honest.stranger(), 0, name());
    let macs = [0, 1].map(|host| honest.world.mac(host).0);
    refused(&honest, &mut member, &["mac_conflict"], |n| {
        (InnerHeader::new(name(), None, None), frame(macs[n as usize % 2], 60))
    });
    honest.unharmed(ROOM);
}

#[test]
fn a_flood_of_stations_drives_out_no_attached_one() {
    let honest = Honest::hosts(2);
    let mut member = Member::join(&honest.world, honest.stranger(), 0, name());
    let mut station = 0_u32;
    refused(&honest, &mut member, &[], |_| {
        station += 1;
        let [a, b, c, d] = station.to_be_bytes();
        (InnerHeader::new(name(), None, None), frame([2, 0x77, a, b, c, d], 60))
    });
    let learned = honest.world.status(0).macs.iter().filter(|mac| mac.source == MacSource::Learned).count();
    println!("{station} stations sent, {learned} known");
    assert!(learned > 1_000, "{learned} of {station} stations: this tests nothing");
    assert!(learned <= 4_096 + 2, "{learned}");
    honest.unharmed(ROOM);
}

/// Claims as many stations and addresses as fit, far more than one peer may have.
#[test]
fn claims_on_more_stations_than_there_may_be_drive_out_no_attached_one() {
    let honest = Honest::hosts(2);
    let member = Member::join(&honest.world, honest.stranger(), 0, name());
    assert!(member.announce(1, &[]));
    for part in 0..16_u8 {
        let entries = (0..500_u16).map(|n| {
            let [high, low] = n.to_be_bytes();
            let address = StationAddress { address: [10, 40 + part, high, low].into(), prefix: 8, claim: 1 };
            StationEntry { mac: MacAddr([2, 0x88, 0, part, high, low]), claim: 1, addresses: vec![address] }
        });
        let content = StationsPart { entries: entries.collect() }.encode();
        assert!(member.tell(&member.sign(name(), PartId::stations(part.into()), 1, content)));
    }
    honest.wait_counted(0, "stations_full", 100);
    honest.wait_counted(1, "stations_full", 100);
    honest.unharmed(ROOM);
}

/// The highest claim on a station wins everywhere: that is how a station moves. A member can so
/// take one from another; the host that loses it says so, and has it back when the member is gone.
#[test]
fn a_claim_on_a_station_of_another_host_is_named_and_ends_with_who_claims() {
    let honest = Honest::hosts(2);
    let world = &honest.world;
    let victim = world.mac(1);
    let member = Member::join(world, honest.stranger(), 0, name());
    assert!(member.announce(1, &[]));
    let content =
        StationsPart { entries: vec![StationEntry { mac: victim, claim: u32::MAX, addresses: vec![] }] };
    assert!(member.tell(&member.sign(name(), PartId::stations(0), 1, content.encode())));
    let named = || world.log(1).contains("another host claims a station attached here");
    wait_until(LINK_WITHIN, || world.log(1), named);
    drop(member);
    world.wait_ping(0, v4(1).into(), LINK_WITHIN);
    let known = || world.status(0).macs.into_iter().filter(|entry| entry.mac.0 == victim.0);
    wait_until(
        LINK_WITHIN,
        || format!("{:#?}", world.status(0).macs),
        || known().count() > 0 && known().all(|entry| entry.peer == honest.name(1)),
    );
}
