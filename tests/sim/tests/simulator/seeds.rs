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

/// 25 seeds each, so that they run beside each other.
macro_rules! hosts_agree_after_faults_of_seeds {
    ($($from:literal $name:ident),* $(,)?) => {$(
        #[test]
        fn $name() {
            check($from..$from + 25);
        }
    )*};
}

hosts_agree_after_faults_of_seeds! {
    0 from_0, 25 from_25, 50 from_50, 75 from_75, 100 from_100, 125 from_125,
    150 from_150, 175 from_175, 200 from_200, 225 from_225, 250 from_250, 275 from_275,
}
