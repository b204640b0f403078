//! Names: what the router tells the DNS sidecar, what commands and keeper write for it, and what it
//! tells of itself.
//!
//! All of it lives in the directory `dns` of the run directory, which belongs to root and may be
//! entered by the sidecar: the socket of names, a file with the names of this host, and the
//! sidecar's own socket.
//!
//! The socket of names is one of [`crate::updates`].

use std::collections::BTreeMap;
use std::fmt;
use std::fs::Permissions;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use weave_wire::{HostName, Nickname, PeerName};

use crate::software::Software;
use crate::updates::Update;

/// User and group the sidecar runs as: `nobody`, who owns nothing.
pub const SIDECAR_ID: u32 = 65534;
/// Port of the DNS (RFC 1035, section 4.2).
pub const DNS_PORT: u16 = 53;
/// Bridges of Podman's default network, as netavark and as CNI make them when a container starts.
pub const PODMAN_BRIDGES: [&str; 2] = ["podman0", "cni-podman0"];
/// Time a sidecar has to answer a command.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Longest line that a command sends to the sidecar, bytes.
pub const LINE_MAX: usize = 512;

/// The directory of the sidecar.
#[must_use]
pub fn directory(run_dir: &Path) -> PathBuf {
    run_dir.join("dns")
}

/// Makes run directory and sidecar's directory, unless they are there. What is made in the latter
/// has its group, also by a router without privileges.
///
/// # Errors
/// What the file system refuses.
pub fn prepare(run_dir: &Path) -> io::Result<PathBuf> {
    let directory = directory(run_dir);
    for (path, mode) in [(run_dir, 0o711), (directory.as_path(), 0o2750)] {
        if path.is_dir() {
            continue;
        }
        std::fs::DirBuilder::new().recursive(true).mode(mode).create(path)?;
        if path == directory {
            give(path);
        }
        // The mode of a new directory is narrowed by the umask, and a new owner takes bits from it.
        std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    Ok(directory)
}

/// Gives a directory to the sidecar's group. In a user namespace there is no such group, and the
/// sidecar is the one user there is.
fn give(path: &Path) {
    let _ = std::os::unix::fs::lchown(path, None, Some(SIDECAR_ID));
}

/// The router's socket of names.
#[must_use]
pub fn names_socket(run_dir: &Path) -> PathBuf {
    directory(run_dir).join("names.sock")
}

/// The sidecar's own socket.
#[must_use]
pub fn sidecar_socket(run_dir: &Path) -> PathBuf {
    directory(run_dir).join("sidecar.sock")
}

/// The names of this host ([`OwnNames`] as JSON).
#[must_use]
pub fn own_file(run_dir: &Path) -> PathBuf {
    directory(run_dir).join("own.json")
}

/// The beginning of a container's id, as it travels between hosts: six bytes, shown as 12
/// hexadecimal digits; zero for what is no container of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ShortId(pub [u8; 6]);

impl ShortId {
    /// Of a container by its id in full; zero for anything else.
    #[must_use]
    pub fn of(container: &str) -> Self {
        container.get(..12).and_then(|digits| digits.parse().ok()).unwrap_or_default()
    }
}

impl fmt::Display for ShortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for ShortId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WHY: &str = "not 12 hexadecimal digits";
        if text.len() != 12 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(WHY);
        }
        let number = u64::from_str_radix(text, 16).map_err(|_| WHY)?;
        let [_, _, bytes @ ..] = number.to_be_bytes();
        Ok(Self(bytes))
    }
}

impl From<ShortId> for String {
    fn from(id: ShortId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for ShortId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// What one host says of a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Says {
    /// The host.
    pub origin: PeerName,
    /// An address the name stands for.
    pub address: IpAddr,
    /// Its container.
    pub container: ShortId,
}

/// A frame of the socket of names: all that other hosts say of these names from now on; nothing: the
/// name is gone.
pub type NamesUpdate = Update<HostName, Vec<Says>>;

/// A name of this host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OwnName {
    /// The name.
    pub name: HostName,
    /// An address it stands for.
    pub address: IpAddr,
    /// Whose it is: an engine's id, a namespace as it was attached, [`EXPOSED`] or [`EXTERN`].
    pub container: String,
}

/// Whose names of this host itself are.
pub const EXPOSED: &str = "weave:expose";
/// Whose names of addresses outside the network are.
pub const EXTERN: &str = "weave:extern";

/// What this host's commands and keeper tell the sidecar.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OwnNames {
    /// The names of this host.
    #[serde(default)]
    pub names: Vec<OwnName>,
    /// The networks of its containers: who is in them may ask, and their addresses are never
    /// asked for elsewhere.
    #[serde(default)]
    pub subnets: Vec<IpNet>,
    /// Addresses of this host on the network, where it is asked too.
    #[serde(default)]
    pub exposed: Vec<IpAddr>,
}

/// A name in the answer of the router: whose it is, for `status dns`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameEntry {
    /// The name.
    pub name: HostName,
    /// An address it stands for.
    pub address: IpAddr,
    /// Its container.
    pub container: ShortId,
    /// The host that says so.
    pub origin: PeerName,
    /// What operators call that host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nickname: Option<Nickname>,
}

/// What the sidecar tells of itself, as JSON on one line, when it is asked `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SidecarStatus {
    /// Process id.
    pub pid: u32,
    /// Its program; of an earlier version, which does not tell, nothing.
    #[serde(flatten, default)]
    pub software: Option<Software>,
    /// Domain of the names.
    pub domain: HostName,
    /// Time a name may be remembered, seconds.
    pub ttl_s: u32,
    /// Where it is asked.
    pub listening: Vec<SocketAddr>,
    /// Where it cannot listen, and why.
    #[serde(default)]
    pub not_listening: Vec<String>,
    /// Whom it asks for names outside the domain.
    pub upstream: Vec<SocketAddr>,
    /// Names it knows.
    pub names: usize,
    /// Addresses they stand for.
    pub entries: usize,
    /// Seconds since the router was lost; absent while it tells of changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router_lost_s: Option<u64>,
    /// Counters by name.
    #[serde(default)]
    pub counters: BTreeMap<String, u64>,
}

/// What the sidecar answers to `lookup NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    /// The addresses the name stands for.
    pub addresses: Vec<IpAddr>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_short_id_is_the_beginning_of_an_engines_id() {
        let id = ShortId::of(&"0123456789ab".repeat(6));
        assert_eq!(id.to_string(), "0123456789ab");
        assert_eq!(id.to_string().parse(), Ok(id));
        for other in [EXPOSED, "pid:1", "/run/netns/blue-and-longer", ""] {
            assert_eq!(ShortId::of(other), ShortId::default(), "{other}");
        }
    }

    #[test]
    fn updates_survive_their_frames() {
        let says = Says {
            origin: "02:00:00:00:00:01".parse().unwrap(),
            address: "10.2.1.1".parse().unwrap(),
            container: ShortId([1, 2, 3, 4, 5, 6]),
        };
        let set = BTreeMap::from([("a.weave.local".parse().unwrap(), vec![says])]);
        for update in [NamesUpdate::Set(set), NamesUpdate::Complete] {
            let text = serde_json::to_string(&update).unwrap();
            assert_eq!(serde_json::from_str::<NamesUpdate>(&text).unwrap(), update);
        }
    }
}
