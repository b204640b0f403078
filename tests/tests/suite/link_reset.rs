//! The TCP connection of a link is reset while datagrams flow.

use std::time::{Duration, Instant};
use weave_tests::flow::Flow;
use weave_tests::world::{v4, v6};
use weave_tests::{Options, World, wait_until};

/// Datagrams a second each way.
const RATE: u32 = 1000;
/// Time to be resumed on a busy machine; three probes decide within 600 ms.
const RESUMED_WITHIN: Duration = Duration::from_secs(5);
/// Resets from each side.
const RESETS: u64 = 3;

/// The TCP connections of links, in the language of `ss`.
const MESH: &str = "state established ( sport = :6783 or dport = :6783 )";

fn connections(world: &World, index: usize) -> usize {
    world.tool(index, &format!("ss -H -t {MESH}")).lines().count()
}

#[test]
fn paced_a_tcp_reset_loses_and_doubles_no_packet_and_the_link_is_resumed() {
    let world = World::pair(Options::encrypted());
    let flows = [
        Flow::start(world.container(0), world.container(1), v4(1).into(), RATE),
        Flow::start(world.container(1), world.container(0), v6(0).into(), RATE),
    ];
    for flow in &flows {
        flow.wait_passes(Instant::now(), RESUMED_WITHIN, "before the first reset");
    }
    let resumptions = || [0, 1].map(|index| world.status(index).counters["resumptions"]);
    for number in 1..=2 * RESETS {
        // The kernel ends the connection and sends a reset to the other side.
        let host = (number % 2) as usize;
        let before = resumptions();
        let ended = world.tool(host, &format!("ss -H -K -t {MESH}"));
        // It may end the connection that took its place, too.
        assert!(!ended.is_empty(), "there was no connection to end before reset {number}");
        // Both ends may dial at once; then one of the two new connections stays.
        wait_until(
            RESUMED_WITHIN,
            || format!("the link is not resumed after reset {number}; before: {before:?}"),
            || {
                let after = resumptions();
                let whole = [0, 1].iter().all(|index| !world.degraded(*index).contains(&"tcp_lost".into()));
                whole
                    && (0..2).all(|index| after[index] > before[index])
                    && (0..2).all(|index| connections(&world, index) == 1)
            },
        );
    }
    for flow in flows {
        flow.finish().assert_whole("while TCP was reset");
    }
    for index in [0, 1] {
        let counters = world.status(index).counters;
        assert_eq!((counters["links_lost"], counters["links_made"]), (0, 1), "host {index}");
    }
}
