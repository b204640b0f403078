//! Traffic that goes on while a test breaks things: numbered datagrams, a TCP conversation.
//!
//! Every datagram and its arrival is remembered, so that a test can say of each one whether it
//! was lost or doubled, and how long after an event the first one got through.

use std::fmt;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use weave_perf::lab::Container;

use crate::wait_until;

/// How long after the last datagram a straggler is waited for.
const STRAGGLERS: Duration = Duration::from_millis(500);
/// How often a receiver looks whether it is to end.
pub(crate) const END_CHECK: Duration = Duration::from_millis(50);
/// Bytes of each datagram.
const DATAGRAM: usize = 64;
/// Longest silence of a TCP conversation before it counts as broken.
const TALK_SILENCE: Duration = Duration::from_secs(40);
/// Missing numbers that a report names.
const NAMED: usize = 20;

/// Numbered datagrams from one container to another at a steady rate.
#[derive(Debug)]
pub struct Flow {
    shared: Arc<Shared>,
    sender: JoinHandle<()>,
    receiver: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    sending: AtomicBool,
    receiving: AtomicBool,
    sent: Mutex<Vec<Instant>>,
    arrived: Mutex<Vec<(u64, Instant)>>,
}

/// What became of a [`Flow`].
pub struct Flowed {
    /// When each datagram was sent; its number is its place.
    pub sent: Vec<Instant>,
    /// Number and time of each arrival.
    pub arrived: Vec<(u64, Instant)>,
}

impl Flow {
    /// Begins to send `rate` datagrams a second to `address`, which `to` has.
    #[must_use]
    pub fn start(from: &Container, to: &Container, address: IpAddr, rate: u32) -> Self {
        let inbox = to.run(|| UdpSocket::bind((address, 0)).unwrap()).unwrap();
        let target = inbox.local_addr().unwrap();
        let outbox = from.run(|| UdpSocket::bind(unspecified(address)).unwrap()).unwrap();
        Self::between(outbox, inbox, target, rate)
    }

    /// Sends from `outbox` to `target`, from where the datagrams come to `inbox`.
    pub(crate) fn between(outbox: UdpSocket, inbox: UdpSocket, target: SocketAddr, rate: u32) -> Self {
        inbox.set_read_timeout(Some(END_CHECK)).unwrap();
        let shared = Arc::new(Shared::default());
        shared.sending.store(true, Ordering::Relaxed);
        shared.receiving.store(true, Ordering::Relaxed);
        let sender = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || send(&shared, &outbox, target, rate))
        };
        let receiver = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || receive(&shared, &inbox))
        };
        Self { shared, sender, receiver }
    }

    /// Waits for a datagram that was sent at `since` or later; returns how long after `since` it
    /// arrived.
    #[track_caller]
    pub fn wait_passes(&self, since: Instant, limit: Duration, what: &str) -> Duration {
        let mut passed = None;
        wait_until(
            limit.saturating_sub(since.elapsed()).max(END_CHECK),
            || format!("no datagram passes: {what}"),
            || {
                let sent = self.shared.sent.lock().unwrap();
                let arrived = self.shared.arrived.lock().unwrap();
                let mut newest = arrived.iter().rev().take_while(|(_, at)| *at >= since);
                passed = newest
                    .by_ref()
                    .filter(|(number, _)| sent.get(*number as usize).is_some_and(|at| *at >= since))
                    .map(|(_, at)| *at - since)
                    .min();
                passed.is_some()
            },
        );
        passed.unwrap()
    }

    /// Ends it and says what became of it.
    #[must_use]
    pub fn finish(self) -> Flowed {
        self.shared.sending.store(false, Ordering::Relaxed);
        self.sender.join().unwrap();
        std::thread::sleep(STRAGGLERS);
        self.shared.receiving.store(false, Ordering::Relaxed);
        self.receiver.join().unwrap();
        let sent = std::mem::take(&mut *self.shared.sent.lock().unwrap());
        let arrived = std::mem::take(&mut *self.shared.arrived.lock().unwrap());
        Flowed { sent, arrived }
    }
}

/// Any address of the same family, any port.
pub(crate) fn unspecified(like: IpAddr) -> SocketAddr {
    if like.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() }
}

