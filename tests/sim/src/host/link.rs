//! One link of a host (`control/link.rs`).

use super::*;

/// How long a link that another one follows is still listened to.
pub(super) const REPLACED_KEPT: Duration = Duration::from_secs(2);
/// How long a link may live without TCP.
pub(super) const TCP_LOST_LIMIT: Duration = Duration::from_secs(180);

/// The TCP connection of a link.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) queued: usize,
    pub(super) messages: usize,
    pub(super) full: bool,
    /// True if we dialled it.
    pub(super) outbound: bool,
}

/// What becomes of a link that a newer one to the same peer follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replaced {
    Serving,
    Until(Duration),
}

/// A link to one peer.
#[derive(Debug)]
pub struct Link {
    pub(super) number: u64,
    pub(super) session: Session,
    /// The other end.
    pub peer: Who,
    pub(super) outbound: bool,
    pub(super) remote: SocketAddr,
    pub(super) observed: Option<std::net::IpAddr>,
    /// Where the peer listens; known once it described itself.
    pub(super) address: Option<SocketAddr>,
    pub(super) connection: Option<Connection>,
    pub(super) liveness: Option<Liveness>,
    pub(super) tcp_lost: Option<Duration>,
    pub(super) redial: Option<(Backoff, Duration)>,
    pub(super) redialling: bool,
    pub(super) replaced: Option<Replaced>,
    pub(super) asked: Option<Heartbeat>,
    pub(super) routed: bool,
    pub(super) sent: u64,
    pub(super) received: BTreeSet<u64>,
    pub(super) due: Duration,
}

impl Link {
    /// True once a datagram made the round trip.
    #[must_use]
    pub fn is_established(&self) -> bool {
        self.liveness.as_ref().is_some_and(Liveness::is_established)
    }

    /// False if a newer one to the same peer follows it.
    #[must_use]
    pub const fn is_current(&self) -> bool {
        self.replaced.is_none()
    }

    /// True if data may go over it.
    pub(super) fn carries(&self) -> bool {
        self.is_established() && !matches!(self.replaced, Some(Replaced::Until(_)))
    }

    /// True if its TCP connection waits to be resumed.
    #[must_use]
    pub const fn is_degraded(&self) -> bool {
        self.tcp_lost.is_some()
    }

    pub(super) fn deadline(&self) -> Duration {
        let mut next = Duration::MAX;
        if let Some(liveness) = &self.liveness {
            next = next.min(liveness.deadline());
        }
        if let Some(since) = self.tcp_lost {
            next = next.min(since + TCP_LOST_LIMIT);
        }
        if let Some((_, at)) = &self.redial
            && !self.redialling
        {
            next = next.min(*at);
        }
        if let Some(Replaced::Until(at)) = self.replaced {
            next = next.min(at);
        }
        next
    }
}
