//! What the integration tests share: hosts with routers, sockets for whole frames, checks of them.
//!
//! Everything here ends the test by a panic when it fails; nothing is for use outside tests. The
//! tests need root: they make network namespaces.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

pub mod account;
pub mod callers;
pub mod checksums;
pub mod crowd;
pub mod descriptors;
pub mod dns;
pub mod engines;
pub mod flood;
pub mod flow;
pub mod guesser;
pub mod honest;
pub mod hostile;
pub mod http;
pub mod insider;
pub mod lies;
pub mod losses;
pub mod member;
pub mod numbered;
pub mod packets;
pub mod pings;
pub mod prometheus;
pub mod random;
pub mod raw;
pub mod recipe;
pub mod relay;
pub mod traffic;
pub mod world;

pub use engines::{DNSUTILS, Engines};
pub use packets::PacketSocket;
pub use pings::Pings;
pub use world::{Options, Ran, World, wait_until};