fn send(shared: &Shared, socket: &UdpSocket, target: SocketAddr, rate: u32) {
    let interval = Duration::from_secs(1) / rate;
    let mut due = Instant::now();
    while shared.sending.load(Ordering::Relaxed) {
        let number = {
            let mut sent = shared.sent.lock().unwrap();
            sent.push(Instant::now());
            sent.len() as u64 - 1
        };
        let mut datagram = [0; DATAGRAM];
        datagram[..8].copy_from_slice(&number.to_be_bytes());
        // An error that an earlier datagram brought back is no failure of this one.
        while socket
            .send_to(&datagram, target)
            .is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused)
        {}
        due += interval;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

fn receive(shared: &Shared, socket: &UdpSocket) {
    let mut datagram = [0; DATAGRAM + 1];
    while shared.receiving.load(Ordering::Relaxed) {
        let Ok(len) = socket.recv(&mut datagram) else { continue };
        assert_eq!(len, DATAGRAM, "a datagram of another length than was sent");
        let number = u64::from_be_bytes(*datagram.first_chunk().unwrap());
        shared.arrived.lock().unwrap().push((number, Instant::now()));
    }
}

impl Flowed {
    /// Numbers that never arrived.
    #[must_use]
    pub fn lost(&self) -> Vec<u64> {
        let counts = self.counts();
        (0..).zip(counts).filter(|(_, count)| *count == 0).map(|(number, _)| number).collect()
    }

    /// Numbers that arrived more than once.
    #[must_use]
    pub fn doubled(&self) -> Vec<u64> {
        let counts = self.counts();
        (0..).zip(counts).filter(|(_, count)| *count > 1).map(|(number, _)| number).collect()
    }

    /// The longest time from the sending of one datagram that arrived to that of the next one that
    /// did; the first and the last count as if they had arrived. With nothing lost it is the time
    /// between two datagrams.
    #[must_use]
    pub fn longest_gap(&self) -> Duration {
        let counts = self.counts();
        let last = self.sent.len().saturating_sub(1);
        let kept = self.sent.iter().enumerate().filter(|(at, _)| counts[*at] > 0 || *at == 0 || *at == last);
        let times: Vec<Instant> = kept.map(|(_, sent)| *sent).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    fn counts(&self) -> Vec<u32> {
        let mut counts = vec![0; self.sent.len()];
        for (number, _) in &self.arrived {
            counts[*number as usize] += 1;
        }
        counts
    }

    /// Ends the test unless every datagram arrived exactly once.
    #[track_caller]
    pub fn assert_whole(&self, what: &str) {
        assert!(self.lost().is_empty() && self.doubled().is_empty(), "{what}: {self:?}");
    }
}

impl fmt::Debug for Flowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (lost, doubled) = (self.lost(), self.doubled());
        let at = |number: &u64| (*number, self.sent[*number as usize].duration_since(self.sent[0]));
        let named = |list: &[u64]| list.iter().take(NAMED).map(at).collect::<Vec<_>>();
        write!(
            f,
            "{} sent, {} lost: {:?}, longest gap {:?}, {} doubled: {:?}",
            self.sent.len(),
            lost.len(),
            named(&lost),
            self.longest_gap(),
            doubled.len(),
            named(&doubled)
        )
    }
}

/// A TCP connection over which one number after the other goes out and comes back.
#[derive(Debug)]
pub struct Talk {
    going: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    client: JoinHandle<std::io::Result<()>>,
    server: JoinHandle<std::io::Result<()>>,
}

impl Talk {
    /// Connects from one container to `address`, which `to` has; sends a number every `pause`.
    #[must_use]
    pub fn start(from: &Container, to: &Container, address: IpAddr, pause: Duration) -> Self {
        let listener = to.run(|| TcpListener::bind((address, 0)).unwrap()).unwrap();
        let target = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || echo(listener.accept()?.0));
        let mut stream = from.run(|| TcpStream::connect_timeout(&target, TALK_SILENCE).unwrap()).unwrap();
        let (going, answered) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
        let client = {
            let (going, answered) = (Arc::clone(&going), Arc::clone(&answered));
            std::thread::spawn(move || {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(TALK_SILENCE))?;
                for number in 0_u64.. {
                    if !going.load(Ordering::Relaxed) {
                        break;
                    }
                    stream.write_all(&number.to_be_bytes())?;
                    let mut back = [0; 8];
                    stream.read_exact(&mut back)?;
                    assert_eq!(u64::from_be_bytes(back), number, "TCP carried another byte than was sent");
                    answered.store(number + 1, Ordering::Relaxed);
                    std::thread::sleep(pause);
                }
                Ok(())
            })
        };
        Self { going, answered, client, server }
    }

    /// Numbers that came back.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits until more numbers have come back than now.
    #[track_caller]
    pub fn wait_answer(&self, limit: Duration) {
        // The one under way may have come back before this was called.
        let wanted = self.answered() + 2;
        wait_until(
            limit,
            || format!("the TCP connection does not go on after {} answers", self.answered()),
            || self.answered() >= wanted || self.client.is_finished(),
        );
    }

    /// Ends the conversation; fails the test if the connection broke.
    #[track_caller]
    pub fn finish(self) {
        self.going.store(false, Ordering::Relaxed);
        self.client.join().unwrap().expect("the TCP connection broke");
        self.server.join().unwrap().expect("the TCP connection broke at the far end");
    }
}

fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(2 * TALK_SILENCE))?;
    let mut buffer = [0; 64];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            len => stream.write_all(&buffer[..len])?,
        }
    }
}
