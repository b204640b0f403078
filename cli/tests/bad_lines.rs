//! Bad input: exit code 1 or 2, one line with cause and remedy, nothing changed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs::File;
use std::io::Write;

use common::{Ran, World, unprivileged};

/// Asserts that `ran` failed with `code` and one line that holds `parts`.
fn assert_refused(line: &str, ran: &Ran, code: i32, parts: &[&str]) {
    assert_eq!(ran.code, Some(code), "{line}: {ran:?}");
    assert_eq!(ran.stdout, "", "{line}");
    assert_eq!(ran.stderr.trim_end().lines().count(), 1, "{line}: {ran:?}");
    assert!(ran.stderr.contains(": ") && ran.stderr.ends_with('\n'), "{line}: {ran:?}");
    assert!(!ran.stderr.trim_end().contains(char::is_control), "{line}: {ran:?}");
    for part in parts {
        assert!(ran.stderr.contains(part), "{line}: {part:?} is not in {:?}", ran.stderr);
    }
}

fn words(line: &str) -> Vec<&str> {
    line.split(' ').filter(|word| !word.is_empty()).collect()
}

#[test]
fn wrong_usage_is_exit_code_2_and_changes_nothing() {
    let world = World::new();
    let before = world.observed();
    for (line, parts) in [
        // Commands and options.
        ("", &["no command", "--help"][..]),
        ("explode", &["unrecognized", "'explode'", "--help"]),
        ("launch --ipalloc-range 10.32.0.0/12 host2", &["'--ipalloc-range'", "not allocated"]),
        ("launch --dns-listen-address 10.2.1.9 host2", &["launch-dns --listen"]),
        ("launch -password --nickname one", &["looks like an option"]),
        ("launch -password -nickname one host2", &["looks like an option"]),
        ("launch -password -mtu=1400 host2", &["looks like an option"]),
        ("launch -password -s3cret-s3cret --log-level=warning --mtu 1", &["'--mtu <BYTES>'"]),
        ("reset --force now", &["'now'"]),
        ("attach --without-dns 10.2.1.1/24", &["no container"]),
        ("connect", &["PEER"]),
        ("run --no-multicast-route 10.2.1.1/24 ubuntu", &["--no-multicast-route", "before the addresses"]),
        ("attach fe80::5/64 pid:1", &["address of the link"]),
        ("expose", &["CIDR"]),
        ("expose 10.2.1.1", &["10.2.1.1/24"]),
        ("expose 10.2.1.0/24", &["network itself"]),
        ("expose 10.2.1.255/24", &["broadcast"]),
        ("expose 10.2.1.1/24 -h a_b!", &["a_b!"]),
        ("expose 10.2.1.1/24 10.2.1.1/16", &["10.2.1.1/16"]),
        ("expose web", &["web"]),
        ("hide", &["CIDR"]),
        ("hide 10.2.1.1/33", &["10.2.1.1/33"]),
        ("hide 10.2.1.1", &["10.2.1.1/24"]),
        ("hide 10.2.1.0/24", &["network itself"]),
        ("hide 10.2.1.255/24", &["broadcast"]),
        ("hide web", &["web"]),
        ("hide 10.2.1.1/24 -h x.weave.local", &["'-h'", "weave hide --help"]),
        ("expose -h x.weave.local", &["CIDR"]),
        ("expose 10.2.1.1/24 --with-masquerade", &["--without-masquerade"]),
        ("expose 224.0.0.1/24", &["multicast"]),
        ("expose 127.0.0.1/8", &["loopback"]),
        ("expose 10.2.1.1/0", &["no subnet"]),
        ("expose fd00::/64", &["network itself"]),
        ("run", &["no address"]),
        ("run ubuntu", &["no address"]),
        ("run -t -i ubuntu", &["no address"]),
        ("run 10.2.1.1/24", &["no image"]),
        ("run 10.2.1.0/24 ubuntu", &["network itself"]),
        ("run net:10.2.1.0/24 ubuntu", &["name one"]),
        ("run 10.2.1.1/24 10.2.1.1/25 ubuntu", &["10.2.1.1/25"]),
        ("run 10.2.1.1 ubuntu", &["10.2.1.1/24"]),
        ("run 10.2.1.255/24 ubuntu", &["broadcast"]),
        ("run 10.2.1.1/33 ubuntu", &["10.2.1.1/33"]),
        ("run 127.0.0.1/8 ubuntu", &["loopback"]),
        ("start", &["CONTAINER"]),
        ("start 10.2.1.1 web", &["10.2.1.1/24"]),
        ("start 10.2.1.0/24 web", &["network itself"]),
        ("start 10.2.1.1/24 10.2.1.1/25 web", &["10.2.1.1/25"]),
        ("start pid:1", &["pid:1", "weave attach"]),
        ("start web;reboot", &["web;reboot", "letters, digits"]),
        ("start 10.2.1.1/24 web?x=y", &["web?x=y", "letters, digits"]),
        ("start 10.2.1.1/24", &["0 containers"]),
        ("start 10.2.1.1/24 a b", &["2 containers"]),
        ("start 10.2.1.255/24 a", &["broadcast"]),
        ("dns-add", &["neither a container nor an address"]),
        ("dns-add 192.0.2.1", &["neither a container nor an address"]),
        ("dns-add -h a.weave.local", &["neither a container nor an address"]),
        ("dns-add 192.0.2.1/24 -h y.weave.local", &["192.0.2.1/24", "leave the length out"]),
        ("dns-add 0.0.0.0 -h y.weave.local", &["0.0.0.0", "not the address of one host"]),
        ("attach 10.2.1.1/24 netns:../x", &["netns:../x", "not the name of a namespace"]),
        ("dns-add a b -h a.weave.local", &["two containers"]),
        ("dns-add 192.0.2.1 -h a.elsewhere", &["not in the domain weave.local"]),
        ("dns-add 192.0.2.1 -h a-.weave.local", &["a-.weave.local"]),
        ("dns-add 192.0.2.1 -h weave.local", &["not in the domain"]),
        ("dns-remove", &["neither a container nor an address"]),
        ("dns-lookup", &["NAME"]),
        ("dns-lookup a..b", &["a..b"]),
        ("launch-dns 10.2.254.0/24", &["network itself"]),
        ("launch-dns 10.2.254.1/24 --domain -", &["host name"]),
        ("launch-dns --ttl x", &["--ttl"]),
        ("launch-dns --watch=maybe", &["--watch"]),
        ("launch-dns --listen here", &["--listen"]),
        ("launch-dns --listen 0.0.0.0", &["--listen", "not the address of one host"]),
        ("launch-dns --listen ::", &["--listen", "not the address of one host"]),
        ("launch --explode", &["'--explode'", "weave launch --help"]),
        ("launch -explode", &["'-explode'", "weave launch --help"]),
        ("launch -h", &["'-h'"]),
        ("status --output yaml", &["yaml", "text, json"]),
        ("status everything", &["everything", "peers, connections, targets, routes, macs, dns"]),
        ("stop now", &["'now'"]),
        ("completions", &["<SHELL>"]),
        // Addresses.
        ("attach", &["CIDR"]),
        ("attach pid:1", &["no address"]),
        ("attach 10.2.1.1/24", &["no container"]),
        ("attach 10.2.1.1 pid:1", &["10.2.1.1/24"]),
        ("attach 10.2.1.0/24 pid:1", &["network itself"]),
        ("attach 10.2.1.255/24 pid:1", &["broadcast"]),
        ("attach 10.2.1.1/33 pid:1", &["10.2.1.1/33"]),
        ("attach 10.2.1.1/24 10.2.1.1/16 pid:1", &["10.2.1.1/16", "10.2.1.1/24"]),
        ("attach 224.0.0.1/24 pid:1", &["multicast"]),
        ("attach fd00::/64 pid:1", &["network itself"]),
        ("attach net:10.2.1.0/24 pid:1", &["name one"]),
        ("attach 127.0.0.1/8 pid:1", &["loopback"]),
        ("attach 10.2.1.1/0 pid:1", &["no subnet"]),
        ("detach 10.2.1.1/99 pid:1", &["10.2.1.1/99"]),
        ("detach", &["CIDR"]),
        ("detach pid:1", &["no address"]),
        ("detach 10.2.1.1/24", &["no container"]),
        ("detach 10.2.1.1 pid:1", &["10.2.1.1/24"]),
        ("detach 10.2.1.0/24 pid:1", &["network itself"]),
        ("detach 10.2.1.1/24 10.2.1.1/16 pid:1", &["10.2.1.1/16", "10.2.1.1/24"]),
        ("detach 10.2.1.1/24 pid:1 pid:2", &["two containers"]),
        ("detach 10.2.1.1/24 netns:../x", &["netns:../x"]),
        ("detach 10.2.1.1/24 web;reboot", &["web;reboot"]),
        ("ps --all", &["'--all'", "weave ps --help"]),
        ("ps pid:x", &["pid:x"]),
        ("ps web?x=y", &["web?x=y", "letters, digits"]),
        ("ps netns:../../etc", &["netns:../../etc"]),
        ("ps web;reboot", &["web;reboot"]),
        // Containers.
        ("attach 10.2.1.1/24 pid:0", &["pid:0"]),
        ("attach 10.2.1.1/24 pid:x", &["pid:x"]),
        ("attach 10.2.1.1/24 pid:1 pid:2", &["two containers"]),
        ("attach 10.2.1.1/24 netns:../../etc", &["netns:../../etc"]),
        // Peers, ports, numbers.
        ("connect", &["PEER"]),
        ("connect 10.0.0.256", &["10.0.0.256"]),
        ("connect 224.0.0.1", &["one host"]),
        ("connect host2:0", &["1 to 65535"]),
        ("connect fe80::1%eth0", &["fe80::1%eth0"]),
        ("forget", &["PEER"]),
        ("forget host:99999", &["1 to 65535"]),
        ("launch -port 0", &["--port", "1..=65535"]),
        ("launch -port 65536", &["--port"]),
        ("launch -port http", &["--port"]),
        ("launch host2:66000", &["1 to 65535"]),
        ("launch --host 0.0.0.0", &["every address"]),
        ("launch --host host1", &["--host"]),
        ("launch --advertise host1", &["it is a name"]),
        ("launch --mtu 100", &["--mtu"]),
        ("launch --mtu 65536", &["--mtu"]),
        ("launch --cores 0-", &["--cores"]),
        ("launch --cores 1,1", &["--cores"]),
        ("launch --cores 0,999", &["core 999", "leave --cores out"]),
        ("launch --conn-limit 0", &["--conn-limit"]),
        ("launch --trusted-subnets 10.1.0.0/33", &["--trusted-subnets"]),
        ("launch --trusted-subnets 10.1.2.3/16", &["10.1.0.0/16"]),
        ("launch --require-encryption", &["no password"]),
        ("demo --hosts 1", &["--hosts"]),
        ("forget --identity x", &["--identity", "peer name"]),
        ("launch --offload no-lro", &["no-lro", "no-gso"]),
        ("launch -name 02:00:00", &["peer name"]),
        ("launch -name 00:00:00:00:00:00", &["peer name"]),
        ("launch -nickname a/b", &["nickname"]),
        ("launch --log-level loud", &["--log-level"]),
        // Passwords.
        ("launch -password", &["--password"]),
        ("launch -password=", &["empty"]),
        ("launch -password x --password-file y", &["--password-file"]),
        ("launch -password x --clear", &["--clear", "contradict"]),
        ("router -password x", &["--password-file"]),
        // Injection.
        ("connect $(reboot)", &["$(reboot)"]),
        ("connect host2;reboot", &["host2;reboot"]),
        ("connect `reboot`", &["`reboot`"]),
        ("connect -oProxyCommand=reboot", &["-oProxyCommand=reboot"]),
        ("launch ../../etc/passwd", &["../../etc/passwd"]),
        ("launch -nickname $(reboot)", &["$(reboot)"]),
        ("launch -nickname %s%n", &["%s%n"]),
        ("attach 10.2.1.1/24;reboot pid:1", &["10.2.1.1/24;reboot"]),
        ("attach 10.2.1.1/24 pid:1;reboot", &["pid:1;reboot"]),
        ("attach 10.2.1.1/24 ../../etc/passwd", &["../../etc/passwd"]),
        ("attach 10.2.1.1/24 web?x=y", &["web?x=y", "letters, digits"]),
        ("attach 10.2.1.1/24 %2e%2e", &["letters, digits"]),
        ("expose 10.2.1.1/24;reboot", &["10.2.1.1/24;reboot"]),
    ] {
        assert_refused(line, &world.run(&mut world.weave(words(line))), 2, parts);
    }
    assert_eq!(world.observed(), before);
}

