//! What runs beside the router, keeper and DNS: what a router says of them.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use weave_api::keeper::{Keeper, KeeperRepairs, KeeperStatus};
use weave_api::status::Degraded;
use weave_host::Netlink;
use weave_host::attach::host_interface;
use weave_host::names::DnsSettings;
use weave_host::store::StateDir;
use weave_tests::world::{INTERFACE, Ran, Spot, addresses, of_containers, v4, weave};
use weave_tests::{Options, World, wait_until};

/// A second, on a busy machine.
const RIGHT_WITHIN: Duration = Duration::from_secs(3);
/// A router looks every 5 s.
const SEEN_WITHIN: Duration = Duration::from_secs(20);

fn state(world: &World, name: &str) -> Option<Degraded> {
    world.status(0).degraded.into_iter().find(|state| state.name == name)
}

fn keeper(world: &World) -> KeeperStatus {
    let what = || format!("the keeper tells nothing: {:?}", world.status(0).degraded);
    wait_until(SEEN_WITHIN, what, || world.status(0).keeper.is_some());
    world.status(0).keeper.unwrap()
}

/// Has the keeper look at everything now.
fn look(world: &World) {
    kill(Pid::from_raw(keeper(world).pid.cast_signed()), Signal::SIGHUP).unwrap();
}

/// Puts a copy of the program there, changed at another time than any before.
fn install(place: &Path, changed: SystemTime) {
    let new = place.with_extension("new");
    fs::copy(weave(), &new).unwrap();
    File::options().write(true).open(&new).unwrap().set_modified(changed).unwrap();
    fs::rename(new, place).unwrap();
}

#[test]
fn keeper_and_dns_that_an_upgrade_left_behind_are_named_until_they_are_renewed() {
    let world = World::new(Options::clear().bare(1));
    let program: PathBuf = world.host(0).directory().join("weave");
    let line = |line: &str| -> Ran {
        let mut command = world.host(0).command(&program);
        world.run(0, command.args(line.split(' ')))
    };
    install(&program, SystemTime::UNIX_EPOCH + Duration::from_secs(1));
    line("launch").ok();
    let before = keeper(&world);
    wait_until(SEEN_WITHIN, || "no DNS is seen".into(), || world.status(0).dns.is_some());
    for name in ["keeper_version", "dns_version", "no_keeper"] {
        assert_eq!(state(&world, name), None);
    }

    install(&program, SystemTime::UNIX_EPOCH + Duration::from_secs(2));
    line("stop --keep-dns").ok();
    line("launch").ok();
    for name in ["keeper_version", "dns_version"] {
        let found = || state(&world, name);
        wait_until(SEEN_WITHIN, || format!("no {name}"), || found().is_some());
        let reason = found().unwrap().reason;
        assert!(reason.contains("another executable") && reason.contains("keeper --renew"), "{reason}");
        for (place, text) in [
            ("status", line("status").stdout),
            ("check", line("check").stdout),
            ("report", world.get(0, "/report").body),
            ("metrics", world.get(0, "/metrics").body),
        ] {
            assert!(text.contains(name), "{place}: {text}");
        }
    }
    let router = world.status(0).pid;
    line("keeper --renew").ok();
    let gone = || ["keeper_version", "dns_version"].iter().all(|name| state(&world, name).is_none());
    wait_until(SEEN_WITHIN, || format!("{:?}", world.status(0).degraded), gone);
    assert_ne!(keeper(&world).pid, before.pid);
    assert_eq!(world.status(0).pid, router, "the router is left alone");
    // One that is killed is missed.
    kill(Pid::from_raw(keeper(&world).pid.cast_signed()), Signal::SIGKILL).unwrap();
    wait_until(SEEN_WITHIN, || "no no_keeper".into(), || state(&world, "no_keeper").is_some());
    line("keeper --renew").ok();
    wait_until(SEEN_WITHIN, || "no keeper".into(), || state(&world, "no_keeper").is_none());
}

