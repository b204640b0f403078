//! Who gets in: right and wrong passwords, clear and encrypted hosts, a launch that would leave an
//! encrypted network by mistake.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use weave_api::status::{Connection, ConnectionState};
use weave_tests::world::{LINK_WITHIN, PASSWORD};
use weave_tests::{Options, World, wait_until};

/// From the moment both routers are up to the link, as promised.
const ESTABLISHED_WITHIN: Duration = Duration::from_secs(2);
/// Shortest wait after a refusal: 10 s less a quarter of jitter, and a second for what has passed.
const SLOW_RETRY_S: u64 = 6;
/// A peer that dials us: "that side" hears of the refusal after up to 2 s.
const REFUSED_WITHIN: Duration = Duration::from_secs(10);

/// Both ends hold the link, the clock runs from the return of the later launch.
#[track_caller]
fn assert_linked_in_time(hosts: &World, up: Instant, what: &str) {
    hosts.wait_linked(0, 1, LINK_WITHIN);
    let took = up.elapsed();
    assert!(took < ESTABLISHED_WITHIN, "{what}: established after {took:?}; {}", hosts.connections(&[0, 1]));
    for (index, other) in [(0, 1), (1, 0)] {
        let link = hosts.connection(index, other).unwrap();
        assert_eq!(link.encrypted, Some(true), "{link:?}");
        assert_eq!(link.peer, Some(hosts.status(other).name));
        assert_eq!(hosts.status(index).counters["links_made"], 1, "{}", hosts.connections(&[0, 1]));
    }
}

#[test]
fn the_right_password_links_within_two_seconds_when_the_dialled_host_is_up_first() {
    let hosts = World::new(Options::encrypted().bare(2));
    hosts.launch(0, &[]);
    hosts.launch(1, &[&hosts.underlay(0).to_string()]);
    assert_linked_in_time(&hosts, Instant::now(), "dialled host first");
}

#[test]
fn the_right_password_links_within_two_seconds_when_the_dialling_host_is_up_first() {
    let hosts = World::new(Options::encrypted().bare(2));
    hosts.launch(1, &[&hosts.underlay(0).to_string()]);
    // It has failed at least once when the other one comes up.
    wait_until(
        LINK_WITHIN,
        || format!("a dial to nobody does not fail; {}", hosts.connections(&[1])),
        || hosts.connection(1, 0).is_some_and(|dial| dial.state == ConnectionState::Retrying),
    );
    assert!(hosts.connection(1, 0).unwrap().reason.is_some(), "{}", hosts.connections(&[1]));
    hosts.launch(0, &[]);
    assert_linked_in_time(&hosts, Instant::now(), "dialling host first");
}

/// Waits until both ends show the attempt as failed.
#[track_caller]
fn wait_refused(hosts: &World, dialler: usize, dialled: usize) -> (Connection, Connection) {
    let refused =
        |index, other| hosts.connection(index, other).filter(|dial| dial.state == ConnectionState::Failed);
    wait_until(
        REFUSED_WITHIN,
        || format!("not shown as failed by both ends; {}", hosts.connections(&[dialler, dialled])),
        || refused(dialler, dialled).is_some() && refused(dialled, dialler).is_some(),
    );
    (refused(dialler, dialled).unwrap(), refused(dialled, dialler).unwrap())
}

fn reason(connection: &Connection) -> &str {
    connection.reason.as_deref().unwrap_or_default()
}

#[test]
fn a_wrong_password_is_refused_with_the_reason_retried_slowly_and_costs_other_peers_nothing() {
    let hosts = World::new(Options::encrypted().bare(3));
    let target = hosts.underlay(0).to_string();
    hosts.launch(0, &[]);
    hosts.launch(2, &[&target]);
    hosts.wait_linked(0, 2, LINK_WITHIN);
    let before = [0, 2].map(|host| hosts.status(host).counters["links_made"]);

    hosts.launch_with(1, Some("another password"), &[&target]).ok();
    let (dialled, accepted) = wait_refused(&hosts, 1, 0);
    for end in [&dialled, &accepted] {
        assert!(reason(end).contains("password"), "{end:?}");
        assert_eq!(end.peer, None, "nobody has proved a name: {end:?}");
    }
    let text = hosts.weave(1, &["status", "connections"]).ok().stdout;
    assert!(text.contains("failed") && text.contains("password"), "{text}");
    let text = hosts.weave(0, &["status", "connections"]).ok().stdout;
    assert!(text.contains("failed") && text.contains("password"), "{text}");

    for host in [0, 1] {
        let checked = hosts.weave(host, &["check"]).stdout;
        assert!(checked.contains("-> start both with one password"), "{host}: {checked}");
    }

    // It is an attempt of that host, and none of the one that turned it away.
    for (host, failed) in [(0, 0), (1, 1)] {
        let metrics = hosts.get(host, "/metrics").body;
        let line =
            format!("weave_connections{{state=\"failed\",type=\"unknown\",encryption=\"\"}} {failed}\n");
        assert!(metrics.contains(&line), "{host}: {metrics}");
    }

    let wait = dialled.retry_in_s.expect("a refused dial is tried again");
    assert!(wait >= SLOW_RETRY_S, "a refused peer is dialled again in {wait} s");
    // Ten seconds hold two dials at most (the first and one after 7.5 s), with a third by its due.
    let tried = || hosts.status(0).counters["handshakes_failed"];
    let first = tried();
    wait_until(
        Duration::from_secs(15),
        || "a refused peer is never dialled again".into(),
        || tried() > first,
    );
    assert!(tried() <= first + 1, "{} dials in a quarter of a minute", tried());

    assert!(hosts.is_established(0, 2) && hosts.is_established(2, 0), "{}", hosts.connections(&[0, 2]));
    for (place, host) in [0, 2].into_iter().enumerate() {
        let counters = hosts.status(host).counters;
        assert_eq!(counters["links_lost"], 0, "host {host}");
        assert_eq!(counters["links_made"], before[place], "host {host}");
    }
    // With the password put right it gets in.
    hosts.stop(1);
    hosts.launch(1, &[]);
    hosts.wait_linked(0, 1, LINK_WITHIN);
}

