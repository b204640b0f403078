//! The state of the control core and what each event does to it.

mod tasks;
mod timers;

pub(super) use tasks::{accept, receive, reports, signals};

use super::greeting::{Greeted, GreetingError, Outcome, Resumptions, entropy};
use super::link::{Connection, Incoming, Link, SEND_QUEUE_MESSAGES, ShardWork};
use super::server::Answer;
use super::status::Refusals;
use super::{Signal, status};
use crate::config::Config;
use crate::rt::{self, TcpStream};
use crate::state::Saver;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use weave_api::problem::{Code, Problem};
use weave_api::request::{Reply, Request};
use weave_api::target::Target;
use weave_crypto::{
    Crossing, Dialler as Side, Established, IdentityKey, KEY_LIFETIME, LinkKeys, LocalPeer, Rekey,
    RekeyPolicy, Resumed, which_survives,
};
use weave_forward::{
    Command, Group, LinkId, MAX_LINKS, MacChange, ReceiveSession, Report, Routes, SendSession, boot_time,
};
use weave_mesh::{Admission, DialId, Dialler, Liveness, Seen, Stations, Ticket};
use weave_wire::link::heartbeat::{ControlMessage, Heartbeat};
use weave_wire::link::message::{Describe, Message};
use weave_wire::link::resume::LinkId as LinkName;
use weave_wire::{Lane, MacAddr, Nickname, OuterHeader, PeerName, SessionIndex};

/// Events handled before timers are looked at again.
const EVENTS_AT_ONCE: usize = 256;
/// Names bound to identity keys, at most.
const BINDINGS: usize = 4096;
/// How long a binding outlives the peer's last link.
const BINDING_KEPT: Duration = Duration::from_secs(3600);
/// How often attachments are read again and stations expire.
const HOUSEKEEPING: Duration = Duration::from_secs(30);
/// How often shards are told of stations, at most: a flood of new ones must not
/// become a flood of commands.
const MACS_EVERY: Duration = Duration::from_millis(10);
/// How long a link may live without TCP: its keys end then.
const TCP_LOST_LIMIT: Duration = KEY_LIFETIME;

/// Something happened.
pub(super) enum Event {
    /// Somebody connected.
    Accepted(TcpStream, SocketAddr),
    /// An accepted connection is greeted, or not.
    Answered(Ticket, SocketAddr, Result<Greeted, GreetingError>),
    /// A dial ended.
    Dialled(DialId, Option<SocketAddr>, Result<Greeted, GreetingError>),
    /// A redial of a link's TCP connection ended.
    Redialled(u64, SocketAddr, Result<Greeted, GreetingError>),
    /// Bytes came over a connection.
    Bytes(u64, Vec<u8>),
    /// A connection ended.
    Closed(u64, String),
    /// A datagram of the control lane.
    Datagram(Vec<u8>, SocketAddr),
    /// A shard reports.
    Report(Report),
    /// A client asks.
    Asked(Request, Answer),
    /// A signal came.
    Signal(Signal),
}

