//! Containers that speak for others: never to a host, and with `--guard` not to containers either.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use weave_host::Netlink;
use weave_perf::lab::Container;
use weave_tests::lies::{self, Lie, Station};
use weave_tests::packets::{Capture, PacketSocket};
use weave_tests::world::{INTERFACE, Spot};
use weave_tests::{Options, World, wait_until};
use weave_wire::MacAddr;

const WITHIN: Duration = Duration::from_secs(15);
/// Time for a datagram to the next container.
const ANSWERS: Duration = Duration::from_millis(500);
/// Where settings of the network are.
const SETTINGS: &str = "/proc/sys/net";
const LIAR: Spot = Spot { host: 0, number: 0 };
const NEAR: Spot = Spot { host: 0, number: 1 };
const FAR: Spot = Spot { host: 1, number: 0 };

fn world(arguments: &str) -> World {
    World::new(Options::encrypted().args(arguments).containers(2))
}

fn station(world: &World, spot: Spot) -> Station {
    let mut netlink = Netlink::in_namespace(world.container_at(spot).namespace()).unwrap();
    let mac = netlink.expect_link(INTERFACE).unwrap().mac.unwrap();
    Station { mac, v4: spot.v4(), v6: spot.v6() }
}

/// Lines of `ip`.
fn show(line: &str) -> Vec<String> {
    let output = Command::new("ip").args(line.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {line}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::trim_end).map(str::to_owned).collect()
}

/// Addresses, routes and neighbours here, without what time changes of them.
fn network_of_this_thread() -> Vec<String> {
    let addresses = show("-o addr").into_iter().map(|line| line.replace(" tentative", ""));
    // Without the state of each.
    let neighbours = show("neigh show").into_iter();
    let neighbours =
        neighbours.map(|line| line.replace(" router", "").rsplit_once(' ').unwrap().0.to_owned());
    let routes = ["route show table all", "-6 route show table all"];
    addresses.chain(routes.into_iter().flat_map(show)).chain(neighbours).collect()
}

/// All settings of the network here, by their files.
fn add_settings_of_this_thread(directory: &Path, all: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            add_settings_of_this_thread(&path, all);
        } else if !path.display().to_string().contains("conntrack") {
            // Some can only be written.
            let value = fs::read_to_string(&path).unwrap_or_default();
            all.push(format!("{} = {}", path.display(), value.trim()));
        }
    }
}

/// All that a host must keep.
fn host(world: &World, index: usize) -> Vec<String> {
    world.on_host(index, || {
        let mut all = network_of_this_thread();
        all.extend(show("route get 198.51.100.1"));
        add_settings_of_this_thread(Path::new(SETTINGS), &mut all);
        all
    })
}

/// Lines that are new and lines that are gone.
fn changes(before: &[String], after: &[String]) -> Vec<String> {
    let new = after.iter().filter(|line| !before.contains(line)).map(|line| format!("+ {line}"));
    new.chain(before.iter().filter(|line| !after.contains(line)).map(|line| format!("- {line}"))).collect()
}

fn container(world: &World, spot: Spot) -> Vec<String> {
    world.container_at(spot).run(network_of_this_thread).unwrap()
}

/// A default route that an echo of the host would take.
fn add_default_routes(world: &World) {
    for index in [0, 1] {
        world.tool(index, &format!("ip route add default via {}", router(world, index)));
    }
}

/// By which each host sends: the other one.
fn router(world: &World, index: usize) -> Ipv4Addr {
    world.host(1 - index).v4()
}

/// All lies of the liar about hosts.
fn about_hosts(world: &World) -> Vec<Lie> {
    let liar = station(world, LIAR);
    [0, 1]
        .into_iter()
        .flat_map(|index| lies::of_networks(liar, world.host(index).v4(), router(world, index)))
        .collect()
}

fn tell(world: &World, lies: &[Lie]) {
    let liar = world.container_at(LIAR);
    let socket = liar.run(|| PacketSocket::open(INTERFACE)).unwrap();
    for lie in lies {
        socket.send(&lie.frame).unwrap();
    }
}

