//! What a router joins for its tap comes apart again exactly as it was sent.
//!
//! Bursts of odd frames of few flows, among them wrong checksums, padding, changed fields, gaps
//! and flags in the middle: the far kernel cuts super-frames before the container, so every frame
//! must be seen there byte for byte and in the order of its flow. A router that joined too much
//! (and so made a wrong checksum right, or lost a flag) is found.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use weave_host::ethtool::{self, GSO, TSO4, TSO6, USO};
use weave_tests::checksums::sum;
use weave_tests::packets::{Capture, Frame, PacketSocket};
use weave_tests::world::{Family, INTERFACE, addresses, v4};
use weave_tests::{Options, World, traffic};

const WITHIN: Duration = Duration::from_secs(10);
/// Frames sent at once.
const BURST: usize = 60;
/// Shortest frame of Ethernet, without its check sequence.
const PADDED: usize = 60;
/// Last byte of the destination's addresses. They are nobody's, so that no kernel answers.
const NOBODY: u8 = 0x77;

/// Reproducible numbers: xorshift64 (Marsaglia, 2003).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 20) as usize % limit
    }

    /// True once in `n` times.
    fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// One flow whose frames mostly fit together.
struct Flow {
    v4: bool,
    tcp: bool,
    port: u16,
    id: u16,
    sequence: u32,
    /// Payload of most frames.
    size: usize,
}

/// The next frame of `flow`, usually one that can be joined to the one before.
fn next_frame(flow: &mut Flow, random: &mut Random, macs: [[u8; 6]; 2]) -> Vec<u8> {
    let length = match random.below(12) {
        0 => random.below(flow.size + 1),
        1 => (flow.size + 1 + random.below(40)).min(1300),
        _ => flow.size,
    };
    let payload: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
    let mut flags = 0x10;
    let mut urgent = 0_u16;
    let mut acknowledged = 1_u32;
    if random.once_in(10) {
        // FIN, PSH, URG, ECE, CWR, or no ACK.
        flags = [0x11, 0x18, 0x30, 0x50, 0x90, 0x08][random.below(6)];
        urgent = if flags == 0x30 { 3 } else { 0 };
    }
    if random.once_in(30) {
        acknowledged += random.below(1000) as u32;
    }
    if random.once_in(30) {
        // A gap, or a repetition.
        flow.sequence = flow.sequence.wrapping_add(random.below(3000) as u32).wrapping_sub(1500);
    }
    let mut l4 = if flow.tcp {
        let options: &[u8] = if random.once_in(20) { &[1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 7] } else { &[] };
        let mut header = [flow.port.to_be_bytes(), 9_u16.to_be_bytes()].concat();
        header.extend(flow.sequence.to_be_bytes());
        header.extend(acknowledged.to_be_bytes());
        header.extend([((20 + options.len()) as u8 / 4) << 4, flags, 1, 0, 0, 0]);
        header.extend(urgent.to_be_bytes());
        header.extend(options);
        header
    } else {
        let mut header = [flow.port.to_be_bytes(), 9_u16.to_be_bytes()].concat();
        header.extend((8 + length as u16).to_be_bytes());
        header.extend([0, 0]);
        header
    };
    flow.sequence = flow.sequence.wrapping_add(length as u32);
    l4.extend(payload);
    let protocol = if flow.tcp { 6 } else { 17 };
    let (mut tos, mut ttl) = (0_u8, 64_u8);
    if random.once_in(20) {
        tos = [1, 2, 3, 0x10][random.below(4)];
    }
    if random.once_in(30) {
        ttl -= 1;
    }
    let addresses: Vec<u8> = if flow.v4 {
        vec![10, 32, 1, 1, 10, 32, 1, NOBODY]
    } else {
        let mut both = vec![0xfd, 0x32, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1];
        both.extend([0xfd, 0x32, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, NOBODY]);
        both
    };
    let field = if flow.tcp { 16 } else { 6 };
    let tail = [&(l4.len() as u32).to_be_bytes()[..], &[0, 0, 0, protocol]].concat();
    let mut right = !sum(&[&addresses, &tail, &l4]);
    if right == 0 && !flow.tcp {
        right = 0xffff;
    }
    let stated = match random.below(20) {
        0 => right ^ 0x0100,
        // None: allowed for UDP over IPv4, wrong everywhere else.
        1 => 0,
        _ => right,
    };
    l4[field..field + 2].copy_from_slice(&stated.to_be_bytes());
    let ip = if flow.v4 {
        ipv4(flow, random, &addresses, l4.len(), protocol, tos, ttl)
    } else {
        let label = if random.once_in(30) { 5 } else { 0 };
        let mut ip = vec![0x60 | tos >> 4, tos << 4, 0, label];
        ip.extend((l4.len() as u16).to_be_bytes());
        ip.extend([protocol, ttl]);
        ip.extend(&addresses);
        ip
    };
    let ethertype: [u8; 2] = if flow.v4 { [8, 0] } else { [0x86, 0xdd] };
    let mut frame = [&macs[1][..], &macs[0], &ethertype, &ip, &l4].concat();
    while frame.len() < PADDED {
        frame.push(0xee);
    }
    frame
}

