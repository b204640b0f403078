//! Shards between taps and an underlay of the tests' own.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod crowded;
mod fragments;
mod hostile;
mod one_port;
mod path_mtu;
mod pressure;
mod relay;
mod rig;
mod storm;
