//! Containers that move to another host with their addresses.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use weave_api::Client;
use weave_host::Netlink;
use weave_host::address::cidr;
use weave_host::attach::AttachOptions;
use weave_host::records::Records;
use weave_perf::lab::Container;
use weave_tests::Pings;
use weave_tests::world::{ANSWER_WITHIN, INTERFACE, LINK_WITHIN, Options, World, wait_until};
use weave_wire::MacAddr;

const HOSTS: usize = 4;
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 32, 1, 240);
/// From the end of the attachment until every peer reaches the container.
const REACHED_WITHIN: Duration = Duration::from_secs(1);
const RATE: u32 = 50;
/// How long after a move it is looked whether the container is still reached.
const STAYS: Duration = Duration::from_secs(3);

fn mac(container: &Container) -> MacAddr {
    let mut netlink = Netlink::in_namespace(container.namespace()).unwrap();
    netlink.expect_link(INTERFACE).unwrap().mac.unwrap()
}

/// Attaches as `weave attach` does, with a MAC that the container had before.
fn attach_with(world: &World, host: usize, container: &Container, mac: MacAddr) {
    world.on_host(host, || {
        let mut records = Records::open(&world.host(host).state_dir()).unwrap();
        let options = AttachOptions { mac: Some(mac), mtu: None, probe: None };
        let cidrs = [cidr(ADDRESS.into(), 24).unwrap()];
        let mut netlink = Netlink::open().unwrap();
        records.attach(&mut netlink, container.spec(), container.namespace(), &cidrs, &options).unwrap();
    });
    Client::connect(&world.host(host).run_dir(), ANSWER_WITHIN).unwrap().attachments_changed().unwrap();
}

/// A container on host 1, and pings to it from the containers of all hosts.
fn with_pings() -> (World, Container, Vec<Pings>) {
    let world = World::new(Options::encrypted().count(HOSTS));
    // An announcement may be lost while the ways of broadcasts still change.
    let direct = |host: usize| {
        let routes = world.status(host).routes;
        routes.len() == HOSTS - 1 && routes.iter().all(|route| route.hops == 1)
    };
    wait_until(LINK_WITHIN, || "direct links".into(), || (0..HOSTS).all(direct));
    let moving = world.lab().container("moving").unwrap();
    world.weave(1, &["attach", &format!("{ADDRESS}/24"), moving.spec()]).ok();
    let pings: Vec<_> = (0..HOSTS)
        .map(|host| {
            world.wait_ping(host, ADDRESS.into(), LINK_WITHIN);
            Pings::start(world.container(host), &moving, ADDRESS.into(), RATE)
        })
        .collect();
    for pings in &pings {
        pings.wait_answer(Instant::now(), LINK_WITHIN, "a ping before the move");
    }
    (world, moving, pings)
}

/// Every host reaches the container, which has just been attached to host 2, and knows where it is.
#[track_caller]
fn reached(world: &World, moving: &Container, pings: &[Pings], attached: Instant) {
    for pings in pings {
        pings.wait_answer(attached, REACHED_WITHIN, "a ping after the move");
    }
    println!("reached by all {:?} after the attachment", attached.elapsed());
    let (mac, there) = (mac(moving), world.status(2).name);
    let known = |host: usize| {
        let macs = world.status(host).macs.into_iter().filter(|entry| entry.mac == mac);
        macs.map(|entry| entry.peer).collect::<Vec<_>>()
    };
    wait_until(
        REACHED_WITHIN,
        || format!("{mac} is at {there}: {:?}", (0..HOSTS).map(known).collect::<Vec<_>>()),
        || (0..HOSTS).all(|host| !known(host).is_empty() && known(host).iter().all(|peer| *peer == there)),
    );
}

#[test]
fn a_container_that_moves_and_gets_another_mac_is_reached_within_a_second() {
    let (world, moving, pings) = with_pings();
    let before = mac(&moving);
    world.weave(1, &["detach", &format!("{ADDRESS}/24"), moving.spec()]).ok();
    world.weave(2, &["attach", &format!("{ADDRESS}/24"), moving.spec()]).ok();
    assert_ne!(mac(&moving), before);
    reached(&world, &moving, &pings, Instant::now());
}

