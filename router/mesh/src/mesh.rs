//! The mesh: what this host tells others and what it makes of what they tell.
//!
//! A driver runs it like this: after any call, take outputs from
//! [`Mesh::poll_output`] until there is none (stop while a link's queue is
//! full, after [`Mesh::set_writable`]), then wait for an event or for the time
//! of [`Mesh::poll_timeout`] and call [`Mesh::handle_timeout`] then.

mod announce;
mod directories;
mod links;
mod publish;
mod receive;
mod recompute;
mod timers;
mod views;

pub use recompute::LINK_ENDS;
pub use views::{PeerView, TopologyView};

use crate::counters::MeshCounters;
use crate::directory::{Directory, Limits};
use crate::output::{LinkInfo, LinkNumber, MeshConfig, Output, Signer};
use crate::own::OwnParts;
use crate::random::Random;
use crate::routes::{FormerPaths, Routes};
use crate::store::Store;
use crate::telling::Telling;
use crate::topology::Topology;
use crate::wants::Wants;
use hashbrown::HashMap;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;
use weave_wire::link::gossip::{NameEntry, PartId, PartKey, Summary};
use weave_wire::{HostName, MacAddr, PeerName};

/// Stations of all peers, at most.
pub const MAX_STATIONS: usize = 16_384;
/// Stations of one peer, at most; its addresses likewise.
pub const MAX_STATIONS_PER_PEER: usize = 4_096;
/// Names of all peers, at most.
pub const MAX_NAMES: usize = 131_072;
/// Names of one peer, at most.
pub const MAX_NAMES_PER_PEER: usize = 4_096;
/// Addresses of one name, at most.
pub const MAX_NAME_ADDRESSES: usize = 64;
/// Claims on one MAC or address, at most: the best, and our own.
const MAX_CLAIMS: usize = 64;

const STATION_LIMITS: Limits =
    Limits { total: MAX_STATIONS, per_peer: MAX_STATIONS_PER_PEER, per_key: MAX_CLAIMS };
const NAME_LIMITS: Limits =
    Limits { total: MAX_NAMES, per_peer: MAX_NAMES_PER_PEER, per_key: MAX_NAME_ADDRESSES };

/// A link of ours.
#[derive(Debug)]
struct Link {
    info: LinkInfo,
    /// Rises from link to link as they are added.
    order: u64,
    established: bool,
    writable: bool,
    /// Digests it is to be told as soon as it can take them.
    telling: Telling,
    /// Bytes of parts it is to be sent before it is told more.
    parts_due: usize,
    /// Parts the other end asked for.
    pulled: VecDeque<PartKey>,
}

/// A station attached here, as we claim it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Claimed {
    claim: u32,
    /// Another peer's claim is higher.
    withdrawn: bool,
    /// Prefix, claim, and whether another peer's claim is higher.
    addresses: BTreeMap<IpAddr, (u8, u32, bool)>,
}

/// Another host that runs on a copy of our state.
#[derive(Debug, Clone, Copy)]
struct Rival {
    version: u64,
    rises: u32,
}

/// The state machine. See the module's documentation for how to drive it.
#[derive(Debug)]
pub struct Mesh<S> {
    config: MeshConfig,
    signer: S,
    random: Random,
    counters: MeshCounters,
    outputs: VecDeque<Output>,
    links: BTreeMap<LinkNumber, Link>,
    next_order: u64,
    /// Links that have something to be told, or asked for parts, and can take them, in turn.
    to_serve: VecDeque<LinkNumber>,
    store: Store,
    own: OwnParts,
    leaving: bool,
    /// Another run publishes in our place: see [`Output::Cloned`].
    superseded: bool,
    rivals: BTreeMap<(weave_wire::Uid, PartId), Rival>,
    wants: Wants,
    wants_changed: bool,
    check_pulls_at: Option<Duration>,
    /// Parts to be announced, and the links known to have them.
    pending: BTreeMap<PartKey, Vec<LinkNumber>>,
    announce_at: Option<Duration>,
    summary: Option<Summary>,
    summary_at: Duration,
    topology: Topology,
    routes_at: Option<Duration>,
    routes_computed: Option<Duration>,
    /// How long there are none after that.
    routes_pause: Duration,
    /// Peers that became reachable or unreachable, to be taken into the directories or out of them.
    to_index: BTreeSet<PeerName>,
    index_at: Option<Duration>,
    paths: FormerPaths,
    routes: Routes,
    collect_at: Duration,
    refused_at: HashMap<PeerName, Duration>,
    claims: BTreeMap<MacAddr, Claimed>,
    names: Vec<NameEntry>,
    stations: Directory<MacAddr, u32>,
    addresses: Directory<IpAddr, (u32, MacAddr, u8)>,
    names_directory: Directory<HostName, (IpAddr, [u8; 6])>,
    stations_reported: BTreeMap<MacAddr, PeerName>,
}

impl<S: Signer> Mesh<S> {
    /// Knows nobody yet.
    pub fn new(config: MeshConfig, signer: S, now: Duration) -> Self {
        let mut random = Random::new(config.seed);
        let ours = config.name;
        let summary_at = now.saturating_add(announce::summary_wait(&mut random));
        let mut mesh = Self {
            own: OwnParts::new(config.run),
            config,
            signer,
            random,
            counters: MeshCounters::default(),
            outputs: VecDeque::new(),
            links: BTreeMap::new(),
            next_order: 0,
            to_serve: VecDeque::new(),
            store: Store::default(),
            leaving: false,
            superseded: false,
            rivals: BTreeMap::new(),
            wants: Wants::default(),
            wants_changed: false,
            check_pulls_at: None,
            pending: BTreeMap::new(),
            announce_at: None,
            summary: None,
            summary_at,
            topology: Topology::default(),
            routes_at: None,
            routes_computed: None,
            routes_pause: Duration::ZERO,
            to_index: BTreeSet::new(),
            index_at: None,
            paths: FormerPaths::default(),
            routes: Routes::default(),
            collect_at: now.saturating_add(timers::COLLECT_EVERY),
            refused_at: HashMap::new(),
            claims: BTreeMap::new(),
            names: Vec::new(),
            stations: Directory::new(STATION_LIMITS).of(ours, |owner, claim| Some((*claim, owner))),
            addresses: Directory::new(STATION_LIMITS).of(ours, |owner, (claim, ..)| Some((*claim, owner))),
            names_directory: Directory::new(NAME_LIMITS).of(ours, |_, _| None),
            stations_reported: BTreeMap::new(),
        };
        mesh.publish_part(PartId::HOST, now);
        mesh
    }

    /// The next thing to do; `None`: nothing for now.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front().or_else(|| self.serve_next())
    }

    /// The routes as last computed.
    pub const fn routes(&self) -> &Routes {
        &self.routes
    }

    /// What was done and refused.
    pub fn counters(&self) -> &MeshCounters {
        &self.counters
    }

    fn key(&self, part: PartId) -> PartKey {
        PartKey { owner: self.config.name, part }
    }
}
