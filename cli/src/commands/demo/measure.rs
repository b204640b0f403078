//! What is measured between the two containers.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use weave_perf::process::Usage;
use weave_perf::traffic::ping::{Prober, Responder, Transport};
use weave_perf::traffic::udp::{Load, Receiver, Sender};
use weave_perf::traffic::{Edge, TrafficError, Window, icmp, tcp as stream, udp};

use super::screen::Screen;
use super::world::World;
use crate::failure::{Failure, Result};

/// How long each measurement counts.
const COUNTED: Duration = Duration::from_secs(2);
/// Time for the first ping to be answered.
const REACHABLE_WITHIN: Duration = Duration::from_secs(3);
/// Pings, and the time between them.
const PINGS: (u16, Duration) = (5, Duration::from_millis(50));
/// Requests a second while latency is measured.
const REQUEST_RATE: NonZeroU32 = NonZeroU32::new(1000).unwrap();
/// UDP payload of the small packets, bytes.
const SMALL_BYTES: usize = 64;

/// Throughput of one stream, and what it cost.
pub struct Tcp {
    /// Gigabits a second.
    pub throughput: String,
    /// CPU seconds for each gigabyte.
    pub cpu: String,
}

/// Pings `address` from container 1.
pub fn ping(screen: &Screen, world: &World, address: IpAddr) -> Result<String> {
    ping_from(screen, world, 0, address)
}

/// Pings `address` from the container of host `from`.
pub fn ping_from(screen: &Screen, world: &World, from: usize, address: IpAddr) -> Result<String> {
    screen.step(format_args!("pinging {address}"));
    let failed = |error: TrafficError| Failure::because("cannot ping", error);
    let echoes = inside(world, from, || {
        if !icmp::wait_reachable(address, REACHABLE_WITHIN).map_err(failed)? {
            return Err(Failure::new(
                format_args!("cannot ping {address}"),
                format_args!("no answer within {} s", REACHABLE_WITHIN.as_secs()),
                "report it, with the output of `weave demo`",
            ));
        }
        icmp::ping(address, PINGS.0, PINGS.1).map_err(failed)
    })??;
    let mut times = echoes.round_trips;
    times.sort_unstable();
    let median = times.get(times.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e3);
    Ok(format!("{address}: {} of {} answered, {median:.2} ms", times.len(), PINGS.0))
}

/// One TCP stream as fast as it goes.
pub fn tcp(screen: &Screen, world: &World) -> Result<Tcp> {
    screen.step("sending one TCP stream");
    let failed = |error: TrafficError| Failure::because("cannot measure a TCP stream", error);
    let sink = inside(world, 1, || stream::Sink::bind(any_port(world)))?.map_err(failed)?;
    let source = inside(world, 0, || stream::Source::connect(sink.address(), 1))?.map_err(failed)?;
    let routers = world.routers()?;
    let mut usage = [Usage::default(); 2];
    let mut observe = |edge: Edge| {
        let at = match edge {
            Edge::Begin => &mut usage[0],
            Edge::End => &mut usage[1],
        };
        // A router that is gone breaks the stream, which says more.
        *at = Usage::of_all(&routers).unwrap_or_default();
    };
    let carried = stream::measure(&sink, source, Window::of(COUNTED), &mut observe).map_err(failed)?;
    let cpu = usage[1].cpu_since(&usage[0]).as_secs_f64();
    let gigabytes = carried.bytes as f64 / 1e9;
    Ok(Tcp {
        throughput: format!("{:.2} Gbit/s", carried.gigabits_per_second()),
        cpu: format!("{:.2} s per GB, both routers together", cpu / gigabytes.max(f64::MIN_POSITIVE)),
    })
}

/// Round trips of small requests.
pub fn latency(screen: &Screen, world: &World) -> Result<String> {
    screen.step("measuring latency");
    let failed = |error: TrafficError| Failure::because("cannot measure latency", error);
    let responder =
        inside(world, 1, || Responder::start(Transport::Udp, any_port(world)))?.map_err(failed)?;
    let prober =
        inside(world, 0, || Prober::connect(Transport::Udp, responder.address()))?.map_err(failed)?;
    let latency = prober.measure(REQUEST_RATE, Window::of(COUNTED)).map_err(failed)?;
    Ok(format!(
        "p50 {:.0} µs, p90 {:.0} µs, p99 {:.0} µs, p99.9 {:.0} µs (UDP, {REQUEST_RATE} round trips a second, {} lost)",
        latency.p50_us(),
        latency.p90_us(),
        latency.p99_us(),
        latency.p999_us(),
        latency.lost
    ))
}

/// Small datagrams as fast as they go.
pub fn packets(screen: &Screen, world: &World) -> Result<String> {
    screen.step("sending small packets");
    let failed = |error: TrafficError| Failure::because("cannot measure small packets", error);
    let receiver = inside(world, 1, || Receiver::bind(any_port(world)))?.map_err(failed)?;
    let sender = inside(world, 0, || Sender::connect(receiver.address()))?.map_err(failed)?;
    let load = Load::full_rate(SMALL_BYTES);
    let delivery =
        udp::measure(&receiver, &sender, load, Window::of(COUNTED), &mut |_| {}).map_err(failed)?;
    Ok(format!(
        "{:.0} a second delivered, of {SMALL_BYTES} bytes (UDP, {:.0} a second sent)",
        delivery.rate(),
        delivery.window_sent as f64 / delivery.seconds
    ))
}

/// What the routers hold.
pub fn memory(world: &World) -> Result<String> {
    let mut sizes = Vec::with_capacity(2);
    for pid in world.routers()? {
        let usage = Usage::of(pid).map_err(|error| Failure::because("cannot measure memory", error))?;
        sizes.push(format!("{} MiB", usage.resident_bytes >> 20));
    }
    Ok(format!("{}, the routers", sizes.join(" and ")))
}

fn any_port(world: &World) -> SocketAddr {
    (world.target(), 0).into()
}

/// Runs `work` in container `index`.
fn inside<T: Send>(world: &World, index: usize, work: impl FnOnce() -> T + Send) -> Result<T> {
    world.container(index).run(work).map_err(|error| Failure::because("cannot enter a container", error))
}
