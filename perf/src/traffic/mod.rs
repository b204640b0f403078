//! The traffic generator: what is sent through a network to measure it.
//!
//! Each kind comes as two ends and one function that runs them:
//!
//! 1. Create the receiving end, in the namespace it shall live in.
//! 2. Create the sending end, in its own namespace.
//! 3. Hand both to the `measure` function of the kind, from any thread.
//!
//! A socket belongs for life to the network namespace of the thread that created it. So only the
//! constructors care where they run; nothing here enters a namespace by itself.
//!
//! Every measurement has a warm-up that is carried like the rest but not counted, and everything
//! has a time limit: a network that swallows packets ends in an error or in a count of losses,
//! never in a hang.

mod batch;
mod error;
pub mod icmp;
pub mod latency;
mod pace;
mod payload;
pub mod ping;
mod sequence;
pub mod tcp;
pub mod udp;

use std::time::Duration;

pub use error::TrafficError;
pub use latency::Latency;

/// Result of anything in this module.
pub type Result<T> = std::result::Result<T, TrafficError>;

/// Longest wait for a connection to be made or a stream to be accepted.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// How long a receiver sleeps in the kernel before it looks whether the measurement is over.
///
/// Bounds how late the end of a measurement is noticed by an idle receiver; it does not delay
/// anything that is counted.
const IDLE_CHECK: Duration = Duration::from_millis(50);

/// When to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Carried but not counted: slow start, first use of caches, learning of addresses.
    pub warm_up: Duration,
    /// Counted.
    pub duration: Duration,
}

impl Window {
    /// A window of `duration` after a warm-up of a quarter of it, at least 200 ms.
    pub fn of(duration: Duration) -> Self {
        let warm_up = (duration / 4).max(Duration::from_millis(200));
        Self { warm_up, duration }
    }
}

/// The two moments between which a measurement counts.
///
/// A measurement reports them to its observer, so that the observer can read other meters (the
/// CPU time of a router) over exactly the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// The warm-up is over, counting begins.
    Begin,
    /// Counting has ended; the traffic still runs.
    End,
}
