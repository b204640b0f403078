//! A router has no privilege once it runs; the keeper opens the tap for it, with those it needs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use weave_host::{Netlink, PidFd};
use weave_tests::world::{COMMAND_WITHIN, LINK_WITHIN, Options, PASSWORD, World, v4, wait_until};
use weave_tests::{Pings, Ran};

/// Time in which everything talks again after a launch.
const TALKS_WITHIN: Duration = Duration::from_secs(10);

/// Capabilities that a keeper keeps, as docs/security.md names them, by their bits in
/// linux/capability.h.
const OF_KEEPER: [(&str, u32); 14] = [
    ("CHOWN", 0),
    ("DAC_OVERRIDE", 1),
    ("DAC_READ_SEARCH", 2),
    ("FOWNER", 3),
    ("FSETID", 4),
    ("KILL", 5),
    ("SETGID", 6),
    ("SETUID", 7),
    ("NET_BIND_SERVICE", 10),
    ("NET_ADMIN", 12),
    ("NET_RAW", 13),
    ("SYS_MODULE", 16),
    ("SYS_PTRACE", 19),
    ("SYS_ADMIN", 21),
];
/// Does what a keeper never has done, says what came of it, and then what it was run for.
const CURIOUS: &str = r#"#!/bin/sh
{
    grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status
    renice -n -5 -p $$ || echo refused: priority
    mknod "$0.device" c 1 3 || echo refused: device
    mount -t tmpfs none /mnt || echo refused: mount
    chroot / true || echo refused: root
} > "$0.$$" 2>&1
mv "$0.$$" "$0.said"
exec /usr/sbin/iptables-restore "$@"
"#;

/// A field of a process' or thread's status.
fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.expect(name).trim()
}

/// What the kernel says of each thread of a process.
fn threads(pid: u32) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    // One that ended just now has nothing.
    threads.filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok()).collect()
}

/// Asserts that a thread or process has these capabilities, and will get no others.
#[track_caller]
fn assert_has(status: &str, capabilities: u64, who: &str) {
    let (expected, none) = (format!("{capabilities:016x}"), format!("{:016x}", 0));
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(field(status, set), expected, "{set} of {who}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(field(status, set), none, "{set} of {who}");
    }
    assert_eq!((field(status, "NoNewPrivs"), field(status, "Seccomp")), ("1", "2"), "{who}");
}

/// Asserts that no thread of a process has a privilege or may get one.
#[track_caller]
fn assert_unprivileged(pid: u32) {
    let threads = threads(pid);
    assert!(threads.len() > 2, "a router has shards");
    for status in threads {
        assert_has(&status, 0, field(&status, "Name"));
    }
}

fn keeper(world: &World, index: usize) -> Option<PidFd> {
    let text = fs::read_to_string(world.host(index).run_dir().join("keeper.pid")).unwrap_or_default();
    PidFd::open(text.trim().parse().ok()?).unwrap()
}

/// Kills the keeper of a host and waits for its end.
#[track_caller]
pub fn kill_keeper(world: &World, index: usize) {
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
fn a_keeper_has_a_named_few_and_what_it_runs_is_refused_the_rest() {
    let few = OF_KEEPER.iter().fold(0, |few, (_, bit)| few | 1 << bit);
    let documented = include_str!("../../../docs/security.md");
    for (name, _) in OF_KEEPER {
        assert!(documented.contains(&format!("`{name}`")), "docs/security.md does not name {name}");
    }
    let programs = tempfile::tempdir().unwrap();
    let curious = programs.path().join("iptables-restore");
    fs::write(&curious, CURIOUS).unwrap();
    fs::set_permissions(&curious, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", programs.path().display(), std::env::var("PATH").unwrap());
    let world = World::new(Options::encrypted().count(1).no_wait().env("PATH", &path));

    let pid = keeper(&world, 0).expect("a keeper").pid();
    let threads = threads(pid);
    assert!(threads.len() > 4, "a keeper watches");
    for status in threads {
        assert_has(&status, few, field(&status, "Name"));
    }
    let said = fs::read_to_string(programs.path().join("iptables-restore.said")).unwrap();
    assert_has(&said, few, "a program that the keeper runs");
    for act in ["priority", "device", "mount", "root"] {
        assert!(said.contains(&format!("refused: {act}")), "{act}: {said}");
    }
    assert!(!Path::new(&format!("{}.device", curious.display())).exists());
    // And what it has to do it can: rules, an address, the DNS, which becomes another user.
    assert!(world.tool(0, "iptables-save").contains("WEAVE"));
    world.weave(0, &["expose", "10.32.9.1/24"]).ok();
    world.weave(0, &["launch-dns"]).ok();
    let dns = || fs::read_to_string(world.host(0).run_dir().join("dns.pid")).ok()?.trim().parse().ok();
    wait_until(LINK_WITHIN, || "a DNS".into(), || dns().is_some());
    PidFd::open(dns().unwrap()).unwrap().expect("a DNS").signal(Signal::SIGKILL).unwrap();
    let before = dns();
    let is_back = || dns() != before && dns().is_some_and(is_of_its_own);
    wait_until(LINK_WITHIN, || format!("a DNS by the keeper: {}", world.log(0)), is_back);
}

/// Whether a DNS has become the user that has port 53 and nothing else.
fn is_of_its_own(pid: u32) -> bool {
    const PORT_53: &str = "0000000000000400";
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.contains(&format!("CapEff:\t{PORT_53}")) && !status.contains("Uid:\t0\t")
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
