//! Containers that send whatever a raw socket lets them.

use std::collections::HashSet;
use std::time::Duration;

use weave_tests::numbered::{self, Stream};
use weave_tests::packets::{Offload, PacketSocket};
use weave_tests::random::Random;
use weave_tests::world::{INTERFACE, v4, v6};
use weave_tests::{Options, World, wait_until};

const WITHIN: Duration = Duration::from_secs(15);
/// An EtherType for experiments (IEEE 802).
const EXPERIMENT: [u8; 2] = [0x88, 0xb5];
const MTU: usize = 1376;

/// Datagrams both ways, each of which must arrive once: nothing is left of the trouble.
#[track_caller]
fn works(world: &World, routers: [u32; 2]) {
    // Answers teach the bridges again where the containers are.
    world.wait_ping(1, v4(0).into(), WITHIN);
    world.wait_ping(0, v4(1).into(), WITHIN);
    world.wait_ping(0, v6(1).into(), WITHIN);
    // What was sent before may still be on its way.
    numbered::wait_calm(world, WITHIN);
    let streams = [(0, 1), (1, 0)].map(|(from, to)| Stream { from, to, v6: false, bytes: 900, rate: 2000 });
    numbered::send_complete(world, &streams, Duration::from_secs(1));
    for index in [0, 1] {
        assert_eq!(world.status(index).pid, routers[index], "router {index} is another one");
        assert!(world.link(index).is_some(), "router {index} has lost its link");
    }
}

fn world() -> (World, [u32; 2]) {
    let world = World::pair(Options::encrypted());
    let routers = [0, 1].map(|index| world.status(index).pid);
    works(&world, routers);
    (world, routers)
}

/// A frame to everybody from `source`.
fn broadcast(source: [u8; 6], body: &[u8]) -> Vec<u8> {
    [&[0xff; 6][..], &source, &EXPERIMENT, body].concat()
}

#[test]
fn a_container_that_takes_the_name_of_a_far_one_does_not_cut_it_off() {
    let (world, routers) = world();
    let far = world.mac(1).0;
    let socket = world.inside(0, || PacketSocket::open(INTERFACE));
    for number in 0..200_u64 {
        socket.send(&broadcast(far, &number.to_be_bytes().repeat(8))).unwrap();
    }
    // The far router knows whose address that is.
    wait_until(WITHIN, || "no frame is dropped as a loop".into(), || world.drops(1, "loop") >= 200);
    works(&world, routers);
}

#[test]
fn paced_a_flood_of_stations_costs_a_bounded_table_and_passes() {
    const FLOOD: u32 = 60_000;
    let (world, routers) = world();
    let before = [0, 1].map(|index| numbered::memory(&world, index));
    let socket = world.inside(0, || PacketSocket::open(INTERFACE));
    for number in 0..FLOOD {
        let [a, b, c, d] = number.to_be_bytes();
        // A full queue of the tap is the container's own trouble.
        let _ = socket.send(&broadcast([2, 66, a, b, c, d], &[0; 46]));
    }
    works(&world, routers);
    let status = world.status(1);
    // The router's own limit for one peer (weave-mesh), with the container itself.
    assert!(status.macs.len() > 1000, "only {} stations were learned", status.macs.len());
    assert!(status.macs.len() <= 4096 + 16, "{} stations of one peer", status.macs.len());
    for index in [0, 1] {
        let grown = numbered::memory(&world, index).saturating_sub(before[index]);
        println!("router {index} grew by {grown} bytes");
        assert!(grown < 16 << 20, "router {index} grew by {grown} bytes");
    }
}