/// What the core is made of.
pub(super) struct Parts {
    pub(super) local: Arc<LocalPeer>,
    pub(super) nickname: Nickname,
    pub(super) config: Arc<Config>,
    pub(super) group: Group,
    pub(super) heartbeats: UdpSocket,
    pub(super) saver: Saver,
    pub(super) degraded: Vec<(&'static str, String)>,
    pub(super) events: rt::Sender<Event>,
}

struct Binding {
    key: IdentityKey,
    seen: Duration,
}

/// Counters of the control core.
#[derive(Debug, Default)]
pub(super) struct CoreCounters {
    pub(super) accepted: u64,
    pub(super) refused: u64,
    pub(super) handshakes_failed: u64,
    pub(super) links_made: u64,
    pub(super) links_lost: u64,
    pub(super) rekeys: u64,
    pub(super) resumptions: u64,
    pub(super) heartbeats_sent: u64,
    pub(super) heartbeats_dropped: u64,
    pub(super) keep_alives_dropped: u64,
    pub(super) mac_flaps: u64,
    pub(super) mac_conflicts: u64,
}

/// All state.
pub(super) struct Core {
    pub(super) local: Arc<LocalPeer>,
    pub(super) nickname: Nickname,
    pub(super) config: Arc<Config>,
    pub(super) group: Group,
    heartbeats: UdpSocket,
    saver: Saver,
    events: rt::Sender<Event>,
    started: Instant,
    pub(super) links: BTreeMap<LinkId, Link>,
    /// Links by our names of their sessions.
    sessions: HashMap<u64, LinkId>,
    resumptions: Resumptions,
    pub(super) dialler: Dialler<Target>,
    admission: Admission,
    answering: HashMap<Ticket, rt::Sender<()>>,
    pub(super) stations: Stations,
    bindings: HashMap<PeerName, Binding>,
    pub(super) refusals: Refusals,
    pub(super) degraded: Vec<(&'static str, String)>,
    pub(super) counters: CoreCounters,
    /// Where peers were, the latest first.
    pub(super) recent: Vec<Target>,
    mac_changes: Vec<MacChange>,
    /// When the shards may be told of them.
    macs_at: Duration,
    routes_changed: bool,
    next_number: u64,
    housekeeping_at: Duration,
    end: Option<Result<(), String>>,
}

impl Core {
    pub(super) fn new(parts: Parts, targets: &[Target], recent: Vec<Target>) -> Self {
        let mut core = Self {
            local: parts.local,
            nickname: parts.nickname,
            config: parts.config,
            group: parts.group,
            heartbeats: parts.heartbeats,
            saver: parts.saver,
            events: parts.events,
            started: Instant::now(),
            links: BTreeMap::new(),
            sessions: HashMap::new(),
            resumptions: Resumptions::default(),
            dialler: Dialler::default(),
            admission: Admission::new(Duration::ZERO),
            answering: HashMap::new(),
            stations: Stations::default(),
            bindings: HashMap::new(),
            refusals: Refusals::default(),
            degraded: parts.degraded,
            counters: CoreCounters::default(),
            recent: Vec::new(),
            mac_changes: Vec::new(),
            macs_at: Duration::ZERO,
            routes_changed: false,
            next_number: 0,
            housekeeping_at: Duration::ZERO,
            end: None,
        };
        if !core.dialler.add_targets(targets, Duration::ZERO) {
            tracing::error!("more targets than a router can have: none is dialled");
        }
        if core.config.discovery {
            for target in &recent {
                core.dialler.add_recent(target.clone(), Duration::ZERO);
            }
            core.recent = recent;
        }
        core
    }

    /// Time since the start, by the monotonic clock.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn reports(&self) -> rt::Receiver<Report> {
        self.group.reports()
    }

