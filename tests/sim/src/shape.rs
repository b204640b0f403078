//! Worlds without faults: who is there, and who dials whom.

use crate::host::{MAX_LINKS, Settings};
use crate::network::HostId;
use crate::random::Random;
use crate::world::{World, WorldConfig};
use std::collections::BTreeSet;
use std::time::Duration;

/// Who dials whom at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Everybody names the first host and finds the others: all are linked to all.
    Full,
    /// Each has links to the two beside it, and to no others.
    Ring,
    /// Each has links to the one before and the one after, and to no others.
    Line,
    /// Each has about so many links, to any others, and dials no more.
    Degree(usize),
}

/// A world of hosts that are not started yet.
#[must_use]
pub fn world(config: &WorldConfig, hosts: usize, shape: Shape) -> World {
    let mut world = World::new(config);
    let mut random = Random::new(config.seed ^ 1);
    for at in 0..hosts {
        let targets = targets(shape, at, hosts, &mut random).into_iter().map(HostId::address).collect();
        let discovery = shape == Shape::Full;
        world.add(Settings { targets, discovery, conn_limit: MAX_LINKS });
    }
    world
}

fn targets(shape: Shape, at: usize, hosts: usize, random: &mut Random) -> BTreeSet<HostId> {
    let host = |number: usize| HostId(u16::try_from(number).unwrap_or(u16::MAX));
    let mut targets = BTreeSet::new();
    match shape {
        Shape::Full if at > 0 => targets.extend([HostId(0)]),
        Shape::Ring => targets.extend([host((at + 1) % hosts)]),
        Shape::Line if at > 0 => targets.extend([host(at - 1)]),
        Shape::Full | Shape::Line => {}
        Shape::Degree(degree) => {
            // The one after keeps the graph connected; each dials half of its links.
            targets.insert(host((at + 1) % hosts));
            while targets.len() < (degree / 2).min(hosts - 1) {
                let other = host(random.below(hosts));
                if other != host(at) {
                    targets.insert(other);
                }
            }
        }
    }
    targets
}

/// Starts all hosts within `spread`.
pub fn start_all(world: &mut World, spread: Duration) {
    let mut random = Random::new(world.now().as_secs() ^ 2);
    let ids: Vec<_> = world.slots().iter().map(|slot| slot.id).collect();
    for id in ids {
        let at = world.now() + random.time(Duration::ZERO, spread);
        world.start_at(id, at);
    }
}

/// Runs until `what` is true, looked at every `step`, for `limit` at most; when it
/// became so.
pub fn run_until(
    world: &mut World,
    step: Duration,
    limit: Duration,
    what: impl Fn(&World) -> bool,
) -> Option<Duration> {
    let end = world.now() + limit;
    while !what(world) {
        if world.now() >= end {
            return None;
        }
        world.run_for(step);
    }
    Some(world.now())
}
