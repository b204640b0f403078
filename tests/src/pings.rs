//! Echoes of numbered datagrams, asked for at a steady rate over a time in which things change.
//!
//! The far container answers by a UDP socket of its own, so that each ping goes through the whole
//! way there and back, and each is accounted for: lost or not, and when.

use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use weave_perf::lab::Container;

use crate::flow::{END_CHECK, Flow, Flowed, unspecified};
use crate::world::{Spot, World};

/// Pings a second, unless a test wants another rate.
pub const RATE: u32 = 10;

/// Pings on their way.
#[derive(Debug)]
pub struct Pings {
    flow: Flow,
    echo: Echo,
}

impl Pings {
    /// Begins to ping `address`, which `to` has, `rate` times a second.
    #[must_use]
    pub fn start(from: &Container, to: &Container, address: IpAddr, rate: u32) -> Self {
        let far = to.run(|| UdpSocket::bind((address, 0)).unwrap()).unwrap();
        let target = far.local_addr().unwrap();
        let near = from.run(|| UdpSocket::bind(unspecified(address)).unwrap()).unwrap();
        let echo = Echo::start(far);
        Self { flow: Flow::between(near.try_clone().unwrap(), near, target, rate), echo }
    }

    /// The same between containers of a world, [`RATE`] times a second.
    #[must_use]
    pub fn between(world: &World, from: usize, address: IpAddr) -> Self {
        let to = world.container_at(Spot::of(address));
        Self::start(world.container(from), to, address, RATE)
    }

    /// Waits for the answer to a ping that was sent at `since` or later; returns how long after
    /// `since` it came.
    #[track_caller]
    pub fn wait_answer(&self, since: Instant, limit: Duration, what: &str) -> Duration {
        self.flow.wait_passes(since, limit, what)
    }

    /// Ends it and says which pings were answered: [`Flowed::lost`], [`Flowed::longest_gap`].
    #[must_use]
    pub fn finish(self) -> Flowed {
        let flowed = self.flow.finish();
        self.echo.finish();
        flowed
    }
}

/// Sends every datagram back to where it came from.
#[derive(Debug)]
struct Echo {
    over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Echo {
    fn start(socket: UdpSocket) -> Self {
        socket.set_read_timeout(Some(END_CHECK)).unwrap();
        let over = Arc::<AtomicBool>::default();
        let end = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let mut datagram = [0; 2048];
            while !end.load(Ordering::Relaxed) {
                let Ok((length, source)) = socket.recv_from(&mut datagram) else { continue };
                // An answer that cannot be sent is lost, as the account will show.
                let _ = socket.send_to(&datagram[..length], source);
            }
        });
        Self { over, thread }
    }

    fn finish(self) {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}
