//! What a router is started with: every field parsed and within its range.
//!
//! The command line fills a [`Config`] from options, environment and
//! defaults; nothing below it looks at either again.

mod cores;
mod http;
mod offload;
mod password;
mod test_knobs;

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use weave_wire::{Nickname, PeerName};

pub use cores::{CoreList, MAX_CORES, ParseCoresError};
pub use http::{DEFAULT_STATUS_ADDR, Http, MAX_STATUS_HOSTS, ParseStatusAddrError, parse_status_addr};
pub use offload::{Offloads, ParseOffloadsError};
pub use password::{
    PASSWORD_MAX, PASSWORD_SHORT, ParsePasswordsError, Password, PasswordFile, ReadPasswordsError,
};
pub use test_knobs::{Feature, TestKnobError, TestKnobs};
pub use weave_api::target::{Target, TargetHost};

/// TCP and UDP port of the mesh unless told otherwise.
pub const DEFAULT_PORT: u16 = 6783;
/// MTU of container interfaces unless told otherwise, bytes: with all headers
/// and a VLAN tag it fits an underlay of 1500 over IPv4 and IPv6.
pub const DEFAULT_MTU: u16 = 1376;
/// Smallest MTU, bytes: what every IPv4 host must take (RFC 791). Below 1280
/// the kernel offers no IPv6 on the interface (RFC 8200).
pub const MIN_MTU: u16 = 576;
/// Largest MTU, bytes: with all headers it fits the usual jumbo frame of 9216.
pub const MAX_MTU: u16 = 9100;
/// Links a router keeps unless told otherwise.
pub const DEFAULT_CONN_LIMIT: u16 = 200;
/// Most links a router can be told to keep: what one peer may announce.
pub const MAX_CONN_LIMIT: u16 = 512;
/// Most targets of one router.
pub const MAX_TARGETS: usize = 512;
/// Most addresses one router may advertise.
pub const MAX_ADVERTISED: usize = 16;

/// Most trusted subnets.
pub const MAX_TRUSTED_SUBNETS: usize = 64;

/// Everything a router needs to know before it starts.
#[derive(Debug, Clone)]
pub struct Config {
    /// Control socket, pid file, log: `WEAVE_RUN_DIR`.
    pub run_dir: PathBuf,
    /// What outlives a run: `WEAVE_STATE_DIR`.
    pub state_dir: PathBuf,
    /// The name given with `-name`; otherwise the remembered or a new one.
    pub name: Option<PeerName>,
    /// What operators call this peer.
    pub nickname: Nickname,
    /// TCP and UDP port of the mesh, never 0.
    pub port: u16,
    /// The only address to bind to; `None`: every address.
    pub host: Option<IpAddr>,
    /// Addresses to tell other peers, instead of those found, at most [`MAX_ADVERTISED`].
    pub advertise: Vec<Target>,
    /// MTU of container interfaces, [`MIN_MTU`] to [`MAX_MTU`].
    pub mtu: u16,
    /// Cores to pin one shard each to; `None`: one shard per core up to four, unpinned.
    pub cores: Option<CoreList>,
    /// Number of shards where no cores are named, 1 to [`MAX_CORES`] (a test switch).
    pub shards: Option<usize>,
    /// Most links at once, 1 to [`MAX_CONN_LIMIT`].
    pub conn_limit: u16,
    /// Connect to peers learned from other peers.
    pub discovery: bool,
    /// Parts of the fast path switched off by hand.
    pub offload: Offloads,
    /// Subnets whose hosts are trusted with what this host sends them, at most
    /// [`MAX_TRUSTED_SUBNETS`]: data between two hosts that list each other is
    /// authenticated but not encrypted.
    pub trusted_subnets: Vec<IpNet>,
    /// Nothing of this host's own stations crosses an unencrypted link, anywhere. Then
    /// no subnet is trusted.
    pub require_encryption: bool,
    /// Network passwords, current first, at most two; empty: a clear network.
    pub passwords: Vec<Password>,
    /// Where they were read, an absolute path: read again on `weave reload` and SIGHUP.
    pub password_file: Option<PathBuf>,
    /// Start in clear although the state remembers an encrypted network.
    pub clear: bool,
    /// Peers to dial, replacing the remembered ones; empty: the remembered ones.
    pub targets: Vec<Target>,
    /// Metrics, report and status page over HTTP; `None`: off.
    pub http: Option<Http>,
    /// How much to log.
    pub log_level: LogLevel,
    /// Switches for tests, all off in production.
    pub test: TestKnobs,
}

impl Config {
    /// True if data to `address` need not be sealed.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        !self.require_encryption && contains(&self.trusted_subnets, address)
    }
}

/// True if `address` is in one of `subnets`. An IPv4 address counts as such also
/// where a socket of both families shows it mapped.
fn contains(subnets: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    subnets.iter().any(|subnet| subnet.contains(&address))
}

/// How much a router logs, each level with all above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum LogLevel {
    /// What stopped working.
    Error,
    /// What works less well than it should.
    Warn,
    /// Links, peers, start and end.
    #[default]
    Info,
    /// Each decision of the control core.
    Debug,
    /// Each message of the control core. Never frames.
    Trace,
}

impl LogLevel {
    /// All levels, least talkative first.
    pub const ALL: [Self; 5] = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// The name of the level as `tracing` and the command line spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// What a router says once it is ready, to whoever started it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyInfo {
    /// The name this run uses.
    pub name: PeerName,
    /// What operators call it.
    pub nickname: Nickname,
    /// Things the operator should know at once (one line each): degraded
    /// states found by the probes, state files kept aside, a public address in clear.
    #[serde(default)]
    pub warnings: Vec<String>,
}
