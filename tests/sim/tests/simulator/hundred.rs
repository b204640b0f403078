//! How soon a hundred hosts know of a change: simulated time, to be kept in real life too.

use std::time::Duration;

use weave_sim::checks;
use weave_sim::host::{MAX_LINKS, Settings};
use weave_sim::network::HostId;
use weave_sim::shape::{self, Shape};
use weave_sim::world::{World, WorldConfig};
use weave_wire::{MacAddr, PeerName};

const HOSTS: u16 = 100;
/// Links of each, about: most ways are two or three links long.
const DEGREE: usize = 8;
/// Pairs of hosts whose frames are watched.
const PAIRS: usize = 100;
/// How often it is looked.
const STEP: Duration = Duration::from_millis(20);
/// The same of what takes longer to look for.
const AGREE_STEP: Duration = Duration::from_millis(200);
/// How long a partition lasts: longer than a link lives without its peer.
const APART: Duration = Duration::from_secs(30);
const LIMIT: Duration = Duration::from_secs(60);
/// Longest time of a frame on its way.
const LATEST: Duration = Duration::from_millis(500);

/// A new host and all others know all of each other.
const JOINED_WITHIN: Duration = Duration::from_secs(3);
/// Frames pass again after a router on their way was killed.
const REROUTED_WITHIN: Duration = Duration::from_secs(1);
/// All know all again after a partition.
const HEALED_WITHIN: Duration = Duration::from_secs(10);
/// All send to where a station is now.
const MOVED_WITHIN: Duration = Duration::from_secs(1);

fn hosts() -> impl Iterator<Item = HostId> {
    (0..HOSTS).map(HostId)
}

/// The station of a host.
fn station(id: HostId) -> MacAddr {
    let [high, low] = id.0.to_be_bytes();
    MacAddr([0x0a, 0, 0, 0, high, low])
}

fn attach(world: &mut World, at: HostId, mac: MacAddr) {
    let [.., high, low] = mac.0;
    world.slot_mut(at).unwrap().attached.stations.push((mac, [10, 32, high, low].into()));
    world.tell_attached(at);
}

fn agree(world: &World, hosts: usize) -> bool {
    world.running().count() == hosts && checks::disagreement(world).is_none()
}

/// Hosts that agree; each has a station.
fn settled(seed: u64) -> World {
    let mut world = shape::world(
        &WorldConfig { seed, quantum: Duration::from_millis(1), ..WorldConfig::default() },
        HOSTS.into(),
        Shape::Degree(DEGREE),
    );
    hosts().for_each(|id| attach(&mut world, id, station(id)));
    shape::start_all(&mut world, Duration::from_secs(1));
    shape::run_until(&mut world, AGREE_STEP, LIMIT, |world| agree(world, HOSTS.into())).unwrap();
    world
}

/// How long after `since` all agree.
fn until_agreed(world: &mut World, hosts: usize, since: Duration) -> Duration {
    let agreed = shape::run_until(world, AGREE_STEP, LIMIT, |world| agree(world, hosts));
    agreed.unwrap_or_else(|| panic!("{:?}", checks::disagreement(world))) - since
}

fn name(world: &World, id: HostId) -> PeerName {
    world.running_name(id).unwrap()
}

#[test]
fn a_host_that_joins_a_hundred_knows_all_and_is_known_by_all_within_three_seconds() {
    let mut world = settled(1);
    let target = vec![HostId(17).address()];
    let new = world.add(Settings { targets: target, discovery: false, conn_limit: MAX_LINKS });
    attach(&mut world, new, station(new));
    let begun = world.now();
    world.start(new);
    let took = until_agreed(&mut world, usize::from(HOSTS) + 1, begun);
    println!("joined after {took:?}");
    assert!(took <= JOINED_WITHIN, "{took:?}");
}

/// Pairs of hosts with this one on the way from the first to the second.
fn pairs_by(world: &World, relay: HostId) -> Vec<(HostId, HostId)> {
    let relay_name = name(world, relay);
    let mut pairs = Vec::new();
    for (from, host) in world.running().filter(|(id, _)| *id != relay) {
        for to in hosts().filter(|to| *to != relay && *to != from) {
            let way = host.mesh.way_to(name(world, to));
            let (_last, between) = way.split_last().unwrap();
            if between.iter().any(|(peer, _)| *peer == relay_name) {
                pairs.push((from, to));
            }
        }
    }
    pairs
}

