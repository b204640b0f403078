//! What `expose` changes of a host beside its addresses, and what becomes of that.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use weave_api::keeper::Keeper;
use weave_perf::lab::Container;
use weave_tests::world::{Ran, v4, weave};
use weave_tests::{Options, World, wait_until};

const WITHIN: Duration = Duration::from_secs(10);
const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

fn forwards(world: &World) -> bool {
    world.on_host(0, || fs::read_to_string(FORWARD).unwrap().trim() == "1")
}

fn set_forwards(world: &World, value: &str) {
    world.on_host(0, || fs::write(FORWARD, value).unwrap());
}

fn line(world: &World, line: &str) -> Ran {
    world.weave(0, &line.split(' ').collect::<Vec<_>>()).ok()
}

#[test]
fn an_address_is_hidden_with_its_prefix_only_and_a_damaged_file_is_kept_aside() {
    let world = World::new(Options::encrypted().bare(1));
    line(&world, "expose 10.2.1.102/24");
    let ran = world.weave(0, &["hide", "10.2.1.102/16"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("is exposed as 10.2.1.102/24"), "{ran:?}");
    let ran = world.weave(0, &["expose", "10.2.1.102/25"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("`weave hide 10.2.1.102/24` first"), "{ran:?}");
    assert!(world.tool(0, "ip -o addr show dev weave").contains("10.2.1.102/24"));
    let exposed = world.host(0).state_dir().join("exposed");
    let damaged = |path: &std::path::Path| fs::write(path, "{\"kind\": \"exposed").unwrap();
    let entry = fs::read_dir(&exposed).unwrap().next().unwrap().unwrap().path();
    damaged(&entry);
    let ran = line(&world, "expose 10.2.1.103/24");
    // The keeper may be the first to find it.
    let log = fs::read_to_string(world.host(0).run_dir().join("keeper.log")).unwrap();
    let said = |text: &str| text.contains("a damaged file was set aside");
    assert!(said(&ran.stderr) != said(&log), "{ran:?}\n{log}");
    assert!(!entry.exists() && entry.with_extension("json.bad").exists(), "{entry:?}");
    // The same of the DNS's settings, which would be the usual ones else without a word.
    line(&world, "launch-dns --domain corp.example");
    let settings = world.host(0).state_dir().join("dns.json");
    damaged(&settings);
    let ran = line(&world, "launch-dns --domain corp.example");
    assert!(ran.stderr.contains("a damaged file was set aside as"), "{ran:?}");
    assert!(settings.with_extension("json.bad").exists());
    line(&world, "reset");
    assert!(!world.host(0).state_dir().exists());
}

#[test]
fn exposed_addresses_are_listed_in_the_order_in_which_they_were_exposed() {
    let world = World::new(Options::encrypted().bare(1));
    assert_eq!(line(&world, "ps").stdout, "", "there is no bridge");
    let listed = || {
        let listed = line(&world, "ps").stdout;
        let words: Vec<String> = listed.split_whitespace().map(str::to_owned).collect();
        assert_eq!(words[0], "weave:expose");
        words[2..].to_vec()
    };
    line(&world, "expose 10.2.9.1/24");
    line(&world, "expose fd00:2::1/64 10.2.1.1/24");
    line(&world, "expose 10.2.1.1/24 10.2.9.1/24");
    assert_eq!(listed(), ["10.2.9.1/24", "fd00:2::1/64", "10.2.1.1/24"]);
    // As it is listed where the next command reads it.
    line(&world, "hide 10.2.9.1/24");
    line(&world, "expose 10.2.9.1/24");
    assert_eq!(listed(), ["fd00:2::1/64", "10.2.1.1/24", "10.2.9.1/24"]);
    line(&world, "hide 10.2.9.1/24 fd00:2::1/64 10.2.1.1/24");
    assert_eq!(listed(), [""; 0]);
    line(&world, "reset");
}

#[test]
fn expose_makes_the_bridge_with_the_wanted_mtu_and_an_attachment_above_it_is_said() {
    let world = World::new(Options::encrypted().bare(1).containers(1).not_attached());
    let container = world.containers_of(0)[0].spec();
    let with_mtu = |mtu: &str, line: &str| {
        let mut command = world.command(0, &line.split(' ').collect::<Vec<_>>());
        world.run(0, command.env("WEAVE_MTU", mtu)).ok().stderr
    };
    assert_eq!(with_mtu("1300", "expose 10.2.1.1/24"), "");
    assert!(world.tool(0, "ip -o link show dev weave").contains("mtu 1300"));
    assert_eq!(with_mtu("1300", &format!("attach 10.2.1.2/24 {container}")), "");
    let said = with_mtu("1400", &format!("attach 10.2.1.3/24 {container}"));
    assert!(said.contains("WEAVE_MTU is 1400") && said.contains("takes 1300"), "{said}");
    line(&world, "reset");
}

/// Rules of ours on host 0, by iptables.
fn rules(world: &World) -> Vec<String> {
    let all = ["iptables-save", "ip6tables-save"].map(|tool| world.tool(0, tool)).concat();
    all.lines().filter(|rule| rule.contains("WEAVE")).map(str::to_owned).collect()
}

#[test]
fn a_host_that_is_hidden_again_without_a_launch_has_neither_rules_nor_a_keeper() {
    let world = World::new(Options::encrypted().bare(1).containers(1).not_attached());
    let keeper = || weave_api::keeper::look(&world.host(0).run_dir()).unwrap();
    line(&world, "expose 10.2.1.1/24 fd00:2::1/64");
    wait_until(WITHIN, || "no keeper".into(), || keeper() != Keeper::Absent);
    assert!(!rules(&world).is_empty());
    line(&world, "hide 10.2.1.1/24");
    assert!(!rules(&world).is_empty() && keeper() != Keeper::Absent, "another address is exposed");
    line(&world, "hide fd00:2::1/64");
    assert_eq!((rules(&world), keeper()), (Vec::new(), Keeper::Absent));
    // One that fails has none either.
    world.tool(0, "ip addr add 10.2.3.1/24 dev lo");
    assert_eq!(world.weave(0, &["expose", "10.2.4.1/24", "10.2.3.1/24"]).code, Some(1));
    assert_eq!(rules(&world), Vec::<String>::new());
    // Containers need them.
    let container = world.containers_of(0)[0].spec().to_owned();
    line(&world, &format!("attach 10.2.1.2/24 {container}"));
    line(&world, "expose 10.2.1.1/24");
    line(&world, "hide 10.2.1.1/24");
    assert!(!rules(&world).is_empty());
    // And they are kept.
    assert_ne!(keeper(), Keeper::Absent);
    for tool in ["iptables", "ip6tables"] {
        world.tool(0, &format!("{tool} -F"));
    }
    wait_until(
        WITHIN,
        || "they are not put back".into(),
        || rules(&world).iter().any(|rule| rule.contains("-j DROP")),
    );
    line(&world, "reset");
    assert_eq!(rules(&world), Vec::<String>::new());
}

#[test]
fn forwarding_is_after_hide_and_reset_what_it_was_before() {
    let world = World::new(Options::encrypted().bare(1));
    set_forwards(&world, "0");
    line(&world, "expose fd00:2::1/64");
    assert!(!forwards(&world), "IPv6 does not need it");
    line(&world, "expose 10.2.1.1/24 10.2.2.1/24");
    line(&world, "expose 10.2.1.1/24");
    assert!(forwards(&world));
    line(&world, "hide 10.2.1.1/24");
    assert!(forwards(&world), "another address is exposed");
    line(&world, "hide 10.2.2.1/24");
    assert!(!forwards(&world));
    line(&world, "hide 10.2.2.1/24");
    // An expose that fails.
    world.tool(0, "ip addr add 10.2.3.1/24 dev lo");
    assert_eq!(world.weave(0, &["expose", "10.2.4.1/24", "10.2.3.1/24"]).code, Some(1));
    assert!(!forwards(&world));
    // Across a launch, which puts it back where it was lost, and gone with a reset.
    line(&world, "expose 10.2.1.1/24");
    set_forwards(&world, "0");
    world.launch(0, &[]);
    assert!(forwards(&world), "a launch does not put it back");
    line(&world, "reset");
    assert!(!forwards(&world));
    assert!(!world.host(0).state_dir().exists());
    // One that was on before is not ours.
    set_forwards(&world, "1");
    for undo in ["hide 10.2.1.1/24", "reset"] {
        line(&world, "expose 10.2.1.1/24");
        line(&world, undo);
        assert!(forwards(&world), "after {undo}");
    }
    // Nor one that an engine relies on by now.
    set_forwards(&world, "0");
    line(&world, "expose 10.2.1.1/24");
    world.tool(0, "ip link add docker0 type bridge");
    line(&world, "hide 10.2.1.1/24");
    assert!(forwards(&world), "an engine started meanwhile");
    world.tool(0, "ip link del docker0");
    line(&world, "expose 10.2.1.1/24");
    line(&world, "hide 10.2.1.1/24");
    assert!(forwards(&world), "it is not ours any more");
    line(&world, "reset");
}

/// `weave` on host 0, as on a host that has only `nft`, or an `iptables` without the table `raw`.
#[test]
fn an_exposed_address_of_ipv6_leaves_the_routes_of_the_host_alone() {
    let world = World::new(Options::encrypted().bare(1));
    world.tool(0, "ip link add eth0 up type veth peer name other");
    world.tool(0, "ip link set other up");
    // As a router advertisement makes it, which a host that forwards does not take any more.
    world.tool(0, "ip -6 route add default via fe80::1 dev eth0 proto ra expires 600");
    let kept = || {
        let settings = ["all", "default", "eth0"].map(|one| {
            let directory = format!("/proc/sys/net/ipv6/conf/{one}");
            world.tool(0, &format!("cat {directory}/forwarding {directory}/accept_ra"))
        });
        let routes = world.tool(0, "ip -6 route show default");
        let routes: Vec<String> =
            routes.lines().map(|line| line.split(" expires").next().unwrap().to_owned()).collect();
        (settings, routes)
    };
    let before = kept();
    assert!(before.1.len() == 1 && before.1[0].contains("proto ra"), "{before:?}");
    line(&world, "expose fd00:2::1/64");
    world.launch(0, &[]);
    assert_eq!(kept(), before);
    line(&world, "hide fd00:2::1/64");
    assert_eq!(kept(), before);
}

fn limited(world: &World, limit: &str, arguments: &str) -> Ran {
    let directory = world.host(0).directory().join("bin");
    let mut command = world.host(0).command("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-ec"]);
    if limit.is_empty() {
        command.arg("exec \"$@\"");
    } else if limit == "nft" {
        // Whatever it leads to: a device is no program.
        command.arg("mount --bind /dev/null $(command -v iptables); exec \"$@\"");
    } else {
        fs::create_dir_all(&directory).unwrap();
        for program in ["iptables-restore", "ip6tables-restore"] {
            let file = directory.join(program);
            let text = format!(
                "#!/bin/sh\nrules=$(cat)\ncase $rules in \\*raw*) echo \"can't initialize iptables table 'raw'\" >&2; exit 3;; esac\n\
                 printf '%s\\n' \"$rules\" | PATH=/usr/sbin:/sbin exec {program} \"$@\"\n"
            );
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        command.arg(format!("PATH={}:$PATH; export PATH; exec \"$@\"", directory.display()));
    }
    command.arg("sh").arg(weave()).args(arguments.split(' '));
    world.run(0, &mut command).ok()
}

/// Connections that host 0 tracks.
fn tracked(world: &World) -> Vec<String> {
    let table = world.on_host(0, || fs::read_to_string("/proc/thread-self/net/nf_conntrack").unwrap());
    table.lines().map(str::to_owned).collect()
}

/// The source under which a datagram of one container comes to another one.
fn source_seen(from: &Container, to: &Container, address: &str) -> String {
    let receiver = to.run(|| UdpSocket::bind((address, 0)).unwrap()).unwrap();
    receiver.set_read_timeout(Some(WITHIN)).unwrap();
    let target = receiver.local_addr().unwrap();
    // A connection that is translated once stays so: each has a port of its own.
    from.run(|| UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"x", target).unwrap()).unwrap();
    let (_, source) = receiver.recv_from(&mut [0; 8]).unwrap();
    source.ip().to_string()
}

/// Frames between containers of two networks of an exposed host, which the rules of IP see, and packets
/// that it routes between them.
fn only_what_is_routed_is_masqueraded(limit: &str) {
    let world = World::new(Options::encrypted().bare(1).containers(2).not_attached());
    let [from, to] = world.containers_of(0) else { panic!("two containers") };
    line(&world, &format!("attach 10.2.2.5/24 {}", from.spec()));
    line(&world, &format!("attach 10.2.1.7/24 {}", to.spec()));
    limited(&world, limit, "expose 10.2.1.101/24 10.2.2.101/24");
    for filtered in ["1", "0"] {
        let switch = || fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", filtered);
        // Without that module no rules of IP see frames.
        if world.on_host(0, switch).is_err() && filtered == "1" {
            continue;
        }
        world.tool_in(from, "ip route replace 10.2.1.0/24 dev ethwe");
        world.tool_in(to, "ip route replace 10.2.2.0/24 dev ethwe");
        assert_eq!(source_seen(from, to, "10.2.1.7"), "10.2.2.5", "bridge-nf-call-iptables {filtered}");
        world.tool_in(from, "ip route replace 10.2.1.0/24 via 10.2.2.101");
        world.tool_in(to, "ip route del 10.2.2.0/24");
        assert_eq!(source_seen(from, to, "10.2.1.7"), "10.2.1.101", "bridge-nf-call-iptables {filtered}");
    }
    limited(&world, limit, "reset");
}

#[test]
fn an_exposed_host_masquerades_no_frame_that_it_only_bridges() {
    only_what_is_routed_is_masqueraded("");
}

#[test]
fn a_host_with_nft_alone_masquerades_no_frame_that_it_only_bridges() {
    only_what_is_routed_is_masqueraded("nft");
}

/// Whether the kernel tracks the datagrams of the mesh on host 0, which is exposed by these rules.
fn tracks_mesh(limit: &str) -> (bool, String) {
    let world = World::new(Options::encrypted().args("--port 7001"));
    world.stop(0);
    limited(&world, limit, &format!("launch --port 7001 --password-file {}", password(&world)));
    world.wait_established();
    let ran = limited(&world, limit, "expose 10.32.1.253/24");
    world.wait_ping(0, v4(1).into(), WITHIN);
    let reached =
        world.on_host(0, || weave_perf::traffic::icmp::wait_reachable(v4(1).into(), WITHIN).unwrap());
    assert!(reached, "the host does not reach the network");
    let tracked = tracked(&world);
    assert!(tracked.iter().any(|line| line.contains("icmp")), "nothing is tracked: {tracked:#?}");
    limited(&world, limit, "hide 10.32.1.253/24");
    let left = world.tool(0, "nft list ruleset");
    assert!(!left.contains("notrack"), "{left}");
    (tracked.iter().any(|line| line.contains("udp") && line.contains("port=7001")), ran.stderr)
}

fn password(world: &World) -> String {
    world.host(0).directory().join("password").display().to_string()
}

#[test]
fn the_mesh_of_an_exposed_host_is_not_tracked_as_connections() {
    let (tracks, said) = tracks_mesh("");
    assert!(!tracks, "by iptables");
    assert!(!said.contains("mesh_tracked"), "{said}");
}

#[test]
fn the_mesh_of_a_host_with_nft_alone_is_not_tracked_either() {
    let (tracks, said) = tracks_mesh("nft");
    assert!(!tracks, "by nft");
    assert_eq!(said, "");
}

#[test]
fn a_host_whose_kernel_must_track_the_mesh_is_exposed_and_says_so() {
    let (tracks, said) = tracks_mesh("raw");
    assert!(tracks, "this tests nothing: no datagram of the mesh is tracked in any case");
    assert!(said.contains("mesh_tracked") && said.contains("table 'raw'"), "{said}");
}
