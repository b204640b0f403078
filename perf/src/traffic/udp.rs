//! UDP datagrams per second that really arrive.
//!
//! The sender makes one `send` call per datagram, on purpose: this is what applications do, it
//! is the same load for whatever is measured, and it keeps a sender on the same cores from
//! offering so much more than passes that only the dropping is measured. The receiver takes up
//! to [`BATCH`] datagrams per `recvmmsg` call, so that it is rarely the one that loses them.
//!
//! Every datagram is numbered, so that what is lost, doubled, reordered or damaged is told apart.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use super::batch::Batch;
use super::error::{CHECK_ADDRESS, CHECK_LIMITS, CHECK_PATH};
use super::pace::Pace;
use super::payload::{HEADER_BYTES, Stamp};
use super::sequence::SequenceTracker;
use super::{Edge, IDLE_CHECK, Result, TrafficError, Window};

pub use super::batch::BATCH;

/// Smallest payload that can be measured: number and tag.
pub const MIN_PAYLOAD_BYTES: usize = HEADER_BYTES;

/// Largest payload that can be measured; larger ones would not fit a jumbo frame.
pub const MAX_PAYLOAD_BYTES: usize = 9000;

/// Asked for as receive buffer. Holds what arrives while another program has the core.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;

/// How long after the last datagram sent a straggler is waited for.
const STRAGGLER_LIMIT: Duration = Duration::from_millis(500);

/// The receiving end.
#[derive(Debug)]
pub struct Receiver {
    socket: UdpSocket,
    address: SocketAddr,
}

impl Receiver {
    /// Binds to `address` in the namespace of the calling thread; port 0 picks a free one.
    ///
    /// Asks for a receive buffer of 8 MiB; without `CAP_NET_ADMIN` the kernel grants no more than
    /// `net.core.rmem_max`, which shows as lost datagrams at high rates.
    ///
    /// # Errors
    /// The address is not configured here or the port is taken.
    pub fn bind(address: SocketAddr) -> Result<Self> {
        let socket = UdpSocket::bind(address)
            .map_err(|e| TrafficError::new("bind UDP to", address, e, CHECK_ADDRESS))?;
        let address = socket
            .local_addr()
            .map_err(|e| TrafficError::new("ask the address of", address, e, CHECK_ADDRESS))?;
        setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES)
            .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER_BYTES))
            .map_err(|e| TrafficError::new("enlarge the buffer of", address, e, CHECK_LIMITS))?;
        socket
            .set_read_timeout(Some(IDLE_CHECK))
            .map_err(|e| TrafficError::new("limit the wait on", address, e, CHECK_LIMITS))?;
        Ok(Self { socket, address })
    }

    /// Where to connect the [`Sender`].
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The sending end.
#[derive(Debug)]
pub struct Sender {
    socket: UdpSocket,
    address: SocketAddr,
}

impl Sender {
    /// A socket connected to the [`Receiver`] at `address`, from the namespace of the calling
    /// thread.
    ///
    /// # Errors
    /// There is no route to the address.
    pub fn connect(address: SocketAddr) -> Result<Self> {
        let any: SocketAddr = if address.is_ipv4() {
            (std::net::Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
        };
        let socket = UdpSocket::bind(any)
            .and_then(|socket| socket.connect(address).map(|()| socket))
            .map_err(|e| TrafficError::new("connect UDP to", address, e, CHECK_PATH))?;
        Ok(Self { socket, address })
    }
}

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// UDP payload of each datagram, [`MIN_PAYLOAD_BYTES`] to [`MAX_PAYLOAD_BYTES`]. On the wire
    /// come 8 (UDP), 20 or 40 (IP) and 14 (Ethernet) more.
    pub payload_bytes: usize,
    /// Datagrams per second; `None`: as fast as the sender can.
    pub rate: Option<NonZeroU64>,
    /// Fill every datagram with a pattern and compare every byte of it on arrival. Costs both
    /// ends time, so off where speed is measured.
    pub check_content: bool,
}

impl Load {
    /// Datagrams of `payload_bytes`, as fast as they go, content unchecked.
    pub fn full_rate(payload_bytes: usize) -> Self {
        Self { payload_bytes, rate: None, check_content: false }
    }
}

