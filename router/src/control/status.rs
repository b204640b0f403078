//! The state of the router as `weave status` shows it.

use super::core::Core;
use super::link::Link;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Duration;
use weave_api::status::{
    Connection, ConnectionState, Degraded, Direction, MacEntry, MacSource, Peer, PeerConnection, Shard,
    Status, TargetState, TargetStatus,
};
use weave_api::target::Target;
use weave_crypto::{Dialler as Side, Failure};
use weave_mesh::Origin;
use weave_mesh::dialler::{Entry, Stand};
use weave_wire::link::handshake::{VERSION_MAX, VERSION_MIN};

/// Peers that did not get in and are shown, at most.
const REFUSALS: usize = 64;
/// How long they are shown, and how often one of them is logged.
const REFUSAL_SHOWN: Duration = Duration::from_secs(60);
/// A link that is pending this long is suspected of passing no UDP.
const PENDING_LONG: Duration = Duration::from_secs(2);

/// Peers that dialled us and did not get in.
#[derive(Debug, Default)]
pub(super) struct Refusals(HashMap<IpAddr, Refused>);

#[derive(Debug)]
struct Refused {
    reason: String,
    at: Duration,
    logged: Duration,
}

impl Refusals {
    /// Notes one; true if it is to be logged (once a minute and address).
    pub(super) fn note(&mut self, address: IpAddr, reason: String, now: Duration) -> bool {
        self.expire(now);
        if let Some(known) = self.0.get_mut(&address) {
            known.reason = reason;
            known.at = now;
            let due = now.saturating_sub(known.logged) >= REFUSAL_SHOWN;
            if due {
                known.logged = now;
            }
            return due;
        }
        if self.0.len() >= REFUSALS {
            return false;
        }
        self.0.insert(address, Refused { reason, at: now, logged: now });
        true
    }

    /// True if something about `address` may be logged, once a minute.
    pub(super) fn may_log(&mut self, address: IpAddr, now: Duration) -> bool {
        match self.0.get_mut(&address) {
            Some(known) if now.saturating_sub(known.logged) < REFUSAL_SHOWN => false,
            Some(known) => {
                known.logged = now;
                true
            }
            None => true,
        }
    }

    /// Forgets those that are old.
    pub(super) fn expire(&mut self, now: Duration) {
        self.0.retain(|_, refused| now.saturating_sub(refused.at) < REFUSAL_SHOWN);
    }
}

/// Everything, as of `now`.
pub(super) fn status(core: &Core, now: Duration) -> Status {
    let name = core.local.name;
    Status {
        version: env!("CARGO_PKG_VERSION").into(),
        protocol: (VERSION_MIN.into(), VERSION_MAX.into()),
        name,
        nickname: core.nickname.clone(),
        uid: core.local.uid,
        pid: std::process::id(),
        uptime_s: now.as_secs(),
        port: core.group.port(),
        encrypted: core.is_encrypted(),
        discovery: core.config.discovery,
        mtu: core.config.mtu,
        conn_limit: core.config.conn_limit,
        trusted_subnets: Vec::new(),
        targets: core
            .dialler
            .entries()
            .iter()
            .filter(|e| e.origin == Origin::Target)
            .map(|e| target(e, now))
            .collect(),
        connections: connections(core, now),
        peers: peers(core),
        macs: macs(core, now),
        shards: shards(core),
        counters: counters(core),
        degraded: core
            .degraded
            .iter()
            .map(|(name, reason)| Degraded {
                name: (*name).into(),
                reason: reason.clone(),
                since_s: now.as_secs(),
            })
            .collect(),
    }
}

fn target(entry: &Entry<Target>, now: Duration) -> TargetStatus {
    let state = match entry.stand {
        Stand::Linked(_) => TargetState::Connected,
        Stand::Dialling(_) => TargetState::Connecting,
        Stand::Waiting(_) if entry.reason.is_none() => TargetState::Connecting,
        Stand::Waiting(_) if entry.reason.as_deref() == Some(&Failure::Ourselves.to_string()) => {
            TargetState::Ourself
        }
        Stand::Waiting(_) => TargetState::Retrying,
    };
    TargetStatus {
        target: entry.target.clone(),
        state,
        reason: entry.reason.clone(),
        retry_in_s: retry_in(entry, now),
    }
}

