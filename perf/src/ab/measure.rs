//! One round of one tunnel: build the hosts, start it, measure, remove.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use weave_perf::lab::MemoryUse;
use weave_perf::machine::CpuTimes;
use weave_perf::process::{Usage, UsageError};
use weave_perf::traffic::{Edge, Window, icmp, ping, tcp, udp};

use super::Options;
use super::error::{Error, Result};
use super::metric::{Metric, Sample};
use super::peer::Peer;
use super::world::{End, World};

/// Payload of the small datagrams, bytes.
const SMALL_PAYLOAD: usize = 64;

/// IPv4 and UDP header, bytes.
const IP_UDP_HEADERS: usize = 28;

/// Requests a second while round trips are measured: far below what loads anything.
const REQUESTS_PER_SECOND: NonZeroU32 = NonZeroU32::MIN.saturating_add(999);

/// How long the machine is watched before a tunnel is started.
const BACKGROUND_TIME: Duration = Duration::from_millis(300);

/// How long traffic trickles before a tunnel that finds its best way late is measured.
const SETTLING: (u16, Duration) = (30, Duration::from_millis(100));

/// The steps of [`round`], as named to its observer.
pub const STEPS: [&str; 6] =
    ["start", "TCP, 1 stream", "TCP, 4 streams", "UDP, 64 bytes", "UDP, MTU size", "round trips"];

/// Runs one round; `step` hears the name of each step as it begins.
///
/// Returns what was measured, and why it ended early if it did.
pub fn round(peer: &dyn Peer, options: &Options, step: &mut dyn FnMut(&str)) -> (Sample, Result<()>) {
    let mut sample = Sample::new();
    let underlay = options.underlay_offload.underlay();
    let ended = World::build(peer.layer(), peer.mtu(), underlay).and_then(|mut world| {
        let mut bench = Bench { peer, window: options.window(), sample: &mut sample };
        let ended = bench.run(&mut world, step);
        peer.stop(&world);
        // A tunnel that does not come up may be one that had no memory to.
        bench.memory(&world).and(ended)
    });
    (sample, ended)
}

struct Bench<'a> {
    peer: &'a dyn Peer,
    window: Window,
    sample: &'a mut Sample,
}

impl Bench<'_> {
    fn run(&mut self, world: &mut World, step: &mut dyn FnMut(&str)) -> Result<()> {
        let [start, tcp1, tcp4, small, large, round_trips] = STEPS;
        step(start);
        self.background()?;
        let pids = self.peer.start(world)?;
        world.check_limited(&pids)?;
        world.wait_ready()?;
        if self.peer.settles() {
            let (count, interval) = SETTLING;
            let far = world.far_address().into();
            world.in_container(End::A, || Ok(icmp::ping(far, count, interval)?))?;
        }
        step(tcp1);
        let (gigabits, cpu) = self.tcp(world, 1, &pids)?;
        self.sample.insert(Metric::Tcp1, gigabits);
        self.sample.extend(cpu.map(|cpu| (Metric::CpuPerGigabyte, cpu)));
        step(tcp4);
        let (gigabits, _) = self.tcp(world, 4, &pids)?;
        self.sample.insert(Metric::Tcp4, gigabits);
        step(small);
        let delivery = self.udp(world, SMALL_PAYLOAD)?;
        self.sample.insert(Metric::UdpSmall, delivery.rate());
        self.sample.insert(Metric::UdpSmallLoss, delivery.loss());
        step(large);
        let delivery = self.udp(world, self.peer.mtu() as usize - IP_UDP_HEADERS)?;
        self.sample.insert(Metric::UdpLarge, delivery.rate());
        self.sample.insert(Metric::UdpLargeLoss, delivery.loss());
        step(round_trips);
        self.round_trips(world)?;
        let memory = pids.iter().map(|pid| Usage::of(*pid)).collect::<Result<Vec<_>, _>>()?;
        let largest = memory.iter().map(|usage| usage.resident_bytes).max();
        self.sample.extend(largest.map(|bytes| (Metric::Memory, bytes as f64)));
        Ok(())
    }

    /// What the hosts used of the memory that they may have, if that is limited.
    fn memory(&mut self, world: &World) -> Result<()> {
        let Some(MemoryUse { peak_bytes, kills }) = world.memory_use() else { return Ok(()) };
        self.sample.insert(Metric::HostMemory, peak_bytes as f64);
        self.sample.insert(Metric::Killed, kills as f64);
        if kills == 0 { Ok(()) } else { Err(Error::Killed { kills }) }
    }

    /// How busy the machine is although nothing is measured.
    fn background(&mut self) -> Result<()> {
        let times = || CpuTimes::now().map_err(|e| Error::file("read", "/proc/stat", e));
        let before = times()?;
        std::thread::sleep(BACKGROUND_TIME);
        self.sample.insert(Metric::Background, times()?.busy_share_since(&before));
        Ok(())
    }

    /// Gbit/s of so many streams, and CPU seconds of the processes per 10^9 bytes.
    fn tcp(&self, world: &World, streams: usize, pids: &[u32]) -> Result<(f64, Option<f64>)> {
        let far = SocketAddr::from((world.far_address(), 0));
        let sink = world.in_container(End::B, || Ok(tcp::Sink::bind(far)?))?;
        let source = world.in_container(End::A, || Ok(tcp::Source::connect(sink.address(), streams)?))?;
        let mut readings: Vec<Result<Usage, UsageError>> = Vec::with_capacity(2);
        let carried = tcp::measure(&sink, source, self.window, &mut |_: Edge| {
            readings.push(Usage::of_all(pids));
        })?;
        let readings = readings.into_iter().collect::<Result<Vec<_>, _>>()?;
        let cpu = match readings.as_slice() {
            [before, after] if !pids.is_empty() && carried.bytes > 0 => {
                Some(after.cpu_since(before).as_secs_f64() * 1e9 / carried.bytes as f64)
            }
            _ => None,
        };
        Ok((carried.gigabits_per_second(), cpu))
    }

    fn udp(&self, world: &World, payload_bytes: usize) -> Result<udp::Delivery> {
        let far = SocketAddr::from((world.far_address(), 0));
        let receiver = world.in_container(End::B, || Ok(udp::Receiver::bind(far)?))?;
        let address = receiver.address();
        let sender = world.in_container(End::A, || Ok(udp::Sender::connect(address)?))?;
        let load = udp::Load::full_rate(payload_bytes);
        Ok(udp::measure(&receiver, &sender, load, self.window, &mut |_| ())?)
    }

    fn round_trips(&mut self, world: &World) -> Result<()> {
        let far = SocketAddr::from((world.far_address(), 0));
        let transport = ping::Transport::Udp;
        let responder = world.in_container(End::B, || Ok(ping::Responder::start(transport, far)?))?;
        let address = responder.address();
        let prober = world.in_container(End::A, || Ok(ping::Prober::connect(transport, address)?))?;
        let latency = prober.measure(REQUESTS_PER_SECOND, self.window)?;
        if latency.answered() > 0 {
            self.sample.insert(Metric::RoundTripP50, latency.p50_us());
            self.sample.insert(Metric::RoundTripP99, latency.p99_us());
        }
        Ok(())
    }
}
