//! Peers that fall silent and come back.

use nix::sys::signal::Signal;
use std::time::{Duration, Instant};
use weave_api::status::ConnectionState;
use weave_tests::world::{LINK_WITHIN, v4};
use weave_tests::{Options, World, wait_until};

/// Silence after which everybody knows that a peer is dead.
const DEAD_WITHIN: Duration = Duration::from_secs(10);
/// No sooner: that would be a link taken down by a hiccup.
const ALIVE_FOR: Duration = Duration::from_secs(5);
/// Heartbeats sent meanwhile, four a second, at least.
const UNANSWERED: u64 = 16;
/// TCP that hears nothing ends so long after.
const TCP_TIMES_OUT: Duration = Duration::from_secs(10);
/// How long before that nothing passes any more. Heartbeats take longer to give up.
const CUT: Duration = Duration::from_secs(3);
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

#[test]
fn a_link_whose_tcp_timed_out_while_its_path_was_cut_lives_on() {
    let world = World::pair(Options::encrypted());
    // What host 0 waited for in vain it is told in place of the time-out: "No route to host".
    let whats = ["No route to host", "Connection timed out"];
    let ended = |index: usize| world.log(index).contains(&format!("TCP of a link ended: {}", whats[index]));
    let rules = ["DROP", "REJECT --reject-with icmp-host-unreachable"]
        .map(|target| format!("INPUT -i eth0 -p tcp -j {target}"));
    for (index, rule) in rules.iter().enumerate() {
        world.tool(index, &format!("iptables -w -I {rule}"));
    }
    // Something to tell: from then on host 0 waits for its being received.
    world.weave(0, &["dns-add", "192.0.2.1", "-h", "some.weave.local"]).ok();
    // Heartbeats pass until shortly before.
    std::thread::sleep(TCP_TIMES_OUT - CUT);
    assert!(!ended(0));
    world.tool(0, "iptables -w -I INPUT -i eth0 -p udp -j DROP");
    wait_until(CUT * 2, || "TCP does not time out".into(), || [0, 1].iter().all(|index| ended(*index)));
    // Longer than three probes take.
    std::thread::sleep(Duration::from_secs(1));
    for (index, rule) in rules.iter().enumerate() {
        world.tool(index, &format!("iptables -w -D {rule}"));
    }
    world.tool(0, "iptables -w -D INPUT -i eth0 -p udp -j DROP");
    wait_back(&world);
    assert_eq!([0, 1].map(|index| world.status(index).counters["links_lost"]), [0, 0]);
}

#[track_caller]
fn wait_dead(world: &World, hosts: &[usize]) {
    let begun = Instant::now();
    let lost = |index: usize| world.status(index).counters["links_lost"];
    let lost_before: Vec<_> = hosts.iter().map(|index| lost(*index)).collect();
    for (index, before) in hosts.iter().zip(lost_before) {
        wait_until(
            DEAD_WITHIN.saturating_sub(begun.elapsed()),
            || format!("host {index} does not know that its peer is dead: {:?}", world.link(*index)),
            || world.link(*index).is_none(),
        );
        // A second dial that is not established yet may have the dead link's target by then, or one of the
        // peer its place.
        let status = world.status(*index);
        let says_why = status.targets.iter().all(|target| target.reason.is_some());
        let is_pending = status.connections.iter().any(|link| link.state == ConnectionState::Pending);
        assert!(says_why || is_pending, "no reason: {status:#?}");
        assert!(status.counters["links_lost"] > before, "a loss that is not counted: {status:#?}");
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
