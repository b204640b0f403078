//! Strangers who send whatever they like, as fast as they can.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use weave_perf::lab::UNDERLAY;
use weave_tests::hostile::Attack;
use weave_tests::losses::KernelDrops;
use weave_tests::numbered::{self, Stream};
use weave_tests::packets::Capture;
use weave_tests::random::Random;
use weave_tests::world::v4;
use weave_tests::{Options, World, wait_until};

const GENUINE: [Stream; 2] = [
    Stream { from: 1, to: 0, v6: false, bytes: 200, rate: 1_000 },
    Stream { from: 0, to: 1, v6: true, bytes: 600, rate: 1_000 },
];
const PORT: u16 = 6783;

/// UDP payloads that the routers exchanged while `work` ran.
fn captured(world: &World, work: impl FnOnce()) -> Vec<Vec<u8>> {
    let capture = world.on_host(0, || Capture::start(UNDERLAY));
    work();
    let udp = |frame: &[u8]| frame.len() > 42 + 16 && frame[12..14] == [8, 0] && frame[23] == 17;
    let datagrams = capture.finish().into_iter().map(|frame| frame.bytes).filter(|bytes| udp(bytes));
    datagrams.map(|bytes| bytes[42..].to_vec()).filter(|datagram| datagram.len() <= 1472).collect()
}

/// `datagrams` bad datagrams and as many connections as go meanwhile.
fn flood(datagrams: u64, limit: Duration) {
    let world = World::pair(Options::encrypted());
    let mut random = Random::from_environment();
    world.wait_ping(0, v4(1).into(), Duration::from_secs(10));
    let genuine = captured(&world, || {
        numbered::send_complete(&world, &GENUINE, Duration::from_secs(1));
    });
    assert!(genuine.len() > 500, "{} datagrams captured", genuine.len());
    let router = world.status(0).pid;
    let attack = Attack::start(&world, PORT, genuine, &mut random);
    // Everything a router allocates once is there after the first tenth.
    wait_until(limit, || format!("{:?}", attack.tally()), || attack.datagrams() > datagrams / 10);
    let before = numbered::memory(&world, 0);

    // Genuine traffic: all of it, but for what the kernel says it had no room for.
    let dropped = KernelDrops::read(&world);
    let deliveries = numbered::send(&world, &GENUINE, Duration::from_secs(4));
    numbered::intact(&deliveries);
    let explained = KernelDrops::read(&world).since(&dropped);
    let lost: u64 = deliveries.iter().map(|delivery| delivery.lost()).sum();
    assert!(
        lost <= explained.total(),
        "{lost} genuine frames lost; dropped by the kernel: {explained:#?}\n{deliveries:#?}\n{:?}",
        [0, 1].map(|index| numbered::all_drops(&world, index))
    );
    println!("{lost} genuine frames lost; dropped by the kernel: {explained:?}");
    let sent: u64 = deliveries.iter().map(|delivery| delivery.sent).sum();
    assert!(lost * 2 < sent, "most genuine traffic is lost: {lost} of {sent}");
    assert!(world.link(0).is_some() && world.link(1).is_some(), "the link went down");

    // A peer that was not there before gets in.
    world.stop(1);
    world.weave(1, &["reset"]);
    world.launch(1, &[&world.underlay(0).to_string()]);
    let launched = Instant::now();
    wait_until(
        Duration::from_secs(10),
        || format!("a genuine peer does not get in: {:#?}", world.status(1).targets),
        || world.link(1).is_some(),
    );
    println!("a genuine peer got in after {:?}", launched.elapsed());

    wait_until(limit, || format!("{:?}", attack.tally()), || attack.datagrams() >= datagrams);
    let after = numbered::memory(&world, 0);
    let tally = attack.finish();
    println!("{tally:?}; memory {before} to {after}; dropped {:?}", numbered::all_drops(&world, 0));
    assert_eq!(tally.answers.load(Ordering::Relaxed), 0, "a stranger was answered: {tally:?}");
    assert!(
        tally.frames.load(Ordering::Relaxed) > 0,
        "the capture saw no connection either: it sees nothing"
    );
    // Most reset at once: a router that stumbles over each of those takes ten a second.
    assert!(tally.connections.load(Ordering::Relaxed) > 5_000, "few connections: {tally:?}");
    assert!(after.saturating_sub(before) < 8 << 20, "memory grew from {before} to {after}");
    assert_eq!(world.status(0).pid, router, "the router is another one");
    for reason in ["malformed", "unknown_session", "forged", "replayed"] {
        assert!(world.drops(0, reason) > 0, "none {reason}: {:?}", numbered::all_drops(&world, 0));
    }
    world.attach(1);
    world.wait_ping(0, v4(1).into(), Duration::from_secs(10));
}

#[test]
fn alone_100000_bad_datagrams_change_nothing() {
    flood(100_000, Duration::from_secs(25));
}

#[test]
fn long_a_million_bad_datagrams_and_garbage_connections_change_nothing() {
    flood(1_000_000, Duration::from_secs(120));
}
