//! What is dialled: targets, remembered targets, recent peers.

use std::time::{Duration, Instant};
use weave_api::status::{ConnectionState, TargetState};
use weave_tests::world::{Family, LINK_WITHIN, v4, v6};
use weave_tests::{Options, World, wait_until};

/// Both routers are up: the link is there.
const LINKED_WITHIN: Duration = Duration::from_secs(2);

/// An address on the underlay where nobody is.
const NOBODY: &str = "10.99.0.77";

fn targets(world: &World, index: usize) -> Vec<String> {
    world.status(index).targets.iter().map(|status| status.target.to_string()).collect()
}

#[track_caller]
fn wait_both(world: &World, limit: Duration) {
    wait_until(
        limit,
        || format!("{:#?}", [0, 1].map(|index| world.status(index).connections)),
        || [0, 1].iter().all(|index| world.link(*index).is_some()),
    );
}

#[test]
fn hosts_that_share_only_ipv6_are_linked() {
    let world = World::pair(Options::encrypted().family(Family::V6).not_launched());
    for index in [0, 1] {
        world.tool(index, "ip -4 address flush dev eth0");
    }
    world.launch(0, &[]);
    world.launch(1, &[&world.underlay(0).to_string()]);
    wait_both(&world, LINK_WITHIN);
    let address = world.link(0).unwrap().address.to_string();
    assert!(address.contains("fd99"), "linked by {address}");
    world.wait_ping(0, v4(1).into(), LINK_WITHIN);
    world.wait_ping(1, v6(0).into(), LINK_WITHIN);
}

#[test]
fn a_target_is_dialled_by_connect_replaced_and_forgotten_and_the_live_link_stays() {
    let world = World::pair(Options::encrypted().not_launched());
    world.launch(0, &[]);
    world.launch(1, &[]);
    let peer = world.underlay(0).to_string();
    world.weave(1, &["connect", &peer]).ok();
    wait_both(&world, LINK_WITHIN);
    assert_eq!(targets(&world, 1), [peer.as_str()]);
    let state = |place: usize| world.status(1).targets[place].state;
    assert_eq!(state(0), TargetState::Connected);

    world.weave(1, &["connect", "--replace", NOBODY]).ok();
    assert_eq!(targets(&world, 1), [NOBODY]);
    assert!(world.link(1).is_some(), "a live link was ended by connect --replace");

    world.weave(1, &["connect", &peer]).ok();
    assert_eq!(targets(&world, 1), [NOBODY, &peer]);
    wait_until(
        LINK_WITHIN,
        || format!("{:#?}", world.status(1).targets),
        || state(1) == TargetState::Connected,
    );
    // The port is that of the network, said or not.
    let with_port = format!("{peer}:{}", world.status(1).port);
    world.weave(1, &["forget", NOBODY, &with_port]).ok();
    assert!(targets(&world, 1).is_empty());
    assert!(world.link(1).is_some(), "a live link was ended by forget");
    assert_eq!(world.status(1).counters["links_lost"], 0);
    assert_eq!([0, 1].map(|index| live(&world, index)), [1, 1], "one link between two hosts");
}

#[test]
fn a_forgotten_peer_is_not_dialled_again_when_its_link_is_lost() {
    let world = World::pair(Options::encrypted().args("--no-discovery"));
    world.weave(1, &["forget", &world.underlay(0).to_string()]).ok();
    world.stop(0);
    wait_until(LINK_WITHIN, || "the link stays".into(), || world.link(1).is_none());
    world.launch(0, &[]);
    // Longer than the longest wait after a fresh loss.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!([0, 1].map(|index| live(&world, index)), [0, 0]);
    let dials = world.status(0).counters["tcp_accepted"];
    assert_eq!(dials, 0, "a forgotten peer is dialled");
}

fn live(world: &World, index: usize) -> usize {
    let links = world.status(index).connections;
    let linked = |state| matches!(state, ConnectionState::Pending | ConnectionState::Established);
    links.iter().filter(|link| linked(link.state)).count()
}

#[test]
fn targets_are_remembered_over_a_relaunch_and_replaced_by_those_of_a_launch() {
    let world = World::pair(Options::encrypted());
    let peer = world.underlay(0).to_string();
    world.weave(1, &["connect", NOBODY]).ok();
    let wanted = [peer.as_str(), NOBODY];
    assert_eq!(targets(&world, 1), wanted);
    world.stop(1);
    world.launch(1, &[]);
    assert_eq!(targets(&world, 1), wanted);
    world.kill(1);
    world.launch(1, &[]);
    assert_eq!(targets(&world, 1), wanted);
    wait_both(&world, LINKED_WITHIN);
    world.stop(1);
    world.launch(1, &[NOBODY]);
    assert_eq!(targets(&world, 1), [NOBODY]);
}

#[test]
fn a_recent_peer_is_dialled_at_launch_though_neither_side_has_a_target() {
    let world = World::pair(Options::encrypted());
    world.weave(1, &["connect", "--replace", NOBODY]).ok();
    assert!(world.link(1).is_some());
    // Host 0 never had a target; its peer was dialled by it once and no more.
    world.stop(1);
    world.kill(0);
    world.launch(1, &[]);
    world.launch(0, &[]);
    let back = Instant::now();
    wait_both(&world, LINK_WITHIN);
    assert!(back.elapsed() < LINKED_WITHIN, "it took {:?}", back.elapsed());
    assert!(targets(&world, 0).is_empty());
}

#[test]
fn a_target_may_be_a_name() {
    let world = World::pair(Options::encrypted().not_launched());
    world.launch(0, &[]);
    // The only name every host knows.
    world.launch(1, &["localhost", "nobody.invalid"]);
    let state = |place: usize| world.status(1).targets[place].clone();
    for place in [0, 1] {
        wait_until(LINK_WITHIN, || format!("{:#?}", state(place)), || state(place).reason.is_some());
    }
    let ourselves = state(0);
    assert_eq!(ourselves.state, TargetState::Ourself, "{ourselves:?}");
    assert!(ourselves.reason.is_some_and(|reason| reason.contains("leads back to this host")));
    assert_ne!(state(1).state, TargetState::Connected);
}

#[test]
fn unequal_mtus_are_shown_at_both_ends_and_the_link_is_there() {
    let world = World::pair(Options::encrypted().args_of(0, "--mtu 1300"));
    for (index, other) in [(0, 1376), (1, 1300)] {
        let link = world.link(index).unwrap();
        assert_eq!(link.mtu, Some(other));
        let shown = link.degraded.iter().find(|state| state.name == "unequal_mtu");
        let reason = &shown.unwrap_or_else(|| panic!("not shown: {link:#?}")).reason;
        assert!(reason.contains("1300") && reason.contains("1376"), "{reason}");
        let text = world.weave(index, &["status", "connections"]).ok().stdout;
        assert!(text.contains(&format!("{other}")), "{text}");
    }
    world.wait_ping(0, v4(1).into(), LINK_WITHIN);
}