#[test]
fn control_characters_never_reach_the_terminal() {
    let world = World::new();
    let before = world.observed();
    for arguments in [
        ["connect", "host2\nhost3"],
        ["connect", "\u{1b}[2Jhost2"],
        ["launch", "--nickname=a\rb"],
        ["launch", "\u{7}"],
        ["attach", "10.2.1.1/24\n"],
        ["\u{1b}[31m", "x"],
        ["launch", "--\u{1b}]0;title\u{7}"],
        ["launch", "-\u{1b}[31m"],
    ] {
        assert_refused(arguments[1], &world.run(&mut world.weave(arguments)), 2, &[]);
    }
    assert_eq!(world.observed(), before);
}

#[test]
fn bad_variables_are_wrong_usage_and_named() {
    let world = World::new();
    let before = world.observed();
    let long = world.path(&"x".repeat(120));
    for (name, value) in [
        ("WEAVE_PORT", "0"),
        ("WEAVE_PORT", "67 83"),
        ("WEAVE_MTU", "1"),
        ("WEAVE_RUN_DIR", "/"),
        ("WEAVE_RUN_DIR", &long),
        ("WEAVE_STATE_DIR", "/"),
        ("WEAVE_PASSWORD", "a\u{7}b"),
        ("WEAVE_TEST_REKEY_MS", "1"),
        ("WEAVE_LOG_FORMAT", "xml"),
    ] {
        let ran = world.run(world.weave(["launch"]).env(name, value));
        assert_refused(&format!("{name}={value}"), &ran, 2, &[name]);
    }
    assert_eq!(world.observed(), before);
}

