//! Versions of the protocol: hosts are upgraded one after the other.

use std::time::{Duration, Instant};

use weave_tests::Pings;
use weave_tests::world::{LINK_WITHIN, Options, World, v4};

/// Switches a launch to speak the version after today's, too.
const NEXT: (&str, &str) = ("WEAVE_TEST_PROTOCOL", "2");
/// How long a host that is upgraded may be without traffic.
const SILENT_AT_MOST: Duration = Duration::from_secs(2);

/// The version that the link between host 0 and 1 has.
fn version(world: &World) -> Option<u16> {
    let versions = [0, 1].map(|host| world.link(host).and_then(|link| link.protocol));
    assert_eq!(versions[0], versions[1]);
    versions[0]
}

#[test]
fn paced_hosts_are_upgraded_one_after_the_other_within_two_seconds_each() {
    let mut world = World::pair(Options::encrypted());
    world.wait_ping(0, v4(1).into(), LINK_WITHIN);
    assert_eq!(version(&world), Some(1));
    for (host, expected) in [(1, 1), (0, 2)] {
        let options = std::mem::replace(world.options_mut(), Options::encrypted());
        *world.options_mut() = options.env_of(host, NEXT.0, NEXT.1);
        let pings = Pings::between(&world, 0, v4(1).into());
        world.stop(host);
        world.launch_to(host, &[1 - host]);
        pings.wait_answer(Instant::now(), LINK_WITHIN, "an answer after the upgrade");
        let flowed = pings.finish();
        assert!(flowed.longest_gap() < SILENT_AT_MOST, "{flowed:?}");
        world.wait_linked(0, 1, LINK_WITHIN);
        assert_eq!(version(&world), Some(expected), "the newest that both speak");
        assert_eq!(world.status(host).protocol, (1, 2));
    }
}
