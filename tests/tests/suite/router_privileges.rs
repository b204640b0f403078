//! A router has no privilege once it runs; the keeper opens the tap for it.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use weave_host::{Netlink, PidFd};
use weave_tests::world::{COMMAND_WITHIN, LINK_WITHIN, Options, PASSWORD, World, v4, wait_until};
use weave_tests::{Pings, Ran};

/// Time in which everything talks again after a launch.
const TALKS_WITHIN: Duration = Duration::from_secs(10);

/// Asserts that no thread of a process has a privilege or may get one.
#[track_caller]
fn assert_unprivileged(pid: u32) {
    let threads: Vec<_> = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten().collect();
    assert!(threads.len() > 2, "a router has shards");
    for thread in threads {
        // One that ended just now has nothing.
        let Ok(status) = fs::read_to_string(thread.path().join("status")) else { continue };
        let value = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
            line.trim_start_matches(':').trim().to_owned()
        };
        let name = value("Name");
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(value(set), "0000000000000000", "{set} of {name}");
        }
        assert_eq!(value("NoNewPrivs"), "1", "{name}");
        assert_eq!(value("Seccomp"), "2", "{name}");
    }
}

fn keeper(world: &World, index: usize) -> Option<PidFd> {
    let text = fs::read_to_string(world.host(index).run_dir().join("keeper.pid")).unwrap_or_default();
    PidFd::open(text.trim().parse().ok()?).unwrap()
}

#[track_caller]
fn kill_keeper(world: &World, index: usize) {
    let process = keeper(world, index).expect("a keeper");
    process.signal(Signal::SIGKILL).unwrap();
    assert!(process.wait_end(Instant::now() + COMMAND_WITHIN).unwrap());
}

/// Interfaces of a host that a launch changes, with their MTU and whether they are up.
fn links(world: &World, index: usize) -> Vec<(String, u32, bool)> {
    let links = Netlink::in_namespace(world.host(index).namespace()).unwrap().links().unwrap();
    let ours = links.into_iter().filter(|link| link.name.starts_with("weave"));
    ours.map(|link| (link.name, link.mtu, link.up)).collect()
}

#[test]
fn no_thread_of_a_router_has_a_privilege_also_under_a_new_name() {
    // A port that only the privileged may bind.
    let options = Options::encrypted().count(3).args("--port 783").launches(&[(0, &[])]).no_wait();
    let world = World::new(options);
    let first = format!("{}:783", world.underlay(0));
    world.launch(1, &[&first]);
    let name = world.status(1).name;
    for host in [0, 1] {
        assert_unprivileged(world.status(host).pid);
    }
    // The third is on a copy of the second's state, and has to go on under another name.
    for file in ["identity.json", "network.json", "runs.json"] {
        fs::copy(world.host(1).state_dir().join(file), world.host(2).state_dir().join(file)).unwrap();
    }
    world.launch(2, &[&first]);
    let pid = world.status(2).pid;
    wait_until(LINK_WITHIN, || "a new name".into(), || world.try_status(2).is_ok_and(|it| it.name != name));
    for to in [0, 1] {
        world.wait_ping(2, v4(to).into(), LINK_WITHIN);
    }
    assert_eq!(world.status(2).pid, pid);
    assert_eq!(world.degraded(2), Vec::<String>::new(), "sockets and tap are what they were");
    assert_unprivileged(pid);
}

#[test]
fn a_killed_router_gets_its_queues_again_from_the_same_keeper_and_from_another() {
    let world = World::pair(Options::encrypted());
    world.wait_ping(0, v4(1).into(), LINK_WITHIN);
    let first = world.underlay(0).to_string();
    for with_keeper in [true, false] {
        let before = keeper(&world, 1).expect("a keeper").pid();
        world.kill(1);
        if !with_keeper {
            kill_keeper(&world, 1);
        }
        world.launch(1, &[&first]);
        assert_eq!(keeper(&world, 1).expect("a keeper").pid() == before, with_keeper);
        world.wait_ping(0, v4(1).into(), TALKS_WITHIN);
    }
}

#[test]
fn a_killed_keeper_harms_no_traffic() {
    let world = World::pair(Options::encrypted());
    world.wait_ping(0, v4(1).into(), LINK_WITHIN);
    let pings = Pings::between(&world, 0, v4(1).into());
    kill_keeper(&world, 0);
    kill_keeper(&world, 1);
    pings.wait_answer(Instant::now(), TALKS_WITHIN, "pings without keepers");
    assert_eq!(pings.finish().lost(), Vec::<u64>::new());
    // The next command that has something kept starts another.
    world.weave(0, &["expose", "10.32.9.1/24"]).ok();
    wait_until(LINK_WITHIN, || "a keeper".into(), || keeper(&world, 0).is_some());
}

#[test]
fn a_launch_that_fails_with_its_queues_leaves_host_and_tap_as_they_were() {
    let world = World::new(Options::encrypted().bare(1));
    let rules = || world.tool(0, "nft list ruleset");
    let (none, before) = (links(&world, 0), rules());
    assert_eq!(none, []);
    // The identity is read once everything else is there.
    let identity = world.host(0).state_dir().join("identity.json");
    fs::create_dir(&identity).unwrap();
    let refused = |ran: Ran| assert!(ran.code == Some(1) && ran.stderr.contains("identity.json"), "{ran:?}");
    refused(world.try_launch(0, &[]));
    assert_eq!((links(&world, 0), rules()), (none, before));
    wait_until(LINK_WITHIN, || "no keeper stays".into(), || keeper(&world, 0).is_none());

    fs::remove_dir(&identity).unwrap();
    world.launch(0, &[]);
    world.stop(0);
    let (kept, before) = (links(&world, 0), rules());
    assert_eq!(kept.len(), 2, "{kept:?}");
    fs::remove_file(&identity).unwrap();
    fs::create_dir(&identity).unwrap();
    refused(world.try_launch(0, &["--mtu", "1300"]));
    assert_eq!((links(&world, 0), rules()), (kept, before));
}

#[test]
fn a_password_file_that_only_the_privileged_can_read_again_is_named_at_the_launch() {
    let world = World::new(Options::encrypted().bare(1));
    let nobody = Some(65_534);
    let mut launch = world.launch_command(0, Some(PASSWORD), &[]);
    let file = world.host(0).directory().join("password");
    std::os::unix::fs::chown(&file, nobody, nobody).unwrap();
    let ran = world.run(0, &mut launch).ok();
    assert!(ran.stderr.contains("weave reload") && ran.stderr.contains("give"), "{}", ran.stderr);
    assert_eq!(world.weave(0, &["reload"]).code, Some(1));
    std::os::unix::fs::chown(&file, Some(0), Some(0)).unwrap();
    world.weave(0, &["reload"]).ok();
}
