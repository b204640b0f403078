//! Invariants can fail: a host with a defect is found by the one that is meant for it.

use std::time::Duration;
use weave_sim::character::{Character, Defect};
use weave_sim::checks;
use weave_sim::hostile::Hostile;
use weave_sim::network::HostId;
use weave_sim::random::Random;
use weave_sim::shape::{self, Shape};
use weave_sim::world::{World, WorldConfig};
use weave_wire::link::gossip::NameEntry;

/// A world in which some hosts have defects, after hosts had time to meet.
fn world(hosts: usize, shape: Shape, broken: &[u16], defects: &[Defect]) -> World {
    let mut world = shape::world(&WorldConfig { seed: 5, ..WorldConfig::default() }, hosts, shape);
    for host in broken {
        world.set_character(HostId(*host), Character::broken(defects));
    }
    shape::start_all(&mut world, Duration::from_secs(1));
    world.run_for(Duration::from_secs(10));
    world
}

fn name(number: u8) -> NameEntry {
    let name = format!("c{number}.weave.local").parse().unwrap();
    NameEntry { name, address: [10, 32, 0, number].into(), container: [1; 6] }
}

/// One violation says this.
fn assert_found(world: &World, what: &str) {
    let violations = world.ledger.violations();
    assert!(violations.iter().any(|violation| violation.contains(what)), "{what}: {violations:?}");
}

#[test]
fn a_world_without_defects_breaks_no_rule() {
    for shape in [Shape::Full, Shape::Ring, Shape::Line, Shape::Degree(4)] {
        let mut world = world(8, shape, &[], &[]);
        assert_eq!(checks::disagreement(&world), None, "{shape:?}");
        checks::always(&mut world, true, true);
        checks::traffic(&mut world);
        assert_eq!(world.ledger.violations(), [""; 0], "{shape:?}");
    }
}

#[test]
fn a_host_that_ignores_farewells_still_knows_who_left() {
    let mut world = world(5, Shape::Full, &[2], &[Defect::IgnoresFarewells]);
    let gone = world.running_name(HostId(4)).unwrap();
    world.with_host(HostId(4), |host, now| host.mesh.farewell(now));
    world.run_for(Duration::from_millis(200));
    world.stop(HostId(4));
    world.run_for(Duration::from_secs(2));
    let knows: Vec<_> =
        world.members().filter(|(_, host)| host.mesh.peer(gone).is_some()).map(|(id, _)| id).collect();
    assert_eq!(knows, [HostId(2)]);
}

#[test]
fn frames_sent_to_all_links_arrive_more_than_once() {
    let mut world = world(6, Shape::Ring, &[0, 1, 2, 3, 4, 5], &[Defect::Floods]);
    checks::traffic(&mut world);
    assert_found(&world, "heard a broadcast");
}

#[test]
fn frames_without_a_hop_limit_cross_too_many_links() {
    let defects = [Defect::Floods, Defect::CountsNoHops];
    let mut world = world(3, Shape::Ring, &[0, 1, 2], &defects);
    world.send_frame(HostId(0), None);
    world.run_for(Duration::from_secs(1));
    assert_found(&world, "crosses link");
}

#[test]
fn a_host_that_checks_no_signature_believes_what_a_hostile_one_forged() {
    let mut world = world(5, Shape::Full, &[2], &[Defect::ChecksNoSignature]);
    let state = world.slot(HostId(1)).unwrap().state_now();
    world.kill(HostId(1));
    let hostile = Hostile::new(state.name, state.key, true, Random::new(1));
    world.set_character(HostId(1), Character::Hostile(Box::new(hostile)));
    world.slot_mut(HostId(1)).unwrap().is_member = false;
    world.start(HostId(1));
    for _ in 0..200 {
        world.run_for(Duration::from_millis(100));
        world.with_host(HostId(1), weave_sim::host::Host::mischief);
        checks::always(&mut world, true, false);
    }
    assert_found(&world, "host 2 believes a wrong");
    assert!(world.ledger.violations().iter().all(|violation| violation.starts_with("host 2 ")));
}

#[test]
fn a_host_that_ignores_digests_does_not_agree() {
    let world = world(5, Shape::Line, &[2], &[Defect::IgnoresDigests]);
    assert!(checks::disagreement(&world).is_some());
}

#[test]
fn a_host_that_keeps_names_knows_withdrawn_ones() {
    let mut world = world(4, Shape::Full, &[2], &[Defect::KeepsNames]);
    for names in [vec![name(1)], vec![]] {
        world.slot_mut(HostId(0)).unwrap().attached.names = names;
        world.tell_attached(HostId(0));
        world.run_for(Duration::from_secs(2));
    }
    let wrong = checks::disagreement(&world);
    assert_eq!(wrong.as_deref(), Some("host 2 knows 1 names of host 0, which has 0"));
}

#[test]
fn a_host_that_forgets_what_was_withdrawn_sees_it_come_back() {
    let mut world = world(3, Shape::Full, &[], &[]);
    let owner = world.running_name(HostId(0)).unwrap();
    let mut see = |attached: Vec<NameEntry>, seen: Vec<NameEntry>| {
        let attached = weave_sim::world::Attached { names: attached, stations: Vec::new() };
        world.ledger.attached(owner, &attached);
        let names = seen.into_iter().map(|entry| (owner, entry.name)).collect();
        world.ledger.sees(HostId(1), names, |_| true);
        world.ledger.violations().len()
    };
    assert_eq!(see(vec![name(1)], vec![name(1)]), 0);
    assert_eq!(see(vec![], vec![]), 0);
    assert_eq!(see(vec![], vec![name(1)]), 1, "it came back");
}

#[test]
fn a_host_whose_frames_make_detours_is_found() {
    let mut world = world(5, Shape::Ring, &[1], &[Defect::Detours]);
    checks::traffic(&mut world);
    assert_found(&world, "a frame from host 1");
}

#[test]
fn what_gone_hosts_told_is_found_before_it_is_collected_and_not_after() {
    let mut world = world(4, Shape::Full, &[], &[]);
    world.power_off(HostId(3));
    world.run_for(Duration::from_secs(30));
    assert_eq!(checks::disagreement(&world), None);
    world.run_for(Duration::from_secs(630));
    checks::collected(&mut world);
    assert_eq!(world.ledger.violations(), [""; 0]);
    world.start(HostId(3));
    world.run_for(Duration::from_secs(10));
    world.power_off(HostId(3));
    world.run_for(Duration::from_secs(60));
    checks::collected(&mut world);
    assert_found(&world, "still keeps");
}
