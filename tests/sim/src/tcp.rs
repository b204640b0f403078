//! Reliable ordered streams over the underlay, as the kernel's TCP makes them.
//!
//! A message is the unit: it leaves, arrives and is acknowledged as a whole. What
//! arrives is delivered in order and once. While a way is cut in either direction
//! something stays unacknowledged, is tried again with growing waits, and after
//! `TCP_USER_TIMEOUT` the connection breaks at that end; the other end hears of it
//! only if the reset reaches it, or when it sends or probes itself.

mod pipe;

use crate::identity::Who;
use crate::network::{HostId, Network};
use crate::queue::Queue;
use crate::world::Event as WorldEvent;
use pipe::Pipe;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// How long a dial may take (`CONNECT_LIMIT` of the router).
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// When the first segment of a dial is sent again.
const SYN_RETRY: Duration = Duration::from_secs(1);
/// The router's TCP_USER_TIMEOUT.
const USER_TIMEOUT: Duration = Duration::from_secs(10);
/// The router's keep-alive.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// First wait before what is unacknowledged is sent again.
const FIRST_RETRY: Duration = Duration::from_millis(200);

/// A connection. The number says who dialled it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    /// The machine that dialled.
    pub host: HostId,
    /// Unlike that of every other dial of the machine.
    pub number: u64,
}

/// What travels over a connection.
#[derive(Debug, Clone)]
pub enum Payload {
    /// A message of a handshake or a resumption.
    Greeting(Greeting),
    /// An encoded message of a link.
    Message(Rc<[u8]>),
}

/// Messages before a connection carries a link. The handshake has six; here are
/// those by which an end learns who the other is and takes the link for made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Greeting {
    /// Who dials.
    Hello(Who),
    /// Who answers.
    HelloBack(Who),
    /// The dialler's confirmation.
    Confirm,
    /// The answerer's, sent once it has the link.
    Confirmed,
    /// Asks to go on with the link of this session.
    Resume(ConnectionId),
    /// The answerer's proof.
    Accept,
    /// The dialler's proof.
    Proof,
}

impl Payload {
    /// Bytes on the wire, about, for a greeting; exactly, for a message in a record.
    #[must_use]
    pub fn len(&self) -> usize {
        const GREETING: usize = 300;
        const RECORD: usize = 18;
        match self {
            Self::Greeting(_) => GREETING,
            Self::Message(bytes) => bytes.len() + RECORD,
        }
    }

    /// True for a message without bytes: there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What an end is told.
#[derive(Debug)]
pub enum Notice {
    /// Its dial was answered.
    Connected,
    /// Its dial failed.
    Failed,
    /// Somebody dialled it.
    Accepted(HostId),
    /// A message came.
    Received(Payload),
    /// So many bytes of what it sent left the queue.
    Written(usize),
    /// The connection is over.
    Closed,
}

/// What happens to a connection. `usize`: the end (0 dialled) that sends.
#[derive(Debug)]
pub enum Event {
    /// Dial, for the n-th time.
    Syn(ConnectionId, usize),
    /// The dial reached the other end.
    Reached(ConnectionId),
    /// The answer to the dial is back; true if it is a connection.
    Answered(ConnectionId, bool),
    /// A message arrives.
    Arrive(ConnectionId, usize, u64, Payload),
    /// A message has passed a clogged way.
    Left(ConnectionId, usize),
    /// What is unacknowledged is tried again.
    Retry(ConnectionId, usize),
    /// An end hears that the other has closed or lost the connection.
    End(ConnectionId, usize),
    /// Nothing happened for a while.
    Probe(ConnectionId),
}

#[derive(Debug)]
struct Stream {
    hosts: [HostId; 2],
    /// True while a process holds the end.
    open: [bool; 2],
    connected: bool,
    pipes: [Pipe; 2],
}

/// What connections need of the world.
pub struct Io<'a> {
    /// What is to happen.
    pub queue: &'a mut Queue<WorldEvent>,
    /// The underlay.
    pub network: &'a mut Network,
}

