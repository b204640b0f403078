#![allow(clippy::unwrap_used)]
use super::families::{Kind, all};
use super::sample::{LinkSample, ShardSample};
use super::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;
use weave_api::status::{Connection, ConnectionState, Degraded, Direction, Shard, TargetState};
use weave_forward::{Counters, DropReason};
use weave_wire::{Nickname, PeerName};

/// Peers of a large mesh.
const LARGE: usize = 300;
/// Processor time that a scrape of it takes at most; builds of tests are slower by far.
const SCRAPE_WITHIN: Duration = Duration::from_millis(if cfg!(debug_assertions) { 15 } else { 5 });
/// Scrapes of which the quickest counts: the processor is shared with whatever runs beside the test.
const SCRAPES_MAX: usize = 100;

/// The processor time of this thread. Others that run meanwhile do not count.
fn processor_time() -> Duration {
    rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).try_into().unwrap()
}

fn peer(number: usize) -> PeerName {
    format!("02:00:00:00:{:02x}:{:02x}", number >> 8, number & 0xff).parse().unwrap()
}

fn link(number: usize) -> LinkSample {
    let connection = Connection {
        direction: Direction::Outbound,
        address: "192.0.2.1:6783".parse().unwrap(),
        state: ConnectionState::Established,
        since_s: 100,
        reason: None,
        retry_in_s: None,
        encrypted: Some(true),
        peer: Some(peer(number)),
        nickname: None,
        mtu: Some(1376),
        protocol: Some(1),
        rtt_us: Some(250),
        lanes_in: 4,
        lanes_out: 4,
        tx_frames: 1_000,
        tx_bytes: 1_000_000,
        rx_frames: 2_000,
        rx_bytes: 2_000_000,
        degraded: vec![Degraded { name: "one_port".into(), reason: "x".into(), since_s: 1 }],
    };
    LinkSample {
        peer: peer(number),
        nickname: Some(Nickname::from_host_name(&format!("host{number}"))),
        connection,
        session_age: Duration::from_secs(60),
        epoch: 7,
        path_mtu: Some(1500),
        queued: 0,
    }
}

/// A scrape of a router with so many links.
fn scrape(links: usize) -> Scrape {
    let zeros = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), 0)).collect::<BTreeMap<_, _>>();
    let counters = zeros(crate::control::status::COUNTERS);
    let shard = |shard| Shard {
        shard,
        core: None,
        counters: Counters::default().snapshot().values.iter().map(|(n, v)| ((*n).to_owned(), *v)).collect(),
        drops: DropReason::ALL.iter().map(|reason| (reason.name().to_owned(), 1)).collect(),
    };
    let mut sample = Sample {
        name: peer(0xffff),
        nickname: Nickname::from_host_name("here"),
        encrypted: true,
        uptime: Duration::from_secs(1000),
        mtu: 1376,
        conn_limit: 512,
        targets: vec![TargetState::Connected],
        links: (0..links).map(link).collect(),
        attempts: vec![ConnectionState::Retrying],
        degraded: vec![Degraded { name: "no_uso".into(), reason: "x".into(), since_s: 1 }],
        guard_dropped: Some(7),
        keeper: Some(1),
        repairs: Some(weave_api::keeper::KeeperRepairs { devices: 2, rules: 1 }),
        changed: Some(1),
        dns: None,
        counters,
        shards: (0..4).map(shard).collect(),
        shard_samples: vec![ShardSample::default(); 4],
        topology: weave_mesh::TopologyView {
            peers: links + 1,
            unreachable: 0,
            links: 2 * links,
            digest: 1 << 47,
        },
        direct: links,
        relayed: 0,
        gossip_bytes: 1,
        names: [1, 2],
        stations: [1, 2, 3],
        queues: [0, 0],
        asked: Asked::default(),
        round_trips: [1; 15],
        round_trips_sum: Duration::from_secs(1),
    };
    let dns = r#"{"pid":1,"domain":"weave.local","ttl_s":1,"listening":[],"upstream":[],"names":2,"entries":3,
        "counters":{"queries":5,"answered":4}}"#;
    sample.dns = Some(serde_json::from_str(dns).unwrap());
    Scrape {
        sample,
        http: HttpSample::default(),
        process: Process::read(),
        beside: vec![("dns", 1)],
        has_dns: true,
    }
}

fn lines<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let is_of = |line: &&str| line.split(['{', ' ']).next() == Some(name);
    text.lines().filter(is_of).collect()
}

#[test]
#[expect(clippy::print_stdout, reason = "a figure for people")]
fn a_scrape_of_a_large_mesh_is_quick_and_has_a_line_for_each_of_so_many_peers() {
    // The first one finds the rate of the processor's clock.
    render(&scrape(1));
    let large = scrape(LARGE);
    let scrapes = (0..SCRAPES_MAX).map(|_| {
        let begun = processor_time();
        let text = render(&large);
        let took = processor_time() - begun;
        println!("{} bytes, {} lines in {took:?}", text.len(), text.lines().count());
        (text, took)
    });
    let text = scrapes.into_iter().find(|(_, took)| *took < SCRAPE_WITHIN).unwrap().0;
    let up = lines(&text, "weave_link_up");
    assert_eq!(up.len(), PEERS_MAX + 1);
    let other = format!("weave_link_up{{peer=\"other\",nickname=\"\"}} {}", LARGE - PEERS_MAX);
    assert!(up.contains(&other.as_str()), "{up:?}");
    // A sum over links that come and go is no counter.
    let other = text.lines().filter(|line| line.contains("peer=\"other\"")).collect::<Vec<_>>();
    assert_eq!(other.len(), 1, "{other:?}");
}

