use super::net::{Net, name};
use crate::output::Output;
use proptest::prelude::*;
use std::time::Duration;

#[test]
fn a_line_carries_from_end_to_end() {
    let mut net = Net::new(6);
    (0..5).for_each(|n| net.link(n, n + 1));
    net.seconds(2);
    net.check(6);
    assert_eq!(net.route(0, 5).map(|route| route.hops), Some(5));
    let features = |of| net.nodes[&0].mesh.peer(name(of)).map(|peer| peer.features);
    assert_eq!((features(1), features(5)), (Some(1), Some(5)), "told over any number of links");
}

#[test]
fn a_ring_is_walked_the_shorter_way_and_the_other_when_cut() {
    let mut net = Net::new(5);
    (0..5).for_each(|n| net.link(n, (n + 1) % 5));
    net.seconds(2);
    net.check(5);
    assert_eq!(net.route(0, 2).map(|route| route.hops), Some(2));
    net.cut(1, 2);
    net.run(Duration::from_millis(500));
    net.check(5);
    assert_eq!(net.route(0, 2).map(|route| route.hops), Some(3));
}

#[test]
fn two_links_of_one_peer_count_once_and_the_newest_carries() {
    let mut net = Net::new(2);
    net.link(0, 1);
    net.seconds(1);
    let old = net.route(0, 1).map(|route| route.next);
    net.link(0, 1);
    net.seconds(1);
    assert_ne!(net.route(0, 1).map(|route| route.next), old);
    net.check(2);
}

#[test]
fn frames_that_may_take_no_unencrypted_link_go_round_it_and_others_do_not() {
    let mut net = Net::new(5);
    net.sealed_only = vec![0];
    net.start(0, 0, 0, 2);
    // 0 - 1 = 2 is the shorter way, 0 - 1 - 3 - 2 the sealed one; 4 is behind an unencrypted link.
    for (a, b, unencrypted) in [(0, 1, false), (1, 2, true), (1, 3, false), (3, 2, false), (2, 4, true)] {
        assert!(net.link_at(a, b, 1, unencrypted));
    }
    net.seconds(2);
    net.check(5);
    let of = |net: &Net, from, to| net.route(from, to).map(|route| (route.hops, route.unencrypted));
    assert_eq!(of(&net, 0, 2), Some((3, false)));
    assert_eq!(of(&net, 1, 2), Some((1, true)));
    assert_eq!(net.route(0, 4).and_then(|route| route.next_sealed), None);
    assert_eq!(net.broadcast(0), 4, "all but the one behind the unencrypted link");
    assert_eq!(net.broadcast(2), 5);
}

#[test]
fn former_paths_are_accepted_for_two_seconds() {
    let mut net = Net::new(4);
    for (a, b) in [(0, 1), (1, 3), (0, 2), (2, 3)] {
        net.link(a, b);
    }
    net.seconds(5);
    let by_one = net.route(0, 3).map(|route| route.next);
    net.cut(1, 3);
    net.run(Duration::from_millis(1500));
    let accepted = |net: &Net| net.route(0, 3).map(|route| route.broadcast_from.clone()).unwrap_or_default();
    assert!(accepted(&net).contains(&by_one.unwrap_or(crate::LinkNumber(0))), "{:?}", accepted(&net));
    assert_ne!(net.route(0, 3).map(|route| route.next), by_one);
    net.seconds(2);
    assert_eq!(accepted(&net).len(), 1);
    assert!(net.outputs(0).contains(&Output::RoutesChanged));
}

#[test]
fn the_cost_of_a_link_and_the_weakest_link_count() {
    let mut net = Net::new(4);
    assert!(net.link_at(0, 1, 10, false));
    assert!(net.link_at(1, 3, 1, false));
    assert!(net.link_at(0, 2, 2, true));
    assert!(net.link_at(2, 3, 2, false));
    net.seconds(2);
    net.check(4);
    let route = net.route(0, 3).cloned();
    assert_eq!(route.map(|route| (route.cost, route.unencrypted)), Some((4, true)));
}

#[test]
fn a_partition_heals_and_what_changed_meanwhile_is_known_on_both_sides() {
    let mut net = Net::new(6);
    for (a, b) in [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)] {
        net.link(a, b);
    }
    net.seconds(2);
    net.cut(2, 3);
    net.seconds(1);
    net.check(3);
    net.link(0, 2);
    net.crash(5);
    net.seconds(60);
    net.link(2, 3);
    net.seconds(2);
    net.check(5);
    assert!(net.route(0, 5).is_none());
}