/// Waits until frames that the liar sends now arrive: those from before have arrived, or will not.
fn settle(world: &World, listeners: &[&Container]) {
    let liar = station(world, LIAR);
    let [sockets, sender] = [listeners, &[world.container_at(LIAR)]].map(|some| {
        some.iter().map(|one| one.run(|| PacketSocket::open(INTERFACE)).unwrap()).collect::<Vec<_>>()
    });
    for number in 1..=3 {
        let truth = lies::truth(liar.mac, number);
        sender[0].send(&truth).unwrap();
        for socket in &sockets {
            socket.receive_where(WITHIN, |frame| frame.bytes == truth).expect("no frame of the liar arrives");
        }
    }
}

/// Which of the lies are heard by the containers while they are told.
fn heard(world: &World, lies: &[Lie], listeners: &[&Container]) -> Vec<Vec<&'static str>> {
    let captures: Vec<Capture> =
        listeners.iter().map(|one| one.run(|| Capture::start(INTERFACE)).unwrap()).collect();
    tell(world, lies);
    settle(world, listeners);
    let heard = |capture: Capture| {
        let frames = capture.finish();
        let arrived = |lie: &&Lie| frames.iter().any(|frame| !frame.outgoing && frame.bytes == lie.frame);
        lies.iter().filter(arrived).map(|lie| lie.what).collect()
    };
    captures.into_iter().map(heard).collect()
}

/// Exposes both hosts; their addresses on the network.
fn expose(world: &World) -> [Station; 2] {
    [0, 1].map(|index| {
        let last = 253 + index;
        let (v4, v6) = (format!("10.32.1.{last}"), format!("fd32:0:0:1::{last:x}"));
        world.weave(index, &["expose", &format!("{v4}/24"), &format!("{v6}/64")]).ok();
        let mac =
            world.on_host(index, || Netlink::open().unwrap().expect_link("weave").unwrap().mac.unwrap());
        Station { mac, v4: v4.parse().unwrap(), v6: v6.parse().unwrap() }
    })
}

#[test]
fn what_a_container_says_changes_nothing_on_hosts() {
    let world = world("");
    add_default_routes(&world);
    let listeners = [NEAR, FAR].map(|spot| world.container_at(spot));
    let (liar, near) = (station(&world, LIAR), station(&world, NEAR));
    let mut lies = about_hosts(&world);
    lies.extend(lies::of_stations(liar, near));
    // Without an address of the network a host answers nobody there, not even who asks in its own name.
    let ask = |index: usize| Lie { what: "a question", frame: lies::question(liar, world.host(index).v4()) };
    lies.extend([ask(0), ask(1)]);
    let believer = container(&world, NEAR);
    // Addresses that hosts still probe come up by themselves.
    for index in [0, 1] {
        let probed = || world.tool(index, "ip -6 address show tentative");
        wait_until(WITHIN, || format!("host {index}: {}", probed()), || probed().is_empty());
    }
    let check = |how: &str, lies: &[Lie]| {
        let before = [0, 1].map(|index| host(&world, index));
        let heard = heard(&world, lies, &listeners);
        assert_eq!(heard[0].len(), lies.len(), "the lies are not told");
        for index in [0, 1] {
            let changed = changes(&before[index], &host(&world, index));
            assert_eq!(changed, Vec::<String>::new(), "host {index}, {how}");
        }
    };
    check("not exposed", &lies);
    let changed = changes(&believer, &container(&world, NEAR));
    assert!(
        changed.iter().any(|line| line.starts_with("+ default via fe80:")),
        "nobody believes: {changed:#?}"
    );
    let exposed = expose(&world);
    // Who has no neighbour believes nothing of it: these have all, containers and the other host.
    let all = [LIAR, NEAR, FAR].map(|spot| station(&world, spot));
    for index in [0, 1] {
        for known in all.into_iter().chain([exposed[1 - index]]) {
            await_neighbour(&world, index, known.v4.into(), Some(known.mac));
            await_neighbour(&world, index, known.v6.into(), Some(known.mac));
        }
    }
    let of = |victim: &Station| lies::of_stations(liar, *victim);
    lies.extend(all[1..].iter().chain(&exposed).flat_map(of));
    check("exposed", &lies);
    for index in [0, 1] {
        for known in &all {
            assert!(reaches(&world, index, known.v4.into(), WITHIN), "host {index}, {known:?}");
            assert!(reaches(&world, index, known.v6.into(), WITHIN), "host {index}, {known:?}");
        }
    }
}

