//! A container that floods the switch: everybody else goes on, and memory stays bounded.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use weave_host::netlink::LEARNED_MAX;
use weave_host::tap::TAP;
use weave_tests::flood::Flood;
use weave_tests::flow::{Flow, Flowed};
use weave_tests::packets::{Offload, PacketSocket};
use weave_tests::raw::{ROOM, RawSocket};
use weave_tests::world::{INTERFACE, Spot, is_release, v4};
use weave_tests::{Options, Pings, World, checksums, numbered, wait_until};
use weave_wire::MacAddr;

const WITHIN: Duration = Duration::from_secs(15);
/// Stations of one peer that a router keeps (weave-mesh), with those that are attached.
const STATIONS_MAX: usize = 4096 + 16;
/// What a router may grow by.
const GROWTH_MAX: u64 = 16 << 20;
/// Pings and datagrams a second.
const RATE: u32 = 100;
/// A station that nobody has.
const NOBODY: MacAddr = MacAddr([2, 0xfe, 0, 0, 0, 1]);

/// Where the bystanders are: on the host of the flood, and on the two others.
const NEAR: Spot = Spot { host: 0, number: 1 };
const FAR: [Spot; 2] = [Spot { host: 1, number: 0 }, Spot { host: 2, number: 0 }];

/// What goes on while a container floods.
struct Bystanders {
    /// Between the hosts that the flood comes to.
    pings: Pings,
    /// Between the same, one way.
    others: Flow,
    /// To the host that the flood comes from.
    toward: Flow,
    /// From the host that the flood comes from.
    beside: Flow,
    /// On the third host: what is for the container on the second.
    third: RawSocket,
    before: [u64; 3],
}

impl Bystanders {
    fn start(world: &World) -> Self {
        let [one, other] = FAR.map(|spot| world.container_at(spot));
        let address = |spot: Spot| IpAddr::from(spot.v4());
        world.wait_ping(1, v4(2).into(), WITHIN);
        let pings = Pings::start(one, other, address(FAR[1]), RATE);
        let near = world.container_at(NEAR);
        let flow = |from, to, spot| Flow::start(from, to, address(spot), RATE);
        let (others, toward) = (flow(one, other, FAR[1]), flow(other, near, NEAR));
        let beside = flow(near, one, FAR[0]);
        let began = Instant::now();
        pings.wait_answer(began, WITHIN, "pings between the others");
        others.wait_passes(began, WITHIN, "datagrams between the others");
        toward.wait_passes(began, WITHIN, "datagrams to the host of the flood");
        beside.wait_passes(began, WITHIN, "datagrams from the host of the flood");
        let station = world.mac(1);
        let third = world.on_host(2, || RawSocket::open_for(TAP, station));
        Self {
            pings,
            others,
            toward,
            beside,
            third,
            before: [0, 1, 2].map(|index| numbered::memory(world, index)),
        }
    }

    /// Ends them and judges what became of them.
    #[track_caller]
    fn judge(self, world: &World, most: Losses) {
        let strays = strays(&self.third);
        let share = |flowed: &Flowed| flowed.lost().len() as f64 / flowed.sent.len() as f64;
        let mut judged = Vec::new();
        for (what, flowed, most) in [
            ("pings between other hosts", self.pings.finish(), most.others),
            ("datagrams between other hosts", self.others.finish(), most.others),
            ("datagrams to the host of the flood", self.toward.finish(), most.toward),
            ("datagrams from the host of the flood", self.beside.finish(), most.beside),
        ] {
            println!("{what}: {:.4} lost of {}", share(&flowed), flowed.sent.len());
            judged.push((share(&flowed) <= most, what, flowed));
        }
        assert_eq!(strays, 0, "frames for a station that is known were shown to the third host");
        for (within, what, flowed) in judged {
            assert!(within, "{what}: {flowed:?}");
        }
        for (index, before) in self.before.into_iter().enumerate() {
            let grown = numbered::memory(world, index).saturating_sub(before);
            println!("router {index} grew by {grown} bytes");
            assert!(grown < GROWTH_MAX, "router {index} grew by {grown} bytes");
            let stations = world.status(index).macs.len();
            assert!(stations <= STATIONS_MAX, "router {index} knows {stations} stations");
        }
    }
}

/// Which shares may be lost.
///
/// All hosts of a test share the cores of one machine, on which the flood takes what it gets: of a test
/// build it is more than all there is, and a socket that overflows loses what comes with it. What
/// goes out beside the flood waits for the same queue of the tap, which is the kernel's.
struct Losses {
    others: f64,
    toward: f64,
    beside: f64,
}

/// A share for a release, or for a test build.
fn of_build(release: f64, test: f64) -> f64 {
    if is_release() { release } else { test }
}

/// Frames that came to a socket; none escaped it.
#[track_caller]
fn strays(socket: &RawSocket) -> usize {
    let mut room = [0; ROOM];
    let count = std::iter::from_fn(|| socket.receive(&mut room).map(|_| ())).count();
    assert_eq!(socket.lost(), 0, "the capture lost frames");
    count
}

/// Three hosts, of which the first has a container beside that which floods.
fn world() -> World {
    let world = World::new(Options::encrypted().count(3).containers(2));
    for (from, to) in [(1, 2), (0, 1), (0, 2)] {
        world.wait_ping(from, v4(to).into(), WITHIN);
    }
    world
}

/// Drops of host 0 as `weave status -o json` shows them.
#[track_caller]
fn shown_drops(world: &World, reason: &str) -> u64 {
    let ran = world.weave(0, &["status", "-o", "json"]).ok();
    let status: Value = serde_json::from_str(&ran.stdout).unwrap();
    let shards = status["shards"].as_array().unwrap();
    shards.iter().map(|shard| shard["drops"][reason].as_u64().expect("no such reason to drop")).sum()
}

