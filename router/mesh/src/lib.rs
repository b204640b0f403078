//! What a router decides about peers and stations: a set of state machines.
//!
//! No I/O, no clock, no randomness: events and the time go in, decisions and
//! the next deadline come out. Time is a [`std::time::Duration`] since any
//! fixed moment of the monotonic clock; differences saturate.
#![forbid(unsafe_code)]

pub mod admission;
pub mod backoff;
pub mod counters;
pub mod dialler;
mod directory;
pub mod liveness;
pub mod mesh;
pub mod output;
mod own;
pub mod path_mtu;
mod paths;
mod random;
pub mod roaming;
pub mod routes;
pub mod stations;
pub mod store;
mod telling;
mod topology;
pub mod wants;

pub use admission::{Admission, Refusal, Ticket, source_of};
pub use backoff::Backoff;
pub use counters::MeshCounters;
pub use dialler::{DialId, Dialler, Ended, Origin, may_dial};
pub use liveness::{Beat, Liveness};
pub use mesh::{MAX_NAME_ADDRESSES, Mesh, PeerView, TopologyView};
pub use output::{LinkInfo, LinkNumber, MeshConfig, Output, OwnStation, Refused, Signer, Timer};
pub use path_mtu::{PathMtu, Probe};
pub use roaming::{Challenge, Roaming};
pub use routes::{PeerRoute, Routes};
pub use stations::{Seen, Stations};

#[cfg(test)]
mod tests;
