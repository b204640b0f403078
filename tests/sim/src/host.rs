//! One host: the state machines of `weave-mesh`, run as the control core runs them.
//!
//! Follows `router/src/control/core/*`, method by method and under the same
//! names, so that a change there is easily followed here. Keys, lanes, path MTU
//! and roaming are left out: they decide nothing about the mesh.

mod datagrams;
mod gossip;
mod greeted;
mod link;
mod messages;
mod timers;

pub use link::Link;

use crate::character::Character;
use crate::frames::{Frame, RouteTable, Session, ShardRoute};
use crate::greeting::{self, Dial, Stage, Step};
use crate::identity::{Key, Who};
use crate::network::{HostId, PORT};
use crate::random::Random;
use crate::tcp::{ConnectionId, Greeting, Payload};
use greeted::Exchange;
use link::{Connection, REPLACED_KEPT, Replaced, TCP_LOST_LIMIT};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;
use weave_mesh::{
    Admission, Backoff, Beat, DialId, Dialler, Ended, LinkInfo, LinkNumber, Liveness, Mesh, MeshConfig,
    Output, OwnStation, Signer, Ticket,
};
use weave_wire::link::gossip::{Gossip, NameEntry};
use weave_wire::link::heartbeat::{ControlMessage, Heartbeat};
use weave_wire::link::message::{Describe, Message};
use weave_wire::{HostName, InnerHeader, MacAddr, Nickname, PeerName, Uid};

/// Links of a host, at most (`weave_forward::MAX_LINKS`).
pub const MAX_LINKS: usize = 512;
/// Bytes that wait to be written to one connection, at most.
pub const SEND_QUEUE: usize = 1 << 20;

/// What outlives a run.
#[derive(Debug, Clone)]
pub struct State {
    /// The host's name.
    pub name: PeerName,
    /// Its key.
    pub key: Key,
    /// How often it was launched.
    pub run: u32,
    /// Where peers were, the latest first.
    pub recent: Vec<SocketAddr>,
}

/// How a host is launched.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whom to dial.
    pub targets: Vec<SocketAddr>,
    /// Dial whom others tell of.
    pub discovery: bool,
    /// Links, at most.
    pub conn_limit: usize,
}

/// What a host wants done.
#[derive(Debug)]
pub enum Effect {
    /// Dial.
    Connect(ConnectionId, SocketAddr),
    /// Send over a connection.
    Send(ConnectionId, Payload),
    /// Close a connection.
    Close(ConnectionId),
    /// Send a datagram.
    Datagram(SocketAddr, Session, Datagram),
    /// A frame arrived here.
    Deliver(Frame),
    /// A frame went nowhere.
    Drop(Frame, crate::frames::Drop),
    /// Go on under another name and key: a clone has better right to these.
    Rename,
}

/// What a datagram of a link carries, and its number.
#[derive(Debug, Clone)]
pub struct Datagram {
    /// Numbers of one link and direction rise.
    pub number: u64,
    /// The content.
    pub body: Body,
}

/// The content of a datagram.
#[derive(Debug, Clone)]
pub enum Body {
    /// An encoded message of the control lane.
    Control([u8; ControlMessage::LEN]),
    /// A frame.
    Frame(Frame),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Link(Session),
    Exchange(ConnectionId),
}

/// Bytes that a host sent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sent {
    /// Digests, requests and parts.
    pub gossip: u64,
    /// Summaries.
    pub summaries: u64,
    /// All messages over TCP, as they are in packets.
    pub tcp: u64,
    /// Heartbeats and their answers, as they are in packets.
    pub heartbeats: u64,
}

/// A running host.
pub struct Host {
    /// What outlives this run.
    pub state: State,
    /// How it was launched.
    pub settings: Settings,
    /// Whether it keeps to the rules.
    pub character: Character,
    id: HostId,
    uid: Uid,
    nickname: Nickname,
    random: Random,
    /// What it tells and believes.
    pub mesh: Mesh<Key>,
    dialler: Dialler<SocketAddr>,
    admission: Admission,
    /// By the session's name.
    pub links: BTreeMap<Session, Link>,
    by_number: BTreeMap<u64, Session>,
    by_connection: BTreeMap<ConnectionId, Session>,
    by_peer: BTreeMap<PeerName, Vec<Session>>,
    exchanges: BTreeMap<ConnectionId, Exchange>,
    timers: BTreeSet<(Duration, Timer)>,
    table: RouteTable,
    routes_changed: bool,
    peers_changed: bool,
    next_number: u64,
    next_connection: u64,
    superseded: bool,
    effects: Vec<Effect>,
    /// Names whose addresses changed since they were taken.
    pub names_changed: Vec<HostName>,
    /// What it sent.
    pub sent: Sent,
    /// Times of route computations, if somebody measures them.
    pub route_times: Option<Stopwatch>,
}