/// What became of the datagrams. The fields up to `seconds` count within the window; the others
/// over the whole run, warm-up and stragglers included, so that none is missed.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Delivery {
    /// Handed to the kernel within the window.
    pub window_sent: u64,
    /// Received for the first time within the window.
    pub window_delivered: u64,
    /// Length of the window as it really was.
    pub seconds: f64,
    /// Handed to the kernel over the whole run.
    pub sent: u64,
    /// Received at least once, intact.
    pub delivered: u64,
    /// Received again.
    pub duplicates: u64,
    /// Received after a datagram that was sent later.
    pub reordered: u64,
    /// Received more than 2^20 datagrams late, so that a duplicate could not be told.
    pub too_late: u64,
    /// Received damaged, in another length, or not sent by this run at all.
    pub corrupted: u64,
    /// Refused by the sender's own kernel (no buffer, port unreachable); not in `sent`.
    pub refused: u64,
}

impl Delivery {
    /// Datagrams delivered per second.
    pub fn rate(&self) -> f64 {
        self.window_delivered as f64 / self.seconds
    }

    /// Sent, but never received intact.
    pub fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.delivered + self.too_late)
    }

    /// `lost` over `sent`; 0 when nothing was sent.
    pub fn loss(&self) -> f64 {
        if self.sent == 0 { 0.0 } else { self.lost() as f64 / self.sent as f64 }
    }
}

/// Counters and switches shared by sender, receiver and the clock.
#[derive(Debug, Default)]
struct Progress {
    sent: AtomicU64,
    delivered: AtomicU64,
    /// Set by the clock: send no more.
    stop: AtomicBool,
    /// Set by the sender: `sent` will not grow any more.
    all_sent: AtomicBool,
}

/// Sends `load` from `sender` and counts what arrives at `receiver`.
///
/// `observe` is called at both edges of the window, on the calling thread.
///
/// # Errors
/// The payload is out of range, or a socket fails for a reason other than a full buffer.
pub fn measure(
    receiver: &Receiver,
    sender: &Sender,
    load: Load,
    window: Window,
    observe: &mut dyn FnMut(Edge),
) -> Result<Delivery> {
    if !(MIN_PAYLOAD_BYTES..=MAX_PAYLOAD_BYTES).contains(&load.payload_bytes) {
        let cause = format!("payload of {} bytes", load.payload_bytes);
        let cause = io::Error::new(ErrorKind::InvalidInput, cause);
        let remedy = "use a payload of 16 to 9000 bytes";
        return Err(TrafficError::new("send to", sender.address, cause, remedy));
    }
    let stamp = Stamp::new(load.check_content);
    let progress = Progress::default();
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);

    thread::scope(|scope| {
        let receiving = scope.spawn(|| receive_all(receiver, load, stamp, &progress));
        let sending = scope.spawn(|| {
            let refused = send_all(sender, load, stamp, &progress);
            progress.all_sent.store(true, Ordering::Release);
            refused
        });

        thread::sleep(window.warm_up);
        observe(Edge::Begin);
        let begin = Instant::now();
        let (sent, delivered) = (read(&progress.sent), read(&progress.delivered));
        thread::sleep(window.duration);
        let seconds = begin.elapsed().as_secs_f64();
        let window_sent = read(&progress.sent) - sent;
        let window_delivered = read(&progress.delivered) - delivered;
        observe(Edge::End);

        progress.stop.store(true, Ordering::Relaxed);
        let panicked = |_| Err(io::Error::other("worker thread panicked"));
        let refused = sending
            .join()
            .unwrap_or_else(panicked)
            .map_err(|e| TrafficError::new("send UDP to", sender.address, e, CHECK_PATH));
        let received = receiving
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("worker thread panicked")))
            .map_err(|e| TrafficError::new("receive on", receiver.address, e, CHECK_LIMITS));
        let (refused, (tracker, corrupted)) = (refused?, received?);
        Ok(Delivery {
            window_sent,
            window_delivered,
            seconds,
            sent: read(&progress.sent),
            delivered: tracker.distinct,
            duplicates: tracker.duplicates,
            reordered: tracker.reordered,
            too_late: tracker.too_late,
            corrupted,
            refused,
        })
    })
}

/// Sends until told to stop; returns how many the kernel refused.
fn send_all(sender: &Sender, load: Load, stamp: Stamp, progress: &Progress) -> io::Result<u64> {
    let mut datagram = vec![0; load.payload_bytes];
    let mut pace = load.rate.map(Pace::start);
    let (mut number, mut refused) = (0, 0);
    while !progress.stop.load(Ordering::Relaxed) {
        if let Some(pace) = &mut pace {
            pace.wait();
        }
        stamp.write(number, &mut datagram);
        match sender.socket.send(&datagram) {
            Ok(_) => {
                number += 1;
                progress.sent.store(number, Ordering::Relaxed);
            }
            Err(e) if is_passing(&e) => refused += 1,
            Err(e) => return Err(e),
        }
    }
    Ok(refused)
}

