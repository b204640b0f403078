//! A real Prometheus: metrics, rules, alerts and the queries of the dashboards.

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use weave_tests::member::Member;
use weave_tests::prometheus::{Prometheus, dashboards, promtool};
use weave_tests::world::LINK_WITHIN;
use weave_tests::{Options, Pings, World, wait_until};
use weave_wire::PeerName;

use super::hostile_member::invent;

/// What the routers have for Prometheus to reach them.
const EVERYWHERE: (&str, &str) = ("WEAVE_STATUS_ADDR", ":6782");
/// What a router takes for so many invented hosts at least, bytes.
const MORE_MEMORY: u64 = 8 << 20;
const INVENTED: u32 = 10_000;
/// Results that come and go are waited for this long.
const RESULT_WITHIN: Duration = Duration::from_secs(10);

fn read(path: &str) -> String {
    fs::read_to_string(dashboards().join(path)).unwrap()
}

/// Replaces the numbers before `m` that follow `before`: minutes of a production network by seconds.
fn shorten(rules: &str, before: &str, by: &str) -> String {
    let mut parts = rules.split(before);
    let mut short = parts.next().unwrap().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix('m').unwrap();
        short += &format!("{before}{by}{rest}");
    }
    short
}

/// The alerts with short times and thresholds that a test can reach.
fn quick_alerts(memory: &str) -> String {
    let quick = shorten(&shorten(&read("prometheus/alerts.yml"), "for: ", "0s"), "[", "3s");
    let (memory_before, age_before, failures_before) = ("160 * 1024 * 1024", "> 150", "[3s]) > 5");
    for threshold in [memory_before, age_before, failures_before] {
        assert!(quick.contains(threshold), "{threshold}: {quick}");
    }
    quick.replace(memory_before, memory).replace(age_before, "> 3").replace(failures_before, "[3s]) > 0")
}

#[test]
fn promtool_finds_no_fault_in_rules_and_metrics() {
    let rules = dashboards().join("prometheus");
    promtool(&["check", "rules", "alerts.yml", "recording.yml"], &rules, None);
    promtool(&["test", "rules", "tests.yml"], &rules, None);

    let world = World::pair(Options::encrypted());
    world.weave(0, &["status"]).ok();
    let answer = world.get(0, "/metrics");
    assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let file = world.host(0).directory().join("metrics.txt");
    // The original's name, which boards ask for, is not what one would call a gauge.
    let ours = answer.body.lines().filter(|line| !line.contains("weave_ipam_unreachable_count"));
    fs::write(&file, ours.map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    promtool(&["check", "metrics"], &rules, Some(&file));
    let has = |line: &str| assert!(answer.body.contains(line), "{line}: {}", answer.body);
    has("\nweave_connections{state=\"established\",type=\"udp\",encryption=\"yes\"} 1\n");
    has("\nweave_control_requests_total{request=\"status\"} ");
    has("\nweave_peers 2\n");
    has("\n# TYPE weave_frame_processing_seconds histogram\n");
}

/// Each alert has a section in the runbook, a unit test, and words for people.
#[test]
fn every_alert_is_explained_and_tested() {
    let (alerts, tests) = (read("prometheus/alerts.yml"), read("prometheus/tests.yml"));
    let runbook = read("../docs/runbook.md");
    let names: Vec<&str> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert_eq!(names.len(), 14);
    for name in &names {
        assert!(runbook.contains(&format!("\n## {name}\n")), "{name} has no section in the runbook");
        let url = format!("runbook_url: docs/runbook.md#{}\n", name.to_lowercase());
        assert!(alerts.contains(&url), "{url}");
        assert!(tests.contains(&format!("alertname: {name}\n")), "{name} has no unit test");
    }
}

/// What boards and rules made for the original ask for: Grafana's 11789 and 11804 with the rules beside
/// them in kube-prometheus (its folder `addons/weave-net`), and others of that time. Left out is what is
/// asked of Kubernetes.
const OF_THE_ORIGINAL: [&str; 19] = [
    "weave_connections",
    "sum(weave_connections) by (instance)",
    "sum by (instance, type, encryption) (weave_connections{state=\"established\"})",
    "sum(weave_connections{type=\"udp\"}) by (state, encryption)",
    "rate(weave_connection_terminations_total[$__rate_interval])",
    "rate(weave_connection_terminations_total[5m]) > 0.1",
    "increase(weave_connection_terminations_total{instance=\"$instance\"}[1m])",
    "sum(increase(weave_connection_terminations_total[1m]))",
    "sum without(instance) (rate(weave_connection_terminations_total[$__rate_interval]))",
    "sum(weave_dns_entries) by (instance)",
    "sum(weave_flows)",
    "sum(weave_flows == bool 0)",
    "sort_desc(label_replace(weave_flows{instance=\"$instance\"}, \"node_ip\", \"$1\", \"instance\", \"(.*):.*\"))",
    "max(weave_ipam_unreachable_percentage) - min(weave_ipam_unreachable_percentage)",
    "weave_ipam_unreachable_count{instance=\"$instance\"}",
    "sum(weave_ipam_pending_allocates{instance=\"$instance\"})",
    "sum(weave_ipam_pending_claims{instance=\"$instance\"})",
    "sort(weave_max_ips{instance=\"$instance\"})",
    "process_resident_memory_bytes{job=\"$job\"}",
];

/// What they ask for by the state of connections.
fn by_state_of_the_original() -> impl Iterator<Item = String> {
    ["established", "connecting", "retrying", "pending", "failed"].into_iter().flat_map(|state| {
        [
            format!("sum(weave_connections{{state=\"{state}\"}})"),
            format!("sort_desc(weave_connections{{instance=\"$instance\", state=\"{state}\"}})"),
        ]
    })
}

/// Families that have values only while something works in a slower way.
const STATES: [&str; 2] = ["weave_degraded", "weave_link_degraded"];

/// Queries of all dashboards, as they are written there.
fn queries() -> Vec<String> {
    let mut queries = Vec::new();
    for entry in fs::read_dir(dashboards().join("grafana")).unwrap() {
        let path = entry.unwrap().path();
        let is_dashboard = |path: &Path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name.ends_with(".json") && !name.starts_with("package") && name != "tsconfig.json"
        };
        if !is_dashboard(&path) {
            continue;
        }
        let board: serde_json::Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        for panel in board["panels"].as_array().unwrap() {
            let targets = panel["targets"].as_array().unwrap().iter();
            queries.extend(targets.map(|target| target["expr"].as_str().unwrap().to_owned()));
        }
    }
    queries
}