#[test]
fn unreachable_peers_are_collected_and_nobody_brings_them_back() {
    let mut net = Net::new(4);
    (0..3).for_each(|n| net.link(n, n + 1));
    net.seconds(2);
    net.crash(3);
    net.seconds(590);
    assert!(net.mesh(0).peers().any(|peer| peer.name == name(3) && peer.nickname.is_some()));
    net.seconds(60);
    assert!(net.mesh(0).peers().all(|peer| peer.name != name(3) || peer.nickname.is_none()));
    assert!(net.mesh(0).peers().any(|peer| peer.name == name(3)), "the binding stays");
    net.seconds(3100);
    assert_eq!(net.mesh(0).peers().count(), 2);
}

#[test]
fn the_newest_spare_link_is_shed_and_a_bridge_never() {
    let mut net = Net::new(4);
    (0..3).for_each(|n| net.link(n, n + 1));
    net.seconds(2);
    assert_eq!((0..4).filter_map(|n| net.mesh(n).shed()).count(), 0);
    net.link(0, 2);
    net.seconds(2);
    let spare = net.route(0, 2).map(|route| route.next);
    assert_eq!(net.mesh(0).shed(), spare);
    assert_eq!(net.mesh(3).shed(), None);
}

#[test]
fn a_link_that_could_take_nothing_catches_up() {
    let mut net = Net::new(3);
    net.link(0, 1);
    net.seconds(2);
    let link = net.route(0, 1).map(|route| route.next).unwrap_or(crate::LinkNumber(0));
    net.mesh(0).set_writable(link, false);
    net.link(0, 2);
    net.seconds(2);
    assert!(net.route(1, 2).is_none());
    net.mesh(0).set_writable(link, true);
    net.seconds(2);
    net.check(3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn any_graph_under_change_has_no_loops_and_each_broadcast_arrives_once(
        nodes in 2_usize..10,
        changes in prop::collection::vec((0_usize..10, 0_usize..10, 1_u16..3, any::<bool>()), 1..40),
        sealed_only in prop::collection::vec(0_usize..10, 0..3),
    ) {
        change_and_check(nodes, &changes, sealed_only);
    }
}

/// Hosts in a line, of which two each are linked (at that cost) or cut, one pair every 30 ms.
fn change_and_check(nodes: usize, changes: &[(usize, usize, u16, bool)], sealed_only: Vec<usize>) {
    let mut net = Net::default();
    net.sealed_only = sealed_only;
    (0..nodes).for_each(|n| net.start(n, n, n as u64, 1));
    (1..nodes).for_each(|n| net.link(n - 1, n));
    for (a, b, cost, cut) in changes {
        let (a, b) = (a % nodes, b % nodes);
        if a.abs_diff(b) > 1 {
            net.cut(a, b);
            if !cut {
                net.link_at(a, b, *cost, *cost == 2);
            }
            net.run(Duration::from_millis(30));
        }
    }
    net.seconds(3);
    net.check(nodes);
}

/// A link that has one version of a part, and is not told of the next, which comes from elsewhere
/// before the first is announced, would learn of it from a summary only.
#[test]
fn a_version_that_overtakes_the_announcement_of_the_one_before_is_announced_to_all() {
    let (link, cut) = (|a, b| (a, b, 1, false), |a, b| (a, b, 1, true));
    let [begin, middle] = [[link(0, 2), link(0, 5), link(5, 0)], [link(7, 5), cut(2, 0), link(0, 6)]];
    let end = [cut(4, 0), cut(6, 0), link(2, 0), link(3, 6), cut(0, 5)];
    let first = [cut(6, 0), cut(4, 0), cut(4, 0)];
    change_and_check(9, &[&first[..], &begin, &middle, &end].concat(), Vec::new());
}

#[test]
fn who_knows_the_same_has_the_same_digest() {
    let mut net = Net::new(4);
    for (a, b) in [(0, 1), (1, 2), (2, 3), (3, 0)] {
        net.link(a, b);
    }
    net.seconds(3);
    let views = |net: &mut Net| [0, 1, 2, 3].map(|at| net.mesh(at).topology());
    let whole = views(&mut net);
    assert!(whole.iter().all(|view| *view == whole[0]), "{whole:?}");
    assert_eq!((whole[0].peers, whole[0].links, whole[0].unreachable), (4, 8, 0));
    net.cut(1, 2);
    net.seconds(3);
    let line = views(&mut net);
    assert!(line.iter().all(|view| *view == line[0]), "{line:?}");
    assert_ne!(line[0].digest, whole[0].digest);
    net.cut(3, 0);
    net.seconds(3);
    let parts = views(&mut net);
    assert_eq!((parts[0].digest, parts[2].digest), (parts[1].digest, parts[3].digest));
    assert_ne!(parts[0].digest, parts[2].digest);
    assert_eq!((parts[0].peers, parts[0].unreachable), (2, 2));
}