#[test]
fn a_frame_for_nobody_known_is_seen_by_the_third_host() {
    // What the tests below see none of can be seen.
    let world = world();
    let third = world.on_host(2, || RawSocket::open_for(TAP, NOBODY));
    let near = world.mac(0);
    let socket = world.inside(0, || PacketSocket::open(INTERFACE));
    socket.send(&[&NOBODY.0[..], &near.0, &[0x88, 0xb5], &[0; 46]].concat()).unwrap();
    wait_until(WITHIN, || "the flooded frame was not seen".into(), || strays(&third) == 1);
}

#[test]
fn alone_a_broadcast_storm_leaves_others_in_peace() {
    const TIME: Duration = Duration::from_secs(4);
    let world = world();
    let bystanders = Bystanders::start(&world);
    let source = world.mac(0).0;
    let arrived = || world.counter(1, "datagrams_received");
    let before = arrived();
    let began = Instant::now();
    let flood = Flood::start(&world, 0, move |_| source);
    std::thread::sleep(TIME);
    let sent = flood.finish();
    let rate = (arrived() - before) as f64 / began.elapsed().as_secs_f64();
    println!("{sent} frames offered, {rate:.0} a second arrived");
    assert!(sent > 100_000, "no storm: {sent} frames in {TIME:?}");
    bystanders
        .judge(&world, Losses { others: of_build(0.01, 0.1), toward: of_build(0.02, 0.1), beside: 0.3 });
    // The rate of one source, its burst, and what the bystanders send.
    assert!(rate < 24_000.0, "{rate:.0} frames a second arrived");
    assert!(shown_drops(&world, "storm_source") > 0, "{:?}", numbered::all_drops(&world, 0));
}

#[test]
fn alone_a_million_addresses_cost_a_bounded_table_and_nobody_else() {
    const ADDRESSES: u64 = 1_000_000;
    const LIMIT: Duration = Duration::from_secs(60);
    let world = world();
    let bystanders = Bystanders::start(&world);
    let flood = Flood::start(&world, 0, |number| {
        let [.., a, b, c] = number.to_be_bytes();
        [2, 66, 0, a, b, c]
    });
    wait_until(LIMIT, || format!("{} frames sent", flood.sent()), || flood.sent() >= ADDRESSES);
    let sent = flood.finish();
    let drops = world.indices().into_iter().map(|index| numbered::all_drops(&world, index));
    println!("{sent} frames offered; dropped {:?}", drops.collect::<Vec<_>>());
    bystanders
        .judge(&world, Losses { others: of_build(0.05, 0.7), toward: of_build(0.05, 0.7), beside: 0.7 });
    for index in [1, 2] {
        let replaced = world.status(index).counters["mac_replaced"];
        assert!(replaced > 1000, "{replaced} stations of host {index} made room for others");
    }
    for index in world.indices() {
        let known = world.tool(index, "bridge fdb show br weave").lines().count();
        assert!(known <= LEARNED_MAX as usize + 100, "the bridge of host {index} knows {known} stations");
    }
}

#[test]
fn paced_super_frames_of_many_addresses_pass_at_the_rate_of_all() {
    const SUPER_FRAMES: u32 = 10_000;
    const SEGMENTS: usize = 64;
    let world = world();
    let bystanders = Bystanders::start(&world);
    let socket = world.inside(0, || PacketSocket::open(INTERFACE));
    let (began, before) = (Instant::now(), world.counter(1, "datagrams_received"));
    for number in 0..SUPER_FRAMES {
        let [a, b, c, d] = number.to_be_bytes();
        let (offload, frame) = super_frame([2, 66, a, b, c, d], SEGMENTS);
        // What the kernel has no room for is the container's own trouble.
        let _ = socket.send_offloaded(offload, &frame);
    }
    let shown = || format!("no storm: {:?}", numbered::all_drops(&world, 0));
    wait_until(WITHIN, shown, || shown_drops(&world, "storm_total") > 0);
    bystanders
        .judge(&world, Losses { others: of_build(0.05, 0.7), toward: of_build(0.05, 0.7), beside: 0.7 });
    let arrived = world.counter(1, "datagrams_received") - before;
    // With the burst, the super-frame that makes the debt, and what the bystanders send.
    let most = 100_000.0 * (began.elapsed().as_secs_f64() + 0.1) + 1_000.0;
    assert!((arrived as f64) < most, "{arrived} arrived, {most:.0} may");
}

/// A super-frame of UDP for everybody, and what is to be done to it.
fn super_frame(source: [u8; 6], segments: usize) -> (Offload, Vec<u8>) {
    const PAYLOAD: usize = 64;
    let len = 8 + segments * PAYLOAD;
    let mut frame = [&[0xff; 6][..], &source, &[8, 0, 0x45, 0]].concat();
    frame.extend((20 + len as u16).to_be_bytes());
    frame.extend([0, 1, 0x40, 0, 64, 17, 0, 0]);
    frame.extend(v4(0).octets());
    frame.extend([255; 4]);
    let sum = checksums::sum(&[&frame[14..34]]);
    frame[24..26].copy_from_slice(&(!sum).to_be_bytes());
    frame.extend([0x90, 1, 0x90, 2]);
    frame.extend((len as u16).to_be_bytes());
    frame.extend([0, 0]);
    frame.resize(34 + len, 7);
    let offload = Offload {
        flags: Offload::NEEDS_CSUM,
        gso_type: 5,
        hdr_len: 42,
        gso_size: PAYLOAD as u16,
        csum_start: 34,
        csum_offset: 6,
    };
    (offload, frame)
}