    /// Handles events until told to stop.
    pub(super) async fn run(&mut self, inbox: rt::Receiver<Event>) -> Result<(), String> {
        loop {
            self.on_timers();
            self.flush();
            if let Some(end) = self.end.take() {
                return end;
            }
            let wait = self.deadline().saturating_sub(self.now());
            let Some(first) = rt::timeout(wait, inbox.recv()).await else { continue };
            let Ok(first) = first else { return Err("the control core lost its events".into()) };
            self.handle(first);
            for _ in 0..EVENTS_AT_ONCE {
                let Ok(event) = inbox.try_recv() else { break };
                self.handle(event);
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Accepted(stream, address) => self.on_accepted(stream, address),
            Event::Answered(ticket, address, result) => self.on_answered(ticket, address, result),
            Event::Dialled(dial, address, result) => self.on_dialled(dial, address, result),
            Event::Redialled(number, address, result) => self.on_redialled(number, address, result),
            Event::Bytes(connection, bytes) => self.on_bytes(connection, &bytes),
            Event::Closed(connection, reason) => self.on_closed(connection, &reason),
            Event::Datagram(datagram, source) => self.on_datagram(datagram, source),
            Event::Report(report) => self.on_report(report),
            Event::Asked(request, answer) => self.on_asked(request, answer),
            Event::Signal(Signal::Stop) => self.stop(),
        }
    }

    fn stop(&mut self) {
        tracing::info!("stopping");
        for link in self.links.values_mut() {
            // A peer that does not hear it finds out by its probes.
            let _ = link.send(&Message::Bye("the router stops".into()));
        }
        self.end.get_or_insert(Ok(()));
    }

    // Connections and handshakes.

    /// True if a peer at this address is expected: a target or a recent peer.
    fn is_known(&self, address: IpAddr) -> bool {
        self.dialler.entries().iter().any(|entry| {
            entry.address.map(|known| known.ip()) == Some(address)
                || entry.target.address(0).map(|known| known.ip()) == Some(address)
        }) || self.links.values().any(|link| link.remote.ip() == address)
    }

    fn on_accepted(&mut self, stream: TcpStream, address: SocketAddr) {
        self.counters.accepted += 1;
        let (now, known) = (self.now(), self.is_known(address.ip()));
        let admitted = match self.admission.admit(address.ip(), known, now) {
            Ok(admitted) => admitted,
            Err(refusal) => {
                self.counters.refused += 1;
                tracing::debug!(%address, ?refusal, "connection refused");
                return;
            }
        };
        if let Some(evicted) = admitted.evicted {
            // Dropping the other end of its channel ends the task.
            self.answering.remove(&evicted);
        }
        let (cancel, cancelled) = rt::bounded(1);
        self.answering.insert(admitted.ticket, cancel);
        let (local, links, events) =
            (Arc::clone(&self.local), Rc::clone(&self.resumptions), self.events.clone());
        rt::spawn(tasks::answer(admitted.ticket, stream, address, local, links, cancelled, events));
    }

    fn on_answered(&mut self, ticket: Ticket, address: SocketAddr, result: Result<Greeted, GreetingError>) {
        self.admission.done(ticket);
        self.answering.remove(&ticket);
        match result {
            Ok(greeted) => self.on_greeted(greeted, Side::Peer, None, address),
            Err(error) => self.on_refused(address, &error),
        }
    }

    fn on_refused(&mut self, address: SocketAddr, error: &GreetingError) {
        self.counters.handshakes_failed += 1;
        let now = self.now();
        if self.refusals.note(address.ip(), error.to_string(), now) {
            tracing::warn!(address = %address.ip(), "a peer did not get in: {error}");
        }
    }

    fn on_dialled(
        &mut self,
        dial: DialId,
        address: Option<SocketAddr>,
        result: Result<Greeted, GreetingError>,
    ) {
        let now = self.now();
        if let Some(address) = address {
            self.dialler.resolved(dial, address);
        }
        match (result, address) {
            (Ok(greeted), Some(address)) => self.on_greeted(greeted, Side::Us, Some(dial), address),
            (Ok(_), None) => {}
            (Err(error @ GreetingError::Linked), Some(address)) => {
                match self.links.values().find(|link| link.address == Some(address)) {
                    Some(link) => self.dialler.linked(link.number, Some(dial), address),
                    None => self.dialler.failed(dial, error.to_string(), false, now, jitter()),
                }
            }
            (Err(error), _) => {
                let refused = error.is_refusal();
                if refused {
                    self.counters.handshakes_failed += 1;
                    if address.is_some_and(|address| self.refusals.may_log(address.ip(), now)) {
                        tracing::warn!(?address, "a dial failed: {error}");
                    }
                }
                self.dialler.failed(dial, error.to_string(), refused, now, jitter());
            }
        }
    }

    fn on_redialled(&mut self, number: u64, address: SocketAddr, result: Result<Greeted, GreetingError>) {
        let now = self.now();
        let Some(id) = self.link_by_number(number) else { return };
        match result {
            Ok(greeted) => self.on_greeted(greeted, Side::Us, None, address),
            Err(error) => {
                let Some(link) = self.links.get_mut(&id) else { return };
                link.redialling = false;
                if let Some((backoff, at)) = &mut link.redial {
                    *at = now + backoff.fail(false, now, jitter());
                }
                tracing::debug!(%address, "resuming a link: {error}");
            }
        }
    }

    fn on_greeted(&mut self, greeted: Greeted, side: Side, dial: Option<DialId>, remote: SocketAddr) {
        match greeted.outcome {
            Outcome::New(established, session) => {
                self.on_established(greeted.stream, *established, session, side, dial, remote);
            }
            Outcome::Resumed(name, resumed) => self.on_resumed(greeted.stream, name, *resumed, side, remote),
        }
    }

    fn on_established(
        &mut self,
        stream: TcpStream,
        established: Established,
        session: SessionIndex,
        side: Side,
        dial: Option<DialId>,
        remote: SocketAddr,
    ) {
        let now = self.now();
        let peer = established.peer;
        let refuse = |core: &mut Self, reason: String| {
            core.counters.handshakes_failed += 1;
            if core.refusals.note(remote.ip(), reason.clone(), now) {
                tracing::warn!(peer = %peer.name, %remote, "link refused: {reason}");
            }
            if let Some(dial) = dial {
                core.dialler.failed(dial, reason, true, now, jitter());
            }
        };
        if self.is_bound_to_another(peer.name, peer.identity, now) {
            refuse(self, format!("the name {} belongs to a peer with another identity key", peer.name));
            return;
        }
        let old = self
            .links
            .values()
            .find(|link| link.peer.name == peer.name)
            .map(|link| (link.id, link.peer.uid, link.side));
        if let Some((old_id, old_uid, old_side)) = old
            && old_uid == peer.uid
            && which_survives(self.local.uid, peer.uid, old_side, side) == Crossing::KeepOld
        {
            tracing::debug!(peer = %peer.name, "two dials crossed: the other connection stays");
            if let Some(number) = self.links.get(&old_id).map(|link| link.number) {
                self.dialler.linked(number, dial, remote);
            }
            return;
        }
        let limit = usize::from(self.config.conn_limit).min(MAX_LINKS - 1);
        let Some(id) = self.free_link_id().filter(|_| old.is_some() || self.links.len() < limit) else {
            refuse(self, format!("this host has its {limit} links"));
            return;
        };
        self.bind(peer.name, peer.identity, now);
        let number = self.next_number();
        let connection = self.connection(stream, established.sealer, established.opener, side);
        let policy = self.config.test.rekey_interval.map_or_else(RekeyPolicy::default, RekeyPolicy::every);
        let (ours, boot) = (self.local.uid, boot_time());
        let rekey =
            Rekey::new(ours, session, &peer, established.keys.clone(), established.connection, policy, boot);
        let shards = self.group.shards();
        let name = established.resumption.link_id();
        self.resumptions.borrow_mut().insert(name, established.resumption.clone());
        let mut link =
            Link::new(number, id, peer, side, remote, connection, established.resumption, rekey, shards, now);
        link.install(session, &established.keys, shards);
        self.links.insert(id, link);
        self.counters.links_made += 1;
        self.install(id, session, &established.keys);
        match old {
            Some((old_id, ..)) => {
                let old_number = self.links.get(&old_id).map(|link| link.number);
                if let Some(old_number) = old_number {
                    self.dialler.relinked(old_number, number);
                }
                self.dialler.linked(number, dial, remote);
                self.remove_link(old_id);
            }
            None => self.dialler.linked(number, dial, remote),
        }
        tracing::info!(peer = %peer.name, %remote, encrypted = self.is_encrypted(), "link authenticated");
        let describe = self.describe();
        self.send(id, &describe);
    }

    fn on_resumed(
        &mut self,
        stream: TcpStream,
        name: LinkName,
        resumed: Resumed,
        side: Side,
        remote: SocketAddr,
    ) {
        let found = self.links.values().find(|link| link.resumption.link_id() == name);
        let Some((id, peer)) = found.map(|link| (link.id, link.peer)) else { return };
        let Some(link) = self.links.get_mut(&id) else { return };
        link.redialling = false;
        if let Some(old) = &link.connection
            && which_survives(self.local.uid, peer.uid, old.side, side) == Crossing::KeepOld
        {
            return;
        }
        let connection = self.connection(stream, resumed.sealer, resumed.opener, side);
        let (boot, shards) = (boot_time(), self.group.shards());
        let Some(link) = self.links.get_mut(&id) else { return };
        let actions = link.reconnect(connection, resumed.connection, resumed.count, boot);
        let (work, result) = link.carry_out(actions, shards);
        self.resumptions.borrow_mut().insert(name, link.resumption.clone());
        self.counters.resumptions += 1;
        tracing::info!(peer = %peer.name, %remote, "link resumed over TCP");
        self.shard_work(id, work);
        self.end_connection_on(id, result);
    }

    fn connection(
        &mut self,
        stream: TcpStream,
        sealer: weave_crypto::RecordSealer,
        opener: weave_crypto::RecordOpener,
        side: Side,
    ) -> Connection {
        let number = self.next_number();
        let (out, queue) = rt::bounded(SEND_QUEUE_MESSAGES);
        let queued = Rc::default();
        let (reader, writer) = futures_lite::io::split(stream);
        let (alive, ended) = rt::bounded(1);
        rt::spawn(tasks::read(number, reader, ended.clone(), self.events.clone()));
        rt::spawn(tasks::write(number, writer, queue, Rc::clone(&queued), ended, self.events.clone()));
        Connection { number, opener, sealer, out, queued, _alive: alive, side }
    }

    /// True if the name belongs to another key: of a live link, or of one that
    /// ended within the hour.
    fn is_bound_to_another(&self, name: PeerName, key: IdentityKey, now: Duration) -> bool {
        let linked = || self.links.values().any(|link| link.peer.name == name);
        self.bindings.get(&name).is_some_and(|binding| {
            binding.key != key && (now.saturating_sub(binding.seen) < BINDING_KEPT || linked())
        })
    }

    fn bind(&mut self, name: PeerName, key: IdentityKey, now: Duration) {
        if self.bindings.len() >= BINDINGS {
            let linked = |name: &PeerName| self.links.values().any(|link| link.peer.name == *name);
            self.bindings
                .retain(|name, binding| linked(name) || now.saturating_sub(binding.seen) < BINDING_KEPT);
        }
        if self.bindings.len() < BINDINGS || self.bindings.contains_key(&name) {
            self.bindings.insert(name, Binding { key, seen: now });
        }
    }

    fn next_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    fn free_link_id(&self) -> Option<LinkId> {
        #[expect(clippy::cast_possible_truncation, reason = "512")]
        let limit = MAX_LINKS as u16;
        (0..limit).map(LinkId).find(|id| !self.links.contains_key(id))
    }

    fn link_by_number(&self, number: u64) -> Option<LinkId> {
        self.links.values().find(|link| link.number == number).map(|link| link.id)
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.local.secrets.mode() == weave_wire::link::handshake::Mode::Encrypted
    }

    fn describe(&self) -> Message {
        let addresses =
            self.config.advertise.iter().filter_map(|target| target.address(self.config.port)).collect();
        Message::Describe(Describe { nickname: self.nickname.clone(), port: self.group.port(), addresses })
    }

    // What comes over TCP.

    fn link_of_connection(&self, number: u64) -> Option<LinkId> {
        let of =
            |link: &&Link| link.connection.as_ref().is_some_and(|connection| connection.number == number);
        self.links.values().find(of).map(|link| link.id)
    }

    fn on_bytes(&mut self, connection: u64, mut bytes: &[u8]) {
        let Some(id) = self.link_of_connection(connection) else { return };
        loop {
            let Some(link) = self.links.get_mut(&id) else { return };
            if link.connection.as_ref().is_none_or(|current| current.number != connection) {
                return;
            }
            match link.read(&mut bytes) {
                Ok(Some(Incoming::Message(message))) => self.on_message(id, message),
                Ok(Some(Incoming::Unknown)) => {}
                Ok(None) => return,
                Err(reason) => return self.end_connection_on(id, Err(reason)),
            }
        }
    }

    fn on_message(&mut self, id: LinkId, message: Message) {
        let (boot, shards) = (boot_time(), self.group.shards());
        let Some(link) = self.links.get_mut(&id) else { return };
        let actions = match message {
            Message::Describe(describe) => return self.on_describe(id, describe),
            Message::RekeyOffer(offer) => link.rekey.on_offer(offer, &mut entropy, boot),
            Message::RekeyAnswer(answer) => link.rekey.on_answer(answer, boot),
            Message::RekeyConfirm { epoch } => link.rekey.on_confirm(epoch, boot),
            Message::Ping(number) => return self.send(id, &Message::Pong(number)),
            Message::Pong(_) => return,
            Message::Bye(reason) => {
                tracing::info!(peer = %link.peer.name, "the peer ends the link: {reason}");
                return self.lose_link(id, &format!("the peer ended the link: {reason}"));
            }
        };
        match actions {
            Ok(actions) => {
                let (work, result) = link.carry_out(actions, shards);
                self.shard_work(id, work);
                self.end_connection_on(id, result);
            }
            Err(error) => self.end_connection_on(id, Err(error.to_string())),
        }
    }

    fn on_describe(&mut self, id: LinkId, describe: Describe) {
        let now = self.now();
        let Some(link) = self.links.get_mut(&id) else { return };
        link.nickname = Some(describe.nickname);
        if link.address.is_some() {
            return;
        }
        let address = SocketAddr::new(link.remote.ip(), describe.port);
        link.address = Some(address);
        link.liveness = Some(Liveness::new(now));
        if link.peer.mtu != self.config.mtu {
            tracing::warn!(
                peer = %link.peer.name,
                "unequal MTUs: {} there, {} here; give all hosts the same WEAVE_MTU",
                link.peer.mtu,
                self.config.mtu
            );
        }
        let number = link.number;
        let counters = link.counters.clone();
        let (session, keys) = (link.peer.session, link.rekey.keys().clone());
        link.send_heartbeats_under(session, &keys);
        self.dialler.linked(number, None, address);
        for (shard, counters) in counters.into_iter().enumerate() {
            self.command(shard, Command::SetLink { link: id, address, counters });
        }
        self.set_send(id, session, &keys);
        self.remember(Target::from(address));
    }

    /// Writes down where a peer was, to dial it at once after a restart.
    fn remember(&mut self, target: Target) {
        const RECENT_KEPT: usize = 64;
        if self.recent.first() == Some(&target) {
            return;
        }
        self.recent.retain(|known| *known != target);
        self.recent.insert(0, target);
        self.recent.truncate(RECENT_KEPT);
        self.saver.recent(self.recent.clone());
    }

    fn on_closed(&mut self, connection: u64, reason: &str) {
        if let Some(id) = self.link_of_connection(connection) {
            self.end_connection_on(id, Err(reason.to_owned()));
        }
    }

    /// Ends the TCP connection of a link if `result` says that it is of no more
    /// use; the link goes on while its probes are answered.
    fn end_connection_on(&mut self, id: LinkId, result: Result<(), String>) {
        let Err(reason) = result else { return };
        let (now, shards) = (self.now(), self.group.shards());
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.connection.is_none() {
            return;
        }
        tracing::info!(peer = %link.peer.name, "TCP of a link ended: {reason}");
        let actions = link.disconnect(now);
        let described = link.address.is_some();
        let (work, _) = link.carry_out(actions, shards);
        self.shard_work(id, work);
        if !described {
            self.lose_link(id, &reason);
        }
    }

    fn send(&mut self, id: LinkId, message: &Message) {
        let result = self.links.get_mut(&id).map_or(Ok(()), |link| link.send(message));
        self.end_connection_on(id, result);
    }

    // What comes over UDP.

    fn on_datagram(&mut self, mut datagram: Vec<u8>, source: SocketAddr) {
        let (now, boot) = (self.now(), boot_time());
        let Some((&header, _)) = OuterHeader::split(&datagram) else {
            self.counters.heartbeats_dropped += 1;
            return;
        };
        let id =
            (header.lane() == Some(Lane::CONTROL)).then(|| self.sessions.get(&header.session().0)).flatten();
        let message = id
            .and_then(|id| self.links.get_mut(id))
            .and_then(|link| link.open_control(header, &mut datagram, boot));
        let (Some(&id), Some(message)) = (id, message) else {
            self.counters.heartbeats_dropped += 1;
            tracing::trace!(%source, "a datagram of the control lane that nobody sealed");
            return;
        };
        let Some(link) = self.links.get_mut(&id) else { return };
        match message {
            ControlMessage::Heartbeat(beat) => {
                link.lanes_out |= beat.lanes_seen;
                if link.may_receive() {
                    let lanes_seen = std::mem::take(&mut link.lanes_seen);
                    let answer = Heartbeat { sequence: beat.sequence, lanes_seen };
                    self.send_control(id, &ControlMessage::HeartbeatAck(answer));
                }
            }
            ControlMessage::HeartbeatAck(beat) => {
                link.lanes_out |= beat.lanes_seen;
                let Some(liveness) = &mut link.liveness else { return };
                liveness.on_answer(beat.sequence, now);
                if liveness.is_established() && link.begin_routing() {
                    link.since = now;
                    tracing::info!(peer = %link.peer.name, address = ?link.address, "link established");
                    self.dialler.established(link.number);
                    self.routes_changed = true;
                }
            }
        }
    }

    fn send_control(&mut self, id: LinkId, message: &ControlMessage) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let Some(address) = link.address else { return };
        let Some(datagram) = link.seal_control(message) else { return };
        let address = match address {
            SocketAddr::V4(v4) if self.group.reaches_ipv6() => {
                SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
            }
            SocketAddr::V4(_) | SocketAddr::V6(_) => address,
        };
        match self.heartbeats.send_to(&datagram, address) {
            Ok(_) => self.counters.heartbeats_sent += 1,
            Err(error) => {
                self.counters.heartbeats_dropped += 1;
                tracing::debug!(%address, "sending a heartbeat: {error}");
            }
        }
    }

