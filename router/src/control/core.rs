//! The state of the control core and what each event does to it.

mod clients;
mod datagrams;
mod gossip;
mod greeted;
mod inbox;
mod messages;
mod paths;
mod pings;
mod shards;
mod tasks;
mod timers;

pub(super) use inbox::{Inbox, inbox};
use pings::Pings;
pub(super) use tasks::{accept, receive, reports, signals};

use super::beside::Beside;
use super::greeting::{Greeted, GreetingError, Outcome, Resumptions, entropy};
use super::lanes::Lanes;
use super::link::{Connection, Incoming, Link, Replaced, SEND_QUEUE_MESSAGES, ShardWork};
use super::metrics::{Asked, RoundTrips};
use super::server::Answer;
use super::status::Refusals;
use super::tap::{self, Tap};
use super::updates::{Addresses, Names, Readers};
use super::{Signal, beside, status};
use crate::config::Config;
use crate::rt::{self, TcpStream};
use crate::secrets::ReloadError;
use crate::state::Saver;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use weave_api::names::Says;
use weave_api::problem::{Code, Problem};
use weave_api::request::{Reply, Request};
use weave_api::target::Target;
use weave_crypto::{
    Crossing, Dialler as Side, Established, IdentityKey, KEY_LIFETIME, LinkKeys, LocalPeer, Rekey,
    RekeyPolicy, Resumed, Secrets, which_survives,
};
use weave_forward::{
    Command, Group, LinkId, MAX_LINKS, MacChange, ReceiveSession, Report, Routes, SendSession, boot_time,
};
use weave_mesh::{
    Admission, DialId, Dialler, Ended, LinkInfo, LinkNumber, Liveness, Mesh, MeshConfig, Roaming, Seen,
    Stations, Ticket,
};
use weave_wire::link::heartbeat::{ControlMessage, Heartbeat};
use weave_wire::link::message::{Describe, Message};
use weave_wire::link::resume::LinkId as LinkName;
use weave_wire::{HostName, Lane, MacAddr, Nickname, OuterHeader, PeerName, SessionIndex};

/// Events handled before timers are looked at again.
const EVENTS_AT_ONCE: usize = 256;
/// How long what peers tell is read before other events and timers have their turn.
const TOLD_AT_ONCE: Duration = Duration::from_millis(5);
/// How often attachments are read again and stations expire.
const HOUSEKEEPING: Duration = Duration::from_secs(30);
/// How often shards are told of stations, at most: a flood of new ones must not
/// become a flood of commands.
const MACS_EVERY: Duration = Duration::from_millis(10);
/// How often it is looked for peers to dial, at most: a flood of peers must not
/// become a flood of looks at all of them.
const DISCOVER_EVERY: Duration = Duration::from_millis(100);
/// How long a farewell has to get out before the router ends.
const FAREWELL_LASTS: Duration = Duration::from_millis(200);
/// How long a link that another one follows is still listened to.
const REPLACED_KEPT: Duration = Duration::from_secs(2);

/// Something happened.
pub(super) enum Event {
    /// Somebody connected.
    Accepted(TcpStream, SocketAddr),
    /// An accepted connection is greeted, or not.
    Answered(Ticket, SocketAddr, Result<Greeted, GreetingError>),
    /// A dial ended; how many had failed before it.
    Dialled(DialId, u32, Option<SocketAddr>, Result<Greeted, GreetingError>),
    /// A redial of a link's TCP connection ended.
    Redialled(u64, SocketAddr, Result<Greeted, GreetingError>),
    /// Bytes came over a connection.
    Bytes(u64, Vec<u8>),
    /// A connection ended.
    Closed(u64, std::io::Error),
    /// A connection that was full took most of what waited for it.
    Drained(u64),
    /// A datagram of the control lane.
    Datagram(Vec<u8>, SocketAddr),
    /// A shard reports.
    Report(Report),
    /// The keeper made a deleted tap again, or says why not.
    TapRestored(Result<(), String>),
    /// A client asks.
    Asked(Request, Answer),
    /// Somebody looks at the core, and changes nothing.
    Look(Box<dyn FnOnce(&Core)>),
    /// Keeper or DNS stand otherwise than before.
    Beside(Box<beside::Seen>),
    /// A sidecar wants the names.
    ReadsNames(rt::Sender<Names>),
    /// A keeper wants the addresses that are attached elsewhere.
    ReadsAddresses(rt::Sender<Addresses>),
    /// A signal came.
    Signal(Signal),
    /// The password file was read again, for this client if one asked.
    Reloaded(Result<Secrets, ReloadError>, Option<Answer>),
}

