//! One host: the state machines of `weave-mesh`, run as the control core runs them.
//!
//! Follows `router/src/control/core/*`, method by method and under the same
//! names, so that a change there is easily followed here. Keys, lanes, path MTU
//! and roaming are left out: they decide nothing about the mesh.

use crate::character::Character;
use crate::frames::{Frame, RouteTable, Session, ShardRoute};
use crate::greeting::{self, Dial, Stage, Step};
use crate::identity::{Key, Who};
use crate::network::{HostId, PORT};
use crate::random::Random;
use crate::tcp::{ConnectionId, Greeting, Payload};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;
use weave_mesh::{
    Admission, Backoff, Beat, DialId, Dialler, LinkInfo, LinkNumber, Liveness, Mesh, MeshConfig, Output,
    OwnStation, Signer, Ticket,
};
use weave_wire::link::gossip::{Gossip, NameEntry};
use weave_wire::link::heartbeat::{ControlMessage, Heartbeat};
use weave_wire::link::message::{Describe, Message};
use weave_wire::{HostName, InnerHeader, MacAddr, Nickname, PeerName, Uid};

/// What the passage of any link costs.
const LINK_COST: u16 = 1;
/// Links of a host, at most (`weave_forward::MAX_LINKS`).
pub const MAX_LINKS: usize = 512;
/// Own addresses told to others, at most.
const OWN_ADDRESSES: usize = 16;
/// Recent peers written down, at most.
const RECENT_KEPT: usize = 64;
/// Bytes that wait to be written to one connection, at most.
pub const SEND_QUEUE: usize = 1 << 20;
/// From this many bytes or messages on no more gossip is queued.
const FULL: (usize, usize) = (256 << 10, 256);
/// With this many bytes left it is again.
const DRAINED: usize = 64 << 10;
/// How long a link may live without TCP.
const TCP_LOST_LIMIT: Duration = Duration::from_secs(180);
/// Headers of TCP and IP of a segment, bytes.
const TCP_IP_LEN: usize = 52;
/// Datagrams of one link remembered against replays.
const REPLAY_WINDOW: usize = 1024;

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

/// The TCP connection of a link.
#[derive(Debug)]
struct Connection {
    id: ConnectionId,
    queued: usize,
    messages: usize,
    full: bool,
    /// True if we dialled it.
    outbound: bool,
}

/// A link to one peer.
#[derive(Debug)]
pub struct Link {
    number: u64,
    session: Session,
    /// The other end.
    pub peer: Who,
    outbound: bool,
    remote: SocketAddr,
    observed: Option<std::net::IpAddr>,
    /// Where the peer listens; known once it described itself.
    address: Option<SocketAddr>,
    connection: Option<Connection>,
    liveness: Option<Liveness>,
    tcp_lost: Option<Duration>,
    redial: Option<(Backoff, Duration)>,
    redialling: bool,
    routed: bool,
    sent: u64,
    received: BTreeSet<u64>,
    due: Duration,
}

impl Link {
    /// True once a datagram made the round trip.
    #[must_use]
    pub fn is_established(&self) -> bool {
        self.liveness.as_ref().is_some_and(Liveness::is_established)
    }

    /// True if its TCP connection waits to be resumed.
    #[must_use]
    pub const fn is_degraded(&self) -> bool {
        self.tcp_lost.is_some()
    }

    fn deadline(&self) -> Duration {
        let mut next = Duration::MAX;
        if let Some(liveness) = &self.liveness {
            next = next.min(liveness.deadline());
        }
        if let Some(since) = self.tcp_lost {
            next = next.min(since + TCP_LOST_LIMIT);
        }
        if let Some((_, at)) = &self.redial
            && !self.redialling
        {
            next = next.min(*at);
        }
        next
    }
}

#[derive(Debug)]
struct Exchange {
    stage: Stage,
    remote: SocketAddr,
    deadline: Duration,
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
                "  dials {} {:?}: {:?}, {} failures",
                entry.target, entry.origin, entry.stand, entry.failures
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

    // The loop of the core.

    /// Does everything that is due, and all that follows.
    pub fn run(&mut self, now: Duration) {
        self.on_timers(now);
        self.run_mesh(now);
        if std::mem::take(&mut self.routes_changed) {
            self.table = self.shard_routes();
        }
    }

