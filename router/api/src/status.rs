//! The state of a router, as `weave status` shows it and `-o json` prints it.
//!
//! Durations are whole seconds up to now (or until something happens), never
//! points of a wall clock. Names of fields end in their unit.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use weave_wire::{MacAddr, Nickname, PeerName, Uid};

use crate::keeper::KeeperStatus;
use crate::software::Software;
use crate::target::Target;

/// Entries of each list in one page of a [`Status`]: keeps any page far below
/// [`crate::REPLY_MAX`].
pub const PAGE_ENTRIES: usize = 256;
/// Most pages that a client collects: 16,384 MACs and 4,096 peers fit.
pub const PAGES_MAX: usize = 1024;

/// Everything a router tells about itself. Secrets are no part of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the router's software.
    pub version: String,
    /// Versions of the mesh protocol it speaks, lowest and highest.
    pub protocol: (u16, u16),
    /// Its name.
    pub name: PeerName,
    /// What operators call it.
    pub nickname: Nickname,
    /// This run.
    pub uid: Uid,
    /// Process id.
    pub pid: u32,
    /// Seconds since it became ready.
    pub uptime_s: u64,
    /// TCP and UDP port of the mesh.
    pub port: u16,
    /// True when links are sealed, false on a clear network.
    pub encrypted: bool,
    /// True when it dials peers learned from other peers.
    pub discovery: bool,
    /// MTU of container interfaces, bytes.
    pub mtu: u16,
    /// Most links at once.
    pub conn_limit: u16,
    /// Networks inside which links may be readable.
    #[serde(default)]
    pub trusted_subnets: Vec<IpNet>,
    /// What it is told to dial.
    #[serde(default)]
    pub targets: Vec<TargetStatus>,
    /// Its links, also those being made or tried again.
    #[serde(default)]
    pub connections: Vec<Connection>,
    /// Peers it knows, itself first.
    #[serde(default)]
    pub peers: Vec<Peer>,
    /// The way to each reachable peer.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// Stations it knows.
    #[serde(default)]
    pub macs: Vec<MacEntry>,
    /// Its forwarding shards.
    #[serde(default)]
    pub shards: Vec<Shard>,
    /// Counters of the control core, by name.
    #[serde(default)]
    pub counters: BTreeMap<String, u64>,
    /// What works, but in a slower way.
    #[serde(default)]
    pub degraded: Vec<Degraded>,
    /// The router's own program; of an earlier version, which does not tell, nothing.
    #[serde(default, skip_serializing_if = "Software::is_unknown")]
    pub software: Software,
    /// The keeper, as it told last; absent where none runs, or one of an earlier version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeper: Option<KeeperStatus>,
    /// The program of the DNS of this host, if it answers and tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Software>,
}

/// A slower way of working, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Degraded {
    /// Its name, the same in metrics and documentation: `one_port`, `no_uso`.
    pub name: String,
    /// Why it is so and, where there is one, the cure.
    pub reason: String,
    /// Seconds it has lasted.
    pub since_s: u64,
}

/// Something the router is told to dial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetStatus {
    /// What was typed.
    pub target: Target,
    /// How it stands.
    pub state: TargetState,
    /// Why it is not connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Seconds until the next try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_in_s: Option<u64>,
}

/// How a target stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetState {
    /// Its name is being looked up or it is being dialled.
    Connecting,
    /// There is a link to it.
    Connected,
    /// It will be tried again.
    Retrying,
    /// It is this router itself.
    Ourself,
}

/// Who dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// This router did.
    Outbound,
    /// The peer did.
    Inbound,
}

/// How a link stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConnectionState {
    /// TCP connection or handshake under way.
    Connecting,
    /// Authenticated; no sealed datagram has made the round trip yet.
    Pending,
    /// A sealed datagram made the round trip in the last interval.
    Established,
    /// Lost or never made; will be dialled again.
    Retrying,
    /// Refused for a reason that time alone does not cure; dialled slowly.
    Failed,
}

