//! Paths that are cut for a moment or for longer, in one direction or both.

use std::time::{Duration, Instant};

use weave_perf::lab::Traffic;
use weave_tests::Pings;
use weave_tests::flow::Flow;
use weave_tests::random::Random;
use weave_tests::world::{LINK_WITHIN, Options, World, v4, wait_until};

/// Time from the end of a short cut until both directions pass data.
const PASSES_WITHIN: Duration = Duration::from_secs(3);
/// Time until a way without the black hole is found.
const REROUTED_WITHIN: Duration = Duration::from_secs(10);
/// Datagrams a second in each direction.
const RATE: u32 = 50;

/// Cuts the only path between host 0 and host `far` so many times, each for 0.1 to 3 s.
fn cut_again_and_again(world: &World, far: usize, cuts: u32, mut random: Random) -> Duration {
    let there = Flow::start(world.container(0), world.container(far), v4(far).into(), RATE);
    let back = Flow::start(world.container(far), world.container(0), v4(0).into(), RATE);
    let mut longest = Duration::ZERO;
    for cut in 0..cuts {
        let lasts = Duration::from_millis(100 + random.below(2_900));
        match random.below(3) {
            0 => world.lab().cut(0, far, Traffic::All),
            1 => world.lab().cut_way(0, far, Traffic::All),
            _ => world.lab().cut_way(far, 0, Traffic::All),
        }
        .unwrap();
        std::thread::sleep(lasts);
        world.lab().heal(0, far).unwrap();
        let healed = Instant::now();
        let what = format!("after cut {cut} of host {far}, which lasted {lasts:?}");
        for flow in [&there, &back] {
            longest = longest.max(flow.wait_passes(healed, PASSES_WITHIN, &what));
        }
    }
    drop((there.finish(), back.finish()));
    longest
}

#[test]
fn both_directions_pass_data_soon_after_each_of_twenty_cuts() {
    let world = World::new(Options::encrypted().count(5).args("--no-discovery"));
    for far in 1..5 {
        world.wait_ping(0, v4(far).into(), LINK_WITHIN);
    }
    let mut random = Random::from_environment();
    let seeds: Vec<_> = (1..5).map(|far| (far, Random::new(random.number()))).collect();
    std::thread::scope(|scope| {
        for (far, random) in seeds {
            let world = &world;
            scope.spawn(move || {
                let longest = cut_again_and_again(world, far, 5, random);
                println!("host {far}: {longest:?} at the longest");
            });
        }
    });
}

/// A ring of five without discovery, in which pings from host 0 to host 2 go by host 1.
fn ring() -> (World, Pings) {
    let ring = Options::encrypted().count(5).args("--no-discovery");
    let world = World::new(ring.launches(&[(0, &[]), (1, &[0]), (2, &[1]), (3, &[2]), (4, &[3, 0])]));
    let [far, between] = [2, 1].map(|host| world.status(host).name);
    let goes_there = || {
        let routes = world.status(0).routes;
        routes.len() == 4 && routes.iter().any(|route| route.peer == far && route.via == between)
    };
    wait_until(LINK_WITHIN, || format!("{:?}", world.status(0).routes), goes_there);
    world.wait_ping(0, v4(2).into(), LINK_WITHIN);
    let pings = Pings::start(world.container(0), world.container(2), v4(2).into(), RATE);
    pings.wait_answer(Instant::now(), LINK_WITHIN, "a ping before");
    (world, pings)
}

/// A path that swallows everything, and says nothing, is left for the other way round the ring; when
/// it passes again, it is used again.
fn black_hole(swallow: impl FnOnce(&World)) {
    let (world, pings) = ring();
    swallow(&world);
    let swallowed = Instant::now();
    // A ping that was on its way, or goes the way that still passes, proves nothing.
    let later = swallowed + Duration::from_millis(200);
    let after = pings.wait_answer(later, REROUTED_WITHIN, "a ping the other way");
    println!("re-routed {:?} after the path was gone", after + (later - swallowed));
    let hops = |world: &World| {
        let far = world.status(2).name;
        world.status(0).routes.iter().find(|route| route.peer == far).map(|route| route.hops)
    };
    assert_eq!(hops(&world), Some(3), "{:?}", world.status(0).routes);
    world.lab().heal(0, 1).unwrap();
    wait_until(LINK_WITHIN, || format!("{:?}", world.status(0).routes), || hops(&world) == Some(2));
    assert!(pings.finish().longest_gap() < REROUTED_WITHIN);
}

#[test]
fn a_black_hole_is_left_within_ten_seconds() {
    black_hole(|world| world.lab().cut(0, 1, Traffic::All).unwrap());
}

#[test]
fn a_path_that_swallows_what_goes_there_is_left_within_ten_seconds() {
    black_hole(|world| world.lab().cut_way(0, 1, Traffic::All).unwrap());
}

#[test]
fn a_path_that_swallows_what_comes_back_is_left_within_ten_seconds() {
    black_hole(|world| world.lab().cut_way(1, 0, Traffic::All).unwrap());
}
