//! What more than two hosts show: a relay, the direct link that replaces it, and the way back.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use weave_api::status::Route;
use weave_perf::lab::{Container, Way};
use weave_perf::traffic::{TrafficError, icmp};

use super::measure;
use super::screen::Screen;
use super::world::{World, v4};
use crate::failure::{Failure, Result};

/// Time for routes to change: a path that swallows everything is found out by heartbeats.
const CHANGES_WITHIN: Duration = Duration::from_secs(20);
/// How often routes are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Time between the pings of a series.
const PING_EVERY: Duration = Duration::from_millis(20);
/// Pings go on for so long after a change.
const AFTERWARDS: Duration = Duration::from_millis(300);

/// Shows it between the two hosts that were kept apart so far.
pub fn show(screen: &Screen, world: &World) -> Result<()> {
    let [from, to] = world.apart();
    let address = IpAddr::from(v4(to));
    screen.step("waiting for the relay");
    let relay = wait_route(world, Direct::No)?;
    screen.line(
        "relay",
        format_args!(
            "host{} and host{} cannot reach each other, their containers can, {}",
            from + 1,
            to + 1,
            describe(&relay)
        ),
    )?;
    screen.line("", measure::ping_from(screen, world, from, address)?)?;
    screen.step("opening the path");
    let (after, series) = while_pinging(world.container(from), address, || {
        world.set_way(Way::Open)?;
        timed(|| wait_route(world, Direct::Yes))
    })?;
    screen.line("direct link", format_args!("{after:.1} s after the path was opened, {series}"))?;
    screen.step("closing the path without a word");
    let (after, series) = while_pinging(world.container(from), address, || {
        world.set_way(Way::Closed)?;
        timed(|| wait_route(world, Direct::No))
    })?;
    screen.line("re-route", format_args!("{after:.1} s after it was closed without a word, {series}"))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direct {
    Yes,
    No,
}

/// Waits until either host's way to the other is direct, or is not.
fn wait_route(world: &World, direct: Direct) -> Result<Route> {
    let begin = Instant::now();
    let [from, to] = world.apart();
    let names = [world.status(from)?.name, world.status(to)?.name];
    loop {
        let ways = [(from, names[1]), (to, names[0])].map(|(at, peer)| -> Result<Option<Route>> {
            let route = world.status(at)?.routes.into_iter().find(|route| route.peer == peer);
            Ok(route.filter(|route| (route.via == route.peer) == (direct == Direct::Yes)))
        });
        let [there, back] = ways;
        if let (Some(route), Some(_)) = (there?, back?) {
            return Ok(route);
        }
        if begin.elapsed() > CHANGES_WITHIN {
            return Err(Failure::new(
                format_args!("cannot see the routes change within {} s", CHANGES_WITHIN.as_secs()),
                format_args!("{:?}", world.status(from)?.routes),
                "report it, with the output of `weave demo --hosts 3`",
            ));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn describe(route: &Route) -> String {
    let encrypted = if route.encrypted { "encrypted" } else { "UNENCRYPTED" };
    format!("by way of {}: {} links, {encrypted}", route.via_nickname, route.hops)
}

/// Seconds that `work` took.
fn timed(work: impl FnOnce() -> Result<Route>) -> Result<f64> {
    let begin = Instant::now();
    work().map(|_| begin.elapsed().as_secs_f64())
}

/// What became of a series of pings.
struct Series {
    sent: u32,
    lost: u32,
    /// Longest time without an answer.
    gap: Duration,
}

impl std::fmt::Display for Series {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} pings answered meanwhile", self.sent - self.lost, self.sent)?;
        if self.lost > 0 {
            write!(f, ", none for {:.1} s", self.gap.as_secs_f64())?;
        }
        Ok(())
    }
}

/// Pings `address` from `container` while `work` runs.
fn while_pinging<T: Send>(
    container: &Container,
    address: IpAddr,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<(T, Series)> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let pings = scope.spawn(|| container.run(|| series(address, &done)));
        let result = work();
        std::thread::sleep(AFTERWARDS);
        done.store(true, Ordering::Relaxed);
        let failed = |error: &dyn std::fmt::Display| Failure::because("cannot ping", error.to_string());
        let series = pings.join().map_err(|_| failed(&"the thread that pings panicked"))?;
        let series = series.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        Ok((result?, series))
    })
}

fn series(address: IpAddr, done: &AtomicBool) -> std::result::Result<Series, TrafficError> {
    let mut series = Series { sent: 0, lost: 0, gap: Duration::ZERO };
    let mut answered = Instant::now();
    while !done.load(Ordering::Relaxed) {
        let begin = Instant::now();
        let echoes = icmp::ping(address, 1, PING_EVERY)?;
        series.sent += 1;
        series.lost += echoes.lost;
        if echoes.lost == 0 {
            series.gap = series.gap.max(answered.elapsed());
            answered = Instant::now();
        }
        std::thread::sleep(PING_EVERY.saturating_sub(begin.elapsed()));
    }
    series.gap = series.gap.max(answered.elapsed());
    Ok(series)
}
