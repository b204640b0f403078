//! Several containers on one switch: each frame goes where its station is, and nowhere else.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

use weave_api::status::MacSource;
use weave_host::Netlink;
use weave_perf::lab::{Container, UNDERLAY};
use weave_perf::traffic::icmp;
use weave_tests::packets::Capture;
use weave_tests::world::{INTERFACE, v4};
use weave_tests::{Options, PacketSocket, World, wait_until};
use weave_wire::MacAddr;

const WITHIN: Duration = Duration::from_secs(10);
const DATAGRAMS: usize = 500;
/// An EtherType for local experiments (IEEE 802).
const OWN_TYPE: u16 = 0x88b5;

/// The address of the second container of a host.
fn second(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 32, 1, 101 + host as u8)
}

fn attach_second(world: &World, host: usize) -> Container {
    let container = world.lab().container(&format!("second{host}")).unwrap();
    world.weave(host, &["attach", &format!("{}/24", second(host)), container.spec()]).ok();
    container
}

fn mac(container: &Container) -> MacAddr {
    let mut netlink = Netlink::in_namespace(container.namespace()).unwrap();
    netlink.expect_link(INTERFACE).unwrap().mac.unwrap()
}

fn reaches(from: &Container, to: Ipv4Addr) -> bool {
    from.run(|| icmp::wait_reachable(to.into(), WITHIN)).unwrap().unwrap()
}

#[test]
fn every_container_reaches_every_other_and_the_status_says_where_each_is() {
    let world = World::pair(Options::encrypted());
    let seconds = [0, 1].map(|host| attach_second(&world, host));
    let all = [
        (world.container(0), v4(0), 0),
        (&seconds[0], second(0), 0),
        (world.container(1), v4(1), 1),
        (&seconds[1], second(1), 1),
    ];
    for (from, _, _) in &all {
        for (_, address, _) in &all {
            assert!(reaches(from, *address), "no way to {address}");
        }
    }
    let names = [0, 1].map(|host| world.status(host).name);
    for host in [0, 1] {
        for (container, address, home) in &all {
            let mac = mac(container);
            let says = || world.status(host).macs.into_iter().find(|entry| entry.mac == mac);
            wait_until(
                WITHIN,
                || format!("host {host} does not know where {address} is: {:?}", world.status(host).macs),
                // The host it is attached to says so to all others.
                || {
                    says().is_some_and(|entry| {
                        entry.peer == names[*home] && entry.source == MacSource::Attached
                    })
                },
            );
        }
    }
}

#[test]
fn what_stays_on_one_host_does_not_cross_the_underlay() {
    let world = World::pair(Options::clear());
    let neighbour = attach_second(&world, 0);
    assert!(reaches(world.container(0), second(0)));
    assert!(reaches(world.container(0), v4(1)));
    let mark = b"for the neighbour alone";
    let receiver = neighbour.run(|| UdpSocket::bind((second(0), 0)).unwrap()).unwrap();
    receiver.set_read_timeout(Some(WITHIN)).unwrap();
    let sender = world.inside(0, || UdpSocket::bind((v4(0), 0)).unwrap());
    let capture = world.on_host(0, || Capture::start(UNDERLAY));
    let before = world.link(0).unwrap().tx_frames;
    for _ in 0..DATAGRAMS {
        sender.send_to(mark, receiver.local_addr().unwrap()).unwrap();
        assert_eq!(receiver.recv(&mut [0; 100]).unwrap(), mark.len());
    }
    // One to the other host, which is seen: the capture sees what crosses.
    let control = b"for the far container";
    let far = world.inside(1, || UdpSocket::bind((v4(1), 0)).unwrap());
    far.set_read_timeout(Some(WITHIN)).unwrap();
    sender.send_to(control, far.local_addr().unwrap()).unwrap();
    assert_eq!(far.recv(&mut [0; 100]).unwrap(), control.len());
    let frames = capture.finish();
    let holding = |needle: &[u8]| {
        frames.iter().filter(|frame| frame.bytes.windows(needle.len()).any(|part| part == needle)).count()
    };
    assert_eq!((holding(mark), holding(control)), (0, 1));
    let sent = world.link(0).unwrap().tx_frames - before;
    assert!(sent < 50, "{sent} frames went to the other host");
}

#[test]
fn broadcasts_reach_every_container_once() {
    let world = World::pair(Options::encrypted());
    let seconds = [0, 1].map(|host| attach_second(&world, host));
    assert!(reaches(&seconds[0], second(1)));
    let all = [world.container(0), &seconds[0], world.container(1), &seconds[1]];
    let sockets =
        all.map(|container| container.run(|| PacketSocket::with_type(INTERFACE, OWN_TYPE)).unwrap());
    let macs = all.map(mac);
    for (from, source) in macs.iter().enumerate() {
        for number in 0..20_u8 {
            let frame = [&[0xff; 6][..], &source.0, &OWN_TYPE.to_be_bytes(), &[number; 50]].concat();
            sockets[from].send(&frame).unwrap();
        }
        for (to, socket) in sockets.iter().enumerate().filter(|(to, _)| *to != from) {
            for number in 0..20_u8 {
                let heard = socket.receive_where(WITHIN, |_| true);
                let numbers = heard.map(|frame| (frame.bytes[6..12].to_vec(), frame.bytes[20]));
                assert_eq!(numbers, Some((source.0.to_vec(), number)), "from {from} to {to}");
            }
        }
    }
    // None twice, and none back to its sender.
    for (to, socket) in sockets.iter().enumerate() {
        let more = socket.receive_where(Duration::from_millis(100), |_| true);
        assert!(more.is_none(), "container {to}: {more:?}");
    }
}

#[test]
fn a_station_that_moves_to_the_other_host_is_found_there() {
    let world = World::pair(Options::encrypted());
    let moving = world.lab().container("moving").unwrap();
    let address = IpAddr::from(second(0));
    let cidr = format!("{address}/24");
    for (host, other) in [(0, 1), (1, 0), (0, 1)] {
        world.weave(host, &["attach", &cidr, moving.spec()]).ok();
        // The announcement leads traffic to the new place at once, not when caches grow old.
        for from in [other, host] {
            world.wait_ping(from, address, Duration::from_secs(5));
        }
        world.weave(host, &["detach", &cidr, moving.spec()]).ok();
    }
}
