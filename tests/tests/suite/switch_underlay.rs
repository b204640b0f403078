//! Underlays that cut no super-datagrams, and routes that suddenly take none.

use std::time::{Duration, Instant};

use weave_host::ethtool;
use weave_perf::lab::{UNDERLAY, Underlay};
use weave_tests::world::{Family, v4};
use weave_tests::{Options, World, descriptors, traffic, wait_until};

const STREAM: usize = 2 << 20;
/// Time for a state to be seen in the status on a busy machine.
const SHOWN_WITHIN: Duration = Duration::from_secs(10);
/// A router tries again within a minute.
const TRIED_AGAIN_WITHIN: Duration = Duration::from_secs(60);
const STATE: &str = "no_segmentation";
/// The device's share of checksums, by its name in the kernel.
const CHECKSUMS: &str = "tx-checksum-ip-generic";

/// Makes the kernel refuse segmented sends of host `end`, or no more. A device without checksum
/// offload does the same up to Linux 6.10; later kernels cut in software there.
fn refuse(world: &World, end: usize, on: bool) {
    let status = world.status(end);
    let sockets = descriptors::udp_sockets(status.pid);
    assert!(sockets.len() >= status.shards.len(), "only {} sockets are found", sockets.len());
    for socket in &sockets {
        descriptors::refuse_segmentation(socket, on);
    }
}

#[test]
fn a_device_that_does_not_cut_carries_everything() {
    for (gro, family) in [(false, Family::V4), (true, Family::V6)] {
        let underlay = Underlay { segmentation: false, gro, ..Underlay::default() };
        let world = World::pair(Options::encrypted().underlay(underlay).family(family));
        traffic::everything(&world, STREAM);
        // The kernel cuts for it: that is no reason to send one by one.
        for end in [0, 1] {
            assert_eq!(world.degraded(end), Vec::<String>::new());
            assert_eq!(world.counter(end, "segmentation_refused"), 0);
        }
    }
}

#[test]
fn a_device_without_checksums_carries_everything() {
    for family in [Family::V4, Family::V6] {
        let world = World::pair(Options::encrypted().family(family).not_launched());
        for end in [0, 1] {
            let set = || {
                ethtool::set_features(UNDERLAY, &[(CHECKSUMS, false)]).unwrap();
                ethtool::features(UNDERLAY).unwrap()[CHECKSUMS]
            };
            assert!(!world.on_host(end, set), "the device does not switch");
        }
        world.launch(0, &[]);
        world.launch(1, &[&world.underlay(0).to_string()]);
        world.wait_established();
        traffic::everything(&world, STREAM);
        for end in [0, 1] {
            // Depends on the kernel, see `refuse`; nothing else may be wrong.
            let states: Vec<_> = world.degraded(end).into_iter().filter(|state| state != STATE).collect();
            assert_eq!(states, Vec::<String>::new());
            assert_eq!(world.drops(end, "send_error"), 0);
        }
    }
}

#[test]
fn a_route_that_suddenly_refuses_loses_nothing_and_is_named() {
    let world = World::pair(Options::encrypted());
    traffic::everything(&world, STREAM);
    for end in [0, 1] {
        assert_eq!(world.degraded(end), Vec::<String>::new());
        refuse(&world, end, true);
    }
    // Each batch is compared whole: one that was refused and not sent again would be missed.
    traffic::udp_batches(&world, 0, v4(1).into(), 1200, 20);
    traffic::udp_batches(&world, 1, v4(0).into(), 1200, 20);
    traffic::everything(&world, STREAM);
    refused(&world);
}

fn refused(world: &World) {
    for end in [0, 1] {
        wait_until(
            SHOWN_WITHIN,
            || format!("host {end} does not say that segments are refused: {:?}", world.degraded(end)),
            || world.degraded(end) == [STATE],
        );
        let text = world.weave(end, &["status", "connections"]).ok().stdout;
        assert!(text.contains(STATE), "{text}");
        let count = world.counter(end, "segmentation_refused");
        // Each lane is refused once, and a few sends are already on their way then.
        assert!((1..100).contains(&count), "{count} sends were refused: it does not learn");
        for reason in ["send_error", "too_big", "unreachable"] {
            assert_eq!(world.drops(end, reason), 0, "{reason} on host {end}");
        }
    }
}

#[test]
fn long_a_device_that_cuts_again_is_used_again_within_a_minute() {
    let world = World::pair(Options::encrypted());
    for end in [0, 1] {
        refuse(&world, end, true);
    }
    traffic::udp_batches(&world, 0, v4(1).into(), 1200, 2);
    traffic::udp_batches(&world, 1, v4(0).into(), 1200, 2);
    refused(&world);
    // While it still refuses, the state outlives a try.
    let refused_at = Instant::now();
    let before = world.counter(0, "segmentation_refused");
    while world.counter(0, "segmentation_refused") == before {
        assert!(refused_at.elapsed() < TRIED_AGAIN_WITHIN + SHOWN_WITHIN, "not tried again");
        traffic::udp_batches(&world, 0, v4(1).into(), 1200, 1);
        std::thread::sleep(Duration::from_millis(100));
    }
    wait_until(
        SHOWN_WITHIN,
        || "a device that refuses again is not named".into(),
        || world.degraded(0).iter().any(|state| state == STATE),
    );
    for end in [0, 1] {
        refuse(&world, end, false);
    }
    let cured_at = Instant::now();
    while [0, 1].iter().any(|end| world.degraded(*end).iter().any(|state| state == STATE)) {
        assert!(cured_at.elapsed() < TRIED_AGAIN_WITHIN + SHOWN_WITHIN, "not tried again");
        traffic::udp_batches(&world, 0, v4(1).into(), 1200, 1);
        traffic::udp_batches(&world, 1, v4(0).into(), 1200, 1);
        std::thread::sleep(Duration::from_millis(100));
    }
    let before = [0, 1].map(|end| world.counter(end, "segmentation_refused"));
    traffic::everything(&world, STREAM);
    assert_eq!([0, 1].map(|end| world.counter(end, "segmentation_refused")), before);
}