/// Why the core ends.
#[derive(Debug)]
pub(crate) enum End {
    /// It was told to.
    Stopped,
    /// Another host runs on a copy of this host's state: this one goes on under
    /// another name and key, with these secrets.
    Renamed(Secrets),
}

/// What the core is made of.
pub(super) struct Parts {
    pub(super) local: Arc<LocalPeer>,
    pub(super) nickname: Nickname,
    /// How often this state was launched.
    pub(super) run: u32,
    pub(super) config: Arc<Config>,
    pub(super) group: Group,
    pub(super) tap: Arc<Tap>,
    pub(super) heartbeats: UdpSocket,
    pub(super) mesh_port_socket: UdpSocket,
    pub(super) saver: Saver,
    pub(super) degraded: Vec<(&'static str, String)>,
    pub(super) events: rt::Sender<Event>,
    /// Takes what comes over TCP.
    pub(super) told: rt::Sender<Event>,
    /// Has what runs beside the router looked at.
    pub(super) look_beside: rt::Sender<()>,
}

/// Counters of the control core.
#[derive(Debug, Default)]
pub(super) struct CoreCounters {
    pub(super) accepted: u64,
    pub(super) refused: u64,
    pub(super) handshakes_failed: u64,
    /// Links of others refused because this host has its limit.
    pub(super) links_refused: u64,
    pub(super) links_made: u64,
    pub(super) links_lost: u64,
    /// Authenticated connections that ended before the peer described itself: one
    /// of two dials that crossed, mostly.
    pub(super) links_unfinished: u64,
    pub(super) rekeys: u64,
    /// Links lost because no new keys could be agreed in time.
    pub(super) keys_expired: u64,
    pub(super) resumptions: u64,
    pub(super) moves: u64,
    /// Datagrams of the control lane.
    pub(super) heartbeats_sent: u64,
    /// Heartbeats that were due while one before them had no answer.
    pub(super) heartbeats_unanswered: u64,
    pub(super) heartbeats_dropped: u64,
    pub(super) keep_alives_dropped: u64,
    pub(super) mac_flaps: u64,
    pub(super) macs_replaced: u64,
    pub(super) mac_conflicts: u64,
}

/// All state.
pub(super) struct Core {
    pub(super) local: Arc<LocalPeer>,
    pub(super) nickname: Nickname,
    pub(super) config: Arc<Config>,
    pub(super) group: Group,
    tap: Arc<Tap>,
    pub(super) tap_gone: Option<tap::Gone>,
    /// Sends the control lane from a port of its own.
    heartbeats: UdpSocket,
    /// Sends it from the mesh port.
    mesh_port_socket: UdpSocket,
    saver: Saver,
    events: rt::Sender<Event>,
    told: rt::Sender<Event>,
    started: Instant,
    pub(super) links: BTreeMap<LinkId, Link>,
    /// Links by our names of their sessions.
    sessions: HashMap<u64, LinkId>,
    resumptions: Resumptions,
    pub(super) dialler: Dialler<Target>,
    admission: Admission,
    answering: HashMap<Ticket, rt::Sender<()>>,
    /// How much each peer may still bring over TCP.
    budgets: tasks::Budgets,
    pub(super) stations: Stations,
    pub(super) mesh: Mesh<gossip::HostSigner>,
    /// Stations attached here that another host claims with better right.
    pub(super) withdrawn: BTreeSet<MacAddr>,
    pub(super) refusals: Refusals,
    pub(super) degraded: Vec<(&'static str, String)>,
    /// What runs beside the router.
    pub(super) beside: Beside,
    look_beside: rt::Sender<()>,
    pub(super) counters: CoreCounters,
    /// Of links that are gone.
    pub(super) past_lanes: Lanes,
    pub(super) round_trips: RoundTrips,
    pub(super) asked: Asked,
    /// Where peers were, the latest first.
    pub(super) recent: Vec<Target>,
    /// Sidecars that are told of names.
    names_readers: Readers<HostName, Vec<Says>>,
    addresses_readers: Readers<IpAddr, Option<MacAddr>>,
    pings: Pings,
    mac_changes: Vec<MacChange>,
    /// When the shards may be told of them.
    macs_at: Duration,
    /// Commands wait for the shards to be woken.
    wake_shards: bool,
    /// The stations attached here changed, or whether they are ours: the shards are told once a
    /// turn, however many did.
    local_macs_changed: bool,
    routes_changed: bool,
    peers_changed: bool,
    /// When peers may be looked for.
    discover_at: Duration,
    next_number: u64,
    reloading: bool,
    housekeeping_at: Duration,
    /// When another host was last found to run on a copy of this host's state.
    cloned_at: Option<Duration>,
    /// That host goes on in our place: this one has no links.
    is_superseded: bool,
    /// When to end after a farewell.
    leave_at: Option<Duration>,
    end: Option<Result<End, String>>,
}

impl Core {
    pub(super) fn new(parts: Parts, targets: &[Target], recent: Vec<Target>) -> Self {
        let mesh_config = MeshConfig {
            name: parts.local.name,
            uid: parts.local.uid,
            nickname: parts.nickname.clone(),
            port: parts.group.port(),
            addresses: Vec::new(),
            sealed_only: parts.config.require_encryption,
            features: parts.local.features,
            run: parts.run,
            seed: super::random_u64(),
        };
        let signer = gossip::HostSigner(Arc::clone(&parts.local));
        let mesh = Mesh::new(mesh_config, signer, Duration::ZERO);
        let mut core = Self {
            local: parts.local,
            nickname: parts.nickname,
            config: parts.config,
            group: parts.group,
            tap: parts.tap,
            tap_gone: None,
            heartbeats: parts.heartbeats,
            mesh_port_socket: parts.mesh_port_socket,
            saver: parts.saver,
            events: parts.events,
            told: parts.told,
            started: Instant::now(),
            links: BTreeMap::new(),
            sessions: HashMap::new(),
            resumptions: Resumptions::default(),
            dialler: Dialler::default(),
            admission: Admission::new(Duration::ZERO),
            answering: HashMap::new(),
            budgets: tasks::Budgets::default(),
            stations: Stations::default(),
            mesh,
            withdrawn: BTreeSet::new(),
            refusals: Refusals::default(),
            degraded: parts.degraded,
            beside: Beside::default(),
            look_beside: parts.look_beside,
            counters: CoreCounters::default(),
            past_lanes: Lanes::default(),
            round_trips: RoundTrips::default(),
            asked: Asked::default(),
            recent: Vec::new(),
            names_readers: Readers::default(),
            addresses_readers: Readers::default(),
            pings: Pings::default(),
            mac_changes: Vec::new(),
            macs_at: Duration::ZERO,
            wake_shards: false,
            local_macs_changed: false,
            routes_changed: false,
            peers_changed: false,
            discover_at: Duration::ZERO,
            next_number: 0,
            reloading: false,
            housekeeping_at: Duration::ZERO,
            cloned_at: None,
            is_superseded: false,
            leave_at: None,
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
        core.tell_addresses();
        core
    }

    /// Time since the start, by the monotonic clock.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn reports(&self) -> rt::Receiver<Report> {
        self.group.reports()
    }

