//! The rules of the host's firewall: they let the network through beside those of the engine, come
//! back when they are flushed, and go with `hide` and `reset`.

use weave_tests::engines::{Inside, SOON};
use weave_tests::{Engines, wait_until};

/// A host with an exposed address and a container on it, and one that reaches both by masquerading.
fn exposed() -> (Engines, Inside) {
    let hosts = Engines::new(1, 1);
    hosts.launch();
    let container = hosts.weave_run(0, "10.2.1.1/24 --stop-timeout 1");
    hosts.ok(0, "weave expose 10.2.1.101/24");
    (hosts, container)
}

/// All rules of a host, without counters and without what a table has when nobody uses it.
fn rules(hosts: &Engines) -> String {
    let saved = hosts.ok(0, "iptables-save; ip6tables-save");
    let is_empty =
        |line: &str| line.starts_with(['#', '*']) || line == "COMMIT" || line.contains(" ACCEPT [");
    let lines = saved.lines().filter(|line| !is_empty(line));
    let without_counters = |line: &str| line.split(" [").next().unwrap().to_owned();
    lines.map(without_counters).collect::<Vec<_>>().join("\n")
}

/// Those of ours.
fn ours(hosts: &Engines) -> Vec<String> {
    rules(hosts).lines().filter(|line| line.contains("WEAVE")).map(str::to_owned).collect()
}

#[track_caller]
fn wait_back(hosts: &Engines, before: &[String], what: &str) {
    wait_until(
        SOON,
        || format!("rules after {what}: {}\nbefore: {before:#?}", rules(hosts)),
        || ours(hosts) == before,
    );
}

#[test]
fn rules_are_put_back_after_every_kind_of_flush() {
    let (mut hosts, container) = exposed();
    let before = ours(&hosts);
    assert!(before.iter().any(|rule| rule.contains("MASQUERADE")), "{before:#?}");
    for flush in [
        "iptables -F; iptables -t nat -F",
        "iptables -F; iptables -X; iptables -t nat -F; iptables -t nat -X",
        "iptables -D DOCKER-USER -j WEAVE-FORWARD",
        "nft flush ruleset",
    ] {
        hosts.sh(0, flush);
        // Where the engine's chains are gone, ours are led to from the kernel's own.
        let kept = |line: &&String| !line.starts_with("-A DOCKER-USER") && !line.starts_with("-A FORWARD");
        let wanted: Vec<&String> = before.iter().filter(kept).collect();
        wait_until(
            SOON,
            || format!("rules after {flush}: {:#?}\nbefore: {before:#?}", ours(&hosts)),
            || {
                let now = ours(&hosts);
                let leads = now.iter().filter(|line| line.ends_with("-j WEAVE-FORWARD")).count();
                leads == 2 && now.iter().filter(kept).collect::<Vec<_>>() == wanted
            },
        );
    }
    // The engine puts its own chains in front when it starts again.
    hosts.kill_engine(0);
    hosts.start_engine(0);
    wait_back(&hosts, &before, "a restart of the engine");
    hosts.ok(0, &format!("docker start {}", container.id));
    hosts.wait_attached(&container, &["10.2.1.1/24"]);
    hosts.wait_reaches(&container, "10.2.1.101", SOON);
}

#[test]
fn rules_are_never_doubled_by_crashes() {
    let (hosts, _container) = exposed();
    let before = rules(&hosts);
    for round in 0..3 {
        hosts.kill_keeper(0);
        hosts.kill_router(0);
        hosts.ok(0, "weave launch");
        hosts.ok(0, "weave expose 10.2.1.101/24");
        assert_eq!(rules(&hosts), before, "round {round}");
    }
}

