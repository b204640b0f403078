//! All hosts, one clock, one network: what happens, in order.

use crate::character::Character;
use crate::frames::{Frame, Session};
use crate::host::{Body, Datagram, Effect, Host, Settings, State};
use crate::identity::{Key, peer_name};
use crate::ledger::Ledger;
use crate::network::{HostId, Network};
use crate::queue::Queue;
use crate::random::Random;
use crate::tcp::{self, ConnectionId, Io, Notice, Tcp};
use crate::trace::Trace;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use weave_wire::inner::HOP_LIMIT;
use weave_wire::link::gossip::NameEntry;
use weave_wire::link::heartbeat::ControlMessage;
use weave_wire::{MacAddr, PeerName};

/// First byte of the names of hosts.
pub const HOST: u8 = 0x02;
/// How long a host that must take another name is away.
const RENAME_TAKES: Duration = Duration::from_secs(1);
/// Events that wait for a host that stands still, at most: its sockets hold no more.
const INBOX: usize = 4_096;

/// Something is to happen.
#[derive(Debug)]
pub enum Event {
    /// To a connection.
    Tcp(tcp::Event),
    /// A datagram arrives.
    Datagram {
        /// Where.
        to: HostId,
        /// Over which link.
        session: Session,
        /// What.
        datagram: Datagram,
    },
    /// A host has something to do.
    Wake(HostId),
    /// A host that was away starts again.
    Start(HostId),
}

#[derive(Debug)]
enum Input {
    Notice(ConnectionId, Notice),
    Datagram(Session, Datagram),
}

/// What is attached on a machine, whoever runs there.
#[derive(Debug, Clone, Default)]
pub struct Attached {
    /// Names of its containers.
    pub names: Vec<NameEntry>,
    /// Their MACs and addresses.
    pub stations: Vec<(MacAddr, IpAddr)>,
}

/// A machine and the router on it.
pub struct Slot {
    /// Which.
    pub id: HostId,
    /// What outlives a run.
    pub state: State,
    /// How it is launched.
    pub settings: Settings,
    /// What is attached.
    pub attached: Attached,
    /// The router, while it runs.
    pub process: Option<Host>,
    /// It must agree with the others.
    pub is_member: bool,
    /// Its clock is so much ahead of the world's.
    ahead: Duration,
    /// It stands still.
    frozen: bool,
    inbox: Vec<Input>,
    armed: Duration,
    character: Option<Character>,
}

impl Slot {
    /// Its time.
    fn clock(&self, now: Duration) -> Duration {
        now.saturating_add(self.ahead)
    }

    /// Its state, as it would be found on its disk.
    #[must_use]
    pub fn state_now(&self) -> State {
        self.process.as_ref().map_or_else(|| self.state.clone(), |host| host.state.clone())
    }

    /// True if its router is of a later version.
    #[must_use]
    pub fn is_later(&self) -> bool {
        let character = self.process.as_ref().map(|host| &host.character).or(self.character.as_ref());
        matches!(character, Some(Character::Later(_)))
    }

    /// True if it stands still.
    #[must_use]
    pub const fn is_frozen(&self) -> bool {
        self.frozen
    }
}

/// How the world is made.
#[derive(Debug, Clone)]
pub struct WorldConfig {
    /// Of all chance.
    pub seed: u64,
    /// Times are rounded up to this.
    pub quantum: Duration,
    /// Time of one way between two machines, from and to.
    pub latency: (Duration, Duration),
    /// Longest wait before TCP sends again: of kernels before 6.15 none is set.
    pub retry_max: Duration,
}

impl Default for WorldConfig {
    fn default() -> Self {
        let latency = (Duration::from_micros(200), Duration::from_millis(20));
        Self { seed: 0, quantum: Duration::from_micros(100), latency, retry_max: Duration::MAX }
    }
}

/// The world.
pub struct World {
    queue: Queue<Event>,
    /// The underlay.
    pub network: Network,
    tcp: Tcp,
    slots: Vec<Slot>,
    dirty: BTreeSet<HostId>,
    random: Random,
    incarnations: u32,
    next_key: u64,
    next_frame: u64,
    /// What is true, and what was seen.
    pub ledger: Ledger,
    /// All that happened.
    pub trace: Trace,
}

impl World {
    /// An empty world.
    #[must_use]
    pub fn new(config: &WorldConfig) -> Self {
        let mut random = Random::new(config.seed);
        let network = Network::new(random.fork(), config.latency);
        Self {
            queue: Queue::new(config.quantum),
            network,
            tcp: Tcp::new(config.retry_max),
            slots: Vec::new(),
            dirty: BTreeSet::new(),
            random,
            incarnations: 0,
            next_key: 0,
            next_frame: 0,
            ledger: Ledger::default(),
            trace: Trace::default(),
        }
    }

