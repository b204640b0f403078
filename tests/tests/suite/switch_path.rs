//! Paths between the hosts that are larger or smaller than usual, or change while traffic flows.

use std::net::UdpSocket;

use weave_host::ethtool;
use weave_perf::lab::{UNDERLAY, Underlay};
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
fn datagrams_over_the_path_are_counted_or_cut_and_smaller_ones_pass() {
    let world = World::pair(Options::encrypted().underlay(Underlay { mtu: 1400, ..Underlay::default() }));
    for address in addresses(1) {
        world.wait_ping(0, address, traffic::WITHIN);
        traffic::udp(&world, 0, address, 1200);
    }
    // As the path is known by then, or not.
    let seen = || world.drops(0, "too_big") + world.counter(0, "fragments_sent");
    let before = seen();
    let sender = world.inside(0, || UdpSocket::bind((v4(0), 0)).unwrap());
    // The largest frame of the network: its packet has 1466 bytes over IPv4.
    sender.send_to(&[1; 1376 - 28], (v4(1), 9)).unwrap();
    wait_until(
        traffic::WITHIN,
        || format!("one datagram is too big: {:?}", world.status(0).shards),
        || seen() > before,
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
