//! Round trips of small requests at a fixed rate, over UDP or over one TCP connection.
//!
//! Requests leave by the clock, not after the answer to the one before (open loop): a stall of
//! the path is seen by every request that falls into it, as users would see it. Each request
//! carries the time it was due, so waiting in the sender counts too.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroU32;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeSpec, TimeVal};

use super::error::{CHECK_ADDRESS, CHECK_PATH};
use super::{CONNECT_LIMIT, IDLE_CHECK, Latency, Result, TrafficError, Window};

/// Bytes of a request and of its answer.
pub const MESSAGE_BYTES: usize = 64;

/// How long an answer is waited for; later ones count as lost.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// What carries the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A datagram each.
    Udp,
    /// One connection with `TCP_NODELAY`.
    Tcp,
}

/// The answering end: sends every request back from a thread of its own, until dropped.
#[derive(Debug)]
pub struct Responder {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Responder {
    /// Answers on `address` in the namespace of the calling thread; port 0 picks a free one. Over
    /// TCP it serves one connection after the other.
    ///
    /// # Errors
    /// The address is not configured here or the port is taken.
    pub fn start(transport: Transport, address: SocketAddr) -> Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        let bind = |e| TrafficError::new("answer requests on", address, e, CHECK_ADDRESS);
        let (address, thread) = match transport {
            Transport::Udp => {
                let socket = udp_responder(address).map_err(bind)?;
                let address = socket.local_addr().map_err(bind)?;
                (address, thread::spawn(move || echo_datagrams(&socket, &seen)))
            }
            Transport::Tcp => {
                let listener = tcp_responder(address).map_err(bind)?;
                let address = listener.local_addr().map_err(bind)?;
                (address, thread::spawn(move || echo_streams(&listener, &seen)))
            }
        };
        Ok(Self { address, over, thread: Some(thread) })
    }

    /// Where to connect the [`Prober`].
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Only a panic of the thread can make this fail, and that was printed already.
            let _ = thread.join();
        }
    }
}

fn udp_responder(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    socket.set_read_timeout(Some(IDLE_CHECK))?;
    Ok(socket)
}

fn tcp_responder(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    let limit = TimeVal::new(0, i64::from(IDLE_CHECK.subsec_micros()));
    setsockopt(&listener, sockopt::ReceiveTimeout, &limit)?;
    Ok(listener)
}

/// Errors of one request are the prober's to notice: it gets no answer.
fn echo_datagrams(socket: &UdpSocket, over: &AtomicBool) {
    let mut message = [0; MESSAGE_BYTES];
    while !over.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut message) {
            let _ = socket.send_to(&message[..length], from);
        }
    }
}

fn echo_streams(listener: &TcpListener, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        if let Ok((stream, _)) = listener.accept() {
            // Ends when the prober closes; it sees a broken stream itself.
            let _ = echo_stream(stream, over);
        }
    }
}