fn ipv4(
    flow: &mut Flow,
    random: &mut Random,
    addresses: &[u8],
    l4: usize,
    protocol: u8,
    tos: u8,
    ttl: u8,
) -> Vec<u8> {
    if !random.once_in(20) {
        flow.id = flow.id.wrapping_add(1);
    }
    let options: &[u8] = if random.once_in(25) { &[1, 1, 1, 0] } else { &[] };
    let mut ip = vec![0x40 | ((20 + options.len()) as u8 / 4), tos];
    ip.extend(((20 + options.len() + l4) as u16).to_be_bytes());
    ip.extend(flow.id.to_be_bytes());
    ip.extend([if random.once_in(20) { 0x40 } else { 0 }, 0, ttl, protocol, 0, 0]);
    ip.extend(addresses);
    ip.extend(options);
    let mut checksum = !sum(&[&ip]);
    if random.once_in(25) {
        checksum ^= 1;
    }
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    ip
}

/// What must be equal: everything but the padding and, where fragments are forbidden, the
/// identification, which says nothing then (RFC 6864, 4.1) and is counted on by GSO.
fn essence(frame: &[u8]) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    let word = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    match word(12) {
        0x0800 => {
            bytes.truncate(14 + word(16));
            if frame[20] & 0x40 != 0 {
                let header = 14..14 + usize::from(frame[14] & 15) * 4;
                let sums_up = sum(&[&frame[header]]) == 0xffff;
                bytes[18..20].fill(0);
                bytes[24..26].fill(u8::from(sums_up));
            }
        }
        _ => bytes.truncate(14 + 40 + word(18)),
    }
    bytes
}

/// The frames of each flow, by family, protocol and source port, in their order.
fn by_flow<'a>(frames: impl Iterator<Item = &'a [u8]>) -> BTreeMap<(u16, u8, u16), Vec<Vec<u8>>> {
    let mut flows: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for frame in frames {
        let kind = u16::from_be_bytes([frame[12], frame[13]]);
        let (protocol, at) = match kind {
            0x0800 => (frame[23], 14 + usize::from(frame[14] & 15) * 4),
            _ => (frame[20], 54),
        };
        let port = u16::from_be_bytes([frame[at], frame[at + 1]]);
        flows.entry((kind, protocol, port)).or_default().push(essence(frame));
    }
    flows
}

fn comes_apart_as_it_was(options: Options, joins: bool, seeds: std::ops::Range<u64>) {
    let world = World::pair(options);
    for address in addresses(1) {
        world.wait_ping(0, address, WITHIN);
    }
    for end in [0, 1] {
        world.on_host(end, bridge_as_it_is);
    }
    cut_before(&world, 1);
    let sender = world.inside(0, || PacketSocket::open(INTERFACE));
    let receiver = world.inside(1, || PacketSocket::open(INTERFACE));
    let macs = [0, 1].map(|end| world.mac(end).0);
    let (mut frames, before) = (0, world.counter(1, "tap_writes"));
    for seed in seeds {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut flows: Vec<Flow> = (0..1 + random.below(3))
            .map(|number| Flow {
                v4: random.once_in(2),
                tcp: random.once_in(2),
                port: 1000 + number as u16,
                id: random.next() as u16,
                sequence: random.next() as u32,
                size: [1, 8, 100, 700, 1280][random.below(5)],
            })
            .collect();
        let sent: Vec<Vec<u8>> = (0..BURST)
            .map(|_| {
                let number = random.below(flows.len());
                next_frame(&mut flows[number], &mut random, macs)
            })
            .collect();
        for frame in &sent {
            sender.send(frame).unwrap();
        }
        let heard = collect(&receiver, sent.len());
        let (sent, heard) =
            (by_flow(sent.iter().map(Vec::as_slice)), by_flow(heard.iter().map(|f| f.bytes.as_slice())));
        for (flow, sent) in &sent {
            let none = Vec::new();
            let heard = heard.get(flow).unwrap_or(&none);
            let wrong = (0..sent.len().max(heard.len())).find(|at| sent.get(*at) != heard.get(*at));
            assert!(
                wrong.is_none(),
                "seed {seed}, flow {flow:x?}: {} sent, {} arrived, the first that differs is {wrong:?}\n\
                 sent:    {}\narrived: {}\n",
                sent.len(),
                heard.len(),
                hex(sent.get(wrong.unwrap())),
                hex(heard.get(wrong.unwrap())),
            );
        }
        assert_eq!(heard.len(), sent.len(), "seed {seed}: other flows arrived");
        frames += BURST as u64;
    }
    let writes = world.counter(1, "tap_writes") - before;
    if joins {
        assert!(
            writes < frames * 97 / 100,
            "{writes} writes of {frames} frames: nothing was joined, nothing tested"
        );
    }
}