/// A link, or the attempt to make one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Who dialled.
    pub direction: Direction,
    /// The other end's address, or the target as typed while it is not known.
    pub address: Target,
    /// How it stands.
    pub state: ConnectionState,
    /// Seconds in this state.
    #[serde(default)]
    pub since_s: u64,
    /// Why it is retried or failed, as far as this side can know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Seconds until it is dialled again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_in_s: Option<u64>,
    /// Whether its data is sealed; unknown before the handshake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<bool>,
    /// Who is there; unknown before the handshake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<PeerName>,
    /// What its operators call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nickname: Option<Nickname>,
    /// MTU of the peer's container interfaces, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Version of the mesh protocol that both ends use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u16>,
    /// Round trip of the last heartbeat, microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u64>,
    /// Lanes from the peer.
    #[serde(default)]
    pub lanes_in: u8,
    /// Lanes to the peer.
    #[serde(default)]
    pub lanes_out: u8,
    /// Frames sent.
    #[serde(default)]
    pub tx_frames: u64,
    /// Bytes of frames sent.
    #[serde(default)]
    pub tx_bytes: u64,
    /// Frames received.
    #[serde(default)]
    pub rx_frames: u64,
    /// Bytes of frames received.
    #[serde(default)]
    pub rx_bytes: u64,
    /// Slower ways this link works in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub degraded: Vec<Degraded>,
}

impl Connection {
    /// True for an attempt of others that was turned away: of a stranger, a scanner, or a host with
    /// another password. None of this host's own attempts is one, and no link.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.direction == Direction::Inbound && self.state == ConnectionState::Failed
    }
}

/// A peer of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name.
    pub name: PeerName,
    /// What its operators call it.
    pub nickname: Nickname,
    /// Its run.
    pub uid: Uid,
    /// The links it has.
    #[serde(default)]
    pub connections: Vec<PeerConnection>,
}

/// A link as one of its ends tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerConnection {
    /// Who dialled, seen from the end that tells.
    pub direction: Direction,
    /// The address of the other end, once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Target>,
    /// Who is at the other end.
    pub peer: PeerName,
    /// What its operators call it.
    pub nickname: Nickname,
    /// True when data passes.
    pub established: bool,
    /// True when data is sealed.
    pub encrypted: bool,
}

/// The way to a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The peer.
    pub peer: PeerName,
    /// What its operators call it.
    pub nickname: Nickname,
    /// The peer that frames are sent to first: itself where there is a direct link.
    pub via: PeerName,
    /// What that one's operators call it.
    pub via_nickname: Nickname,
    /// Links on the way.
    pub hops: u8,
    /// True if every link on the way is sealed.
    pub encrypted: bool,
    /// True if frames for everybody come from it by the same link.
    pub broadcast_from: bool,
    /// Peers that its frames for everybody are relayed to.
    #[serde(default)]
    pub broadcast_to: Vec<PeerName>,
}

/// A station and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MacEntry {
    /// Its address.
    pub mac: MacAddr,
    /// The peer it is at.
    pub peer: PeerName,
    /// What that peer's operators call it.
    pub nickname: Nickname,
    /// How it is known.
    pub source: MacSource,
    /// Seconds since a frame of it was seen.
    pub idle_s: u64,
}

/// How a station is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MacSource {
    /// By a frame it sent.
    Learned,
    /// It was attached by command.
    Attached,
}

/// A forwarding shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Its number, also of the lane it sends on.
    pub shard: u8,
    /// The core it is pinned to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core: Option<u16>,
    /// Its counters, by name.
    #[serde(default)]
    pub counters: BTreeMap<String, u64>,
    /// Frames and datagrams it dropped, by reason.
    #[serde(default)]
    pub drops: BTreeMap<String, u64>,
}

impl Status {
    /// The status in pages, each small enough for one frame: the lists are
    /// spread over them, everything else stands in each.
    #[must_use]
    pub fn into_pages(mut self) -> Vec<Self> {
        let mut macs = std::mem::take(&mut self.macs);
        let mut peers = std::mem::take(&mut self.peers);
        let mut connections = std::mem::take(&mut self.connections);
        let mut targets = std::mem::take(&mut self.targets);
        let mut routes = std::mem::take(&mut self.routes);
        let mut pages = Vec::new();
        loop {
            let mut page = self.clone();
            page.macs = take(&mut macs, |_| 1);
            page.peers = take(&mut peers, |peer| 1 + peer.connections.len() / 4);
            page.connections = take(&mut connections, |_| 1);
            page.targets = take(&mut targets, |_| 1);
            page.routes = take(&mut routes, |route| 1 + route.broadcast_to.len() / 8);
            pages.push(page);
            let rest = macs.len() + peers.len() + connections.len() + targets.len() + routes.len();
            if rest == 0 {
                return pages;
            }
        }
    }

