//! Firewalls that let connections through in one direction, and hosts of which not every address
//! works.

use std::time::Duration;

use weave_api::status::{ConnectionState, Direction, TargetState};
use weave_perf::lab::{Place, Traffic};
use weave_tests::Pings;
use weave_tests::world::{LINK_WITHIN, Options, World, v4, v6, wait_until};

/// A direct link replaces a relay, or a dead address gives way to one that works, within this time.
const REPLACED_WITHIN: Duration = Duration::from_secs(15);

/// Who dialled the link of host `host` to host `other`.
fn direction(world: &World, host: usize, other: usize) -> Option<Direction> {
    world.connection(host, other).filter(|_| world.is_established(host, other)).map(|link| link.direction)
}

#[test]
fn connect_on_the_side_that_a_firewall_lets_out_links_both() {
    let world = World::pair(Options::encrypted().not_launched());
    world.lab().cut_way(0, 1, Traffic::NotBegun).unwrap();
    world.launch(0, &[&world.underlay(1).to_string()]);
    world.launch(1, &[]);
    let target = || world.status(0).targets.remove(0);
    wait_until(LINK_WITHIN, || format!("a reason: {:?}", target()), || target().reason.is_some());
    assert_eq!(target().state, TargetState::Retrying, "the firewall lets it in: this tests nothing");
    world.weave(1, &["connect", &world.underlay(0).to_string()]).ok();
    world.wait_linked(0, 1, LINK_WITHIN);
    assert_eq!(direction(&world, 0, 1), Some(Direction::Inbound));
    for (from, address) in [(0, v4(1).into()), (1, v4(0).into()), (0, v6(1).into()), (1, v6(0).into())] {
        world.wait_ping(from, address, LINK_WITHIN);
    }
}

/// Behind a firewall that lets nothing in: the host is told of the other one and dials it.
#[test]
fn a_host_behind_a_firewall_dials_whom_others_tell_of_and_needs_no_relay() {
    let world = World::new(Options::encrypted().count(3).not_launched());
    for other in [0, 1] {
        world.lab().cut_way(other, 2, Traffic::NotBegun).unwrap();
    }
    world.launch(0, &[]);
    world.launch_to(1, &[0]);
    world.launch_to(2, &[0]);
    world.wait_linked(1, 2, REPLACED_WITHIN);
    assert_eq!(direction(&world, 2, 1), Some(Direction::Outbound));
    let pings = [Pings::between(&world, 1, v4(2).into()), Pings::between(&world, 2, v4(1).into())];
    for pings in pings {
        pings.wait_answer(std::time::Instant::now() + Duration::from_secs(1), LINK_WITHIN, "a second later");
        pings.finish().assert_whole("through the firewall");
    }
}

/// Host 0 has both families, host 1 IPv4 only, host 2 IPv6 only: these two talk by host 0.
#[test]
fn hosts_of_different_families_talk_by_one_that_has_both() {
    let world = World::new(Options::encrypted().count(3).not_launched());
    let take = |host: usize, address: String| world.tool(host, &format!("ip address del {address} dev eth0"));
    take(1, format!("{}/64", world.host(1).v6()));
    take(2, format!("{}/24", world.host(2).v4()));
    world.launch(0, &[]);
    world.launch(1, &[&world.host(0).v4().to_string()]);
    world.launch(2, &[&world.host(0).v6().to_string()]);
    for (from, to) in [(0, 1), (0, 2), (1, 2), (2, 1)] {
        world.wait_ping(from, v4(to).into(), LINK_WITHIN);
        world.wait_ping(from, v6(to).into(), LINK_WITHIN);
    }
    let far = world.status(2).name;
    let route = world.status(1).routes.into_iter().find(|route| route.peer == far).unwrap();
    assert_eq!((route.hops, route.via), (2, world.status(0).name));
}

/// Host 2 tells two addresses, of which host 1 reaches the second only.
#[test]
fn a_peer_whose_first_address_is_dead_is_reached_at_another() {
    let places = vec![Place::default(), Place::default(), Place::on(&[0, 1])];
    let world = World::new(Options::encrypted().count(3).places(places).not_launched());
    let (dead, alive) = (weave_perf::lab::v4(0, 3), weave_perf::lab::v4(1, 3));
    // Nobody reaches it there.
    for other in [0, 1] {
        world.tool(other, &format!("iptables -w -A OUTPUT -d {dead} -j DROP"));
    }
    world.launch(0, &[]);
    world.launch_to(1, &[0]);
    world.launch(2, &["--advertise", &dead.to_string(), "--advertise", &alive.to_string()]);
    world.weave(0, &["connect", &alive.to_string()]).ok();
    world.wait_ping(1, v4(2).into(), LINK_WITHIN);
    let name = world.status(2).name;
    // Its own dials come from the dead address, too.
    let linked = || {
        let mut links = world.status(1).connections.into_iter();
        let link =
            links.find(|link| link.peer == Some(name) && link.state == ConnectionState::Established)?;
        Some((link.direction, link.address.address(0)?.ip()))
    };
    wait_until(
        REPLACED_WITHIN,
        || format!("host 1 links to {alive}: {:#?}", world.status(1).connections),
        || linked() == Some((Direction::Outbound, alive.into())),
    );
}
