//! Router and DNS under a service manager (sd_notify(3)).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use weave_tests::{Options, World, wait_until};

/// Time for a router to start on a busy machine, and for anything it says.
const SAID_WITHIN: Duration = Duration::from_secs(20);
/// Time it has to end.
const ENDS_WITHIN: Duration = Duration::from_secs(10);
/// Time for the keeper to start a DNS that did not start, which it tries less and less often.
const KEPT_WITHIN: Duration = Duration::from_secs(60);
/// After which a router that is silent would be taken for dead.
const WATCHDOG: Duration = Duration::from_secs(3);

#[test]
fn a_service_manager_is_told_that_the_router_is_ready_and_again_and_again_that_it_works() {
    let world = World::new(Options::clear().bare(1));
    let host = world.host(0);
    let path = host.directory().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(SAID_WITHIN)).unwrap();
    let said = || {
        let mut text = [0; 512];
        let len = manager.recv(&mut text).expect("the router says nothing");
        String::from_utf8_lossy(&text[..len]).into_owned()
    };
    let mut command = world.command(0, &["router", "--no-dns"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
    let mut router = host.spawn(&mut command).unwrap();
    // The control core may be asked before the host is set up.
    let mut words: Vec<String> = Vec::new();
    while !words.iter().any(|word| word.trim() == "READY=1") {
        words.push(said());
    }
    assert!(words.iter().all(|word| ["READY=1", "WATCHDOG=1"].contains(&word.trim())), "{words:?}");
    manager.set_read_timeout(Some(WATCHDOG)).unwrap();
    for _ in 0..3 {
        assert_eq!(said().trim(), "WATCHDOG=1");
    }
    router.signal(Signal::SIGTERM).unwrap();
    assert!(router.wait(ENDS_WITHIN).unwrap().success());
}

#[test]
fn a_service_ends_its_own_dns_and_none_that_took_its_place() {
    let world = World::new(Options::clear().bare(1));
    let host = world.host(0);
    let running = || weave_api::sidecar::status(&host.run_dir(), SAID_WITHIN).ok().map(|status| status.pid);
    let start = || {
        let dns = host.spawn(&mut world.command(0, &["launch-dns", "--foreground"])).unwrap();
        wait_until(SAID_WITHIN, || "it is not asked".into(), || running() == Some(dns.pid()));
        dns
    };
    let stop = |pid: &str| assert_eq!(world.weave(0, &["stop-dns", &format!("--pid={pid}")]).ok().stderr, "");
    for instead in [&["keeper", "--renew"][..], &["launch-dns", "--ttl", "60"]] {
        let mut dns = start();
        world.weave(0, instead).ok();
        dns.wait(ENDS_WITHIN).unwrap();
        let other = running();
        assert!(other.is_some() && other != Some(dns.pid()), "{instead:?}");
        for ended in [String::new(), dns.pid().to_string()] {
            stop(&ended);
            assert_eq!(running(), other, "{instead:?}, {ended:?}");
        }
    }
    let mut dns = start();
    stop(&dns.pid().to_string());
    dns.wait(ENDS_WITHIN).unwrap();
    assert_eq!(running(), None);
}

#[test]
fn a_service_ends_its_own_router_and_none_that_was_launched_since() {
    let world = World::new(Options::clear().bare(1));
    let mut router = world.host(0).spawn(&mut world.command(0, &["router", "--no-dns"])).unwrap();
    let runs = || world.weave(0, &["status"]).code == Some(0);
    wait_until(SAID_WITHIN, || "it is not ready".into(), runs);
    let stop = |pid: &str| assert_eq!(world.weave(0, &["stop", &format!("--pid={pid}")]).ok().stderr, "");
    for other in ["", "1"] {
        stop(other);
        assert!(runs(), "{other:?}");
    }
    stop(&router.pid().to_string());
    assert!(router.wait(ENDS_WITHIN).unwrap().success());
}

/// A DNS that cannot have what another is to take its place with.
fn goes_on_as_it_was_launched(launch_dns: &[&str]) {
    let world = World::new(Options::clear().bare(1).containers(1).not_attached());
    let status = || weave_api::sidecar::status(&world.host(0).run_dir(), SAID_WITHIN);
    world.weave(0, &["attach", "10.2.1.1/24", world.containers_of(0)[0].spec()]).ok();
    world.weave(0, &["launch-dns"]).ok();
    let before = status().unwrap();
    let ran = world.weave(0, launch_dns);
    assert!(ran.code == Some(1) && ran.stderr.contains("10.2.1.1 is in use"), "{ran:?}");
    wait_until(SAID_WITHIN, || "none runs".into(), || status().is_ok_and(|now| now.ttl_s == before.ttl_s));
    world.weave(0, &["stop-dns"]).ok();
}

#[test]
fn a_dns_that_does_not_give_its_place_to_a_service_goes_on_as_it_was_launched() {
    goes_on_as_it_was_launched(&["launch-dns", "10.2.1.1/24", "--ttl", "77", "--foreground"]);
}

#[test]
fn a_dns_that_does_not_give_its_place_to_another_goes_on_as_it_was_launched() {
    goes_on_as_it_was_launched(&["launch-dns", "10.2.1.1/24", "--ttl", "77"]);
}

#[test]
fn a_dns_that_hangs_is_killed_where_another_takes_its_place_and_where_the_host_is_reset() {
    let world = World::new(Options::clear().bare(1));
    let status = || weave_api::sidecar::status(&world.host(0).run_dir(), SAID_WITHIN);
    let stop = || kill(Pid::from_raw(status().unwrap().pid.cast_signed()), Signal::SIGSTOP).unwrap();
    world.weave(0, &["launch-dns"]).ok();
    stop();
    let ran = world.weave(0, &["launch-dns", "--ttl", "77"]).ok();
    assert!(ran.stderr.contains("it was killed"), "{ran:?}");
    assert_eq!(status().unwrap().ttl_s, 77);
    stop();
    let ran = world.weave(0, &["reset"]).ok();
    assert!(ran.stderr.contains("it was killed"), "{ran:?}");
    assert!(!world.host(0).state_dir().exists() && !world.host(0).run_dir().exists());
}

#[test]
fn a_launch_without_its_dns_says_so_and_the_keeper_goes_on_trying() {
    let world = World::new(Options::clear().bare(1).containers(1).not_attached());
    let container = world.containers_of(0)[0].spec();
    let answers = || weave_api::sidecar::status(&world.host(0).run_dir(), SAID_WITHIN).is_ok();
    world.weave(0, &["launch-dns", "10.2.1.1/24"]).ok();
    world.weave(0, &["stop-dns"]).ok();
    world.weave(0, &["attach", "10.2.1.1/24", container]).ok();
    let ran = world.weave(0, &["launch"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("the router runs without its DNS"), "{ran:?}");
    assert!(!answers() && world.weave(0, &["status"]).ok().stdout.contains("Service: dns"));
    world.weave(0, &["detach", "10.2.1.1/24", container]).ok();
    wait_until(KEPT_WITHIN, || format!("the keeper starts none: {}", world.log(0)), answers);
    world.weave(0, &["stop"]).ok();
}

/// What a daemon held on to others would wait for.
#[test]
fn daemons_keep_no_descriptors_of_who_started_them() {
    let world = World::new(Options::clear().bare(1));
    let lock = world.host(0).directory().join("lock");
    for arguments in [&["expose", "10.2.1.1/24"][..], &["launch"], &["launch-dns", "--ttl", "9"]] {
        let command = world.command(0, arguments);
        let mut locked = std::process::Command::new("flock");
        locked.arg(&lock).arg(command.get_program()).args(command.get_args());
        locked.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        assert!(
            world.host(0).spawn(&mut locked).unwrap().wait(ENDS_WITHIN).unwrap().success(),
            "{arguments:?}"
        );
        let free = std::fs::File::open(&lock).unwrap().try_lock();
        assert!(free.is_ok(), "{arguments:?}: a daemon holds the lock");
    }
    world.weave(0, &["reset"]).ok();
}

#[test]
fn a_service_manager_is_told_again_and_again_that_the_dns_works_and_not_by_one_that_hangs() {
    let world = World::new(Options::clear().bare(1));
    let host = world.host(0);
    let path = host.directory().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    manager.set_read_timeout(Some(SAID_WITHIN)).unwrap();
    let said = || {
        let mut text = [0; 512];
        let len = manager.recv(&mut text).ok()?;
        Some(String::from_utf8_lossy(&text[..len]).trim().to_owned())
    };
    let mut command = world.command(0, &["launch-dns", "--foreground"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
    let dns = host.spawn(&mut command).unwrap();
    assert_eq!(said().as_deref(), Some("READY=1"));
    manager.set_read_timeout(Some(WATCHDOG)).unwrap();
    for _ in 0..3 {
        assert_eq!(said().as_deref(), Some("WATCHDOG=1"));
    }
    dns.signal(Signal::SIGSTOP).unwrap();
    // One that was on its way.
    manager.set_read_timeout(Some(WATCHDOG / 2)).unwrap();
    let silent = said().is_none() || said().is_none();
    dns.signal(Signal::SIGCONT).unwrap();
    assert!(silent);
    world.weave(0, &["stop-dns"]).ok();
}

/// Half a minute of silence is what a keeper takes for one.
#[test]
fn long_a_dns_that_hangs_is_ended_by_the_keeper_and_started_anew() {
    let world = World::new(Options::clear().bare(1));
    let running = || weave_api::sidecar::status(&world.host(0).run_dir(), SAID_WITHIN).ok().map(|it| it.pid);
    world.weave(0, &["launch-dns"]).ok();
    let hung = running().unwrap();
    kill(Pid::from_raw(hung.cast_signed()), Signal::SIGSTOP).unwrap();
    wait_until(
        Duration::from_secs(60),
        || format!("it hangs: {}", world.log(0)),
        || running().is_some_and(|pid| pid != hung),
    );
    world.weave(0, &["stop-dns"]).ok();
}

#[test]
fn the_dns_is_a_service_of_its_own_without_a_router_and_takes_the_place_of_one_that_runs() {
    let world = World::new(Options::clear().bare(1));
    let host = world.host(0);
    let path = host.directory().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    // As that of systemd: the DNS is nobody by the time it is ready.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    manager.set_read_timeout(Some(SAID_WITHIN)).unwrap();
    let start = || {
        let mut command = world.command(0, &["launch-dns", "--foreground"]);
        let dns = host.spawn(command.env("NOTIFY_SOCKET", &path)).unwrap();
        let mut text = [0; 512];
        let len = manager.recv(&mut text).expect("the DNS says nothing");
        assert_eq!(String::from_utf8_lossy(&text[..len]).trim(), "READY=1");
        dns
    };
    let running = || weave_api::sidecar::status(&host.run_dir(), SAID_WITHIN).ok().map(|status| status.pid);
    let mut dns = start();
    assert_eq!(running(), Some(dns.pid()));
    world.weave(0, &["dns-add", "192.0.2.1", "-h", "db.weave.local"]).ok();
    let answers = || world.weave(0, &["dns-lookup", "db"]).stdout == "192.0.2.1\n";
    wait_until(SAID_WITHIN, || "the name is not found".into(), answers);
    // One that is killed is started by the keeper, and ended by the next start of the service.
    dns.signal(Signal::SIGKILL).unwrap();
    dns.wait(ENDS_WITHIN).unwrap();
    let other = || running().is_some_and(|pid| pid != dns.pid());
    wait_until(SAID_WITHIN, || "the keeper starts none".into(), other);
    let mut dns = start();
    assert_eq!(running(), Some(dns.pid()));
    wait_until(SAID_WITHIN, || "the name is not found".into(), answers);
    // What does not work is not tried again by the keeper, and the DNS is what it was before.
    world.weave(0, &["stop-dns"]).ok();
    dns.wait(ENDS_WITHIN).unwrap();
    let ran = world.weave(0, &["launch-dns", "--foreground", "10.2.1.0/24"]);
    assert_ne!(ran.code, Some(0), "{ran:?}");
    assert_eq!(running(), None);
    let keeper = || weave_api::keeper::look(&host.run_dir()).unwrap();
    world.weave(0, &["stop"]).ok();
    assert_eq!(keeper(), weave_api::keeper::Keeper::Absent, "nothing is left to keep");
}