/// Whether a host itself gets an answer from `address`.
fn reaches(world: &World, index: usize, address: IpAddr, limit: Duration) -> bool {
    world.on_host(index, || weave_perf::traffic::icmp::wait_reachable(address, limit)).unwrap()
}

/// Waits until a host reaches `address` at this station, whoever says otherwise; at any that answers
/// for `None`.
fn await_neighbour(world: &World, index: usize, address: IpAddr, mac: Option<MacAddr>) {
    let all = || world.tool(index, "ip neigh show dev weave nud permanent");
    let entry = mac.map(|mac| format!("{address} lladdr {mac} "));
    let is_so = |all: String| match &entry {
        Some(entry) => all.lines().any(|line| format!("{line} ").starts_with(entry)),
        None => all.lines().all(|line| !line.starts_with(&format!("{address} "))),
    };
    wait_until(WITHIN, || format!("host {index}, {address} at {mac:?}: {}", all()), || is_so(all()));
}

#[test]
fn an_exposed_host_follows_an_address_that_moves_and_forgets_it_when_it_is_hidden() {
    const MOVES: &str = "10.32.1.77";
    const WITHIN_A_SECOND: Duration = Duration::from_secs(1);
    let world = world("");
    expose(&world);
    let cidr = format!("{MOVES}/24");
    let spots = [FAR, NEAR, LIAR];
    for (turn, spot) in spots.into_iter().enumerate() {
        let spec = world.container_at(spot).spec();
        if turn > 0 {
            let before = spots[turn - 1];
            world.weave(before.host, &["detach", &cidr, world.container_at(before).spec()]).ok();
        }
        world.weave(spot.host, &["attach", &cidr, spec]).ok();
        let attached = Instant::now();
        for index in [0, 1] {
            let left = WITHIN_A_SECOND.saturating_sub(attached.elapsed());
            assert!(reaches(&world, index, MOVES.parse().unwrap(), left), "host {index}, {spot:?}");
        }
        let mac = station(&world, spot).mac;
        (0..2).for_each(|index| await_neighbour(&world, index, MOVES.parse().unwrap(), Some(mac)));
    }
    let (others, by_hand) = ("10.32.1.200", MacAddr([2, 0, 0, 0, 0, 9]));
    world.tool(0, &format!("ip neigh add {others} lladdr {by_hand} dev weave nud permanent"));
    world.weave(LIAR.host, &["detach", &cidr, world.container_at(LIAR).spec()]).ok();
    (0..2).for_each(|index| await_neighbour(&world, index, MOVES.parse().unwrap(), None));
    // One that stays attached, and one that the keeper has not set.
    let near = station(&world, NEAR);
    await_neighbour(&world, 0, near.v4.into(), Some(near.mac));
    await_neighbour(&world, 0, others.parse().unwrap(), Some(by_hand));
    world.weave(0, &["hide", "10.32.1.253/24"]).ok();
    await_neighbour(&world, 0, near.v4.into(), None);
    await_neighbour(&world, 0, near.v6.into(), Some(near.mac));
}