impl Io<'_> {
    fn push(&mut self, at: Duration, event: Event) {
        self.queue.push(at, WorldEvent::Tcp(event));
    }

    fn after(&mut self, wait: Duration, event: Event) {
        self.push(self.queue.now + wait, event);
    }
}

/// All connections.
#[derive(Debug)]
pub struct Tcp {
    retry_max: Duration,
    streams: BTreeMap<ConnectionId, Stream>,
    /// What ends are to be told.
    notices: Vec<(HostId, ConnectionId, Notice)>,
}

impl Tcp {
    /// None yet; longest wait before something is sent again.
    #[must_use]
    pub fn new(retry_max: Duration) -> Self {
        Self { retry_max, streams: BTreeMap::new(), notices: Vec::new() }
    }

    /// Takes what ends are to be told.
    pub fn take_notices(&mut self) -> Vec<(HostId, ConnectionId, Notice)> {
        std::mem::take(&mut self.notices)
    }

    /// Connections that are not over.
    #[must_use]
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// True if there is no connection.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// A host dials another.
    pub fn connect(&mut self, id: ConnectionId, to: HostId, io: &mut Io<'_>) {
        let stream = Stream {
            hosts: [id.host, to],
            open: [true, false],
            connected: false,
            pipes: [Pipe::default(), Pipe::default()],
        };
        self.streams.insert(id, stream);
        io.after(Duration::ZERO, Event::Syn(id, 0));
        io.after(CONNECT_LIMIT, Event::Answered(id, false));
    }

    /// An end sends.
    pub fn send(&mut self, id: ConnectionId, host: HostId, payload: Payload, io: &mut Io<'_>) {
        let Some(end) = self.end(id, host) else { return };
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.is_open(end)
        {
            stream.pipe(end).enqueue(payload);
        }
        self.pump(id, end, io);
    }

    /// A process closes its end; what it sent before still goes out if it can.
    pub fn close(&mut self, id: ConnectionId, host: HostId, io: &mut Io<'_>) {
        let Some(end) = self.end(id, host) else { return };
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if !stream.is_open(end) {
            return;
        }
        stream.set_closed(end);
        let (from, to) = stream.way(end);
        let at = stream.pipe(end).last_arrival.max(io.queue.now + io.network.latency(from, to));
        if io.network.passes(from, to) {
            io.push(at, Event::End(id, 1 - end));
        }
        self.forget_if_over(id);
    }

