//! Ways are cut and healed: data passes again soon.

use weave_sim::cuts::{Cuts, PASSES_WITHIN};
use weave_sim::shape::Shape;

fn check(seed: u64, hosts: usize, shape: Shape) {
    let cuts = Cuts { seed, cuts: 1000, hosts, shape }.run().unwrap_or_default();
    let late: Vec<_> = cuts.iter().filter(|cut| cut.passed_after > PASSES_WITHIN).collect();
    assert!(cuts.len() == 1000 && late.is_empty(), "{late:#?}");
}

#[test]
fn data_passes_within_three_seconds_of_each_of_a_thousand_cuts_between_two_hosts() {
    check(1, 2, Shape::Line);
}

#[test]
fn data_passes_within_three_seconds_of_each_of_a_thousand_cuts_in_a_ring() {
    check(2, 5, Shape::Ring);
}