/// A list of what is wrong without its comparison, by which nothing is the right result.
fn without_comparison(query: &str) -> Option<&str> {
    [">", "=="].iter().find_map(|than| {
        let (all, limit) = query.rsplit_once(than)?;
        limit.trim().parse::<f64>().is_ok().then(|| all.trim())
    })
}

#[test]
fn every_query_has_a_result_with_two_routers_and_traffic() {
    let (name, value) = EVERYWHERE;
    let world = World::pair(Options::encrypted().env(name, value));
    world.weave(0, &["launch-dns", "10.2.0.1/24"]).ok();
    let pings = Pings::between(&world, 0, weave_tests::world::v4(1).into());
    let recording = read("prometheus/recording.yml");
    let prometheus = Prometheus::start(&world, 0, &[0, 1], &recording);

    let all = queries();
    assert!(all.len() > 60, "{} queries", all.len());
    let peer = prometheus.query("weave_link_up{instance=\"host0\"}").unwrap();
    let peer = peer[0]["metric"]["nickname"].as_str().unwrap().to_owned();
    let rules = recording.lines().filter_map(|line| line.trim().strip_prefix("- record: "));
    let originals = OF_THE_ORIGINAL.iter().map(|query| (*query).to_owned()).chain(by_state_of_the_original());
    // The second board lists its hosts by these.
    let hosts = prometheus.query("weave_ipam_unreachable_percentage").unwrap();
    let hosts: Vec<_> = hosts.iter().map(|one| one["metric"]["instance"].as_str().unwrap()).collect();
    assert_eq!(hosts, ["host0", "host1"]);
    for query in all.into_iter().chain(rules.map(str::to_owned)).chain(originals) {
        let filled = query
            .replace("$__rate_interval", "5s")
            .replace("$job", "weave")
            .replace("$instance", "host0")
            .replace("$peer", &peer);
        prometheus.query(&filled).unwrap_or_else(|error| panic!("{query}: {error}"));
        // What is counted where something is wrong is counted as well where nothing is, unless it is a state.
        let asked = without_comparison(&filled).unwrap_or(&filled);
        if STATES.iter().any(|state| asked.starts_with(state)) {
            continue;
        }
        // A rate needs two scrapes.
        let no_result = || format!("no result: {asked}");
        wait_until(RESULT_WITHIN, no_result, || {
            prometheus.query(asked).is_ok_and(|result| !result.is_empty())
        });
    }
    let agree = "count(count_values(\"digest\", weave_topology_digest))";
    wait_until(
        RESULT_WITHIN,
        || "both hosts see one network".into(),
        || prometheus.try_value(agree).as_deref() == Some("1"),
    );
    let _ = pings.finish();
    // Lanes carry what links carry, once nothing is under way.
    for direction in ["in", "out"] {
        let of = |what: &str| {
            format!("sum(weave_{what}_frames_total{{instance=\"host0\",direction=\"{direction}\"}})")
        };
        let (lanes, links) = (of("lane"), of("link"));
        wait_until(
            RESULT_WITHIN,
            || {
                format!(
                    "{:?} frames by lanes, {:?} by links",
                    prometheus.query(&lanes),
                    prometheus.query(&links)
                )
            },
            || {
                let carried = prometheus.try_value(&lanes);
                carried.as_ref().is_some_and(|value| value != "0") && carried == prometheus.try_value(&links)
            },
        );
    }
}

