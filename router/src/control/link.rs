//! One link: its TCP connection, its keys, its heartbeats.

use super::greeting::entropy;
use super::ports::{LaneWatch, Ports};
use crate::rt;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use weave_crypto::{
    ConnectionId, Dialler as Side, KEY_LIFETIME, LinkKeys, PeerInfo, ReceiveKey, RecordError, RecordOpener,
    RecordSealer, Rekey, RekeyAction, Resumption, SendKey,
};
use weave_forward::{LinkCounters, LinkId, Mode};
use weave_mesh::liveness::PENDING_LIMIT;
use weave_mesh::{Backoff, Liveness, PathMtu, Roaming};
use weave_wire::link::heartbeat::{ControlMessage, Heartbeat};
use weave_wire::link::message::Message;
use weave_wire::{DatagramKind, Lane, Nickname, OUTER_LEN, OuterHeader, SessionIndex, TAG_LEN};

/// Bytes that wait to be written to one TCP connection, at most.
const SEND_QUEUE: usize = 1 << 20;
/// Messages that wait, at most.
pub(super) const SEND_QUEUE_MESSAGES: usize = 1024;
/// From this many bytes or messages on no more gossip is queued: what a re-key
/// and other messages need is far less than the rest of the queue.
const FULL: (usize, usize) = (256 << 10, 256);
/// With this many bytes left it is again.
pub(super) const DRAINED: usize = 64 << 10;

/// The TCP connection of a link.
pub(super) struct Connection {
    pub(super) number: u64,
    pub(super) opener: RecordOpener,
    pub(super) sealer: RecordSealer,
    pub(super) out: rt::Sender<Vec<u8>>,
    /// Bytes handed to `out` and not yet written.
    pub(super) queued: std::rc::Rc<std::cell::Cell<usize>>,
    /// Set while it was found full, until it is drained.
    pub(super) full: std::rc::Rc<std::cell::Cell<bool>>,
    /// Its tasks end soon after this is dropped.
    pub(super) _alive: rt::Sender<()>,
    /// Who dialled it.
    pub(super) side: Side,
}

impl Connection {
    /// True if no more gossip is to be queued; the core hears when that changes.
    pub(super) fn is_full(&self) -> bool {
        let full = self.queued.get() >= FULL.0 || self.out.len() >= FULL.1;
        self.full.set(full);
        full
    }

    /// Seals a message and queues it.
    ///
    /// # Errors
    /// Why the connection is of no more use.
    pub(super) fn send(&mut self, message: &Message) -> Result<(), String> {
        let mut bytes = Vec::new();
        self.sealer.seal(&message.encode(), &mut bytes).map_err(|error| error.to_string())?;
        let queued = self.queued.get() + bytes.len();
        if queued > SEND_QUEUE {
            return Err("the peer does not read what it is sent".into());
        }
        self.queued.set(queued);
        self.out.try_send(bytes).map_err(|_| "the peer does not read what it is sent".to_owned())
    }
}

/// How long a link may live without TCP: its keys end then.
pub(super) const TCP_LOST_LIMIT: Duration = KEY_LIFETIME;

/// A session whose keys are on their way into the shards.
struct Installing {
    session: SessionIndex,
    shards: HashSet<usize>,
}

/// The way a heartbeat travels: keys of lane 255.
struct ControlLane {
    send: Option<SendKey>,
    receive: Vec<ControlSession>,
}

/// Heartbeats of the peer in one epoch.
struct ControlSession {
    session: SessionIndex,
    epoch: u32,
    key: ReceiveKey,
}

