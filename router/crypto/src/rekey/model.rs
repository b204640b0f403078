//! Every interleaving of re-keying: two sides, the wire between them, and an
//! adversary who chooses what happens next.
//!
//! The search takes each step that is possible in each state it reaches:
//! delivery of a message, acknowledgement by the shards, datagrams, time, loss of
//! the TCP connection noticed by one side or the other, resumption. After each
//! step the promises are checked; and from each state a fair schedule must bring
//! both sides to the same, later epoch.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::wildcard_enum_match_arm)]

use super::*;
use crate::key::Secret;
use crate::schedule::Handover;
use std::collections::{HashSet, VecDeque};
use weave_wire::PeerName;
use weave_wire::link::handshake::{Mode, Role};

/// Longer than the spacing of re-keys here, shorter than an idle lane is silent.
const WAIT: Duration = Duration::from_millis(200);
/// Index of each side: the offerer has the smaller UID.
const OFFERER: usize = 0;
const ANSWERER: usize = 1;

type KeyBytes = [u8; 32];

#[derive(Clone)]
struct Side {
    rekey: Rekey,
    /// Sessions that the shards were told to accept; true once they do.
    receive: Vec<(SessionIndex, LinkKeys, bool)>,
    /// What the control lane sends under: what the control core was told last.
    control: (SessionIndex, LinkKeys),
    /// What the data lane sends under.
    send: (SessionIndex, LinkKeys),
    /// What its shard was told to send under, and has not yet got to.
    switches: VecDeque<(SessionIndex, LinkKeys)>,
    tcp_send: KeyBytes,
    tcp_receive: KeyBytes,
    /// Messages on their way to this side, each with the key that sealed it.
    inbox: VecDeque<(Message, KeyBytes)>,
    /// Number of the TCP connection this side uses; none while it knows of none.
    connection: Option<u8>,
    /// All keys this side ever sealed records with.
    used: Vec<KeyBytes>,
}

#[derive(Clone)]
struct World {
    sides: [Side; 2],
    now: Duration,
    /// Number of the newest TCP connection, and whether it still works.
    connection: u8,
    works: bool,
    cuts_left: u8,
    waits_left: u8,
    random: u64,
    /// How the world came to be, to be read when a promise breaks.
    steps: Vec<Step>,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Deliver(usize),
    Installed(usize),
    /// The shard of this side sends under the keys it was told.
    Switch(usize),
    /// A datagram of this side's data lane reaches the other.
    Datagram(usize),
    /// One of its control lane.
    Heartbeat(usize),
    Cut,
    Notice(usize),
    Resume(usize),
    /// Time passes while all lanes are busy.
    Wait,
    /// Time passes while all are silent.
    Quiet,
}

fn info(session: u64, uid: u64) -> PeerInfo {
    PeerInfo {
        name: PeerName::new([2; 6]).unwrap(),
        uid: Uid(uid),
        identity: crate::IdentityKey::from_bytes([0; 32]),
        session: SessionIndex(session),
        mode: Mode::Encrypted,
        version: 1,
        features: 0,
        shards: 1,
        lanes: 1,
        mtu: 1376,
        trusted_subnet: false,
    }
}

fn connection_id(number: u8) -> ConnectionId {
    ConnectionId([number; 32])
}

fn data_lane() -> Lane {
    Lane::data(0).unwrap()
}

impl World {
    /// `initiator` made the handshake; the offerer has the smaller UID.
    fn new(initiator: usize) -> Self {
        let policy = RekeyPolicy::every(Duration::from_millis(100));
        let handover = Handover::new(&[1; 64], &[], &Secret([2; 32]));
        let side = |number: usize| {
            let role = if number == initiator { Role::Initiator } else { Role::Responder };
            let keys = handover.link_keys(role);
            let (ours, theirs) = (number as u64, 1 - number as u64);
            let peer = info(theirs, theirs);
            let first = connection_id(0);
            let tcp_send = *keys.tcp_key(role, first).as_bytes();
            Side {
                rekey: Rekey::new(
                    Uid(ours),
                    SessionIndex(ours),
                    &peer,
                    keys.clone(),
                    first,
                    policy,
                    Duration::ZERO,
                ),
                receive: vec![(SessionIndex(ours), keys.clone(), true)],
                control: (peer.session, keys.clone()),
                send: (peer.session, keys.clone()),
                switches: VecDeque::new(),
                tcp_send,
                tcp_receive: *keys.tcp_key(role.other(), first).as_bytes(),
                inbox: VecDeque::new(),
                connection: Some(0),
                used: vec![tcp_send],
            }
        };
        Self {
            sides: [side(OFFERER), side(ANSWERER)],
            now: Duration::ZERO,
            connection: 0,
            works: true,
            cuts_left: 2,
            waits_left: 3,
            random: 0,
            steps: Vec::new(),
        }
    }