#[test]
fn with_guard_what_a_container_says_of_others_reaches_nobody() {
    let world = world("--guard");
    add_default_routes(&world);
    let exposed = expose(&world);
    let others = [NEAR, FAR, Spot { host: 1, number: 1 }];
    let listeners = others.map(|spot| world.container_at(spot));
    let liar = station(&world, LIAR);
    // All know each other: who has no neighbour believes nothing of it.
    let greet = || {
        for spot in others {
            world.wait_ping(0, spot.v4().into(), WITHIN);
            world.wait_ping(0, spot.v6().into(), WITHIN);
        }
        for index in [0, 1] {
            world.wait_ping(1, exposed[index].v4.into(), WITHIN);
            world.wait_ping(1, exposed[index].v6.into(), WITHIN);
        }
        world.wait_ping(1, NEAR.v4().into(), WITHIN);
        world.wait_ping(1, NEAR.v6().into(), WITHIN);
    };
    greet();
    for container in listeners {
        let is_tentative =
            || container.run(|| show("-o addr show tentative")).unwrap() != Vec::<String>::new();
        wait_until(WITHIN, || "addresses are tentative".into(), || !is_tentative());
    }
    let mut lies = about_hosts(&world);
    lies.extend(others.into_iter().flat_map(|spot| lies::of_stations(liar, station(&world, spot))));
    lies.extend(exposed.into_iter().flat_map(|host| lies::of_stations(liar, host)));
    let hosts = [0, 1].map(|index| host(&world, index));
    let containers = others.map(|spot| container(&world, spot));
    let heard = heard(&world, &lies, &listeners);
    assert_eq!(heard, [const { Vec::<&str>::new() }; 3]);
    for index in [0, 1] {
        assert_eq!(changes(&hosts[index], &host(&world, index)), Vec::<String>::new(), "host {index}");
    }
    for (before, spot) in containers.iter().zip(others) {
        assert_eq!(changes(before, &container(&world, spot)), Vec::<String>::new(), "{spot:?}");
    }
    greet();
}

/// The guard of a host as the kernel has it, without what it counts.
fn rules(world: &World, index: usize) -> String {
    world.run(index, world.host(index).command("nft").args(["-s", "list", "table", "bridge", "weave"])).stdout
}

/// What the kernel counted as dropped by the guard of host 0.
fn dropped(world: &World) -> u64 {
    let text = world.tool(0, "nft list counter bridge weave dropped");
    text.split_whitespace().skip_while(|word| *word != "packets").nth(1).unwrap().parse().unwrap()
}

/// What the router of host 0 says of its guard.
fn told(world: &World) -> Option<u64> {
    Some(world.status(0).keeper?.guard?.dropped)
}

