#![allow(clippy::unwrap_used)]

use super::net::{Cheap, Net, name};
use crate::output::{Output, Signer};
use std::time::Duration;
use weave_wire::link::gossip::{Gossip, NameEntry, PartId, SignedPart};

fn entry(text: &str) -> NameEntry {
    NameEntry { name: text.parse().unwrap(), address: [10, 32, 0, 1].into(), container: [7; 6] }
}

fn names(net: &mut Net, at: usize) -> Vec<String> {
    net.mesh(at).names().map(|(name, ..)| name.to_string()).collect()
}

fn line() -> Net {
    let mut net = Net::new(3);
    (0..2).for_each(|n| net.link(n, n + 1));
    let now = net.now;
    net.mesh(2).set_names(vec![entry("old.weave.local"), entry("stays.weave.local")], now);
    net.seconds(2);
    assert_eq!(names(&mut net, 0).len(), 2);
    net
}

#[test]
fn a_restart_takes_the_place_of_the_former_run_and_its_names_are_gone() {
    let mut net = line();
    net.crash(2);
    net.seconds(5);
    assert!(names(&mut net, 0).is_empty(), "only reachable peers count");
    net.start(2, 2, 2, 2);
    net.link(1, 2);
    net.seconds(2);
    net.check(3);
    assert!(names(&mut net, 0).is_empty(), "names of the former run came back");
    let now = net.now;
    net.mesh(2).set_names(vec![entry("stays.weave.local")], now);
    net.seconds(2);
    assert_eq!(names(&mut net, 0), ["stays.weave.local"]);
}

#[test]
fn a_restart_that_did_not_count_itself_rises_above_its_own_copies() {
    let mut net = line();
    net.crash(2);
    net.seconds(1);
    net.start(2, 2, 2, 1);
    net.link(1, 2);
    net.seconds(3);
    net.check(3);
    assert!(names(&mut net, 0).is_empty());
    assert!(!net.outputs(2).iter().any(|output| matches!(output, Output::Cloned { .. })));
}

#[test]
fn a_restart_that_forgot_its_runs_altogether_rises_too() {
    let mut net = line();
    net.crash(2);
    net.seconds(1);
    net.start(2, 2, 2, 0);
    net.link(1, 2);
    net.seconds(3);
    net.check(3);
    assert!(net.mesh(2).counters().own_copies >= 1);
    assert!(!net.outputs(2).iter().any(|output| matches!(output, Output::Cloned { .. })));
}

/// Three texts of a former run, told by rising version: by neighbours that were apart from each
/// other, or by one that kept them all.
#[test]
fn however_many_texts_of_a_former_run_are_told_it_is_no_clone() {
    let mut net = line();
    let former = net.nodes[&2].uid;
    net.crash(2);
    net.start(2, 2, 2, 2);
    net.link(1, 2);
    net.seconds(2);
    let key = Cheap(2);
    for (part, first) in [(PartId::HOST, 50), (PartId::names(60), 70)] {
        for version in first..first + 5 {
            let version = (1 << 32) + version;
            let (owner, identity) = (name(2), key.identity());
            let mut text = SignedPart {
                owner,
                identity,
                uid: former,
                part,
                version,
                content: vec![],
                signature: [0; 64],
            };
            text.signature = key.sign(&text.signed_bytes());
            let digest = text.digest();
            net.inject(1, 2, Gossip::Digests(vec![digest]));
            net.inject(1, 2, Gossip::Part(Box::new(text)));
        }
    }
    net.seconds(2);
    net.check(3);
    assert!(!net.outputs(2).iter().any(|output| matches!(output, Output::Cloned { .. })));
}

#[test]
fn a_restart_without_state_is_another_peer() {
    let mut net = line();
    net.crash(2);
    net.start(2, 8, 8, 1);
    net.link(1, 2);
    net.seconds(2);
    assert!(net.mesh(0).routes().peer(name(8)).is_some());
    assert!(net.mesh(0).routes().peer(name(2)).is_none());
}

#[test]
fn of_two_clones_the_larger_run_gives_way() {
    let mut net = Net::new(5);
    (0..4).for_each(|n| net.link(n, n + 1));
    net.seconds(1);
    net.crash(4);
    // The clone of 0 stands at the other end of the line.
    net.start(4, 0, 0, 1);
    assert!(net.link_at(3, 4, 1, false));
    net.seconds(20);
    let cloned = |outputs: Vec<Output>| {
        outputs.into_iter().find_map(|output| {
            let Output::Cloned { uid, must_rename } = output else { return None };
            Some((uid, must_rename))
        })
    };
    let (first, second) = (net.nodes[&0].uid, net.nodes[&4].uid);
    assert!(first < second);
    assert_eq!(cloned(net.outputs(4)), Some((first, true)));
    let published = net.mesh(0).counters().published;
    net.seconds(20);
    assert!(net.mesh(0).counters().published <= published + 1, "the fight is over");
    if let Some((uid, must_rename)) = cloned(net.outputs(0)) {
        assert_eq!((uid, must_rename), (second, false));
    }
}

#[test]
fn what_was_queued_on_a_connection_that_broke_is_told_again_on_the_next() {
    let mut net = line();
    net.broken = true;
    let now = net.now;
    net.mesh(2).set_names(vec![entry("new.weave.local")], now);
    net.seconds(2);
    assert_eq!(names(&mut net, 0).len(), 2, "nobody heard of it");
    net.resume_all();
    net.seconds(2);
    assert_eq!(names(&mut net, 0), ["new.weave.local"]);
}

#[test]
fn two_clones_that_take_turns_at_one_neighbour_find_each_other_out() {
    let mut net = Net::new(3);
    net.link(0, 1);
    net.start(3, 2, 2, 1);
    net.seconds(1);
    // The neighbour has one link to one name: each run takes the place of the other's, and both
    // tell of that in step, so that neither ever sees a version above its own.
    for _ in 0..8 {
        for clone in [2, 3] {
            net.link(1, clone);
            net.run(Duration::from_millis(700));
            net.cut(1, clone);
            net.run(Duration::from_millis(50));
        }
    }
    let mut renamed = Vec::new();
    for clone in [2, 3] {
        let is_it = |output: &Output| matches!(output, Output::Cloned { must_rename: true, .. });
        renamed.extend(net.outputs(clone).iter().any(is_it).then_some(clone));
    }
    assert_eq!(renamed, [3], "the later one");
}
