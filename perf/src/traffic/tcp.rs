//! Throughput of one or more TCP streams.
//!
//! The source writes [`WRITE_BYTES`] at a time as fast as the sockets take it, the sink reads and
//! throws away, as an application would: the bytes are copied on both sides. Counted is what the
//! sink's application has read, so that nothing in a socket buffer passes for delivered.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

use super::error::{CHECK_ADDRESS, CHECK_LIMITS, CHECK_PATH};
use super::{CONNECT_LIMIT, Edge, Result, TrafficError, Window};

/// Bytes handed to the kernel in one write, and asked for in one read.
pub const WRITE_BYTES: usize = 128 << 10;

/// Most parallel streams of one measurement.
pub const MAX_STREAMS: usize = 64;

/// The receiving end: a listener that [`measure`] takes its streams from.
#[derive(Debug)]
pub struct Sink {
    listener: TcpListener,
    address: SocketAddr,
}

impl Sink {
    /// Listens on `address` in the namespace of the calling thread; port 0 picks a free one.
    ///
    /// # Errors
    /// The address is not configured here, the port is taken, or no file is left to open.
    pub fn bind(address: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address)
            .map_err(|e| TrafficError::new("listen on TCP", address, e, CHECK_ADDRESS))?;
        let limit = TimeVal::new(CONNECT_LIMIT.as_secs().cast_signed(), 0);
        setsockopt(&listener, sockopt::ReceiveTimeout, &limit)
            .map_err(|e| TrafficError::new("limit the wait on", address, e, CHECK_LIMITS))?;
        let address = listener
            .local_addr()
            .map_err(|e| TrafficError::new("ask the address of", address, e, CHECK_ADDRESS))?;
        Ok(Self { listener, address })
    }

    /// Where to connect the [`Source`].
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn accept(&self, count: usize) -> Result<Vec<TcpStream>> {
        (0..count)
            .map(|_| self.listener.accept().map(|(stream, _)| stream))
            .collect::<io::Result<_>>()
            .map_err(|e| TrafficError::new("accept a stream on", self.address, timed_out(e), CHECK_PATH))
    }
}

/// The sending end: streams that are connected and idle.
#[derive(Debug)]
pub struct Source {
    streams: Vec<TcpStream>,
    address: SocketAddr,
}

impl Source {
    /// Connects `streams` (1 to [`MAX_STREAMS`]) streams to the [`Sink`] at `address`, from the
    /// namespace of the calling thread.
    ///
    /// # Errors
    /// The sink does not answer within [`CONNECT_LIMIT`], or the number is out of range.
    pub fn connect(address: SocketAddr, streams: usize) -> Result<Self> {
        if !(1..=MAX_STREAMS).contains(&streams) {
            let cause = io::Error::new(ErrorKind::InvalidInput, format!("{streams} streams"));
            let remedy = "ask for 1 to 64 streams";
            return Err(TrafficError::new("connect to", address, cause, remedy));
        }
        let streams = (0..streams)
            .map(|_| connect_one(address))
            .collect::<io::Result<_>>()
            .map_err(|e| TrafficError::new("connect by TCP to", address, e, CHECK_PATH))?;
        Ok(Self { streams, address })
    }
}

fn connect_one(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, CONNECT_LIMIT)?;
    // Closing throws away what is still queued, so that nothing of this measurement is left on
    // the path while the next one runs.
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&stream, sockopt::Linger, &linger)?;
    Ok(stream)
}

/// What the streams carried together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Throughput {
    /// Payload bytes read by the sink within the window.
    pub bytes: u64,
    /// Length of the window as it really was.
    pub seconds: f64,
}

impl Throughput {
    /// Payload, 10^9 bits per second.
    pub fn gigabits_per_second(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.seconds / 1e9
    }
}

