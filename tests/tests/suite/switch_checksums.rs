//! A capture in the far container shows only correct checksums, and what was sent arrives byte
//! for byte, whatever parts of the offloads are on.

use weave_host::ethtool;
use weave_tests::checksums::{Checked, check};
use weave_tests::packets::{Capture, Frame, Offload};
use weave_tests::traffic;
use weave_tests::world::{Family, INTERFACE, v4, v6};
use weave_tests::{Options, PacketSocket, World};

/// Bytes of each TCP stream.
const STREAM: usize = 2 << 20;
/// What every capture must hold.
const KINDS: [&str; 9] =
    ["ip", "tcp4", "tcp6", "udp4", "udp6", "icmp4", "icmp6", "fragmented udp4", "fragmented udp6"];

/// Everything both ways; what came in at each container.
fn exchange(world: &World) -> [Checked; 2] {
    let captures = [0, 1].map(|end| world.inside(end, || Capture::start(INTERFACE)));
    traffic::everything(world, STREAM);
    captures.map(|capture| {
        let frames: Vec<Frame> = capture.finish().into_iter().filter(|frame| !frame.outgoing).collect();
        check(&frames)
    })
}

fn all_right(world: &World) -> [Checked; 2] {
    let checked = exchange(world);
    for (end, checked) in checked.iter().enumerate() {
        assert!(
            checked.wrong.is_empty(),
            "container {end}: {} wrong, {:?} right:\n{}",
            checked.wrong.len(),
            checked.right,
            checked.wrong.iter().take(10).cloned().collect::<Vec<_>>().join("\n")
        );
        for kind in KINDS.iter().chain(&["fragmented icmp4", "fragmented icmp6"]) {
            assert!(
                checked.right.contains_key(*kind),
                "no {kind} came to container {end}: {:?}",
                checked.right
            );
        }
    }
    checked
}

/// Switches what a container's kernel leaves to its interface.
fn sender_offloads(world: &World, on: bool) {
    for end in [0, 1] {
        let features = ["tx-checksum-ip-generic", ethtool::TSO4, ethtool::TSO6, ethtool::USO, ethtool::GSO];
        let wanted = features.map(|feature| (feature, on));
        world.inside(end, || ethtool::set_features(INTERFACE, &wanted)).unwrap();
        let now = world.inside(end, || ethtool::features(INTERFACE)).unwrap();
        assert!(wanted.iter().all(|(feature, on)| now[*feature] == *on), "{now:?}");
    }
}

/// Makes the kernel finish every checksum before a frame gets to a container.
fn finish_before_the_container(world: &World) {
    for end in [0, 1] {
        let outer = weave_host::attach::host_interface(world.container(end).namespace().id());
        world.on_host(end, || ethtool::set_features(&outer, &[("tx-checksum-ip-generic", false)])).unwrap();
    }
}

#[test]
fn with_every_offload_sums_are_left_to_the_receiver_and_right() {
    let world = World::pair(Options::encrypted());
    let checked = all_right(&world);
    // Otherwise this test would see nothing of the fast path.
    assert!(checked.iter().all(|checked| checked.unfinished > 0), "{checked:?}");
}

#[test]
fn what_the_far_kernel_makes_of_the_request_is_right() {
    let world = World::pair(Options::encrypted());
    finish_before_the_container(&world);
    let checked = all_right(&world);
    assert!(checked.iter().all(|checked| checked.unfinished == 0), "{checked:?}");
}

#[test]
fn senders_without_offloads() {
    let world = World::pair(Options::encrypted().family(Family::V6));
    sender_offloads(&world, false);
    all_right(&world);
    finish_before_the_container(&world);
    all_right(&world);
}