    /// The time.
    #[must_use]
    pub const fn now(&self) -> Duration {
        self.queue.now
    }

    /// All machines.
    #[must_use]
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// One machine.
    #[must_use]
    pub fn slot(&self, id: HostId) -> Option<&Slot> {
        self.slots.get(id.index())
    }

    /// One machine, to be changed.
    pub fn slot_mut(&mut self, id: HostId) -> Option<&mut Slot> {
        self.slots.get_mut(id.index())
    }

    /// The running routers that must agree with each other.
    pub fn members(&self) -> impl Iterator<Item = (HostId, &Host)> {
        let members = self.slots.iter().filter(|slot| slot.is_member && !slot.frozen);
        members.filter_map(|slot| Some((slot.id, slot.process.as_ref()?)))
    }

    /// All running routers.
    pub fn running(&self) -> impl Iterator<Item = (HostId, &Host)> {
        self.slots.iter().filter_map(|slot| Some((slot.id, slot.process.as_ref()?)))
    }

    /// A new machine under a new name; its router is not started.
    pub fn add(&mut self, settings: Settings) -> HostId {
        let state = self.new_state();
        self.add_with(state, settings)
    }

    /// A new machine with this state.
    pub fn add_with(&mut self, state: State, settings: Settings) -> HostId {
        let id = HostId(u16::try_from(self.slots.len()).unwrap_or(u16::MAX));
        self.slots.push(Slot {
            id,
            state,
            settings,
            attached: Attached::default(),
            process: None,
            is_member: true,
            ahead: Duration::ZERO,
            frozen: false,
            inbox: Vec::new(),
            armed: Duration::MAX,
            character: None,
        });
        self.network.set_machine(id, true);
        id
    }

    /// State of a host that was never launched.
    pub fn new_state(&mut self) -> State {
        self.next_key += 1;
        // Names must not be in the order of the machines: ties are broken by name.
        let name = peer_name(HOST, self.random.next_u64() << 16 | self.next_key & 0xffff);
        State { name, key: Key::new(self.next_key << 32 | 1), run: 0, recent: Vec::new() }
    }

    /// The character that the next router on a machine has, and all after it.
    pub fn set_character(&mut self, id: HostId, character: Character) {
        if let Some(slot) = self.slot_mut(id) {
            slot.character = Some(character);
        }
    }

    /// Starts the router of a machine, which is switched on if it was off.
    pub fn start(&mut self, id: HostId) {
        self.incarnations += 1;
        let (incarnation, now, random) = (self.incarnations, self.now(), self.random.fork());
        let Some(slot) = self.slots.get_mut(id.index()).filter(|slot| slot.process.is_none()) else { return };
        self.network.set_machine(id, true);
        slot.frozen = false;
        slot.inbox.clear();
        slot.armed = Duration::MAX;
        let character = slot.character.take().unwrap_or_default();
        let clock = slot.clock(now);
        let (state, settings) = (slot.state.clone(), slot.settings.clone());
        let host = Host::start(id, state, settings, character, incarnation, random, clock);
        slot.state.run = host.state.run;
        self.ledger.started(id, host.who());
        slot.process = Some(host);
        self.tell_attached(id);
        self.touch(id);
    }

    /// Starts it at `at`.
    pub fn start_at(&mut self, id: HostId, at: Duration) {
        self.queue.push(at, Event::Start(id));
    }

    /// The router on a machine has to do something.
    fn touch(&mut self, id: HostId) {
        self.dirty.insert(id);
    }

    /// What is attached on a machine changed.
    pub fn tell_attached(&mut self, id: HostId) {
        let now = self.now();
        let Some(slot) = self.slots.get_mut(id.index()) else { return };
        let clock = slot.clock(now);
        let Some(host) = &mut slot.process else { return };
        self.ledger.attached(host.state.name, &slot.attached);
        host.set_names(slot.attached.names.clone(), clock);
        host.set_stations(&slot.attached.stations, clock);
        self.touch(id);
    }

    /// Does something to a running router.
    pub fn with_host<T>(&mut self, id: HostId, what: impl FnOnce(&mut Host, Duration) -> T) -> Option<T> {
        let now = self.now();
        let slot = self.slots.get_mut(id.index())?;
        let clock = slot.clock(now);
        let done = what(slot.process.as_mut()?, clock);
        self.touch(id);
        Some(done)
    }

    // Ends of routers and machines.

    /// The router ends in good order.
    pub fn stop(&mut self, id: HostId) {
        self.with_host(id, Host::say_bye);
        self.settle();
        self.end(id, false);
    }

    /// The router is killed; its state stays.
    pub fn kill(&mut self, id: HostId) {
        self.end(id, false);
    }