    fn entropy(&mut self) -> impl FnMut(&mut [u8]) + use<> {
        self.random += 1;
        let mut state = self.random << 32;
        move |bytes: &mut [u8]| {
            for byte in bytes {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                *byte = (state >> 33) as u8;
            }
        }
    }

    /// Steps that can happen now.
    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for side in [OFFERER, ANSWERER] {
            let this = &self.sides[side];
            let up = this.connection == Some(self.connection);
            if up && self.works && !this.inbox.is_empty() {
                steps.push(Step::Deliver(side));
            }
            if this.receive.iter().any(|(.., installed)| !installed) {
                steps.push(Step::Installed(side));
            }
            if !this.switches.is_empty() {
                steps.push(Step::Switch(side));
            }
            steps.push(Step::Datagram(side));
            steps.push(Step::Heartbeat(side));
            if this.connection.is_some() && !(self.works && up) {
                steps.push(Step::Notice(side));
            }
            if self.works && !up {
                steps.push(Step::Resume(side));
            }
        }
        let both_up = self.sides.iter().all(|side| side.connection == Some(self.connection));
        if self.works && both_up && self.cuts_left > 0 {
            steps.push(Step::Cut);
        }
        if !self.works {
            // A new connection is made by whoever dials; both then take it up.
            steps.push(Step::Resume(OFFERER));
            steps.push(Step::Resume(ANSWERER));
        }
        if self.waits_left > 0 {
            steps.push(Step::Wait);
            steps.push(Step::Quiet);
        }
        steps
    }

    fn take(&mut self, step: Step) {
        self.steps.push(step);
        match step {
            Step::Deliver(side) => self.deliver(side),
            Step::Installed(side) => {
                let this = &mut self.sides[side];
                let slot = this.receive.iter_mut().find(|(.., installed)| !installed).unwrap();
                slot.2 = true;
                let session = slot.0;
                let actions = this.rekey.on_receive_installed(session);
                self.act(side, actions);
            }
            Step::Switch(side) => {
                let this = &mut self.sides[side];
                this.send = this.switches.pop_front().unwrap();
            }
            Step::Datagram(side) => self.datagram(side, data_lane()),
            Step::Heartbeat(side) => self.datagram(side, Lane::CONTROL),
            Step::Cut => {
                self.works = false;
                self.cuts_left -= 1;
                self.sides.iter_mut().for_each(|side| side.inbox.clear());
            }
            Step::Notice(side) => {
                self.sides[side].connection = None;
                let actions = self.sides[side].rekey.on_disconnected();
                self.act(side, actions);
            }
            Step::Resume(side) => self.resume(side),
            Step::Wait => {
                self.all_lanes_send();
                self.now += WAIT;
                self.waits_left -= 1;
            }
            Step::Quiet => {
                // A second is more than any shard takes to switch.
                for side in &mut self.sides {
                    side.send = side.switches.drain(..).next_back().unwrap_or(side.send.clone());
                }
                self.now += RekeyPolicy::default().idle;
                self.waits_left -= 1;
            }
        }
        // Timers fire as soon as they may.
        for side in [OFFERER, ANSWERER] {
            let now = self.now;
            if self.sides[side].rekey.poll_timeout().is_some_and(|at| at <= now) {
                let mut entropy = self.entropy();
                let actions = self.sides[side].rekey.on_tick(&mut entropy, now);
                self.act(side, actions);
            }
        }
        self.check();
    }

    fn deliver(&mut self, side: usize) {
        let (message, key) = self.sides[side].inbox.pop_front().unwrap();
        assert_eq!(key, self.sides[side].tcp_receive, "a record sealed under a key its receiver has not");
        let (now, mut entropy) = (self.now, self.entropy());
        let rekey = &mut self.sides[side].rekey;
        let actions = match message {
            Message::RekeyOffer(offer) => rekey.on_offer(offer, &mut entropy, now),
            Message::RekeyAnswer(answer) => rekey.on_answer(answer, now),
            Message::RekeyConfirm { epoch } => rekey.on_confirm(epoch, now),
            other => panic!("{other:?}"),
        };
        let actions = actions.unwrap();
        self.act(side, actions);
    }

    fn all_lanes_send(&mut self) {
        for side in [OFFERER, ANSWERER] {
            self.datagram(side, data_lane());
            self.datagram(side, Lane::CONTROL);
        }
    }

    /// The promise of the whole: what a side sends, the other can open.
    fn datagram(&mut self, from: usize, lane: Lane) {
        let side = &self.sides[from];
        let (session, keys) = if lane == Lane::CONTROL { side.control.clone() } else { side.send.clone() };
        let now = self.now;
        let receiver = &mut self.sides[1 - from];
        let key = receiver.receive.iter().find(|(name, _, installed)| *name == session && *installed);
        let (_, theirs, _) = key.expect("a datagram of a session its receiver has not");
        let sent = keys.udp_key(keys.role(), lane);
        assert_eq!(sent.as_bytes(), theirs.udp_key(keys.role(), lane).as_bytes());
        receiver.rekey.on_lane_seen(lane, keys.epoch(), now);
    }

    fn resume(&mut self, side: usize) {
        if !self.works {
            self.works = true;
            self.connection += 1;
        }
        let (number, now, mut entropy) = (self.connection, self.now, self.entropy());
        let this = &mut self.sides[side];
        this.connection = Some(number);
        // What the resumption derives: a key for each direction of the connection.
        let own_role = this.send.1.role();
        let key = |role: Role| [100 + 2 * number + u8::from(role == Role::Responder); 32];
        this.tcp_send = key(own_role);
        this.tcp_receive = key(own_role.other());
        this.used.push(this.tcp_send);
        let actions = this.rekey.on_resumed(connection_id(number), &mut entropy, now);
        self.act(side, actions);
    }

    fn act(&mut self, side: usize, actions: Vec<RekeyAction>) {
        for action in actions {
            let connected = self.works && self.sides[side].connection == Some(self.connection);
            let this = &mut self.sides[side];
            match action {
                RekeyAction::Send(message) => {
                    assert!(this.connection.is_some(), "a message without a connection");
                    let key = this.tcp_send;
                    if connected {
                        self.sides[1 - side].inbox.push_back((message, key));
                    }
                }
                RekeyAction::SwitchTcpSend(key) => {
                    this.tcp_send = *key.as_bytes();
                    assert!(!this.used.contains(key.as_bytes()), "a key for records used twice");
                    this.used.push(*key.as_bytes());
                }
                RekeyAction::SwitchTcpReceive(key) => this.tcp_receive = *key.as_bytes(),
                RekeyAction::InstallReceive { session, keys } => this.receive.push((session, keys, false)),
                RekeyAction::SwitchSend { session, keys } => {
                    let last = this.switches.back().unwrap_or(&this.send);
                    assert_eq!(keys.epoch(), last.1.epoch() + 1, "epochs come one by one");
                    this.control = (session, keys.clone());
                    this.switches.push_back((session, keys));
                }
                RekeyAction::DropReceive(session) => {
                    let before = this.receive.len();
                    this.receive.retain(|(name, ..)| *name != session);
                    assert_eq!(this.receive.len() + 1, before, "a session dropped that was not there");
                }
            }
        }
    }

    fn check(&self) {
        for (this, other) in [(0, 1), (1, 0)] {
            let (this, other) = (&self.sides[this], &self.sides[other]);
            assert!(this.receive.len() <= 2, "more than two epochs: {:?}", self.steps);
            for session in [this.send.0, this.control.0] {
                let accepted =
                    other.receive.iter().any(|(name, _, installed)| *name == session && *installed);
                assert!(accepted, "a side sends in a session the other does not accept: {:?}", self.steps);
            }
            assert!(this.rekey.epoch().abs_diff(other.rekey.epoch()) <= 1);
        }
    }

    /// All that matters of a state, without the keys themselves.
    fn digest(&self) -> String {
        let mut text = format!(
            "{:?} {} {} {} {}",
            self.now, self.connection, self.works, self.cuts_left, self.waits_left
        );
        for side in &self.sides {
            let receive: Vec<_> = side.receive.iter().map(|(_, keys, on)| (keys.epoch(), *on)).collect();
            let inbox: Vec<_> = side
                .inbox
                .iter()
                .map(|(message, _)| match message {
                    Message::RekeyOffer(share) => (1, share.epoch),
                    Message::RekeyAnswer(share) => (2, share.epoch),
                    Message::RekeyConfirm { epoch } => (3, *epoch),
                    other => panic!("{other:?}"),
                })
                .collect();
            let rekey = &side.rekey;
            text += &format!(
                "|{rekey:?} {:?} {:?} {:?} {:?} {:?} {receive:?} {inbox:?} {:?} {:?}",
                rekey.poll_timeout(),
                rekey.offered,
                rekey.confirmed,
                rekey.settled_at(),
                side.send.1.epoch(),
                side.switches.len(),
                side.connection,
            );
        }
        text
    }

    /// Runs a schedule that starves nobody; both must come to a later epoch.
    fn finish_fairly(mut self) {
        let goal = self.sides[OFFERER].rekey.epoch() + 1;
        for _ in 0..60 {
            let connected = |world: &Self, side: usize| {
                world.works && world.sides[side].connection == Some(world.connection)
            };
            for side in [OFFERER, ANSWERER] {
                if !connected(&self, side) {
                    self.take(Step::Resume(side));
                }
                while connected(&self, side) && !self.sides[side].inbox.is_empty() {
                    self.take(Step::Deliver(side));
                }
                while self.sides[side].receive.iter().any(|(.., installed)| !installed) {
                    self.take(Step::Installed(side));
                }
                while !self.sides[side].switches.is_empty() {
                    self.take(Step::Switch(side));
                }
                self.take(Step::Datagram(side));
                self.take(Step::Heartbeat(side));
            }
            self.waits_left = 1;
            self.take(Step::Wait);
            let epochs = self.sides.each_ref().map(|side| side.send.1.epoch());
            if epochs[0] == epochs[1] && epochs[0] >= goal {
                return;
            }
        }
        panic!("stuck: {:?}", self.sides.each_ref().map(|side| format!("{:?}", side.rekey)));
    }
}