#[test]
fn a_clear_network_carries_finished_checksums() {
    let world = World::pair(Options::clear());
    let underlay = world.on_host(0, || Capture::start(weave_perf::lab::UNDERLAY));
    all_right(&world);
    let inner = inner_frames(&underlay.finish());
    let checked = check(&inner);
    assert!(checked.wrong.is_empty(), "{} on the wire: {:#?}", checked.wrong.len(), &checked.wrong[..1]);
    for kind in ["tcp4", "tcp6", "udp4", "udp6", "icmp4", "icmp6"] {
        assert!(checked.right.contains_key(kind), "no {kind} was seen on the wire: {:?}", checked.right);
    }
    finish_before_the_container(&world);
    all_right(&world);
}

/// The frames inside clear datagrams of the mesh, as they cross the underlay over IPv4.
fn inner_frames(outer: &[Frame]) -> Vec<Frame> {
    /// Ethernet, IPv4, UDP.
    const HEADERS: usize = 14 + 20 + 8;
    /// Outer and inner header, docs/wire.md.
    const OURS: usize = 16 + 16;
    let mut inner = Vec::new();
    for frame in outer {
        let bytes = &frame.bytes;
        let is_udp = bytes.get(12..14) == Some(&[8, 0]) && bytes.get(23) == Some(&17);
        if !is_udp {
            continue;
        }
        let datagrams = &bytes[HEADERS..];
        let size = usize::from(frame.offload.gso_size);
        for datagram in datagrams.chunks(if size == 0 { datagrams.len().max(1) } else { size }) {
            // Heartbeats and keep-alives are sealed, and shorter.
            if let Some(bytes) = datagram.get(OURS..).filter(|bytes| bytes.len() >= 42) {
                let bytes = bytes.to_vec();
                if matches!(bytes[12..14], [0x08, 0x00] | [0x86, 0xdd]) {
                    inner.push(Frame { bytes, offload: Offload::default(), outgoing: frame.outgoing });
                }
            }
        }
    }
    inner
}

#[test]
fn long_without_gso() {
    all_right(&World::pair(Options::encrypted().args("--offload no-gso")));
}

#[test]
fn long_without_gro() {
    all_right(&World::pair(Options::encrypted().args("--offload no-gro")));
}

#[test]
fn long_without_uso() {
    all_right(&World::pair(Options::encrypted().args("--offload no-uso")));
}

#[test]
fn long_without_tso() {
    all_right(&World::pair(Options::encrypted().args("--offload no-tso")));
}

#[test]
fn without_any_offload_sealed_and_clear() {
    for options in [Options::encrypted(), Options::clear()] {
        all_right(&World::pair(options.args("--offload no-gso,no-gro,no-uso,no-tso")));
    }
}

#[test]
fn long_with_offloads_at_one_end_only() {
    let world = World::pair(Options::encrypted().args_of(1, "--offload no-gso,no-gro,no-uso,no-tso"));
    all_right(&world);
    finish_before_the_container(&world);
    all_right(&world);
}

#[test]
fn tagged_super_frames_arrive_whole_and_right() {
    for options in
        [Options::encrypted(), Options::clear(), Options::encrypted().args("--offload no-tso,no-uso")]
    {
        let world = World::pair(options);
        for address in [v4(1).into(), v6(1).into()] {
            world.wait_ping(0, address, traffic::WITHIN);
        }
        let sender = world.inside(0, || PacketSocket::open(INTERFACE));
        for tags in [&[][..], &[0x81, 0, 0, 10], &[0x88, 0xa8, 0, 100, 0x81, 0, 0, 10]] {
            for is_v4 in [true, false] {
                for is_tcp in [true, false] {
                    let what = format!("tags {tags:x?}, IPv4 {is_v4}, TCP {is_tcp}");
                    let (offload, frame, payload) = super_frame(&world, tags, is_v4, is_tcp);
                    let capture = world.inside(1, || Capture::start(INTERFACE));
                    sender.send_offloaded(offload, &frame).unwrap_or_else(|error| panic!("{what}: {error}"));
                    let mark = frame[14..].len();
                    let end =
                        [&world.mac(1).0[..], &world.mac(0).0, &0x88b5_u16.to_be_bytes(), &[mark as u8; 46]];
                    let (end, heard) =
                        (end.concat(), world.inside(1, || PacketSocket::with_type(INTERFACE, 0x88b5)));
                    sender.send(&end).unwrap();
                    assert!(
                        heard.receive_where(traffic::WITHIN, |frame| frame.bytes == end).is_some(),
                        "{what}"
                    );
                    // Another flow, perhaps another shard: what came behind is no proof for it.
                    std::thread::sleep(std::time::Duration::from_millis(50));
                    let headers = frame.len() - payload.len();
                    let frames: Vec<Frame> = capture
                        .finish()
                        .into_iter()
                        .filter(|heard| !heard.outgoing && is_of(heard, &frame, tags.len()))
                        .collect();
                    let arrived: Vec<u8> =
                        frames.iter().flat_map(|heard| heard.bytes[headers..].to_vec()).collect();
                    assert!(arrived == payload, "{what}: {} of {} bytes", arrived.len(), payload.len());
                    let checked = check(&frames);
                    assert!(checked.wrong.is_empty(), "{what}: {:#?}", checked.wrong);
                }
            }
        }
    }
}

