//! `weave-perf ab` as a user runs it. Needs root and iproute2.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::{Permissions, read_dir, set_permissions, write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

fn ab(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weave-perf"));
    command.arg("ab").args(arguments).stdin(Stdio::null());
    command
}

fn output(arguments: &[&str]) -> Output {
    ab(arguments).output().unwrap()
}

/// Names of what process `pid` has left on the machine.
fn left_by(pid: u32) -> Vec<String> {
    let own = format!("weave-lab-{pid}-");
    [Path::new("/run/netns"), &std::env::temp_dir()]
        .iter()
        .filter_map(|directory| read_dir(directory).ok())
        .flat_map(|entries| entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()))
        .filter(|name| name.starts_with(&own))
        .collect()
}

#[test]
fn kernel_tunnels_are_compared_and_nothing_is_left() {
    let arguments =
        ["--rounds", "2", "--seconds", "0.2", "--only", "vxlan,bare", "--seed", "7", "-o", "json"];
    let child = ab(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("round 2/2"), "progress is told: {said}");

    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["settings"]["seed"], 7);
    let peers = report["peers"].as_array().unwrap();
    assert_eq!([&peers[0]["name"], &peers[1]["name"]], ["bare", "vxlan"]);
    for peer in peers {
        for figure in peer["figures"].as_array().unwrap() {
            let metric = figure["metric"].as_str().unwrap();
            let of_a_router = ["cpu_per_gigabyte", "memory", "host_memory", "killed"].contains(&metric);
            assert_eq!(figure["summary"].is_null(), of_a_router, "{}: {figure}", peer["name"]);
            if !of_a_router {
                assert_eq!(figure["samples"].as_array().unwrap().len(), 2);
            }
        }
    }
    assert_eq!(peers[1]["figures"][0]["ratios"]["vxlan"]["median"], 1.0);
    assert_eq!(left_by(pid), [""; 0]);
}

#[test]
fn a_tunnel_that_does_not_come_up_is_told_and_fails_the_run() {
    // Stands in for a router: ends at once.
    let output = output(&["--rounds", "1", "--seconds", "0.2", "--only", "weave", "--weave", "/bin/false"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("Failed:") && text.contains("/false launch"), "{text}");
}

#[test]
fn programs_of_a_host_have_the_memory_that_it_may_have_and_that_is_told() {
    let run = |arguments: &[&str]| {
        let usual = ["--rounds", "1", "--seconds", "0.2", "--only"];
        let output = ab(&[&usual, arguments].concat()).env("WEAVE_LAB_MEMORY_MIB", "32").output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, text) = run(&["vxlan"]);
    assert!(
        code == Some(0) && text.contains("cgroup of 32 MiB") && text.contains("0 programs ended"),
        "{text}"
    );
    // Stands in for a router: remembers all of a line that never ends; somebody else ends it at 1 GiB.
    let directory = tempfile::tempdir().unwrap();
    let greedy = directory.path().join("greedy");
    write(&greedy, "#!/bin/sh\nulimit -v 1048576\n[ $1 = launch ] && exec tail /dev/zero\n").unwrap();
    set_permissions(&greedy, Permissions::from_mode(0o755)).unwrap();
    let (code, text) = run(&["weave", "--weave", greedy.to_str().unwrap()]);
    assert!(code == Some(1) && text.contains("1 processes of the two hosts were ended"), "{text}");
    assert!(text.contains("1 programs ended"), "{text}");
}

#[test]
fn an_interrupted_run_ends_early_and_leaves_nothing() {
    let mut child: Child = ab(&["--rounds", "50", "--seconds", "0.5", "--only", "vxlan"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // In the middle of something: the first host is there.
    while left_by(child.id()).is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(left_by(child.id()), [""; 0]);
}

#[test]
fn wrong_requests_are_refused_with_the_choices() {
    for (arguments, code, words) in [
        (&["--only", "no-such-tunnel"][..], 1, "there are bare, vxlan"),
        (&["--against", "no-such-tunnel"], 1, "there are bare, vxlan"),
        (&["--weave", "/no/such/program"], 1, "/no/such/program"),
        (&["--seconds", "0"], 2, "0.2 to 60"),
        (&["--seconds", "x"], 2, "0.2 to 60"),
        (&["--rounds", "0"], 2, "--rounds"),
        (&["--underlay-offload", "some"], 2, "gro"),
    ] {
        let output = output(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
}
