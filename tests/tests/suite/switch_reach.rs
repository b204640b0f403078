//! Containers on two hosts reach each other as on one Ethernet switch.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use weave_host::bridge::BRIDGE;
use weave_host::tap::TAP;
use weave_tests::world::{Family, INTERFACE, addresses, v4, v6};
use weave_tests::{Options, PacketSocket, World, traffic, wait_until};

use crate::router_privileges::kill_keeper;

/// Time for a frame to arrive on a busy machine.
const WITHIN: Duration = Duration::from_secs(10);
/// An EtherType for local experiments (IEEE 802).
const OWN_TYPE: u16 = 0x88b5;
/// Ethernet header, bytes.
const HEADER: usize = 14;
const MTU: usize = 1376;

#[test]
fn sealed_over_ipv4_with_as_many_shards_as_cores() {
    everything_passes(Options::encrypted());
}

#[test]
fn sealed_over_ipv6_with_one_shard() {
    everything_passes(Options::encrypted().family(Family::V6).args("--shards 1"));
}

#[test]
fn sealed_with_four_shards_at_one_end_and_one_at_the_other() {
    everything_passes(Options::encrypted().args_of(0, "--shards 4").args_of(1, "--shards 1"));
}

#[test]
fn sealed_with_two_pinned_shards() {
    everything_passes(Options::encrypted().args("--cores 0,1"));
}

#[test]
fn clear_over_ipv4_with_two_shards() {
    everything_passes(Options::clear().args("--shards 2"));
}

#[test]
fn clear_over_ipv6_with_four_shards() {
    everything_passes(Options::clear().family(Family::V6).args("--shards 4"));
}

fn everything_passes(options: Options) {
    let world = World::pair(options);
    for from in [0, 1] {
        let to = 1 - from;
        for address in addresses(to) {
            world.wait_ping(from, address, WITHIN);
            tcp(&world, from, address);
            udp(&world, from, address);
        }
        broadcast(&world, from);
        multicast_v4(&world, from);
        multicast_v6(&world, from);
        own_ethertype(&world, from);
    }
    for index in [0, 1] {
        for reason in ["forged", "bad_offload", "loop", "source_peer", "malformed", "tap_error"] {
            assert_eq!(world.drops(index, reason), 0, "{reason} on host {index}");
        }
    }
}

fn tcp(world: &World, from: usize, address: IpAddr) {
    let listener = world.inside(1 - from, || TcpListener::bind((address, 0)).unwrap());
    let target = listener.local_addr().unwrap();
    let mut stream = world.inside(from, || TcpStream::connect_timeout(&target, WITHIN)).unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    for stream in [&stream, &accepted] {
        stream.set_read_timeout(Some(WITHIN)).unwrap();
    }
    let mut heard = [0; 5];
    stream.write_all(b"hello").unwrap();
    accepted.read_exact(&mut heard).unwrap();
    accepted.write_all(&heard).unwrap();
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"hello");
}

fn udp(world: &World, from: usize, address: IpAddr) {
    let receiver = world.inside(1 - from, || UdpSocket::bind((address, 0)).unwrap());
    let target = receiver.local_addr().unwrap();
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let sender = world.inside(from, || UdpSocket::bind((any, 0)).unwrap());
    sender.connect(target).unwrap();
    for length in [0, 1, 2, 512, MTU - 48] {
        let sent: Vec<u8> = (0..length).map(|i| i as u8).collect();
        sender.send(&sent).unwrap();
        let (heard, source) = receive(&receiver);
        assert_eq!(heard, sent, "{length} bytes to {address}");
        receiver.send_to(&heard, source).unwrap();
        assert_eq!(receive(&sender).0, sent);
    }
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    socket.set_read_timeout(Some(WITHIN)).unwrap();
    let mut buffer = [0; 2048];
    let (length, source) = socket.recv_from(&mut buffer).expect("a datagram");
    (buffer[..length].to_vec(), source)
}

fn broadcast(world: &World, from: usize) {
    let receiver = world.inside(1 - from, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap());
    let port = receiver.local_addr().unwrap().port();
    let sender = world.inside(from, || UdpSocket::bind((v4(from), 0)).unwrap());
    sender.set_broadcast(true).unwrap();
    sender.send_to(b"all", (Ipv4Addr::new(10, 32, 1, 255), port)).unwrap();
    assert_eq!(receive(&receiver), (b"all".to_vec(), sender.local_addr().unwrap()));
}

