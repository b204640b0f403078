//! Sockets over which the router tells other daemons of this host what other hosts say: names to the
//! DNS sidecar, addresses to the keeper.
//!
//! It sends a [`crate::Hello`], then frames of [`Update`]: all there is, one [`Update::Complete`],
//! then changes as they happen. It reads nothing. Whoever reads too slowly is cut off, and begins
//! anew.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use weave_wire::MacAddr;

/// Most readers of one socket.
pub const READERS_MAX: usize = 4;
/// Most entries in one frame: keeps any far below [`crate::REPLY_MAX`].
pub const FRAME_ENTRIES: usize = 2048;

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[serde(bound(deserialize = "K: Ord + Deserialize<'de>, V: Deserialize<'de>"))]
pub enum Update<K: Ord, V> {
    /// How it is with these from now on.
    Set(BTreeMap<K, V>),
    /// All was told once.
    Complete,
}

/// At which station an address is attached on another host; `None`: at none any more.
pub type AddressesUpdate = Update<IpAddr, Option<MacAddr>>;

/// The socket of attached addresses, for root only.
#[must_use]
pub fn addresses_socket(run_dir: &Path) -> PathBuf {
    crate::socket::directory(run_dir).join("addresses.sock")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn updates_survive_their_frames() {
        let set = BTreeMap::from([
            ("10.2.1.1".parse().unwrap(), Some(MacAddr([2, 0, 0, 0, 0, 1]))),
            ("fd00::1".parse().unwrap(), None),
        ]);
        for update in [AddressesUpdate::Set(set), AddressesUpdate::Complete] {
            let text = serde_json::to_string(&update).unwrap();
            assert_eq!(serde_json::from_str::<AddressesUpdate>(&text).unwrap(), update);
        }
    }
}
