//! Hosts under faults, and then without: 300 seeds of 3 to 30 hosts.

use weave_sim::Scenario;

fn check(seeds: std::ops::Range<u64>) {
    let mut failures = Vec::new();
    for seed in seeds {
        let outcome = Scenario { seed, hosts: 3..=30 }.run();
        if !outcome.is_good() {
            failures.push(format!(
                "{:?}: {:#?}\nagain: cargo run --release -p weave-sim -- run --seed {seed} --hosts 3..30",
                outcome.kinds, outcome.violations
            ));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn hosts_agree_after_faults_of_the_first_seeds() {
    check(0..50);
}

#[test]
fn hosts_agree_after_faults_of_seeds_from_50() {
    check(50..100);
}

#[test]
fn hosts_agree_after_faults_of_seeds_from_100() {
    check(100..150);
}

#[test]
fn hosts_agree_after_faults_of_seeds_from_150() {
    check(150..200);
}

#[test]
fn hosts_agree_after_faults_of_seeds_from_200() {
    check(200..250);
}

#[test]
fn hosts_agree_after_faults_of_seeds_from_250() {
    check(250..300);
}