    /// The machine loses its power.
    pub fn power_off(&mut self, id: HostId) {
        self.end(id, true);
        self.network.set_machine(id, false);
    }

    fn end(&mut self, id: HostId, silently: bool) {
        let Some(slot) = self.slots.get_mut(id.index()) else { return };
        if let Some(host) = slot.process.take() {
            slot.state = host.state;
            slot.character = Some(host.character);
        }
        slot.frozen = false;
        slot.inbox.clear();
        self.ledger.ended(id);
        self.dirty.remove(&id);
        self.tcp.end_all(id, silently, &mut Io { queue: &mut self.queue, network: &mut self.network });
        self.take_notices();
    }

    /// The machine forgets all that routers wrote there.
    pub fn lose_state(&mut self, id: HostId) {
        let state = self.new_state();
        if let Some(slot) = self.slots.get_mut(id.index()) {
            slot.state = state;
        }
    }

    /// The router stands still, its sockets do not.
    pub fn freeze(&mut self, id: HostId) {
        if let Some(slot) = self.slots.get_mut(id.index()).filter(|slot| slot.process.is_some()) {
            slot.frozen = true;
        }
    }

    /// It goes on.
    pub fn thaw(&mut self, id: HostId) {
        let Some(slot) = self.slots.get_mut(id.index()).filter(|slot| slot.frozen) else { return };
        slot.frozen = false;
        for input in std::mem::take(&mut slot.inbox) {
            self.give(id, input);
        }
        self.touch(id);
    }

    /// The clock of a machine leaps.
    pub fn leap(&mut self, id: HostId, by: Duration) {
        if let Some(slot) = self.slots.get_mut(id.index()) {
            slot.ahead += by;
            self.touch(id);
        }
    }

    // Traffic.

    /// A container on a host sends a frame, to one host or to all.
    pub fn send_frame(&mut self, from: HostId, to: Option<HostId>) -> u64 {
        let number = self.next_frame;
        self.next_frame += 1;
        let destination = match to {
            Some(to) => match self.running_name(to) {
                Some(name) => Some(name),
                None => return number,
            },
            None => None,
        };
        let now = self.now();
        self.ledger.sent(number, from, to, now);
        self.with_host(from, |host, _| host.send_frame(number, destination));
        number
    }

    /// The name of the router that runs on a machine.
    #[must_use]
    pub fn running_name(&self, id: HostId) -> Option<PeerName> {
        Some(self.slot(id)?.process.as_ref()?.state.name)
    }

    // The clock.

    /// Runs for a time.
    pub fn run_for(&mut self, time: Duration) {
        self.run_until(self.now() + time);
    }

