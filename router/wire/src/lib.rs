//! Every byte format of the router: parsing and building, nothing else.
//!
//! No I/O, no clock, no randomness, no unsafe code. Types are views over
//! bytes made by checked conversion (`zerocopy`), so that no caller does index
//! arithmetic. `docs/wire.md` describes the formats for other implementations.
#![forbid(unsafe_code)]

pub mod checksum;
pub mod host_name;
pub mod identity;
pub mod inner;
pub mod link;
pub mod name;
pub mod outer;
pub mod packet;
pub mod vnet;

pub use host_name::HostName;
pub use identity::{IDENTITY_LEN, IdentityKey};
pub use inner::{INNER_LEN, InnerHeader};
pub use name::{MacAddr, Nickname, PeerName, SessionIndex, Uid};
pub use outer::{DatagramKind, Lane, OUTER_LEN, OuterHeader};

/// Length of an AEAD tag at the end of a sealed datagram, bytes.
pub const TAG_LEN: usize = 16;
/// Length of an Ethernet header without VLAN tag, bytes.
pub const ETHERNET_LEN: usize = 14;
/// Largest Ethernet frame over the MTU of its interface: header and one VLAN tag, bytes.
pub const FRAME_OVERHEAD: usize = ETHERNET_LEN + 4;
