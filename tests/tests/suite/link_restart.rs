//! A router that ends, by force or by command, and comes back.

use std::time::{Duration, Instant};
use weave_tests::flow::{Flow, Talk};
use weave_tests::world::{v4, v6};
use weave_tests::{Options, World};

/// Time from the return of `weave launch` to the first datagram between hosts.
const TRAFFIC_WITHIN: Duration = Duration::from_secs(2);
/// Datagrams a second between two containers of one host: an interruption of five milliseconds is seen.
const LOCAL_RATE: u32 = 200;
/// Datagrams a second between the hosts.
const REMOTE_RATE: u32 = 50;
/// A TCP connection sends again what was lost after a wait that doubles; this is long enough.
const TCP_WITHIN: Duration = Duration::from_secs(15);

#[test]
fn a_router_killed_three_times_loses_no_local_datagram_and_is_back_within_two_seconds() {
    kill_and_launch(3);
}

#[test]
fn long_a_router_killed_twenty_times_loses_no_local_datagram_and_is_back_within_two_seconds() {
    kill_and_launch(20);
}

fn kill_and_launch(times: usize) {
    let world = World::pair(Options::encrypted());
    let neighbour = world.lab().container("neighbour").unwrap();
    world.weave(0, &["attach", "10.32.1.9/24", "fd32:0:0:1::9/64", neighbour.spec()]).ok();
    let local = [
        Flow::start(world.container(0), &neighbour, "10.32.1.9".parse().unwrap(), LOCAL_RATE),
        Flow::start(&neighbour, world.container(0), v6(0).into(), LOCAL_RATE),
    ];
    let remote = [
        Flow::start(world.container(0), world.container(1), v4(1).into(), REMOTE_RATE),
        Flow::start(world.container(1), world.container(0), v6(0).into(), REMOTE_RATE),
    ];
    for flow in &remote {
        flow.wait_passes(Instant::now(), TCP_WITHIN, "before the first kill");
    }
    let talk = Talk::start(world.container(0), world.container(1), v4(1).into(), Duration::from_millis(50));
    for round in 1..=times {
        world.kill(0);
        world.launch(0, &[]);
        let back = Instant::now();
        for flow in &remote {
            flow.wait_passes(back, TRAFFIC_WITHIN, &format!("after kill {round}"));
        }
        talk.wait_answer(TCP_WITHIN);
    }
    talk.finish();
    for flow in local {
        flow.finish().assert_whole("between two containers of the host whose router was killed");
    }
    for flow in remote {
        let flowed = flow.finish();
        assert!(flowed.doubled().is_empty(), "{flowed:?}");
    }
}

#[test]
fn a_router_that_was_stopped_leaves_local_traffic_and_interfaces_and_is_back_within_two_seconds() {
    let world = World::pair(Options::encrypted());
    let neighbour = world.lab().container("neighbour").unwrap();
    world.weave(0, &["attach", "10.32.1.9/24", neighbour.spec()]).ok();
    let local = Flow::start(world.container(0), &neighbour, "10.32.1.9".parse().unwrap(), LOCAL_RATE);
    let remote = Flow::start(world.container(1), world.container(0), v4(0).into(), REMOTE_RATE);
    remote.wait_passes(Instant::now(), TCP_WITHIN, "before the stop");
    let addresses = || world.tool_inside(0, "ip -br address show ethwe");
    let before = addresses();
    world.stop(0);
    assert_eq!(addresses(), before, "the interface of the container changed by the stop");
    let stopped = Instant::now();
    local.wait_passes(stopped, TRAFFIC_WITHIN, "between local containers while the router is stopped");
    world.launch(0, &[]);
    remote.wait_passes(Instant::now(), TRAFFIC_WITHIN, "after the launch");
    assert_eq!(addresses(), before, "the interface of the container changed by the launch");
    local.finish().assert_whole("between two containers of the host whose router was stopped");
}
