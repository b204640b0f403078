//! The generator through a real path: two hosts of a lab.
//!
//! Needs root. Every test has hosts of its own, so they run side by side.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroU64};
use std::time::{Duration, Instant};

use weave_perf::lab::{Host, Lab, UNDERLAY};
use weave_perf::traffic::{Window, icmp, ping, tcp, udp};

const WINDOW: Window = Window { warm_up: Duration::from_millis(100), duration: Duration::from_millis(400) };

/// Addresses of the far host, both families.
fn far_addresses(lab: &Lab) -> [IpAddr; 2] {
    [far(lab).v4().into(), far(lab).v6().into()]
}

fn near(lab: &Lab) -> &Host {
    lab.host(0)
}

fn far(lab: &Lab) -> &Host {
    lab.host(1)
}

fn any_port(address: IpAddr) -> SocketAddr {
    (address, 0).into()
}

fn set_link(host: &Host, state: &str) {
    let mut command = host.command("ip");
    command.args(["link", "set", UNDERLAY, state]);
    assert!(host.output(&mut command, Duration::from_secs(5)).unwrap().status.success());
}

#[test]
fn tcp_streams_cross_the_cable_in_both_families() {
    let lab = Lab::pair().unwrap();
    for (address, streams) in far_addresses(&lab).into_iter().zip([1, 4]) {
        let sink = far(&lab).run(|| tcp::Sink::bind(any_port(address))).unwrap().unwrap();
        let source = near(&lab).run(|| tcp::Source::connect(sink.address(), streams)).unwrap().unwrap();
        let carried = tcp::measure(&sink, source, WINDOW, &mut |_| ()).unwrap();
        assert!(carried.gigabits_per_second() > 0.1, "{address}: {carried:?}");
    }
}

#[test]
fn numbered_datagrams_cross_the_cable_once_intact_and_in_order() {
    let lab = Lab::pair().unwrap();
    for address in far_addresses(&lab) {
        let receiver = far(&lab).run(|| udp::Receiver::bind(any_port(address))).unwrap().unwrap();
        let sender = near(&lab).run(|| udp::Sender::connect(receiver.address())).unwrap().unwrap();
        let load = udp::Load { payload_bytes: 1348, rate: NonZeroU64::new(5000), check_content: true };
        let got = udp::measure(&receiver, &sender, load, WINDOW, &mut |_| ()).unwrap();
        let wrong = [got.lost(), got.duplicates, got.reordered, got.corrupted, got.refused];
        assert_eq!(wrong, [0; 5], "{address}: {got:?}");
        assert!(got.sent > 1000, "{got:?}");
    }
}

#[test]
fn losses_on_the_cable_are_counted() {
    let lab = Lab::pair().unwrap();
    let receiver = far(&lab).run(|| udp::Receiver::bind(any_port(far_addresses(&lab)[0]))).unwrap().unwrap();
    let sender = near(&lab).run(|| udp::Sender::connect(receiver.address())).unwrap().unwrap();
    // The far end is unplugged: everything sent is lost.
    set_link(far(&lab), "down");
    let load = udp::Load { payload_bytes: 64, rate: NonZeroU64::new(1000), check_content: false };
    let got = udp::measure(&receiver, &sender, load, WINDOW, &mut |_| ()).unwrap();
    assert_eq!(got.delivered, 0);
    assert_eq!(got.lost(), got.sent);
}

#[test]
fn round_trips_are_timed_over_udp_and_tcp() {
    let lab = Lab::pair().unwrap();
    let transports = [ping::Transport::Udp, ping::Transport::Tcp];
    for (address, transport) in far_addresses(&lab).into_iter().zip(transports) {
        let responder =
            far(&lab).run(|| ping::Responder::start(transport, any_port(address))).unwrap().unwrap();
        let prober =
            near(&lab).run(|| ping::Prober::connect(transport, responder.address())).unwrap().unwrap();
        let latency = prober.measure(NonZeroU32::new(500).unwrap(), WINDOW).unwrap();
        assert_eq!((latency.sent, latency.lost), (200, 0), "{transport:?}");
        assert!(latency.p50_us() > 1.0 && latency.p999_us() < 1e6);
    }
}

#[test]
fn echo_requests_are_answered_in_both_families_and_missing_answers_counted() {
    let lab = Lab::pair().unwrap();
    for address in far_addresses(&lab) {
        let echoes = near(&lab).run(|| icmp::ping(address, 5, Duration::from_millis(100))).unwrap().unwrap();
        assert_eq!((echoes.lost, echoes.round_trips.len()), (0, 5), "{address}");
    }
    let absent = "10.99.0.77".parse().unwrap();
    let start = Instant::now();
    let echoes = near(&lab).run(|| icmp::ping(absent, 2, Duration::from_millis(100))).unwrap().unwrap();
    assert_eq!((echoes.lost, echoes.round_trips.len()), (2, 0));
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_host_that_appears_late_is_waited_for() {
    let lab = Lab::pair().unwrap();
    let address = far_addresses(&lab)[0];
    set_link(near(&lab), "down");
    let limit = Duration::from_millis(100);
    assert!(!near(&lab).run(|| icmp::wait_reachable(address, limit)).unwrap().unwrap());
    set_link(near(&lab), "up");
    let limit = Duration::from_secs(10);
    assert!(near(&lab).run(|| icmp::wait_reachable(address, limit)).unwrap().unwrap());
}
