//! What control core and shards tell each other.

use crate::counters::LinkCounters;
use crossbeam_queue::ArrayQueue;
use nix::sys::eventfd::EventFd;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use weave_crypto::Key;
use weave_wire::{Lane, MacAddr, PeerName, SessionIndex};

/// Commands a shard has not read yet, at most.
pub const COMMAND_QUEUE: usize = 1024;
/// Reports the control core has not read yet, at most, of all shards together.
pub const REPORT_QUEUE: usize = 4096;

/// A link in the tables of the shards: a small number, given by the control core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u16);

/// How frames travel over a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Sealed.
    Sealed,
    /// In clear with a tag: what a trusted subnet takes away is secrecy alone.
    Authenticated,
    /// Clear, from this address only.
    Clear,
}

/// Keys to open what a peer sends in one epoch.
#[derive(Debug)]
pub struct ReceiveSession {
    /// The link it belongs to.
    pub link: LinkId,
    /// The peer at its other end.
    pub peer: PeerName,
    /// The peer's address; clear datagrams from elsewhere are dropped.
    pub address: IpAddr,
    /// Number of the epoch, echoed in reports.
    pub epoch: u64,
    /// Our name of the session, in every header of it.
    pub index: SessionIndex,
    /// Whether frames come sealed.
    pub mode: Mode,
    /// A key for every lane of the peer that this shard owns.
    pub keys: Vec<(Lane, Key)>,
    /// Opens nothing from then on ([`crate::boot_time`]).
    pub expires: Duration,
}

/// The key to seal what this shard sends in one epoch.
#[derive(Debug)]
pub struct SendSession {
    /// The link it belongs to.
    pub link: LinkId,
    /// Number of the epoch.
    pub epoch: u64,
    /// The peer's name of the session.
    pub index: SessionIndex,
    /// Whether frames go sealed.
    pub mode: Mode,
    /// The lane of this shard.
    pub lane: Lane,
    /// Its key.
    pub key: Key,
    /// Seals nothing from then on ([`crate::boot_time`]).
    pub expires: Duration,
}

/// Where frames go and where they may come from, the same for all shards.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes {
    /// Each reachable peer, once.
    pub peers: Vec<PeerRoute>,
    /// Links that frames for everybody take, when this host is their source.
    pub broadcast: Vec<LinkId>,
    /// This host's own frames may take no unencrypted link.
    pub sealed_only: bool,
    /// Links to one peer of which the second follows the first: what came by one goes back by
    /// neither.
    pub followed: Vec<(LinkId, LinkId)>,
}

impl Routes {
    /// True if both links lead to one peer.
    #[must_use]
    #[inline]
    pub fn same_peer(&self, a: LinkId, b: LinkId) -> bool {
        a == b || self.followed.iter().any(|&pair| pair == (a, b) || pair == (b, a))
    }
}

/// What the topology says about one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRoute {
    /// The peer.
    pub peer: PeerName,
    /// The link on the way to it.
    pub next: LinkId,
    /// The same for frames that may take no unencrypted link on the whole way.
    pub next_sealed: Option<LinkId>,
    /// Its own frames are such.
    pub sealed_only: bool,
    /// Links by which frames of it for one peer may come.
    pub unicast_from: Vec<LinkId>,
    /// Links by which frames of it for everybody may come.
    pub broadcast_from: Vec<LinkId>,
    /// Links by which its frames for everybody are sent on.
    pub broadcast_to: Vec<LinkId>,
}

/// A change of the table of MACs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MacChange {
    /// The station.
    pub mac: MacAddr,
    /// The peer it is at now; `None`: forgotten.
    pub peer: Option<PeerName>,
    /// True if that peer has it attached: nobody else's frames move it.
    pub attached: bool,
}

/// From the control core to one shard.
#[derive(Debug)]
pub enum Command {
    /// A link is there, or its address changed.
    SetLink {
        /// The link.
        link: LinkId,
        /// Where its datagrams go, and clear ones come from.
        address: SocketAddr,
        /// Where this shard counts what it carries.
        counters: Arc<LinkCounters>,
    },
    /// What the path of a link passes. Until told, everything.
    SetPathMtu {
        /// The link.
        link: LinkId,
        /// Longest datagram, bytes of UDP payload. Less than
        /// [`MIN_DATAGRAM`](crate::MIN_DATAGRAM) counts as that.
        datagram: u16,
        /// False while the limit is still searched for: then senders are not told
        /// of it, for they would remember it for minutes.
        advise: bool,
    },
    /// Send probes of the path on this shard's lane: keep-alives of these lengths.
    Probe {
        /// The link.
        link: LinkId,
        /// Number of the first probe.
        first: u64,
        /// Their lengths, bytes of UDP payload.
        lens: Vec<u16>,
    },
    /// Ask a peer for an echo, the way that frames of containers take.
    Echo {
        /// The peer.
        peer: PeerName,
        /// The echo's number.
        number: u64,
        /// Bytes in the place of a frame; made longer or shorter as far as need be.
        len: u16,
    },
    /// Whether the datagrams of a link are sent from the mesh port, because those of
    /// the lanes' own ports do not pass. Lane, key and numbers stay. At first: no.
    SetOnePort {
        /// The link.
        link: LinkId,
        /// True for the mesh port.
        one_port: bool,
    },
    /// The link is gone with all its sessions.
    DropLink(LinkId),
    /// Keys to open with; answered by [`Report::ReceiveInstalled`].
    InstallReceive(Box<ReceiveSession>),
    /// No more of this session.
    DropReceive(SessionIndex),
    /// Seal with this key from now on; the old one is destroyed.
    SetSend(Box<SendSession>),
    /// Frames that went in clear with a tag over this link go sealed from now on. Both
    /// kinds are taken until the next epoch.
    Seal(LinkId),
    /// Routes, all of them.
    SetRoutes(Arc<Routes>),
    /// MACs that came, moved or went.
    ChangeMacs(Arc<Vec<MacChange>>),
    /// MACs attached on this host: frames that bring them back are dropped.
    SetLocalMacs(Arc<Vec<MacAddr>>),
    /// Send a keep-alive on this shard's lane of the link.
    KeepAlive {
        /// The link.
        link: LinkId,
        /// From the lane's own port also where the link is to use the mesh port
        /// only: to learn whether it passes by now.
        own_port: bool,
    },
    /// The queue belongs to a tap again: it is read once more.
    ReadTap,
}