/// A link to one peer.
pub(super) struct Link {
    /// Unlike that of every other link of this run.
    pub(super) number: u64,
    /// Its place in the tables of the shards.
    pub(super) id: LinkId,
    pub(super) peer: PeerInfo,
    /// Data is authenticated only: both ends are in trusted subnets.
    pub(super) authenticated_only: bool,
    pub(super) nickname: Option<Nickname>,
    /// Who dialled the link.
    pub(super) side: Side,
    /// Where the peer sees us.
    pub(super) observed: Option<std::net::IpAddr>,
    /// Where TCP came from, or went to.
    pub(super) remote: SocketAddr,
    /// Where the peer listens, and TCP is dialled; known once it described itself.
    pub(super) address: Option<SocketAddr>,
    /// The user forgot the target at its other end: no recent peer when it is lost.
    pub(super) forgotten: bool,
    /// Where datagrams go; known from then on.
    pub(super) roaming: Option<Roaming>,
    /// What its path carries; looked into once the link is established, and since
    /// when that is less than everything.
    pub(super) path: Option<PathMtu>,
    pub(super) path_reduced: Option<Duration>,
    /// Which of our ports datagrams leave by.
    pub(super) ports: Ports,
    pub(super) connection: Option<Connection>,
    pub(super) resumption: Resumption,
    pub(super) rekey: Rekey,
    /// Counts from the peer's description on.
    pub(super) liveness: Option<Liveness>,
    /// The peer's last heartbeat, until it is answered.
    pub(super) asked: Option<Heartbeat>,
    pub(super) counters: Vec<Arc<LinkCounters>>,
    pub(super) since: Duration,
    /// Data lanes of the peer seen since it last asked.
    pub(super) lanes_seen: u64,
    /// Those of them that came from a port of their own.
    pub(super) lanes_own: u64,
    /// Data lanes of the peer that pass, and ours that it sees.
    pub(super) lanes_in: u64,
    pub(super) lanes_out: u64,
    /// Whether they still do: its lanes by its heartbeats, ours by those it answered.
    pub(super) watch_in: LaneWatch,
    pub(super) watch_out: LaneWatch,
    /// Segmentation was refused on the route, since then.
    pub(super) segmentation_refused: Option<Duration>,
    /// TCP is gone since then.
    pub(super) tcp_lost: Option<Duration>,
    /// When to dial TCP again, and whether that is under way.
    pub(super) redial: Option<(Backoff, Duration)>,
    pub(super) redialling: bool,
    /// A newer link leads to the same peer.
    pub(super) replaced: Option<Replaced>,
    installing: Vec<Installing>,
    control: ControlLane,
    routed: bool,
}

/// What becomes of a link that a newer one to the same peer follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replaced {
    /// It carries data until the new one does.
    Serving,
    /// The new one passes data. The peer may use this one until it knows that, too.
    Until(Duration),
}

/// What a link needs done in the shards.
#[derive(Debug)]
pub(super) enum ShardWork {
    /// Install keys to receive with.
    Install { session: SessionIndex, keys: LinkKeys },
    /// Send under these keys.
    Send { session: SessionIndex, keys: LinkKeys },
    /// Forget a session.
    Drop(SessionIndex),
}

/// A datagram of the control lane.
pub(super) struct OpenedControl {
    pub(super) message: ControlMessage,
    pub(super) epoch: u32,
    pub(super) counter: u32,
}

/// What came out of bytes read from a connection.
pub(super) enum Incoming {
    Message(Message),
    Unknown,
}

impl Link {
    #[expect(clippy::too_many_arguments, reason = "made in one place")]
    pub(super) fn new(
        number: u64,
        id: LinkId,
        peer: PeerInfo,
        side: Side,
        remote: SocketAddr,
        connection: Connection,
        resumption: Resumption,
        rekey: Rekey,
        shards: usize,
        now: Duration,
    ) -> Self {
        Self {
            number,
            id,
            authenticated_only: peer.trusted_subnet,
            peer,
            nickname: None,
            observed: None,
            side,
            remote,
            address: None,
            forgotten: false,
            roaming: None,
            path: None,
            path_reduced: None,
            ports: Ports::default(),
            connection: Some(connection),
            resumption,
            rekey,
            liveness: None,
            asked: None,
            counters: (0..shards).map(|_| Arc::default()).collect(),
            since: now,
            lanes_seen: 0,
            lanes_own: 0,
            lanes_in: 0,
            lanes_out: 0,
            watch_in: LaneWatch::default(),
            watch_out: LaneWatch::default(),
            segmentation_refused: None,
            tcp_lost: None,
            redial: None,
            redialling: false,
            replaced: None,
            installing: Vec::new(),
            control: ControlLane { send: None, receive: Vec::new() },
            routed: false,
        }
    }

    /// When something is due, as `now` counts; keys count by `boot`.
    pub(super) fn deadline(&self, now: Duration, boot: Duration) -> Duration {
        let keys = self.rekey.poll_timeout().map_or(self.rekey.expires(), |at| at.min(self.rekey.expires()));
        let redial = self.redial.as_ref().filter(|_| !self.redialling).map(|(_, at)| *at);
        let replaced = match self.replaced {
            Some(Replaced::Until(at)) => Some(at),
            Some(Replaced::Serving) | None => None,
        };
        let others = [
            Some(self.liveness.as_ref().map_or_else(|| self.undescribed_end(), Liveness::deadline)),
            redial,
            self.tcp_lost.map(|since| since.saturating_add(TCP_LOST_LIMIT)),
            self.path.as_ref().map(PathMtu::deadline),
            replaced,
            self.roaming.as_ref().and_then(Roaming::deadline),
        ];
        let keys = now.saturating_add(keys.saturating_sub(boot));
        others.into_iter().flatten().fold(keys, Duration::min)
    }