#[test]
fn a_container_that_moves_with_its_mac_is_reached_within_a_second() {
    let (world, moving, pings) = with_pings();
    let before = mac(&moving);
    world.weave(1, &["detach", &format!("{ADDRESS}/24"), moving.spec()]).ok();
    attach_with(&world, 2, &moving, before);
    assert_eq!(mac(&moving), before);
    reached(&world, &moving, &pings, Instant::now());
}

/// What became of a container that was not detached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Former {
    /// Its interface is down: it says nothing more.
    Silent,
    /// It runs on and answers.
    Alive,
}

/// The container comes up on host 2 with its address while host 1 still has it attached.
fn moves_undetached(former: Former, same_mac: bool) {
    let (world, moving, before) = with_pings();
    let arrived = world.lab().container("arrived").unwrap();
    if former == Former::Silent {
        world.tool_in(&moving, &format!("ip link set {INTERFACE} down"));
    }
    if same_mac {
        attach_with(&world, 2, &arrived, mac(&moving));
    } else {
        world.weave(2, &["attach", "--force", &format!("{ADDRESS}/24"), arrived.spec()]).ok();
    }
    let attached = Instant::now();
    let pings: Vec<_> =
        (0..HOSTS).map(|host| Pings::start(world.container(host), &arrived, ADDRESS.into(), RATE)).collect();
    reached(&world, &arrived, &pings, attached);
    // So it stays.
    for pings in &pings {
        pings.wait_answer(attached + STAYS, STAYS + REACHED_WITHIN, "a ping long after the move");
    }
    drop(before);
}

#[test]
fn a_container_that_is_not_detached_and_gets_another_mac_elsewhere_is_reached_within_a_second() {
    moves_undetached(Former::Silent, false);
}

#[test]
fn a_container_that_is_not_detached_and_keeps_its_mac_elsewhere_is_reached_within_a_second() {
    moves_undetached(Former::Silent, true);
}

#[test]
fn a_container_beside_its_former_self_with_another_mac_is_reached_within_a_second() {
    moves_undetached(Former::Alive, false);
}

#[test]
fn a_container_beside_its_former_self_with_the_same_mac_is_reached_within_a_second() {
    moves_undetached(Former::Alive, true);
}

#[test]
fn an_address_of_a_silent_container_of_another_host_is_refused_until_it_is_free() {
    let world = World::new(Options::encrypted());
    let (holder, other) = (world.lab().container("holder").unwrap(), world.lab().container("other").unwrap());
    let cidr = format!("{ADDRESS}/24");
    let nickname = world.status(0).nickname.to_string();
    world.weave(0, &["attach", &cidr, holder.spec()]).ok();
    world.tool_in(&holder, &format!("ip link set {INTERFACE} arp off"));
    wait_until(
        ANSWER_WITHIN,
        || "the other router knows".into(),
        || {
            let mut client = Client::connect(&world.host(1).run_dir(), ANSWER_WITHIN).unwrap();
            !client.attached_elsewhere(vec![ADDRESS.into()]).unwrap().is_empty()
        },
    );
    for command in [vec!["attach", &cidr, other.spec()], vec!["expose", &cidr]] {
        let refused = world.weave(1, &command);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains("in use") && refused.stderr.contains(&nickname), "{refused:?}");
    }
    world.weave(1, &["expose", "--force", &cidr]).ok();
    world.weave(1, &["hide", &cidr]).ok();
    world.weave(1, &["attach", "--force", &cidr, other.spec()]).ok();
    // What is attached is attached, whoever else has the address.
    world.weave(1, &["attach", &cidr, other.spec()]).ok();
    world.weave(0, &["attach", &cidr, holder.spec()]).ok();
    world.weave(1, &["detach", &cidr, other.spec()]).ok();
    world.weave(0, &["detach", &cidr, holder.spec()]).ok();
    // At once: this router need not know yet that it is free.
    world.weave(1, &["attach", &cidr, other.spec()]).ok();
}
