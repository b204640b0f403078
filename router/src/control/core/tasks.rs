//! Tasks that carry events to the core.

use super::super::Signal;
use super::super::greeting::{self, Greeted, GreetingError, Resumptions};
use super::super::link::DRAINED;
use super::super::server::Answer;
use super::Event;
use crate::config::Config;
use crate::rt::{self, Datagrams, TcpListener, TcpStream, UdpReceiver};
use crate::secrets;
use futures_lite::io::{ReadHalf, WriteHalf};
use futures_lite::{AsyncReadExt, AsyncWriteExt, future};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use weave_api::target::{Target, TargetHost};
use weave_crypto::{Effort, IdentityKey, LocalPeer, Resumption};
use weave_forward::Report;
use weave_mesh::{DialId, Ticket};
use weave_wire::link::heartbeat::ControlMessage;
use weave_wire::{DatagramKind, Lane, OUTER_LEN, OuterHeader, TAG_LEN};

/// Bytes read from a connection at once.
const READ: usize = 16 << 10;
/// Longest datagram of the control lane that is looked at, bytes: later versions may put more behind
/// what this one knows.
const DATAGRAM_MAX: usize = 256;
const _: () = assert!(DATAGRAM_MAX >= 2 * (OUTER_LEN + ControlMessage::LEN + TAG_LEN));
/// Datagrams of the control lane taken at once.
const DATAGRAMS: usize = 64;
/// Time to connect to one address: the kernel sends the first segment at 0, 1 and
/// 3 s. A new dial sends it sooner than its third time would be, so that a way that
/// was cut is found again within 2 s.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// Time to look up a name.
const RESOLVE_LIMIT: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried, at most.
const ADDRESSES: usize = 8;
/// Wait after an error of `accept` (no descriptors, no memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a connection that was given up stays open for the peer to close it.
const LINGER: Duration = Duration::from_secs(2);

