//! What a router decides about peers and stations: a set of state machines.
//!
//! No I/O, no clock, no randomness: events and the time go in, decisions and
//! the next deadline come out. Time is a [`std::time::Duration`] since any
//! fixed moment of the monotonic clock; differences saturate.
#![forbid(unsafe_code)]

pub mod admission;
pub mod backoff;
pub mod dialler;
pub mod liveness;
pub mod roaming;
pub mod stations;

pub use admission::{Admission, Refusal, Ticket};
pub use backoff::Backoff;
pub use dialler::{DialId, Dialler, Origin};
pub use liveness::{Beat, Liveness};
pub use roaming::{Challenge, Roaming};
pub use stations::{Seen, Stations};
