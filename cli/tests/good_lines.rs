//! What works without a router.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::World;
use weave_host::{Namespace, Netlink};

#[test]
fn help_and_version_go_to_standard_output() {
    let world = World::new();
    for (line, part) in [
        ("--help", "Usage: weave"),
        ("-help", "Usage: weave"),
        ("help", "Usage: weave"),
        ("help attach", "CIDR"),
        ("attach -help", "CIDR"),
        ("launch --help", "--password-file"),
        ("version", concat!("weave ", env!("CARGO_PKG_VERSION"))),
        ("--version", concat!("weave ", env!("CARGO_PKG_VERSION"))),
        ("completions bash", "_weave"),
        ("completions zsh", "#compdef weave"),
        ("setup", ""),
        ("stop-proxy", ""),
        ("stop-plugin", ""),
    ] {
        let ran = world.run(&mut world.weave(line.split(' ')));
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{line}: {ran:?}");
        assert!(ran.stdout.contains(part), "{line}: {ran:?}");
    }
}

#[test]
fn options_of_the_original_are_ignored_and_named_in_one_line() {
    let world = World::new();
    let line =
        "-local version -no-fastdp --no-restart --rewrite-hosts --no-rewrite-hosts --plugin=false --proxy";
    let mut command = world.weave(line.split(' '));
    let ran = world.run(command.env("PROCFS", "/hostproc").env("WEAVE_CONTAINER_NAME", ""));
    assert_eq!(ran.code, Some(0));
    let expected = "ignored, without meaning in this version: \
        --local, --no-fastdp, --no-restart, --rewrite-hosts, --no-rewrite-hosts, --plugin, --proxy, \
        WEAVE_CONTAINER_NAME, PROCFS\n";
    assert_eq!(ran.stderr, expected);
}

#[test]
fn stop_without_a_router_is_done_and_says_so() {
    let world = World::new();
    let ran = world.run(&mut world.weave(["stop"]));
    assert_eq!(ran.code, Some(0));
    assert!(ran.stderr.contains("no router"), "{ran:?}");
}

#[test]
fn a_container_is_attached_and_detached_without_a_router() {
    let world = World::new();
    let container = Namespace::create("a container").unwrap();
    let path = container.path().display().to_string();
    let addresses = || {
        let mut netlink = Netlink::in_namespace(&container).unwrap();
        let ethwe = netlink.link("ethwe").unwrap()?;
        let all = netlink
            .addresses()
            .unwrap()
            .into_iter()
            .filter(|one| one.index == ethwe.index && !one.link_local);
        Some(all.map(|one| one.cidr.to_string()).collect::<Vec<_>>())
    };
    for _ in 0..2 {
        let ran =
            world.run(&mut world.weave(["attach", "10.2.1.1/24", &path, "ip:10.2.2.1/24", "fd00:2::1/64"]));
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "10.2.1.1 10.2.2.1 fd00:2::1\n"), "{ran:?}");
        assert_eq!(addresses().unwrap(), ["10.2.1.1/24", "10.2.2.1/24", "fd00:2::1/64"]);
    }
    let ran = world.run(&mut world.weave(["detach", "10.2.1.1/24", "fd00:2::1/64", &path]));
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "10.2.1.1 fd00:2::1\n"), "{ran:?}");
    assert_eq!(addresses().unwrap(), ["10.2.2.1/24"]);
    for _ in 0..2 {
        let ran = world.run(&mut world.weave(["detach", "10.2.2.1/24", &path]));
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "10.2.2.1\n"), "{ran:?}");
        assert_eq!(addresses(), None);
    }
}

/// `weave` in `world`, which must succeed silently; what it printed.
fn done(world: &World, arguments: &[&str]) -> String {
    let ran = world.run(&mut world.weave(arguments.iter().copied()));
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{arguments:?}: {ran:?}");
    ran.stdout
}

#[test]
fn attached_containers_are_listed_and_reset_removes_every_trace() {
    let world = World::new();
    let before = world.observed();
    let containers = ["one", "two"].map(|name| Namespace::create(name).unwrap());
    let [one, two] = [0, 1].map(|index| containers[index].path().display().to_string());
    assert_eq!(done(&world, &["ps"]), "");
    done(&world, &["attach", "10.2.1.1/24", "10.2.2.1/24", &one]);
    done(&world, &["attach", "10.2.1.2/24", &two]);
    let listed = done(&world, &["ps"]);
    let mut lines: Vec<&str> = listed.lines().collect();
    // The bridge, without addresses.
    let host = lines.remove(0);
    assert!(host.starts_with("weave:expose ") && host.split(' ').count() == 2, "{host}");
    assert_eq!(done(&world, &["ps", "weave:expose"]), format!("{host}\n"));
    lines.sort_unstable_by_key(|line| line.contains("10.2.1.2"));
    let [first, second] = lines[..] else { panic!("{listed}") };
    assert!(first.starts_with(&one) && first.ends_with(" 10.2.1.1/24 10.2.2.1/24"), "{first}");
    assert!(second.starts_with(&two) && second.ends_with(" 10.2.1.2/24"), "{second}");
    assert_eq!(done(&world, &["ps", &two]), format!("{second}\n"));

    let ran = world.run(&mut world.weave(["reset"]));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.contains("left what is not weave's"), "{ran:?}");
    assert_eq!(world.observed(), before);
    for container in &containers {
        assert!(Netlink::in_namespace(container).unwrap().link("ethwe").unwrap().is_none());
    }
    // Once more, with nothing there.
    assert_eq!(world.run(&mut world.weave(["reset"])).code, Some(0));
}