/// Whether a frame has the same addresses, tags and type as the one that was sent.
fn is_of(heard: &Frame, sent: &[u8], tags: usize) -> bool {
    heard.bytes.get(..14 + tags) == sent.get(..14 + tags) && heard.bytes.len() > 14 + tags + 40 + 20
}

/// Ten segments of TCP or UDP in one frame, the checksum left to be finished.
fn super_frame(world: &World, tags: &[u8], is_v4: bool, is_tcp: bool) -> (Offload, Vec<u8>, Vec<u8>) {
    const SEGMENT: u16 = 1200;
    let payload = traffic::pattern(usize::from(SEGMENT) * 10 - 7, 5);
    let header: &[u8] = if is_tcp {
        &[0x30, 0, 0x40, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0]
    } else {
        &[0x30, 0, 0x40, 0, 0, 0, 0, 0]
    };
    let protocol = if is_tcp { 6 } else { 17 };
    let length = header.len() + payload.len();
    let addresses = if is_v4 {
        [v4(0).octets().to_vec(), v4(1).octets().to_vec()].concat()
    } else {
        [v6(0).octets().to_vec(), v6(1).octets().to_vec()].concat()
    };
    let mut transport = [header, &payload].concat();
    if !is_tcp {
        transport[4..6].copy_from_slice(&(length as u16).to_be_bytes());
    }
    let field = if is_tcp { 16 } else { 6 };
    let pseudo =
        weave_tests::checksums::sum(&[&addresses, &(length as u32).to_be_bytes(), &[0, 0, 0, protocol]]);
    transport[field..field + 2].copy_from_slice(&pseudo.to_be_bytes());
    let ip = if is_v4 {
        let mut ip = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, protocol, 0, 0];
        ip[2..4].copy_from_slice(&((length + 20) as u16).to_be_bytes());
        ip.extend(&addresses);
        let checksum = !weave_tests::checksums::sum(&[&ip]);
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        ip
    } else {
        let mut ip = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
        ip[4..6].copy_from_slice(&(length as u16).to_be_bytes());
        ip.extend(&addresses);
        ip
    };
    let ethertype: [u8; 2] = if is_v4 { [8, 0] } else { [0x86, 0xdd] };
    let ethernet = [&world.mac(1).0[..], &world.mac(0).0, tags, &ethertype].concat();
    let start = ethernet.len() + ip.len();
    let offload = Offload {
        flags: Offload::NEEDS_CSUM,
        gso_type: match (is_tcp, is_v4) {
            (true, true) => 1,
            (true, false) => 4,
            (false, _) => 5,
        },
        hdr_len: (start + header.len()) as u16,
        gso_size: SEGMENT,
        csum_start: start as u16,
        csum_offset: field as u16,
    };
    (offload, [ethernet, ip, transport].concat(), payload)
}