fn multicast_v4(world: &World, from: usize) {
    let group = Ipv4Addr::new(239, 1, 2, 3);
    let receiver = world.inside(1 - from, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap());
    receiver.join_multicast_v4(&group, &v4(1 - from)).unwrap();
    let port = receiver.local_addr().unwrap().port();
    let sender = world.inside(from, || UdpSocket::bind((v4(from), 0)).unwrap());
    sender.send_to(b"some", (group, port)).unwrap();
    assert_eq!(receive(&receiver), (b"some".to_vec(), sender.local_addr().unwrap()));
}

fn multicast_v6(world: &World, from: usize) {
    let index = |end: usize| world.inside(end, || nix::net::if_::if_nametoindex(INTERFACE).unwrap());
    // Site-local scope: these interfaces may have no link-local address to send from.
    let group: Ipv6Addr = "ff05::1:2:3".parse().unwrap();
    let receiver = world.inside(1 - from, || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap());
    receiver.join_multicast_v6(&group, index(1 - from)).unwrap();
    let port = receiver.local_addr().unwrap().port();
    let sender = world.inside(from, || UdpSocket::bind((v6(from), 0)).unwrap());
    sender.send_to(b"some", SocketAddrV6::new(group, port, 0, index(from))).unwrap();
    assert_eq!(receive(&receiver).0, b"some");
}

fn own_ethertype(world: &World, from: usize) {
    let receiver = open(world, 1 - from, OWN_TYPE);
    let sender = open(world, from, OWN_TYPE);
    for destination in
        [world.mac(1 - from).0, [0xff; 6], [0x01, 0x80, 0xc2, 0, 0, 0x99], [0x33, 0x33, 0, 0, 0, 9]]
    {
        let sent = frame(&destination, &world.mac(from).0, &OWN_TYPE.to_be_bytes(), 60);
        sender.send(&sent).unwrap();
        let heard = receiver.receive_where(WITHIN, |heard| heard.bytes == sent);
        assert!(heard.is_some(), "to {destination:x?} from container {from}");
    }
}

fn open(world: &World, end: usize, ethertype: u16) -> PacketSocket {
    world.inside(end, || PacketSocket::with_type(INTERFACE, ethertype))
}

/// A frame of `length` bytes; what follows the addresses begins with `kind`.
fn frame(destination: &[u8; 6], source: &[u8; 6], kind: &[u8], length: usize) -> Vec<u8> {
    let mut bytes = [destination, source, kind].concat();
    let filling = length.saturating_sub(bytes.len());
    bytes.extend((0..filling).map(|i| (i * 7 + length) as u8));
    bytes
}

/// Shorter frames with a tag the kernel drops before any bridge sees them: it wants two bytes
/// behind the tag and the type (`skb_vlan_untag`).
const TAGGED_MIN: usize = 20;
const TAGGED: [u8; 6] = [0x81, 0, 0x20, 10, 0x88, 0xb5];
const DOUBLY_TAGGED: [u8; 10] = [0x88, 0xa8, 0, 100, 0x81, 0, 0x20, 10, 0x88, 0xb5];

#[test]
fn frames_of_every_length_up_to_the_mtu_arrive_as_they_were_sent() {
    for options in [Options::encrypted(), Options::clear().family(Family::V6)] {
        let world = World::pair(options);
        for (kind, longest) in [
            (&OWN_TYPE.to_be_bytes()[..], HEADER + MTU),
            (&TAGGED[..], HEADER + MTU + 4),
            // A packet socket allows the extra bytes of a tag for 802.1Q alone.
            (&DOUBLY_TAGGED[..], HEADER + MTU),
        ] {
            // The outermost type: the kernel takes one tag out and still matches by it.
            let ethertype = u16::from_be_bytes([kind[0], kind[1]]);
            let lengths = (HEADER..=150).chain((151..longest - 40).step_by(97)).chain(longest - 40..=longest);
            for from in [0, 1] {
                let (sender, receiver) =
                    (open(&world, from, ethertype), open(&world, 1 - from, libc::ETH_P_ALL as u16));
                let shortest = if kind.len() == 2 { HEADER } else { TAGGED_MIN.max(12 + kind.len()) };
                for length in lengths.clone().filter(|length| *length >= shortest) {
                    let sent = frame(&world.mac(1 - from).0, &world.mac(from).0, kind, length);
                    sender.send(&sent).unwrap_or_else(|error| panic!("{length} bytes of {kind:x?}: {error}"));
                    let heard = receiver.receive_where(WITHIN, |heard| heard.bytes == sent);
                    assert!(heard.is_some(), "{length} bytes of {kind:x?} from container {from}");
                }
            }
        }
    }
}

