//! What a scrape takes from the control core: copies, made within one turn of it.

use crate::control::core::Core;
use crate::control::lanes::LaneSample;
use crate::control::metrics::Process;
use crate::control::metrics::round_trips::BOUNDS_US;
use crate::control::status;
use std::collections::BTreeMap;
use std::time::Duration;
use weave_api::names::SidecarStatus;
use weave_api::request::Request;
use weave_api::status::{Connection, ConnectionState, Degraded, Shard, TargetState};
use weave_forward::{FRAME_TIME_BOUNDS_NS, boot_time};
use weave_mesh::TopologyView;
use weave_wire::{Nickname, PeerName};

/// Requests over the control socket, by name.
#[derive(Debug, Clone, Default)]
pub(in crate::control) struct Asked(BTreeMap<&'static str, u64>);

impl Asked {
    /// Counts one.
    pub(in crate::control) fn note(&mut self, request: &Request) {
        *self.0.entry(request.command()).or_default() += 1;
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(name, count)| (*name, *count))
    }
}

/// A link.
#[derive(Debug, Clone)]
pub(in crate::control) struct LinkSample {
    pub(super) peer: PeerName,
    pub(super) nickname: Option<Nickname>,
    pub(super) connection: Connection,
    pub(super) session_age: Duration,
    pub(super) epoch: u32,
    pub(super) path_mtu: Option<u16>,
    pub(super) queued: usize,
}

/// What a shard has beside its counters.
#[derive(Debug, Clone, Default)]
pub(in crate::control) struct ShardSample {
    pub(super) times: [u64; FRAME_TIME_BOUNDS_NS.len() + 1],
    pub(super) times_sum_ns: u64,
    pub(super) fill: [(&'static str, u64); 4],
    pub(super) ring: [(&'static str, u64); 2],
    pub(super) lane: LaneSample,
}

/// All of it.
#[derive(Debug, Clone)]
pub(in crate::control) struct Sample {
    pub(super) name: PeerName,
    pub(super) nickname: Nickname,
    pub(super) encrypted: bool,
    pub(super) uptime: Duration,
    pub(super) mtu: u16,
    pub(super) conn_limit: u16,
    pub(super) targets: Vec<TargetState>,
    pub(super) links: Vec<LinkSample>,
    /// Attempts of ours to make a link.
    pub(super) attempts: Vec<ConnectionState>,
    pub(super) degraded: Vec<Degraded>,
    pub(super) guard_dropped: Option<u64>,
    /// The process of the keeper, if it tells.
    pub(super) keeper: Option<u32>,
    /// What the keeper put right, if it tells.
    pub(super) repairs: Option<weave_api::keeper::KeeperRepairs>,
    /// Attachments that were changed inside their containers, if the keeper tells.
    pub(super) changed: Option<u64>,
    /// What the DNS of this host told, if it answered when it was asked last.
    pub(super) dns: Option<SidecarStatus>,
    pub(super) counters: BTreeMap<String, u64>,
    pub(super) shards: Vec<Shard>,
    pub(super) shard_samples: Vec<ShardSample>,
    pub(super) topology: TopologyView,
    pub(super) direct: usize,
    pub(super) relayed: usize,
    pub(super) gossip_bytes: usize,
    /// Of this host, and of others.
    pub(super) names: [usize; 2],
    /// Attached here, attached elsewhere, learned.
    pub(super) stations: [usize; 3],
    /// Events and reports that wait.
    pub(super) queues: [usize; 2],
    pub(super) asked: Asked,
    pub(super) round_trips: [u64; BOUNDS_US.len() + 1],
    pub(super) round_trips_sum: Duration,
}

impl Sample {
    /// Resident memory of keeper and DNS, bytes, of those that run.
    pub(in crate::control) fn read_beside(&self) -> Vec<(&'static str, u64)> {
        let processes = [("keeper", self.keeper), ("dns", self.dns.as_ref().map(|dns| dns.pid))];
        let resident = |(name, pid): (_, Option<u32>)| Some((name, Process::resident_of(pid?)));
        processes.into_iter().filter_map(resident).filter(|(_, bytes)| *bytes > 0).collect()
    }

    /// Takes one.
    pub(in crate::control) fn of(core: &Core) -> Self {
        let (now, boot) = (core.now(), boot_time());
        let name = core.local.name;
        let link = |link: &crate::control::link::Link| LinkSample {
            peer: link.peer.name,
            nickname: link.nickname.clone(),
            connection: status::linked(core, link, now),
            session_age: boot.saturating_sub(link.rekey.since()),
            epoch: link.rekey.epoch(),
            path_mtu: link.path.as_ref().map(weave_mesh::PathMtu::usable),
            queued: link.connection.as_ref().map_or(0, |connection| connection.queued.get()),
        };
        let routes = &core.mesh.routes().peers;
        let direct = routes.iter().filter(|route| route.hops <= 1).count();
        let (round_trips, round_trips_sum) = core.round_trips.buckets();
        Self {
            name,
            nickname: core.nickname.clone(),
            encrypted: core.is_encrypted(),
            uptime: now,
            mtu: core.config.mtu,
            conn_limit: core.config.conn_limit,
            targets: status::targets(core, now).into_iter().map(|target| target.state).collect(),
            links: status::links(core).map(link).collect(),
            attempts: status::attempts(core, now).map(|attempt| attempt.state).collect(),
            degraded: status::degraded_states(core, now),
            keeper: core.beside.keeper().map(|keeper| keeper.pid),
            repairs: core.beside.keeper().map(|keeper| keeper.repairs),
            changed: core.beside.keeper().map(|keeper| keeper.changed),
            guard_dropped: core.beside.keeper().and_then(|keeper| keeper.guard).map(|guard| guard.dropped),
            dns: core.beside.dns_told().cloned(),
            counters: status::counters(core),
            shards: status::shards(core),
            shard_samples: shards(core),
            topology: core.mesh.topology(),
            direct,
            relayed: routes.len() - direct,
            gossip_bytes: core.mesh.part_bytes(),
            names: core.mesh.names_counted(),
            stations: [
                core.stations.attached().count(),
                core.mesh.stations_counted(),
                core.stations.learned().count(),
            ],
            queues: [core.waiting(), core.reports().len()],
            asked: core.asked.clone(),
            round_trips,
            round_trips_sum,
        }
    }
}

fn shards(core: &Core) -> Vec<ShardSample> {
    let mut lanes = core.past_lanes.clone();
    core.links.values().for_each(|link| lanes.add(&link.counters));
    let counters = core.group.counters().iter().enumerate();
    counters.map(|(number, counters)| shard(counters, lanes.of(number))).collect()
}

fn shard(counters: &weave_forward::Counters, lane: LaneSample) -> ShardSample {
    let (times, times_sum_ns) = counters.frame_times.get();
    let fill = &counters.fill;
    let fill = [
        ("read", fill.read_buffers.get()),
        ("receive", fill.receive_buffers.get()),
        ("send", fill.send_slots.get()),
        ("parked", fill.parked.get()),
    ];
    let ring =
        [("submission", counters.fill.submissions.get()), ("completion", counters.fill.completions.get())];
    ShardSample { times, times_sum_ns, fill, ring, lane }
}
