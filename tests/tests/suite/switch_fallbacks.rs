//! A kernel that lacks something: where there is another way everything passes and `status` names
//! it; where there is none, `launch` refuses with cause and remedy and leaves nothing.

use weave_host::Netlink;
use weave_tests::{Options, World, traffic};

const ABSENT: &str = "WEAVE_TEST_ABSENT";
/// Features with another way, and what the state is called then.
const FALL_BACKS: [(&str, &str); 6] = [
    ("multishot-read", "plain_reads"),
    ("min-wait", "single_wakeups"),
    ("udp-segment", "no_gso"),
    ("udp-gro", "no_gro"),
    ("uso", "no_uso"),
    ("tso", "no_tso"),
];
/// Bytes of each TCP stream.
const STREAM: usize = 2 << 20;

fn everything_passes_without(features: &[(&str, &str)], options: Options) {
    let names: Vec<&str> = features.iter().map(|(feature, _)| *feature).collect();
    let mut expected: Vec<&str> = features.iter().map(|(_, state)| *state).collect();
    expected.sort_unstable();
    // One end has it and the other does not: neither may rely on the other.
    let world = World::pair(options.env_of(0, ABSENT, &names.join(",")));
    let mut found = world.degraded(0);
    found.sort();
    assert_eq!(found, expected, "{:?}", world.status(0).degraded);
    assert_eq!(world.degraded(1), Vec::<String>::new());
    for state in world.status(0).degraded {
        assert!(state.reason.len() > 10, "{} gives no reason: {:?}", state.name, state.reason);
    }
    let text = world.weave(0, &["status"]).ok().stdout;
    for state in &expected {
        assert!(text.contains(state), "{state} is not in the status:\n{text}");
    }
    traffic::everything(&world, STREAM);
    for end in [0, 1] {
        for reason in ["bad_offload", "malformed", "forged", "tap_error", "send_error", "too_big"] {
            assert_eq!(world.drops(end, reason), 0, "{reason} on host {end}");
        }
    }
}

#[test]
fn long_without_multishot_reads() {
    everything_passes_without(&FALL_BACKS[..1], Options::encrypted());
}

#[test]
fn long_without_segmented_sends() {
    everything_passes_without(&FALL_BACKS[1..2], Options::encrypted());
}

#[test]
fn long_without_merged_receives() {
    everything_passes_without(&FALL_BACKS[2..3], Options::encrypted());
}

#[test]
fn long_without_udp_super_frames() {
    everything_passes_without(&FALL_BACKS[3..4], Options::encrypted());
}

#[test]
fn long_without_tcp_super_frames() {
    everything_passes_without(&FALL_BACKS[4..], Options::encrypted());
}

#[test]
fn without_any_of_them_sealed_and_clear() {
    everything_passes_without(&FALL_BACKS, Options::encrypted());
    everything_passes_without(&FALL_BACKS, Options::clear());
}

#[test]
fn what_is_switched_off_by_hand_is_named_with_that_reason() {
    let world = World::pair(Options::encrypted().args_of(0, "--offload no-gso,no-gro,no-uso,no-tso"));
    let states = world.status(0).degraded;
    let mut names: Vec<&str> = states.iter().map(|state| state.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["no_gro", "no_gso", "no_tso", "no_uso"]);
    for state in &states {
        assert!(state.reason.contains("--offload"), "{}: {}", state.name, state.reason);
    }
    assert_eq!(world.degraded(1), Vec::<String>::new());
}

#[test]
fn without_what_nothing_replaces_launch_refuses_and_leaves_nothing() {
    for (feature, cause, remedy) in [
        ("io-uring", "io_uring", "io_uring_disabled"),
        ("buffer-ring", "io_uring", "kernel"),
        ("multishot-receive", "io_uring", "kernel"),
    ] {
        let world = World::pair(
            Options { attach: false, ..Options::encrypted().not_launched() }.env_of(0, ABSENT, feature),
        );
        let links = || Netlink::in_namespace(world.host(0).namespace()).unwrap().links().unwrap();
        let before = links();
        let ran = world.try_launch(0, &[]);
        assert_eq!(ran.code, Some(1), "{feature}: {ran:?}");
        let (switch, said): (Vec<&str>, Vec<&str>) =
            ran.stderr.lines().partition(|line| line.contains(ABSENT));
        assert_eq!(switch.len(), 1, "a switch for tests is named: {}", ran.stderr);
        assert_eq!(said.len(), 1, "{feature}: one line, not {said:#?}");
        assert!(said[0].contains(cause) && said[0].contains(remedy), "{feature}: {}", said[0]);
        assert_eq!(links(), before, "{feature}: interfaces were left");
        assert!(world.try_status(0).is_err());
        assert_eq!(world.lab().processes(), Vec::<u32>::new(), "{feature}: a process was left");
        // Nothing of the failed run is in the way of the next.
        let mut world = world;
        world.options_mut().hosts[0].environment.clear();
        world.launch(0, &[]);
    }
}