#[test]
fn frames_over_the_mtu_are_refused_and_counted() {
    let world = World::pair(Options::encrypted());
    let (sender, receiver) = (open(&world, 0, OWN_TYPE), open(&world, 1, OWN_TYPE));
    let [source, destination] = [0, 1].map(|end| world.mac(end).0);
    let build = |length| frame(&destination, &source, &OWN_TYPE.to_be_bytes(), length);
    let error = sender.send(&build(HEADER + MTU + 5)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE), "{error}");

    // Somebody gives the interfaces a larger MTU than the network has: the router refuses. A keeper
    // would put it back meanwhile.
    kill_keeper(&world, 0);
    let outer = weave_host::attach::host_interface(world.container(0).namespace().id());
    for interface in [outer.as_str(), BRIDGE, TAP] {
        world.tool(0, &format!("ip link set {interface} mtu 1500"));
    }
    world.tool_inside(0, &format!("ip link set {INTERFACE} mtu 1500"));
    let before = world.drops(0, "frame_too_long");
    let longest = build(HEADER + MTU + 4);
    sender.send(&longest).unwrap();
    assert!(
        receiver.receive_where(WITHIN, |heard| heard.bytes == longest).is_some(),
        "the longest that may pass"
    );
    for length in [HEADER + MTU + 5, HEADER + 1500] {
        sender.send(&build(length)).unwrap();
    }
    wait_until(
        WITHIN,
        || format!("two frames too long are counted, not {}", world.drops(0, "frame_too_long") - before),
        || world.drops(0, "frame_too_long") == before + 2,
    );
    // What comes after them shows that they did not arrive.
    let last = build(100);
    sender.send(&last).unwrap();
    let next = receiver.receive_where(WITHIN, |heard| heard.bytes.len() != longest.len()).unwrap();
    assert_eq!(next.bytes, last);
}

#[test]
fn frames_shorter_than_a_header_are_refused() {
    let world = World::pair(Options::encrypted());
    let sender = open(&world, 0, OWN_TYPE);
    let error = sender.send(&[0xff; HEADER - 1]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
}

#[test]
fn interfaces_for_vlans_on_both_containers_carry_traffic() {
    let world = World::pair(Options::encrypted());
    let first = format!("ip link add link {INTERFACE} name inner type vlan id 10");
    let words: Vec<&str> = first.split_whitespace().collect();
    let tried = world.inside(0, || Command::new(words[0]).args(&words[1..]).output().unwrap());
    if String::from_utf8_lossy(&tried.stderr).contains("Unknown device type") {
        // Frames with tags are tested without it, see above and switch_checksums.
        eprintln!("not run: this kernel has no 8021q");
        return;
    }
    world.tool_inside(1, &first);
    for end in [0, 1] {
        for line in [
            "ip link set inner mtu 1372 up".to_owned(),
            format!("ip addr add 10.40.0.{}/24 dev inner", end + 1),
            format!("ip link add link {INTERFACE} name service type vlan proto 802.1ad id 100"),
            "ip link set service up".to_owned(),
            "ip link add link service name both type vlan id 20".to_owned(),
            "ip link set both mtu 1372 up".to_owned(),
            format!("ip addr add 10.41.0.{}/24 dev both", end + 1),
        ] {
            world.tool_inside(end, &line);
        }
    }
    for from in [0, 1] {
        for network in [40, 41] {
            let address: IpAddr = Ipv4Addr::new(10, network, 0, 2 - from as u8).into();
            world.wait_ping(from, address, WITHIN);
            traffic::tcp(&world, from, address, 1 << 20);
        }
    }
}
