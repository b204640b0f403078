//! `weave status PART -o json`: the fields that programs may rely on.

use std::collections::BTreeSet;

use serde_json::Value;
use weave_perf::lab::Traffic;
use weave_tests::world::{LINK_WITHIN, Options, World, v4, wait_until};

/// An address on the underlay where nobody is.
const NOBODY: &str = "10.99.0.77";

/// Each part of the state, what every entry of it tells, and what some entries tell beside.
const PARTS: [(&str, &[&str], &[&str]); 5] = [
    ("peers", &["name", "nickname", "uid", "connections"], &[]),
    ("targets", &["target", "state"], &["reason", "retry_in_s"]),
    (
        "routes",
        &["peer", "nickname", "via", "via_nickname", "hops", "encrypted", "broadcast_from", "broadcast_to"],
        &[],
    ),
    ("macs", &["mac", "peer", "nickname", "source", "idle_s"], &[]),
    (
        "connections",
        &[
            "direction",
            "address",
            "state",
            "since_s",
            "lanes_in",
            "lanes_out",
            "tx_frames",
            "tx_bytes",
            "rx_frames",
            "rx_bytes",
        ],
        &["reason", "retry_in_s", "encrypted", "peer", "nickname", "mtu", "protocol", "rtt_us"],
    ),
];
/// A link as the peer at one end of it tells of it.
const LINK_OF_PEER: [&str; 6] = ["direction", "address", "peer", "nickname", "established", "encrypted"];

/// The entries of a part.
#[track_caller]
fn entries(world: &World, part: &str) -> Vec<Value> {
    let ran = world.weave(0, &["status", part, "-o", "json"]).ok();
    let value = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {}", ran.stdout));
    let Value::Array(entries) = value else { panic!("{part} is no list: {value}") };
    assert!(!entries.is_empty(), "{part}");
    entries
}

/// The same once they have these fields together.
#[track_caller]
fn entries_with(world: &World, part: &str, wanted: &BTreeSet<&str>) -> Vec<Value> {
    let mut found = Vec::new();
    wait_until(
        LINK_WITHIN,
        || format!("{part} without {wanted:?}: {:#?}", entries(world, part)),
        || {
            found = entries(world, part);
            found.iter().flat_map(fields).collect::<BTreeSet<_>>() == *wanted
        },
    );
    found
}

fn fields(entry: &Value) -> BTreeSet<&str> {
    entry.as_object().unwrap().keys().map(String::as_str).collect()
}

/// The entry in which a field has this value.
#[track_caller]
fn find<'a>(entries: &'a [Value], field: &str, value: &str) -> &'a Value {
    let found = entries.iter().find(|entry| entry[field] == value);
    found.unwrap_or_else(|| panic!("no {field} {value} in {entries:#?}"))
}

/// Host 0 is linked to host 1 and tries an address where nobody is; host 2 is behind host 1.
fn line() -> World {
    let world = World::new(Options::encrypted().count(3).not_launched().args("--no-discovery"));
    world.lab().cut(0, 2, Traffic::All).unwrap();
    world.launch(1, &["--nickname", "middle"]);
    world.launch(0, &["--nickname", "first", &world.underlay(1).to_string(), NOBODY]);
    world.launch(2, &["--nickname", "last", &world.underlay(1).to_string()]);
    world.wait_ping(0, v4(2).into(), LINK_WITHIN);
    let told = || {
        let status = world.status(0);
        let tried =
            status.targets.iter().any(|target| target.reason.is_some() && target.retry_in_s.is_some());
        let linked = status.connections.iter().any(|link| link.rtt_us.is_some());
        // The ends of both links tell of them.
        let links = status.peers.iter().flat_map(|peer| &peer.connections);
        tried && linked && links.filter(|link| link.established).count() == 4 && status.macs.len() == 3
    };
    wait_until(LINK_WITHIN, || format!("{:#?}", world.status(0)), told);
    world
}

#[test]
fn each_part_of_the_status_is_json_with_its_fields() {
    let world = line();
    for (part, always, sometimes) in PARTS {
        let (always, sometimes): (BTreeSet<_>, BTreeSet<_>) =
            (always.iter().copied().collect(), sometimes.iter().copied().collect());
        let entries = entries_with(&world, part, &(&always | &sometimes));
        for entry in &entries {
            assert!(fields(entry).is_superset(&always), "{part}: {entry:#}");
        }
    }

    // Beside what the router says, the names of this host; there is no DNS.
    let whole: Value = serde_json::from_str(&world.weave(0, &["status", "-o", "json"]).ok().stdout).unwrap();
    assert!(whole["name"].is_string() && whole["own_names"].is_array(), "{whole:#}");
    assert!(whole.get("sidecar").is_none() && whole.get("dns_error").is_none(), "{whole:#}");

    let [first, middle, last] = [0, 1, 2].map(|host| world.status(host).name.to_string());
    let peers = entries(&world, "peers");
    assert_eq!(peers[0]["name"], first.as_str(), "the router itself comes first");
    let links = find(&peers, "nickname", "middle")["connections"].as_array().unwrap();
    assert_eq!(links.len(), 2);
    assert!(links.iter().all(|link| fields(link) == BTreeSet::from(LINK_OF_PEER)), "{links:#?}");
    assert!(find(links, "peer", &last)["established"].as_bool().unwrap());

    // While it is tried just now there is no time until it is tried again.
    let targets = entries_with(&world, "targets", &["target", "state", "reason", "retry_in_s"].into());
    let target = find(&targets, "target", NOBODY);
    assert!(target["reason"].is_string() && target["retry_in_s"].is_u64(), "{target:#}");
    assert!(["retrying", "connecting"].map(Value::from).contains(&target["state"]), "{target:#}");
    assert_eq!(find(&targets, "target", &world.underlay(1).to_string())["state"], "connected");

    let routes = entries(&world, "routes");
    let route = find(&routes, "peer", &last);
    assert_eq!((&route["via"], &route["via_nickname"]), (&middle.as_str().into(), &"middle".into()));
    assert_eq!((&route["hops"], &route["encrypted"]), (&2.into(), &true.into()), "{route:#}");

    let macs = entries(&world, "macs");
    for (host, name) in [&first, &middle, &last].into_iter().enumerate() {
        let entry = find(&macs, "mac", &world.mac(host).to_string());
        assert_eq!((&entry["peer"], &entry["source"]), (&name.as_str().into(), &"attached".into()));
    }

    let connections = entries(&world, "connections");
    let link = find(&connections, "state", "established");
    assert_eq!((&link["peer"], &link["direction"]), (&middle.as_str().into(), &"outbound".into()));
    assert_eq!((&link["nickname"], &link["encrypted"]), (&"middle".into(), &true.into()), "{link:#}");
    assert!(link["rtt_us"].as_u64().unwrap() > 0 && link["tx_frames"].as_u64().unwrap() > 0, "{link:#}");
    assert!(link["address"].as_str().unwrap().starts_with(&world.underlay(1).to_string()), "{link:#}");
}