#[test]
fn what_cannot_be_done_is_exit_code_1_and_changes_nothing() {
    let world = World::new();
    std::fs::write(world.path("binary"), b"\xff\xfe").unwrap();
    std::fs::write(world.path("empty"), b"").unwrap();
    std::fs::write(world.path("three"), b"a\nb\nc\n").unwrap();
    std::fs::write(world.path("large"), "x".repeat(1 << 20)).unwrap();
    let before = world.observed();
    let engine = "unix:///nonexistent/docker.sock";
    for (line, parts) in [
        // No engine.
        ("attach 10.2.1.1/24 web", &[engine, "DOCKER_HOST", "pid:N"][..]),
        ("detach 10.2.1.1/24 web", &[engine]),
        ("run 10.2.1.1/24 ubuntu", &[engine]),
        ("start 10.2.1.1/24 web", &[engine]),
        ("start web", &[engine]),
        ("ps web", &[engine]),
        // No router.
        ("status", &["no router", "weave launch"]),
        ("status macs -o json", &["no router", "weave launch"]),
        ("connect host2", &["no router", "weave launch"]),
        ("connect --replace host2", &["no router", "weave launch"]),
        ("connect --replace", &["no router", "weave launch"]),
        ("forget host2", &["no router", "weave launch"]),
        // Namespaces.
        ("attach 10.2.1.1/24 pid:2147483647", &["no such process", "running container"]),
        ("attach 10.2.1.1/24 netns:no-such-name", &["does not exist"]),
        ("attach 10.2.1.1/24 /no/such/path", &["does not exist"]),
        ("attach 10.2.1.1/24 /dev/null", &["not a network namespace"]),
        ("detach 10.2.1.1/24 pid:2147483647", &["no such process"]),
        // Password files.
        ("launch --password-file missing", &["missing", "No such file", "first line"]),
        ("launch --password-file state", &["state", "directory"]),
        ("launch --password-file binary", &["UTF-8"]),
        ("launch --password-file empty", &["empty"]),
        ("launch --password-file three", &["two lines"]),
        ("launch --password-file large", &["longer"]),
        // The original's commands.
        ("prime", &["leave it out"]),
        ("rmpeer host2", &["weave forget"]),
        ("env --restore", &["weave attach"]),
        ("restart web", &["docker restart"]),
        ("launch-plugin --no-multicast-route", &["weave run"]),
        ("launch-proxy -H tcp://0.0.0.0:12375", &["weave attach"]),
    ] {
        assert_refused(line, &world.run(&mut world.weave(words(line))), 1, parts);
    }
    assert_eq!(world.observed(), before);
}

