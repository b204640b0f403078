//! `--conn-limit`: a host that has all the links that it may have.

use std::time::Duration;
use weave_api::status::Connection;
use weave_tests::world::{LINK_WITHIN, Options, World, v4, wait_until};

/// Waits that double from 1 s on after 15 s are long by then.
const RARE_WITHIN: Duration = Duration::from_secs(45);

/// Peers that a host has established links to.
fn linked(world: &World, host: usize) -> Vec<usize> {
    (0..5).filter(|other| *other != host && world.is_established(host, *other)).collect()
}

#[test]
fn at_its_limit_a_host_gives_up_a_spare_link_for_a_peer_without_links_but_none_that_is_needed() {
    let options = Options::encrypted().count(5).args("--no-discovery").args_of(0, "--conn-limit 2");
    let world = World::new(options.launches(&[(0, &[]), (1, &[0]), (2, &[0, 1])]).no_wait());
    let linked_to_both = || linked(&world, 0) == [1, 2] && linked(&world, 1) == [0, 2];
    wait_until(LINK_WITHIN, || world.connections(&[0, 1]), linked_to_both);

    // Each of the two links is spare: hosts 1 and 2 are linked to each other.
    world.launch_to(3, &[0]);
    world.wait_linked(0, 3, LINK_WITHIN);
    let kept = linked(&world, 0);
    assert!(kept == [1, 3] || kept == [2, 3], "{}", world.connections(&[0]));
    for from in 0..4 {
        for to in (0..4).filter(|to| *to != from) {
            world.wait_ping(from, v4(to).into(), LINK_WITHIN);
        }
    }

    // Now both are needed. Who comes is refused and told why, and nothing else changes.
    world.launch_to(4, &[0]);
    let told = |reason: &str| reason == "the peer ended the link: it has its limit of 2 links";
    let is_told = || world.status(4).connections.iter().any(|link| link.reason.as_deref().is_some_and(told));
    wait_until(LINK_WITHIN, || world.connections(&[4]), is_told);
    assert!(world.log(0).contains("link refused: this host has its 2 links"), "{}", world.log(0));
    assert_eq!(linked(&world, 0), kept);
    assert_eq!(world.status(0).counters["links_made"], 3, "{}", world.connections(&[0]));
    assert_eq!(linked(&world, 4), [0_usize; 0]);
}

#[test]
fn a_host_at_its_limit_is_dialled_less_and_less_often_by_whom_others_told_of_it() {
    let options = Options::encrypted().count(3).args_of(0, "--conn-limit 1");
    let world = World::new(options.launches(&[(0, &[]), (1, &[0])]).no_wait());
    world.wait_linked(0, 1, LINK_WITHIN);
    world.launch_to(2, &[1]);
    world.wait_ping(2, v4(0).into(), LINK_WITHIN);
    let told = |reason: &str| reason == "the peer ended the link: it has its limit of 1 links";
    let waits = || {
        let status = world.status(2);
        assert!(status.degraded.iter().all(|state| state.name != "relayed"), "{:?}", status.degraded);
        let dial = |link: &Connection| link.reason.as_deref().is_some_and(told);
        status.connections.into_iter().find(dial).and_then(|link| link.retry_in_s)
    };
    // At first as one that is there again soon, then with waits that double.
    wait_until(RARE_WITHIN, || world.connections(&[2]), || waits() >= Some(4));
    let counters = world.status(0).counters;
    assert!((1..40).contains(&counters["links_refused"]), "{counters:?}");
    assert_eq!(counters["handshakes_failed"], 0);
}
