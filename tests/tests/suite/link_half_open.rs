//! A TCP connection of a link that one end has lost and the other still believes in.

use std::time::{Duration, Instant};

use weave_tests::flow::Flow;
use weave_tests::world::{v4, v6};
use weave_tests::{Options, World, wait_until};

/// Datagrams a second each way.
const RATE: u32 = 1000;
/// Re-keying is what TCP carries: often, so that a reset meets it.
const REKEY_MS: &str = "500";
/// Time to be resumed on a busy machine.
const RESUMED_WITHIN: Duration = Duration::from_secs(10);

fn counters(world: &World, name: &str) -> [u64; 2] {
    [0, 1].map(|index| world.status(index).counters[name])
}

fn has_tcp(world: &World, index: usize) -> bool {
    world.link(index).is_some() && !world.degraded(index).contains(&"tcp_lost".into())
}

#[test]
fn paced_a_reset_that_only_one_end_gets_loses_and_doubles_no_packet() {
    let world = World::pair(Options::encrypted().env("WEAVE_TEST_REKEY_MS", REKEY_MS));
    let flows = [
        Flow::start(world.container(0), world.container(1), v4(1).into(), RATE),
        Flow::start(world.container(1), world.container(0), v6(0).into(), RATE),
    ];
    for flow in &flows {
        flow.wait_passes(Instant::now(), RESUMED_WITHIN, "before the first reset");
    }
    for victim in [0, 1, 0, 1] {
        let (other, before) = (1 - victim, counters(&world, "resumptions"));
        // Segments of the victim are answered by a reset; its peer never sees them.
        let rule =
            format!("INPUT -p tcp ! --syn -s {} -j REJECT --reject-with tcp-reset", world.underlay(victim));
        world.tool(other, &format!("iptables -w -A {rule}"));
        wait_until(
            RESUMED_WITHIN,
            || format!("host {victim} does not notice the reset: {:#?}", world.link(victim)),
            || !has_tcp(&world, victim),
        );
        world.tool(other, &format!("iptables -w -D {rule}"));
        wait_until(
            RESUMED_WITHIN,
            || format!("the link is not resumed; {:#?}", [0, 1].map(|index| world.link(index))),
            || {
                let after = counters(&world, "resumptions");
                (0..2).all(|index| after[index] > before[index] && has_tcp(&world, index))
            },
        );
        // What TCP is for goes on over the new connection.
        let rekeys = counters(&world, "rekeys");
        wait_until(
            RESUMED_WITHIN,
            || format!("no re-key after the link was resumed: {rekeys:?}"),
            || counters(&world, "rekeys").iter().zip(rekeys).all(|(now, before)| *now > before + 1),
        );
    }
    for flow in flows {
        flow.finish().assert_whole("while TCP was reset at one end");
    }
    assert_eq!(counters(&world, "links_lost"), [0, 0]);
    assert_eq!(counters(&world, "links_made"), [1, 1]);
}