#[test]
fn an_engine_or_bridge_that_cannot_be_is_refused_by_name() {
    let world = World::new();
    let before = world.observed();
    let line = ["attach", "10.2.1.1/24", "web"];
    for host in ["ssh://elsewhere", "/var/run/docker.sock", "tcp://127.0.0.1:1"] {
        let ran = world.run(world.weave(line).env("DOCKER_HOST", host));
        assert_refused(host, &ran, 1, &[host, "DOCKER_HOST"]);
    }
    // An engine asks for no user, so that none is passed on, and a password is nobody's to read.
    let ran = world.run(world.weave(line).env("DOCKER_HOST", "tcp://me:secret@127.0.0.1:1"));
    assert_refused("a user", &ran, 1, &["tcp://127.0.0.1:1", "DOCKER_HOST"]);
    assert!(!ran.stderr.contains("secret"), "{}", ran.stderr);
    for bridge in ["docker0;reboot", "a-name-that-is-too-long"] {
        let ran = world.run(world.weave(["expose", "10.2.1.1/24"]).env("DOCKER_BRIDGE", bridge));
        assert_refused(bridge, &ran, 2, &["DOCKER_BRIDGE"]);
    }
    assert_eq!(world.observed(), before);
}

#[test]
fn the_own_namespace_is_refused_however_it_is_named() {
    let world = World::new();
    let before = world.observed();
    let own = world.namespace.path().display().to_string();
    for container in ["/proc/self/ns/net", &own] {
        let ran = world.run(&mut world.weave(["attach", "10.2.1.1/24", container]));
        assert_refused(container, &ran, 1, &["of this host"]);
    }
    assert_eq!(world.observed(), before);
}

