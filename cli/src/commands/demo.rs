//! `weave demo`: two hosts and two containers on this machine, to see it work.
//!
//! Everything is made in namespaces of its own and is gone afterwards, also
//! on Ctrl-C and on failure. The routers are launched and the containers
//! attached as a user would do it: by this executable.

mod ground;
mod interrupt;
mod measure;
mod screen;
mod world;

use std::time::Instant;

use crate::failure::Result;
use screen::Screen;
use world::World;

/// Builds, shows, removes.
pub fn run() -> Result<()> {
    let begin = Instant::now();
    let ground = ground::prepare()?;
    interrupt::watch()?;
    let shown = show(&ground, begin);
    // Whoever was interrupted ends in that thread, with its exit code.
    interrupt::while_not_interrupted(|| shown)
}

fn show(ground: &ground::Ground, begin: Instant) -> Result<()> {
    let screen = Screen::new();
    screen.line(
        "weave",
        format_args!("{}, two hosts on this machine, {}", env!("CARGO_PKG_VERSION"), ground),
    )?;
    let world = World::build(&screen, ground)?;
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
    screen.step("removing everything");
    drop(world);
    screen.line("removed", format_args!("everything, after {:.1} s", begin.elapsed().as_secs_f64()))?;
    Ok(())
}