#[test]
fn clear_and_encrypted_hosts_never_link_and_both_say_why() {
    for (dialler, dialled) in [(None, Some(PASSWORD)), (Some(PASSWORD), None)] {
        let hosts = World::new(Options::encrypted().bare(2));
        hosts.launch_with(0, dialled, &[]).ok();
        hosts.launch_with(1, dialler, &[&hosts.underlay(0).to_string()]).ok();
        let (there, here) = wait_refused(&hosts, 1, 0);
        for (end, has_password) in [(&there, dialler.is_some()), (&here, dialled.is_some())] {
            let expected = if has_password { "clear network" } else { "encrypted network" };
            assert!(
                reason(end).contains(expected),
                "an end with password: {has_password} says {:?}",
                reason(end)
            );
        }
        for (index, password) in [(0, dialled), (1, dialler)] {
            let checked = hosts.weave(index, &["check"]).stdout;
            let mends = if password.is_some() { "or this host with --clear" } else { "(WEAVE_PASSWORD or" };
            assert!(checked.contains(mends), "{index}: {checked}");
            assert_eq!(hosts.status(index).counters["links_made"], 0, "{}", hosts.connections(&[0, 1]));
        }
    }
}

/// Everything a launch could change: interfaces and addresses, files and what is in them. The log
/// and the number of a process that is gone are left out.
#[derive(Debug, PartialEq, Eq)]
struct Snapshot {
    interfaces: String,
    files: Vec<(String, String)>,
}

impl Snapshot {
    fn of(hosts: &World, index: usize) -> Self {
        // Duplicate address detection ends by itself.
        let interfaces = hosts.tool(index, "ip address show").replace(" tentative", "");
        let host = hosts.host(index);
        let mut files = Vec::new();
        for directory in [host.run_dir(), host.state_dir()] {
            read_all(&directory, &mut files);
        }
        // The keeper, another process, may have just come up and tells of that when it likes.
        let own = ["/router.log", "/router.pid", "/keeper.log", "/control/keeper.json"];
        files.retain(|(name, _)| own.iter().all(|own| !name.ends_with(own)));
        files.sort();
        Self { interfaces, files }
    }

    /// The same, once the kernel has taken down what the last router left in its rings.
    #[track_caller]
    fn settled(hosts: &World, index: usize) -> Self {
        let tap = || hosts.tool(index, "ip -details link show weave-tap");
        wait_until(LINK_WITHIN, tap, || tap().contains(" numqueues 0 "));
        Self::of(hosts, index)
    }
}

fn read_all(directory: &Path, into: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        let name = entry.path().display().to_string();
        if kind.is_dir() {
            into.push((name, String::new()));
            read_all(&entry.path(), into);
        } else if kind.is_file() {
            into.push((name, fs::read_to_string(entry.path()).unwrap()));
        } else {
            into.push((name, String::new()));
        }
    }
}

#[track_caller]
fn assert_refuses_to_launch_in_clear(hosts: &World) {
    let before = Snapshot::settled(hosts, 0);
    let ran = hosts.launch_with(0, None, &[&hosts.underlay(1).to_string()]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    for way_on in ["password", "--clear", "reset"] {
        assert!(ran.stderr.contains(way_on), "the way on by {way_on} is not named: {}", ran.stderr);
    }
    assert_eq!(ran.stderr.trim_end().lines().count(), 1, "{}", ran.stderr);
    assert_eq!(Snapshot::of(hosts, 0), before, "a refused launch changed something");
    assert!(hosts.try_status(0).is_err(), "a router runs");
}

#[test]
fn a_host_of_an_encrypted_network_does_not_launch_in_clear_by_mistake() {
    let hosts = World::new(Options::encrypted().bare(2));
    hosts.launch(0, &[]);
    hosts.stop(0);
    assert_refuses_to_launch_in_clear(&hosts);
    // The password is one way on, and a killed router is like a stopped one.
    hosts.launch(0, &[]);
    assert!(hosts.status(0).encrypted);
    hosts.kill(0);
    assert_refuses_to_launch_in_clear(&hosts);
    // Another is to say it.
    hosts.launch_with(0, None, &["--clear"]).ok();
    assert!(!hosts.status(0).encrypted);
    hosts.stop(0);
    // Said once, it stands.
    hosts.launch_with(0, None, &[]).ok();
    hosts.stop(0);
    // The last way is to forget everything.
    hosts.launch(0, &[]);
    hosts.stop(0);
    assert_refuses_to_launch_in_clear(&hosts);
    hosts.weave(0, &["reset"]).ok();
    hosts.launch_with(0, None, &[]).ok();
    assert!(!hosts.status(0).encrypted);
}