    /// Number of events that wait.
    pub(super) fn waiting(&self) -> usize {
        self.events.len() + self.told.len()
    }

    /// Handles events until told to stop.
    pub(super) async fn run(&mut self, inbox: Inbox) -> Result<End, String> {
        let mut due = Duration::ZERO;
        loop {
            // Most events make nothing due, and with many links looking at each costs most of a turn.
            if due <= self.now() {
                self.on_timers();
            }
            self.run_mesh();
            self.flush();
            if let Some(end) = self.end.take() {
                return end;
            }
            due = self.deadline();
            let wait = due.saturating_sub(self.now());
            let Some(first) = rt::timeout(wait, inbox.next()).await else { continue };
            let Ok(first) = first else { return Err("the control core lost its events".into()) };
            self.handle(first);
            self.handle_waiting(&inbox);
            if !inbox.is_empty() {
                // Heartbeats are carried by tasks of this thread.
                rt::yield_now().await;
            }
        }
    }

    /// Handles what waits: events first, then for a while what peers tell.
    fn handle_waiting(&mut self, inbox: &Inbox) {
        for _ in 0..EVENTS_AT_ONCE {
            let Ok(event) = inbox.events.try_recv() else { break };
            self.handle(event);
        }
        let end = self.now().saturating_add(TOLD_AT_ONCE);
        while self.now() < end {
            let Ok(event) = inbox.told.try_recv() else { break };
            self.handle(event);
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Accepted(stream, address) => self.on_accepted(stream, address),
            Event::Answered(ticket, address, result) => self.on_answered(ticket, address, result),
            Event::Dialled(dial, attempt, address, result) => self.on_dialled(dial, attempt, address, result),
            Event::Redialled(number, address, result) => self.on_redialled(number, address, result),
            Event::Bytes(connection, bytes) => self.on_bytes(connection, &bytes),
            Event::Closed(connection, error) => self.on_closed(connection, &error),
            Event::Drained(connection) => self.on_drained(connection),
            Event::Datagram(datagram, source) => self.on_datagram(datagram, source),
            Event::Report(report) => self.on_report(report),
            Event::TapRestored(done) => self.on_tap_restored(done),
            Event::Asked(request, answer) => self.on_asked(request, answer),
            Event::Look(look) => look(self),
            Event::Beside(seen) => self.beside.take(*seen, self.now()),
            Event::ReadsNames(reader) => self.on_reads_names(reader),
            Event::ReadsAddresses(reader) => self.on_reads_addresses(reader),
            Event::Signal(Signal::Stop) => self.stop(),
            Event::Signal(Signal::Reload) => self.reload(None),
            Event::Reloaded(result, answer) => self.on_reloaded(result, answer),
        }
    }

