//! Hosts that reach each other over others.

use std::time::{Duration, Instant};

use weave_api::Status;
use weave_perf::lab::Traffic;
use weave_tests::pings::Pings;
use weave_tests::world::{LINK_WITHIN, Options, World, v4, wait_until};

/// Time for a route to be replaced once a router in it is gone.
const REROUTED_WITHIN: Duration = Duration::from_secs(1);

fn hops(status: &Status) -> Vec<u8> {
    let mut hops: Vec<_> = status.routes.iter().map(|route| route.hops).collect();
    hops.sort_unstable();
    hops
}

fn wait_hops(world: &World, expected: &[(usize, &[u8])], limit: Duration) {
    let what = || {
        let shown = expected.iter().map(|(host, _)| format!("{host}: {:?}", world.status(*host).routes));
        format!("routes of {expected:?} links: {}", shown.collect::<Vec<_>>().join("; "))
    };
    wait_until(limit, what, || expected.iter().all(|(host, wanted)| hops(&world.status(*host)) == *wanted));
}

#[test]
fn without_discovery_containers_reach_each_other_by_a_relay() {
    let options = Options::encrypted().count(3).args("--no-discovery");
    let world = World::new(options.launches(&[(0, &[]), (1, &[0]), (2, &[1])]));
    wait_hops(&world, &[(0, &[1, 2]), (1, &[1, 1]), (2, &[1, 2])], LINK_WITHIN);
    let status = world.status(0);
    let far = status.routes.iter().find(|route| route.hops == 2).unwrap();
    assert_eq!((far.peer, far.via), (world.status(2).name, world.status(1).name));
    assert!(far.encrypted);
    assert_eq!(
        status.peers.iter().map(|peer| peer.connections.len()).sum::<usize>(),
        4,
        "{:?}",
        status.peers
    );
    // ARP goes by broadcast, the answer and the echoes by unicast.
    world.wait_ping(0, v4(2).into(), LINK_WITHIN);
    world.wait_ping(2, v4(0).into(), LINK_WITHIN);
    let relayed = world.counter(1, "frames_relayed");
    assert!(relayed > 0, "host 1 relayed nothing");
    // Where a station is, is known by its host, not by the relay.
    let macs = world.status(0).macs;
    assert!(
        macs.iter().any(|entry| entry.mac == world.mac(2) && entry.peer == world.status(2).name),
        "{macs:?}"
    );
    // Who wants relays is not told that there are some.
    assert!((0..3).all(|host| world.degraded(host).is_empty()), "{:?}", world.degraded(0));
}

#[test]
fn a_host_that_dials_peers_in_vain_says_that_they_are_relayed_until_they_are_linked() {
    let world = World::new(Options::encrypted().count(3).not_launched());
    world.lab().cut(1, 2, Traffic::All).unwrap();
    world.launch(0, &[]);
    world.launch_to(1, &[0]);
    world.launch_to(2, &[0]);
    wait_hops(&world, &[(1, &[1, 2]), (2, &[1, 2])], LINK_WITHIN);
    let state = || world.status(1).degraded.into_iter().find(|state| state.name == "relayed");
    wait_until(LINK_WITHIN, || format!("it says nothing: {:?}", world.degraded(1)), || state().is_some());
    let (reason, far) = (state().unwrap().reason, world.status(2).nickname);
    assert!(reason.starts_with("1 peers") && reason.contains(&format!(": {far};")), "{reason}");
    assert!(world.get(1, "/metrics").body.contains("weave_degraded{name=\"relayed\"} 1\n"));
    assert_eq!(world.degraded(0), Vec::<String>::new(), "it is linked to all");

    world.lab().heal(1, 2).unwrap();
    world.weave(1, &["connect", &world.underlay(2).to_string()]).ok();
    world.wait_linked(1, 2, LINK_WITHIN);
    let said = || format!("it says so still: {:?}, {:?}", world.degraded(1), world.degraded(2));
    wait_until(LINK_WITHIN, said, || (1..3).all(|host| world.degraded(host).is_empty()));
}

#[test]
fn a_host_that_names_one_member_links_to_all() {
    let world = World::new(Options::encrypted().count(5).launches(&[
        (0, &[]),
        (1, &[0]),
        (2, &[1]),
        (3, &[2]),
        (4, &[3]),
    ]));
    wait_hops(
        &world,
        &(0..5).map(|host| (host, &[1_u8; 4][..])).collect::<Vec<_>>(),
        Duration::from_secs(10),
    );
    for host in 1..5 {
        world.wait_ping(host, v4(0).into(), LINK_WITHIN);
    }
}

#[test]
fn a_ring_goes_round_the_other_way_when_a_router_in_the_path_is_killed() {
    let ring = Options::encrypted().count(5).args("--no-discovery");
    let world = World::new(ring.launches(&[(0, &[]), (1, &[0]), (2, &[1]), (3, &[2]), (4, &[3, 0])]));
    wait_hops(&world, &(0..5).map(|host| (host, &[1, 1, 2, 2][..])).collect::<Vec<_>>(), LINK_WITHIN);
    let far = world.status(2).name;
    world.wait_ping(0, v4(2).into(), LINK_WITHIN);
    let via =
        |world: &World| world.status(0).routes.iter().find(|route| route.peer == far).map(|route| route.via);
    assert_eq!(via(&world), Some(world.status(1).name));
    let pings = Pings::start(world.container(0), world.container(2), v4(2).into(), 100);
    pings.wait_answer(Instant::now(), LINK_WITHIN, "a ping before");
    world.kill(1);
    let killed = Instant::now();
    // What was on its way then proves nothing.
    let later = Duration::from_millis(100);
    let after = later + pings.wait_answer(killed + later, LINK_WITHIN, "a ping the other way");
    assert!(after < REROUTED_WITHIN, "{after:?}");
    let flowed = pings.finish();
    assert!(flowed.longest_gap() < REROUTED_WITHIN, "{:?}", flowed.longest_gap());
    assert_eq!(hops(&world.status(0)), [1, 2, 3]);
}

#[test]
fn a_broadcast_reaches_every_host_of_a_ring_once() {
    let ring = Options::encrypted().count(4).args("--no-discovery");
    let world = World::new(ring.launches(&[(0, &[]), (1, &[0]), (2, &[1]), (3, &[2, 0])]));
    wait_hops(&world, &(0..4).map(|host| (host, &[1, 1, 2][..])).collect::<Vec<_>>(), LINK_WITHIN);
    let inboxes: Vec<_> = (1..4)
        .map(|host| {
            world.inside(host, || {
                let socket = std::net::UdpSocket::bind("0.0.0.0:7000").unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                socket
            })
        })
        .collect();
    let outbox = world.inside(0, || {
        let socket = std::net::UdpSocket::bind((v4(0), 0)).unwrap();
        socket.set_broadcast(true).unwrap();
        socket
    });
    for number in 0..100_u8 {
        outbox.send_to(&[number], "255.255.255.255:7000").unwrap();
    }
    for inbox in inboxes {
        let mut seen = Vec::new();
        let mut datagram = [0; 16];
        while seen.len() < 100 && inbox.recv_from(&mut datagram).is_ok() {
            seen.push(datagram[0]);
        }
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
        inbox.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        assert!(inbox.recv_from(&mut datagram).is_err(), "one came twice");
    }
}
