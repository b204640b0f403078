//! From a scrape to the lines of its sheet.

use super::families as f;
use super::round_trips::BOUNDS_US;
use super::sample::{LinkSample, Sample};
use super::sheet::Sheet;
use super::{PEERS_MAX, Process, Scrape};
use crate::control::http::HttpSample;
use std::collections::BTreeMap;
use weave_api::names::SidecarStatus;
use weave_api::status::{ConnectionState, TargetState};
use weave_forward::FRAME_TIME_BOUNDS_NS;
use weave_wire::PeerName;
use weave_wire::link::handshake::VERSION_MAX;

/// The name under which links without lines of their own are counted.
const OTHER: &str = "other";

pub(super) fn publish(scrape: &Scrape, sheet: &mut Sheet) {
    let sample = &scrape.sample;
    host(sample, sheet);
    connections(sample, sheet);
    links(sample, sheet);
    keys(sample, sheet);
    mesh(sample, sheet);
    forwarding(sample, sheet);
    control(sample, &scrape.http, sheet);
    if scrape.has_dns {
        sheet.level(&f::DNS_UP, &[], sample.dns.is_some().into());
        sample.dns.iter().for_each(|dns| names(dns, sheet));
    }
    process(&scrape.process, sheet);
    for (daemon, bytes) in &scrape.beside {
        sheet.level(&f::DAEMON_RESIDENT, &[daemon], *bytes);
    }
}

fn host(sample: &Sample, sheet: &mut Sheet) {
    sheet.level(&f::BUILD_INFO, &[env!("CARGO_PKG_VERSION"), &VERSION_MAX.to_string()], 1);
    sheet.level(&f::HOST_INFO, &[&sample.name.to_string(), sample.nickname.as_str()], 1);
    sheet.level(&f::ENCRYPTED, &[], sample.encrypted.into());
    sheet.set(&f::UPTIME, &[], sample.uptime.as_secs_f64());
    sheet.level(&f::MTU, &[], sample.mtu.into());
    sheet.level(&f::CONNECTIONS_MAX, &[], sample.conn_limit.into());
    for (state, name) in [
        (TargetState::Connecting, "connecting"),
        (TargetState::Connected, "connected"),
        (TargetState::Retrying, "retrying"),
        (TargetState::Ourself, "ourself"),
    ] {
        let count = sample.targets.iter().filter(|target| **target == state).count();
        sheet.level(&f::TARGETS, &[name], count as u64);
    }
    for state in &sample.degraded {
        sheet.level(&f::DEGRADED, &[&state.name], 1);
    }
    if let Some(dropped) = sample.guard_dropped {
        sheet.count(&f::GUARD_DROPPED, &[], dropped);
    }
    if let Some(repairs) = sample.repairs {
        sheet.count(&f::HOST_REPAIRS, &["device"], repairs.devices);
        sheet.count(&f::HOST_REPAIRS, &["rules"], repairs.rules);
    }
    if let Some(changed) = sample.changed {
        sheet.level(&f::ATTACHMENTS_CHANGED, &[], changed);
    }
}

/// Number of links and attempts in each state, zeros too: rules need not guess.
fn connections(sample: &Sample, sheet: &mut Sheet) {
    use ConnectionState::{Connecting, Established, Failed, Pending, Retrying};
    let links = |state, encrypted| {
        let links = sample.links.iter().map(|link| &link.connection);
        links.filter(|link| link.state == state && link.encrypted == Some(encrypted)).count() as u64
    };
    for (state, name) in [(Established, "established"), (Pending, "pending")] {
        for (encrypted, label) in [(true, "yes"), (false, "")] {
            sheet.level(&f::CONNECTIONS, &[name, "udp", label], links(state, encrypted));
        }
    }
    for (state, name) in [(Connecting, "connecting"), (Retrying, "retrying"), (Failed, "failed")] {
        let count = sample.attempts.iter().filter(|attempt| **attempt == state).count() as u64;
        sheet.level(&f::CONNECTIONS, &[name, "unknown", ""], count);
    }
    sheet.count(&f::TERMINATIONS, &[], counter(sample, "links_lost"));
}

fn counter(sample: &Sample, name: &str) -> u64 {
    debug_assert!(sample.counters.contains_key(name), "no counter is named {name}");
    sample.counters.get(name).copied().unwrap_or_default()
}

/// One row for each peer: the link that carries data, where two are between the same peers for a
/// moment.
fn links(sample: &Sample, sheet: &mut Sheet) {
    let mut rows: BTreeMap<PeerName, &LinkSample> = BTreeMap::new();
    for link in &sample.links {
        let row = rows.entry(link.peer).or_insert(link);
        if row.connection.state != ConnectionState::Established {
            *row = link;
        }
    }
    rows.values().take(PEERS_MAX).for_each(|link| one_link(link, sheet));
    if rows.len() > PEERS_MAX {
        others(rows.values().skip(PEERS_MAX).copied(), sheet);
    }
    let bounds = BOUNDS_US.map(|us| std::time::Duration::from_micros(us).as_secs_f64());
    let sum = sample.round_trips_sum.as_secs_f64();
    sheet.histogram(&f::ROUND_TRIPS, &[], &bounds, &sample.round_trips, sum);
}