/// Sends through all streams of `source` at once and counts what arrives at `sink`.
///
/// `observe` is called at both edges of the window, on the calling thread.
///
/// # Errors
/// A stream breaks before the window ends, or the sink did not get all of them.
pub fn measure(
    sink: &Sink,
    source: Source,
    window: Window,
    observe: &mut dyn FnMut(Edge),
) -> Result<Throughput> {
    let accepted = sink.accept(source.streams.len())?;
    let counters: Vec<AtomicU64> = accepted.iter().map(|_| AtomicU64::new(0)).collect();
    let over = AtomicBool::new(false);
    let total = || -> u64 { counters.iter().map(|c| c.load(Ordering::Relaxed)).sum() };

    thread::scope(|scope| {
        let mut workers = Vec::with_capacity(2 * accepted.len());
        for (stream, counter) in accepted.iter().zip(&counters) {
            workers.push(scope.spawn(|| drain(stream, counter, &over)));
        }
        for stream in &source.streams {
            workers.push(scope.spawn(|| fill(stream, &over)));
        }

        thread::sleep(window.warm_up);
        observe(Edge::Begin);
        let (begin, before) = (Instant::now(), total());
        thread::sleep(window.duration);
        let (bytes, elapsed) = (total() - before, begin.elapsed());
        observe(Edge::End);

        over.store(true, Ordering::Relaxed);
        for stream in source.streams.iter().chain(&accepted) {
            // Wakes a worker that is blocked on this stream. A stream that broke is reported by
            // its worker.
            let _ = stream.shutdown(Shutdown::Both);
        }
        for worker in workers {
            let ended = worker.join().unwrap_or_else(|_| Err(io::Error::other("worker thread panicked")));
            ended.map_err(|e| TrafficError::new("keep streams to", source.address, e, CHECK_PATH))?;
        }
        Ok(Throughput { bytes, seconds: elapsed.as_secs_f64() })
    })
}

/// Reads until the measurement is over, counting.
fn drain(mut stream: &TcpStream, counter: &AtomicU64, over: &AtomicBool) -> io::Result<()> {
    let mut buffer = vec![0; WRITE_BYTES];
    let mut total = 0;
    loop {
        match stream.read(&mut buffer) {
            Ok(0) if over.load(Ordering::Relaxed) => return Ok(()),
            Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "stream ended early")),
            Ok(read) => {
                total += read as u64;
                counter.store(total, Ordering::Relaxed);
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) if over.load(Ordering::Relaxed) => return Ok(()),
            Err(e) => return Err(e),
        }
    }
}

/// Writes until the measurement is over.
fn fill(mut stream: &TcpStream, over: &AtomicBool) -> io::Result<()> {
    let buffer = vec![0x5a; WRITE_BYTES];
    while !over.load(Ordering::Relaxed) {
        match stream.write(&buffer) {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) if over.load(Ordering::Relaxed) => return Ok(()),
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// `EAGAIN` from a socket with a time limit means that the limit has passed.
fn timed_out(e: io::Error) -> io::Error {
    if e.kind() == ErrorKind::WouldBlock {
        let limit = Duration::as_secs(&CONNECT_LIMIT);
        io::Error::new(ErrorKind::TimedOut, format!("nothing within {limit} s"))
    } else {
        e
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const WINDOW: Window =
        Window { warm_up: Duration::from_millis(50), duration: Duration::from_millis(200) };

    fn any_port() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[test]
    fn streams_carry_bytes_and_the_observer_sees_both_edges() {
        let sink = Sink::bind(any_port()).unwrap();
        let source = Source::connect(sink.address(), 4).unwrap();
        let mut edges = Vec::new();
        let carried = measure(&sink, source, WINDOW, &mut |e| edges.push(e)).unwrap();
        assert!(carried.bytes > WRITE_BYTES as u64);
        assert!(carried.seconds >= 0.2);
        assert!(carried.gigabits_per_second() > 0.0);
        assert_eq!(edges, [Edge::Begin, Edge::End]);
    }

    #[test]
    fn a_sink_serves_one_measurement_after_another() {
        let sink = Sink::bind(any_port()).unwrap();
        for streams in [1, 2] {
            let source = Source::connect(sink.address(), streams).unwrap();
            assert!(measure(&sink, source, WINDOW, &mut |_| ()).unwrap().bytes > 0);
        }
    }

    #[test]
    fn too_many_streams_are_refused_with_a_remedy() {
        for streams in [0, MAX_STREAMS + 1] {
            let refused = Source::connect(any_port(), streams).unwrap_err();
            assert!(refused.to_string().contains("1 to 64"), "{refused}");
        }
    }

    #[test]
    fn nobody_listening_is_an_error_that_names_the_address() {
        let address = Sink::bind(any_port()).unwrap().address();
        let refused = Source::connect(address, 1).unwrap_err();
        assert!(refused.to_string().contains(&address.to_string()));
    }
}
