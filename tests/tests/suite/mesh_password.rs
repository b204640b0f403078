//! The password of a network is changed while it runs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use weave_tests::pings::Pings;
use weave_tests::world::{LINK_WITHIN, Options, PASSWORD, World, v4, wait_until};

const NEW: &str = "a password that is new here";
/// What a router says in its log when it has the passwords of its file.
const READ_AGAIN: &str = "the password file was read again";

fn write(world: &World, host: usize, lines: &[&str]) -> PathBuf {
    let file = world.host(host).directory().join("rotated");
    fs::write(&file, lines.join("\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    file
}

/// Launches the router of `host` with these passwords, to dial host 0.
fn launch(world: &World, host: usize, lines: &[&str]) {
    let file = write(world, host, lines);
    let target = (host > 0).then(|| world.underlay(0).to_string());
    let mut arguments = vec!["launch", "--no-dns", "--password-file", file.to_str().unwrap()];
    arguments.extend(target.as_deref());
    world.weave(host, &arguments).ok();
}

/// Gives these hosts other passwords while they run.
fn reload(world: &World, hosts: std::ops::Range<usize>, lines: &[&str]) {
    for host in hosts {
        write(world, host, lines);
        world.weave(host, &["reload"]).ok();
    }
}

/// The router of the last host begins anew with these passwords: it and these others link.
#[track_caller]
fn comes_back(world: &World, lines: &[&str], to: std::ops::Range<usize>) {
    world.kill(COMES);
    launch(world, COMES, lines);
    to.for_each(|host| world.wait_linked(host, COMES, LINK_WITHIN));
}

/// The host that begins anew again and again; no ping goes by it.
const COMES: usize = 4;

#[test]
fn five_hosts_change_their_password_one_by_one_without_a_lost_ping() {
    let world = World::new(Options::encrypted().count(5).not_launched());
    (0..5).for_each(|host| launch(&world, host, &[PASSWORD]));
    for host in 1..5 {
        world.wait_ping(host, v4(0).into(), LINK_WITHIN);
    }
    // A way over the last host would end with its router.
    (1..COMES).for_each(|host| world.wait_linked(host, 0, LINK_WITHIN));
    let pings: Vec<_> = (1..COMES).map(|host| Pings::between(&world, host, v4(0).into())).collect();
    // Each router has what its file says now: who knows the new one alone would not get in where
    // nothing was read again, nor who knows the old one alone where that was dropped too early.
    reload(&world, 0..3, &[NEW, PASSWORD]);
    comes_back(&world, &[PASSWORD], 0..4);
    comes_back(&world, &[NEW], 0..3);
    reload(&world, 3..4, &[NEW, PASSWORD]);
    comes_back(&world, &[NEW, PASSWORD], 0..4);
    reload(&world, 0..2, &[NEW]);
    comes_back(&world, &[NEW, PASSWORD], 0..4);
    comes_back(&world, &[NEW], 0..4);
    reload(&world, 2..4, &[NEW]);
    comes_back(&world, &[NEW], 0..4);
    for pings in pings {
        let flowed = pings.finish();
        assert!(!flowed.sent.is_empty());
        assert_eq!(flowed.lost(), [0_u64; 0]);
    }
    // The old one is of no use any more.
    world.kill(COMES);
    launch(&world, COMES, &[PASSWORD]);
    let refused = || {
        let links = world.status(COMES).connections;
        links.iter().any(|link| link.reason.as_deref().is_some_and(|reason| reason.contains("password")))
    };
    wait_until(LINK_WITHIN, || world.connections(&[COMES]), refused);
    reload(&world, COMES..5, &[NEW]);
    world.wait_ping(COMES, v4(0).into(), LINK_WITHIN);
}

#[test]
fn a_hangup_makes_a_router_read_its_password_again() {
    let world = World::new(Options::encrypted().not_launched());
    (0..2).for_each(|host| launch(&world, host, &[PASSWORD]));
    world.wait_linked(0, 1, LINK_WITHIN);
    let router = world.router(0);
    write(&world, 0, &[NEW]);
    router.signal(Signal::SIGHUP).unwrap();
    let told = || world.log(0).matches(READ_AGAIN).count();
    wait_until(LINK_WITHIN, || format!("{READ_AGAIN:?} in the log: {}", world.log(0)), || told() == 1);
    world.kill(1);
    launch(&world, 1, &[NEW]);
    world.wait_linked(0, 1, LINK_WITHIN);
    assert_eq!(world.status(0).pid, router.pid(), "the same router");
}

#[test]
fn a_password_file_that_cannot_be_used_changes_nothing_and_says_why() {
    let world = World::new(Options::encrypted());
    let file = world.host(0).directory().join("password");
    for (content, why) in
        [("", "it is empty"), ("a\nb\nc\n", "more than two lines"), ("a\tb\n", "control character")]
    {
        fs::write(&file, content).unwrap();
        let ran = world.weave(0, &["reload"]);
        assert_eq!(ran.code, Some(1), "{content:?}");
        assert!(ran.stderr.contains(why) && ran.stderr.lines().count() == 1, "{}", ran.stderr);
    }
    world.kill(1);
    world.launch(1, &[&world.underlay(0).to_string()]);
    world.wait_ping(1, v4(0).into(), LINK_WITHIN);
}
