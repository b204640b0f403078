//! A network that loses, doubles, delays, damages and repeats datagrams.

use std::sync::atomic::Ordering;
use std::time::Duration;

use weave_tests::numbered::{self, Stream};
use weave_tests::random::Random;
use weave_tests::relay::{Faults, Relay};
use weave_tests::world::v4;
use weave_tests::{Options, World};

const FAULTS: Faults = Faults {
    lose: 50,
    double: 50,
    delay: 100,
    damage: 50,
    repeat: 50,
    one_port: None,
    blocked: [false; 2],
    clog: None,
    mtu: None,
};
const STREAMS: [Stream; 3] = [
    Stream { from: 0, to: 1, v6: false, bytes: 64, rate: 2_000 },
    Stream { from: 1, to: 0, v6: false, bytes: 600, rate: 1_000 },
    Stream { from: 0, to: 1, v6: true, bytes: 1300, rate: 1_000 },
];

/// Numbered frames through the trouble for `seconds`, keys changing every second.
fn trouble(seconds: u64) {
    let world = World::pair(Options::encrypted().env("WEAVE_TEST_REKEY_MS", "1000").not_launched());
    let relay = Relay::between(&world, FAULTS, Random::from_environment(), false);
    world.launch(0, &[]);
    world.launch(1, &[&Relay::HOST0.to_string()]);
    world.wait_established();
    world.wait_ping(0, v4(1).into(), Duration::from_secs(10));
    let routers = [0, 1].map(|index| world.status(index).pid);
    relay.set_faulty(true);
    let warm_up = numbered::send(&world, &STREAMS, Duration::from_secs(4));
    numbered::intact(&warm_up);
    let before = [0, 1].map(|index| numbered::memory(&world, index));
    let deliveries = numbered::send(&world, &STREAMS, Duration::from_secs(seconds));
    let after = [0, 1].map(|index| numbered::memory(&world, index));
    numbered::intact(&deliveries);
    let tally = relay.tally();
    for delivery in &deliveries {
        // 5 % lost and 5 % damaged, each on its way.
        let loss = delivery.loss();
        assert!((0.05..0.25).contains(&loss), "{loss:.3} lost: {delivery:#?}\n{tally:#?}");
    }
    for (what, count) in
        [("damaged", &tally.damaged), ("repeated", &tally.repeated), ("doubled", &tally.doubled)]
    {
        assert!(count.load(Ordering::Relaxed) > 100, "few {what}: {tally:#?}");
    }
    for index in [0, 1] {
        let grown = after[index].saturating_sub(before[index]);
        assert!(grown < 2 << 20, "router {index} grew by {grown} bytes");
        assert_eq!(world.status(index).pid, routers[index], "router {index} is another one");
        assert!(world.link(index).is_some(), "router {index} has lost its link");
        for reason in ["forged", "replayed"] {
            assert!(world.drops(index, reason) > 0, "{:?}", numbered::all_drops(&world, index));
        }
    }
    // Without trouble nothing is lost, so nothing above has left a mark.
    relay.set_faulty(false);
    let quiet = numbered::send(&world, &STREAMS, Duration::from_secs(1));
    numbered::intact(&quiet);
    numbered::send_complete(&world, &STREAMS, Duration::from_secs(1));
    relay.finish();
}

#[test]
fn paced_a_bad_network_doubles_and_damages_nothing() {
    trouble(6);
}

#[test]
fn long_a_bad_network_doubles_and_damages_nothing() {
    trouble(20);
}
