//! Attachments last: what runs again is attached again, nobody typing anything.

use std::fs;

use weave_tests::Engines;
use weave_tests::engines::SOON;
use weave_tests::random::Random;
use weave_tests::wait_until;

use crate::engine_records::look_at_all;

const ADDRESSES: [&str; 2] = ["10.2.1.1/24", "10.2.2.1/24"];

#[test]
fn a_container_that_is_restarted_is_attached_again() {
    let hosts = Engines::new(1, 0);
    let container = hosts.weave_run(0, "10.2.1.1/24 10.2.2.1/24");
    let before = hosts.ps(0);
    hosts.ok(0, &format!("docker restart -t 0 {}", container.id));
    hosts.wait_attached(&container, &ADDRESSES);
    assert_eq!(hosts.ps(0), before, "MAC and addresses are what they were");
}

#[test]
fn the_address_of_a_container_that_was_removed_a_moment_ago_is_free() {
    let hosts = Engines::new(1, 0);
    let second = hosts.docker_run(0, "");
    let mut first = hosts.weave_run(0, "10.2.1.1/24");
    for _ in 0..3 {
        hosts.ok(0, &format!("docker rm -f {}", first.id));
        first = hosts.weave_run(0, "10.2.1.1/24");
    }
    hosts.ok(0, &format!("docker rm -f {} && weave attach 10.2.1.1/24 {}", first.id, second.id));
    let refused = hosts.sh(0, "weave run 10.2.1.1/24 busybox true");
    assert!(refused.stderr.contains("10.2.1.1 is in use by container"), "{}", refused.stderr);
}

#[test]
fn long_a_detach_right_after_a_start_takes_the_named_address_only() {
    let hosts = Engines::new(1, 0);
    for _ in 0..3 {
        let container = hosts.weave_run(0, "10.2.1.1/24 10.2.2.1/24 10.2.3.1/24");
        let id = &container.id;
        hosts.ok(0, &format!("docker kill {id} && docker start {id} && weave detach 10.2.1.1/24 {id}"));
        hosts.wait_attached(&container, &["10.2.2.1/24", "10.2.3.1/24"]);
        look_at_all(&hosts);
        assert_eq!(hosts.addresses(&container), ["10.2.2.1/24", "10.2.3.1/24"]);
        hosts.ok(0, &format!("docker rm -f {id}"));
    }
}

#[test]
fn containers_that_shared_a_namespace_part_with_a_mac_of_their_own() {
    let hosts = Engines::new(1, 0);
    let first = hosts.weave_run(0, "10.2.1.1/24");
    let second = hosts.weave_run(0, &format!("10.2.1.2/24 --net container:{}", first.id));
    hosts.wait_attached(&first, &["10.2.1.1/24", "10.2.1.2/24"]);
    hosts.ok(0, &format!("docker restart -t 0 {}", first.id));
    hosts.wait_attached(&first, &["10.2.1.1/24"]);
    let held = hosts.inside(&second, "ip -o addr show dev ethwe").stdout;
    assert!(held.contains("10.2.1.2/24"), "{held}");
    let ps = hosts.ps(0);
    let macs: Vec<&str> = ps.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    assert!(macs.len() == 2 && macs[0] != macs[1], "{ps}");
    assert!(hosts.reaches(&first, "10.2.1.2") && hosts.reaches(&second, "10.2.1.1"), "{ps}");
}

#[test]
fn an_address_that_was_taken_by_force_is_taken_again() {
    let hosts = Engines::new(1, 0);
    hosts.ok(0, "ip link add under type veth peer other && ip addr add 10.2.1.9/24 dev under");
    let container = hosts.docker_run(0, "");
    let refused = hosts.sh(0, &format!("weave attach 10.2.1.9/24 {}", container.id));
    assert!(refused.stderr.contains("10.2.1.9 is in use by interface under"), "{}", refused.stderr);
    hosts.ok(0, &format!("weave attach --force 10.2.1.9/24 {}", container.id));
    hosts.ok(0, &format!("docker restart -t 0 {}", container.id));
    hosts.wait_attached(&container, &["10.2.1.9/24"]);
}

#[test]
fn long_the_address_of_a_container_that_is_restarted_is_not_given_to_one_that_was_refused_it() {
    let hosts = Engines::new(1, 0);
    hosts.launch();
    let first = hosts.weave_run(0, "10.2.1.1/24");
    let second = hosts.docker_run(0, "--label weave.cidr=10.2.1.1/24");
    look_at_all(&hosts);
    let told = || hosts.ok(0, "weave status");
    let why = format!("container {} cannot be attached: address 10.2.1.1", &second.id[..12]);
    wait_until(SOON, told, || told().contains("not_attached") && told().contains(&why));
    for _ in 0..3 {
        hosts.ok(0, &format!("docker restart -t 0 {}", first.id));
        hosts.wait_attached(&first, &["10.2.1.1/24"]);
        assert_eq!(hosts.addresses(&second), Vec::<String>::new());
    }
    hosts.ok(0, &format!("docker stop -t 0 {}", first.id));
    // It might have been a restart.
    hosts.wait_addresses(&second, &["10.2.1.1/24"], 3 * SOON);
    wait_until(SOON, told, || !told().contains("not_attached"));
}