/// Measures the computation of routes.
#[derive(Debug)]
pub struct Stopwatch {
    /// A clock.
    pub clock: fn() -> Duration,
    /// How long each took, the latest ones.
    pub times: VecDeque<Duration>,
}

impl Host {
    /// Starts a host. `incarnation`: unlike that of every other process of the world.
    #[must_use]
    pub fn start(
        id: HostId,
        mut state: State,
        settings: Settings,
        character: Character,
        incarnation: u32,
        mut random: Random,
        now: Duration,
    ) -> Self {
        state.run += 1;
        // As the router makes them: of two hosts on one state the later has the larger one.
        let uid = Uid((u64::from(state.run) << 48) | (random.next_u64() >> 16));
        let nickname = Self::nickname_of(state.name);
        let config = MeshConfig {
            name: state.name,
            uid,
            nickname: nickname.clone(),
            port: PORT,
            addresses: Vec::new(),
            run: state.run,
            sealed_only: false,
            features: 0,
            seed: random.next_u64(),
        };
        let key = character.key(state.key);
        let mut host = Self {
            mesh: Mesh::new(config, key, now),
            state,
            settings,
            character,
            id,
            uid,
            nickname,
            random,
            dialler: Dialler::default(),
            admission: Admission::new(now),
            links: BTreeMap::new(),
            by_number: BTreeMap::new(),
            by_connection: BTreeMap::new(),
            by_peer: BTreeMap::new(),
            exchanges: BTreeMap::new(),
            timers: BTreeSet::new(),
            table: RouteTable::default(),
            routes_changed: false,
            peers_changed: false,
            next_number: 0,
            next_connection: u64::from(incarnation) << 32,
            superseded: false,
            effects: Vec::new(),
            names_changed: Vec::new(),
            sent: Sent::default(),
            route_times: None,
        };
        let _ = host.dialler.add_targets(&host.settings.targets, now);
        if host.settings.discovery {
            for target in host.state.recent.clone() {
                host.dialler.add_recent(target, now);
            }
        }
        host.tell_addresses(now);
        host
    }

    /// What a host of this name is called.
    #[must_use]
    pub fn nickname_of(name: PeerName) -> Nickname {
        Nickname::from_host_name(&format!("host-{name}"))
    }

    /// Who it is in handshakes.
    #[must_use]
    pub fn who(&self) -> Who {
        Who { name: self.state.name, uid: self.uid, identity: self.state.key.identity() }
    }

    /// What it wants done since the last call.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Links, dials and what is refused, for whoever looks for a cause.
    #[must_use]
    pub fn explain(&self) -> Vec<String> {
        let who =
            format!("host {}: {} run {} {:?}", self.id.0, self.state.name, self.uid, self.mesh.counters());
        let links = self.links.values().map(|link| {
            let (peer, uid, number) = (link.peer.name, link.peer.uid, link.number);
            let (up, degraded) = (link.is_established(), link.is_degraded());
            format!("  link {number} to {peer} run {uid} at {}: up {up}, degraded {degraded}", link.remote)
        });
        let dials = self.dialler.entries().iter().map(|entry| {
            format!(
                "  dials {} {:?}: {:?}, {} failures: {:?}",
                entry.target, entry.origin, entry.stand, entry.failures, entry.reason
            )
        });
        std::iter::once(who).chain(links).chain(dials).collect()
    }

    /// Entries of the dialler.
    #[must_use]
    pub fn dials(&self) -> usize {
        self.dialler.entries().len()
    }

    /// The fullest queue of a connection, bytes.
    #[must_use]
    pub fn longest_queue(&self) -> usize {
        let queued = self.links.values().filter_map(|link| link.connection.as_ref()).map(|c| c.queued);
        queued.max().unwrap_or(0)
    }