    /// When the link is given up unless the peer describes itself.
    pub(super) fn undescribed_end(&self) -> Duration {
        self.since.saturating_add(PENDING_LIMIT)
    }

    /// Where its clear datagrams come from: where the control lane, which is sealed, has followed
    /// the peer to; at first where TCP came from.
    pub(super) fn data_from(&self) -> std::net::IpAddr {
        self.roaming.as_ref().map_or(self.remote, Roaming::address).ip()
    }

    /// How frames go.
    pub(super) const fn mode(&self) -> Mode {
        match self.peer.mode {
            weave_wire::link::handshake::Mode::Encrypted if self.authenticated_only => Mode::Authenticated,
            weave_wire::link::handshake::Mode::Encrypted => Mode::Sealed,
            weave_wire::link::handshake::Mode::Clear => Mode::Clear,
        }
    }

    /// True if data crosses it sealed.
    pub(super) fn is_encrypted(&self) -> bool {
        self.mode() == Mode::Sealed
    }

    /// True if the peer is to be told that data is sealed by now.
    pub(super) const fn tells_to_seal(&self) -> bool {
        self.peer.trusted_subnet && !self.authenticated_only
    }

    /// True once a sealed datagram made the round trip.
    pub(super) fn is_established(&self) -> bool {
        self.liveness.as_ref().is_some_and(Liveness::is_established)
    }

    /// True if data may go over it.
    pub(super) fn carries(&self) -> bool {
        self.is_established() && !matches!(self.replaced, Some(Replaced::Until(_)))
    }

    /// True the first time the link is found established.
    pub(super) fn begin_routing(&mut self) -> bool {
        !std::mem::replace(&mut self.routed, true)
    }

    /// Keys that the shards are to receive with; counted until all have them.
    pub(super) fn install(&mut self, session: SessionIndex, keys: &LinkKeys, shards: usize) {
        let key = keys.receive_key(Lane::CONTROL);
        self.control.receive.push(ControlSession { session, epoch: keys.epoch(), key });
        self.installing.push(Installing { session, shards: (0..shards).collect() });
    }

    /// A shard has the keys of `session`; true once all have.
    pub(super) fn installed(&mut self, session: SessionIndex, shard: usize) -> bool {
        let Some(place) = self.installing.iter().position(|entry| entry.session == session) else {
            return false;
        };
        let Some(entry) = self.installing.get_mut(place) else { return false };
        entry.shards.remove(&shard);
        let all = entry.shards.is_empty();
        if all {
            self.installing.remove(place);
        }
        all
    }

    /// True if every key the peer was told of is in every shard.
    pub(super) fn may_receive(&self) -> bool {
        self.installing.is_empty()
    }

    /// The key of our heartbeats.
    pub(super) fn send_heartbeats_under(&mut self, session: SessionIndex, keys: &LinkKeys) {
        self.control.send = Some(keys.send_key(session, Lane::CONTROL));
    }

    /// No more heartbeats of this session.
    pub(super) fn drop_session(&mut self, session: SessionIndex) {
        self.control.receive.retain(|entry| entry.session != session);
        self.installing.retain(|entry| entry.session != session);
    }