fn retry_in(entry: &Entry<Target>, now: Duration) -> Option<u64> {
    match entry.stand {
        Stand::Waiting(at) => {
            Some(at.saturating_sub(now).as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX))
        }
        Stand::Dialling(_) | Stand::Linked(_) => None,
    }
}

/// Links but those that a newer one to the same peer follows.
fn links(core: &Core) -> impl Iterator<Item = &Link> {
    core.links.values().filter(|link| link.superseded.is_none())
}

fn connections(core: &Core, now: Duration) -> Vec<Connection> {
    let linked = links(core).map(|link| linked(core, link, now));
    let dialled = core.dialler.entries().iter().filter_map(|entry| dialled(entry, now));
    let refused = core.refusals.0.iter().map(|(address, refused)| Connection {
        reason: Some(refused.reason.clone()),
        since_s: now.saturating_sub(refused.at).as_secs(),
        ..blank(Direction::Inbound, Target::from(*address), ConnectionState::Failed)
    });
    linked.chain(dialled).chain(refused).collect()
}

const fn blank(direction: Direction, address: Target, state: ConnectionState) -> Connection {
    Connection {
        direction,
        address,
        state,
        since_s: 0,
        reason: None,
        retry_in_s: None,
        encrypted: None,
        peer: None,
        nickname: None,
        mtu: None,
        rtt_us: None,
        lanes_in: 0,
        lanes_out: 0,
        tx_frames: 0,
        tx_bytes: 0,
        rx_frames: 0,
        rx_bytes: 0,
        degraded: Vec::new(),
    }
}

const fn direction(side: Side) -> Direction {
    match side {
        Side::Us => Direction::Outbound,
        Side::Peer => Direction::Inbound,
    }
}

fn linked(core: &Core, link: &Link, now: Duration) -> Connection {
    let state = if link.is_established() { ConnectionState::Established } else { ConnectionState::Pending };
    let sum =
        |of: fn(&weave_forward::LinkCounters) -> u64| link.counters.iter().map(|counters| of(counters)).sum();
    #[expect(clippy::cast_possible_truncation, reason = "at most 64")]
    let lanes = |bits: u64| bits.count_ones() as u8;
    Connection {
        since_s: now.saturating_sub(link.since).as_secs(),
        reason: if link.is_established() { None } else { pending_reason(core, link, now) },
        encrypted: Some(core.is_encrypted()),
        peer: Some(link.peer.name),
        nickname: link.nickname.clone(),
        mtu: Some(link.peer.mtu),
        rtt_us: link.liveness.as_ref().and_then(weave_mesh::Liveness::rtt).map(micros),
        lanes_in: lanes(link.lanes_in),
        lanes_out: lanes(link.lanes_out),
        tx_frames: sum(|counters| counters.frames_sent.get()),
        tx_bytes: sum(|counters| counters.bytes_sent.get()),
        rx_frames: sum(|counters| counters.frames_received.get()),
        rx_bytes: sum(|counters| counters.bytes_received.get()),
        degraded: degraded(core, link, now),
        ..blank(direction(link.side), link.address.unwrap_or(link.remote).into(), state)
    }
}