    /// A process ends: the kernel resets all its connections. With the whole
    /// machine (`silently`) nobody is told.
    pub fn end_all(&mut self, host: HostId, silently: bool, io: &mut Io<'_>) {
        let of = |(id, stream): (&ConnectionId, &Stream)| stream.hosts.contains(&host).then_some(*id);
        for id in self.streams.iter().filter_map(of).collect::<Vec<_>>() {
            let Some(end) = self.end(id, host) else { continue };
            if silently {
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.set_closed(end);
                }
                self.forget_if_over(id);
            } else {
                self.close(id, host, io);
            }
        }
    }

    /// Something happens. `listens`: whether a process listens on a machine.
    pub fn handle(&mut self, event: Event, listens: impl Fn(HostId) -> bool, io: &mut Io<'_>) {
        match event {
            Event::Syn(id, attempt) => self.syn(id, attempt, listens, io),
            Event::Reached(id) => self.reached(id, listens, io),
            Event::Answered(id, connected) => self.answered(id, connected),
            Event::Arrive(id, end, number, payload) => self.arrive(id, end, number, payload, io),
            Event::Left(id, end) => {
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.pipe(end).leaving = false;
                    self.depart(id, end, io);
                    self.pump(id, end, io);
                }
            }
            Event::Retry(id, end) => self.retry(id, end, io),
            Event::End(id, end) => self.ended(id, end, io),
            Event::Probe(id) => self.probe(id, io),
        }
    }

    fn end(&self, id: ConnectionId, host: HostId) -> Option<usize> {
        self.streams.get(&id)?.hosts.iter().position(|of| *of == host)
    }

    fn syn(&mut self, id: ConnectionId, attempt: usize, listens: impl Fn(HostId) -> bool, io: &mut Io<'_>) {
        let Some(stream) = self.streams.get(&id).filter(|s| !s.connected && s.is_open(0)) else { return };
        let (from, to) = stream.way(0);
        let passes = io.network.connects(from, to) && !io.network.loses(from, to);
        if passes {
            let there = io.network.latency(from, to);
            if listens(to) {
                io.after(there, Event::Reached(id));
            } else {
                let back = io.network.latency(to, from);
                io.after(there + back, Event::Answered(id, false));
            }
        } else if attempt == 0 {
            io.after(SYN_RETRY, Event::Syn(id, 1));
        }
    }

    fn reached(&mut self, id: ConnectionId, listens: impl Fn(HostId) -> bool, io: &mut Io<'_>) {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.connected) else { return };
        let (from, to) = stream.way(0);
        if !io.network.connects(from, to) || !stream.is_open(0) || !listens(to) {
            return;
        }
        stream.connected = true;
        stream.open = [true, true];
        self.notices.push((to, id, Notice::Accepted(from)));
        let back = io.network.latency(to, from);
        io.after(back, Event::Answered(id, true));
        io.after(KEEP_ALIVE, Event::Probe(id));
    }

    fn answered(&mut self, id: ConnectionId, connected: bool) {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.is_open(0)) else { return };
        let host = stream.hosts[0];
        if connected {
            self.notices.push((host, id, Notice::Connected));
        } else if !stream.connected {
            self.streams.remove(&id);
            self.notices.push((host, id, Notice::Failed));
        }
    }

    /// Sends what waits, as far as it can.
    fn pump(&mut self, id: ConnectionId, end: usize, io: &mut Io<'_>) {
        loop {
            let Some(stream) = self.streams.get_mut(&id) else { return };
            let (from, to) = stream.way(end);
            let pipe = stream.pipe(end);
            let Some(len) = pipe.next_len().filter(|_| !pipe.leaving && pipe.unacknowledged.is_none()) else {
                return;
            };
            if !io.network.passes(from, to) {
                return self.not_acknowledged(id, end, io);
            }
            if io.network.rate(from, to).is_some() {
                pipe.leaving = true;
                let at = io.network.transmit(from, to, len, io.queue.now);
                return io.push(at, Event::Left(id, end));
            }
            self.depart(id, end, io);
        }
    }

    /// The next message leaves.
    fn depart(&mut self, id: ConnectionId, end: usize, io: &mut Io<'_>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let (from, to) = stream.way(end);
        let lost = if io.network.loses(from, to) { FIRST_RETRY } else { Duration::ZERO };
        let arrival = io.queue.now + io.network.latency(from, to) + lost;
        let (host, pipe) = (stream.hosts[end & 1], stream.pipe(end));
        let Some((number, payload)) = pipe.dequeue() else { return };
        pipe.last_arrival = pipe.last_arrival.max(arrival);
        let (at, len) = (pipe.last_arrival, payload.len());
        io.push(at, Event::Arrive(id, end, number, payload));
        self.notices.push((host, id, Notice::Written(len)));
    }

    fn arrive(&mut self, id: ConnectionId, end: usize, number: u64, payload: Payload, io: &mut Io<'_>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let (from, to) = stream.way(end);
        let is_read = stream.is_open(1 - end);
        let pipe = stream.pipe(end);
        if !io.network.passes(from, to) || number != pipe.expected {
            pipe.put_back(number, payload);
            return self.not_acknowledged(id, end, io);
        }
        pipe.expected += 1;
        if is_read {
            if let Some(ready) = pipe.read(payload.len(), io.queue.now) {
                pipe.expected -= 1;
                return io.push(ready, Event::Arrive(id, end, number, payload));
            }
            self.notices.push((to, id, Notice::Received(payload)));
        } else if io.network.passes(to, from) {
            let back = io.network.latency(to, from);
            io.after(back, Event::End(id, end));
        }
        if !io.network.passes(to, from) {
            self.not_acknowledged(id, end, io);
        }
    }

    /// What `end` sent is not acknowledged: from now on, unless it was so before.
    fn not_acknowledged(&mut self, id: ConnectionId, end: usize, io: &mut Io<'_>) {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.is_open(end)) else { return };
        let pipe = stream.pipe(end);
        if pipe.unacknowledged.is_none() {
            pipe.unacknowledged = Some(io.queue.now);
            pipe.retry = FIRST_RETRY;
            io.after(FIRST_RETRY, Event::Retry(id, end));
        }
    }

    fn retry(&mut self, id: ConnectionId, end: usize, io: &mut Io<'_>) {
        let retry_max = self.retry_max;
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.is_open(end)) else { return };
        let (from, to) = stream.way(end);
        let is_held = stream.is_open(1 - end);
        let pipe = stream.pipe(end);
        let Some(since) = pipe.unacknowledged else { return };
        if io.network.connects(from, to) {
            pipe.unacknowledged = None;
            if is_held {
                return self.pump(id, end, io);
            }
            return self.ended(id, end, io);
        }
        let limit = since + USER_TIMEOUT;
        if io.queue.now >= limit {
            return self.give_up(id, end, io);
        }
        pipe.retry = (pipe.retry * 2).min(retry_max);
        let at = (io.queue.now + pipe.retry).min(limit);
        io.push(at, Event::Retry(id, end));
    }

    /// An end gives the connection up, and tells the other if that passes.
    fn give_up(&mut self, id: ConnectionId, end: usize, io: &mut Io<'_>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let (from, to) = stream.way(end);
        if io.network.passes(from, to) {
            let there = io.network.latency(from, to);
            io.after(there, Event::End(id, 1 - end));
        }
        self.ended(id, end, io);
    }

    fn ended(&mut self, id: ConnectionId, end: usize, io: &mut Io<'_>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let (from, to) = stream.way(end);
        // What is still under way to this end is read before its end is.
        let last = stream.pipe(1 - end).last_arrival;
        if stream.is_open(end) && last > io.queue.now && io.network.passes(to, from) {
            return io.push(last, Event::End(id, end));
        }
        if stream.is_open(end) {
            stream.set_closed(end);
            self.notices.push((from, id, Notice::Closed));
        }
        self.forget_if_over(id);
    }

    fn probe(&mut self, id: ConnectionId, io: &mut Io<'_>) {
        for end in [0, 1] {
            let Some(stream) = self.streams.get(&id) else { return };
            let (from, to) = stream.way(end);
            if !stream.is_open(end) {
                continue;
            }
            if !io.network.connects(from, to) {
                self.not_acknowledged(id, end, io);
            } else if !stream.is_open(1 - end) {
                self.ended(id, end, io);
            }
        }
        if self.streams.contains_key(&id) {
            io.after(KEEP_ALIVE, Event::Probe(id));
        }
    }

    fn forget_if_over(&mut self, id: ConnectionId) {
        if self.streams.get(&id).is_some_and(|stream| stream.open == [false, false]) {
            self.streams.remove(&id);
        }
    }
}

impl Stream {
    fn is_open(&self, end: usize) -> bool {
        self.open[end & 1]
    }

    fn set_closed(&mut self, end: usize) {
        self.open[end & 1] = false;
    }

    fn pipe(&mut self, end: usize) -> &mut Pipe {
        &mut self.pipes[end & 1]
    }

    /// The way that what `end` sends takes.
    fn way(&self, end: usize) -> (HostId, HostId) {
        (self.hosts[end & 1], self.hosts[(1 - end) & 1])
    }
}