#[test]
fn rules_of_before_are_what_is_left_after_hide_and_reset() {
    let hosts = Engines::new(1, 1);
    let traces = || {
        let links = hosts.ok(0, "ip -br link | cut -d' ' -f1; ip -br -4 addr | awk '{print $1, $3}'");
        (rules(&hosts), links, hosts.ok(0, "nft list ruleset | grep -ci weave || true"))
    };
    let before = traces();
    hosts.launch();
    let launched = rules(&hosts);
    hosts.ok(0, "weave expose 10.2.1.101/24 10.2.2.101/24 fd00:2::101/64");
    let container = hosts.weave_run(0, "10.2.1.1/24");
    assert_ne!(rules(&hosts), launched);
    hosts.ok(0, "weave hide 10.2.1.101/24 10.2.2.101/24 fd00:2::101/64");
    assert_eq!(rules(&hosts), launched, "what hide leaves is what launch made");
    hosts.ok(0, "weave expose 10.2.1.101/24");
    hosts.ok(0, "weave reset");
    assert_eq!(hosts.addresses(&container), Vec::<String>::new());
    hosts.ok(0, &format!("docker rm -f {}", container.id));
    assert_eq!(traces(), before);
    let host = hosts.world().host(0);
    assert!(!host.state_dir().exists(), "the state stays");
    assert!(!host.run_dir().exists(), "the run directory stays");
}

#[test]
fn containers_of_the_engines_bridge_do_not_reach_the_network() {
    let (hosts, container) = exposed();
    let plain = hosts.docker_run(0, "");
    assert!(!hosts.reaches(&plain, "10.2.1.1"), "through the bridge of the engine");
    hosts.wait_reaches(&container, "10.2.1.101", SOON);
    // Nor do those of a network of users; who is asked there answers.
    let id = hosts.ok(0, "docker network create users");
    let leads = format!("-A WEAVE-FORWARD -i br-{} -o weave ", &id[..12]);
    wait_until(
        SOON,
        || format!("{:#?}", ours(&hosts)),
        || ours(&hosts).iter().any(|rule| rule.starts_with(&leads)),
    );
    let user = hosts.docker_run(0, "--net users --name user");
    assert!(!hosts.reaches(&user, "10.2.1.1"), "through a bridge of users");
    let address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let address = hosts.ok(0, &format!("docker inspect -f '{address}' user"));
    hosts.ok(0, "iptables -I DOCKER-USER 2 -i weave -j ACCEPT");
    let through = "nsenter -n -t $(docker inspect -f '{{.State.Pid}}' ID)".replace("ID", &container.id);
    hosts.ok(0, &format!("{through} ip route add {address} via 10.2.1.101 dev ethwe"));
    assert!(hosts.reaches(&container, &address), "what the network asks there is not answered");
    // Nor do they open a connection to the router.
    let address = hosts.ok(0, "ip -4 -o addr show docker0").split_whitespace().nth(3).unwrap().to_owned();
    let gateway = address.split('/').next().unwrap();
    let ran = hosts.inside(&plain, &format!("nc -z -w 1 {gateway} 6783"));
    assert_ne!(ran.code, Some(0), "the port of the mesh is open to containers");
    assert_eq!(hosts.inside(&plain, &format!("nc -z -w 1 {gateway} 2375")).code, Some(0), "others are");
}

/// As Compose makes one for each project.
#[test]
fn the_port_of_the_mesh_is_closed_to_networks_of_users_as_long_as_they_are_there() {
    let hosts = Engines::new(1, 0);
    hosts.launch();
    let before = ours(&hosts);
    let id = hosts.ok(0, "docker network create users");
    let bridge = format!("br-{}", &id[..12]);
    let closes =
        |rule: &String| rule.contains(&format!("-A WEAVE-INPUT -i {bridge} ")) && rule.ends_with("-j DROP");
    let all = || format!("{:#?}", ours(&hosts));
    // Twice two: two protocols of two families.
    wait_until(SOON, all, || ours(&hosts).iter().filter(|rule| closes(rule)).count() == 4);
    let plain = hosts.docker_run(0, "--net users --name user");
    let gateway =
        hosts.ok(0, "docker inspect -f '{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}' user");
    assert_ne!(hosts.inside(&plain, &format!("nc -z -w 1 {gateway} 6783")).code, Some(0));
    assert_eq!(hosts.inside(&plain, &format!("nc -z -w 1 {gateway} 2375")).code, Some(0), "others are open");
    hosts.ok(0, "docker rm -f user && docker network rm users");
    wait_back(&hosts, &before, "the network went");
    let status = hosts.ok(0, "weave status -o json");
    assert!(status.contains("\"rules\": 0"), "that is no repair: {status}");
}