#[test]
fn long_what_a_killed_attach_or_detach_left_of_a_container_is_finished_or_undone() {
    let hosts = Engines::new(1, 0);
    hosts.launch();
    let container = hosts.weave_run(0, "10.2.1.1/24");
    let (alone, both) =
        (vec!["10.2.1.1/24".to_owned()], vec!["10.2.1.1/24".to_owned(), "10.2.2.1/24".to_owned()]);
    let mut random = Random::from_environment();
    for command in ["attach", "detach", "attach", "detach"] {
        let log = hosts.world().host(0).directory().join("points");
        let run = |point: u64| {
            let set = format!("WEAVE_FAILPOINT={command}:{point} WEAVE_FAILPOINT_LOG={}", log.display());
            hosts.sh(0, &format!("{set} weave {command} 10.2.2.1/24 {}", container.id));
            let points = fs::read_to_string(&log).unwrap_or_default().lines().count() as u64;
            let _ = fs::remove_file(&log);
            points
        };
        let back = if command == "attach" { "detach" } else { "attach" };
        let undo = || hosts.ok(0, &format!("weave {back} 10.2.2.1/24 {}", container.id));
        let count = run(u64::MAX);
        assert!(count > 0, "this executable has no failpoints: build the whole workspace");
        undo();
        let point = random.below(count) + 1;
        run(point);
        look_at_all(&hosts);
        let (addresses, ps) = (hosts.addresses(&container), hosts.ps(0));
        let whole = [&alone, &both].into_iter().find(|whole| **whole == addresses);
        let whole = whole.unwrap_or_else(|| panic!("{command} killed at {point} of {count}: {addresses:?}"));
        let told = ps.lines().any(|line| line.ends_with(&format!(" {}", whole.join(" "))));
        assert!(told, "{command} killed at {point} of {count}: {ps}");
        // As the command would have left it, for the next.
        hosts.ok(0, &format!("weave {command} 10.2.2.1/24 {}", container.id));
    }
}

#[test]
fn long_containers_are_attached_again_after_a_crash_of_the_engine() {
    let mut hosts = Engines::new(1, 0);
    // An engine that starts stops what it finds, and waits for it: not long.
    let always = hosts.weave_run(0, "10.2.1.1/24 10.2.2.1/24 --restart always --stop-timeout 1");
    let stays = hosts.weave_run(0, "10.2.1.2/24 --stop-timeout 1");
    hosts.kill_engine(0);
    hosts.start_engine(0);
    hosts.wait_runs(&always);
    hosts.wait_attached(&always, &ADDRESSES);
    // One that the engine does not start by itself has no line until somebody starts it.
    assert!(!hosts.ps(0).contains("10.2.1.2"), "{}", hosts.ps(0));
    hosts.ok(0, &format!("docker start {}", stays.id));
    hosts.wait_attached(&stays, &["10.2.1.2/24"]);
    hosts.wait_reaches(&always, "10.2.1.2", SOON);
}

#[test]
fn containers_are_attached_again_after_a_restart_of_the_engine() {
    let mut hosts = Engines::new(1, 0);
    hosts.launch();
    let always = hosts.weave_run(0, "10.2.1.1/24 10.2.2.1/24 --restart always --stop-timeout 1");
    hosts.stop_engine(0);
    // Its processes may end a moment after the engine.
    wait_until(SOON, || hosts.ps(0), || !hosts.ps(0).contains("10.2.1.1"));
    hosts.start_engine(0);
    hosts.wait_runs(&always);
    hosts.wait_attached(&always, &ADDRESSES);
    hosts.wait_reaches(&always, "10.2.2.1", SOON);
}

#[test]
fn a_container_that_starts_while_keeper_and_router_are_dead_is_attached_by_the_launch() {
    let hosts = Engines::new(1, 0);
    hosts.launch();
    let container = hosts.weave_run(0, "10.2.1.1/24 10.2.2.1/24");
    hosts.kill_keeper(0);
    hosts.kill_router(0);
    hosts.ok(0, &format!("docker restart -t 0 {}", container.id));
    hosts.ok(0, "weave launch");
    hosts.wait_attached(&container, &ADDRESSES);
}

#[test]
fn containers_are_attached_again_after_a_reboot_of_the_host() {
    let mut hosts = Engines::new(2, 0);
    hosts.launch();
    let container = hosts.weave_run(0, "10.2.1.1/24 10.2.2.1/24");
    let far = hosts.weave_run(1, "10.2.1.2/24");
    hosts.ok(0, "weave expose 10.2.1.101/24");
    hosts.reboot(0);
    // The only line that somebody types, or a unit of systemd does.
    hosts.ok(0, "weave launch");
    hosts.ok(0, &format!("docker start {}", container.id));
    hosts.wait_attached(&container, &ADDRESSES);
    hosts.wait_reaches(&container, "10.2.1.101", SOON);
    // The targets were remembered as well; whoever had the connection dials too.
    hosts.wait_reaches(&container, "10.2.1.2", weave_tests::world::LINK_WITHIN);
    hosts.wait_reaches(&far, "10.2.1.101", SOON);
}

#[test]
fn a_container_is_attached_again_while_somebody_holds_its_former_namespace() {
    let hosts = Engines::new(1, 0);
    let container = hosts.weave_run(0, "10.2.1.1/24 10.2.2.1/24");
    let before = hosts.ps(0);
    let former = hosts.namespace(&container);
    for _ in 0..2 {
        hosts.ok(0, &format!("docker restart -t 0 {}", container.id));
        hosts.wait_attached(&container, &ADDRESSES);
        assert_eq!(hosts.ps(0), before, "MAC and addresses are what they were");
    }
    drop(former);
}