fn echo_stream(mut stream: TcpStream, over: &AtomicBool) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(IDLE_CHECK))?;
    let mut message = [0; MESSAGE_BYTES];
    while !over.load(Ordering::Relaxed) {
        match stream.read(&mut message) {
            Ok(0) => return Ok(()),
            Ok(length) => stream.write_all(&message[..length])?,
            Err(e) if is_idle(&e) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// The asking end.
#[derive(Debug)]
pub struct Prober {
    channel: Channel,
    address: SocketAddr,
}

#[derive(Debug)]
enum Channel {
    Udp(UdpSocket),
    Tcp(TcpStream),
}

impl Prober {
    /// Connects to the [`Responder`] at `address`, from the namespace of the calling thread.
    ///
    /// # Errors
    /// No route (UDP), or no answer within [`CONNECT_LIMIT`] (TCP).
    pub fn connect(transport: Transport, address: SocketAddr) -> Result<Self> {
        let channel = match transport {
            Transport::Udp => connect_udp(address).map(Channel::Udp),
            Transport::Tcp => connect_tcp(address).map(Channel::Tcp),
        };
        let channel = channel.map_err(|e| TrafficError::new("send requests to", address, e, CHECK_PATH))?;
        Ok(Self { channel, address })
    }

    /// Sends `rate` requests a second through the window; the times of its answers.
    ///
    /// # Errors
    /// The connection breaks. Requests that get no answer are no error but counted.
    pub fn measure(mut self, rate: NonZeroU32, window: Window) -> Result<Latency> {
        self.channel
            .probe(rate, window)
            .map_err(|e| TrafficError::new("exchange requests with", self.address, e, CHECK_PATH))
    }
}

fn connect_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = if address.is_ipv4() {
        (std::net::Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn connect_tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, CONNECT_LIMIT)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

impl Channel {
    fn probe(&mut self, rate: NonZeroU32, window: Window) -> io::Result<Latency> {
        let interval = Duration::from_secs(1) / rate.get();
        let mut latency = Latency::new();
        let mut partial = Partial::default();
        let start = Instant::now();
        let last = window.warm_up + window.duration;
        let mut due = Duration::ZERO;
        loop {
            while due < last && due <= start.elapsed() {
                latency.sent += u64::from(due >= window.warm_up);
                self.send(&request(due))?;
                due += interval;
            }
            let complete = due >= last && latency.answered() >= latency.sent;
            let wake_at = if due < last { due } else { last + ANSWER_LIMIT };
            let Some(wait) = wake_at.checked_sub(start.elapsed()).filter(|_| !complete) else {
                if due < last {
                    continue;
                }
                latency.lost = latency.sent.saturating_sub(latency.answered());
                return Ok(latency);
            };
            if wait_readable(self.descriptor(), wait)? {
                while let Some(due) = self.receive(&mut partial)? {
                    let round_trip = start.elapsed().saturating_sub(due);
                    if due >= window.warm_up && round_trip <= ANSWER_LIMIT {
                        latency.record(round_trip);
                    }
                }
            }
        }
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        match self {
            Self::Udp(socket) => socket.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        }
    }

    /// Sends one request; one for which there is no room is lost.
    fn send(&mut self, message: &[u8; MESSAGE_BYTES]) -> io::Result<()> {
        let sent = match self {
            Self::Udp(socket) => socket.send(message).map(|_| ()),
            Self::Tcp(stream) => stream.write_all(message),
        };
        match sent {
            Err(e) if self.is_loss(&e) => Ok(()),
            other => other,
        }
    }

    fn is_loss(&self, e: &io::Error) -> bool {
        match self {
            Self::Udp(_) => is_idle(e) || is_unreachable(e),
            // A stream that took half a message cannot go on.
            Self::Tcp(_) => false,
        }
    }

    /// The due time of the next answer that is there, `None` when there is none.
    fn receive(&mut self, partial: &mut Partial) -> io::Result<Option<Duration>> {
        let result = match self {
            Self::Udp(socket) => {
                partial.length = 0;
                socket.recv(&mut partial.message)
            }
            Self::Tcp(stream) => match stream.read(&mut partial.message[partial.length..]) {
                Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
                other => other,
            },
        };
        match result {
            Ok(read) => Ok(partial.advance(read)),
            Err(e) if is_idle(&e) => Ok(None),
            Err(e) if self.is_loss(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        if let Self::Tcp(stream) = self {
            // Ends the responder's read at once; a stream that broke needs no ending.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// An answer that a stream has delivered in part.
#[derive(Debug)]
struct Partial {
    message: [u8; MESSAGE_BYTES],
    length: usize,
}

impl Default for Partial {
    fn default() -> Self {
        Self { message: [0; MESSAGE_BYTES], length: 0 }
    }
}

impl Partial {
    /// Takes `read` more bytes; the due time once the message is whole.
    fn advance(&mut self, read: usize) -> Option<Duration> {
        self.length += read;
        if self.length < MESSAGE_BYTES {
            return None;
        }
        self.length = 0;
        let due = self.message.first_chunk()?;
        Some(Duration::from_nanos(u64::from_le_bytes(*due)))
    }
}

/// A request: when it was due, as nanoseconds since the start, little endian, then zeros.
fn request(due: Duration) -> [u8; MESSAGE_BYTES] {
    let mut message = [0; MESSAGE_BYTES];
    let nanoseconds = due.as_nanos() as u64;
    message[..8].copy_from_slice(&nanoseconds.to_le_bytes());
    message
}

/// Waits at most `limit`; true when there is something to read.
pub(super) fn wait_readable(descriptor: BorrowedFd<'_>, limit: Duration) -> io::Result<bool> {
    let mut watched = [PollFd::new(descriptor, PollFlags::POLLIN)];
    match ppoll(&mut watched, Some(TimeSpec::from_duration(limit)), None) {
        Ok(ready) => Ok(ready > 0),
        Err(nix::errno::Errno::EINTR) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

fn is_idle(e: &io::Error) -> bool {
    matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Errors by which a datagram is lost although the next may pass.
fn is_unreachable(e: &io::Error) -> bool {
    matches!(
        e.raw_os_error(),
        Some(libc::ECONNREFUSED | libc::ENOBUFS | libc::EHOSTUNREACH | libc::ENETUNREACH)
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const WINDOW: Window =
        Window { warm_up: Duration::from_millis(50), duration: Duration::from_millis(300) };

    fn rate() -> NonZeroU32 {
        NonZeroU32::new(1000).unwrap()
    }

    #[test]
    fn every_request_is_answered_over_both_transports() {
        for transport in [Transport::Udp, Transport::Tcp] {
            let responder = Responder::start(transport, "127.0.0.1:0".parse().unwrap()).unwrap();
            let prober = Prober::connect(transport, responder.address()).unwrap();
            let latency = prober.measure(rate(), WINDOW).unwrap();
            assert_eq!((latency.sent, latency.lost), (300, 0), "{transport:?}");
            assert!(latency.p50_us() > 0.0 && latency.p50_us() <= latency.p99_us());
        }
    }

    #[test]
    fn a_tcp_responder_serves_one_prober_after_another() {
        let responder = Responder::start(Transport::Tcp, "127.0.0.1:0".parse().unwrap()).unwrap();
        for _ in 0..2 {
            let prober = Prober::connect(Transport::Tcp, responder.address()).unwrap();
            assert_eq!(prober.measure(rate(), WINDOW).unwrap().lost, 0);
        }
    }

    #[test]
    fn requests_nobody_answers_are_lost_and_end_in_time() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let prober = Prober::connect(Transport::Udp, silent.local_addr().unwrap()).unwrap();
        let start = Instant::now();
        let latency = prober.measure(rate(), WINDOW).unwrap();
        assert_eq!((latency.sent, latency.lost), (300, 300));
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_refused_datagram_is_a_loss() {
        let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let prober = Prober::connect(Transport::Udp, gone).unwrap();
        assert_eq!(prober.measure(rate(), WINDOW).unwrap().lost, 300);
    }
}