    /// Tells the mesh that this host leaves for good, and ends a moment later.
    fn leave(&mut self) {
        let now = self.now();
        tracing::info!("leaving the mesh for good");
        self.mesh.farewell(now);
        self.leave_at.get_or_insert(now + FAREWELL_LASTS);
    }

    fn stop(&mut self) {
        tracing::info!("stopping");
        self.say_bye("the router stops");
        self.end.get_or_insert(Ok(End::Stopped));
    }

    /// Ends every link at the other end, for this reason.
    pub(super) fn say_bye(&mut self, why: &str) {
        for link in self.links.values_mut() {
            // A peer that does not hear it finds out by its probes.
            let _ = link.send(&Message::Bye(why.into()));
        }
    }

    /// Why this host does not forward, if it does not.
    pub(super) fn not_ready(&self) -> Option<&'static str> {
        if self.leave_at.is_some() || self.end.is_some() {
            Some("the router stops")
        } else if self.is_superseded {
            Some("another host runs on a copy of this host's state and goes on in its place")
        } else if self.tap_gone.is_some() {
            Some("the tap was deleted and is not there again")
        } else {
            None
        }
    }

    // Ends of links.

    /// A link is dead: its targets are dialled again.
    fn lose_link(&mut self, id: LinkId, reason: &str) {
        let is_established = self.links.get(&id).is_some_and(Link::is_established);
        self.end_link(id, reason, if is_established { Ended::Established } else { Ended::Early });
    }

