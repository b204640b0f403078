//! The state as people read it.

mod connections;
mod names;
mod peers;
mod summary;
mod tables;

pub use connections::{connections, state};
pub use names::{dns, names};
pub use peers::peers;
pub use summary::summary;
pub use tables::{macs, routes, targets};

use weave_wire::{Nickname, PeerName};

/// A peer as it is shown everywhere: `02:1f:3a:00:c4:07(host1)`.
fn peer(name: PeerName, nickname: Option<&Nickname>) -> String {
    nickname.map_or_else(|| name.to_string(), |nickname| format!("{name}({nickname})"))
}

/// When something is tried again.
fn next_try(seconds: Option<u64>) -> String {
    seconds.map_or_else(String::new, |seconds| format!("; next try in {seconds} s"))
}

#[cfg(test)]
pub mod sample;
