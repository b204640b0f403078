//! More than two hosts, launched in the order that the test says.

use std::time::{Duration, Instant};

use weave_perf::lab::{Place, Way};
use weave_tests::world::v4;
use weave_tests::{Options, Pings, World};

const WITHIN: Duration = Duration::from_secs(20);
const PINGED: Duration = Duration::from_secs(1);

/// Pings from each of `from` to the container of host `to`; none may be lost.
#[track_caller]
fn all_arrive(world: &World, from: &[usize], to: usize) {
    for from in from {
        world.wait_ping(*from, v4(to).into(), WITHIN);
        let pings = Pings::between(world, *from, v4(to).into());
        pings.wait_answer(Instant::now() + PINGED, WITHIN, "a second later");
        pings.finish().assert_whole(&format!("from host {from} to host {to}"));
    }
}

#[test]
fn three_hosts_dial_the_one_that_was_launched_first() {
    let world = World::new(Options::encrypted().count(3).launches(&[(2, &[]), (0, &[2]), (1, &[2])]));
    all_arrive(&world, &[0, 1], 2);
    world.stop(0);
    world.launch_to(0, &[2]);
    world.wait_linked(0, 2, WITHIN);
}

#[test]
fn hosts_on_segments_of_their_own_both_reach_the_one_between_them() {
    let places = vec![Place::on(&[1, 2]), Place::on(&[1]), Place::on(&[2])];
    let options = Options::encrypted().count(3).places(places).not_launched().args("--no-discovery");
    let world = World::new(options);
    world.lab().set_way(1, 2, Way::Closed).unwrap();
    world.launch(0, &[]);
    for (index, segment) in [(1, 1), (2, 2)] {
        world.launch(index, &[&weave_perf::lab::v4(segment, 1).to_string()]);
        world.wait_linked(index, 0, WITHIN);
    }
    all_arrive(&world, &[1, 2], 0);
}