/// Both ends of what runs beside the router: a DNS that cannot start, a keeper that is needed.
#[test]
fn the_keeper_is_there_after_a_renewal_that_fails_and_while_a_router_runs() {
    let world = World::new(Options::clear().bare(1));
    world.weave(0, &["launch"]).ok();
    let before = keeper(&world).pid;
    // The sidecar makes its socket anew, and a directory is in its place.
    let socket = weave_api::names::sidecar_socket(&world.host(0).run_dir());
    fs::remove_file(&socket).unwrap();
    fs::create_dir(&socket).unwrap();
    let ran = world.weave(0, &["keeper", "--renew"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("cannot start the DNS"), "{ran:?}");
    let look = || weave_api::keeper::look(&world.host(0).run_dir()).unwrap();
    let told = |keeper| match keeper {
        Keeper::Tells(status) => status.pid,
        Keeper::Absent | Keeper::Silent => panic!("{keeper:?}"),
    };
    let after = told(look());
    assert_ne!(after, before);
    fs::remove_dir(&socket).unwrap();
    world.weave(0, &["stop-dns"]).ok();
    assert_eq!(told(look()), after, "the router needs it");
    world.weave(0, &["stop"]).ok();
    assert_eq!(look(), Keeper::Absent, "nothing is left to keep");
}

/// Hides programs from a router and all that it starts: a device is none.
fn launch_without(world: &World, programs: &[&str]) {
    let mut command = world.host(0).command("unshare");
    let hide = "for it in $0; do mount --bind /dev/null $it; done; exec \"$@\"";
    command.args(["--mount", "--propagation", "private", "sh", "-ec", hide]);
    command.arg(programs.join(" ")).arg(weave()).args(["launch", "--no-dns"]);
    world.run(0, &mut command).ok();
}

#[test]
fn a_host_without_a_program_for_rules_says_so_and_rules_of_one_do_not_outlive_it() {
    let world = World::new(Options::clear().bare(1));
    let file = |program: &str| world.tool(0, &format!("which {program}")).trim().to_owned();
    let [iptables, nft] =
        ["iptables", "nft"].map(|program| fs::canonicalize(file(program)).unwrap().display().to_string());
    launch_without(&world, &[&iptables, &nft]);
    let missing = || state(&world, "no_firewall");
    wait_until(SEEN_WITHIN, || "no no_firewall".into(), || missing().is_some());
    assert!(missing().unwrap().reason.contains("neither iptables nor nft is installed"), "{:?}", missing());
    assert!(world.get(0, "/metrics").body.contains(r#"weave_degraded{name="no_firewall"} 1"#));

    let rules = || world.tool(0, "nft list ruleset");
    let (by_nft, by_iptables) = (|| rules().contains("inet weave"), || rules().contains("WEAVE"));
    assert!(!by_nft() && !by_iptables(), "{}", rules());
    let pid = keeper(&world).pid.to_string();
    let inside = |line: &str| {
        let mut command = world.host(0).command("nsenter");
        command.args(["-t", &pid, "--mount", "sh", "-ec", line]);
        world.run(0, &mut command).ok();
        look(&world);
    };
    inside(&format!("umount {nft}"));
    wait_until(SEEN_WITHIN, || format!("no rules by nft: {}", rules()), by_nft);
    wait_until(SEEN_WITHIN, || format!("{:?}", missing()), || missing().is_none());
    assert_eq!(keeper(&world).firewall.as_deref(), Some("nft"));
    inside(&format!("umount {iptables}"));
    wait_until(SEEN_WITHIN, || format!("rules of nft stay: {}", rules()), || by_iptables() && !by_nft());
    inside(&format!("mount --bind /dev/null {iptables}"));
    wait_until(SEEN_WITHIN, || format!("rules of iptables stay: {}", rules()), || by_nft() && !by_iptables());
}

/// `iptables-save`, which cannot read the tables as long as there is the file named.
const IN_USE: &str = r#"#!/bin/sh
[ -e IN_USE ] && { echo "Another app is holding the xtables lock" >&2; exit 4; }
exec PROGRAM "$@"
"#;

#[test]
fn tables_that_cannot_be_read_are_not_taken_for_empty_ones() {
    let world = World::new(Options::clear().bare(1));
    let directory = world.host(0).directory().join("in-use");
    fs::create_dir(&directory).unwrap();
    let (program, in_use) = (directory.join("iptables-save"), directory.join("now"));
    let text = IN_USE.replace("IN_USE", &in_use.display().to_string());
    fs::write(&program, text.replace("PROGRAM", world.tool(0, "which iptables-save").trim())).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let mut launch = world.host(0).command(weave());
    let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap());
    world.run(0, launch.env("PATH", path).args(["launch", "--no-dns"])).ok();
    let rules = || world.tool(0, "iptables-save").lines().filter(|line| line.contains("WEAVE")).count();
    let before = rules();
    assert!(before > 0);
    fs::write(&in_use, "").unwrap();
    look(&world);
    let why = || state(&world, "no_firewall").map(|state| state.reason);
    wait_until(
        SEEN_WITHIN,
        || format!("{:?}", why()),
        || why().is_some_and(|why| why.contains("xtables lock")),
    );
    assert_eq!(rules(), before);
    fs::remove_file(&in_use).unwrap();
    look(&world);
    wait_until(SEEN_WITHIN, || format!("{:?}", why()), || why().is_none());
    assert_eq!(rules(), before);
}

#[test]
fn rules_that_others_lead_to_stay_by_name_until_nobody_does() {
    let world = World::new(Options::clear().bare(1));
    world.weave(0, &["launch", "--no-dns"]).ok();
    world.tool(0, "iptables -N ADMIN");
    world.tool(0, "iptables -A ADMIN -j WEAVE-FORWARD");
    world.weave(0, &["stop"]).ok();
    let iptables = fs::canonicalize(world.tool(0, "which iptables").trim()).unwrap();
    launch_without(&world, &[&iptables.display().to_string()]);
    let left = || state(&world, "other_rules");
    wait_until(SEEN_WITHIN, || format!("{:?}", world.status(0).degraded), || left().is_some());
    assert!(left().unwrap().reason.contains("not made by nft"), "{:?}", left());
    assert_eq!(state(&world, "no_firewall"), None);
    let rules = || world.tool(0, "nft list ruleset");
    assert!(rules().contains("inet weave") && rules().contains("WEAVE-FORWARD"), "{}", rules());
    assert!(!rules().contains("WEAVE-INPUT"), "what nobody leads to is gone: {}", rules());
    look(&world);
    world.tool(0, "nft flush chain ip filter ADMIN");
    wait_until(SEEN_WITHIN, rules, || !rules().contains("WEAVE"));
    wait_until(SEEN_WITHIN, || format!("{:?}", world.status(0).degraded), || left().is_none());
}

/// MTU, state and controller of bridge and tap of the first host.
fn devices(world: &World) -> Vec<Option<(u32, bool, Option<u32>)>> {
    world.on_host(0, || {
        let mut host = Netlink::open().unwrap();
        let mut device = |name| host.link(name).unwrap().map(|link| (link.mtu, link.up, link.controller));
        vec![device("weave"), device("weave-tap")]
    })
}

#[test]
fn devices_that_others_change_are_put_right_within_a_second_and_counted() {
    let world = World::new(Options::clear());
    let counted = keeper(&world).repairs.devices;
    let right = devices(&world);
    let changes = [
        "ip link set weave-tap mtu 1300",
        "ip link set weave mtu 1300",
        "ip link set weave-tap nomaster",
        "ip link set weave-tap down",
        "ip link set weave down",
    ];
    for change in changes {
        world.tool(0, change);
        let what = || format!("{change}: {:?} and not {right:?}", devices(&world));
        wait_until(RIGHT_WITHIN, what, || devices(&world) == right);
    }
    world.wait_ping(0, v4(1).into(), RIGHT_WITHIN);
    let all = counted + changes.len() as u64;
    let what = || format!("counted {counted}, then {:?}", keeper(&world).repairs);
    wait_until(SEEN_WITHIN, what, || keeper(&world).repairs.devices >= all);
}

#[test]
fn an_exposed_address_that_is_taken_is_back_within_a_second_and_counted() {
    let world = World::new(Options::clear().bare(1));
    world.weave(0, &["launch", "--no-dns"]).ok();
    world.weave(0, &["expose", "10.32.7.1/24", "fd00:7::1/64"]).ok();
    let held = || world.tool(0, "ip -o addr show dev weave");
    for (address, change) in [
        ("10.32.7.1/24", "ip addr del 10.32.7.1/24 dev weave"),
        ("fd00:7::1/64", "ip addr del fd00:7::1/64 dev weave"),
    ] {
        let counted = repairs(&world).devices;
        world.tool(0, change);
        wait_until(RIGHT_WITHIN, held, || held().contains(address));
        let counts = || format!("counted {counted}, then {:?}", repairs(&world));
        wait_until(RIGHT_WITHIN, counts, || repairs(&world).devices > counted);
    }
}

#[test]
fn a_router_that_hangs_is_ended_by_a_stop_which_says_so() {
    let world = World::new(Options::clear().bare(1));
    world.weave(0, &["launch", "--no-dns"]).ok();
    let router = world.router(0);
    router.signal(Signal::SIGSTOP).unwrap();
    let stopped = world.weave(0, &["stop"]).ok();
    assert!(stopped.stderr.contains("it was killed"), "{}", stopped.stderr);
    world.weave(0, &["launch", "--no-dns"]).ok();
}

/// Commands that have a keeper started, beside resets: whichever comes last, no keeper is left that no
/// command finds.
#[test]
fn resets_beside_other_commands_leave_no_daemon_behind() {
    let world = World::new(Options::clear().bare(1));
    for pause in [10, 20, 30, 40, 60] {
        std::thread::scope(|scope| {
            let expose = scope.spawn(|| world.weave(0, &["expose", "10.32.7.1/24"]));
            // At another point of it each time.
            std::thread::sleep(Duration::from_millis(pause));
            world.weave(0, &["reset"]).ok();
            expose.join().unwrap();
        });
    }
    world.weave(0, &["reset"]).ok();
    let left = || format!("{:?}", world.lab().processes());
    wait_until(SEEN_WITHIN, left, || world.lab().processes().is_empty());
    assert!(!world.tool(0, "nft list ruleset").contains("WEAVE"));
}

/// By IPv4 and IPv6, in both directions: every queue carries again.
fn all_pass(world: &World) {
    for (from, to) in [(0, 1), (1, 0)] {
        addresses(to).iter().for_each(|address| world.wait_ping(from, *address, RIGHT_WITHIN));
    }
}

#[test]
fn a_tap_that_is_deleted_is_made_again_and_the_router_goes_on() {
    let world = World::new(Options::encrypted());
    let router = world.router(0);
    let (counted, right) = (keeper(&world).repairs.devices, devices(&world));
    let times = 3;
    for _ in 0..times {
        world.tool(0, "ip link del weave-tap");
        wait_until(RIGHT_WITHIN, || format!("{:?}", devices(&world)), || devices(&world) == right);
        all_pass(&world);
    }
    wait_until(
        RIGHT_WITHIN,
        || format!("{:?}", repairs(&world)),
        || repairs(&world).devices == counted + times,
    );
    assert!(router.is_alive(), "{}", world.log(0));
    assert_eq!(state(&world, "no_tap"), None);
    // It is one that outlives the router, as the one before.
    world.stop(0);
    assert!(devices(&world)[1].is_some());
    world.launch(0, &[]);
    world.wait_established();
    all_pass(&world);
}

#[test]
fn without_a_keeper_a_deleted_tap_is_named_until_one_runs_again() {
    let world = World::new(Options::clear());
    let router = world.router(0);
    let pid = Pid::from_raw(keeper(&world).pid.cast_signed());
    kill(pid, Signal::SIGKILL).unwrap();
    let absent = || state(&world, "no_keeper").is_some();
    wait_until(SEEN_WITHIN, || format!("{:?}", world.status(0).degraded), absent);
    world.tool(0, "ip link del weave-tap");
    let said = || state(&world, "no_tap").is_some_and(|state| state.reason.contains("no keeper runs"));
    wait_until(SEEN_WITHIN, || format!("{:?}", world.status(0).degraded), said);
    assert!(world.is_established(0, 1), "links are no matter of the tap");
    world.weave(0, &["keeper", "--renew"]).ok();
    wait_until(SEEN_WITHIN, || world.log(0), || state(&world, "no_tap").is_none());
    all_pass(&world);
    assert!(router.is_alive(), "{}", world.log(0));
}

#[test]
fn a_dns_that_nobody_starts_again_or_asks_is_told() {
    let world = World::new(Options::clear().bare(1));
    world.weave(0, &["launch", "--no-dns"]).ok();
    let elsewhere = world.weave(0, &["launch-dns", "--listen", "192.0.2.77"]).ok();
    assert!(elsewhere.stderr.contains("192.0.2.77 is no address of this host"), "{}", elsewhere.stderr);
    let here = world.weave(0, &["launch-dns", "--listen", "127.0.0.1"]).ok();
    assert_eq!(here.stderr, "");
    wait_until(SEEN_WITHIN, || "no DNS is seen".into(), || world.status(0).dns.is_some());
    let run_dir = world.host(0).run_dir();
    let dns = weave_api::sidecar::status(&run_dir, SEEN_WITHIN).unwrap();
    for pid in [keeper(&world).pid, dns.pid] {
        kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
    }
    let status = || world.weave(0, &["status"]).ok().stdout;
    wait_until(SEEN_WITHIN, status, || status().contains("no keeper runs that starts it again"));
    world.weave(0, &["launch-dns"]).ok();
    wait_until(SEEN_WITHIN, status, || !status().contains("does not answer"));
}

/// As after a loss of power: the state says that it is to run.
#[test]
fn a_launch_without_the_dns_starts_none_that_ended_with_the_host() {
    let world = World::new(Options::clear().bare(1));
    world.weave(0, &["launch"]).ok();
    wait_until(SEEN_WITHIN, || "no DNS is seen".into(), || world.status(0).dns.is_some());
    let run_dir = world.host(0).run_dir();
    let dns = weave_api::sidecar::status(&run_dir, SEEN_WITHIN).unwrap();
    let keeper = keeper(&world).pid;
    world.kill(0);
    for pid in [keeper, dns.pid] {
        kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
    }
    let alive = |pid: u32| Path::new(&format!("/proc/{pid}")).exists();
    wait_until(SEEN_WITHIN, || "daemons live".into(), || !alive(keeper) && !alive(dns.pid));
    world.weave(0, &["launch", "--no-dns"]).ok();
    assert!(!DnsSettings::read(&world.host(0).state_dir()).unwrap().unwrap().enabled);
    assert!(weave_api::sidecar::status(&run_dir, RIGHT_WITHIN).is_err());
}

/// The MTU of the host's end is that of the attachment, which may have one of its own; a container's
/// end is its owner's.
#[test]
fn the_hosts_end_of_a_pair_gets_its_mtu_again_and_it_is_counted() {
    let world = World::new(Options::clear().bare(1).containers(2).not_attached());
    let at = |number| world.container_at(Spot { host: 0, number });
    world.weave(0, &["launch", "--no-dns"]).ok();
    world.weave(0, &["attach", "10.32.8.1/24", at(0).spec()]).ok();
    let mut attach = world.host(0).command(weave());
    world.run(0, attach.env("WEAVE_MTU", "1300").args(["attach", "10.32.8.2/24", at(1).spec()])).ok();
    let names = [0, 1].map(|number| host_interface(at(number).namespace().id()));
    let mtus = || {
        world.on_host(0, || {
            let mut host = Netlink::open().unwrap();
            names.each_ref().map(|name| host.expect_link(name).unwrap().mtu)
        })
    };
    let network = devices(&world)[0].unwrap().0;
    let right = [network, 1300];
    assert_eq!(mtus(), right);
    let mut inside = Netlink::in_namespace(at(0).namespace()).unwrap();
    let end = inside.expect_link(INTERFACE).unwrap();
    inside.set_mtu(&end, 1250).unwrap();
    let changes = [(0, 1200), (1, 1200), (1, network), (0, 1300)];
    for (number, mtu) in changes {
        world.tool(0, &format!("ip link set {} mtu {mtu}", names[number]));
        let what = || format!("{} of {mtu}: {:?} and not {right:?}", names[number], mtus());
        wait_until(RIGHT_WITHIN, what, || mtus() == right);
    }
    let counted = || repairs(&world).devices;
    wait_until(RIGHT_WITHIN, || format!("counted {}", counted()), || counted() >= changes.len() as u64);
    assert_eq!(counted(), changes.len() as u64);
    assert_eq!(inside.expect_link(INTERFACE).unwrap().mtu, 1250);
}

/// A number of a namespace may be that of another one later: only the same one is attached again.
#[test]
fn the_interface_of_a_namespace_is_made_again_while_that_lives_and_is_attached() {
    let world = World::new(Options::clear());
    let container = world.container(0);
    let outer = host_interface(container.namespace().id());
    let ps = || of_containers(&world.weave(0, &["ps"]).ok().stdout);
    let (counted, right) = (keeper(&world).repairs.devices, ps());
    let deletions: [&dyn Fn() -> String; 2] =
        [&|| world.tool(0, &format!("ip link del {outer}")), &|| world.tool_inside(0, "ip link del ethwe")];
    let counts = || repairs(&world).devices;
    let mut all = counted;
    for delete in deletions {
        delete();
        wait_until(RIGHT_WITHIN, ps, || ps() == right);
        all_pass(&world);
        // It is there before all is done and counted.
        all += 1;
        wait_until(RIGHT_WITHIN, || format!("{} and not {all}", counts()), || counts() == all);
    }

    let held: Vec<&str> = right.split_whitespace().skip(2).collect();
    world.weave(0, &[&["detach", container.spec()], &held[..]].concat()).ok();
    // By the time this is put right everything was looked at.
    world.tool(0, "ip link set weave-tap nomaster");
    wait_until(RIGHT_WITHIN, || format!("{} and not {}", counts(), all + 1), || counts() == all + 1);
    assert_eq!(ps(), "");
    assert_eq!(Netlink::in_namespace(container.namespace()).unwrap().link(INTERFACE).unwrap(), None);
}

#[test]
fn what_commands_change_of_the_keeper_is_shown_at_once() {
    let world = World::new(Options::clear().bare(1));
    let guarded = || world.status(0).keeper.is_some_and(|keeper| keeper.guard.is_some());
    for (line, guard) in [(&["launch", "--no-dns", "--guard"][..], true), (&["launch", "--no-dns"], false)] {
        world.weave(0, line).ok();
        let what = || format!("{line:?}: {:?}", world.status(0).keeper);
        wait_until(RIGHT_WITHIN, what, || guarded() == guard && world.status(0).keeper.is_some());
        if guard {
            world.weave(0, &["stop"]).ok();
        }
    }
    let before = keeper(&world).pid;
    world.weave(0, &["keeper", "--renew"]).ok();
    let pid = || world.status(0).keeper.map(|keeper| keeper.pid);
    wait_until(
        RIGHT_WITHIN,
        || format!("{before} and {:?}", pid()),
        || pid().is_some_and(|pid| pid != before),
    );
}

/// What a keeper says itself, without the router.
fn repairs(world: &World) -> KeeperRepairs {
    match weave_api::keeper::look(&world.host(0).run_dir()).unwrap() {
        Keeper::Tells(status) => status.repairs,
        other @ (Keeper::Absent | Keeper::Silent) => panic!("{other:?}"),
    }
}

#[test]
fn what_our_own_commands_change_is_nobodys_meddling() {
    let world = World::new(Options::clear().bare(1).containers(2).not_attached());
    let weave = |line: &str| world.weave(0, &line.split(' ').collect::<Vec<_>>()).ok();
    let mtu = || devices(&world).iter().map(|device| device.unwrap().0).collect::<Vec<_>>();
    weave("launch --no-dns");
    weave("expose 10.32.7.1/24 fd00:7::1/64");
    for number in [0, 1] {
        let spec = world.container_at(Spot { host: 0, number }).spec();
        weave(&format!("attach 10.32.8.{}/24 {spec}", number + 1));
    }
    weave("hide 10.32.7.1/24");
    weave("stop");
    weave("launch --no-dns --mtu 1300");
    assert_eq!(mtu(), [1300, 1300]);
    // By the time this is counted everything before it was looked at.
    world.tool(0, "ip link set weave-tap nomaster");
    wait_until(RIGHT_WITHIN, || format!("{:?}", repairs(&world)), || repairs(&world).devices > 0);
    assert_eq!(repairs(&world), KeeperRepairs { devices: 1, rules: 0 });
    assert_eq!(mtu(), [1300, 1300]);
}

/// A keeper that is stopped has its place in the run directory, and what it told last stands there.
#[test]
fn a_keeper_that_hangs_is_named_until_it_works_again_and_commands_go_on() {
    let world = World::new(Options::clear().bare(1).containers(1).not_attached());
    world.weave(0, &["launch", "--no-dns"]).ok();
    let beat = || match weave_api::keeper::look(&world.host(0).run_dir()).unwrap() {
        Keeper::Tells(status) => status.beat,
        Keeper::Absent | Keeper::Silent => None,
    };
    wait_until(SEEN_WITHIN, || "it gives no sign".into(), || beat().is_some());
    let pid = Pid::from_raw(keeper(&world).pid.cast_signed());
    let hangs = || state(&world, "keeper_hangs");
    // It does not hold the lock on the state then.
    let lock = StateDir::existing(world.host(0).state_dir()).lock().unwrap();
    kill(pid, Signal::SIGSTOP).unwrap();
    drop(lock);
    wait_until(SEEN_WITHIN, || format!("{:?}", world.status(0).degraded), || hangs().is_some());
    let told = hangs().unwrap();
    assert!(told.since_s >= 10 && told.reason.contains("weave keeper --renew"), "{told:?}");
    let begin = std::time::Instant::now();
    let status = world.weave(0, &["status"]).ok().stdout;
    assert!(status.contains("Degraded: keeper_hangs for "), "{status}");
    assert!(begin.elapsed() < RIGHT_WITHIN, "{:?}", begin.elapsed());
    let check = world.weave(0, &["check"]).stdout;
    assert!(check.contains("FAILED   keeper           it does not answer since"), "{check}");
    let metrics = world.get(0, "/metrics").body;
    assert!(metrics.contains(r#"weave_degraded{name="keeper_hangs"} 1"#), "{metrics}");
    // Commands do their work themselves.
    let spec = world.container_at(Spot { host: 0, number: 0 }).spec();
    world.weave(0, &["attach", "10.32.8.1/24", spec]).ok();
    assert!(begin.elapsed() < SEEN_WITHIN);
    kill(pid, Signal::SIGCONT).unwrap();
    wait_until(SEEN_WITHIN, || format!("{:?}", hangs()), || hangs().is_none());
    // One that goes on hanging is put aside.
    kill(pid, Signal::SIGSTOP).unwrap();
    world.weave(0, &["keeper", "--renew"]).ok();
    wait_until(SEEN_WITHIN, || format!("{pid}"), || keeper(&world).pid != pid.as_raw().cast_unsigned());
    assert_eq!(hangs(), None);
}

/// What is inside a container is its own: it is told, with what puts it right.
#[test]
fn what_is_changed_inside_a_container_is_told_until_it_is_attached_again() {
    const TOLD_WITHIN: Duration = Duration::from_secs(40);
    let world = World::new(Options::clear().bare(1).containers(2).not_attached());
    let at = |number| world.container_at(Spot { host: 0, number });
    world.weave(0, &["launch", "--no-dns"]).ok();
    for number in [0, 1] {
        let cidrs = [format!("10.32.8.{}/24", number + 1), format!("fd00:8::{}/64", number + 1)];
        world.weave(0, &["attach", &cidrs[0], &cidrs[1], at(number).spec()]).ok();
    }
    let before = world.weave(0, &["ps"]).ok().stdout;
    let told = || state(&world, "attachment_changed").map(|state| state.reason);
    let spec = at(0).spec();
    let mac = before.lines().find(|line| line.starts_with(spec)).unwrap().split(' ').nth(1).unwrap();
    let changes = [
        (
            "ip link set ethwe address 02:00:00:00:00:77".to_owned(),
            format!("has the MAC 02:00:00:00:00:77 instead of {mac}"),
        ),
        ("ip link set ethwe mtu 1300".to_owned(), "has the MTU 1300 instead of 1376".to_owned()),
        ("ip addr del 10.32.8.1/24 dev ethwe".to_owned(), "lacks 10.32.8.1/24".to_owned()),
        ("ip addr del fd00:8::1/64 dev ethwe".to_owned(), "lacks 10.32.8.1/24, fd00:8::1/64".to_owned()),
        ("ip link set ethwe down".to_owned(), "is down".to_owned()),
    ];
    assert_eq!(told(), None);
    for (change, what) in &changes {
        world.tool_in(at(0), change);
        let says = || told().is_some_and(|told| told.contains(what));
        wait_until(TOLD_WITHIN, || format!("{change}: {:?}", told()), says);
    }
    let said = told().unwrap();
    assert!(!said.contains(at(1).spec()), "{said}");
    let check = world.weave(0, &["check"]).stdout;
    let metrics = world.get(0, "/metrics").body;
    let log = fs::read_to_string(world.host(0).run_dir().join("keeper.log")).unwrap();
    for (place, text, what) in [
        ("check", &check, "attachment_changed"),
        ("metrics", &metrics, "weave_attachments_changed 1"),
        ("log", &log, "changed inside a container: ethwe of"),
    ] {
        assert!(text.contains(what), "{place}: {text}");
    }
    // What it says puts it right.
    let command = said.split('`').nth(1).unwrap();
    assert_eq!(command, format!("weave attach 10.32.8.1/24 fd00:8::1/64 {spec}"));
    world.weave(0, &command.split(' ').skip(1).collect::<Vec<_>>()).ok();
    wait_until(TOLD_WITHIN, || format!("{:?}", told()), || told().is_none());
    assert_eq!(world.weave(0, &["ps"]).ok().stdout, before);
    let end = Netlink::in_namespace(at(0).namespace()).unwrap().expect_link(INTERFACE).unwrap();
    assert!(end.up && end.mtu == 1376 && end.mac.is_some_and(|end| end.to_string() == mac), "{end:?}");
}
