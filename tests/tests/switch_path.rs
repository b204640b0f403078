//! Paths between the hosts that are larger or smaller than usual, or change while traffic flows.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::UdpSocket;
use std::time::Duration;

use weave_host::ethtool;
use weave_perf::lab::{UNDERLAY, Underlay};
use weave_tests::descriptors::{keeper, refuse_segmentation, udp_sockets};
use weave_tests::traffic::{self, everything, udp_segments};
use weave_tests::world::{Family, addresses, v4};
use weave_tests::{Options, World, wait_until};

const STREAM: usize = 1 << 20;
const REFUSED: &str = "no_segmentation";

#[test]
fn large_packets_on_a_large_underlay() {
    let underlay = Underlay { mtu: 9000, ..Underlay::default() };
    let world = World::pair(Options::encrypted().underlay(underlay).family(Family::V6).args("--mtu 8890"));
    everything(&world, STREAM);
    for from in [0, 1] {
        for address in addresses(1 - from) {
            udp_segments(&world, from, address, 8800, 7, 5);
        }
        traffic::udp(&world, from, v4(1 - from).into(), 8890 - 28);
    }
}

#[test]
fn datagrams_over_the_path_are_counted_and_smaller_ones_pass() {
    let world = World::pair(Options::encrypted().underlay(Underlay { mtu: 1400, ..Underlay::default() }));
    for address in addresses(1) {
        world.wait_ping(0, address, traffic::WITHIN);
        traffic::udp(&world, 0, address, 1200);
    }
    let before = world.drops(0, "too_big");
    let sender = world.inside(0, || UdpSocket::bind((v4(0), 0)).unwrap());
    // The largest frame of the network: its packet has 1466 bytes over IPv4.
    sender.send_to(&[1; 1376 - 28], (v4(1), 9)).unwrap();
    wait_until(
        traffic::WITHIN,
        || format!("one datagram is too big: {:?}", world.status(0).shards),
        || world.drops(0, "too_big") == before + 1,
    );
    traffic::udp(&world, 0, v4(1).into(), 1200);
    assert!(world.link(0).is_some(), "the link stays");
}

#[test]
fn checksum_offload_of_the_underlay_is_switched_off_while_traffic_flows() {
    let world = World::pair(Options::encrypted());
    everything(&world, STREAM);
    for end in [0, 1] {
        world.on_host(end, || ethtool::set_features(UNDERLAY, &[("tx-checksum-ip-generic", false)])).unwrap();
    }
    everything(&world, STREAM);
    // Older kernels refuse segmentation then, newer ones sum in software.
    for end in [0, 1] {
        let refused = world.counter(end, "segmentation_refused") > 0;
        assert_eq!(world.degraded(end).contains(&REFUSED.to_owned()), refused, "host {end}");
    }
}

/// Two hosts; the sockets of the router of host 0 can be changed.
fn changeable() -> (World, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let library = keeper(directory.path()).display().to_string();
    (World::pair(Options::encrypted().env_of(0, "LD_PRELOAD", &library)), directory)
}

/// Makes the kernel refuse segmented sends of the router of host 0, or take them again.
fn refuse(world: &World, refuse: bool) {
    let status = world.status(0);
    let sockets = udp_sockets(status.pid);
    assert!(sockets.len() > 2 + status.shards.len(), "{} sockets: the shards' are missing", sockets.len());
    for socket in &sockets {
        refuse_segmentation(socket, refuse);
    }
}

#[test]
fn sends_that_the_route_refuses_to_segment_arrive_one_by_one() {
    let (world, _directory) = changeable();
    everything(&world, STREAM);
    assert_eq!(world.counter(0, "segmentation_refused"), 0);
    assert!(!world.degraded(0).contains(&REFUSED.to_owned()));
    refuse(&world, true);
    // Every datagram is compared: those of the refused send are among them.
    for _ in 0..3 {
        everything(&world, STREAM);
    }
    let refused = world.counter(0, "segmentation_refused");
    let shards = world.status(0).shards.len() as u64;
    assert!(refused > 0, "the kernel refused nothing: this test tests nothing");
    // What is in flight when the first comes back is refused too; after that nothing is tried.
    assert!(refused <= 200 * shards, "{refused} refusals: every send is tried again");
    let degraded = world.link(0).unwrap().degraded;
    let known = degraded.iter().find(|degraded| degraded.name == REFUSED).expect("the state is named");
    assert!(known.reason.contains("within a minute"), "{}", known.reason);
    assert!(!world.degraded(1).contains(&REFUSED.to_owned()), "only the sender is slower");
    for reason in ["send_error", "send_queue_full", "unreachable"] {
        assert_eq!(world.drops(0, reason), 0, "{reason}");
    }
}

#[test]
fn long_segmentation_is_tried_again_within_a_minute() {
    let (world, _directory) = changeable();
    refuse(&world, true);
    everything(&world, STREAM);
    assert!(world.degraded(0).contains(&REFUSED.to_owned()));
    refuse(&world, false);
    let before = world.counter(0, "segmentation_refused");
    wait_until(
        Duration::from_secs(70),
        || format!("still degraded: {:?}", world.degraded(0)),
        || {
            for address in addresses(1) {
                udp_segments(&world, 0, address, 1300, 40, 1);
            }
            !world.degraded(0).contains(&REFUSED.to_owned())
        },
    );
    everything(&world, STREAM);
    assert_eq!(world.counter(0, "segmentation_refused"), before, "the route takes them again");
}