/// Errors of one `send` that say nothing about the next.
fn is_passing(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ENOBUFS | libc::ECONNREFUSED | libc::EINTR))
}

/// Receives until everything sent has arrived or no more of it can be expected.
fn receive_all(
    receiver: &Receiver,
    load: Load,
    stamp: Stamp,
    progress: &Progress,
) -> io::Result<(SequenceTracker, u64)> {
    // One byte more than expected, so that a datagram that grew is noticed.
    let mut batch = Batch::new(load.payload_bytes + 1);
    let (mut tracker, mut corrupted) = (SequenceTracker::new(), 0);
    let mut last_arrival = Instant::now();
    loop {
        match batch.receive(&receiver.socket) {
            Ok(()) => {}
            Err(e) if is_idle(&e) => {}
            Err(e) => return Err(e),
        }
        for datagram in batch.datagrams() {
            match stamp.read(datagram) {
                Some(number) if datagram.len() == load.payload_bytes => tracker.observe(number),
                Some(_) | None => corrupted += 1,
            }
        }
        progress.delivered.store(tracker.distinct, Ordering::Relaxed);
        if batch.datagrams().next().is_some() {
            last_arrival = Instant::now();
        }
        let complete = tracker.distinct == progress.sent.load(Ordering::Relaxed);
        if progress.all_sent.load(Ordering::Acquire) && (complete || last_arrival.elapsed() > STRAGGLER_LIMIT)
        {
            return Ok((tracker, corrupted));
        }
    }
}

/// Nothing came within [`IDLE_CHECK`], or a signal did.
fn is_idle(e: &io::Error) -> bool {
    matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const WINDOW: Window =
        Window { warm_up: Duration::from_millis(50), duration: Duration::from_millis(200) };

    fn pair() -> (Receiver, Sender) {
        let receiver = Receiver::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let sender = Sender::connect(receiver.address()).unwrap();
        (receiver, sender)
    }

    #[test]
    fn paced_datagrams_all_arrive_once_in_order_and_intact() {
        let (receiver, sender) = pair();
        let load = Load { payload_bytes: 1348, rate: NonZeroU64::new(2000), check_content: true };
        let got = measure(&receiver, &sender, load, WINDOW, &mut |_| ()).unwrap();
        assert!(got.sent >= 400, "{got:?}");
        assert_eq!((got.lost(), got.duplicates, got.corrupted), (0, 0, 0), "{got:?}");
        assert_eq!(got.reordered, 0);
        // On a busy machine fewer may fall into the window, or more that were late before it.
        assert!((500.0..4000.0).contains(&got.rate()), "{got:?}");
    }

    #[test]
    fn full_rate_is_bounded_by_what_was_sent() {
        let (receiver, sender) = pair();
        let load = Load::full_rate(MIN_PAYLOAD_BYTES);
        let got = measure(&receiver, &sender, load, WINDOW, &mut |_| ()).unwrap();
        assert!(got.delivered > 0 && got.delivered <= got.sent, "{got:?}");
        assert!((0.0..=1.0).contains(&got.loss()));
    }

    #[test]
    fn strange_datagrams_are_counted_as_corrupted_and_not_as_delivered() {
        let (receiver, sender) = pair();
        let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
        for length in [0, 15, 16, 17, 64] {
            stranger.send_to(&vec![7; length], receiver.address()).unwrap();
        }
        let load = Load { payload_bytes: 16, rate: NonZeroU64::new(100), check_content: false };
        let got = measure(&receiver, &sender, load, WINDOW, &mut |_| ()).unwrap();
        assert_eq!((got.corrupted, got.lost()), (5, 0), "{got:?}");
    }

    #[test]
    fn nobody_receiving_ends_in_losses_not_in_a_hang() {
        let (receiver, _) = pair();
        let sender = Sender::connect("127.0.0.1:9".parse().unwrap()).unwrap();
        let load = Load::full_rate(64);
        let got = measure(&receiver, &sender, load, WINDOW, &mut |_| ()).unwrap();
        assert_eq!(got.delivered, 0);
        assert!(got.refused > 0);
    }

    #[test]
    fn payloads_out_of_range_are_refused() {
        let (receiver, sender) = pair();
        for bytes in [0, 15, 9001] {
            let load = Load::full_rate(bytes);
            assert!(measure(&receiver, &sender, load, WINDOW, &mut |_| ()).is_err());
        }
    }
}