/// Why a link is pending: why the one before it was lost, or what delays it.
fn pending_reason(core: &Core, link: &Link, now: Duration) -> Option<String> {
    let lost = core.dialler.of_link(link.number).and_then(|entry| entry.reason.clone());
    let long = now.saturating_sub(link.since) >= PENDING_LONG;
    lost.or_else(|| long.then(|| "no datagram made the round trip yet: UDP may be blocked".into()))
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn degraded(core: &Core, link: &Link, now: Duration) -> Vec<Degraded> {
    let state = |name: &str, reason: String, since: Duration| Degraded {
        name: name.into(),
        reason,
        since_s: now.saturating_sub(since).as_secs(),
    };
    let mut states = Vec::new();
    if let Some(since) = link.tcp_lost {
        let reason = "TCP is gone; the peer answers over UDP and TCP is dialled again";
        states.push(state("tcp_lost", reason.into(), since));
    }
    if let Some(since) = link.segmentation_refused {
        let reason = "the route takes no segmented datagrams; tried again within a minute";
        states.push(state("no_segmentation", reason.into(), since));
    }
    if link.peer.mtu != core.config.mtu {
        let reason = format!(
            "MTU {} there, {} here: give all hosts the same WEAVE_MTU",
            link.peer.mtu, core.config.mtu
        );
        states.push(state("unequal_mtu", reason, link.since));
    }
    states
}

fn dialled(entry: &Entry<Target>, now: Duration) -> Option<Connection> {
    let state = match entry.stand {
        Stand::Linked(_) => return None,
        Stand::Dialling(_) => ConnectionState::Connecting,
        Stand::Waiting(_) if entry.refused => ConnectionState::Failed,
        Stand::Waiting(_) => ConnectionState::Retrying,
    };
    Some(Connection {
        reason: entry.reason.clone(),
        retry_in_s: retry_in(entry, now),
        ..blank(Direction::Outbound, entry.target.clone(), state)
    })
}

fn peers(core: &Core) -> Vec<Peer> {
    let own = links(core).filter_map(|link| {
        Some(PeerConnection {
            direction: direction(link.side),
            address: link.address.unwrap_or(link.remote).into(),
            peer: link.peer.name,
            nickname: link.nickname.clone()?,
            established: link.is_established(),
            encrypted: core.is_encrypted(),
        })
    });
    let ourselves = Peer {
        name: core.local.name,
        nickname: core.nickname.clone(),
        uid: core.local.uid,
        connections: own.collect(),
    };
    let others = links(core).filter_map(|link| {
        Some(Peer {
            name: link.peer.name,
            nickname: link.nickname.clone()?,
            uid: link.peer.uid,
            connections: Vec::new(),
        })
    });
    std::iter::once(ourselves).chain(others).collect()
}

fn macs(core: &Core, now: Duration) -> Vec<MacEntry> {
    let nickname = |name| {
        let link = core.links.values().find(|link| link.peer.name == name);
        link.and_then(|link| link.nickname.clone())
            .unwrap_or_else(|| weave_wire::Nickname::from_host_name("unknown"))
    };
    let attached = core.stations.attached().map(|mac| MacEntry {
        mac,
        peer: core.local.name,
        nickname: core.nickname.clone(),
        source: MacSource::Attached,
        idle_s: 0,
    });
    let learned = core.stations.learned().map(|(mac, peer, seen)| MacEntry {
        mac,
        peer,
        nickname: nickname(peer),
        source: MacSource::Learned,
        idle_s: now.saturating_sub(seen).as_secs(),
    });
    let mut all: Vec<_> = attached.chain(learned).collect();
    all.sort_by_key(|entry| entry.mac);
    all
}

fn shards(core: &Core) -> Vec<Shard> {
    let cores = core.config.cores.as_ref().map(|cores| cores.as_slice().to_vec()).unwrap_or_default();
    let mut shards = Vec::new();
    for (number, counters) in core.group.counters().iter().enumerate() {
        let snapshot = counters.snapshot();
        let named =
            |list: Vec<(&str, u64)>| list.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        #[expect(
            clippy::cast_possible_truncation,
            reason = "at most 64 shards; cores are numbered below 2^16"
        )]
        shards.push(Shard {
            shard: number as u8,
            core: cores.get(number % cores.len().max(1)).map(|core| *core as u16),
            counters: named(snapshot.values),
            drops: named(snapshot.drops),
        });
    }
    shards
}

fn counters(core: &Core) -> BTreeMap<String, u64> {
    let counters = &core.counters;
    [
        ("tcp_accepted", counters.accepted),
        ("tcp_refused", counters.refused),
        ("handshakes_failed", counters.handshakes_failed),
        ("links_made", counters.links_made),
        ("links_lost", counters.links_lost),
        ("rekeys", counters.rekeys),
        ("resumptions", counters.resumptions),
        ("heartbeats_sent", counters.heartbeats_sent),
        ("heartbeats_dropped", counters.heartbeats_dropped),
        ("keep_alives_dropped", counters.keep_alives_dropped),
        ("mac_flap", counters.mac_flaps),
        ("mac_conflict", counters.mac_conflicts),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}
