//! Trains of datagrams, and queues of reports and frames that are full.

use crate::rig::{Forger, Options, Rig, frame, mac, name, number_of, wait};
use std::collections::HashSet;
use std::time::Duration;
use weave_forward::{DropReason, Report, boot_time};
use weave_wire::vnet::VNET_LEN;
use weave_wire::{OUTER_LEN, SessionIndex};

#[test]
fn a_station_whose_report_was_lost_is_reported_again() {
    let rig = Rig::usual();
    let mut forger = Forger::new(&rig);
    let from = |number: u32| {
        let mut frame = frame(number.into(), 60);
        frame[6..12].copy_from_slice(&mac(number).0);
        frame
    };
    // Nobody reads reports for a while.
    let mut last = 0;
    while rig.b.drops(DropReason::ReportFull) == 0 {
        last += 1;
        assert!(last < 10_000, "reports are never full: {}", rig.b.state());
        let datagram = forger.honest(&from(last));
        forger.send(&datagram);
        assert_eq!(rig.b.receive(), from(last));
    }
    while rig.b.reports.try_recv().is_ok() {}
    let datagram = forger.honest(&from(last));
    forger.send(&datagram);
    let wanted = Report::MacSeen { mac: mac(last), peer: name(3) };
    rig.b.await_report("the station", |report| *report == wanted);
}

#[test]
fn datagrams_merged_across_lanes_reach_their_owners() {
    const EACH: u64 = 20;
    let mut rig = Rig::new(Options { shards: 2, ..Options::default() });
    let mut forger = Forger::new(&rig);
    let merged: Vec<_> = (0..2 * EACH)
        .map(|number| forger.datagram(number as usize % 2, Forger::inner(), &frame(number, 120)))
        .collect();
    forger.send_merged(&merged);
    for shard in 0..2 {
        let numbers: HashSet<_> =
            (0..EACH).map(|_| number_of(&rig.b.receive_raw(shard)[VNET_LEN..])).collect();
        assert_eq!(numbers, (0..EACH).map(|i| 2 * i + shard as u64).collect(), "tap {shard}");
    }
    assert_eq!(rig.b.counter("handed_over"), EACH, "{}", rig.b.state());
    rig.works();
}

#[test]
fn a_control_datagram_among_others_reaches_the_control_core() {
    let mut rig = Rig::usual();
    let mut forger = Forger::new(&rig);
    let first = forger.honest(&frame(1, 100));
    let mut control = forger.honest(&frame(2, 100));
    control[..2].copy_from_slice(&[0x13, 255]);
    let last = forger.honest(&frame(3, 100));
    forger.send_merged(&[first, control.clone(), last]);
    assert_eq!([1, 3], [(); 2].map(|()| number_of(&rig.b.receive())));
    let report = rig.b.await_report("a control datagram", |r| matches!(r, Report::ControlDatagram { .. }));
    let Report::ControlDatagram { datagram, .. } = report else { unreachable!() };
    assert_eq!(*datagram, *control);
    rig.works();
}

#[test]
fn more_control_datagrams_than_the_core_takes_are_counted() {
    let mut rig = Rig::usual();
    let mut forger = Forger::new(&rig);
    let first = forger.honest(&frame(1, 100));
    let mut control = first.clone();
    control[..2].copy_from_slice(&[0x13, 255]);
    // The first one is forged: only its lane leads the others here.
    let mut train = vec![control; 60];
    train[0] = first;
    train[0][OUTER_LEN + 3] ^= 1;
    for _ in 0..100 {
        forger.send_merged(&train);
    }
    let drops = |reason| rig.b.drops(reason);
    // Of the last train the forged one is counted before those behind it.
    wait(
        || rig.b.state(),
        || drops(DropReason::Forged) == 100 && drops(DropReason::ReportFull) >= 100 * 59 - 4096,
    );
    rig.works();
}

#[test]
fn what_is_reported_once_only_is_not_lost() {
    let rig = Rig::usual();
    let mut forger = Forger::new(&rig);
    // Nobody reads reports for a while, and strangers have filled their queue.
    let mut control = forger.honest(&frame(1, 100));
    control[..2].copy_from_slice(&[0x13, 255]);
    let mut train = vec![control; 60];
    train[0][..2].copy_from_slice(&[0x10, 0]);
    while rig.b.drops(DropReason::ReportFull) == 0 {
        forger.send_merged(&train);
    }
    let session = SessionIndex(0x5000);
    rig.b.command(|_| rig.b.receive_keys(3, rig.a.address, session, boot_time() + Duration::from_secs(60)));
    // The shard has come past it.
    let datagrams = rig.b.counter("datagrams_received");
    forger.send_merged(&train);
    wait(|| rig.b.state(), || rig.b.counter("datagrams_received") > datagrams);
    // It may find room while the queue is emptied, else in its next turn.
    let is_installed = |report: &Report| matches!(report, Report::ReceiveInstalled { .. });
    let emptied: Vec<_> = std::iter::from_fn(|| rig.b.reports.try_recv().ok()).collect();
    if !emptied.iter().any(is_installed) {
        forger.send(&train[1]);
        forger.send(&train[0]);
        rig.b.await_report("installed keys", is_installed);
    }
}

#[test]
fn a_full_inbox_is_counted_and_empties_again() {
    let mut rig = Rig::new(Options { shards: 2, tap_buffer: 8192, ..Options::default() });
    let mut forger = Forger::new(&rig);
    // All but the first of each train belong to shard 1, whose tap nobody empties.
    let mut sent = 0;
    while rig.b.drops(DropReason::HandOverFull) == 0 {
        assert!(sent < 200 * 40, "no inbox is ever full: {}", rig.b.state());
        let train: Vec<_> = (0..40)
            .map(|i| forger.datagram(usize::from(i > 0), Forger::inner(), &frame(sent + i, 300)))
            .collect();
        forger.send_merged(&train);
        assert_eq!(number_of(&rig.b.receive()), sent);
        sent += 40;
        wait(|| rig.b.state(), || rig.b.counter("datagrams_received") >= sent);
    }
    // What was taken in comes out, once each.
    let handed = rig.b.counter("handed_over");
    let mut numbers = HashSet::new();
    for _ in 0..handed {
        assert!(numbers.insert(number_of(&rig.b.receive_raw(1)[VNET_LEN..])), "delivered twice");
    }
    // And the next ones pass.
    let train: Vec<_> =
        (0..40).map(|i| forger.datagram(usize::from(i > 0), Forger::inner(), &frame(i, 300))).collect();
    forger.send_merged(&train);
    for _ in 1..40 {
        rig.b.receive_raw(1);
    }
    assert_eq!(number_of(&rig.b.receive()), 0);
    rig.works();
}