#[test]
fn a_host_that_drops_what_it_forwards_forwards_for_the_network() {
    let (hosts, _container) = exposed();
    hosts.ok(0, "iptables -P FORWARD DROP");
    assert!(hosts.ok(0, "iptables -S FORWARD").contains("-P FORWARD DROP"));
    hosts.ok(1, "ip route add 10.2.1.0/24 via $HOST1");
    // With frames between ports of the bridge shown to the rules of IP, and without.
    let second = hosts.weave_run(0, "10.2.1.2/24");
    for filtered in ["1", "0"] {
        for family in ["ip", "ip6"] {
            hosts.ok(0, &format!("echo {filtered} >/proc/sys/net/bridge/bridge-nf-call-{family}tables"));
        }
        assert!(hosts.reaches(&second, "10.2.1.1"), "bridge-nf-call-iptables {filtered}");
        assert!(hosts.reaches(&second, "10.2.1.101"), "bridge-nf-call-iptables {filtered}");
        // From outside, through the host; the answer is masqueraded as the recipe of service export needs.
        hosts.ok(1, "ping -c 1 -W 2 -q 10.2.1.1");
    }
    // What belongs to no exposed network stays dropped.
    hosts.weave_run(0, "10.2.9.1/24");
    hosts.ok(1, "ip route add 10.2.9.0/24 via $HOST1");
    hosts.ok(0, "ip route add 10.2.9.0/24 dev weave");
    assert_ne!(hosts.sh(1, "ping -c 1 -W 1 -q 10.2.9.1").code, Some(0));
}

#[test]
fn without_masquerade_containers_see_who_asks_and_need_a_route_to_him() {
    let (hosts, _container) = exposed();
    hosts.weave_run(0, "10.2.1.7/24 --net none --name quiet");
    hosts.ok(1, "ip route add 10.2.1.0/24 via $HOST1");
    let reaches = || hosts.sh(1, "ping -c 1 -W 1 -q 10.2.1.7").code == Some(0);
    assert!(reaches());
    hosts.ok(0, "weave expose --without-masquerade 10.2.1.101/24");
    assert!(!reaches(), "the container has no way back");
    let inside = "nsenter -n -t $(docker inspect -f '{{.State.Pid}}' quiet)";
    hosts.ok(0, &format!("{inside} ip route add default via 10.2.1.101"));
    assert!(reaches());
    hosts.ok(0, &format!("{inside} ip route del default"));
    hosts.ok(0, "weave expose 10.2.1.101/24");
    assert!(reaches());
}

#[test]
fn an_engine_that_starts_after_the_launch_does_not_open_the_network_to_its_bridge() {
    let mut hosts = Engines::new(1, 1);
    hosts.kill_engine(0);
    hosts.ok(0, "nft flush ruleset");
    hosts.launch();
    assert!(ours(&hosts).contains(&"-A FORWARD -j WEAVE-FORWARD".to_owned()), "{:#?}", ours(&hosts));
    hosts.start_engine(0);
    wait_until(
        SOON,
        || format!("{:#?}", ours(&hosts)),
        || {
            let now = ours(&hosts);
            let leads: Vec<&String> = now.iter().filter(|rule| rule.ends_with("-j WEAVE-FORWARD")).collect();
            // The engine has no rules for IPv6 here.
            leads == ["-A DOCKER-USER -j WEAVE-FORWARD", "-A FORWARD -j WEAVE-FORWARD"]
        },
    );
    let container = hosts.weave_run(0, "10.2.1.1/24");
    hosts.ok(0, "weave expose 10.2.1.101/24");
    let plain = hosts.docker_run(0, "");
    assert!(!hosts.reaches(&plain, "10.2.1.1"));
    hosts.wait_reaches(&container, "10.2.1.101", SOON);
}