/// One alert after the other: what it is for is done to the routers, and undone.
#[test]
fn long_each_alert_fires_and_clears() {
    let (name, value) = EVERYWHERE;
    let options = Options::encrypted().count(4).not_launched().env(name, value);
    let mut world = World::new(options.env("WEAVE_TEST_REKEY_MS", "500"));
    world.launch(0, &[]);
    world.launch(1, &["--mtu", "1300", "--offload", "no-uso", &world.underlay(0).to_string()]);
    world.options_mut().hosts[2].password = Some("quite another password".into());
    world.wait_linked(0, 1, LINK_WITHIN);
    world.weave(0, &["launch-dns", "10.2.0.1/24"]).ok();
    let world = &world;
    let plenty = "64 * 1024 * 1024 * 1024";
    let prometheus = Prometheus::start(world, 0, &[0, 1], &quick_alerts(plenty));

    prometheus.wait_fires("WeaveLinkDegraded", "host1");
    prometheus.wait_fires("WeaveRouterDegraded", "host1");
    for alert in [
        "WeaveRouterDown",
        "WeaveLinkDown",
        "WeaveRelayed",
        "WeaveContainersCut",
        "WeaveGossipDivergence",
        "WeaveDnsDown",
        "WeaveMemory",
    ] {
        assert_eq!(prometheus.firing(alert), Vec::<String>::new(), "{alert} before anything is wrong");
    }
    world.stop(1);
    prometheus.wait_fires("WeaveRouterDown", "host1");
    world.launch_to(1, &[0]);
    world.wait_linked(0, 1, LINK_WITHIN);
    prometheus.wait_fires("WeaveRouterRestarted", "host1");
    for alert in ["WeaveRouterDown", "WeaveLinkDegraded", "WeaveRouterDegraded", "WeaveRouterRestarted"] {
        prometheus.wait_clears(alert);
    }

    world.kill(0);
    prometheus.wait_fires("WeaveLinkDown", "host1");
    prometheus.wait_fires("WeavePeerUnreachable", "host1");
    world.launch(0, &[]);
    world.wait_linked(0, 1, LINK_WITHIN);
    prometheus.wait_clears("WeaveLinkDown");
    prometheus.wait_clears("WeavePeerUnreachable");

    // TCP carries what keys are agreed by; without UDP too each host is alone.
    world.tool(0, "iptables -I INPUT -p tcp --dport 6783 -j DROP");
    world.tool(0, "iptables -I INPUT -p tcp --sport 6783 -j DROP");
    prometheus.wait_fires("WeaveRekeyFailing", "host0");
    world.tool(0, "iptables -I INPUT -p udp -i eth0 -j DROP");
    prometheus.wait_fires("WeaveGossipDivergence", "all");
    world.tool(0, "iptables -F INPUT");
    world.weave(1, &["connect", &world.underlay(0).to_string()]).ok();
    world.wait_linked(0, 1, LINK_WITHIN);
    prometheus.wait_clears("WeaveRekeyFailing");
    prometheus.wait_clears("WeaveGossipDivergence");

    // Datagrams that are none of this protocol, faster than the threshold.
    let to = world.host(0).v4();
    let shout = || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        (0..50).for_each(|_| _ = socket.send_to(&[0; 64], (to, 6783)));
    };
    wait_until(
        RESULT_WITHIN,
        || "WeaveDrops fires".into(),
        || {
            world.on_host(1, shout);
            prometheus.firing("WeaveDrops").iter().any(|one| one == "host0")
        },
    );
    prometheus.wait_clears("WeaveDrops");

    let process = |file: &str| {
        let pid = fs::read_to_string(world.host(0).run_dir().join(file)).unwrap();
        Pid::from_raw(pid.split_whitespace().next().unwrap().parse().unwrap())
    };
    // Without a keeper a deleted tap stays away.
    nix::sys::signal::kill(process("keeper.pid"), Signal::SIGKILL).unwrap();
    prometheus.wait_fires("WeaveContainersCut", "host0");
    world.tool(0, "ip link del weave-tap");
    let no_tap = "ALERTS{alertname=\"WeaveContainersCut\",alertstate=\"firing\",name=\"no_tap\"}";
    wait_until(RESULT_WITHIN, || "it fires for no_tap".into(), || prometheus.try_value(no_tap).is_some());
    assert_eq!(prometheus.firing("WeaveRouterDegraded"), Vec::<String>::new(), "one alert for one thing");
    world.weave(0, &["keeper", "--renew"]).ok();
    prometheus.wait_clears("WeaveContainersCut");

    let sidecar = process("dns.pid");
    nix::sys::signal::kill(sidecar, Signal::SIGSTOP).unwrap();
    prometheus.wait_fires("WeaveDnsDown", "host0");
    nix::sys::signal::kill(sidecar, Signal::SIGCONT).unwrap();
    prometheus.wait_clears("WeaveDnsDown");
    // It answers, and nobody can ask it at the engine's bridge, where another program has the port.
    let taken = world.on_host(0, || UdpSocket::bind("0.0.0.0:53").unwrap());
    world.tool(0, "ip link add docker0 type bridge");
    world.tool(0, "ip address add 172.17.0.1/16 dev docker0");
    world.tool(0, "ip link set docker0 up");
    prometheus.wait_fires("WeaveDnsDown", "host0");
    drop(taken);
    prometheus.wait_clears("WeaveDnsDown");

    // Two hosts that reach each other by way of a third only.
    world.launch_to(3, &[0]);
    world.wait_linked(1, 3, LINK_WITHIN);
    let from = world.host(1).v4();
    for rule in ["udp", "tcp --dport 6783", "tcp --sport 6783"] {
        world.tool(0, &format!("iptables -I INPUT -s {from} -p {rule} -j DROP"));
    }
    prometheus.wait_fires("WeaveRelayed", "host1");
    world.tool(0, "iptables -F INPUT");
    world.weave(1, &["connect", &world.underlay(0).to_string()]).ok();
    world.wait_linked(0, 1, LINK_WITHIN);
    prometheus.wait_clears("WeaveRelayed");
    world.stop(3);

    world.launch_to(2, &[0]);
    prometheus.wait_fires("WeaveHandshakeFailures", "host0");
    world.stop(2);
    prometheus.wait_clears("WeaveHandshakeFailures");

    // A member that invents hosts has the router take memory; one that starts anew is without them.
    let has = prometheus.try_value("process_resident_memory_bytes{instance=\"host0\"}").unwrap();
    let threshold = has.parse::<u64>().unwrap() + MORE_MEMORY;
    prometheus.set_rules(&quick_alerts(&threshold.to_string()));
    prometheus.wait_evaluated();
    assert_eq!(prometheus.firing("WeaveMemory"), Vec::<String>::new(), "before memory is taken");
    let member = Member::join(world, 2, 0, PeerName::new([2, 0xee, 0, 0, 0, 1]).unwrap());
    assert_eq!(invent(&member, 0..INVENTED, INVENTED / 2), INVENTED);
    prometheus.wait_fires("WeaveMemory", "host0");
    drop(member);
    world.stop(0);
    world.launch(0, &[]);
    prometheus.wait_clears("WeaveMemory");
}