#[test]
fn without_root_nothing_is_tried() {
    let world = World::new();
    let before = world.observed();
    assert!(!world.run_dir().exists());
    for line in [
        "launch",
        "launch -password wEaVe host2",
        "router",
        "stop",
        "reset",
        "attach 10.2.1.1/24 pid:1",
        "detach 10.2.1.1/24 pid:1",
        "create-bridge",
        "expose 10.2.1.1/24",
        "hide 10.2.1.1/24",
        "run 10.2.1.1/24 ubuntu",
        "start 10.2.1.1/24 web",
        "keeper",
    ] {
        let ran = world.run(unprivileged(&mut world.weave(words(line))));
        assert_refused(line, &ran, 1, &["root", "sudo"]);
    }
    assert_eq!(world.observed(), before);
    // The control socket is root's.
    weave_api::socket::prepare(&world.run_dir()).unwrap();
    let before = world.observed();
    let ran = world.run(unprivileged(&mut world.weave(["status"])));
    assert_refused("status", &ran, 1, &["root only", "run it as root"]);
    // The password file of somebody else.
    std::fs::write(world.path("secret"), b"wEaVe wEaVe wEaVe").unwrap();
    std::fs::set_permissions(world.path("secret"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .unwrap();
    let mut launch = world.weave(["launch", "--password-file", "secret"]);
    assert_refused("launch", &world.run(unprivileged(&mut launch)), 1, &["Permission denied", "readable"]);
    assert_eq!(world.observed(), before);
}

#[test]
fn a_second_launch_says_so_and_changes_nothing() {
    let world = World::new();
    std::fs::create_dir(world.run_dir()).unwrap();
    // This process plays the router: the lock on its pid file is what counts.
    let mut pid_file = File::create(world.run_dir().join("router.pid")).unwrap();
    writeln!(pid_file, "{}", std::process::id()).unwrap();
    pid_file.try_lock().unwrap();
    let before = world.observed();
    let ran = world.run(&mut world.weave(["launch", "-password", "a password of length"]));
    assert_refused("launch", &ran, 1, &["already launched", &std::process::id().to_string(), "weave stop"]);
    assert_eq!(world.observed(), before);
    drop(pid_file);
}

#[test]
fn a_run_directory_that_others_can_reach_is_refused() {
    let world = World::new();
    std::fs::create_dir(world.run_dir()).unwrap();
    std::os::unix::fs::symlink("/tmp", world.run_dir().join("control")).unwrap();
    let before = world.observed();
    assert_refused(
        "status",
        &world.run(&mut world.weave(["status"])),
        1,
        &["symbolic link", "WEAVE_RUN_DIR"],
    );
    assert_eq!(world.observed(), before);
}

#[test]
fn an_address_in_use_on_this_host_is_refused() {
    let world = World::new();
    let containers = ["one", "two"].map(|name| weave_host::Namespace::create(name).unwrap());
    let [one, two] = [0, 1].map(|index| containers[index].path().display().to_string());
    let ran = world.run(&mut world.weave(["attach", "10.2.1.1/24", &one]));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let before = world.observed();
    for cidr in ["10.2.1.1/24", "10.2.1.1/16"] {
        let ran = world.run(&mut world.weave(["attach", cidr, "10.2.9.9/24", &two]));
        assert_refused(cidr, &ran, 1, &["10.2.1.1", "in use", &one, "another address"]);
    }
    let ran = world.run(&mut world.weave(["attach", "10.2.1.1/16", &one]));
    assert_refused("another prefix", &ran, 1, &["10.2.1.1"]);
    assert_eq!(world.observed(), before);
    let mut inside = weave_host::Netlink::in_namespace(&containers[1]).unwrap();
    assert!(inside.link("ethwe").unwrap().is_none());
}
