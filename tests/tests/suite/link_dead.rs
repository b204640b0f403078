//! Peers that fall silent and come back.

use nix::sys::signal::Signal;
use std::time::{Duration, Instant};
use weave_tests::world::{LINK_WITHIN, v4};
use weave_tests::{Options, World, wait_until};

/// Silence after which everybody knows that a peer is dead.
const DEAD_WITHIN: Duration = Duration::from_secs(10);
/// No sooner: that would be a link taken down by a hiccup.
const ALIVE_FOR: Duration = Duration::from_secs(5);
/// Heartbeats sent meanwhile, four a second, at least.
const UNANSWERED: u64 = 16;
/// From the peer's return to traffic.
const BACK_WITHIN: Duration = Duration::from_secs(15);

#[test]
fn a_router_that_stands_still_is_dead_within_ten_seconds_and_linked_again_when_it_goes_on() {
    let world = World::pair(Options::encrypted());
    let process = world.router(1);
    process.signal(Signal::SIGSTOP).unwrap();
    wait_dead(&world, &[0]);
    process.signal(Signal::SIGCONT).unwrap();
    wait_back(&world);
}

#[test]
fn an_underlay_that_is_down_is_known_to_both_within_ten_seconds_and_the_link_comes_back_with_it() {
    let world = World::pair(Options::encrypted());
    // Carrier stays: what is seen is silence, as behind a switch.
    for index in [0, 1] {
        world.tool(index, "iptables -w -A INPUT -i eth0 -j DROP");
    }
    wait_dead(&world, &[0, 1]);
    for index in [0, 1] {
        world.tool(index, "iptables -w -F INPUT");
    }
    wait_back(&world);
    // And with the device itself down.
    world.tool(0, "ip link set eth0 down");
    wait_dead(&world, &[0, 1]);
    world.tool(0, "ip link set eth0 up");
    wait_back(&world);
}

#[test]
fn one_direction_that_is_dead_is_a_dead_link_for_both() {
    let world = World::pair(Options::encrypted());
    world.tool(0, "iptables -w -A INPUT -i eth0 -p udp -j DROP");
    wait_dead(&world, &[0, 1]);
    // Until then they followed each other fast.
    let unanswered = [0, 1].map(|index| world.status(index).counters["heartbeats_unanswered"]);
    assert!(unanswered.iter().all(|count| *count >= UNANSWERED), "{unanswered:?} heartbeats had no answer");
    world.tool(0, "iptables -w -F INPUT");
    // UDP was blocked while TCP passed: a dial may be pending for its 15 s.
    wait_established_within(&world, BACK_WITHIN + BACK_WITHIN);
}

#[track_caller]
fn wait_dead(world: &World, hosts: &[usize]) {
    let begun = Instant::now();
    for index in hosts {
        wait_until(
            DEAD_WITHIN.saturating_sub(begun.elapsed()),
            || format!("host {index} does not know that its peer is dead: {:?}", world.link(*index)),
            || world.link(*index).is_none(),
        );
        // A dial of the peer may take the place of the dead link before this end gives it up.
        let status = world.status(*index);
        let says_why = status.targets.iter().all(|target| target.reason.is_some());
        assert!(says_why || status.counters["links_lost"] == 0, "no reason: {:#?}", status.targets);
    }
    assert!(begun.elapsed() > ALIVE_FOR, "given up after a silence of {:?}", begun.elapsed());
}

#[track_caller]
fn wait_back(world: &World) {
    wait_established_within(world, BACK_WITHIN);
    world.wait_ping(0, v4(1).into(), LINK_WITHIN);
    world.wait_ping(1, v4(0).into(), LINK_WITHIN);
}

#[track_caller]
fn wait_established_within(world: &World, limit: Duration) {
    wait_until(
        limit,
        || format!("{:#?}", [0, 1].map(|index| world.status(index).connections)),
        || [0, 1].iter().all(|index| world.link(*index).is_some()),
    );
}