/// From a shard to the control core.
#[derive(Debug, PartialEq, Eq)]
pub enum Report {
    /// The keys of an epoch are in this shard.
    ReceiveInstalled {
        /// The shard.
        shard: usize,
        /// The link.
        link: LinkId,
        /// Our name of the session, as it was given.
        index: SessionIndex,
    },
    /// The first datagram of a lane under an epoch's key was opened. Later ones are noted
    /// in [`crate::LinkCounters`].
    LaneSeen {
        /// The link.
        link: LinkId,
        /// The lane.
        lane: Lane,
        /// The epoch.
        epoch: u64,
        /// True for a keep-alive, false for data.
        keep_alive: bool,
        /// True if it came from another port than the link's datagrams go to: the
        /// lane's own.
        own_port: bool,
    },
    /// A probe of the path arrived.
    ProbeSeen {
        /// The link.
        link: LinkId,
        /// The probe's number.
        number: u64,
        /// Its length, bytes of UDP payload.
        len: u16,
    },
    /// An echo came back.
    EchoSeen {
        /// The peer.
        peer: PeerName,
        /// The echo's number.
        number: u64,
        /// How long it took.
        round_trip: Duration,
    },
    /// A station was seen at a peer: new there, moved, or still there after a minute.
    MacSeen {
        /// The station.
        mac: MacAddr,
        /// The peer.
        peer: PeerName,
    },
    /// A lane of either side has few numbers left under its key: time for the
    /// next epoch.
    KeyWearsOut(LinkId),
    /// The route to the link's address takes no segmented sends; they are sent
    /// one by one for a minute.
    SegmentationRefused(LinkId),
    /// Segmented sends are tried again.
    SegmentationRetried(LinkId),
    /// A datagram of the control lane that came to a shard's socket.
    ControlDatagram {
        /// The datagram.
        datagram: Box<[u8]>,
        /// Where it came from.
        source: SocketAddr,
    },
    /// The tap was deleted; nothing is read until [`Command::ReadTap`].
    TapGone,
    /// The shard has ended.
    Ended {
        /// The shard.
        shard: usize,
        /// Why, unless it was told to.
        error: Option<String>,
    },
}

/// Bounded way from the control core to one shard.
#[derive(Debug)]
pub struct CommandQueue {
    queue: ArrayQueue<Command>,
    wake: EventFd,
}

impl CommandQueue {
    /// An empty queue.
    ///
    /// # Errors
    /// The kernel's, if it gives no eventfd.
    pub fn new() -> std::io::Result<Self> {
        use nix::sys::eventfd::EfdFlags;
        let wake = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { queue: ArrayQueue::new(COMMAND_QUEUE), wake })
    }

    /// Appends a command that may get lost, which the shard reads when it is woken.
    ///
    /// # Errors
    /// Gives the command back if the shard is behind by half the queue: the rest is for those that may
    /// not.
    pub fn push_quietly(&self, command: Command) -> Result<(), Command> {
        // One for each link at once.
        const { assert!(COMMAND_QUEUE / 2 >= crate::MAX_LINKS) };
        if self.queue.len() >= COMMAND_QUEUE / 2 { Err(command) } else { self.queue.push(command) }
    }

    /// Appends a command and wakes the shard.
    ///
    /// # Errors
    /// Gives the command back if the shard is that far behind.
    pub fn push(&self, command: Command) -> Result<(), Command> {
        let result = self.queue.push(command);
        self.notify();
        result
    }

    /// Wakes the shard.
    pub fn notify(&self) {
        // The only failure is a full counter, and then the shard is awake anyway.
        let _ = self.wake.write(1);
    }

    pub(crate) fn pop(&self) -> Option<Command> {
        self.queue.pop()
    }

    pub(crate) fn wake_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.wake)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn commands_that_may_get_lost_leave_room_for_those_that_may_not() {
        let queue = CommandQueue::new().unwrap();
        let command = || Command::DropLink(LinkId(1));
        let quietly = (0..COMMAND_QUEUE).take_while(|_| queue.push_quietly(command()).is_ok()).count();
        assert_eq!(quietly, COMMAND_QUEUE / 2);
        let others = (0..COMMAND_QUEUE).take_while(|_| queue.push(command()).is_ok()).count();
        assert_eq!(others, COMMAND_QUEUE / 2);
    }
}