#[test]
fn frames_of_a_hundred_hosts_pass_again_within_a_second_of_a_relays_death() {
    let mut world = settled(2);
    // One of some that others depend on.
    let relay = hosts().take(4).max_by_key(|id| pairs_by(&world, *id).len()).unwrap();
    let mut pairs = pairs_by(&world, relay);
    assert!(pairs.len() >= PAIRS, "{}", pairs.len());
    pairs.truncate(PAIRS);
    let send = |world: &mut World| -> Vec<u64> {
        pairs.iter().map(|(from, to)| world.send_frame(*from, Some(*to))).collect()
    };
    let arrived = |world: &World, number: u64| !world.ledger.frame(number).unwrap().deliveries.is_empty();
    let before = send(&mut world);
    world.run_for(LATEST);
    assert!(before.iter().all(|number| arrived(&world, *number)), "frames pass before");

    world.kill(relay);
    let killed = world.now();
    let mut sent = Vec::new();
    while world.now() < killed + 3 * REROUTED_WITHIN {
        sent.push((world.now() - killed, send(&mut world)));
        world.run_for(STEP);
    }
    world.run_for(LATEST);
    let lost = |numbers: &[u64]| numbers.iter().filter(|number| !arrived(&world, **number)).count();
    let last = sent.iter().rfind(|(_, numbers)| lost(numbers) > 0).map(|(at, _)| *at);
    println!("{} pairs; frames sent {last:?} after the death were the last lost", pairs.len());
    assert!(lost(&sent[0].1) > 0, "the way led by that host");
    assert!(last.is_some_and(|last| last + STEP <= REROUTED_WITHIN), "{last:?}");
}

#[test]
fn halves_of_a_hundred_hosts_agree_within_ten_seconds_of_their_healing() {
    let mut world = settled(3);
    // Each host dials the next one: halves of neighbours hold together.
    let half = |id: HostId| id.0 < HOSTS / 2;
    for one in hosts() {
        for other in hosts().filter(|other| half(one) != half(*other)) {
            world.network.cut(one, other);
        }
    }
    let cut = world.now();
    // Until both halves know that they are alone; each changes meanwhile.
    let halves = |world: &World| {
        world.running().all(|(_, host)| host.mesh.routes().peers.len() == usize::from(HOSTS) / 2 - 1)
    };
    shape::run_until(&mut world, AGREE_STEP, LIMIT, halves).unwrap();
    for id in [HostId(4), HostId(94)] {
        world.slot_mut(id).unwrap().attached.stations.clear();
        attach(&mut world, id, station(HostId(1_000 + id.0)));
    }
    world.run_until(cut + APART);
    world.network.heal_all();
    let healed = world.now();
    let took = until_agreed(&mut world, HOSTS.into(), healed);
    println!("agreed {took:?} after the healing");
    assert!(took <= HEALED_WITHIN, "{took:?}");
}

#[test]
fn a_station_that_moves_is_known_at_its_new_place_by_a_hundred_hosts_within_a_second() {
    let mut world = settled(4);
    // Taken from the old place first, or never.
    for (mac, from, to, detached) in
        [(HostId(1), HostId(1), HostId(50), true), (HostId(2), HostId(2), HostId(60), false)]
    {
        let mac = station(mac);
        if detached {
            world.slot_mut(from).unwrap().attached.stations.clear();
            world.tell_attached(from);
        }
        let begun = world.now();
        attach(&mut world, to, mac);
        let there = Some(name(&world, to));
        let known = |world: &World| world.running().all(|(_, host)| host.mesh.station_owner(mac) == there);
        let moved = shape::run_until(&mut world, STEP, LIMIT, known).unwrap() - begun;
        println!("known {moved:?} after the attachment, detached before: {detached}");
        assert!(moved <= MOVED_WITHIN, "{moved:?}");
        // So it stays.
        world.run_for(Duration::from_secs(10));
        assert!(known(&world), "detached before: {detached}");
    }
}