    // Shards.

    fn command(&mut self, shard: usize, command: Command) {
        if self.group.send(shard, command).is_err() {
            // A shard a thousand commands behind does not come back: its state
            // would no longer be ours.
            self.end.get_or_insert(Err(format!("shard {shard} takes no commands any more")));
        }
    }

    fn command_all(&mut self, command: impl Fn() -> Command) {
        for shard in 0..self.group.shards() {
            self.command(shard, command());
        }
    }

    fn shard_work(&mut self, id: LinkId, work: Vec<ShardWork>) {
        for work in work {
            match work {
                ShardWork::Install { session, keys } => self.install(id, session, &keys),
                ShardWork::Send { session, keys } => {
                    self.counters.rekeys += 1;
                    self.set_send(id, session, &keys);
                }
                ShardWork::Drop(session) => {
                    self.sessions.remove(&session.0);
                    self.command_all(|| Command::DropReceive(session));
                }
            }
        }
    }

    fn install(&mut self, id: LinkId, session: SessionIndex, keys: &LinkKeys) {
        self.sessions.insert(session.0, id);
        let Some(link) = self.links.get(&id) else { return };
        let (peer, mode, address, lanes) = (link.peer.name, link.mode(), link.remote.ip(), link.peer.lanes);
        let (expires, epoch) = (boot_time() + KEY_LIFETIME, u64::from(keys.epoch()));
        let shards = self.group.shards();
        for shard in 0..shards {
            let keys = (0..lanes)
                .filter(|lane| usize::from(*lane) % shards == shard)
                .filter_map(Lane::data)
                .map(|lane| (lane, keys.udp_key(keys.role().other(), lane)))
                .collect();
            let session =
                ReceiveSession { link: id, peer, address, epoch, index: session, mode, keys, expires };
            self.command(shard, Command::InstallReceive(Box::new(session)));
        }
    }