    /// Our names of the sessions that the peer may send in.
    pub(super) fn sessions(&self) -> impl Iterator<Item = SessionIndex> + '_ {
        self.control.receive.iter().map(|entry| entry.session)
    }

    /// The next heartbeat or answer, number `sequence`.
    pub(super) fn heartbeat(&mut self, sequence: u64, mesh_port: bool) -> Heartbeat {
        for (seen, own) in self.counters.iter().map(|shard| shard.lanes_seen.take()) {
            self.lanes_seen |= seen;
            self.lanes_own |= own;
        }
        self.lanes_in |= self.lanes_seen;
        self.watch_in.note(self.lanes_seen);
        let lanes_seen = std::mem::take(&mut self.lanes_seen);
        let lanes_own = std::mem::take(&mut self.lanes_own);
        Heartbeat { sequence, lanes_seen, lanes_own, mesh_port, seal: self.tells_to_seal() }
    }

    /// Seals a message of the control lane; `None` if there is no key that may.
    pub(super) fn seal_control(&mut self, message: &ControlMessage) -> Option<Vec<u8>> {
        let key = self.control.send.as_mut()?;
        let body = message.encode();
        let mut datagram = vec![0; OUTER_LEN + body.len() + TAG_LEN];
        datagram.get_mut(OUTER_LEN..OUTER_LEN + body.len())?.copy_from_slice(&body);
        key.seal(DatagramKind::Control, &mut datagram).ok()?;
        Some(datagram)
    }

    /// Opens a datagram of the control lane in place.
    pub(super) fn open_control(
        &mut self,
        header: OuterHeader,
        datagram: &mut [u8],
        boot: Duration,
    ) -> Option<OpenedControl> {
        if header.kind() != Some(DatagramKind::Control) {
            return None;
        }
        let session = header.session();
        let entry = self.control.receive.iter_mut().find(|entry| entry.session == session)?;
        let body = entry.key.open(header, datagram).ok()?;
        let message = ControlMessage::parse(body);
        let epoch = entry.epoch;
        // The peer sends under this epoch: so much the re-key machine learns from any lane.
        self.rekey.on_lane_seen(Lane::CONTROL, epoch, boot);
        Some(OpenedControl { message: message?, epoch, counter: header.counter() })
    }

    /// Sends a message over TCP, if there is a connection.
    ///
    /// # Errors
    /// Why the connection is of no more use.
    pub(super) fn send(&mut self, message: &Message) -> Result<(), String> {
        match &mut self.connection {
            Some(connection) => connection.send(message),
            None => Ok(()),
        }
    }

    /// Reads the next message out of `bytes`.
    ///
    /// # Errors
    /// Why the connection is of no more use.
    pub(super) fn read(&mut self, bytes: &mut &[u8]) -> Result<Option<Incoming>, String> {
        let Some(connection) = &mut self.connection else { return Ok(None) };
        let Some(message) = connection.opener.read(bytes).map_err(|error| error.to_string())? else {
            return Ok(None);
        };
        let parsed = Message::parse(&message).map_err(|error| error.to_string())?;
        Ok(Some(parsed.map_or(Incoming::Unknown, Incoming::Message)))
    }

    /// Carries out what the re-key machine wants; returns the shards' part.
    ///
    /// # Errors
    /// Why the connection is of no more use.
    pub(super) fn carry_out(
        &mut self,
        actions: Vec<RekeyAction>,
        shards: usize,
    ) -> (Vec<ShardWork>, Result<(), String>) {
        let mut work = Vec::new();
        let mut result = Ok(());
        for action in actions {
            let done = match action {
                RekeyAction::Send(message) => self.send(&message),
                RekeyAction::SwitchTcpSend(key) => {
                    if let Some(connection) = &mut self.connection {
                        connection.sealer.switch_key(&key);
                    }
                    Ok(())
                }
                RekeyAction::SwitchTcpReceive(key) => match &mut self.connection {
                    Some(connection) => {
                        connection.opener.switch_key(&key).map_err(|error: RecordError| error.to_string())
                    }
                    None => Ok(()),
                },
                RekeyAction::InstallReceive { session, keys } => {
                    self.install(session, &keys, shards);
                    work.push(ShardWork::Install { session, keys });
                    Ok(())
                }
                RekeyAction::SwitchSend { session, keys } => {
                    self.send_heartbeats_under(session, &keys);
                    work.push(ShardWork::Send { session, keys });
                    Ok(())
                }
                RekeyAction::DropReceive(session) => {
                    self.drop_session(session);
                    work.push(ShardWork::Drop(session));
                    Ok(())
                }
            };
            if result.is_ok() {
                result = done;
            }
        }
        (work, result)
    }

    /// The TCP connection is over; `probe`: find out at once whether the peer is still there.
    pub(super) fn disconnect(&mut self, now: Duration, probe: bool) -> Vec<RekeyAction> {
        self.connection = None;
        self.tcp_lost = Some(now);
        self.redial = self.replaced.is_none().then(|| (Backoff::new(now), now));
        if let Some(liveness) = self.liveness.as_mut().filter(|_| probe) {
            liveness.on_tcp_end(now);
        }
        self.rekey.on_disconnected()
    }

    /// The link that was to follow came to nothing.
    pub(super) fn resume_serving(&mut self, now: Duration) {
        self.replaced = None;
        if self.connection.is_none() {
            self.redial = Some((Backoff::new(now), now));
        }
    }

    /// The link goes on over `connection`.
    pub(super) fn reconnect(
        &mut self,
        connection: Connection,
        id: ConnectionId,
        count: u32,
        boot: Duration,
    ) -> Vec<RekeyAction> {
        self.connection = Some(connection);
        self.resumption.completed(count);
        self.tcp_lost = None;
        self.redial = None;
        if let Some(liveness) = &mut self.liveness {
            liveness.on_tcp_resumed();
        }
        self.rekey.on_resumed(id, &mut entropy, boot)
    }
}
