//! `weave ping`: round trips, the way there and its weakest link.

use std::io::Read;

use weave_tests::world::{LINK_WITHIN, Options, World, wait_until};

/// Hosts in line, the last one in view of the first.
fn line(options: Options) -> World {
    let options = options.count(3).args("--no-discovery").not_attached();
    let options =
        (0..3).fold(options, |options, host| options.args_of(host, &format!("--nickname host{host}")));
    let world = World::new(options.launches(&[(0, &[]), (1, &[0]), (2, &[1])]));
    let routed = || world.status(0).routes.len() == 2 && world.status(2).routes.len() == 2;
    wait_until(LINK_WITHIN, || world.connections(&[0, 1, 2]), routed);
    world
}

#[test]
fn a_ping_tells_the_way_and_the_round_trips() {
    let world = line(Options::encrypted());
    let text = world.weave(0, &["ping", "host2", "-c", "3", "-i", "10", "-s", "1376"]).ok().stdout;
    let lines: Vec<_> = text.lines().collect();
    let way = format!("{}(host2): 2 links (host1 > host2), encrypted, path MTU 1376", world.status(2).name);
    assert_eq!(lines[0], way);
    assert!(lines[1].starts_with("1376 bytes to host2: 1: ") && lines[1].ends_with(" ms"), "{text}");
    assert!(lines[4].starts_with("3 sent, 3 received, 0% lost; round trip min/avg/max "), "{text}");
    assert_eq!(world.counter(2, "echoes_answered"), 3);
    assert_eq!(world.counter(1, "frames_relayed"), 6);

    // By name, as JSON; and what cannot be done.
    let name = world.status(1).name.to_string();
    let json = world.weave(0, &["ping", &name, "-c", "1", "-o", "json"]).ok().stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["received"], &json["encrypted"]), (&1.into(), &true.into()), "{json}");
    assert!(json["round_trips_ns"][0].as_u64().unwrap() > 0);
    for (arguments, why) in [
        (["ping", "nobody", "-s", "64"], "no such peer is known"),
        (["ping", "host2", "-s", "1377"], "1377 bytes are more than the MTU of the network, 1376"),
        (["ping", "host0", "-s", "64"], "that is this host"),
    ] {
        let ran = world.weave(0, &arguments);
        assert!(ran.code == Some(1) && ran.stderr.contains(why), "{ran:?}");
    }
}

#[test]
fn a_ping_that_nobody_answers_fails_and_says_so() {
    let world = World::pair(Options::clear().not_attached());
    wait_until(LINK_WITHIN, || world.connections(&[0, 1]), || !world.status(0).routes.is_empty());
    // Both go by the name of this machine.
    let far = world.status(1).name.to_string();
    let text = world.weave(0, &["ping", &far, "-c", "1"]).ok().stdout;
    assert!(text.contains("1 link") && text.contains(", unencrypted, path MTU 1376"), "{text}");
    // The link is not known to be dead yet.
    world.tool(1, "iptables -A INPUT -p udp -j DROP");
    let ran = world.weave(0, &["ping", &far, "-c", "1"]);
    assert!(ran.code == Some(1) && ran.stdout.contains("1 sent, 0 received, 100% lost"), "{ran:?}");
    assert!(ran.stderr.contains("no answer came"), "{ran:?}");
}

#[test]
fn a_ping_goes_on_when_no_way_leads_to_the_peer_any_more() {
    let world = World::pair(Options::clear().not_attached());
    wait_until(LINK_WITHIN, || world.connections(&[0, 1]), || !world.status(0).routes.is_empty());
    let far = world.status(1).name.to_string();
    let mut said = tempfile::NamedTempFile::new().unwrap();
    let mut ping = world.command(0, &["ping", &far, "-c", "6", "-i", "500"]);
    let mut ping = world.host(0).spawn(ping.stdout(said.reopen().unwrap())).unwrap();
    wait_until(LINK_WITHIN, || world.connections(&[0]), || world.counter(1, "echoes_answered") > 0);
    world.stop(1);
    let ended = ping.wait(LINK_WITHIN).unwrap();
    let mut text = String::new();
    said.read_to_string(&mut text).unwrap();
    assert!(ended.success(), "{text}");
    assert!(text.contains(": 6: not sent: no way leads to") && text.contains("6 sent, "), "{text}");
}

#[test]
fn a_peer_of_a_version_without_echoes_is_named_also_on_the_way() {
    let without = ("WEAVE_TEST_FEATURES", "0x0");
    let world = line(Options::encrypted().count(3).env_of(1, without.0, without.1));
    let ping = |world: &World, from: usize, to: &str| world.weave(from, &["ping", to, "-c", "1"]);
    for to in ["host1", "host2"] {
        let ran = ping(&world, 0, to);
        assert!(ran.code == Some(1) && ran.stderr.contains("(host1)"), "{ran:?}");
        assert!(ran.stderr.contains("runs a version without echoes; upgrade it"), "{ran:?}");
    }
    drop(world);
    // The other end too: two links away, and told by nothing but the mesh.
    let world = line(Options::encrypted().count(3).env_of(2, without.0, without.1));
    let ran = ping(&world, 0, "host2");
    assert!(ran.code == Some(1) && ran.stderr.contains("(host2)"), "{ran:?}");
    ping(&world, 0, "host1").ok();
    assert_eq!(world.counter(2, "echoes_answered"), 0);
}

#[test]
fn pings_may_be_further_apart_than_the_router_waits_for_an_idle_client() {
    let world = World::pair(Options::clear().not_attached());
    wait_until(LINK_WITHIN, || world.connections(&[0, 1]), || !world.status(0).routes.is_empty());
    let far = world.status(1).name.to_string();
    let apart = weave_api::server::REQUEST_TIME_LIMIT.as_millis() + 300;
    let text = world.weave(0, &["ping", &far, "-c", "2", "-i", &apart.to_string()]).ok().stdout;
    assert!(text.contains("2 sent, 2 received"), "{text}");
}