    fn set_send(&mut self, id: LinkId, session: SessionIndex, keys: &LinkKeys) {
        let Some(link) = self.links.get(&id) else { return };
        let mode = link.mode();
        let expires = boot_time() + KEY_LIFETIME;
        for shard in 0..self.group.shards() {
            #[expect(clippy::cast_possible_truncation, reason = "at most 64 shards")]
            let Some(lane) = Lane::data(shard as u8) else { continue };
            let session = SendSession {
                link: id,
                epoch: keys.epoch().into(),
                index: session,
                mode,
                lane,
                key: keys.udp_key(keys.role(), lane),
                expires,
            };
            self.command(shard, Command::SetSend(Box::new(session)));
        }
    }

    fn on_report(&mut self, report: Report) {
        let (now, boot, shards) = (self.now(), boot_time(), self.group.shards());
        match report {
            Report::ReceiveInstalled { shard, link: id, index } => {
                let Some(link) = self.links.get_mut(&id) else { return };
                if link.installed(index, shard) {
                    let actions = link.rekey.on_receive_installed(index);
                    let (work, result) = link.carry_out(actions, shards);
                    self.shard_work(id, work);
                    self.end_connection_on(id, result);
                }
            }
            Report::LaneSeen { link: id, lane, epoch, .. } => {
                let Some(link) = self.links.get_mut(&id) else { return };
                let bit = 1u64.checked_shl(lane.number().into()).unwrap_or(0);
                link.lanes_seen |= bit;
                link.lanes_in |= bit;
                if let Ok(epoch) = u32::try_from(epoch) {
                    link.rekey.on_lane_seen(lane, epoch, boot);
                }
            }
            Report::MacSeen { mac, peer } => self.on_mac(mac, peer, now),
            Report::KeyWearsOut(id) => {
                if let Some(link) = self.links.get_mut(&id) {
                    link.rekey.request();
                }
            }
            Report::SegmentationRefused(id) => {
                if let Some(link) = self.links.get_mut(&id) {
                    link.segmentation_refused.get_or_insert(now);
                    tracing::warn!(peer = %link.peer.name, "the route takes no segmented datagrams: sent one by one");
                }
            }
            Report::SegmentationRetried(id) => {
                if let Some(link) = self.links.get_mut(&id) {
                    link.segmentation_refused = None;
                }
            }
            Report::ControlDatagram { datagram, source } => self.on_datagram(datagram.into_vec(), source),
            Report::Ended { shard, error } => {
                let error = error.unwrap_or_else(|| "it ended by itself".into());
                self.end.get_or_insert(Err(format!("shard {shard}: {error}")));
            }
        }
    }