    /// A link is dead, and it is known how.
    fn end_link(&mut self, id: LinkId, reason: &str, ended: Ended) {
        let now = self.now();
        let Some(link) = self.links.get(&id) else { return };
        if link.replaced.is_some() {
            return self.remove_link(id);
        }
        let (peer, number, address) = (link.peer.name, link.number, link.address);
        let forgotten = link.forgotten;
        if address.is_some() {
            tracing::warn!(peer = %link.peer.name, "link lost: {reason}");
            self.counters.links_lost += 1;
        } else {
            tracing::info!(peer = %link.peer.name, "a connection ended before the peer described itself: {reason}");
            self.counters.links_unfinished += 1;
        }
        if self.fall_back(id, now) {
            return self.remove_link(id);
        }
        self.dialler.lost(number, reason, ended, now, jitter());
        if let Some(address) = address.filter(|_| self.config.discovery && !forgotten) {
            let covered = self.dialler.entries().iter().any(|entry| entry.address == Some(address));
            if !covered {
                self.dialler.add_recent(address.into(), now);
            }
        }
        let ended = self.links.values().filter(|older| older.peer.name == peer && older.replaced.is_some());
        for older in ended.map(|link| link.id).collect::<Vec<_>>() {
            self.remove_link(older);
        }
        self.remove_link(id);
    }

    /// True if the link that `lost` follows is still there: that one goes on.
    fn fall_back(&mut self, lost: LinkId, now: Duration) -> bool {
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
        older.resume_serving(now);
        self.dialler.relinked(number, older.number);
        self.dialler.established(older.number);
        true
    }

    fn remove_link(&mut self, id: LinkId) {
        let Some(link) = self.links.remove(&id) else { return };
        for session in link.sessions() {
            self.sessions.remove(&session.0);
        }
        self.past_lanes.add(&link.counters);
        let now = self.now();
        self.mesh.link_removed(LinkNumber(link.number), now);
        self.resumptions.borrow_mut().remove(&link.resumption.link_id());
        self.command_all(|| Command::DropLink(id));
        self.routes_changed = true;
        self.tell_addresses();
    }

    // Secrets.

    /// Reads the password file again, on a thread of its own.
    fn reload(&mut self, answer: Option<Answer>) {
        if std::mem::replace(&mut self.reloading, true) {
            let what = "cannot read the passwords again";
            let problem = Problem::new(Code::Busy, what, "this is being done already", "wait a second");
            if let Some(answer) = answer {
                answer.give(Err(problem));
            }
            return;
        }
        let (path, effort) = (self.config.password_file.clone(), self.config.test.effort());
        rt::spawn(tasks::reload(path, effort, answer, self.events.clone()));
    }

    fn on_reloaded(&mut self, result: Result<Secrets, ReloadError>, answer: Option<Answer>) {
        self.reloading = false;
        let result = match result {
            Ok(secrets) => {
                tracing::info!(passwords = secrets.count(), "the password file was read again");
                self.local = Arc::new(self.local.with_secrets(secrets));
                // Who was refused for the old password is tried at once.
                let (targets, now) = (self.dialler.targets().cloned().collect::<Vec<_>>(), self.now());
                let _ = self.dialler.add_targets(&targets, now);
                Ok(Reply::Done)
            }
            Err(error) => {
                tracing::error!("the passwords stay as they were: {error}");
                let remedy = "correct the file and reload again, or launch with --password-file";
                Err(Problem::new(Code::Failed, "cannot read the passwords again", error.to_string(), remedy))
            }
        };
        if let Some(answer) = answer {
            answer.give(result);
        }
    }
}

/// A random number from 0 to 1, for waits.
#[expect(clippy::cast_precision_loss, reason = "jitter")]
fn jitter() -> f64 {
    super::random_u64() as f64 / u64::MAX as f64
}
