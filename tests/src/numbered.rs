//! Numbered datagrams between the containers, every byte checked, and what became of them.

use std::net::IpAddr;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use weave_perf::traffic::Window;
use weave_perf::traffic::udp::{Delivery, Load, Receiver, Sender, measure};

use crate::losses::KernelDrops;
use crate::world::{v4, v6};
use crate::{World, wait_until};

/// A queue of ten thousand frames runs out in much less.
const CALM: Duration = Duration::from_millis(300);

/// A stream of numbered datagrams.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    /// Container that sends.
    pub from: usize,
    /// Container that receives.
    pub to: usize,
    /// By IPv6.
    pub v6: bool,
    /// Payload, bytes.
    pub bytes: usize,
    /// Datagrams a second.
    pub rate: u64,
}

/// Sends all `streams` side by side for `duration`.
#[must_use]
pub fn send(world: &World, streams: &[Stream], duration: Duration) -> Vec<Delivery> {
    let ends: Vec<_> = streams
        .iter()
        .map(|stream| {
            let address: IpAddr = if stream.v6 { v6(stream.to).into() } else { v4(stream.to).into() };
            let receiver = world.inside(stream.to, || Receiver::bind((address, 0).into()).unwrap());
            let sender = world.inside(stream.from, || Sender::connect(receiver.address()).unwrap());
            (receiver, sender)
        })
        .collect();
    std::thread::scope(|scope| {
        let running: Vec<_> = ends
            .iter()
            .zip(streams)
            .map(|((receiver, sender), stream)| {
                let rate = NonZeroU64::new(stream.rate);
                let load = Load { payload_bytes: stream.bytes, rate, check_content: true };
                let window = Window { warm_up: Duration::ZERO, duration };
                scope.spawn(move || measure(receiver, sender, load, window, &mut |_| {}).unwrap())
            })
            .collect();
        running.into_iter().map(|running| running.join().unwrap()).collect()
    })
}

/// Ends the test if anything was doubled or damaged.
#[track_caller]
pub fn intact(deliveries: &[Delivery]) {
    for delivery in deliveries {
        let wrong = delivery.duplicates + delivery.corrupted + delivery.too_late;
        assert_eq!(wrong, 0, "doubled, damaged or too late: {delivery:#?}");
    }
}

/// Sends `streams` as [`send`] does and ends the test if anything was doubled, damaged or lost,
/// but for what the kernel says that it dropped itself: on a machine busy with other things its
/// queues overflow. More than one in a hundred is too much also then. What was sent.
#[track_caller]
pub fn send_complete(world: &World, streams: &[Stream], duration: Duration) -> Vec<Delivery> {
    let before = KernelDrops::read(world);
    let deliveries = send(world, streams, duration);
    intact(&deliveries);
    let kernel = KernelDrops::read(world).since(&before);
    let (sent, lost) = deliveries.iter().fold((0, 0), |(sent, lost), d| (sent + d.sent, lost + d.lost()));
    assert!(deliveries.iter().all(|delivery| delivery.sent > 0), "nothing was sent");
    assert!(
        lost <= kernel.total() && lost * 100 <= sent,
        "{lost} of {sent} lost; dropped by the kernel: {kernel:#?}\nby routers: {:?}\n{deliveries:#?}",
        world.indices().iter().map(|index| all_drops(world, *index)).collect::<Vec<_>>()
    );
    if lost > 0 {
        eprintln!("{lost} of {sent} lost; dropped by the kernel: {kernel:?}");
    }
    deliveries
}

/// Waits until what a flood left in the queues of kernel and routers has run out: nothing drops
/// anything for [`CALM`].
#[track_caller]
pub fn wait_calm(world: &World, within: Duration) {
    let drops = || {
        let routers: Vec<_> = world.indices().iter().map(|index| all_drops(world, *index)).collect();
        (KernelDrops::read(world), routers)
    };
    let mut last = drops();
    let mut since = Instant::now();
    wait_until(
        within,
        || "frames are still being dropped".into(),
        || {
            let now = drops();
            if now != last {
                (last, since) = (now, Instant::now());
            }
            since.elapsed() >= CALM
        },
    );
}

/// Everything the router of host `index` dropped, by reason.
#[must_use]
pub fn all_drops(world: &World, index: usize) -> Vec<(usize, String, u64)> {
    let shards = world.status(index).shards;
    let of = |(number, shard): (usize, weave_api::status::Shard)| {
        shard.drops.into_iter().filter(|(_, n)| *n > 0).map(move |(reason, n)| (number, reason, n))
    };
    shards.into_iter().enumerate().flat_map(of).collect()
}

/// Memory of the router of host `index`, bytes (`VmRSS`).
#[must_use]
pub fn memory(world: &World, index: usize) -> u64 {
    resident(world.status(index).pid)
}

/// Memory of a process, bytes (`VmRSS`).
#[must_use]
pub fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