#[test]
fn wild_offload_requests_of_a_container_harm_nobody_else() {
    let (world, routers) = world();
    let mut random = Random::from_environment();
    let [near, far] = [0, 1].map(|index| world.mac(index).0);
    let socket = world.inside(0, || PacketSocket::open(INTERFACE));
    let mut taken = 0;
    for round in 0..6000_u64 {
        let v6 = random.chance(300);
        let tcp = random.chance(500);
        let payload = random.below(20_000) as usize;
        let (l3, l4) = (if v6 { 40 } else { 20 }, if tcp { 20 } else { 8 });
        let mut frame = [&far[..], &near, if v6 { &[0x86, 0xdd] } else { &[8, 0] }].concat();
        let len = (l4 + payload) as u16;
        let protocol = if tcp { 6 } else { 17 };
        if v6 {
            let [h, l] = len.to_be_bytes();
            frame.extend([0x60, 0, 0, 0, h, l, protocol, 64]);
            frame.extend(weave_tests::world::v6(0).octets());
            frame.extend(weave_tests::world::v6(1).octets());
        } else {
            let [h, l] = (20 + len).to_be_bytes();
            frame.extend([0x45, 0, h, l, 0, 0, 0x40, 0, 64, protocol, 0, 0]);
            frame.extend(v4(0).octets());
            frame.extend(v4(1).octets());
            let sum = weave_tests::checksums::sum(&[&frame[14..34]]);
            frame[24..26].copy_from_slice(&(!sum).to_be_bytes());
        }
        frame.extend([0x90, 1, 0x90, 2]);
        frame.resize(14 + l3 + l4, 0);
        if tcp {
            frame[14 + l3 + 12] = 0x50;
        } else {
            frame[14 + l3 + 4..14 + l3 + 6].copy_from_slice(&len.to_be_bytes());
        }
        frame.resize(frame.len() + payload, round as u8);
        let right = Offload {
            flags: Offload::NEEDS_CSUM,
            gso_type: if tcp { if v6 { 4 } else { 1 } } else { 5 },
            hdr_len: (14 + l3 + l4) as u16,
            gso_size: 1 + random.below(1300) as u16,
            csum_start: (14 + l3) as u16,
            csum_offset: if tcp { 16 } else { 6 },
        };
        let mut offload = right;
        match random.below(8) {
            0 => offload.flags = random.number() as u8,
            1 => offload.gso_type = random.number() as u8,
            2 => offload.gso_size = random.number() as u16,
            3 => offload.csum_start = random.number() as u16,
            4 => offload.csum_offset = random.number() as u16,
            5 => offload.hdr_len = random.number() as u16,
            6 => {
                // Headers that do not say what the offload header says.
                let at = 14 + random.below((l3 + l4) as u64) as usize;
                frame[at] = random.number() as u8;
            }
            _ => {}
        }
        // The kernel takes what it can check, and refuses the rest.
        taken += u32::from(socket.send_offloaded(offload, &frame).is_ok());
    }
    println!("{taken} of 6000 taken; dropped {:?}", [0, 1].map(|index| numbered::all_drops(&world, index)));
    assert!(taken > 500, "the kernel took only {taken}");
    works(&world, routers);
}

#[test]
fn frames_of_any_content_arrive_as_they_were_sent() {
    const COUNT: u64 = 3000;
    let (world, routers) = world();
    for index in [0, 1] {
        // Where bridges call the packet filter, the kernel drops malformed IP by itself.
        world.on_host(index, || {
            for family in ["iptables", "ip6tables", "arptables"] {
                let _ = std::fs::write(format!("/proc/sys/net/bridge/bridge-nf-call-{family}"), "0");
            }
        });
    }
    let mut random = Random::from_environment();
    let [near, far] = [0, 1].map(|index| world.mac(index).0);
    let sender = world.inside(0, || PacketSocket::open(INTERFACE));
    let receiver = world.inside(1, || PacketSocket::open(INTERFACE));
    let mut seen = HashSet::new();
    let mut expected = Vec::new();
    for number in 0..COUNT {
        let ethertype =
            [[8, 0], [0x86, 0xdd], [8, 6], EXPERIMENT, [0x88, 0xcc], [0x90, 0]][random.below(6) as usize];
        let mut frame = [&far[..], &near, &ethertype].concat();
        let len = 60 + random.below((MTU + 14 - 60) as u64 + 1) as usize;
        while frame.len() < len {
            frame.extend(random.number().to_le_bytes());
        }
        frame.truncate(len);
        // Something like a header, so that parsers get further in.
        match ethertype {
            [8, 0] => frame[14..16].copy_from_slice(&[0x40 + random.below(16) as u8, 0]),
            [0x86, 0xdd] => frame[14] = 0x60,
            _ => {}
        }
        let protocol = if ethertype == [8, 0] { 23 } else { 20 };
        frame[protocol] = [6, 17, 1, 58][random.below(4) as usize];
        let end = frame.len();
        frame[end - 8..].copy_from_slice(&number.to_be_bytes());
        // A full queue on the way would be no fault.
        sender.send(&frame).unwrap();
        expected.push(frame);
        if number % 50 == 49 {
            while seen.len() <= number as usize {
                let found = receiver.receive_where(WITHIN, |got| {
                    let bytes = &got.bytes;
                    let tail = bytes.len().checked_sub(8).and_then(|at| bytes[at..].first_chunk());
                    let number = tail.map_or(u64::MAX, |tail| u64::from_be_bytes(*tail));
                    expected.get(number as usize) == Some(bytes)
                });
                let Some(found) = found else {
                    let lost: Vec<_> = (0..=number).filter(|n| !seen.contains(n)).collect();
                    let first = &expected[lost[0] as usize];
                    let drops = [0, 1].map(|index| numbered::all_drops(&world, index));
                    panic!(
                        "frames {lost:?} did not arrive; dropped {drops:?}; the first: {:02x?}",
                        &first[..64]
                    );
                };
                let number = u64::from_be_bytes(*found.bytes.last_chunk().unwrap());
                assert!(seen.insert(number), "frame {number} came twice");
            }
        }
    }
    works(&world, routers);
}
