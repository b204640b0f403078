//! A mesh that falls apart for a while, with changes on both sides.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use weave_api::status::MacSource;
use weave_host::Netlink;
use weave_perf::lab::{Container, Traffic};
use weave_tests::Pings;
use weave_tests::world::{INTERFACE, LINK_WITHIN, Options, World, v4, wait_until};
use weave_wire::{MacAddr, PeerName};

const HOSTS: usize = 4;
/// Hosts of different halves: 0 and 1, 2 and 3.
const ACROSS: [(usize, usize); 4] = [(0, 2), (0, 3), (1, 2), (1, 3)];
/// Time in which a host finds that the other half is gone: the longest that a dead link lives.
const APART_WITHIN: Duration = Duration::from_secs(12);
/// Time from the healing to full connectivity.
const CONNECTED_WITHIN: Duration = Duration::from_secs(10);
/// Time from the healing to the end of everything stale.
const SETTLED_WITHIN: Duration = Duration::from_secs(15);

/// Addresses of containers that come, go and move.
const COMES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 32, 1, 240), Ipv4Addr::new(10, 32, 1, 241)];
const GOES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 32, 1, 242), Ipv4Addr::new(10, 32, 1, 243)];
const MOVES: Ipv4Addr = Ipv4Addr::new(10, 32, 1, 244);

fn attach(world: &World, host: usize, address: Ipv4Addr, container: &Container) -> MacAddr {
    world.weave(host, &["attach", &format!("{address}/24"), container.spec()]).ok();
    let mut netlink = Netlink::in_namespace(container.namespace()).unwrap();
    netlink.expect_link(INTERFACE).unwrap().mac.unwrap()
}

fn detach(world: &World, host: usize, address: Ipv4Addr, container: &Container) {
    world.weave(host, &["detach", &format!("{address}/24"), container.spec()]).ok();
}

/// Which stations are attached, and where, as host `host` sees it.
fn attached(world: &World, host: usize) -> BTreeMap<MacAddr, PeerName> {
    let macs = world.status(host).macs.into_iter();
    macs.filter(|entry| entry.source == MacSource::Attached).map(|entry| (entry.mac, entry.peer)).collect()
}

/// Names of hosts 0 and 3 that go, and one that stays; each stands for this address.
const NAME_GOES: [&str; 2] = ["goes0.weave.local", "goes1.weave.local"];
const NAME_STAYS: &str = "stays.weave.local";
const NAMED: &str = "192.0.2.1";

/// Which names there are, as host `host` sees it, and which host says so.
fn names_of(world: &World, host: usize) -> BTreeSet<(String, PeerName)> {
    world.names(host).into_iter().map(|entry| (entry.name.to_string(), entry.origin)).collect()
}

/// Waits until every host sees exactly these names.
#[track_caller]
fn wait_names(world: &World, expected: &BTreeSet<(String, PeerName)>, limit: Duration) {
    let seen = || (0..HOSTS).map(|host| names_of(world, host)).collect::<Vec<_>>();
    wait_until(
        limit,
        || format!("{expected:?} on all: {:?}", seen()),
        || seen().iter().all(|names| names == expected),
    );
}

/// Waits until every host sees exactly these stations attached.
#[track_caller]
fn wait_agreed(world: &World, expected: &BTreeMap<MacAddr, PeerName>, limit: Duration) {
    let what = || {
        let seen = (0..HOSTS).map(|host| format!("host {host}: {:?}", attached(world, host)));
        format!("all hosts see {expected:?}:\n{}", seen.collect::<Vec<_>>().join("\n"))
    };
    wait_until(limit, what, || (0..HOSTS).all(|host| attached(world, host) == *expected));
}

/// Waits until every host has routes to so many others.
#[track_caller]
fn wait_routes(world: &World, routes: usize, limit: Duration) {
    let count = |host: usize| world.status(host).routes.len();
    let what = || format!("routes of each host: {:?}", (0..HOSTS).map(count).collect::<Vec<_>>());
    wait_until(limit, what, || (0..HOSTS).all(|host| count(host) == routes));
}