fn one_link(link: &LinkSample, sheet: &mut Sheet) {
    let (peer, connection) = (link.peer.to_string(), &link.connection);
    let who = &[peer.as_str(), link.nickname.as_ref().map_or("", weave_wire::Nickname::as_str)];
    let with = |label| [who[0], who[1], label];
    sheet.level(&f::LINK_UP, who, (connection.state == ConnectionState::Established).into());
    sheet.level(&f::LINK_ENCRYPTED, who, (connection.encrypted == Some(true)).into());
    if let Some(rtt) = connection.rtt_us {
        sheet.set(&f::LINK_ROUND_TRIP, who, std::time::Duration::from_micros(rtt).as_secs_f64());
    }
    sheet.level(&f::LINK_AGE, who, connection.since_s);
    sheet.set(&f::LINK_SESSION_AGE, who, link.session_age.as_secs_f64());
    sheet.count(&f::LINK_REKEYS, who, link.epoch.into());
    if let Some(mtu) = link.path_mtu {
        sheet.level(&f::LINK_PATH_MTU, who, mtu.into());
    }
    sheet.level(&f::LINK_QUEUE, who, link.queued as u64);
    for state in &connection.degraded {
        sheet.level(&f::LINK_DEGRADED, &with(&state.name), 1);
    }
    sheet.level(&f::LINK_LANES, &with("in"), connection.lanes_in.into());
    sheet.level(&f::LINK_LANES, &with("out"), connection.lanes_out.into());
    sheet.count(&f::LINK_BYTES, &with("in"), connection.rx_bytes);
    sheet.count(&f::LINK_BYTES, &with("out"), connection.tx_bytes);
    sheet.count(&f::LINK_FRAMES, &with("in"), connection.rx_frames);
    sheet.count(&f::LINK_FRAMES, &with("out"), connection.tx_frames);
}

/// How many of the links without lines of their own pass data. What they carried is no sum of them: it
/// would fall with each link that is lost. Lanes count it.
fn others<'a>(links: impl Iterator<Item = &'a LinkSample>, sheet: &mut Sheet) {
    let established = links.filter(|link| link.connection.state == ConnectionState::Established);
    sheet.level(&f::LINK_UP, &[OTHER, ""], established.count() as u64);
}

fn keys(sample: &Sample, sheet: &mut Sheet) {
    for (family, name) in [
        (&f::HANDSHAKES_FAILED, "handshakes_failed"),
        (&f::LINKS_REFUSED, "links_refused"),
        (&f::LINKS_MADE, "links_made"),
        (&f::LINKS_UNFINISHED, "links_unfinished"),
        (&f::REKEYS, "rekeys"),
        (&f::KEYS_EXPIRED, "keys_expired"),
        (&f::RESUMPTIONS, "resumptions"),
        (&f::TCP_ACCEPTED, "tcp_accepted"),
        (&f::TCP_REFUSED, "tcp_refused"),
        (&f::ADDRESS_MOVES, "address_moves"),
        (&f::HEARTBEATS_SENT, "heartbeats_sent"),
        (&f::HEARTBEATS_UNANSWERED, "heartbeats_unanswered"),
        (&f::HEARTBEATS_DROPPED, "heartbeats_dropped"),
        (&f::KEEP_ALIVES_DROPPED, "keep_alives_dropped"),
        (&f::ROUTE_RUNS, "route_runs"),
        (&f::LOG_LEFT_OUT, "log_lines_left_out"),
    ] {
        sheet.count(family, &[], counter(sample, name));
    }
}

