//! Counters of a shard: written by it alone, read by anybody at any time.

use std::sync::atomic::{AtomicU64, Ordering};
use weave_wire::Lane;

macro_rules! reasons {
    ($(#[doc = $doc:literal] $name:ident = $text:literal,)*) => {
        /// Why a frame or datagram went no further.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason { $(#[doc = $doc] $name,)* }

        impl DropReason {
            /// All reasons, in the order of their counters.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The reason's name in status and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What it means, for documentation.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $doc,)* }
            }
        }
    };
}

reasons! {
    /// A frame shorter than an Ethernet header.
    FrameTooShort = "frame_too_short",
    /// A frame over the MTU of the network.
    FrameTooLong = "frame_too_long",
    /// Offload fields that do not fit the frame.
    BadOffload = "bad_offload",
    /// A frame for a station of this host: the bridge has delivered it.
    Local = "local",
    /// More frames for everybody than one source address may send (storm control), or a super-frame of over 128 segments for everybody.
    StormSource = "storm_source",
    /// More frames for everybody than are sent on for one source peer.
    StormPeer = "storm_peer",
    /// More frames for everybody than all sources together may send.
    StormTotal = "storm_total",
    /// No link leads to where the frame should go, or only the one it came by.
    NoRoute = "no_route",
    /// The link has no key to send with, or an old one.
    NoSendKey = "no_send_key",
    /// The kernel has no room for another datagram (`EAGAIN`, `ENOBUFS`, `ENOMEM`), or all send buffers wait.
    SendQueueFull = "send_queue_full",
    /// A frame or datagram over the MTU of its path: its sender was told, or the kernel refused it (`EMSGSIZE`).
    TooBig = "too_big",
    /// The kernel knows that nobody listens or no route leads there.
    Unreachable = "unreachable",
    /// Another error while sending.
    SendError = "send_error",
    /// An error while receiving.
    ReceiveError = "receive_error",
    /// A datagram that is none of this protocol, or of a later version.
    Malformed = "malformed",
    /// A datagram that did not fit its buffer.
    Truncated = "truncated",
    /// A session this router does not know (any more).
    UnknownSession = "unknown_session",
    /// A lane the session has no key for.
    UnknownLane = "unknown_lane",
    /// A datagram sealed, authenticated or clear where another kind is due, or a clear one from a foreign address.
    WrongMode = "wrong_mode",
    /// A session older than keys may be.
    KeyExpired = "key_expired",
    /// A number seen before.
    Replayed = "replayed",
    /// A number older than the replay window.
    TooOld = "too_old",
    /// A tag that does not fit.
    Forged = "forged",
    /// A source peer the frame cannot have come from.
    SourcePeer = "source_peer",
    /// A frame that has crossed as many links as it may.
    HopLimit = "hop_limit",
    /// A frame to be sent on, and no send buffer for it.
    RelayFull = "relay_full",
    /// A station that is attached at another peer than the frame's source.
    MacConflict = "mac_conflict",
    /// A frame of more fragments than there may be.
    TooManyFragments = "too_many_fragments",
    /// A fragment that contradicts others of its frame, and these with it.
    FragmentInconsistent = "fragment_inconsistent",
    /// A frame some of whose fragments did not come in time.
    FragmentTimeout = "fragment_timeout",
    /// A frame in fragments that had to make room for others.
    FragmentLimit = "fragment_limit",
    /// More echoes, or answers to them, than a shard takes.
    EchoLimit = "echo_limit",
    /// A frame of ours that came back.
    Loop = "loop",
    /// The tap refused a frame.
    TapError = "tap_error",
    /// More segments in one receive than a delivery holds.
    DeliveryFull = "delivery_full",
    /// The owner of the datagram's lane takes no more.
    HandOverFull = "hand_over_full",
    /// The control core takes no more.
    ReportFull = "report_full",
    /// The kernel dropped datagrams before they were read (`SO_RXQ_OVFL`).
    SocketFull = "socket_full",
}

