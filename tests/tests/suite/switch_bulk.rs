//! Much traffic arrives byte for byte, both ways, over every path through a router.

use weave_perf::lab::Underlay;
use weave_tests::world::{Family, addresses};
use weave_tests::{Options, World, traffic};

const MB: usize = 1 << 20;

fn all(options: Options) -> World {
    let world = World::pair(options);
    for from in [0, 1] {
        for address in addresses(1 - from) {
            // Several streams at once, so that every shard has some.
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| traffic::tcp(&world, from, address, 2 * MB + 1));
                }
            });
            for size in [1, 7, 512, 1200, 1328] {
                traffic::udp_batches(&world, from, address, size, 25);
            }
            std::thread::scope(|scope| {
                scope.spawn(|| traffic::udp_batches(&world, from, address, 1300, 100));
                scope.spawn(|| traffic::udp_batches(&world, from, address, 64, 100));
            });
        }
    }
    world
}

#[test]
fn sealed() {
    all(Options::encrypted());
}

#[test]
fn clear() {
    all(Options::clear());
}

#[test]
fn long_sealed_over_ipv6_with_one_shard_and_four() {
    all(Options::encrypted().family(Family::V6).args_of(0, "--shards 1").args_of(1, "--shards 4"));
}

#[test]
fn without_any_offload() {
    all(Options::encrypted().args("--offload no-gso,no-gro,no-uso,no-tso"));
}

#[test]
fn long_without_any_offload_at_one_end() {
    all(Options::encrypted().args_of(1, "--offload no-gso,no-gro,no-uso,no-tso"));
}

#[test]
fn over_an_underlay_that_cuts_in_software() {
    all(Options::encrypted().underlay(Underlay { segmentation: false, ..Underlay::default() }));
}

#[test]
fn long_over_an_underlay_that_joins() {
    all(Options::encrypted().underlay(Underlay { segmentation: false, gro: true, ..Underlay::default() }));
}

#[test]
fn long_while_keys_change_all_the_time() {
    let world = all(Options::encrypted().env("WEAVE_TEST_REKEY_MS", "100"));
    let rekeys = world.status(0).counters["rekeys"];
    assert!(rekeys >= 3, "only {rekeys} re-keys");
}
