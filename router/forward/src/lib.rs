//! The forwarding path: shards that carry frames between tap queues and UDP.
//!
//! One thread a shard, each with a ring, a tap queue, sockets, buffers, keys and
//! tables of its own; nothing is shared while frames flow. The control core
//! sends [`Command`]s through a bounded queue and reads [`Report`]s from
//! another; counters are written by their shard alone and read by anybody.
//!
//! Layout: [`segment`] cuts and joins super-frames and is pure; `io` holds the
//! unsafe code around ring, buffers and sockets; `shard` is the loop.

mod clock;
mod command;
mod counters;
mod fragments;
mod group;
mod handover;
mod io;
mod probe;
pub mod segment;
mod shard;
mod storm;
mod tables;

pub use clock::boot_time;
pub use command::{
    Command, CommandQueue, LinkId, MacChange, Mode, PeerRoute, ReceiveSession, Report, Routes, SendSession,
};
pub use counters::{Counters, DropReason, FRAME_TIME_BOUNDS_NS, Fill, Histogram, LinkCounters, Snapshot};
pub use group::{Group, GroupConfig, Prepared, StartError};
pub use io::socket::{ControlSockets, SOCKET_BUFFER, SocketError, SocketSet, open as open_sockets};
pub use probe::{Features, ProbeError, probe};

/// Shards of one router, at most: one data lane each.
pub const MAX_SHARDS: usize = weave_wire::Lane::COUNT;
/// Shortest longest datagram a path may have, bytes of UDP payload: IPv4 alone passes 576.
pub const MIN_DATAGRAM: u16 = 512;
/// Links of one router, at most.
pub const MAX_LINKS: usize = 512;