fn partition(lasts: Duration) {
    let world = World::new(Options::encrypted().count(HOSTS));
    let names: Vec<_> = (0..HOSTS).map(|host| world.status(host).name).collect();
    let container = |label: &str| world.lab().container(label).unwrap();
    let (goes, moves) = ([container("goes0"), container("goes1")], container("moves"));
    let gone = [(0, 0), (1, 3)].map(|(at, host)| attach(&world, host, GOES[at], &goes[at]));
    let moved_from = attach(&world, 1, MOVES, &moves);
    wait_routes(&world, HOSTS - 1, LINK_WITHIN);
    // A way over the other half would be cut, too.
    let direct = |host: usize| world.status(host).routes.iter().all(|route| route.hops == 1);
    wait_until(LINK_WITHIN, || "direct links".into(), || (0..HOSTS).all(direct));
    let mut expected: BTreeMap<_, _> = (0..HOSTS).map(|host| (world.mac(host), names[host])).collect();
    expected.extend([(gone[0], names[0]), (gone[1], names[3]), (moved_from, names[1])]);
    wait_agreed(&world, &expected, LINK_WITHIN);
    let mut named = BTreeSet::new();
    for (host, name) in [(0, NAME_GOES[0]), (3, NAME_GOES[1]), (0, NAME_STAYS)] {
        world.weave(host, &["dns-add", NAMED, "-h", name]).ok();
        named.insert((name.to_owned(), names[host]));
    }
    wait_names(&world, &named, LINK_WITHIN);
    let inside: Vec<_> = [(0, 1), (1, 0), (2, 3), (3, 2)]
        .into_iter()
        .map(|(from, to)| {
            world.wait_ping(from, v4(to).into(), LINK_WITHIN);
            Pings::between(&world, from, v4(to).into())
        })
        .collect();

    ACROSS.iter().for_each(|(one, other)| world.lab().cut(*one, *other, Traffic::All).unwrap());
    let cut = Instant::now();
    wait_routes(&world, 1, APART_WITHIN);
    println!("apart after {:?}", cut.elapsed());
    // One comes and one goes on each side; one moves from one side to the other.
    let comes = [container("comes0"), container("comes1")];
    let came = [(0, 1), (1, 2)].map(|(at, host)| attach(&world, host, COMES[at], &comes[at]));
    detach(&world, 0, GOES[0], &goes[0]);
    detach(&world, 3, GOES[1], &goes[1]);
    detach(&world, 1, MOVES, &moves);
    let moved_to = attach(&world, 2, MOVES, &moves);
    for (host, name) in [(0, NAME_GOES[0]), (3, NAME_GOES[1])] {
        world.weave(host, &["dns-remove", "-h", name]).ok();
        assert!(named.remove(&(name.to_owned(), names[host])));
    }
    for (from, to) in [(0, COMES[0]), (3, COMES[1]), (3, MOVES)] {
        world.wait_ping(from, to.into(), LINK_WITHIN);
    }
    for mac in [gone[0], gone[1], moved_from] {
        expected.remove(&mac);
    }
    expected.extend([(came[0], names[1]), (came[1], names[2]), (moved_to, names[2])]);
    std::thread::sleep(lasts.saturating_sub(cut.elapsed()));

    ACROSS.iter().for_each(|(one, other)| world.lab().heal(*one, *other).unwrap());
    let healed = Instant::now();
    for from in 0..HOSTS {
        for to in (0..HOSTS).filter(|to| *to != from).map(v4).chain(COMES).chain([MOVES]) {
            world.wait_ping(from, to.into(), CONNECTED_WITHIN.saturating_sub(healed.elapsed()));
        }
    }
    println!("connected {:?} after the healing", healed.elapsed());
    wait_agreed(&world, &expected, SETTLED_WITHIN.saturating_sub(healed.elapsed()));
    wait_names(&world, &named, SETTLED_WITHIN.saturating_sub(healed.elapsed()));
    println!("agreed {:?} after the healing", healed.elapsed());
    // What was deleted does not come back, with whatever others have of it.
    while healed.elapsed() < SETTLED_WITHIN {
        for host in 0..HOSTS {
            assert_eq!(attached(&world, host), expected, "host {host}");
            assert_eq!(names_of(&world, host), named, "host {host}");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    for (pings, half) in inside.into_iter().zip([0, 0, 1, 1]) {
        pings.finish().assert_whole(&format!("pings inside half {half}"));
    }
}

#[test]
fn halves_of_a_mesh_work_on_and_agree_soon_after_they_meet_again() {
    partition(Duration::from_secs(10));
}

#[test]
fn long_halves_of_a_mesh_that_were_apart_for_a_minute_agree_soon_after_they_meet_again() {
    partition(Duration::from_secs(60));
}
