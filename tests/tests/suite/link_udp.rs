//! Underlays that lose UDP: all of it, or a fifth of everything.

use std::time::{Duration, Instant};
use weave_api::status::{Connection, ConnectionState};
use weave_tests::flow::Flow;
use weave_tests::world::{LINK_WITHIN, v4};
use weave_tests::{Options, World, wait_until};

/// Longest time a link may be pending, and some more for a busy machine.
const PENDING_WITHIN: Duration = Duration::from_secs(15 + 3);
/// What is pending for 2 s is suspected of passing no UDP.
const SUSPECTED_WITHIN: Duration = Duration::from_secs(6);
/// When UDP passes again, the next dial is at most this far away, and then the link is there.
const OPENED_WITHIN: Duration = Duration::from_secs(20);

#[test]
fn a_link_that_passes_no_udp_is_never_established_says_so_and_is_retried() {
    let world = World::pair(Options::encrypted().not_launched());
    world.tool(0, "iptables -w -A INPUT -p udp --dport 6783 -j DROP");
    world.launch(0, &[]);
    world.launch(1, &[&world.underlay(0).to_string()]);
    let state = || world.status(1).connections.into_iter().next();
    wait_until(
        LINK_WITHIN,
        || format!("TCP passes and the link is not pending: {:?}", state()),
        || state().is_some_and(|link| link.state == ConnectionState::Pending),
    );
    let pending = Instant::now();
    // Both ends suspect it long before they give the link up.
    for index in [0, 1] {
        let suspects = |link: &Connection| {
            link.state == ConnectionState::Pending
                && link.reason.as_ref().is_some_and(|why| why.contains("UDP"))
        };
        wait_until(
            SUSPECTED_WITHIN,
            || format!("host {index} suspects nothing: {:#?}", world.status(index).connections),
            || world.status(index).connections.iter().any(suspects),
        );
    }
    wait_until(
        PENDING_WITHIN,
        || format!("a link that passes no UDP is still pending: {:?}", state()),
        || world.status(1).counters["links_lost"] >= 1,
    );
    assert!(pending.elapsed() > Duration::from_secs(10), "given up after {:?}", pending.elapsed());
    let target = world.status(1).targets.remove(0);
    let reason = target.reason.unwrap_or_default();
    assert!(reason.contains("UDP"), "the reason shown is: {reason:?}");
    // It is retried, though in vain.
    wait_until(
        PENDING_WITHIN,
        || "the link is not tried again".into(),
        || world.status(1).counters["links_made"] >= 2,
    );
    for index in [0, 1] {
        assert!(world.link(index).is_none(), "established without UDP");
    }
    world.tool(0, "iptables -w -F INPUT");
    wait_until(
        OPENED_WITHIN,
        || format!("UDP passes again and the link is not established: {:?}", state()),
        || [0, 1].iter().all(|index| world.link(*index).is_some()),
    );
    world.wait_ping(0, v4(1).into(), LINK_WITHIN);
}

#[test]
fn a_fifth_of_all_packets_lost_for_ten_seconds_takes_no_link_down() {
    lose_a_fifth(Duration::from_secs(10));
}

#[test]
fn long_a_fifth_of_all_packets_lost_for_a_minute_takes_no_link_down() {
    lose_a_fifth(Duration::from_secs(60));
}

fn lose_a_fifth(time: Duration) {
    let world = World::pair(Options::encrypted());
    // Else the containers' questions for each other are lost as well, for seconds now and then.
    world.wait_ping(0, v4(1).into(), LINK_WITHIN);
    for index in [0, 1] {
        world
            .tool(index, "iptables -w -A INPUT -i eth0 -m statistic --mode random --probability 0.2 -j DROP");
    }
    let flow = Flow::start(world.container(0), world.container(1), v4(1).into(), 100);
    let begun = Instant::now();
    while begun.elapsed() < time {
        for index in [0, 1] {
            assert!(world.link(index).is_some(), "host {index} lost its link after {:?}", begun.elapsed());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    for index in [0, 1] {
        let counters = world.status(index).counters;
        assert_eq!((counters["links_lost"], counters["links_made"]), (0, 1), "host {index}");
    }
    let flowed = flow.finish();
    let lost = flowed.lost().len() as f64 / flowed.sent.len() as f64;
    // That the rules lost anything at all, and that nothing else did.
    assert!((0.1..0.3).contains(&lost), "{flowed:?}");
    assert!(flowed.doubled().is_empty(), "{flowed:?}");
}
