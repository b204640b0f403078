//! Links over underlays that are not one wire: translators, small paths, cuts, addresses that change.

use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use weave_perf::lab::{NAT_FORGETS, Nat, Place, Traffic, Way};
use weave_tests::pings::Pings;
use weave_tests::world::{LINK_WITHIN, Options, World, v4, wait_until};

fn wait_degraded(world: &World, host: usize, name: &str, limit: Duration) {
    let what = || format!("{name} on host {host}: {:?}", world.status(host).connections);
    wait_until(limit, what, || {
        world.link(host).is_some_and(|link| link.degraded.iter().any(|d| d.name == name))
    });
}

fn behind_a_translator(nat: Nat) {
    let options =
        Options::encrypted().args("--shards 2").places(vec![Place::default(), Place::behind(0, nat)]);
    let world = World::pair(options);
    world.wait_ping(0, v4(1).into(), LINK_WITHIN);
    wait_degraded(&world, 0, "one_port", LINK_WITHIN);
    // The translator forgets flows that are silent this long, and may give them another port.
    let pings = Pings::between(&world, 0, v4(1).into());
    std::thread::sleep(4 * NAT_FORGETS);
    let flowed = pings.finish();
    assert!(flowed.lost().is_empty(), "{:?}", flowed.lost());
    // Every shard's lane passes, in both directions.
    wait_until(
        LINK_WITHIN,
        || format!("lanes: {:?}", world.link(0)),
        || world.link(0).is_some_and(|link| link.lanes_in == 2 && link.lanes_out == 2),
    );
}

#[test]
fn a_host_behind_a_translator_that_keeps_ports() {
    behind_a_translator(Nat::Steady);
}

#[test]
fn a_host_behind_a_translator_that_changes_ports() {
    behind_a_translator(Nat::Changing);
}

#[test]
fn a_path_smaller_than_frames_carries_them_all_the_same() {
    let world = World::pair(Options::encrypted().places(vec![Place::on(&[0]), Place::on(&[1])]));
    world.wait_ping(0, v4(1).into(), LINK_WITHIN);
    world.lab().set_too_big(false).unwrap();
    world.lab().set_way(0, 1, Way::Mtu(1_000)).unwrap();
    wait_degraded(&world, 0, "small_path", LINK_WITHIN);
    wait_degraded(&world, 1, "small_path", LINK_WITHIN);
    let inbox = world.inside(1, || UdpSocket::bind("0.0.0.0:7000").unwrap());
    inbox.set_read_timeout(Some(LINK_WITHIN)).unwrap();
    let outbox = world.inside(0, || UdpSocket::bind((v4(0), 0)).unwrap());
    outbox.set_broadcast(true).unwrap();
    let mut datagram = [0; 2_000];
    // Nobody is told that a broadcast is too big: it goes in fragments.
    for number in 0..20_u8 {
        outbox.send_to(&[number; 1_300], "255.255.255.255:7000").unwrap();
        assert_eq!(inbox.recv_from(&mut datagram).unwrap().0, 1_300);
        assert!(datagram[..1_300].iter().all(|byte| *byte == number));
    }
    assert!(world.counter(0, "fragments_sent") >= 20, "{:?}", world.status(0).shards);
    // Once the limit is known, the kernel of a container hears of it and keeps to it.
    wait_until(
        LINK_WITHIN,
        || format!("an answer by ICMP: {:?}", world.status(0).shards),
        || {
            let _ = outbox.send_to(&[7; 1_300], (v4(1), 7_000));
            world.counter(0, "icmp_too_big_sent") > 0
        },
    );
    let fragments = world.counter(0, "fragments_sent");
    outbox.send_to(&[8; 1_300], (v4(1), 7_000)).unwrap();
    while datagram[0] != 8 {
        assert_eq!(inbox.recv_from(&mut datagram).unwrap().0, 1_300);
    }
    assert_eq!(world.counter(0, "fragments_sent"), fragments, "the container cut it itself");
    assert_eq!(world.status(0).connections.len(), 1, "the link stays");
}

#[test]
fn a_host_that_changes_its_address_is_followed() {
    followed(Options::encrypted());
}

#[test]
fn a_host_of_a_clear_network_that_changes_its_address_is_followed() {
    followed(Options::clear());
}

fn followed(options: Options) {
    let world = World::pair(options);
    world.wait_ping(0, v4(1).into(), LINK_WITHIN);
    let pings = Pings::start(world.container(0), world.container(1), v4(1).into(), 20);
    pings.wait_answer(Instant::now(), LINK_WITHIN, "a ping before");
    let new: IpAddr = "10.99.0.77".parse().unwrap();
    world.lab().change_address(1, world.underlay(1), new).unwrap();
    let changed = Instant::now();
    let after =
        pings.wait_answer(changed + Duration::from_millis(200), LINK_WITHIN, "a ping to the new place");
    assert!(after < Duration::from_secs(5), "{after:?}");
    drop(pings.finish());
    assert_eq!(world.status(0).counters["address_moves"], 1);
}