fn mesh(sample: &Sample, sheet: &mut Sheet) {
    let topology = sample.topology;
    sheet.level(&f::PEERS, &[], topology.peers as u64);
    sheet.level(&f::PEERS_UNREACHABLE, &[], topology.unreachable as u64);
    sheet.level(&f::TOPOLOGY_LINKS, &[], topology.links as u64);
    sheet.level(&f::TOPOLOGY_DIGEST, &[], topology.digest);
    sheet.level(&f::ROUTES, &["direct"], sample.direct as u64);
    sheet.level(&f::ROUTES, &["relayed"], sample.relayed as u64);
    for (name, value) in &sample.counters {
        let own = ["stations_full", "names_full", "own_does_not_fit", "peers_evicted", "peers_collected"];
        if let Some(event) =
            name.strip_prefix("gossip_").or_else(|| own.contains(&name.as_str()).then_some(name))
        {
            sheet.count(&f::GOSSIP, &[event], *value);
        }
    }
    sheet.level(&f::GOSSIP_BYTES, &[], sample.gossip_bytes as u64);
    let [local, remote] = sample.names;
    sheet.level(&f::NAMES, &["local"], local as u64);
    sheet.level(&f::NAMES, &["remote"], remote as u64);
    sheet.level(&f::DNS_ENTRIES, &[], local as u64);
    for (source, count) in ["attached", "elsewhere", "learned"].into_iter().zip(sample.stations) {
        sheet.level(&f::STATIONS, &[source], count as u64);
    }
    sheet.level(&f::FLOWS, &[], sample.stations.iter().sum::<usize>() as u64);
    for of_the_allocator in [
        &f::IPAM_UNREACHABLE_COUNT,
        &f::IPAM_UNREACHABLE_PERCENTAGE,
        &f::IPAM_PENDING_ALLOCATES,
        &f::IPAM_PENDING_CLAIMS,
        &f::MAX_IPS,
    ] {
        sheet.level(of_the_allocator, &[], 0);
    }
    for event in ["flap", "replaced", "conflict"] {
        sheet.count(&f::STATION_EVENTS, &[event], counter(sample, &format!("mac_{event}")));
    }
}

fn forwarding(sample: &Sample, sheet: &mut Sheet) {
    let bounds = FRAME_TIME_BOUNDS_NS.map(|ns| std::time::Duration::from_nanos(ns).as_secs_f64());
    for (shard, more) in sample.shards.iter().zip(&sample.shard_samples) {
        let number = shard.shard.to_string();
        for (family, (name, _)) in f::SHARD.iter().zip(weave_forward::Counters::MEANINGS) {
            sheet.count(family, &[&number], shard.counters.get(*name).copied().unwrap_or_default());
        }
        for (direction, carried) in [("in", more.lane.received), ("out", more.lane.sent)] {
            sheet.count(&f::LANE_BYTES, &[&number, direction], carried.bytes);
            sheet.count(&f::LANE_FRAMES, &[&number, direction], carried.frames);
        }
        for (reason, value) in &shard.drops {
            sheet.count(&f::DROPS, &[&number, reason], *value);
        }
        for (kind, value) in more.fill {
            sheet.level(&f::SHARD_BUFFERS, &[&number, kind], value);
        }
        for (queue, value) in more.ring {
            sheet.level(&f::SHARD_RING, &[&number, queue], value);
        }
        let sum = std::time::Duration::from_nanos(more.times_sum_ns).as_secs_f64();
        sheet.histogram(&f::FRAME_TIME, &[&number], &bounds, &more.times, sum);
    }
}

fn control(sample: &Sample, http: &HttpSample, sheet: &mut Sheet) {
    for (queue, length) in ["events", "reports"].into_iter().zip(sample.queues) {
        sheet.level(&f::QUEUE, &[queue], length as u64);
    }
    for (request, count) in sample.asked.iter() {
        sheet.count(&f::REQUESTS, &[request], count);
    }
    sheet.count(&f::HTTP_REQUESTS, &["answered"], http.answered);
    sheet.count(&f::HTTP_REQUESTS, &["failed"], http.failed);
    sheet.level(&f::HTTP_CONNECTIONS, &["all"], http.connections as u64);
    sheet.level(&f::HTTP_CONNECTIONS, &["events"], http.streams as u64);
    sheet.count(&f::HTTP_CLOSED, &["full"], http.refused);
    sheet.count(&f::HTTP_CLOSED, &["source"], http.source_refused);
    sheet.count(&f::HTTP_CLOSED, &["timeout"], http.timed_out);
    sheet.count(&f::HTTP_CLOSED, &["idle"], http.idle);
}

fn names(dns: &SidecarStatus, sheet: &mut Sheet) {
    sheet.level(&f::DNS_ROUTER_LOST, &[], dns.router_lost_s.is_some().into());
    sheet.level(&f::DNS_NAMES, &[], dns.names as u64);
    sheet.level(&f::DNS_ADDRESSES, &[], dns.entries as u64);
    sheet.level(&f::DNS_NOT_LISTENING, &[], dns.not_listening.len() as u64);
    for (name, value) in &dns.counters {
        match name.as_str() {
            "queries" => sheet.count(&f::DNS_QUERIES, &[], *value),
            event => sheet.count(&f::DNS_EVENTS, &[event], *value),
        }
    }
}

fn process(process: &Process, sheet: &mut Sheet) {
    sheet.count_seconds(&f::PROCESS_CPU, process.cpu_seconds);
    sheet.set(&f::PROCESS_START, &[], process.start_seconds);
    sheet.level(&f::PROCESS_RESIDENT, &[], process.resident_bytes);
    sheet.level(&f::PROCESS_VIRTUAL, &[], process.virtual_bytes);
    sheet.level(&f::PROCESS_OPEN_FDS, &[], process.open_fds);
    sheet.level(&f::PROCESS_MAX_FDS, &[], process.max_fds);
    sheet.level(&f::PROCESS_THREADS, &[], process.threads);
}