/// Explores all states within `depth` steps; returns how many there are.
fn explore(initiator: usize, depth: usize, cuts: u8, waits: u8) -> usize {
    let mut start = World::new(initiator);
    (start.cuts_left, start.waits_left) = (cuts, waits);
    start.all_lanes_send();
    let mut seen = HashSet::from([start.digest()]);
    let mut frontier = vec![start];
    for _ in 0..depth {
        let mut next = Vec::new();
        for world in frontier {
            for step in world.steps() {
                let mut after = world.clone();
                after.take(step);
                if seen.insert(after.digest()) {
                    after.clone().finish_fairly();
                    next.push(after);
                }
            }
        }
        frontier = next;
        if frontier.is_empty() {
            break;
        }
    }
    assert!(frontier.is_empty(), "the search was cut off: {} states left", frontier.len());
    seen.len()
}

#[test]
fn no_interleaving_loses_a_datagram_or_wedges_a_link() {
    // The connection may be lost twice, and a second re-key begins in between.
    let states = explore(OFFERER, 200, 2, 2);
    assert!(states > 5_000, "{states} states");
}

#[test]
fn nor_does_any_when_the_answerer_made_the_handshake() {
    let states = explore(ANSWERER, 200, 1, 2);
    assert!(states > 1_000, "{states} states");
}