    fn on_mac(&mut self, mac: MacAddr, peer: PeerName, now: Duration) {
        let mut change = |mac, peer| self.mac_changes.push(MacChange { mac, peer });
        match self.stations.seen(mac, peer, now) {
            Seen::Known => {}
            Seen::Changed => change(mac, Some(peer)),
            Seen::Replaced(old) => {
                change(old, None);
                change(mac, Some(peer));
            }
            Seen::Held(at) => {
                change(mac, Some(at));
                self.counters.mac_flaps += 1;
            }
            Seen::Attached => {
                change(mac, None);
                self.counters.mac_conflicts += 1;
            }
        }
    }

    /// Tells the shards what changed.
    fn flush(&mut self) {
        let now = self.now();
        if !self.mac_changes.is_empty() && now >= self.macs_at {
            self.macs_at = now + MACS_EVERY;
            let changes = Arc::new(std::mem::take(&mut self.mac_changes));
            self.command_all(|| Command::ChangeMacs(Arc::clone(&changes)));
        }
        if std::mem::take(&mut self.routes_changed) {
            let established: Vec<_> = self.links.values().filter(|link| link.is_established()).collect();
            let routes = Arc::new(Routes {
                unicast: established.iter().map(|link| (link.peer.name, link.id)).collect(),
                broadcast: established.iter().map(|link| link.id).collect(),
            });
            self.command_all(|| Command::SetRoutes(Arc::clone(&routes)));
        }
    }

