//! `weave demo`: hosts with a container each on this machine, to see it work.
//!
//! Everything is made in namespaces of its own and is gone afterwards, also
//! on Ctrl-C and on failure. The routers are launched and the containers
//! attached as a user would do it: by this executable.

mod ground;
mod interrupt;
mod measure;
mod mesh;
mod screen;
mod world;

use std::time::Instant;

use crate::failure::Result;
use screen::Screen;
use world::World;

/// Hosts that are made, at most.
pub const HOSTS_MAX: i64 = weave_perf::lab::SEGMENTS_MAX as i64;

/// Builds `hosts` hosts, shows, removes.
pub fn run(hosts: usize) -> Result<()> {
    let begin = Instant::now();
    let ground = ground::prepare()?;
    interrupt::watch()?;
    let shown = show(&ground, hosts, begin);
    // Whoever was interrupted ends in that thread, with its exit code.
    interrupt::while_not_interrupted(|| shown)
}

fn show(ground: &ground::Ground, hosts: usize, begin: Instant) -> Result<()> {
    let screen = Screen::new();
    screen.line(
        "weave",
        format_args!("{}, {hosts} hosts on this machine, {ground}", env!("CARGO_PKG_VERSION")),
    )?;
    let world = World::build(&screen, ground, hosts)?;
    let link = world.link(&screen)?;
    screen.line("link", link)?;
    for (name, address) in world.addresses() {
        screen.line(name, measure::ping(&screen, &world, address)?)?;
    }
    let tcp = measure::tcp(&screen, &world)?;
    screen.line("TCP stream", tcp.throughput)?;
    screen.line("CPU", tcp.cpu)?;
    screen.line("latency", measure::latency(&screen, &world)?)?;
    screen.line("packets", measure::packets(&screen, &world)?)?;
    screen.line("memory", measure::memory(&world)?)?;
    if hosts > 2 {
        mesh::show(&screen, &world)?;
    }
    screen.step("removing everything");
    drop(world);
    screen.line("removed", format_args!("everything, after {:.1} s", begin.elapsed().as_secs_f64()))?;
    Ok(())
}