    /// When something is due next.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        let mut next = self.timers.first().map_or(Duration::MAX, |(at, _)| *at);
        if let Some((at, _)) = self.mesh.poll_timeout() {
            next = next.min(at);
        }
        if let Some(at) = self.dialler.deadline() {
            next = next.min(at);
        }
        next
    }

    fn on_timers(&mut self, now: Duration) {
        self.dial(now);
        while let Some((at, timer)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.pop_first();
            match timer {
                Timer::Link(session) => {
                    if let Some(link) = self.links.get_mut(&session) {
                        link.due = Duration::MAX;
                        self.on_link_timers(session, now);
                        self.arm(session);
                    }
                }
                Timer::Exchange(id) => self.on_exchange_late(id, now),
            }
        }
    }

    /// The deadline of a link may have changed.
    fn arm(&mut self, session: Session) {
        let Some(link) = self.links.get_mut(&session) else { return };
        let deadline = link.deadline();
        if deadline != link.due {
            self.timers.remove(&(link.due, Timer::Link(session)));
            self.timers.insert((deadline, Timer::Link(session)));
            link.due = deadline;
        }
    }

    fn dial(&mut self, now: Duration) {
        if self.superseded {
            return;
        }
        for (id, target, _) in self.dialler.due(now) {
            self.dialler.resolved(id, target);
            let is_established = |link: &&Link| link.is_established() && link.address == Some(target);
            if let Some(link) = self.links.values().find(is_established) {
                // GreetingError::Linked
                self.dialler.linked(link.number, Some(id), target);
            } else if target == self.id.address() {
                let jitter = self.random.unit();
                self.dialler.failed(id, "ourselves".into(), true, now, jitter);
            } else {
                self.connect(Dial::Link { id }, target);
            }
        }
    }

    fn connect(&mut self, dial: Dial, remote: SocketAddr) {
        self.next_connection += 1;
        let id = ConnectionId { host: self.id, number: self.next_connection };
        let exchange = Exchange { stage: Stage::Connecting(dial), remote, deadline: Duration::MAX };
        self.exchanges.insert(id, exchange);
        self.effects.push(Effect::Connect(id, remote));
    }

    fn on_link_timers(&mut self, session: Session, now: Duration) {
        self.beat(session, now);
        let Some(link) = self.links.get_mut(&session) else { return };
        if link.tcp_lost.is_some_and(|since| now.saturating_sub(since) >= TCP_LOST_LIMIT) {
            return self.lose_link(session, "TCP could not be resumed", now);
        }
        if let Some((_, at)) = &link.redial
            && *at <= now
            && !link.redialling
            && let Some(address) = link.address
        {
            link.redialling = true;
            self.connect(Dial::Resume(session), address);
        }
    }

    fn beat(&mut self, session: Session, now: Duration) {
        loop {
            let Some(link) = self.links.get_mut(&session) else { return };
            let Some(beat) = link.liveness.as_mut().and_then(|liveness| liveness.poll(now)) else { return };
            match beat {
                Beat::Dead(reason) => return self.lose_link(session, reason, now),
                Beat::Send(sequence) => {
                    let beat =
                        Heartbeat { sequence, lanes_seen: 1, lanes_own: 1, mesh_port: false, seal: false };
                    self.send_control(session, &ControlMessage::Heartbeat(beat));
                }
            }
        }
    }

    // Connections and handshakes (`greeted.rs`).

    fn is_known(&self, address: SocketAddr) -> bool {
        let ip = address.ip();
        self.dialler.entries().iter().any(|entry| entry.target.ip() == ip)
            || self.links.values().any(|link| link.remote.ip() == ip)
    }

    /// Somebody connected.
    pub fn on_accepted(&mut self, id: ConnectionId, from: HostId, now: Duration) {
        if self.superseded {
            return self.effects.push(Effect::Close(id));
        }
        let remote = from.address();
        let known = self.is_known(remote);
        let Ok(admitted) = self.admission.admit(remote.ip(), known, now) else {
            return self.effects.push(Effect::Close(id));
        };
        if let Some(evicted) = admitted.evicted {
            let of = |(id, e): (&ConnectionId, &Exchange)| (e.ticket() == Some(evicted)).then_some(*id);
            if let Some(evicted) = self.exchanges.iter().find_map(of) {
                self.exchanges.remove(&evicted);
                self.effects.push(Effect::Close(evicted));
            }
        }
        let stage = Stage::Accepted(admitted.ticket);
        self.begin_exchange(id, Exchange { stage, remote, deadline: now + greeting::LIMIT });
    }

    fn begin_exchange(&mut self, id: ConnectionId, exchange: Exchange) {
        self.timers.insert((exchange.deadline, Timer::Exchange(id)));
        self.exchanges.insert(id, exchange);
    }

    /// A dial was answered.
    pub fn on_connected(&mut self, id: ConnectionId, now: Duration) {
        let Some(exchange) = self.exchanges.remove(&id) else { return };
        let Stage::Connecting(dial) = exchange.stage else { return };
        let (stage, first) = match dial {
            Dial::Link { .. } => (Stage::SaidHello(dial), Greeting::Hello(self.who())),
            Dial::Resume(session) => (Stage::AskedToResume(session), Greeting::Resume(session)),
        };
        self.effects.push(Effect::Send(id, Payload::Greeting(first)));
        self.begin_exchange(id, Exchange { stage, remote: exchange.remote, deadline: now + greeting::LIMIT });
    }

    /// A dial or an exchange ended without a link.
    fn exchange_failed(&mut self, id: ConnectionId, refused: bool, now: Duration) {
        let Some(exchange) = self.exchanges.remove(&id) else { return };
        self.timers.remove(&(exchange.deadline, Timer::Exchange(id)));
        if let Some(ticket) = exchange.ticket() {
            self.admission.done(ticket);
        }
        match exchange.stage {
            Stage::Connecting(Dial::Link { id }) | Stage::SaidHello(Dial::Link { id }) => {
                self.dial_failed(id, refused, now);
            }
            Stage::Confirmed(Dial::Link { id }, _) => self.dial_failed(id, refused, now),
            Stage::Connecting(Dial::Resume(session)) | Stage::AskedToResume(session) => {
                self.on_not_resumed(session, now);
            }
            Stage::SaidHello(Dial::Resume(_))
            | Stage::Confirmed(Dial::Resume(_), _)
            | Stage::Accepted(_)
            | Stage::Answered(..)
            | Stage::ProvedLink(..)
            | Stage::Refused(_) => {}
        }
    }

    fn dial_failed(&mut self, id: DialId, refused: bool, now: Duration) {
        let jitter = self.random.unit();
        self.dialler.failed(id, "failed".into(), refused, now, jitter);
    }

    fn on_not_resumed(&mut self, session: Session, now: Duration) {
        let jitter = self.random.unit();
        let Some(link) = self.links.get_mut(&session) else { return };
        link.redialling = false;
        if let Some((backoff, at)) = &mut link.redial {
            *at = now + backoff.fail(false, now, jitter);
        }
        self.arm(session);
    }

    fn on_exchange_late(&mut self, id: ConnectionId, now: Duration) {
        if self.exchanges.contains_key(&id) {
            self.effects.push(Effect::Close(id));
            self.exchange_failed(id, false, now);
        }
    }

    fn on_greeting(&mut self, id: ConnectionId, greeting: Greeting, now: Duration) {
        let ours = self.who();
        let Some(exchange) = self.exchanges.get_mut(&id) else { return };
        let knows = |session: Session| self.links.contains_key(&session);
        let step = greeting::on_message(&mut exchange.stage, ours, greeting, knows);
        match step {
            Step::Send(greeting) => self.effects.push(Effect::Send(id, Payload::Greeting(greeting))),
            Step::Made(who, last) => self.on_greeted(id, last, now, |host, exchange| {
                host.on_established(id, who, exchange.dial(), exchange.remote, now);
            }),
            Step::Resumed(session, last) => self.on_greeted(id, last, now, |host, exchange| {
                host.on_resumed(id, session, exchange.ticket().is_none());
            }),
            Step::Refuse => self.refuse_later(id, now),
            Step::Failed { refused } => {
                self.effects.push(Effect::Close(id));
                self.exchange_failed(id, refused, now);
            }
        }
    }

    /// All refusals look alike from outside.
    fn refuse_later(&mut self, id: ConnectionId, now: Duration) {
        let jitter = self.random.unit();
        let Some(exchange) = self.exchanges.get_mut(&id) else { return };
        let Some(ticket) = exchange.ticket() else { return };
        exchange.stage = Stage::Refused(ticket);
        self.timers.remove(&(exchange.deadline, Timer::Exchange(id)));
        exchange.deadline = now + greeting::REFUSAL_DELAY.mul_f64(1.0 + jitter);
        self.timers.insert((exchange.deadline, Timer::Exchange(id)));
    }

    fn on_greeted(
        &mut self,
        id: ConnectionId,
        last: Option<Greeting>,
        _now: Duration,
        then: impl FnOnce(&mut Self, &Exchange),
    ) {
        let Some(exchange) = self.exchanges.remove(&id) else { return };
        self.timers.remove(&(exchange.deadline, Timer::Exchange(id)));
        if let Some(ticket) = exchange.ticket() {
            self.admission.done(ticket);
        }
        if let Some(last) = last {
            self.effects.push(Effect::Send(id, Payload::Greeting(last)));
        }
        if self.superseded {
            return self.effects.push(Effect::Close(id));
        }
        then(self, &exchange);
    }

    fn on_established(
        &mut self,
        id: ConnectionId,
        peer: Who,
        dial: Option<DialId>,
        remote: SocketAddr,
        now: Duration,
    ) {
        let outbound = dial.is_some();
        let old =
            self.newest_to(peer.name).map(|link| (link.session, link.number, link.peer.uid, link.outbound));
        if let Some((_, number, uid, old_outbound)) = old
            && uid == peer.uid
            && !self.survives(peer.uid, old_outbound, outbound)
        {
            self.dialler.linked(number, dial, remote);
            return self.effects.push(Effect::Close(id));
        }
        let limit = self.settings.conn_limit.min(MAX_LINKS - 1);
        if old.is_none() && self.links.len() >= limit {
            self.make_room_for(peer.name, now);
        }
        if old.is_none() && self.links.len() >= limit {
            return self.refuse(id, dial, now);
        }
        self.next_number += 1;
        let number = self.next_number;
        let info = LinkInfo {
            peer: peer.name,
            uid: peer.uid,
            identity: peer.identity,
            unencrypted: false,
            outbound,
            cost: LINK_COST,
        };
        if self.mesh.link_added(LinkNumber(number), info, now).is_err() {
            return self.refuse(id, dial, now);
        }
        self.insert_link(id, number, peer, outbound, remote);
        match old {
            Some((old_session, old_number, ..)) => {
                self.dialler.relinked(old_number, number);
                self.dialler.linked(number, dial, remote);
                self.remove_link(old_session, now);
            }
            None => self.dialler.linked(number, dial, remote),
        }
        let describe = Describe { nickname: self.nickname.clone(), port: PORT, observed: Some(remote.ip()) };
        self.send(id, &Message::Describe(describe), now);
    }

    fn refuse(&mut self, id: ConnectionId, dial: Option<DialId>, now: Duration) {
        if let Some(dial) = dial {
            self.dial_failed(dial, true, now);
        }
        self.effects.push(Effect::Close(id));
    }

    fn insert_link(&mut self, id: ConnectionId, number: u64, peer: Who, outbound: bool, remote: SocketAddr) {
        let link = Link {
            number,
            session: id,
            peer,
            outbound,
            remote,
            observed: None,
            address: None,
            connection: Some(Connection { id, queued: 0, messages: 0, full: false, outbound }),
            liveness: None,
            tcp_lost: None,
            redial: None,
            redialling: false,
            routed: false,
            sent: 0,
            received: BTreeSet::new(),
            due: Duration::MAX,
        };
        self.by_number.insert(number, id);
        self.by_connection.insert(id, id);
        self.by_peer.entry(peer.name).or_default().push(id);
        self.links.insert(id, link);
    }

    /// `which_survives` of `weave-crypto`: of two dials that of the smaller UID.
    fn survives(&self, peer: Uid, old_outbound: bool, new_outbound: bool) -> bool {
        let smaller_dialled = (self.uid < peer) == new_outbound;
        old_outbound == new_outbound || smaller_dialled
    }

    fn newest_to(&self, peer: PeerName) -> Option<&Link> {
        let sessions = self.by_peer.get(&peer)?.iter();
        sessions.filter_map(|session| self.links.get(session)).max_by_key(|link| link.number)
    }

    fn on_resumed(&mut self, id: ConnectionId, session: Session, outbound: bool) {
        let Some(link) = self.links.get(&session) else { return self.effects.push(Effect::Close(id)) };
        let (peer, number) = (link.peer.uid, link.number);
        let old = link.connection.as_ref().map(|old| (old.id, old.outbound));
        if let Some((_, old_outbound)) = old
            && !self.survives(peer, old_outbound, outbound)
        {
            if let Some(link) = self.links.get_mut(&session) {
                link.redialling = false;
            }
            self.arm(session);
            return self.effects.push(Effect::Close(id));
        }
        if let Some((old, _)) = old {
            self.by_connection.remove(&old);
            self.effects.push(Effect::Close(old));
        }
        if let Some(link) = self.links.get_mut(&session) {
            link.connection = Some(Connection { id, queued: 0, messages: 0, full: false, outbound });
            link.redialling = false;
            link.tcp_lost = None;
            link.redial = None;
            if let Some(liveness) = &mut link.liveness {
                liveness.on_tcp_resumed();
            }
        }
        self.by_connection.insert(id, session);
        self.arm(session);
        self.mesh.set_writable(LinkNumber(number), true);
    }

    /// At the limit of links one that is not needed goes rather than a peer that
    /// nobody else can reach.
    fn make_room_for(&mut self, peer: PeerName, now: Duration) {
        if self.mesh.routes().peer(peer).is_some() {
            return;
        }
        let Some(session) = self.mesh.shed().and_then(|number| self.by_number.get(&number.0)).copied() else {
            return;
        };
        let bye = Message::Bye("the limit of links is reached and this one is not needed".into());
        if let Some(id) = self.links.get(&session).and_then(|link| link.connection.as_ref()).map(|c| c.id) {
            self.send(id, &bye, now);
        }
        self.lose_link(session, "it gave way to a peer without links", now);
    }

    // What comes over TCP (`messages.rs`).

    /// Something came over a connection.
    pub fn on_payload(&mut self, id: ConnectionId, payload: Payload, now: Duration) {
        match payload {
            Payload::Greeting(greeting) => self.on_greeting(id, greeting, now),
            Payload::Message(bytes) => {
                let Some(session) = self.by_connection.get(&id).copied() else { return };
                self.character.overhear(&bytes);
                match Message::parse(&bytes) {
                    Ok(Some(message)) => self.on_message(session, message, now),
                    Ok(None) => {}
                    Err(_) => {
                        self.effects.push(Effect::Close(id));
                        self.end_connection(session, now);
                    }
                }
            }
        }
    }

    fn on_message(&mut self, session: Session, message: Message, now: Duration) {
        let Some(link) = self.links.get(&session) else { return };
        match message {
            Message::Describe(describe) => self.on_describe(session, &describe, now),
            Message::Gossip(gossip) => {
                let number = LinkNumber(link.number);
                if let Some(answer) = self.character.answer(&gossip) {
                    self.send_gossip(number, answer, now);
                }
                if self.character.hears(&gossip) {
                    self.mesh.on_gossip(number, gossip, now);
                }
            }
            Message::Bye(_) => self.lose_link(session, "the peer ended the link", now),
            Message::Ping(_)
            | Message::Pong(_)
            | Message::RekeyOffer(_)
            | Message::RekeyAnswer(_)
            | Message::RekeyConfirm { .. } => {}
        }
    }

    fn on_describe(&mut self, session: Session, describe: &Describe, now: Duration) {
        let Some(link) = self.links.get_mut(&session) else { return };
        link.observed = describe.observed;
        if link.address.is_some() {
            return;
        }
        let address = SocketAddr::new(link.remote.ip(), describe.port);
        link.address = Some(address);
        link.liveness = Some(Liveness::new(now));
        let number = link.number;
        self.arm(session);
        self.dialler.linked(number, None, address);
        self.remember(address);
        self.tell_addresses(now);
    }

    fn remember(&mut self, target: SocketAddr) {
        let recent = &mut self.state.recent;
        if recent.first() != Some(&target) {
            recent.retain(|known| *known != target);
            recent.insert(0, target);
            recent.truncate(RECENT_KEPT);
        }
    }

    /// A dial failed, or a connection is over.
    pub fn on_closed(&mut self, id: ConnectionId, now: Duration) {
        if self.exchanges.contains_key(&id) {
            self.exchange_failed(id, false, now);
        } else if let Some(session) = self.by_connection.get(&id).copied() {
            self.end_connection(session, now);
        }
    }

    /// Ends the TCP connection of a link; the link goes on while its probes are answered.
    fn end_connection(&mut self, session: Session, now: Duration) {
        let Some(link) = self.links.get_mut(&session) else { return };
        let Some(connection) = link.connection.take() else { return };
        self.by_connection.remove(&connection.id);
        link.tcp_lost = Some(now);
        link.redial = Some((Backoff::new(now), now));
        if let Some(liveness) = &mut link.liveness {
            liveness.on_tcp_end(now);
        }
        self.mesh.connection_lost(LinkNumber(link.number));
        let described = link.address.is_some();
        self.arm(session);
        if !described {
            self.lose_link(session, "TCP ended", now);
        }
    }

    /// So many bytes of what was sent over a connection left its queue.
    pub fn on_written(&mut self, id: ConnectionId, len: usize) {
        let Some(link) = self.by_connection.get(&id).and_then(|session| self.links.get_mut(session)) else {
            return;
        };
        let number = LinkNumber(link.number);
        let Some(connection) = link.connection.as_mut().filter(|connection| connection.id == id) else {
            return;
        };
        connection.queued = connection.queued.saturating_sub(len);
        connection.messages = connection.messages.saturating_sub(1);
        if connection.queued <= DRAINED && std::mem::take(&mut connection.full) {
            self.mesh.set_writable(number, true);
        }
    }

    fn send(&mut self, id: ConnectionId, message: &Message, now: Duration) {
        let bytes = self.character.encode(message);
        match message {
            Message::Gossip(Gossip::Summary(_)) => self.sent.summaries += bytes.len() as u64,
            Message::Gossip(_) => self.sent.gossip += bytes.len() as u64,
            _ => {}
        }
        self.send_bytes(id, bytes, now);
        if let Some(bytes) = self.character.also(message) {
            self.send_bytes(id, bytes, now);
        }
    }

    fn send_bytes(&mut self, id: ConnectionId, bytes: Vec<u8>, now: Duration) {
        let Some(session) = self.by_connection.get(&id).copied() else { return };
        let Some(connection) = self.links.get_mut(&session).and_then(|link| link.connection.as_mut()) else {
            return;
        };
        let payload = Payload::Message(bytes.into());
        self.sent.tcp += (payload.len() + TCP_IP_LEN) as u64;
        connection.queued += payload.len();
        connection.messages += 1;
        if connection.queued > SEND_QUEUE {
            self.effects.push(Effect::Close(id));
            return self.end_connection(session, now);
        }
        self.effects.push(Effect::Send(id, payload));
    }

    /// A hostile host does one of its tricks.
    pub fn mischief(&mut self, now: Duration) {
        let connections: Vec<_> =
            self.links.values().filter_map(|link| link.connection.as_ref()).map(|c| c.id).collect();
        let neighbours: Vec<_> = self.links.values().map(|link| link.peer.name).collect();
        let Character::Hostile(hostile) = &mut self.character else { return };
        for (way, bytes) in hostile.trick(self.uid, &neighbours) {
            if let Some(id) = connections.get(way % connections.len().max(1)) {
                self.send_bytes(*id, bytes, now);
            }
        }
    }

    // What comes over UDP (`datagrams.rs`, and the shards).

    /// A datagram of a link came.
    pub fn on_datagram(&mut self, session: Session, datagram: Datagram, now: Duration) {
        let Some(link) = self.links.get_mut(&session) else { return };
        if !link.received.insert(datagram.number) {
            return;
        }
        if link.received.len() > REPLAY_WINDOW {
            link.received.pop_first();
        }
        match datagram.body {
            Body::Control(bytes) => match ControlMessage::parse(&bytes) {
                Some(ControlMessage::Heartbeat(beat)) => {
                    self.send_control(session, &ControlMessage::HeartbeatAck(beat));
                }
                Some(ControlMessage::HeartbeatAck(beat)) => self.on_heartbeat_ack(session, beat, now),
                Some(_) | None => {}
            },
            Body::Frame(frame) => self.on_frame(session, frame),
        }
    }

    fn on_heartbeat_ack(&mut self, session: Session, beat: Heartbeat, now: Duration) {
        let Some(link) = self.links.get_mut(&session) else { return };
        let Some(liveness) = &mut link.liveness else { return };
        liveness.on_answer(beat.sequence, now);
        if liveness.is_established() && !std::mem::replace(&mut link.routed, true) {
            let number = link.number;
            self.dialler.established(number);
            self.routes_changed = true;
            self.mesh.link_established(LinkNumber(number), true, now);
        }
        self.arm(session);
    }

    fn send_control(&mut self, session: Session, message: &ControlMessage) {
        // Outer header, tag, UDP and IP.
        const IN_PACKETS: u64 = (ControlMessage::LEN + 16 + 16 + 8 + 20) as u64;
        self.sent.heartbeats += IN_PACKETS;
        self.send_datagram(session, Body::Control(message.encode()));
    }

    fn send_datagram(&mut self, session: Session, body: Body) {
        let Some(link) = self.links.get_mut(&session) else { return };
        let Some(address) = link.address else { return };
        link.sent += 1;
        self.effects.push(Effect::Datagram(address, session, Datagram { number: link.sent, body }));
    }

    /// A container here sends a frame.
    pub fn send_frame(&mut self, number: u64, destination: Option<PeerName>) {
        let header = InnerHeader::new(self.state.name, destination, None);
        let frame = Frame { number, header, crossed: 0 };
        let links = match destination {
            Some(peer) => {
                let next = self.table.peers.get(&peer).map(|route| route.next);
                next.map(|next| self.character.first_link(&self.table, next)).into_iter().collect()
            }
            None => self.table.broadcast.clone(),
        };
        for link in links {
            self.forward(link, frame);
        }
    }

    fn forward(&mut self, link: Session, frame: Frame) {
        let frame = Frame { crossed: frame.crossed.saturating_add(1), ..frame };
        self.send_datagram(link, Body::Frame(frame));
    }

    fn on_frame(&mut self, session: Session, frame: Frame) {
        let Some(neighbour) = self.links.get(&session).map(|link| link.peer.name) else { return };
        let ours = self.state.name;
        match self.character.course(&self.table, ours, session, neighbour, &frame.header) {
            Ok(course) => {
                if course.here {
                    self.effects.push(Effect::Deliver(frame));
                }
                for link in course.on {
                    match self.character.relayed(frame.header) {
                        Some(header) => self.forward(link, Frame { header, ..frame }),
                        None => self.effects.push(Effect::Drop(frame, crate::frames::Drop::HopLimit)),
                    }
                }
            }
            Err(reason) => self.effects.push(Effect::Drop(frame, reason)),
        }
    }

    // What the mesh decides (`gossip.rs`).

    fn run_mesh(&mut self, now: Duration) {
        if let Some((at, timer)) = self.mesh.poll_timeout()
            && at <= now
        {
            let watch = self.route_times.as_mut().filter(|_| timer == weave_mesh::Timer::Routes);
            let begun = watch.as_ref().map(|watch| (watch.clock)());
            self.mesh.handle_timeout(now);
            if let (Some(watch), Some(begun)) = (watch, begun) {
                watch.note((watch.clock)().saturating_sub(begun));
            }
        }
        while let Some(output) = self.mesh.poll_output() {
            match output {
                Output::Send(link, gossip) => self.send_gossip(link, gossip, now),
                Output::RoutesChanged => self.routes_changed = true,
                Output::PeersChanged => self.peers_changed = true,
                Output::NamesChanged(names) => self.names_changed.extend(names),
                Output::Cloned { must_rename, .. } => self.on_cloned(must_rename),
                Output::StationsChanged(_)
                | Output::Withdrawn(_)
                | Output::AddressWithdrawn(_)
                | Output::Refused(_) => {}
            }
        }
        if std::mem::take(&mut self.peers_changed) {
            self.discover(now);
        }
    }

    /// Another host runs on a copy of our state. Who must, goes on as another.
    fn on_cloned(&mut self, must_rename: bool) {
        if must_rename && !std::mem::replace(&mut self.superseded, true) {
            self.effects.push(Effect::Rename);
        }
    }

    /// Sends gossip over a link, whatever it is.
    pub fn send_gossip(&mut self, number: LinkNumber, gossip: Gossip, now: Duration) {
        let Some(session) = self.by_number.get(&number.0).copied() else { return };
        let id = self.links.get(&session).and_then(|link| link.connection.as_ref()).map(|c| c.id);
        if let Some(id) = id {
            self.send(id, &Message::Gossip(gossip), now);
        }
        let connection = self.links.get_mut(&session).and_then(|link| link.connection.as_mut());
        let is_full = connection.is_none_or(|connection| {
            connection.full = connection.queued >= FULL.0 || connection.messages >= FULL.1;
            connection.full
        });
        if is_full {
            self.mesh.set_writable(number, false);
        }
    }

    fn discover(&mut self, now: Duration) {
        let limit = self.settings.conn_limit.min(MAX_LINKS - 1);
        let candidates = if self.settings.discovery && self.links.len() < limit {
            let wanted = self.mesh.peers().filter(|peer| peer.route.is_some() && peer.link.is_none());
            wanted
                .map(|peer| {
                    let dialled = peer.addresses.iter().filter(|address| weave_mesh::may_dial(**address));
                    (peer.name, dialled.copied().collect())
                })
                .collect()
        } else {
            Vec::new()
        };
        self.dialler.set_discovered(candidates, self.state.name, now);
    }

    fn tell_addresses(&mut self, now: Duration) {
        let seen = self.links.values().filter_map(|link| link.observed);
        let mut addresses: Vec<_> =
            seen.map(|ip| SocketAddr::new(ip, PORT)).filter(|at| weave_mesh::may_dial(*at)).collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(OWN_ADDRESSES);
        self.mesh.set_addresses(addresses, now);
    }

    fn shard_routes(&self) -> RouteTable {
        let session = |number: &LinkNumber| self.by_number.get(&number.0).copied();
        // While one link follows another the peer may still use either.
        let all = |numbers: &[LinkNumber]| -> Vec<Session> {
            let links = numbers.iter().filter_map(|n| self.links.get(&session(n)?));
            links.filter_map(|link| self.by_peer.get(&link.peer.name)).flatten().copied().collect()
        };
        let routes = self.mesh.routes();
        let peers = routes.peers.iter().filter_map(|route| {
            let shard = ShardRoute {
                next: session(&route.next)?,
                unicast_from: all(&route.unicast_from),
                broadcast_from: all(&route.broadcast_from),
                broadcast_to: route.broadcast_to.iter().filter_map(session).collect(),
            };
            Some((route.peer, shard))
        });
        let mut table = RouteTable {
            peers: peers.collect(),
            broadcast: routes.broadcast.iter().filter_map(session).collect(),
        };
        // A link that passes data is used before both ends have told all others of it,
        // unless its peer is reached by others so far.
        for link in self.links.values().filter(|link| link.is_established()) {
            if !table.peers.contains_key(&link.peer.name) {
                let own = vec![link.session];
                let route = ShardRoute {
                    next: link.session,
                    unicast_from: own.clone(),
                    broadcast_from: own,
                    broadcast_to: Vec::new(),
                };
                table.peers.insert(link.peer.name, route);
                table.broadcast.push(link.session);
            }
        }
        table
    }

    // Ends of links (`core.rs`).

    fn lose_link(&mut self, session: Session, reason: &str, now: Duration) {
        let jitter = self.random.unit();
        let Some(link) = self.links.get(&session) else { return };
        let (number, address, established) = (link.number, link.address, link.is_established());
        self.dialler.lost(number, reason, established, now, jitter);
        if let Some(address) = address.filter(|_| self.settings.discovery) {
            let covered = self.dialler.entries().iter().any(|entry| entry.address == Some(address));
            if !covered {
                self.dialler.add_recent(address, now);
            }
        }
        self.remove_link(session, now);
    }

    fn remove_link(&mut self, session: Session, now: Duration) {
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

impl Exchange {
    const fn ticket(&self) -> Option<Ticket> {
        match self.stage {
            Stage::Accepted(ticket)
            | Stage::Answered(ticket, _)
            | Stage::ProvedLink(ticket, _)
            | Stage::Refused(ticket) => Some(ticket),
            Stage::Connecting(_) | Stage::SaidHello(_) | Stage::Confirmed(..) | Stage::AskedToResume(_) => {
                None
            }
        }
    }

    const fn dial(&self) -> Option<DialId> {
        match self.stage {
            Stage::Confirmed(Dial::Link { id }, _) => Some(id),
            _ => None,
        }
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
