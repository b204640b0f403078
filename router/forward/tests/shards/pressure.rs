//! What the tap hands over and what the kernel refuses: dropped under its reason or made up for,
//! and forwarding goes on.

use crate::rig::{self, FORGER_LINK, MAX_FRAME, Options, Rig, frame, mac, name, neighbour, number_of, wait};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use weave_forward::{Command, DropReason, LinkId, MacChange, Report, Routes, boot_time};
use weave_wire::SessionIndex;
use weave_wire::vnet::{Gso, VNET_LEN, VnetHeader};
use zerocopy::IntoBytes;

/// Sends `count` frames of `len` bytes from A.
fn flood(rig: &Rig, count: u64, len: usize) {
    for number in 0..count {
        rig.a.send(0, &frame(number, len));
    }
}

/// Takes `count` frames at B, each once and unharmed.
#[track_caller]
fn take(rig: &Rig, count: u64) {
    let mut numbers = HashSet::new();
    for _ in 0..count {
        let number = number_of(&rig.b.receive());
        assert!(number < count && numbers.insert(number), "frame {number} came twice");
    }
}

#[test]
fn frames_of_the_tap_that_are_none_are_dropped() {
    let mut rig = Rig::usual();
    let good = [VnetHeader::plain().as_bytes(), &frame(1, 100)].concat();
    for len in [1, VNET_LEN - 1, VNET_LEN, VNET_LEN + 13] {
        rig.a.send_raw(0, &good[..len]);
    }
    rig.a.dropped(DropReason::FrameTooShort, 4);
    for len in [MAX_FRAME + 1, 9000, 60_000] {
        rig.a.send(0, &frame(1, len));
    }
    wait(|| rig.a.state(), || rig.a.drops(DropReason::FrameTooLong) == 3);
    rig.works();
}

#[test]
fn offload_fields_that_do_not_fit_are_dropped() {
    let mut rig = Rig::usual();
    let frame = frame(1, 1000);
    let supers = [(Gso::TcpV4, 100), (Gso::TcpV6, 100), (Gso::Udp, 100), (Gso::Udp, 0)];
    let mut headers: Vec<Vec<u8>> =
        supers.map(|(gso, size)| VnetHeader::super_frame(gso, 54, size, 34, 6).as_bytes().to_vec()).to_vec();
    // A kind never asked for; a super-frame without checksum request; fields behind the frame.
    let mut strange = headers[0].clone();
    strange[1] = 3;
    let mut no_checksum = headers[0].clone();
    no_checksum[0] = 0;
    headers.extend([strange, no_checksum]);
    for (start, offset) in [(999, 6), (1001, 0), (65_535, 65_535), (990, 9)] {
        headers.push(VnetHeader::checksum(start, offset).as_bytes().to_vec());
    }
    let count = headers.len() as u64;
    for header in headers {
        rig.a.send_raw(0, &[&header[..], &frame].concat());
    }
    rig.dropped_at_a(DropReason::BadOffload, count);
}

#[test]
fn frames_without_route_or_key_are_dropped() {
    let mut rig = Rig::usual();
    let station = MacChange { mac: mac(5), peer: Some(name(9)), attached: false };
    rig.a.command(|_| Command::ChangeMacs(Arc::new(vec![station])));
    let mut lost = frame(1, 100);
    lost[..6].copy_from_slice(&mac(5).0);
    rig.a.send(0, &lost);
    rig.a.dropped(DropReason::NoRoute, 1);
    // A link without key, and one whose key is too old.
    let address: SocketAddr = rig.b.address;
    let counters = rig::link_counters();
    rig.a.command(|_| Command::SetLink { link: FORGER_LINK, address, counters: Arc::clone(&counters) });
    let peers = vec![neighbour(2, rig::LINK), neighbour(9, FORGER_LINK)];
    let routes = Routes { peers, broadcast: vec![rig::LINK], ..Routes::default() };
    let routes = Arc::new(routes);
    rig.a.command(|_| Command::SetRoutes(Arc::clone(&routes)));
    rig.a.send(0, &lost);
    wait(|| rig.a.state(), || rig.a.drops(DropReason::NoSendKey) == 1);
    rig.a.command(|_| rig.a.send_key(FORGER_LINK, SessionIndex(0x3000), 0, boot_time()));
    rig.a.send(0, &lost);
    wait(|| rig.a.state(), || rig.a.drops(DropReason::NoSendKey) == 2);
    assert_eq!(counters.frames_sent.get(), 0);
    rig.works();
}

#[test]
fn a_peer_that_no_route_leads_to_costs_the_others_nothing() {
    let mut rig = Rig::usual();
    let link = LinkId(2);
    let address: SocketAddr = "192.0.2.1:6783".parse().unwrap();
    rig.a.command(|_| Command::SetLink { link, address, counters: rig::link_counters() });
    // Its keep-alive is dropped at once.
    let expires = boot_time() + Duration::from_secs(60);
    rig.a.command(|_| rig.a.send_key(link, SessionIndex(0x4000), 0, expires));
    rig.a.dropped(DropReason::Unreachable, 1);
    rig.a.place_station(None);
    let routes = Arc::new(Routes {
        peers: vec![neighbour(2, rig::LINK)],
        broadcast: vec![link, rig::LINK],
        ..Routes::default()
    });
    rig.a.command(|_| Command::SetRoutes(Arc::clone(&routes)));
    for number in 0..100 {
        rig.a.send(0, &frame(number, 200));
        assert_eq!(number_of(&rig.b.receive()), number);
    }
    wait(|| rig.a.state(), || rig.a.drops(DropReason::Unreachable) == 101);
    // A port nobody listens on: the kernel of an unconnected socket does not tell.
    let address: SocketAddr = "127.0.0.1:9".parse().unwrap();
    rig.a.command(|_| Command::SetLink { link, address, counters: rig::link_counters() });
    for number in 0..100 {
        rig.a.send(0, &frame(number, 200));
        assert_eq!(number_of(&rig.b.receive()), number);
    }
    rig.works();
}