#[test]
fn every_value_has_its_family_and_the_families_keep_to_the_conventions() {
    let text = render(&scrape(3));
    let known: BTreeMap<String, &super::families::Family> =
        all().map(|family| (family.name.to_string(), family)).collect();
    let mut seen = BTreeSet::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let name = line.split(['{', ' ']).next().unwrap();
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| {
            let base = name.strip_suffix(end)?;
            known.get(base).filter(|family| family.kind == Kind::Histogram).map(|_| base)
        });
        let name = base.unwrap_or(name);
        assert!(known.contains_key(name), "{line}");
        seen.insert(name.to_owned());
    }
    for (name, family) in &known {
        assert_eq!(name.ends_with("_total"), family.kind == Kind::Counter, "{name}");
        assert!(name.starts_with("weave_") || name.starts_with("process_"), "{name}");
        assert!(!family.help.is_empty() && family.help.ends_with('.'), "{name}: {}", family.help);
        assert!(text.contains(&format!("# HELP {name} ")) || !seen.contains(name), "{name} has no HELP");
        assert!(text.contains(&format!("# TYPE {name} {}\n", family.kind.name())) || !seen.contains(name));
    }
    let unseen: Vec<_> = known.keys().filter(|name| !seen.contains(*name)).collect();
    assert_eq!(unseen, ["weave_control_requests_total"], "families that nothing is published under");
}

#[test]
fn a_hostile_nickname_stays_inside_its_label() {
    let mut scrape = scrape(1);
    let hostile = r#"a"} 1 # <b>\"#;
    scrape.sample.dns.as_mut().unwrap().counters.insert(hostile.into(), 1);
    for hostile in [hostile, "\n# TYPE", "a\\"] {
        let mut sheet = Sheet::new();
        sheet.count(&super::families::LINK_BYTES, &[hostile, "", "in"], 1);
        let text = sheet.finish();
        assert_eq!(lines(&text, "weave_link_bytes_total").len(), 1, "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("# TYPE")).count(), 1, "{text}");
    }
    let text = render(&scrape);
    assert!(text.contains(r#"weave_dns_events_total{event="a\"} 1 # <b>\\"} 1"#), "{text}");
}

#[test]
fn buckets_add_up() {
    let text = render(&scrape(1));
    let of = |bound: &str| {
        let line = format!("weave_heartbeat_round_trip_seconds_bucket{{le=\"{bound}\"}} ");
        text.lines().find_map(|text| text.strip_prefix(&line)?.parse::<u64>().ok())
    };
    assert_eq!((of("0.0001"), of("5"), of("+Inf")), (Some(1), Some(14), Some(15)));
    assert!(text.contains("\nweave_heartbeat_round_trip_seconds_count 15\n"));
}

/// `docs/metrics.md` as the table would have it.
fn reference() -> String {
    let mut text = String::from(
        "# Metrics\n\n\
         What a router shows at `http://WEAVE_STATUS_ADDR/metrics` (127.0.0.1:6782 unless told otherwise), for\n\
         Prometheus. Made of the table in `router/src/control/metrics/families.rs`:\n\
         `WEAVE_WRITE_DOCS=1 cargo test -p weave-router reference` writes this page anew.\n\n\
         Times are seconds, sizes bytes. Counters begin at 0 with the router. Links to the first 256 peers, by\n\
         name, have lines of their own; of all others `weave_link_up{peer=\"other\"}` says how many are up, and what they\n\
         carry is in `weave_lane_bytes_total` and `weave_lane_frames_total`, as is that of links which are lost.\n\n\
         | name | type | labels | meaning |\n| --- | --- | --- | --- |\n",
    );
    for family in all() {
        let labels = family.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        let (name, kind) = (&family.name, family.kind.name());
        writeln!(text, "| `{name}` | {kind} | {labels} | {} |", family.help).unwrap();
    }
    text.push_str("\n## Reasons of drops\n\n| reason | meaning |\n| --- | --- |\n");
    for reason in DropReason::ALL {
        writeln!(text, "| `{}` | {} |", reason.name(), reason.meaning().trim()).unwrap();
    }
    text
}

#[test]
fn the_page_tells_what_every_drop_means() {
    let page = include_str!("../../../../dashboards/page/src/reasons.js");
    let (_, list) = page.split_once("Object.entries({\n").unwrap();
    let (list, _) = list.split_once("})").unwrap();
    let told: BTreeSet<_> =
        list.lines().filter_map(|line| line.split_once(": \"")).map(|(name, _)| name.trim()).collect();
    let reasons: BTreeSet<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
    assert_eq!(told, reasons);
}

#[test]
fn the_reference_is_that_of_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let reference = reference();
    if std::env::var_os("WEAVE_WRITE_DOCS").is_some() {
        std::fs::write(path, &reference).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == reference, "{path} is stale: set WEAVE_WRITE_DOCS=1 and run this test again");
}