    // Ends of links.

    /// A link is dead: its targets are dialled again.
    fn lose_link(&mut self, id: LinkId, reason: &str) {
        let now = self.now();
        let Some(link) = self.links.get(&id) else { return };
        let (number, address, established) = (link.number, link.address, link.is_established());
        tracing::warn!(peer = %link.peer.name, "link lost: {reason}");
        self.counters.links_lost += 1;
        self.dialler.lost(number, reason, established, now, jitter());
        if let Some(address) = address.filter(|_| self.config.discovery) {
            let covered = self.dialler.entries().iter().any(|entry| entry.address == Some(address));
            if !covered {
                self.dialler.add_recent(address.into(), now);
            }
        }
        self.remove_link(id);
    }

    fn remove_link(&mut self, id: LinkId) {
        let Some(link) = self.links.remove(&id) else { return };
        for session in link.sessions() {
            self.sessions.remove(&session.0);
        }
        if let Some(binding) = self.bindings.get_mut(&link.peer.name) {
            binding.seen = self.started.elapsed();
        }
        self.resumptions.borrow_mut().remove(&link.resumption.link_id());
        self.command_all(|| Command::DropLink(id));
        self.routes_changed = true;
    }

    // Clients.

    fn on_asked(&mut self, request: Request, answer: Answer) {
        let now = self.now();
        let what = "cannot change the targets";
        let result = match request {
            Request::Status => Ok(Reply::Status(Box::new(status::status(self, now)))),
            Request::Connect { replace, peers } => {
                let done = if replace {
                    self.dialler.replace_targets(&peers, now)
                } else {
                    self.dialler.add_targets(&peers, now)
                };
                self.saver.targets(self.dialler.targets().cloned().collect());
                let limit = weave_mesh::dialler::TARGETS;
                let why = format!("more than {limit} targets");
                done.then_some(Reply::Done)
                    .ok_or_else(|| Problem::new(Code::TooLarge, what, why, "forget some"))
            }
            Request::Forget { peers } => {
                self.dialler.forget(&peers);
                self.recent.retain(|known| !peers.contains(known));
                self.saver.targets(self.dialler.targets().cloned().collect());
                self.saver.recent(self.recent.clone());
                Ok(Reply::Done)
            }
            Request::Stop => {
                self.stop();
                Ok(Reply::Done)
            }
            Request::AttachmentsChanged => {
                self.read_attachments();
                Ok(Reply::Done)
            }
            Request::Subscribe => {
                let why = "this router sends no events";
                Err(Problem::new(Code::UnknownCommand, "cannot subscribe", why, "ask for the status instead"))
            }
        };
        answer.give(result);
    }
}

/// A random number from 0 to 1, for waits.
#[expect(clippy::cast_precision_loss, reason = "jitter")]
fn jitter() -> f64 {
    super::random_u64() as f64 / u64::MAX as f64
}
