//! A peer that knows the password and breaks every rule but that: it costs its own link, nobody
//! else's.

use std::time::Duration;

use weave_tests::insider::Insider;
use weave_tests::numbered::{self, Stream};
use weave_tests::random::Random;
use weave_tests::world::v4;
use weave_tests::{Options, World, wait_until};
use weave_wire::link::message::{Message, RekeyShare};
use weave_wire::packet::Transport;
use weave_wire::{PeerName, SessionIndex, checksum};

const WITHIN: Duration = Duration::from_secs(10);
const STREAMS: [Stream; 2] = [
    Stream { from: 0, to: 1, v6: false, bytes: 300, rate: 1000 },
    Stream { from: 1, to: 0, v6: true, bytes: 900, rate: 1000 },
];

fn name(last: u8) -> PeerName {
    PeerName::new([2, 0x15, 0, 0, 0, last]).unwrap()
}

fn world() -> (World, [u32; 2]) {
    let world = World::pair(Options::encrypted());
    world.wait_ping(0, v4(1).into(), WITHIN);
    world.wait_ping(1, v4(0).into(), WITHIN);
    let routers = [0, 1].map(|index| world.status(index).pid);
    (world, routers)
}

/// The genuine link never went down and loses nothing.
#[track_caller]
fn unharmed(world: &World, routers: [u32; 2]) {
    numbered::send_complete(world, &STREAMS, Duration::from_millis(500));
    for index in [0, 1] {
        assert_eq!(world.status(index).pid, routers[index], "router {index} is another one");
    }
    assert_eq!(world.status(1).counters["links_made"], 1, "the genuine link was made again");
}

/// A message of `kind` with these fields.
fn message(kind: u16, fields: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &(fields.len() as u32).to_be_bytes(), fields].concat()
}

fn share(epoch: u32, ephemeral: [u8; 32]) -> RekeyShare {
    RekeyShare { epoch, ephemeral, session: SessionIndex(77) }
}

#[test]
fn messages_that_make_no_sense_cost_the_link_of_who_sent_them() {
    let (world, routers) = world();
    let wrong: [(&str, Vec<u8>); 8] = [
        ("a length over the limit", vec![0, 1, 0xff, 0xff, 0xff, 0xff, 0]),
        ("a description without fields", message(1, &[])),
        ("fields that end in the middle", message(5, &[0, 1, 0, 9, 1])),
        ("an answer to no offer", Message::RekeyAnswer(share(1, [9; 32])).encode()),
        ("a confirmation of no re-key", Message::RekeyConfirm { epoch: 1 }.encode()),
        ("an offer of an epoch to come", Message::RekeyOffer(share(9, [9; 32])).encode()),
        ("an offer of the last epoch there is", Message::RekeyOffer(share(u32::MAX, [9; 32])).encode()),
        ("a key of low order", Message::RekeyOffer(share(1, [0; 32])).encode()),
    ];
    for (number, (what, bytes)) in (1..).zip(wrong) {
        let mut insider = Insider::join(&world, name(number));
        insider.describe();
        insider.say(&bytes);
        assert!(insider.is_closed_within(WITHIN), "still there after {what}");
        wait_until(
            WITHIN,
            || format!("its link stays after {what}: {:#?}", world.status(0).connections),
            || world.status(0).connections.iter().all(|link| link.peer != Some(name(number))),
        );
    }
    unharmed(&world, routers);
}

#[test]
fn bytes_that_nobody_sealed_cost_the_link_of_who_sent_them() {
    let (world, routers) = world();
    let mut random = Random::from_environment();
    for number in 1..=4 {
        let mut insider = Insider::join(&world, name(number));
        if number % 2 == 0 {
            insider.describe();
        }
        let noise: Vec<u8> = (0..20_000).map(|_| random.number() as u8).collect();
        insider.shout(&noise);
        assert!(insider.is_closed_within(WITHIN), "still there after noise");
    }
    unharmed(&world, routers);
}

#[test]
fn kinds_of_messages_to_come_and_answers_to_nothing_are_passed_over() {
    let (world, routers) = world();
    let mut insider = Insider::join(&world, name(1));
    insider.describe();
    let mut random = Random::from_environment();
    for _ in 0..500 {
        let fields: Vec<u8> = (0..random.below(3000)).map(|byte| byte as u8).collect();
        assert!(insider.say(&message(100 + random.below(60_000) as u16, &fields)));
        assert!(insider.say(&Message::Pong(random.number()).encode()));
    }
    assert!(!insider.is_closed_within(Duration::from_millis(500)), "closed; {}", world.log(0));
    unharmed(&world, routers);
}

#[test]
fn a_peer_that_asks_and_never_listens_costs_a_bounded_amount_of_memory() {
    let (world, routers) = world();
    let mut insider = Insider::join(&world, name(1));
    insider.describe();
    let before = numbered::memory(&world, 0);
    // Until the router has had enough of it, or all are sent.
    let sent = (0..400_000).take_while(|number| insider.say(&Message::Ping(*number).encode())).count();
    let grown = numbered::memory(&world, 0).saturating_sub(before);
    println!("{sent} pings taken, {grown} bytes more");
    assert!(sent > 1000, "only {sent} pings were taken");
    assert!(grown < 8 << 20, "{grown} bytes more after {sent} pings");
    unharmed(&world, routers);
}