#[test]
fn segments_over_the_mtu_of_the_path_are_dropped_and_smaller_ones_pass() {
    let mut rig = Rig::new(Options { underlay_mtu: Some(1280), ..Options::default() });
    // One: refused as it is. Several in one send: refused, then each.
    rig.a.send(0, &frame(0, MAX_FRAME));
    rig.a.dropped(DropReason::TooBig, 1);
    flood(&rig, 300, MAX_FRAME);
    rig.a.dropped(DropReason::TooBig, 301);
    rig.works();
    flood(&rig, 300, 1000);
    take(&rig, 300);
}

#[test]
fn a_slow_tap_exhausts_the_buffers_and_loses_nothing() {
    const COUNT: u64 = 8000;
    let mut rig = Rig::new(Options { tap_buffer: 8192, ..Options::default() });
    flood(&rig, COUNT, 100);
    wait(|| rig.b.state(), || rig.b.counter("buffers_exhausted") > 0);
    take(&rig, COUNT);
    assert!(rig.b.state().contains("dropped []"), "{}", rig.b.state());
    rig.works();
}

#[test]
fn an_underlay_that_takes_no_more_holds_the_tap_back_and_loses_nothing() {
    // 28 MB at 10 MB/s: far more waits than the socket's buffer and all slots hold.
    const COUNT: u64 = 20_000;
    let mut rig =
        Rig::new(Options { discipline: Some("tbf rate 80mbit burst 1mb latency 10s"), ..Options::default() });
    std::thread::scope(|scope| {
        let taps = &rig.a.taps;
        scope.spawn(move || {
            for number in 0..COUNT {
                taps[0].send(&[VnetHeader::plain().as_bytes(), &frame(number, MAX_FRAME)].concat()).unwrap();
            }
        });
        take(&rig, COUNT);
    });
    assert!(rig.a.counter("back_pressure") > 0, "{}", rig.a.state());
    assert!(rig.a.state().contains("dropped []"), "{}", rig.a.state());
    rig.works();
}

#[test]
fn a_path_is_probed_while_the_underlay_takes_no_more() {
    const COUNT: u64 = 20_000;
    let mut rig =
        Rig::new(Options { discipline: Some("tbf rate 80mbit burst 1mb latency 10s"), ..Options::default() });
    std::thread::scope(|scope| {
        let taps = &rig.a.taps;
        scope.spawn(move || {
            for number in 0..COUNT {
                taps[0].send(&[VnetHeader::plain().as_bytes(), &frame(number, MAX_FRAME)].concat()).unwrap();
            }
        });
        let (a, b) = (&rig.a, &rig.b);
        scope.spawn(move || {
            wait(|| a.state(), || a.counter("back_pressure") > 0);
            for number in 1..=3 {
                a.command(|_| Command::Probe { link: rig::LINK, first: number, lens: vec![1000] });
                let is_seen =
                    |r: &Report| matches!(r, Report::ProbeSeen { number: seen, .. } if *seen == number);
                b.await_report("a probe", is_seen);
            }
        });
        take(&rig, COUNT);
    });
    assert!(rig.a.state().contains("dropped []"), "{}", rig.a.state());
    rig.works();
}

#[test]
fn a_completion_queue_that_overflows_loses_nothing() {
    const COUNT: u64 = 4000;
    let mut rig = Rig::new(Options { completions: Some(8), ..Options::default() });
    flood(&rig, COUNT, 200);
    take(&rig, COUNT);
    assert!(
        rig.a.counter("completion_overflow") + rig.b.counter("completion_overflow") > 0,
        "{}\n{}",
        rig.a.state(),
        rig.b.state()
    );
    rig.works();
}

fn gathering_waits(rig: &Rig) -> u64 {
    rig.a.counter("gathering_waits") + rig.b.counter("gathering_waits")
}

#[test]
fn small_frames_that_come_one_by_one_are_gathered() {
    let mut rig = Rig::usual();
    wait(
        || rig.a.state() + &rig.b.state(),
        || {
            flood(&rig, 200, 100);
            take(&rig, 200);
            gathering_waits(&rig) > 0
        },
    );
    rig.works();
}

#[test]
fn every_fall_back_of_the_kernels_features_carries_frames() {
    for absent in [
        &["multishot-read"][..],
        &["min-wait"],
        &["udp-segment"],
        &["udp-gro"],
        &["multishot-read", "min-wait", "udp-segment", "udp-gro"],
    ] {
        let features = weave_forward::probe(absent).unwrap();
        let mut rig = Rig::new(Options { features, ..Options::default() });
        flood(&rig, 2000, 700);
        take(&rig, 2000);
        assert!(features.gathering || gathering_waits(&rig) == 0, "{absent:?}");
        rig.works();
    }
}
