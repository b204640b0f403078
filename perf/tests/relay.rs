//! `weave-perf relay` as a user runs it. Needs root and iproute2.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output, Stdio};

fn relay(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weave-perf"));
    command.arg("relay").args(arguments).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn a_router_that_does_not_start_is_told_and_fails_the_run() {
    // Stands in for a router: ends at once.
    let output = relay(&["--rounds", "1", "--seconds", "0.2", "--weave", "/bin/false"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    for way in ["direct", "relayed"] {
        assert!(said.contains(&format!("round 1/1 {way}: FAILED")), "{said}");
    }
    assert!(said.contains("/false launch"), "{said}");
    assert_eq!(output.stdout, b"nothing could be measured\n");
}

#[test]
fn wrong_requests_are_refused_with_the_reason() {
    for (arguments, code, words) in [
        (&["--weave", "/no/such/program"][..], 1, "/no/such/program"),
        (&["--seconds", "0"], 2, "0.2 to 60"),
        (&["--rounds", "0"], 2, "--rounds"),
        (&["--underlay-offload", "some"], 2, "gro"),
    ] {
        let output = relay(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
}