#[test]
fn the_guard_follows_attachments_and_goes_with_them() {
    let world = World::new(Options::encrypted().bare(1).containers(2).not_attached());
    world.launch(0, &["--guard"]);
    let weave = |line: &str, number: usize| {
        let spec = world.container_at(Spot { host: 0, number }).spec();
        let words: Vec<&str> = line.split(' ').chain([spec]).collect();
        world.weave(0, &words).ok();
    };
    let empty = rules(&world, 0);
    assert!(empty.contains("chain guard") && !empty.contains("ether saddr"), "{empty}");
    weave("attach 10.2.1.1/24 10.2.2.1/24", 0);
    weave("attach 10.2.1.2/24 fd00:2::2/64", 1);
    let both = rules(&world, 0);
    assert!(both.contains("{ 0.0.0.0, 10.2.1.1, 10.2.2.1 }") && both.contains("fd00:2::2"), "{both}");
    // An address that nobody attached is none of its own, nor one that was detached.
    world.tool_in(world.container_at(LIAR), "ip addr add 10.2.1.9/24 dev ethwe");
    let liar = world.container_at(LIAR);
    let heard = world.container_at(NEAR).run(|| UdpSocket::bind("10.2.1.2:7").unwrap()).unwrap();
    heard.set_read_timeout(Some(ANSWERS)).unwrap();
    let by = |source: &str| {
        liar.run(|| UdpSocket::bind((source, 0)).unwrap().send_to(b"hello", "10.2.1.2:7").unwrap()).unwrap();
        heard.recv(&mut [0; 8]).is_ok()
    };
    assert!(by("10.2.1.1"));
    assert!(!by("10.2.1.9"), "an address that nobody attached");
    let counted = dropped(&world);
    assert!(counted > 0);
    weave("detach 10.2.1.1/24", 0);
    assert!(dropped(&world) >= counted, "with other rules it counts on");
    let tells = || told(&world).is_some_and(|told| told >= counted);
    // The keeper looks when rules change, the router every 5 s.
    wait_until(WITHIN, || format!("{counted} dropped, told {:?}", told(&world)), tells);
    let status = world.weave(0, &["status"]).ok().stdout;
    assert!(status.lines().any(|line| line.contains("Guard: enabled (")), "{status}");
    world.tool_in(liar, "ip addr add 10.2.1.1/24 dev ethwe");
    assert!(!by("10.2.1.1"), "an address that was detached");
    // Put back, whoever takes it.
    let before = rules(&world, 0);
    let harms = [
        "delete table bridge weave",
        "flush ruleset",
        "flush chain bridge weave guard",
        "add set bridge weave foreign { type ether_addr; }",
        "add chain bridge weave foreign",
        // Without the whole table the chain cannot go.
        "add chain bridge weave foreign ; add map bridge weave led { type iface_index : verdict ; elements = { 1 : \
         goto foreign } ; }",
    ];
    for harm in harms {
        world.tool(0, &format!("nft {harm}"));
        wait_until(WITHIN, || format!("after {harm}: {}", rules(&world, 0)), || rules(&world, 0) == before);
    }
    // Without a router too; and a crash of the keeper takes nothing.
    world.stop(0);
    world.tool(0, "nft delete table bridge weave");
    wait_until(WITHIN, || "gone with the router".into(), || rules(&world, 0) == before);
    weave("detach 10.2.1.1/24 10.2.1.9/24 10.2.2.1/24", 0);
    weave("detach 10.2.1.2/24 fd00:2::2/64", 1);
    assert_eq!(rules(&world, 0), empty);
    weave("attach 10.2.1.1/24", 0);
    // A launch without it takes it away, as does a reset.
    world.launch(0, &[]);
    assert_eq!(rules(&world, 0), "");
    let off = || world.status(0).keeper.is_some_and(|keeper| keeper.guard.is_none());
    wait_until(WITHIN, || format!("told {:?}", world.status(0).keeper), off);
    world.stop(0);
    world.launch(0, &["--guard"]);
    assert_ne!(rules(&world, 0), "");
    world.weave(0, &["reset"]).ok();
    assert_eq!(rules(&world, 0), "");
}

#[test]
fn a_host_that_cannot_guard_says_so_and_launches_nothing() {
    let world = World::new(Options::encrypted().bare(1));
    let fake = world.host(0).directory().join("nft");
    let refusing = "#!/bin/sh\necho 'Error: Could not process rule: Operation not supported' >&2\nexit 1\n";
    fs::write(&fake, refusing).unwrap();
    fs::set_permissions(&fake, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for (nft, said) in [
        (Path::new("/dev/null"), "nft is not installed; install nftables, or launch without --guard"),
        (&fake, "no rules for bridges"),
    ] {
        let mut command = world.host(0).command("unshare");
        let line = "mount --bind \"$0\" $(command -v nft) && exec \"$@\"";
        command.args(["--mount", "--propagation", "private", "sh", "-c", line]).arg(nft);
        command.arg(weave_tests::world::weave()).args(["launch", "--guard"]);
        let ran = world.run(0, &mut command);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(
            ran.stderr.contains("cannot launch: guard the containers") && ran.stderr.contains(said),
            "{ran:?}"
        );
        assert!(world.try_status(0).is_err(), "a router runs");
        let links = world.tool(0, "ip -br link");
        assert!(!links.contains("weave"), "{links}");
    }
}
