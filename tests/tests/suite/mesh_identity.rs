//! Names and keys of hosts: copies of a state, farewells, names that are freed.

use std::fs;
use std::path::Path;
use std::time::Duration;

use weave_api::status::TargetState;
use weave_tests::world::{LINK_WITHIN, Options, World, v4, wait_until};
use weave_wire::PeerName;

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Three hosts, of which the last is yet to be launched, on a copy of the second's state.
fn cloned() -> World {
    let options = Options::encrypted().count(3).launches(&[(0, &[]), (1, &[0])]);
    let world = World::new(options.no_wait());
    world.wait_ping(0, v4(1).into(), LINK_WITHIN);
    let state = world.host(2).state_dir();
    // What the test attached on it so far belongs to it.
    let own = world.host(2).directory().join("own");
    copy(&state, &own);
    fs::remove_dir_all(&state).unwrap();
    copy(&world.host(1).state_dir(), &state);
    copy(&own.join("attachments"), &state.join("attachments"));
    world
}

fn names(world: &World) -> Vec<PeerName> {
    world.status(0).peers.iter().map(|peer| peer.name).collect()
}

#[test]
fn a_host_on_a_copy_of_anothers_state_takes_a_new_name_by_itself() {
    let world = cloned();
    let name = world.status(1).name;
    world.launch_to(2, &[0]);
    let what = || format!("three names: {:?}", names(&world));
    wait_until(Duration::from_secs(60), what, || names(&world).len() == 3);
    assert!(names(&world).contains(&name) && names(&world)[0] != name);
    assert_eq!(world.status(1).name, name, "the host that was there keeps its name");
    assert_ne!(world.status(2).name, name);
    for (from, to) in [(0, 1), (0, 2), (1, 2), (2, 1)] {
        world.wait_ping(from, v4(to).into(), LINK_WITHIN);
    }
    // The new name is remembered, and so are the targets.
    let renamed = world.status(2).name;
    world.stop(2);
    world.launch(2, &[]);
    assert_eq!(world.status(2).name, renamed);
    world.wait_ping(2, v4(1).into(), LINK_WITHIN);
}

#[test]
fn a_copy_that_was_given_its_name_leaves_and_both_say_so() {
    let world = cloned();
    let name = world.status(1).name.to_string();
    world.launch(2, &["--name", &name, &world.underlay(0).to_string()]);
    for host in [1, 2] {
        let what = || format!("host {host} says that it has a double: {:?}", world.degraded(host));
        wait_until(Duration::from_secs(60), what, || world.degraded(host).contains(&"cloned".to_owned()));
    }
    // The one that was there first goes on.
    let what = || format!("links of the copy: {:?}", world.status(2).connections);
    wait_until(LINK_WITHIN, what, || world.status(2).connections.iter().all(|c| c.peer.is_none()));
    world.wait_linked(0, 1, LINK_WITHIN);
    world.wait_ping(0, v4(1).into(), LINK_WITHIN);
}

#[test]
fn reset_tells_the_mesh_and_frees_the_name() {
    let world = World::new(Options::encrypted().count(3));
    world.wait_ping(1, v4(2).into(), LINK_WITHIN);
    let name = world.status(2).name;
    world.weave(2, &["reset"]).ok();
    let gone = |host: usize| world.status(host).peers.iter().all(|peer| peer.name != name);
    for host in [0, 1] {
        wait_until(LINK_WITHIN, || format!("host {host} forgets {name}"), || gone(host));
    }
    // Another host, with a key of its own, may have the name at once.
    world.launch(2, &["--name", &name.to_string(), &world.underlay(0).to_string()]);
    world.wait_linked(0, 2, LINK_WITHIN);
    world.wait_linked(1, 2, LINK_WITHIN);
}

#[test]
fn the_name_of_a_host_that_lost_its_key_is_freed_by_hand() {
    let world = World::new(Options::encrypted().count(2));
    world.wait_ping(0, v4(1).into(), LINK_WITHIN);
    let name = world.status(1).name.to_string();
    let refused = world.weave(0, &["forget", "--identity", &name]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("there is a link"), "{refused:?}");
    let unknown = world.weave(0, &["forget", "--identity", "02:00:00:00:00:09"]);
    assert!(unknown.code == Some(1) && unknown.stderr.contains("no key"), "{unknown:?}");
    world.kill(1);
    fs::remove_dir_all(world.host(1).state_dir()).unwrap();
    let first = world.underlay(0).to_string();
    world.launch(1, &["--name", &name, &first]);
    let why = || world.status(1).connections.iter().map(|c| c.reason.clone()).collect::<Vec<_>>();
    let what = || format!("refused: {:?} {:?}", why(), world.status(0).connections);
    wait_until(LINK_WITHIN, what, || world.status(0).counters["gossip_key_conflict"] > 0);
    let says = |world: &World| format!("{:?}", world.status(0).connections);
    assert!(says(&world).contains("another identity key"), "{}", says(&world));
    wait_until(
        LINK_WITHIN,
        || "freed".into(),
        || world.weave(0, &["forget", "--identity", &name]).code == Some(0),
    );
    world.weave(1, &["connect", &first]).ok();
    world.wait_linked(0, 1, LINK_WITHIN);
}

#[test]
fn a_target_behind_the_weave_network_itself_is_not_dialled() {
    let world = World::new(Options::encrypted().count(2));
    world.wait_ping(0, v4(1).into(), LINK_WITHIN);
    world.tool(0, "ip address add 10.77.0.1/24 dev weave");
    world.weave(0, &["connect", "10.77.0.9"]).ok();
    let target = || world.status(0).targets.pop().unwrap();
    wait_until(LINK_WITHIN, || format!("{:?}", target()), || target().reason.is_some());
    assert!(target().reason.unwrap().contains("through the weave network itself"), "{:?}", target());
    assert_eq!(target().state, TargetState::Retrying);
}
