//! What grows with the number of hosts, and how.

use crate::checks;
use crate::host::{Sent, Stopwatch};
use crate::network::HostId;
use crate::shape::{self, Shape};
use crate::world::{World, WorldConfig};
use serde::Serialize;
use std::collections::VecDeque;
use std::time::Duration;
use weave_wire::link::gossip::NameEntry;

/// Hosts start within that time.
const START: Duration = Duration::from_secs(1);
/// How long they may take to agree.
const LIMIT: Duration = Duration::from_secs(180);
/// How often it is looked whether they do.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long idle traffic is measured: longer than the time between summaries.
const IDLE: Duration = Duration::from_secs(60);
/// How long a change is awaited, and its traffic counted. Summaries are counted apart.
const CHANGE: Duration = Duration::from_secs(30);
/// How often it is looked whether a name is known everywhere.
const NAME_STEP: Duration = Duration::from_millis(2);
/// Resolution of the clock: a large world is computed in such steps.
const QUANTUM: Duration = Duration::from_millis(1);

/// Clocks and gauges of the machine, which a simulation must not read itself.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    /// A clock.
    pub clock: fn() -> Duration,
    /// Memory in use, bytes.
    pub memory: fn() -> u64,
}

/// Measurements at one size.
#[derive(Debug, Clone, Serialize)]
pub struct Point {
    /// Hosts.
    pub hosts: usize,
    /// Links of all.
    pub links: usize,
    /// Simulated time until all agreed, seconds.
    pub settled_s: f64,
    /// Gossip each host sent until then, bytes.
    pub settle_bytes: u64,
    /// Gossip for the loss of one link, bytes for each host.
    pub change_bytes: u64,
    /// Length of the two records that the loss changes, bytes.
    pub changed_records: u64,
    /// One computation of routes, microseconds (median).
    pub routes_us: u64,
    /// Computations of routes of one host until all agreed.
    pub route_runs: u64,
    /// Memory of one host, KiB.
    pub memory_kib: u64,
    /// Control traffic of one idle link, both directions, bytes a second with all headers.
    pub idle_link_bps: u64,
    /// Time until a new name is known everywhere, milliseconds.
    pub name_ms: u64,
    /// Time this took on this machine, seconds.
    pub took_s: f64,
}

/// Measures one size. `None` if hosts did not agree in time.
#[must_use]
pub fn measure(hosts: usize, shape: Shape, seed: u64, machine: Machine) -> Option<Point> {
    let (begun, empty) = ((machine.clock)(), (machine.memory)());
    let latency = (Duration::from_micros(200), Duration::from_millis(20));
    let config = WorldConfig { seed, quantum: QUANTUM, latency, ..WorldConfig::default() };
    let mut world = shape::world(&config, hosts, shape);
    shape::start_all(&mut world, START);
    world.run_for(START + QUANTUM);
    let ids: Vec<_> = world.running().map(|(id, _)| id).collect();
    for id in &ids {
        let watch = Stopwatch { clock: machine.clock, times: VecDeque::new() };
        world.with_host(*id, |host, _| host.route_times = Some(watch));
    }
    let settled = shape::run_until(&mut world, LOOK_EVERY, LIMIT, |world| {
        is_meshed(world, shape) && checks::disagreement(world).is_none()
    })?;
    let settle = sent(&world);
    let route_runs = world.running().map(|(_, host)| host.mesh.counters().route_runs).max().unwrap_or(0);
    // Former paths are gone, and with them what they cost.
    world.run_for(Duration::from_secs(5));
    let memory = (machine.memory)().saturating_sub(empty) / hosts as u64;
    let idle_link_bps = idle(&mut world);
    let name_ms = name(&mut world)?;
    let routes_us = routes(&world);
    let (change_bytes, changed_records) = link_change(&mut world)?;
    Some(Point {
        hosts,
        links: links(&world) + 1,
        settled_s: settled.as_secs_f64(),
        settle_bytes: (settle.gossip + settle.summaries) / hosts as u64,
        change_bytes,
        changed_records,
        routes_us,
        route_runs,
        memory_kib: memory >> 10,
        idle_link_bps,
        name_ms,
        took_s: (machine.clock)().saturating_sub(begun).as_secs_f64(),
    })
}

/// True if every host has all the links it is to have.
fn is_meshed(world: &World, shape: Shape) -> bool {
    let hosts = world.slots().len();
    match shape {
        Shape::Full => links(world) == hosts * (hosts - 1) / 2,
        Shape::Ring | Shape::Line | Shape::Degree(_) => world.running().count() == hosts,
    }
}

fn links(world: &World) -> usize {
    world.running().map(|(_, host)| host.links.len()).sum::<usize>() / 2
}

fn sent(world: &World) -> Sent {
    world.running().map(|(_, host)| host.sent).fold(Sent::default(), |sum, sent| Sent {
        gossip: sum.gossip + sent.gossip,
        summaries: sum.summaries + sent.summaries,
        tcp: sum.tcp + sent.tcp,
        heartbeats: sum.heartbeats + sent.heartbeats,
    })
}

fn idle(world: &mut World) -> u64 {
    let before = sent(world);
    world.run_for(IDLE);
    let after = sent(world);
    let bytes = after.tcp - before.tcp + after.heartbeats - before.heartbeats;
    bytes / IDLE.as_secs() / links(world).max(1) as u64
}

fn name(world: &mut World) -> Option<u64> {
    let owner = HostId(0);
    let name: weave_wire::HostName = "new.weave.local".parse().ok()?;
    let entry = NameEntry { name: name.clone(), address: [10, 32, 0, 1].into(), container: [1; 6] };
    world.slot_mut(owner)?.attached.names.push(entry);
    let begun = world.now();
    world.tell_attached(owner);
    let knows = |world: &World| world.running().all(|(_, host)| host.mesh.name(&name).next().is_some());
    let known = shape::run_until(world, NAME_STEP, LIMIT, knows)?;
    u64::try_from((known - begun).as_millis()).ok()
}

fn routes(world: &World) -> u64 {
    let times = world.running().filter_map(|(_, host)| host.route_times.as_ref());
    let mut times: Vec<_> = times.flat_map(|watch| watch.times.iter().copied()).collect();
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    u64::try_from(median.as_micros()).unwrap_or(u64::MAX)
}

/// Cuts one link for good: gossip of each host, and the length of the records that change.
fn link_change(world: &mut World) -> Option<(u64, u64)> {
    let a = HostId(0);
    let other = world.slot(a)?.process.as_ref()?.links.values().next()?.peer.name;
    let b = world.running().find(|(_, host)| host.state.name == other)?.0;
    world.run_for(Duration::from_secs(5));
    let before = sent(world).gossip;
    world.network.cut(a, b);
    world.network.cut(b, a);
    world.run_for(CHANGE);
    let gossip = sent(world).gossip - before;
    let degree = |id| Some(world.slot(id)?.process.as_ref()?.links.len());
    // A link takes 9 bytes of a record; the rest of it and its message about 220.
    let records = [a, b].into_iter().filter_map(degree).map(|links| 220 + 9 * links as u64).sum();
    Some((gossip / world.slots().len() as u64, records))
}
