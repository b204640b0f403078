//! A name that was removed while a host heard nothing, by an owner that is gone since, is gone there
//! soon after that host can be reached again.

use std::time::Duration;

use weave_sim::checks;
use weave_sim::network::HostId;
use weave_sim::random::Random;
use weave_sim::shape::{self, Shape};
use weave_sim::world::{World, WorldConfig};
use weave_wire::HostName;
use weave_wire::link::gossip::NameEntry;

/// How soon it is gone.
const GONE_WITHIN: Duration = Duration::from_secs(2);
/// Hosts: the owner, the one that is cut off, and others that hear of the removal.
const HOSTS: usize = 5;
const OWNER: HostId = HostId(0);
const CUT_OFF: HostId = HostId(1);
const STEP: Duration = Duration::from_millis(10);
const LIMIT: Duration = Duration::from_secs(60);
/// How long it is looked whether the name comes back.
const WATCHED: Duration = Duration::from_secs(20);
/// What the router asks of TCP.
const RETRY_MAX: Duration = Duration::from_secs(1);

fn is_known(world: &World, name: &HostName) -> bool {
    world.running().any(|(id, host)| id == CUT_OFF && host.mesh.name(name).next().is_some())
}

/// How long after the cut, which is as long as `cut`, the name is known at last; `None`: for good.
fn known_for(seed: u64, cut: (Duration, Duration), retry_max: Duration) -> Option<Duration> {
    let mut random = Random::new(seed);
    let config = WorldConfig { seed, retry_max, ..WorldConfig::default() };
    let mut world = shape::world(&config, HOSTS, Shape::Full);
    let name: HostName = "gone.weave.local".parse().ok()?;
    let entry = NameEntry { name: name.clone(), address: [10, 32, 0, 1].into(), container: [1; 6] };
    world.slot_mut(OWNER)?.attached.names.push(entry);
    shape::start_all(&mut world, Duration::from_secs(1));
    shape::run_until(&mut world, STEP, LIMIT, |world| {
        world.running().count() == HOSTS && checks::disagreement(world).is_none()
    })?;
    assert!(is_known(&world, &name));
    world.run_for(random.time(Duration::ZERO, Duration::from_secs(5)));
    let end = world.now() + random.time(cut.0, cut.1);
    let both = random.chance(500);
    for other in (0..HOSTS as u16).map(HostId).filter(|other| *other != CUT_OFF) {
        world.network.cut(other, CUT_OFF);
        if both {
            world.network.cut(CUT_OFF, other);
        }
    }
    world.slot_mut(OWNER)?.attached.names.clear();
    world.tell_attached(OWNER);
    world.run_for(random.time(Duration::from_millis(300), cut.0));
    if random.chance(500) {
        world.stop(OWNER);
    } else {
        world.kill(OWNER);
    }
    world.run_until(end);
    world.network.heal_all();
    let mut reachable = world.now();
    if cut.0 > LINKS_LAST {
        let is_linked = |world: &World| {
            world
                .running()
                .any(|(id, host)| id == CUT_OFF && host.links.values().any(|link| link.is_established()))
        };
        reachable = shape::run_until(&mut world, STEP, LIMIT, is_linked)?;
    }
    // It stays away.
    let mut last = reachable;
    while world.now() < reachable + WATCHED {
        if is_known(&world, &name) {
            last = world.now();
        }
        world.run_for(STEP);
    }
    (last + STEP < world.now()).then(|| last - reachable)
}

/// No link lives longer without its peer.
const LINKS_LAST: Duration = Duration::from_secs(12);

fn check(seconds: (u64, u64), retry_max: Duration) {
    let cut = (Duration::from_secs(seconds.0), Duration::from_secs(seconds.1));
    let late = (0..500).map(|seed| (seed, known_for(seed, cut, retry_max)));
    let late: Vec<_> = late.filter(|(_, time)| time.is_none_or(|time| time >= GONE_WITHIN)).collect();
    assert!(late.is_empty(), "seeds {late:?}");
}

#[test]
fn a_name_removed_during_a_short_cut_is_gone_two_seconds_after() {
    check((1, 8), RETRY_MAX);
}

#[test]
fn a_name_removed_during_a_long_cut_is_gone_two_seconds_after_there_is_a_link() {
    for retry_max in [RETRY_MAX, Duration::MAX] {
        check((13, 60), retry_max);
    }
}