macro_rules! counters {
    ($(#[doc = $doc:literal] $name:ident,)*) => {
        /// Counters of one shard.
        #[derive(Debug)]
        #[repr(align(128))]
        pub struct Counters {
            drops: [AtomicU64; DropReason::ALL.len()],
            /// Time that frames of the tap spent in the router, of one in so many.
            pub frame_times: Histogram,
            /// Places in use when the control core last sent a command.
            pub fill: Fill,
            $(#[doc = $doc] pub $name: Counter,)*
        }

        impl Default for Counters {
            fn default() -> Self {
                Self {
                    drops: [const { AtomicU64::new(0) }; DropReason::ALL.len()],
                    frame_times: Histogram::default(),
                    fill: Fill::default(),
                    $($name: Counter::default(),)*
                }
            }
        }

        impl Counters {
            /// Names of all counters but the drops, and what they count.
            pub const MEANINGS: &[(&str, &str)] = &[$((stringify!($name), $doc),)*];

            /// All counters but the drops, with their names in status and metrics.
            pub fn values(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name.get()),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Super-frames and frames read from the tap.
    tap_reads,
    /// Super-frames and frames written to the tap.
    tap_writes,
    /// Calls that sent datagrams.
    sends,
    /// Datagrams sent.
    datagrams_sent,
    /// Buffers of datagrams received.
    receives,
    /// Datagrams received.
    datagrams_received,
    /// Frames sent on to other peers; one for everybody counts for each link.
    frames_relayed,
    /// Bytes of these frames.
    bytes_relayed,
    /// Fragments sent, of frames too big for the path of a link.
    fragments_sent,
    /// Fragments received.
    fragments_received,
    /// Frames put together out of fragments.
    frames_reassembled,
    /// Senders told by ICMP that their packet is too big for a path.
    icmp_too_big_sent,
    /// Packets too big whose senders were not told, because many were.
    icmp_too_big_limited,
    /// Echoes sent back to who asked for them.
    echoes_answered,
    /// Datagrams handed to the shard that owns their lane.
    handed_over,
    /// Turns of the loop.
    turns,
    /// Waits for more than one completion, because many small frames come.
    gathering_waits,
    /// Times tap reads waited because the underlay took no more.
    back_pressure,
    /// Times a receive or read stopped because all buffers were in use.
    buffers_exhausted,
    /// Completions the ring had to queue outside its own memory.
    completion_overflow,
    /// Sends repeated datagram by datagram because the route refused segmentation.
    segmentation_refused,
    /// MACs that could not be learned because the table was full.
    mac_table_full,
}

/// Upper bounds of the buckets of a [`Histogram`], nanoseconds.
pub const FRAME_TIME_BOUNDS_NS: [u64; 13] = [
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    100_000_000,
];

/// Times, in buckets: written by one thread, read by others.
#[derive(Debug, Default)]
pub struct Histogram {
    /// One for each bound, and one for what is longer.
    buckets: [Counter; FRAME_TIME_BOUNDS_NS.len() + 1],
    sum_ns: Counter,
}

impl Histogram {
    /// Adds one time. Only the owner calls this.
    pub fn record(&self, ns: u64) {
        let bucket = FRAME_TIME_BOUNDS_NS.partition_point(|bound| *bound < ns);
        self.buckets[bucket].add(1);
        self.sum_ns.add(ns);
    }

    /// How many times were up to each bound and over the bound before it, the longest last; and
    /// the sum of all, nanoseconds.
    #[must_use]
    pub fn get(&self) -> ([u64; FRAME_TIME_BOUNDS_NS.len() + 1], u64) {
        (std::array::from_fn(|bucket| self.buckets[bucket].get()), self.sum_ns.get())
    }
}

/// How full a shard is.
#[derive(Debug, Default)]
pub struct Fill {
    /// Read buffers that hold frames.
    pub read_buffers: Gauge,
    /// Receive buffers that hold datagrams.
    pub receive_buffers: Gauge,
    /// Send slots that the kernel has.
    pub send_slots: Gauge,
    /// Frames that wait for send slots.
    pub parked: Gauge,
    /// Operations that are not submitted to the kernel yet.
    pub submissions: Gauge,
    /// Finished operations that were not looked at yet.
    pub completions: Gauge,
}

/// A number one thread sets and others read.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Sets it. Only the owner calls this.
    pub fn set(&self, value: usize) {
        self.0.store(value as u64, Ordering::Relaxed);
    }

    /// The value as last set.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number one thread raises and others read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owner calls this: a plain load and store, no locked
    /// instruction.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// The value now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    /// Counts one drop. Only the owner calls this.
    #[inline]
    pub fn dropped(&self, reason: DropReason) {
        self.dropped_many(reason, 1);
    }

    /// Counts `n` drops. Only the owner calls this.
    #[inline]
    pub fn dropped_many(&self, reason: DropReason, n: u64) {
        let counter = &self.drops[reason as usize];
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Drops for `reason` so far.
    #[must_use]
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize].load(Ordering::Relaxed)
    }

    /// A copy of all counters: names and values, drops under their reasons.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            values: self.values().collect(),
            drops: DropReason::ALL.iter().map(|&reason| (reason.name(), self.drops(reason))).collect(),
        }
    }
}

/// A copy of the counters of one shard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Names and values.
    pub values: Vec<(&'static str, u64)>,
    /// Reasons and drops.
    pub drops: Vec<(&'static str, u64)>,
}

/// What one shard carried over one link.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct LinkCounters {
    /// Frames sent.
    pub frames_sent: Counter,
    /// Bytes of these frames.
    pub bytes_sent: Counter,
    /// Frames received.
    pub frames_received: Counter,
    /// Bytes of these frames.
    pub bytes_received: Counter,
    /// Lanes of the peer that anything genuine came by.
    pub lanes_seen: SeenLanes,
}

/// Lanes noted by a shard until the control core takes them: it need not be woken
/// for each.
#[derive(Debug, Default)]
pub struct SeenLanes {
    seen: AtomicU64,
    own_port: AtomicU64,
}

impl SeenLanes {
    /// A datagram came by `lane`, from a port of the lane's own or not.
    #[inline]
    pub fn note(&self, lane: Lane, own_port: bool) {
        let bit = 1_u64.checked_shl(lane.number().into()).unwrap_or(0);
        // Of many datagrams between two takes one writes.
        if self.seen.load(Ordering::Relaxed) & bit == 0 {
            self.seen.fetch_or(bit, Ordering::Relaxed);
        }
        if own_port && self.own_port.load(Ordering::Relaxed) & bit == 0 {
            self.own_port.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// The lanes noted since the last call, bit *n* for lane *n*, and those of them
    /// that came from a port of their own.
    #[must_use]
    pub fn take(&self) -> (u64, u64) {
        (self.seen.swap(0, Ordering::Relaxed), self.own_port.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_in_the_first_bucket_that_it_fits() {
        let histogram = Histogram::default();
        for ns in [0, 5_000, 5_001, 100_000_000, 100_000_001] {
            histogram.record(ns);
        }
        let (buckets, sum) = histogram.get();
        assert_eq!(buckets, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(sum, 200_010_002);
    }
}