    /// Runs until `end`.
    pub fn run_until(&mut self, end: Duration) {
        self.settle();
        while let Some(at) = self.queue.next_at().filter(|at| *at <= end) {
            self.queue.now = at;
            self.trace.note_time(at);
            while let Some(event) = self.queue.pop_until(at) {
                self.handle(event);
            }
            self.settle();
        }
        self.queue.now = end;
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Tcp(event) => {
                let slots = &self.slots;
                let listens = |id: HostId| slots.get(id.index()).is_some_and(|slot| slot.process.is_some());
                let mut io = Io { queue: &mut self.queue, network: &mut self.network };
                self.tcp.handle(event, listens, &mut io);
                self.take_notices();
            }
            Event::Datagram { to, session, datagram } => {
                self.trace.note(u64::from(to.0) << 32 | datagram.number);
                if self.network.is_on(to) {
                    self.give(to, Input::Datagram(session, datagram));
                }
            }
            Event::Wake(id) => {
                let now = self.now();
                if let Some(slot) = self.slots.get_mut(id.index())
                    && slot.armed == now
                {
                    slot.armed = Duration::MAX;
                    self.touch(id);
                }
            }
            Event::Start(id) => self.start(id),
        }
    }

    fn take_notices(&mut self) {
        for (id, connection, notice) in self.tcp.take_notices() {
            self.note(id, connection, &notice);
            self.give(id, Input::Notice(connection, notice));
        }
    }

    fn note(&mut self, id: HostId, connection: ConnectionId, notice: &Notice) {
        self.trace.note(u64::from(id.0));
        self.trace.note(connection.number);
        match notice {
            Notice::Received(tcp::Payload::Message(bytes)) => self.trace.note_bytes(bytes),
            Notice::Received(tcp::Payload::Greeting(_)) => self.trace.note(1),
            Notice::Connected => self.trace.note(2),
            Notice::Failed => self.trace.note(3),
            Notice::Accepted(_) => self.trace.note(4),
            Notice::Written(len) => self.trace.note(*len as u64),
            Notice::Closed => self.trace.note(5),
        }
    }

    /// A router hears of something, now or when it goes on.
    fn give(&mut self, id: HostId, input: Input) {
        let now = self.now();
        let Some(slot) = self.slots.get_mut(id.index()) else { return };
        if slot.frozen {
            let is_datagram = matches!(input, Input::Datagram(..));
            if !is_datagram || slot.inbox.len() < INBOX {
                slot.inbox.push(input);
            }
            return;
        }
        let clock = slot.clock(now);
        let Some(host) = &mut slot.process else { return };
        match input {
            Input::Datagram(session, datagram) => host.on_datagram(session, datagram, clock),
            Input::Notice(id, Notice::Connected) => host.on_connected(id, clock),
            Input::Notice(id, Notice::Failed | Notice::Closed) => host.on_closed(id, clock),
            Input::Notice(id, Notice::Accepted(from)) => host.on_accepted(id, from, clock),
            Input::Notice(id, Notice::Received(payload)) => host.on_payload(id, payload, clock),
            Input::Notice(id, Notice::Written(len)) => host.on_written(id, len),
        }
        self.touch(id);
    }

    /// Runs every router that has something to do, until none has.
    fn settle(&mut self) {
        let now = self.now();
        while let Some(id) = self.dirty.pop_first() {
            let Some(slot) = self.slots.get_mut(id.index()).filter(|slot| !slot.frozen) else { continue };
            let clock = slot.clock(now);
            let Some(host) = &mut slot.process else { continue };
            host.run(clock);
            for effect in host.take_effects() {
                self.carry_out(id, effect);
            }
            if !self.dirty.contains(&id) {
                self.arm(id);
            }
        }
    }

    fn arm(&mut self, id: HostId) {
        let now = self.now();
        let Some(slot) = self.slots.get_mut(id.index()) else { return };
        let Some(host) = &slot.process else { return };
        // What is overdue waits for the next moment: nothing can be done twice in one.
        let at = host.deadline().saturating_sub(slot.ahead).max(now + Duration::from_nanos(1));
        if at < slot.armed {
            self.queue.push(at, Event::Wake(id));
            slot.armed = self.queue.rounded(at);
        }
    }

    fn carry_out(&mut self, id: HostId, effect: Effect) {
        let now = self.now();
        let mut io = Io { queue: &mut self.queue, network: &mut self.network };
        match effect {
            Effect::Connect(connection, to) => match HostId::of(to) {
                Some(to) => self.tcp.connect(connection, to, &mut io),
                None => self.give(id, Input::Notice(connection, Notice::Failed)),
            },
            Effect::Send(connection, payload) => self.tcp.send(connection, id, payload, &mut io),
            Effect::Close(connection) => self.tcp.close(connection, id, &mut io),
            Effect::Datagram(to, session, datagram) => self.send_datagram(id, to, session, datagram),
            Effect::Deliver(frame) => self.ledger.delivered(&frame, id, now),
            Effect::Drop(frame, reason) => self.ledger.dropped(&frame, reason),
            Effect::Rename => self.rename(id),
        }
        self.take_notices();
    }

    fn send_datagram(&mut self, from: HostId, to: SocketAddr, session: Session, datagram: Datagram) {
        const AROUND: usize = 60;
        let len = AROUND
            + match &datagram.body {
                Body::Control(_) => ControlMessage::LEN,
                Body::Frame(frame) => self.frame_sent(frame),
            };
        let Some(to) = HostId::of(to) else { return };
        for at in self.network.datagram(from, to, len, self.queue.now) {
            self.queue.push(at, Event::Datagram { to, session, datagram: datagram.clone() });
        }
    }

    /// A frame goes over a link; returns its length.
    fn frame_sent(&mut self, frame: &Frame) -> usize {
        const LEN: usize = 1000;
        if frame.crossed > HOP_LIMIT {
            self.ledger.violation(format!("frame {} crosses link {}", frame.number, frame.crossed));
        }
        self.ledger.crossed(frame);
        LEN
    }

    /// A router gives way to a clone: it starts anew under another name.
    fn rename(&mut self, id: HostId) {
        let name = self.slot(id).map(|slot| slot.state_now().name);
        if let Some(name) = name.filter(|name| self.ledger.machines(*name).count() < 2) {
            self.ledger.violation(format!("host {} gives {name} up, which no other ever had", id.0));
        }
        self.stop(id);
        self.lose_state(id);
        let at = self.now() + RENAME_TAKES;
        self.queue.push(at, Event::Start(id));
    }

    /// Connections and events there are, to see that both are bounded.
    #[must_use]
    pub fn load(&self) -> (usize, usize) {
        (self.tcp.len(), self.queue.len())
    }
}
