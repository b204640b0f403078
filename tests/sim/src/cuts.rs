//! Ways that are cut and healed: how soon data passes again.

use crate::checks;
use crate::network::HostId;
use crate::random::Random;
use crate::shape::{self, Shape};
use crate::world::{World, WorldConfig};
use std::time::Duration;

/// Within that time of a cut's end data must pass in both directions.
pub const PASSES_WITHIN: Duration = Duration::from_secs(3);
/// Shortest and longest cut.
const CUT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));
/// How often a frame is sent each way.
const FRAME_EVERY: Duration = Duration::from_millis(50);
/// How long it is waited for data to pass.
const LIMIT: Duration = Duration::from_secs(120);
/// Longest time until the next cut.
const PAUSE: Duration = Duration::from_secs(20);

/// Which cuts.
#[derive(Debug, Clone)]
pub struct Cuts {
    /// Of all chance.
    pub seed: u64,
    /// How many.
    pub cuts: usize,
    /// Hosts in the world; two know no other way to each other.
    pub hosts: usize,
    /// Who is linked to whom.
    pub shape: Shape,
}

/// One cut.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    /// How long it lasted.
    pub lasted: Duration,
    /// True if it was cut in both directions.
    pub both: bool,
    /// How long after its end data passed in both directions.
    pub passed_after: Duration,
}

impl Cuts {
    /// Cuts one way after the other. `None` if hosts never met.
    #[must_use]
    pub fn run(&self) -> Option<Vec<Cut>> {
        let config = WorldConfig { seed: self.seed, ..WorldConfig::default() };
        let mut random = Random::new(self.seed);
        let mut world = shape::world(&config, self.hosts, self.shape);
        shape::start_all(&mut world, Duration::from_secs(1));
        let limit = Duration::from_secs(30);
        shape::run_until(&mut world, Duration::from_millis(100), limit, |world| {
            world.running().count() == self.hosts && checks::disagreement(world).is_none()
        })?;
        Some((0..self.cuts).map(|_| cut(&mut world, &mut random)).collect())
    }
}

/// Cuts the way between two linked hosts.
fn cut(world: &mut World, random: &mut Random) -> Cut {
    world.run_for(random.time(Duration::ZERO, PAUSE));
    let (a, b) = any_link(world, random);
    let both = random.chance(500);
    let lasted = random.time_of_any_size(CUT.0, CUT.1);
    world.network.cut(a, b);
    if both {
        world.network.cut(b, a);
    }
    // Traffic goes on all the time.
    let end = world.now() + lasted;
    while world.now() + FRAME_EVERY < end {
        exchange(world, a, b);
    }
    world.run_until(end);
    world.network.heal_all();
    let healed = world.now();
    while world.now() < healed + LIMIT && !exchange(world, a, b) {}
    Cut { lasted, both, passed_after: world.now() - healed }
}

fn any_link(world: &World, random: &mut Random) -> (HostId, HostId) {
    let links: Vec<_> = world
        .running()
        .flat_map(|(id, host)| {
            host.settings.targets.iter().filter_map(move |to| Some((id, HostId::of(*to)?)))
        })
        .collect();
    let (a, b) = random.pick(&links).copied().unwrap_or_default();
    if random.chance(500) { (b, a) } else { (a, b) }
}

/// Sends a frame each way; true if both arrive soon.
fn exchange(world: &mut World, a: HostId, b: HostId) -> bool {
    let frames = [(b, world.send_frame(a, Some(b))), (a, world.send_frame(b, Some(a)))];
    world.run_for(FRAME_EVERY);
    frames.iter().all(|(to, number)| {
        world.ledger.frame(*number).is_some_and(|frame| frame.deliveries.contains_key(to))
    })
}
