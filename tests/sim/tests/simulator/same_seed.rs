//! The same seed gives the same run.

use std::process::Command;
use weave_sim::Scenario;

#[test]
fn a_seed_gives_the_same_run_again_and_another_seed_another() {
    let run = |seed| Scenario { seed, hosts: 3..=12 }.run().trace;
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

/// Hash tables are seeded anew in each process: none may decide anything.
#[test]
fn a_seed_gives_the_same_run_in_another_process() {
    let run = || {
        let program = env!("CARGO_BIN_EXE_weave-sim");
        let output = Command::new(program).args(["run", "--seed", "7", "--hosts", "3..30"]).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
    };
    let first = run();
    assert!(first.contains("trace"), "{first}");
    assert_eq!(first, run());
}
