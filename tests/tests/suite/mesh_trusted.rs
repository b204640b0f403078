//! Links within trusted subnets: authenticated, readable, and only while both ends say so.

use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use weave_perf::lab::UNDERLAY;
use weave_tests::packets::Capture;
use weave_tests::pings::Pings;
use weave_tests::world::{LINK_WITHIN, Options, World, v4, wait_until};

/// What every datagram holds.
const MARK: &[u8] = b"readable by those who are trusted";
/// Holds the addresses of all hosts at first.
const TRUSTED: &str = "--trusted-subnets 10.99.0.0/26,fd99::/64";

/// Sends marked datagrams from container 0 to container 1; true if the mark was seen on the underlay.
fn is_readable(world: &World) -> bool {
    let capture = world.on_host(0, || Capture::start(UNDERLAY));
    let inbox = world.inside(1, || UdpSocket::bind((v4(1), 0)).unwrap());
    inbox.set_read_timeout(Some(LINK_WITHIN)).unwrap();
    let outbox = world.inside(0, || UdpSocket::bind((v4(0), 0)).unwrap());
    for _ in 0..10 {
        outbox.send_to(MARK, inbox.local_addr().unwrap()).unwrap();
        let mut heard = [0; 100];
        assert_eq!(inbox.recv(&mut heard).unwrap(), MARK.len());
    }
    let frames = capture.finish();
    assert!(!frames.is_empty(), "something was captured");
    frames.iter().any(|frame| frame.bytes.windows(MARK.len()).any(|part| part == MARK))
}

fn is_encrypted(world: &World, host: usize) -> bool {
    world.link(host).unwrap().encrypted.unwrap()
}

#[test]
fn data_between_hosts_that_list_each_other_is_readable_and_said_to_be() {
    let world = World::pair(Options::encrypted().args(TRUSTED));
    world.wait_ping(0, v4(1).into(), LINK_WITHIN);
    assert!(is_readable(&world));
    for host in [0, 1] {
        assert!(!is_encrypted(&world, host));
        let status = world.status(host);
        assert_eq!(status.trusted_subnets.len(), 2);
        assert!(status.encrypted, "the network has a password");
        assert!(status.routes.iter().all(|route| !route.encrypted), "{:?}", status.routes);
        let text = world.weave(host, &["status", "connections"]).ok().stdout;
        assert!(text.contains("unencrypted"), "{text}");
    }
}

#[test]
fn one_end_alone_trusts_in_vain() {
    let world = World::pair(Options::encrypted().args_of(0, TRUSTED));
    world.wait_ping(0, v4(1).into(), LINK_WITHIN);
    assert!(!is_readable(&world));
    assert!(is_encrypted(&world, 0) && is_encrypted(&world, 1));
}

#[test]
fn a_network_without_a_password_trusts_no_subnets_more_than_others() {
    let world = World::pair(Options::clear().args(TRUSTED));
    world.wait_ping(0, v4(1).into(), LINK_WITHIN);
    assert!(!is_encrypted(&world, 0) && !is_encrypted(&world, 1));
}

#[test]
fn a_host_that_moves_out_of_the_trusted_subnets_is_sent_nothing_readable_any_more() {
    let world = World::pair(Options::encrypted().args(TRUSTED));
    world.wait_ping(0, v4(1).into(), LINK_WITHIN);
    assert!(!is_encrypted(&world, 0));
    let pings = Pings::start(world.container(0), world.container(1), v4(1).into(), 20);
    pings.wait_answer(Instant::now(), LINK_WITHIN, "a ping before");
    let new: IpAddr = "10.99.0.77".parse().unwrap();
    world.lab().change_address(1, world.underlay(1), new).unwrap();
    let changed = Instant::now();
    pings.wait_answer(changed + Duration::from_millis(200), LINK_WITHIN, "a ping to the new place");
    drop(pings.finish());
    // The host that moved hears it from the other one.
    for host in [0, 1] {
        let what = || format!("host {host} seals: {:?}", world.status(host).connections);
        wait_until(LINK_WITHIN, what, || world.link(host).is_some_and(|link| link.encrypted == Some(true)));
    }
    assert!(!is_readable(&world));
    assert_eq!(world.status(0).counters["links_made"], 1, "it is still the same link");
    let what = || format!("all know: {:?}", world.status(0).routes);
    wait_until(LINK_WITHIN, what, || world.status(0).routes.iter().all(|route| route.encrypted));
}

#[test]
fn a_host_that_requires_encryption_sends_nothing_over_unencrypted_links_of_others() {
    let options =
        Options::encrypted().count(3).args("--no-discovery").launches(&[(0, &[]), (1, &[0]), (2, &[1])]);
    let options = options.args_of(0, "--require-encryption").args_of(1, TRUSTED).args_of(2, TRUSTED);
    let world = World::new(options);
    world.wait_linked(1, 2, LINK_WITHIN);
    world.wait_ping(0, v4(1).into(), LINK_WITHIN);
    world.wait_ping(1, v4(2).into(), LINK_WITHIN);
    assert_eq!(world.connection(1, 2).unwrap().encrypted, Some(false));
    let what = || format!("it says so: {:?}", world.degraded(0));
    wait_until(LINK_WITHIN, what, || world.degraded(0).contains(&"unencrypted_ways".to_owned()));
    let capture = world.on_host(2, || Capture::start(UNDERLAY));
    let outbox = world.inside(0, || UdpSocket::bind((v4(0), 0)).unwrap());
    outbox.set_broadcast(true).unwrap();
    for _ in 0..10 {
        // The neighbour's address is asked for by broadcast, which goes no further than host 1 either.
        let _ = outbox.send_to(MARK, (v4(2), 7_000));
        outbox.send_to(MARK, "255.255.255.255:7000").unwrap();
    }
    // Something that goes the whole way and comes after it.
    world.wait_ping(1, v4(2).into(), LINK_WITHIN);
    let frames = capture.finish();
    assert!(!frames.is_empty());
    assert!(!frames.iter().any(|frame| frame.bytes.windows(MARK.len()).any(|part| part == MARK)));
    // By a link of its own it reaches host 2 as well.
    world.weave(0, &["connect", &world.underlay(2).to_string()]).ok();
    world.wait_ping(0, v4(2).into(), LINK_WITHIN);
    assert_eq!(world.connection(0, 2).unwrap().encrypted, Some(true));
    assert!(!world.degraded(0).contains(&"unencrypted_ways".to_owned()));
}