#[test]
fn connections_that_a_peer_never_closes_are_closed() {
    let (world, routers) = world();
    let open = || std::fs::read_dir(format!("/proc/{}/fd", routers[0])).unwrap().count();
    let before = open();
    // Each takes the place of the one before.
    let mut insiders: Vec<_> = (0..10).map(|_| Insider::join(&world, name(1))).collect();
    wait_until(WITHIN, || format!("{} descriptors open, {before} before", open()), || open() <= before + 2);
    for insider in &mut insiders[..9] {
        assert!(insider.is_closed_within(WITHIN));
    }
    unharmed(&world, routers);
}

#[test]
fn a_peer_cannot_speak_for_another() {
    let (world, routers) = world();
    let genuine = world.status(1).name;
    let mut insider = Insider::join(&world, name(1));
    insider.describe();
    wait_until(
        WITHIN,
        || "no link".into(),
        || world.status(0).connections.iter().any(|link| link.peer == Some(name(1))),
    );
    let station = [2, 0x66, 0, 0, 0, 1];
    let frame = [&[0xff; 6][..], &station, &[0x88, 0xb5], &[0; 46]].concat();
    wait_until(
        WITHIN,
        || format!("{:?}", numbered::all_drops(&world, 0)),
        || {
            insider.frames.send(Some(genuine), &frame);
            world.drops(0, "source_peer") >= 10
        },
    );
    let macs = world.status(0).macs;
    assert!(macs.iter().all(|entry| entry.mac.0 != station), "the station was learned: {macs:#?}");
    unharmed(&world, routers);
}

#[test]
fn a_name_belongs_to_the_key_that_had_it_first() {
    let (world, routers) = world();
    let mut insider = Insider::join(&world, world.status(1).name);
    assert!(insider.is_closed_within(WITHIN), "two peers with one name; {}", world.log(0));
    assert!(world.log(0).contains("belongs to a peer with another identity key"), "{}", world.log(0));
    unharmed(&world, routers);
}

/// A segment of a flow, its checksum open: number `index`, `payload` bytes long.
fn segment(v6: bool, tcp: bool, index: u32, payload: usize, far: [u8; 6]) -> Vec<u8> {
    let mut frame = [&far[..], &[2, 0x66, 0, 0, 0, 2], if v6 { &[0x86, 0xdd] } else { &[8, 0] }].concat();
    let protocol = if tcp { 6 } else { 17 };
    let len = (payload + if tcp { 20 } else { 8 }) as u16;
    if v6 {
        let [h, l] = len.to_be_bytes();
        frame.extend([0x60, 0, 0, 0, h, l, protocol, 64]);
        frame.extend(weave_tests::world::v6(1).octets());
        frame.extend(weave_tests::world::v6(0).octets());
    } else {
        let [h, l] = (20 + len).to_be_bytes();
        frame.extend([0x45, 0, h, l, 0, index as u8, 0x40, 0, 64, protocol, 0, 0]);
        frame.extend(v4(1).octets());
        frame.extend(v4(0).octets());
    }
    frame.extend([0x90, 1, 0x90, 2]);
    if tcp {
        frame.extend((index * payload as u32).to_be_bytes());
        frame.extend([0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    } else {
        frame.extend(len.to_be_bytes());
        frame.extend([0, 0]);
    }
    frame.resize(frame.len() + payload, index as u8);
    let at = Transport::find(&frame).unwrap();
    if let Some(header) = at.ipv4_mut(&mut frame) {
        header.complete_checksum();
    }
    checksum::prepare(&mut frame, &at);
    frame
}

#[test]
fn no_frames_of_a_peer_make_an_offload_request_that_the_kernel_refuses() {
    let (world, routers) = world();
    let mut random = Random::from_environment();
    let mut insider = Insider::join(&world, name(1));
    insider.describe();
    let far = world.mac(0).0;
    let frame = segment(false, false, 0, 100, far);
    wait_until(
        WITHIN,
        || "nothing passes".into(),
        || {
            insider.frames.send_train(None, std::slice::from_ref(&frame));
            world.counter(0, "tap_writes") > 0
        },
    );
    let before = world.counter(0, "datagrams_received");
    let writes = world.counter(0, "tap_writes");
    let mut sent = 0;
    for _ in 0..1500 {
        let (v6, tcp) = (random.chance(400), random.chance(500));
        let payload = 1 + random.below(1000) as usize;
        let count = 2 + random.below(20) as u32;
        let mut frames: Vec<_> = (0..count).map(|index| segment(v6, tcp, index, payload, far)).collect();
        let request = Transport::find(&frames[0]).and_then(|at| at.checksum_request());
        let headers = frames[0].len() - payload;
        for frame in &mut frames {
            // Some of them do not say what the others say.
            while random.chance(150) {
                let at = 12 + random.below((headers - 12) as u64) as usize;
                frame[at] = random.number() as u8;
            }
        }
        sent += frames.len() as u64;
        insider.frames.send_train(request.filter(|_| random.chance(800)), &frames);
    }
    wait_until(
        WITHIN,
        || format!("{sent} sent; {:?}", numbered::all_drops(&world, 0)),
        || {
            let got = world.counter(0, "datagrams_received") - before;
            got + world.drops(0, "socket_full") >= sent
        },
    );
    let writes = world.counter(0, "tap_writes") - writes;
    println!("{sent} sent, {writes} written, dropped {:?}", numbered::all_drops(&world, 0));
    assert!(writes * 2 < sent, "hardly a frame was joined: this tests nothing");
    assert!(world.drops(0, "bad_offload") > 0, "no request was wrong: this tests nothing");
    assert_eq!(world.drops(0, "tap_error"), 0, "{:?}", numbered::all_drops(&world, 0));
    unharmed(&world, routers);
}
