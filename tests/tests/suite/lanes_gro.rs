//! The kernel joins received datagrams of one address pair: a source port for each lane keeps lanes
//! apart; where they share one, shards hand over.

use std::sync::atomic::Ordering;
use std::time::Duration;

use weave_tests::numbered::{self, Stream};
use weave_tests::random::Random;
use weave_tests::relay::{DEVICE, Faults, Relay};
use weave_tests::world::v4;
use weave_tests::{Options, World};

/// Several flows, which the kernel spreads over the tap queues, so that all lanes carry some.
fn flows(bytes: usize, rate: u64) -> Vec<Stream> {
    (0..8).map(|number| Stream { from: 0, to: 1, v6: number % 2 == 1, bytes, rate }).collect()
}

/// Two hosts joined by a relay, GRO and the timing of a busy network card at both.
fn world(faults: Faults) -> (World, Relay) {
    let world = World::pair(Options::encrypted().args("--cores 0,1").not_launched());
    let relay = Relay::between(&world, faults, Random::new(1), true);
    for index in [0, 1] {
        world.host(index).set_gro_timing(DEVICE, Duration::from_millis(2), 20).unwrap();
    }
    world.launch(0, &[]);
    world.launch(1, &[&Relay::HOST0.to_string()]);
    world.wait_established();
    world.wait_ping(0, v4(1).into(), Duration::from_secs(10));
    world.wait_ping(1, v4(0).into(), Duration::from_secs(10));
    (world, relay)
}

/// Datagrams sent by each shard of host 0.
fn by_lane(world: &World) -> Vec<u64> {
    world.status(0).shards.iter().map(|shard| shard.counters["datagrams_sent"]).collect()
}

/// Sends until every lane has carried some hundred datagrams; everything must arrive.
#[track_caller]
fn carry(world: &World, relay: &Relay) {
    let before = by_lane(world);
    assert!(before.len() >= 2, "one shard only");
    for _ in 0..5 {
        let dropped = relay.dropped();
        let deliveries = numbered::send(world, &flows(300, 500), Duration::from_secs(2));
        numbered::intact(&deliveries);
        let dropped = relay.dropped() - dropped;
        let lost: u64 = deliveries.iter().map(|delivery| delivery.lost()).sum();
        let routers = [0, 1].map(|index| numbered::all_drops(world, index));
        assert!(
            lost <= dropped,
            "{lost} lost, of which devices explain {dropped}: {deliveries:#?}\ndropped by routers: {routers:?}"
        );
        let sent: u64 = deliveries.iter().map(|delivery| delivery.sent).sum();
        assert!(lost * 20 <= sent, "{lost} of {sent} lost in devices: too many to see anything");
        if by_lane(world).iter().zip(&before).all(|(now, before)| now - before > 300) {
            return;
        }
    }
    panic!("the kernel gives all flows to one queue: {before:?} to {:?}", by_lane(world));
}

/// Datagrams that came joined to others at host 1.
fn joined(world: &World) -> u64 {
    world.counter(1, "datagrams_received") - world.counter(1, "receives")
}

#[test]
fn paced_joined_datagrams_reach_the_shard_that_owns_their_lane() {
    let (world, relay) = world(Faults::default());
    let before = joined(&world);
    carry(&world, &relay);
    let joined = joined(&world) - before;
    assert!(joined > 100, "the kernel joined {joined} datagrams only: this tests nothing");
    for index in [0, 1] {
        assert_eq!(world.counter(index, "handed_over"), 0, "host {index}");
    }
    relay.finish();
}

#[test]
fn paced_datagrams_of_lanes_that_share_a_port_are_handed_over_and_delivered() {
    let faults = Faults { one_port: Some(6783), ..Faults::default() };
    let (world, relay) = world(faults);
    carry(&world, &relay);
    let handed = world.counter(1, "handed_over");
    assert!(
        handed > 0,
        "nothing was handed over: {} datagrams renamed, {} joined",
        relay.tally().renamed.load(Ordering::Relaxed),
        joined(&world)
    );
    relay.finish();
}
