//! Many hosts in one process, with one seeded clock and network.
//!
//! The state machines are those of the router ([`weave_mesh`]); what surrounds
//! them is simulated: the control core ([`host`]), the data plane ([`frames`]),
//! TCP ([`tcp`]) and the underlay ([`network`]). A [`scenario`] draws faults from
//! a seed ([`plan`]), lets hosts suffer them, ends them all, and sees what must
//! hold ([`checks`]). The same seed gives the same run, to the last message.
//!
//! `docs/simulator.md` says how to run it and how to add faults and invariants.
#![forbid(unsafe_code)]

pub mod character;
pub mod checks;
pub mod curve;
pub mod cuts;
pub mod frames;
pub mod greeting;
pub mod host;
pub mod hostile;
pub mod identity;
pub mod later;
pub mod ledger;
pub mod network;
pub mod plan;
pub mod queue;
pub mod random;
pub mod scenario;
pub mod shape;
pub mod tcp;
pub mod trace;
pub mod world;

pub use scenario::{Outcome, Scenario};