    // Ends of links.

    pub(super) fn lose_link(&mut self, session: Session, reason: &str, now: Duration) {
        let jitter = self.random.unit();
        let Some(link) = self.links.get(&session) else { return };
        if !link.is_current() {
            return self.remove_link(session, now);
        }
        let (peer, number, address) = (link.peer.name, link.number, link.address);
        let ended = if link.is_established() { Ended::Established } else { Ended::Early };
        if self.fall_back(session, now) {
            return self.remove_link(session, now);
        }
        self.dialler.lost(number, reason, ended, now, jitter);
        if let Some(address) = address.filter(|_| self.settings.discovery) {
            let covered = self.dialler.entries().iter().any(|entry| entry.address == Some(address));
            if !covered {
                self.dialler.add_recent(address, now);
            }
        }
        let ended = self.links.values().filter(|older| older.peer.name == peer && !older.is_current());
        for older in ended.map(|link| link.session).collect::<Vec<_>>() {
            self.remove_link(older, now);
        }
        self.remove_link(session, now);
    }

    /// A dial led to link number `number`, which may pass data already.
    pub(super) fn dial_led_to(&mut self, number: u64, dial: Option<DialId>, address: SocketAddr) {
        self.dialler.linked(number, dial, address);
        if self.links.values().any(|link| link.number == number && link.is_established()) {
            self.dialler.established(number);
        }
    }

    /// True if the link that `lost` follows is still there: that one goes on.
    fn fall_back(&mut self, lost: Session, now: Duration) -> bool {
        let Some((peer, number)) = self.links.get(&lost).map(|link| (link.peer.name, link.number)) else {
            return false;
        };
        // One that the peer ended already does not come back.
        let serves = |link: &Link| match link.replaced {
            Some(Replaced::Serving) => true,
            Some(Replaced::Until(_)) => link.connection.is_some(),
            None => false,
        };
        let older = |link: &&mut Link| link.peer.name == peer && serves(link);
        let Some(older) = self.links.values_mut().find(older) else { return false };
        older.replaced = None;
        if older.connection.is_none() {
            older.redial = Some((Backoff::new(now), now));
        }
        let (session, older) = (older.session, older.number);
        self.dialler.relinked(number, older);
        self.dialler.established(older);
        self.arm(session);
        true
    }

    pub(super) fn remove_link(&mut self, session: Session, now: Duration) {
        let Some(link) = self.links.remove(&session) else { return };
        self.timers.remove(&(link.due, Timer::Link(session)));
        self.by_number.remove(&link.number);
        if let Some(connection) = link.connection {
            self.by_connection.remove(&connection.id);
            self.effects.push(Effect::Close(connection.id));
        }
        if let Some(sessions) = self.by_peer.get_mut(&link.peer.name) {
            sessions.retain(|of| *of != session);
            if sessions.is_empty() {
                self.by_peer.remove(&link.peer.name);
            }
        }
        self.mesh.link_removed(LinkNumber(link.number), now);
        self.routes_changed = true;
        self.tell_addresses(now);
    }

    /// Ends every link at the other end.
    pub fn say_bye(&mut self, now: Duration) {
        let ids: Vec<_> =
            self.links.values().filter_map(|link| link.connection.as_ref()).map(|c| c.id).collect();
        for id in ids {
            self.send(id, &Message::Bye("the router stops".into()), now);
        }
    }

    // What the host's operator does.

    /// These names are published here.
    pub fn set_names(&mut self, names: Vec<NameEntry>, now: Duration) {
        self.mesh.set_names(names, now);
    }

    /// These stations are attached here.
    pub fn set_stations(&mut self, macs: &[(MacAddr, std::net::IpAddr)], now: Duration) {
        let stations =
            macs.iter().map(|(mac, address)| OwnStation { mac: *mac, addresses: vec![(*address, 12)] });
        self.mesh.set_stations(stations.collect(), now);
    }
}

impl Stopwatch {
    /// Times kept.
    const KEPT: usize = 1024;

    fn note(&mut self, time: Duration) {
        if self.times.len() == Self::KEPT {
            self.times.pop_front();
        }
        self.times.push_back(time);
    }
}
