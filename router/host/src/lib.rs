//! The kernel's side of the network: namespaces, bridge, tap, attachments.
//!
//! Everything here needs root (or a user namespace of its own, see
//! [`unprivileged`]) and speaks to the kernel directly: rtnetlink, ioctl and
//! /proc/sys, no helper programs. "The host" is always the network namespace
//! of the calling thread. All calls block, and each has a time limit.

pub mod address;
pub mod attach;
pub mod bridge;
pub mod detached;
#[cfg(feature = "engine")]
pub mod engine;
mod error;
pub mod ethtool;
pub mod exposed;
mod failpoint;
pub mod firewall;
pub mod forwarding;
#[cfg(feature = "engine")]
pub mod keeper;
pub mod keeper_socket;
pub mod mtu;
pub mod named;
pub mod names;
pub mod namespace;
mod neighbour;
pub mod netlink;
mod packet;
mod pidfd;
pub mod policy;
mod protect;
pub mod records;
pub mod reset;
pub mod store;
mod sys;
pub mod tap;
pub mod unprivileged;

pub use error::{Error, Result};
pub use failpoint::failpoint;
pub use namespace::{Namespace, NamespaceId, NamespaceSpec};
pub use netlink::{Link, Netlink};
pub use pidfd::PidFd;
pub use sys::{is_clock_kept, keep_descriptors};