    /// Adds the lists of the next page.
    pub fn append(&mut self, page: Self) {
        self.macs.extend(page.macs);
        self.peers.extend(page.peers);
        self.connections.extend(page.connections);
        self.targets.extend(page.targets);
        self.routes.extend(page.routes);
    }
}

/// Takes entries off the front until they weigh as much as a page holds; one at least.
fn take<T>(list: &mut Vec<T>, weight: impl Fn(&T) -> usize) -> Vec<T> {
    let mut total = 0;
    let count = list
        .iter()
        .take_while(|entry| {
            let fits = total == 0 || total + weight(entry) <= PAGE_ENTRIES;
            total += weight(entry);
            fits
        })
        .count();
    let rest = list.split_off(count);
    std::mem::replace(list, rest)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::frame::encode;
    use crate::{Outcome, REPLY_MAX, Reply, Response};

    fn large() -> Status {
        let name: PeerName = "02:00:00:00:00:01".parse().unwrap();
        let nickname = Nickname::from_host_name(&"n".repeat(63));
        let mac = |n: u32| MacAddr([2, 0, (n >> 24) as u8, (n >> 16) as u8, (n >> 8) as u8, n as u8]);
        let connection = PeerConnection {
            direction: Direction::Inbound,
            address: Some("[fd00::1234:5678:9abc]:65535".parse().unwrap()),
            peer: name,
            nickname: nickname.clone(),
            established: true,
            encrypted: true,
        };
        Status {
            version: "0.1.0".into(),
            protocol: (1, 1),
            name,
            nickname: nickname.clone(),
            uid: Uid(1),
            pid: 1,
            uptime_s: 1,
            port: 6783,
            encrypted: true,
            discovery: true,
            mtu: 1376,
            conn_limit: 200,
            trusted_subnets: Vec::new(),
            targets: Vec::new(),
            connections: Vec::new(),
            peers: (0..4096)
                .map(|n| Peer {
                    name,
                    nickname: nickname.clone(),
                    uid: Uid(n),
                    connections: vec![connection.clone(); 8],
                })
                .collect(),
            routes: (0..4096)
                .map(|_| Route {
                    peer: name,
                    nickname: nickname.clone(),
                    via: name,
                    via_nickname: nickname.clone(),
                    hops: 1,
                    encrypted: true,
                    broadcast_from: true,
                    broadcast_to: vec![name; 4],
                })
                .collect(),
            macs: (0..16_384)
                .map(|n| MacEntry {
                    mac: mac(n),
                    peer: name,
                    nickname: nickname.clone(),
                    source: MacSource::Learned,
                    idle_s: 600,
                })
                .collect(),
            shards: Vec::new(),
            counters: BTreeMap::new(),
            degraded: Vec::new(),
            software: Software::default(),
            keeper: None,
            dns: None,
        }
    }

    #[test]
    fn the_largest_tables_fit_in_pages_and_come_back_whole() {
        let whole = large();
        let pages = whole.clone().into_pages();
        assert!(pages.len() <= PAGES_MAX);
        for page in &pages {
            let response =
                Response { id: 1, more: true, outcome: Outcome::Ok(Reply::Status(Box::new(page.clone()))) };
            encode(&response, REPLY_MAX).unwrap();
        }
        let mut pages = pages.into_iter();
        let mut back = pages.next().unwrap();
        pages.for_each(|page| back.append(page));
        assert_eq!(back, whole);
    }

    #[test]
    fn an_empty_state_is_one_page() {
        let mut status = large();
        status.peers.clear();
        status.macs.clear();
        status.routes.clear();
        assert_eq!(status.clone().into_pages(), [status]);
    }

    #[test]
    fn a_status_of_a_newer_router_is_read() {
        let mut value = serde_json::to_value(Status {
            peers: Vec::new(),
            macs: Vec::new(),
            routes: Vec::new(),
            ..large()
        })
        .unwrap();
        value["weather"] = "fine".into();
        assert!(serde_json::from_value::<Status>(value).is_ok());
    }
}
