//! The options of `launch` and `router`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use ipnet::IpNet;
use weave_api::Target;
use weave_router::config::{CoreList, LogLevel, MAX_CONN_LIMIT, MAX_CORES, MAX_MTU, MIN_MTU, Offloads};
use weave_wire::{Nickname, PeerName};

use super::passwords::Secret;

/// What `launch` and `router` take.
#[derive(Debug, Args)]
pub struct LaunchOptions {
    /// Password of the network; without one it is a clear network [env: WEAVE_PASSWORD]
    #[arg(long, value_name = "PASSWORD", allow_hyphen_values = true, conflicts_with = "password_file")]
    pub password: Option<Secret>,
    /// File that holds the password, and in a second line the previous one
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// What to call this host in `status` [default: its host name]
    #[arg(long, value_name = "NICKNAME")]
    pub nickname: Option<Nickname>,
    /// Name of this peer, like 02:1f:3a:00:c4:07 [default: the remembered or a new one]
    #[arg(long, value_name = "MAC")]
    pub name: Option<PeerName>,
    /// TCP and UDP port of the mesh [env: WEAVE_PORT] [default: 6783]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Bind to this address only
    #[arg(long, value_name = "ADDRESS")]
    pub host: Option<IpAddr>,
    /// Tell other peers this address, instead of those found
    #[arg(long, value_name = "ADDRESS[:PORT]", value_delimiter = ',')]
    pub advertise: Vec<Target>,
    /// MTU of container interfaces, one value for the whole network [env: WEAVE_MTU] [default: 1376]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(i64::from(MIN_MTU)..=i64::from(MAX_MTU)))]
    pub mtu: Option<u16>,
    /// Cores to forward on, one shard pinned to each, like 0-3,6 [default: one shard per core, at most 4]
    #[arg(long, value_name = "LIST")]
    pub cores: Option<CoreList>,
    /// Number of shards, unpinned
    #[arg(long, value_name = "N", hide = true, conflicts_with = "cores", value_parser = shards)]
    pub shards: Option<usize>,
    /// Do not connect to peers learned from other peers
    #[arg(long)]
    pub no_discovery: bool,
    /// Most links at once
    #[arg(long, value_name = "N", default_value_t = weave_router::config::DEFAULT_CONN_LIMIT,
          value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_CONN_LIMIT)))]
    pub conn_limit: u16,
    /// Data of links whose two ends list each other here is authenticated but not encrypted
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = subnet)]
    pub trusted_subnets: Vec<IpNet>,
    /// Keep this host's own traffic off unencrypted links, also those between other hosts
    #[arg(long)]
    pub require_encryption: bool,
    /// Containers of this host send from their own addresses only, and nothing that speaks for a network
    #[arg(long)]
    pub guard: bool,
    /// Parts of the fast path to switch off: no-gso, no-gro, no-uso, no-tso
    #[arg(long, value_name = "LIST")]
    pub offload: Option<Offloads>,
    /// Leave an encrypted network on purpose: start in clear
    #[arg(long)]
    pub clear: bool,
    /// Start no DNS
    #[arg(long)]
    pub no_dns: bool,
    /// How much to log: error, warn, info, debug, trace
    #[arg(long, value_name = "LEVEL", value_parser = log_level)]
    pub log_level: Option<LogLevel>,
    /// The same as --log-level debug
    #[arg(long, conflicts_with = "log_level")]
    pub debug: bool,
    /// Peers to connect to, instead of the remembered ones: names or addresses
    #[arg(value_name = "PEER[:PORT]")]
    pub targets: Vec<Target>,
}

fn shards(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=MAX_CORES).contains(number));
    number.ok_or_else(|| format!("not a number from 1 to {MAX_CORES}"))
}

fn subnet(text: &str) -> Result<IpNet, String> {
    let subnet: IpNet =
        text.parse().map_err(|_| "not a subnet like 10.1.0.0/16 or fd00:1::/64".to_owned())?;
    if subnet.trunc() != subnet {
        return Err(format!("an address inside a subnet; the subnet is {}", subnet.trunc()));
    }
    Ok(subnet)
}

/// Reads the name of a level; `warning` is that of the original.
pub fn log_level(text: &str) -> Result<LogLevel, &'static str> {
    let text = if text == "warning" { "warn" } else { text };
    let level = LogLevel::ALL.into_iter().find(|level| level.as_str() == text);
    level.ok_or("none of error, warn, info, debug, trace")
}