/// Makes the kernel cut super-frames and finish checksums before the container of host `end`.
fn cut_before(world: &World, end: usize) {
    let outer = weave_host::attach::host_interface(world.container(end).namespace().id());
    let off = ["tx-checksum-ip-generic", TSO4, TSO6, USO, GSO].map(|name| (name, false));
    world.on_host(end, || ethtool::set_features(&outer, &off)).unwrap();
}

/// Keeps the packet filter of the host out of its bridge: it drops packets whose IP header is
/// wrong (`br_netfilter`, where the kernel has it).
fn bridge_as_it_is() {
    for family in ["ip", "ip6"] {
        let _ = std::fs::write(format!("/proc/sys/net/bridge/bridge-nf-call-{family}tables"), "0");
    }
}

fn hex(frame: Option<&Vec<u8>>) -> String {
    frame.map_or_else(|| "none".into(), |frame| frame.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// As many frames of our flows as were sent, or those that came in time.
fn collect(receiver: &PacketSocket, count: usize) -> Vec<Frame> {
    let mut heard = Vec::new();
    // By the last byte of the destination's address.
    let is_ours = |frame: &Frame| match frame.bytes[12..14] {
        [8, 0] => frame.bytes[33] == NOBODY,
        [0x86, 0xdd] => frame.bytes[53] == NOBODY,
        _ => false,
    };
    while heard.len() < count {
        let Some(frame) = receiver.receive_where(Duration::from_secs(2), is_ours) else { break };
        heard.push(frame);
    }
    heard
}

#[test]
fn sealed_with_one_shard() {
    comes_apart_as_it_was(Options::encrypted().args("--shards 1"), true, 1..200);
}

#[test]
fn clear_with_two_shards_over_ipv6() {
    comes_apart_as_it_was(Options::clear().family(Family::V6).args("--shards 2"), true, 200..400);
}

#[test]
fn without_offloads_to_the_tap() {
    comes_apart_as_it_was(Options::encrypted().args("--offload no-tso,no-uso"), false, 400..500);
}

#[test]
fn with_datagrams_that_come_one_by_one() {
    comes_apart_as_it_was(Options::encrypted().args("--offload no-gso,no-gro"), false, 500..600);
}

/// Fragments of two packets with one identification would be mixed up (RFC 791, 3.2).
#[test]
fn segments_that_may_be_fragmented_have_identifications_of_their_own() {
    for options in [Options::encrypted(), Options::encrypted().args("--offload no-uso,no-gso")] {
        let world = World::pair(options);
        let may_fragment = || std::fs::write("/proc/sys/net/ipv4/ip_no_pmtu_disc", "1").unwrap();
        world.inside(0, may_fragment);
        cut_before(&world, 1);
        let capture = world.inside(1, || Capture::start(INTERFACE));
        // One send: the kernel counts on by one from send to send, whatever the number of segments.
        traffic::udp_batches(&world, 0, v4(1).into(), 1000, 1);
        let frames = capture.finish();
        let datagrams =
            frames.iter().filter(|f| !f.outgoing && f.bytes[12..14] == [8, 0] && f.bytes[23] == 17);
        let mut identifications = BTreeSet::new();
        let mut count = 0;
        for frame in datagrams {
            assert_eq!(frame.bytes[20] & 0x40, 0, "these were to be allowed to be fragmented");
            identifications.insert(u16::from_be_bytes([frame.bytes[18], frame.bytes[19]]));
            count += 1;
        }
        assert!(count > 50, "only {count} datagrams");
        assert_eq!(identifications.len(), count, "identifications are shared");
    }
}