#[test]
fn a_forgotten_peer_is_not_dialled_when_its_link_is_lost() {
    let world = World::new(Options::encrypted().launches(&[(0, &[]), (1, &[])]).no_wait());
    let target = world.underlay(1).to_string();
    world.weave(0, &["connect", &target]).ok();
    world.wait_linked(0, 1, LINK_WITHIN);
    world.weave(0, &["forget", &target]).ok();
    assert!(world.is_established(0, 1), "a link that is there stays");
    world.kill(1);
    let what = || world.connections(&[0]);
    wait_until(Duration::from_secs(20), what, || world.status(0).connections.is_empty());
    // Nor after the next launch.
    world.stop(0);
    world.launch(0, &[]);
    assert_eq!(world.status(0).connections.len(), 0, "{}", what());
}

#[test]
fn udp_that_is_blocked_makes_no_link_and_is_named() {
    let world = World::pair(Options::encrypted().not_launched());
    world.lab().cut(0, 1, Traffic::Udp).unwrap();
    world.launch(0, &[]);
    world.launch(1, &[&world.underlay(0).to_string()]);
    let named = |world: &World| {
        world
            .status(1)
            .connections
            .iter()
            .any(|link| link.reason.as_deref().is_some_and(|r| r.contains("UDP")))
    };
    wait_until(LINK_WITHIN, || format!("a reason: {:?}", world.status(1).connections), || named(&world));
    world.lab().heal(0, 1).unwrap();
    world.wait_ping(0, v4(1).into(), Duration::from_secs(30));
}

#[test]
fn two_hosts_that_cannot_reach_each_other_talk_by_a_third_until_they_can() {
    let world = World::new(Options::encrypted().count(3).not_launched());
    world.lab().cut(1, 2, Traffic::All).unwrap();
    for (host, targets) in [(0, &[][..]), (1, &[0][..]), (2, &[0][..])] {
        world.launch_to(host, targets);
    }
    world.wait_ping(1, v4(2).into(), LINK_WITHIN);
    let direct = |world: &World| world.is_established(1, 2);
    assert!(!direct(&world));
    let pings = Pings::between(&world, 1, v4(2).into());
    pings.wait_answer(Instant::now(), LINK_WITHIN, "a ping by the relay");
    world.lab().heal(1, 2).unwrap();
    wait_until(Duration::from_secs(15), || format!("{:?}", world.status(1).connections), || direct(&world));
    pings.wait_answer(Instant::now() + Duration::from_secs(1), LINK_WITHIN, "a ping by the direct link");
    assert_eq!(pings.finish().lost(), [0_u64; 0]);
}

/// Broadcasts from the container of host `from` every 5 ms, numbered, until the returned sender is
/// dropped; the thread gives how many there were.
fn broadcasts(world: &World, from: usize) -> (std::sync::mpsc::Sender<()>, std::thread::JoinHandle<u32>) {
    let outbox = world.inside(from, || UdpSocket::bind((v4(from), 0)).unwrap());
    outbox.set_broadcast(true).unwrap();
    let (over, ended) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let mut number = 0_u32;
        while ended.recv_timeout(Duration::from_millis(5)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
        {
            outbox.send_to(&number.to_be_bytes(), "255.255.255.255:7000").unwrap();
            number += 1;
        }
        number
    });
    (over, thread)
}

/// A host sends its broadcasts over a new link as soon as it knows that the other end has told of
/// it; the other end may not know yet that it did.
#[test]
fn a_direct_link_in_place_of_a_relay_loses_hardly_a_broadcast() {
    let world = World::new(Options::encrypted().count(3).not_launched());
    world.lab().cut(1, 2, Traffic::All).unwrap();
    for (host, targets) in [(0, &[][..]), (1, &[0][..]), (2, &[0][..])] {
        world.launch_to(host, targets);
    }
    world.wait_ping(1, v4(2).into(), LINK_WITHIN);
    let inbox = world.inside(2, || UdpSocket::bind("0.0.0.0:7000").unwrap());
    inbox.set_read_timeout(Some(LINK_WITHIN)).unwrap();
    let (over, sending) = broadcasts(&world, 1);
    let receiving = std::thread::spawn(move || {
        let (mut arrived, mut number) = (std::collections::BTreeSet::new(), [0; 4]);
        while inbox.recv_from(&mut number).is_ok() {
            // From now on silence means that it is over.
            inbox.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            arrived.insert(u32::from_be_bytes(number));
        }
        arrived
    });
    world.lab().heal(1, 2).unwrap();
    world.wait_linked(1, 2, Duration::from_secs(15));
    // Until all have told all others of the link, and a little longer.
    let direct = |host: usize| world.status(host).routes.iter().all(|route| route.hops == 1);
    wait_until(LINK_WITHIN, || format!("{:?}", world.status(0).routes), || (0..3).all(direct));
    std::thread::sleep(Duration::from_secs(1));
    drop(over);
    let sent = sending.join().unwrap();
    let arrived = receiving.join().unwrap();
    let lost: Vec<_> = (0..sent).filter(|number| !arrived.contains(number)).collect();
    // The relay may stop a moment before the source begins; never for long.
    assert!(lost.len() <= 20, "{} of {sent} lost: {lost:?}", lost.len());
}