/// Accepts connections.
pub(crate) async fn accept(listener: TcpListener, events: rt::Sender<Event>) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                if events.send(Event::Accepted(stream, address)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::debug!("accepting a connection: {error}");
                rt::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Receives datagrams of the control lane.
pub(crate) async fn receive(socket: UdpReceiver, events: rt::Sender<Event>) {
    let mut buffer = vec![0; DATAGRAMS * DATAGRAM_MAX];
    loop {
        match socket.receive(&mut buffer).await {
            Ok(Datagrams { len, each, source }) => {
                for datagram in buffer.get(..len).unwrap_or_default().chunks(each) {
                    // What is none makes one event, to be counted, however much follows.
                    let last = !is_control(datagram);
                    let datagram = datagram.get(..DATAGRAM_MAX).unwrap_or(datagram);
                    if events.send(Event::Datagram(datagram.to_vec(), source)).await.is_err() {
                        return;
                    }
                    if last {
                        break;
                    }
                }
            }
            Err(error) => {
                tracing::debug!("receiving a heartbeat: {error}");
                rt::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_control(datagram: &[u8]) -> bool {
    OuterHeader::split(datagram).is_some_and(|(header, _)| {
        header.kind() == Some(DatagramKind::Control) && header.lane() == Some(Lane::CONTROL)
    })
}

/// Carries the reports of the shards.
pub(crate) async fn reports(reports: rt::Receiver<Report>, events: rt::Sender<Event>) {
    while let Ok(report) = reports.recv().await {
        if events.send(Event::Report(report)).await.is_err() {
            return;
        }
    }
}

/// Reads the password file again.
pub(super) async fn reload(
    path: Option<PathBuf>,
    effort: Effort,
    answer: Option<Answer>,
    events: rt::Sender<Event>,
) {
    let result = rt::blocking(move || secrets::read_again(path.as_deref(), effort)).await;
    let _ = events.send(Event::Reloaded(result, answer)).await;
}

/// Carries signals.
pub(crate) async fn signals(signals: rt::Receiver<Signal>, events: rt::Sender<Event>) {
    while let Ok(signal) = signals.recv().await {
        if events.send(Event::Signal(signal)).await.is_err() {
            return;
        }
    }
}

/// A connection that was accepted.
pub(super) struct Incoming {
    pub(super) ticket: Ticket,
    pub(super) stream: TcpStream,
    pub(super) address: SocketAddr,
    /// It comes from a trusted subnet.
    pub(super) trusted: bool,
}

/// Answers an accepted connection, until the core gives its place to another.
pub(super) async fn answer(
    incoming: Incoming,
    local: Arc<LocalPeer>,
    links: Resumptions,
    cancelled: rt::Receiver<()>,
    events: rt::Sender<Event>,
) {
    let Incoming { ticket, stream, address, trusted } = incoming;
    let greeted = futures_lite::future::or(greeting::answer(stream, local, links, trusted), async {
        let _ = cancelled.recv().await;
        Err(GreetingError::Evicted)
    })
    .await;
    let _ = events.send(Event::Answered(ticket, address, greeted)).await;
}

/// A target to dial.
pub(super) struct Dial {
    pub(super) id: DialId,
    pub(super) target: Target,
    /// Failures before.
    pub(super) attempt: u32,
    /// Where this router listens, and other ones unless the target says otherwise.
    pub(super) port: u16,
    pub(super) source: Option<IpAddr>,
    pub(super) config: Arc<Config>,
    /// Where established links lead.
    pub(super) linked: Vec<SocketAddr>,
    pub(super) local: Arc<LocalPeer>,
}

/// Dials a target: looks its name up and tries its addresses in turn.
pub(super) async fn dial(dial: Dial, events: rt::Sender<Event>) {
    let mut last = None;
    let mut result = Err(GreetingError::Io(io::Error::other("the name has no address")));
    match resolve(&dial.target, dial.port).await {
        Ok(addresses) => {
            for address in addresses {
                last = Some(address);
                result = dial_address(&dial, address).await;
                // The next address is of use only where nobody answered.
                if !matches!(result, Err(GreetingError::Io(_))) {
                    break;
                }
            }
        }
        Err(error) => result = Err(error.into()),
    }
    let _ = events.send(Event::Dialled(dial.id, dial.attempt, last, result)).await;
}

async fn dial_address(dial: &Dial, address: SocketAddr) -> Result<Greeted, GreetingError> {
    // A second link would take the place of the first, and carry nothing for a moment.
    if dial.linked.contains(&address) {
        return Err(GreetingError::Linked);
    }
    if rt::leads_through(weave_host::bridge::BRIDGE, address)? {
        return Err(GreetingError::ThroughUs);
    }
    let stream = connect(address, dial.source).await?;
    // Only the answering end of a handshake would find out whom it talks to.
    if address.port() == dial.port && stream.leads_back()? {
        return Err(GreetingError::Ourselves);
    }
    let trusted = dial.config.trusts(address.ip());
    greeting::initiate(stream, Arc::clone(&dial.local), dial.attempt, trusted).await
}

/// Dials TCP for a link that goes on.
pub(super) async fn redial(
    number: u64,
    address: SocketAddr,
    source: Option<IpAddr>,
    link: Resumption,
    events: rt::Sender<Event>,
) {
    let result: Result<Greeted, GreetingError> = match connect(address, source).await {
        Ok(stream) => greeting::resume(stream, link).await,
        Err(error) => Err(error.into()),
    };
    let _ = events.send(Event::Redialled(number, address, result)).await;
}

async fn connect(address: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let late = || Err(io::Error::new(io::ErrorKind::TimedOut, "no answer"));
    rt::timeout(CONNECT_LIMIT, TcpStream::connect(address, source)).await.unwrap_or_else(late)
}

async fn resolve(target: &Target, default_port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Some(address) = target.address(default_port) {
        return Ok(vec![address]);
    }
    let TargetHost::Name(name) = target.host.clone() else { return Ok(Vec::new()) };
    let port = target.port.unwrap_or(default_port);
    let lookup = rt::blocking(move || weave_lookup::addresses(&name, RESOLVE_LIMIT, ADDRESSES));
    // It may have to wait for others.
    let late = || Err(io::Error::new(io::ErrorKind::TimedOut, "the name server does not answer"));
    let addresses = rt::timeout(RESOLVE_LIMIT, lookup).await.unwrap_or_else(late)?;
    Ok(addresses.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
}

/// What one peer may bring over TCP, bytes each second; what is more is read later.
const READ_RATE: f64 = 256.0 * 1024.0;
/// What it may bring at once: the state of a large mesh for a host that joins.
const READ_BURST: f64 = 8.0 * 1024.0 * 1024.0;
/// Peers whose budgets are kept, at most. Handshakes are limited to fewer in the time in which a
/// budget fills up again.
const BUDGETS: usize = 2_048;

/// Paces the reading of one peer's connections (token bucket).
pub(super) struct Budget {
    left: f64,
    at: Instant,
}

/// The budgets of peers, by their keys: they outlive connections and links, so that nobody has one
/// anew by connecting again.
#[derive(Default)]
pub(in crate::control) struct Budgets(HashMap<IdentityKey, Rc<RefCell<Budget>>>);

impl Budgets {
    /// That of one peer.
    pub(super) fn of(&mut self, peer: IdentityKey, now: Instant) -> Rc<RefCell<Budget>> {
        if self.0.len() >= BUDGETS && !self.0.contains_key(&peer) {
            self.0.retain(|_, budget| Rc::strong_count(budget) > 1 || !budget.borrow().is_full(now));
            let idle = self.0.iter().filter(|(_, budget)| Rc::strong_count(budget) == 1);
            let oldest = idle.min_by_key(|(_, budget)| budget.borrow().at).map(|(peer, _)| *peer);
            if let Some(oldest) = oldest.filter(|_| self.0.len() >= BUDGETS) {
                self.0.remove(&oldest);
            }
        }
        Rc::clone(self.0.entry(peer).or_insert_with(|| Rc::new(RefCell::new(Budget::new(now)))))
    }
}

impl Budget {
    const fn new(now: Instant) -> Self {
        Self { left: READ_BURST, at: now }
    }

    /// True if it is as good as a new one.
    fn is_full(&self, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * READ_RATE;
        self.left + earned >= READ_BURST
    }

    /// Takes `len` bytes; how long to wait before more are read.
    #[expect(clippy::cast_precision_loss, reason = "at most some KiB")]
    fn spend(&mut self, len: usize, now: Instant) -> Duration {
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * READ_RATE;
        self.left = (self.left + earned).min(READ_BURST) - len as f64;
        self.at = now;
        Duration::from_secs_f64((-self.left / READ_RATE).max(0.0))
    }
}

/// Ends a while after the link has given a connection up, by when a peer that
/// keeps the rules has read the last messages and closed it.
async fn given_up(alive: rt::Receiver<()>) {
    // Nothing is ever sent: this waits until the other end is dropped.
    let _ = alive.recv().await;
    rt::sleep(LINGER).await;
}

/// Reads a connection until it ends, or a while after the link gave it up
/// ([`given_up`] of `alive`): the peer need not close it.
pub(super) async fn read(
    number: u64,
    mut stream: ReadHalf<TcpStream>,
    budget: Rc<RefCell<Budget>>,
    alive: rt::Receiver<()>,
    told: rt::Sender<Event>,
) {
    let mut buffer = vec![0; READ];
    let reading = async {
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) => {
                    let kind = io::ErrorKind::UnexpectedEof;
                    break Some(io::Error::new(kind, "the peer closed the connection"));
                }
                Ok(len) => {
                    let bytes = buffer.get(..len).unwrap_or_default().to_vec();
                    let wait = budget.borrow_mut().spend(len, Instant::now());
                    rt::sleep(wait).await;
                    if told.send(Event::Bytes(number, bytes)).await.is_err() {
                        break None;
                    }
                }
                Err(error) => break Some(error),
            }
        }
    };
    let ending = async {
        given_up(alive).await;
        None
    };
    if let Some(reason) = future::or(reading, ending).await {
        let _ = told.send(Event::Closed(number, reason)).await;
    }
}

/// How full the queue of a connection is.
pub(super) struct Fill {
    /// Bytes that wait.
    pub(super) queued: Rc<Cell<usize>>,
    /// True while the core waits for it to be drained.
    pub(super) full: Rc<Cell<bool>>,
}

/// Writes what is queued for a connection, until its queue is dropped, or a while
/// after the link gave it up: the peer need not read it.
pub(super) async fn write(
    number: u64,
    mut stream: WriteHalf<TcpStream>,
    queue: rt::Receiver<Vec<u8>>,
    fill: Fill,
    alive: rt::Receiver<()>,
    events: rt::Sender<Event>,
) {
    let writing = async {
        while let Ok(bytes) = queue.recv().await {
            if let Err(error) = stream.write_all(&bytes).await {
                let _ = events.send(Event::Closed(number, error)).await;
                return;
            }
            let left = fill.queued.get().saturating_sub(bytes.len());
            fill.queued.set(left);
            if left <= DRAINED && fill.full.replace(false) {
                let _ = events.send(Event::Drained(number)).await;
            }
        }
        // The link gave the connection up: let the peer know.
        let _ = stream.close().await;
    };
    future::or(writing, given_up(alive)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> IdentityKey {
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(n.to_le_bytes()).for_each(|(to, from)| *to = from);
        IdentityKey::from_bytes(bytes)
    }

    #[test]
    fn who_connects_again_has_no_new_budget() {
        let mut budgets = Budgets::default();
        let now = Instant::now();
        let burst = 8 << 20;
        assert_eq!(budgets.of(key(1), now).borrow_mut().spend(burst, now), Duration::ZERO);
        assert_eq!(budgets.of(key(1), now).borrow_mut().spend(256 << 10, now), Duration::from_secs(1));
        assert_eq!(budgets.of(key(2), now).borrow_mut().spend(burst, now), Duration::ZERO);
        let later = now + Duration::from_secs(33);
        assert!(budgets.of(key(1), later).borrow().is_full(later));
    }

    #[test]
    fn budgets_are_bounded_and_those_in_use_stay() {
        let mut budgets = Budgets::default();
        let now = Instant::now();
        let used = budgets.of(key(0), now);
        for n in 1..BUDGETS + 100 {
            let spent = budgets.of(key(n), now);
            spent.borrow_mut().spend(1 << 20, now);
            assert!(budgets.0.len() <= BUDGETS);
        }
        used.borrow_mut().spend(8 << 20, now);
        assert_eq!(budgets.of(key(0), now).borrow_mut().spend(256 << 10, now), Duration::from_secs(1));
    }
}
