//! The state of the router as `weave status` shows it.

use super::core::Core;
use super::link::{Link, Replaced};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Duration;
use weave_api::names::{NameEntry, ShortId};
use weave_api::request::AttachedElsewhere;
use weave_api::status::{
    Connection, ConnectionState, Degraded, Direction, MacEntry, MacSource, Peer, PeerConnection, Route,
    Shard, Status, TargetState, TargetStatus,
};
use weave_api::target::Target;
use weave_crypto::{Dialler as Side, Failure};
use weave_mesh::Origin;
use weave_mesh::dialler::{Entry, Stand};
use weave_wire::{Nickname, PeerName};

/// Peers that did not get in and are shown, at most.
const REFUSALS: usize = 64;
/// How long they are shown, and how often one of them is logged.
const REFUSAL_SHOWN: Duration = Duration::from_secs(60);
/// Peers named that only unencrypted ways lead to, at most.
const UNENCRYPTED_SHOWN: usize = 8;
/// A link that is pending this long is suspected of passing no UDP.
pub(super) const PENDING_LONG: Duration = Duration::from_secs(2);

/// Peers that dialled us and did not get in.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    shown: HashMap<IpAddr, Refused>,
    /// When a refused dial of ours was logged.
    dials_logged: HashMap<IpAddr, Duration>,
}

#[derive(Debug)]
struct Refused {
    reason: String,
    at: Duration,
    logged: Duration,
}

impl Refusals {
    /// Notes one; true if it is to be logged (once a minute and address).
    pub(super) fn note(&mut self, address: IpAddr, reason: String, now: Duration) -> bool {
        self.expire(now);
        if let Some(known) = self.shown.get_mut(&address) {
            known.reason = reason;
            known.at = now;
            let due = now.saturating_sub(known.logged) >= REFUSAL_SHOWN;
            if due {
                known.logged = now;
            }
            return due;
        }
        if self.shown.len() >= REFUSALS {
            return false;
        }
        self.shown.insert(address, Refused { reason, at: now, logged: now });
        true
    }

    /// True if a refused dial of `address` is to be logged: once a minute, and not beside what was
    /// logged of its own dials.
    pub(super) fn may_log(&mut self, address: IpAddr, now: Duration) -> bool {
        self.expire(now);
        let logged = self.shown.get(&address).map(|refused| refused.logged);
        let is_recent = logged.is_some_and(|at| now.saturating_sub(at) < REFUSAL_SHOWN);
        if is_recent || self.dials_logged.contains_key(&address) || self.dials_logged.len() >= REFUSALS {
            return false;
        }
        self.dials_logged.insert(address, now);
        true
    }

    /// Forgets those that are old.
    pub(super) fn expire(&mut self, now: Duration) {
        self.shown.retain(|_, refused| now.saturating_sub(refused.at) < REFUSAL_SHOWN);
        self.dials_logged.retain(|_, at| now.saturating_sub(*at) < REFUSAL_SHOWN);
    }
}

/// Everything, as of `now`.
pub(super) fn status(core: &Core, now: Duration) -> Status {
    Status { macs: macs(core, now), ..status_without_macs(core, now) }
}

/// The same without stations, of which there may be many.
pub(super) fn status_without_macs(core: &Core, now: Duration) -> Status {
    let name = core.local.name;
    Status {
        version: env!("CARGO_PKG_VERSION").into(),
        protocol: (core.local.versions.min.into(), core.local.versions.max.into()),
        name,
        nickname: core.nickname.clone(),
        uid: core.local.uid,
        pid: std::process::id(),
        uptime_s: now.as_secs(),
        port: core.group.port(),
        encrypted: core.is_encrypted(),
        discovery: core.config.discovery,
        mtu: core.config.mtu,
        conn_limit: core.config.conn_limit,
        trusted_subnets: core.config.trusted_subnets.clone(),
        targets: targets(core, now),
        connections: connections(core, now),
        peers: peers(core),
        routes: routes(core),
        macs: Vec::new(),
        shards: shards(core),
        counters: counters(core),
        degraded: degraded_states(core, now),
        software: core.beside.ours.clone(),
        keeper: core.beside.keeper().cloned(),
        dns: core.beside.dns().cloned(),
    }
}

/// Slower ways that the router works in.
pub(super) fn degraded_states(core: &Core, now: Duration) -> Vec<Degraded> {
    let ways = unencrypted_ways(core);
    let states = core.degraded.iter().chain(&ways).map(|(name, reason)| Degraded {
        name: (*name).into(),
        reason: reason.clone(),
        since_s: now.as_secs(),
    });
    let no_tap = core.tap_gone.as_ref().map(|gone| Degraded {
        name: "no_tap".into(),
        reason: gone.reason.clone(),
        since_s: now.saturating_sub(gone.since).as_secs(),
    });
    let relayed = super::relayed::degraded(core, now);
    states.chain(no_tap).chain(relayed).chain(core.beside.degraded(now)).collect()
}

/// What the router is told to dial.
pub(super) fn targets(core: &Core, now: Duration) -> Vec<TargetStatus> {
    let told = core.dialler.entries().iter().filter(|entry| entry.origin == Origin::Target);
    told.map(|entry| target(entry, now)).collect()
}

/// Those of `addresses` that containers of other hosts have.
pub(super) fn attached_elsewhere(core: &Core, addresses: &[IpAddr]) -> Vec<AttachedElsewhere> {
    let found = addresses.iter().filter_map(|address| {
        let peer = core.mesh.attached_elsewhere(address)?;
        Some(AttachedElsewhere { address: *address, peer, nickname: nickname_of(core, peer) })
    });
    found.collect()
}

/// Names, those of this host among them, at most `most`; and how many more there are.
pub(super) fn names(core: &Core, most: usize) -> (Vec<NameEntry>, usize) {
    let total: usize = core.mesh.names_counted().iter().sum();
    let mut nicknames = Nicknames::of(core);
    let shown = core.mesh.names().take(most).map(|(name, origin, address, container)| NameEntry {
        name: name.clone(),
        address,
        container: ShortId(container),
        origin,
        nickname: Some(nicknames.get(origin)),
    });
    (shown.collect(), total.saturating_sub(most))
}

/// What operators call peers, each looked for once: names and stations are many, peers are few.
struct Nicknames<'a> {
    core: &'a Core,
    known: HashMap<PeerName, Nickname>,
}

impl<'a> Nicknames<'a> {
    fn of(core: &'a Core) -> Self {
        Self { core, known: HashMap::new() }
    }

    fn get(&mut self, name: PeerName) -> Nickname {
        self.known.entry(name).or_insert_with(|| nickname_of(self.core, name)).clone()
    }
}

/// Peers that are sent nothing, because the ways to them are unencrypted somewhere.
fn unencrypted_ways(core: &Core) -> Option<(&'static str, String)> {
    let routes = core.mesh.routes().peers.iter();
    let shut = routes.filter(|route| core.config.require_encryption && route.next_sealed.is_none());
    let names: Vec<String> = shut.map(|route| nickname_of(core, route.peer).to_string()).collect();
    let shown = names.iter().take(UNENCRYPTED_SHOWN).cloned().collect::<Vec<_>>().join(", ");
    (!names.is_empty()).then(|| {
        let reason = format!(
            "{} peers are sent nothing, for every way to them has an unencrypted link: {shown}",
            names.len()
        );
        ("unencrypted_ways", reason)
    })
}

fn target(entry: &Entry<Target>, now: Duration) -> TargetStatus {
    let state = match entry.stand {
        Stand::Linked(_) => TargetState::Connected,
        Stand::Dialling(_) => TargetState::Connecting,
        Stand::Waiting(_) if entry.reason.is_none() => TargetState::Connecting,
        Stand::Waiting(_) if entry.reason.as_deref() == Some(&Failure::Ourselves.to_string()) => {
            TargetState::Ourself
        }
        Stand::Waiting(_) => TargetState::Retrying,
    };
    TargetStatus {
        target: entry.target.clone(),
        state,
        reason: entry.reason.clone(),
        retry_in_s: retry_in(entry, now),
    }
}

fn retry_in(entry: &Entry<Target>, now: Duration) -> Option<u64> {
    match entry.stand {
        Stand::Waiting(at) => {
            Some(at.saturating_sub(now).as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX))
        }
        Stand::Dialling(_) | Stand::Linked(_) => None,
    }
}

/// The link to each peer: while one follows another that which carries data.
pub(super) fn links(core: &Core) -> impl Iterator<Item = &Link> {
    let serving = |peer| {
        core.links.values().any(|link| link.peer.name == peer && link.replaced == Some(Replaced::Serving))
    };
    core.links.values().filter(move |link| match link.replaced {
        None => link.is_established() || !serving(link.peer.name),
        Some(Replaced::Serving) => true,
        Some(Replaced::Until(_)) => false,
    })
}

fn connections(core: &Core, now: Duration) -> Vec<Connection> {
    let links = links(core).map(|link| linked(core, link, now));
    links.chain(attempts(core, now)).chain(refused(core, now)).collect()
}

/// Attempts of ours to make a link.
pub(super) fn attempts(core: &Core, now: Duration) -> impl Iterator<Item = Connection> {
    core.dialler.entries().iter().filter_map(move |entry| dialled(entry, now))
}

/// Attempts of others that were turned away, see [`Connection::is_refused`]. Anybody can make them, so
/// they say nothing of how this host stands.
fn refused(core: &Core, now: Duration) -> impl Iterator<Item = Connection> {
    core.refusals.shown.iter().map(move |(address, refused)| Connection {
        reason: Some(refused.reason.clone()),
        since_s: now.saturating_sub(refused.at).as_secs(),
        ..blank(Direction::Inbound, Target::from(*address), ConnectionState::Failed)
    })
}

const fn blank(direction: Direction, address: Target, state: ConnectionState) -> Connection {
    Connection {
        direction,
        address,
        state,
        since_s: 0,
        reason: None,
        retry_in_s: None,
        encrypted: None,
        peer: None,
        nickname: None,
        mtu: None,
        protocol: None,
        rtt_us: None,
        lanes_in: 0,
        lanes_out: 0,
        tx_frames: 0,
        tx_bytes: 0,
        rx_frames: 0,
        rx_bytes: 0,
        degraded: Vec::new(),
    }
}

const fn direction(side: Side) -> Direction {
    match side {
        Side::Us => Direction::Outbound,
        Side::Peer => Direction::Inbound,
    }
}

/// A link.
pub(super) fn linked(core: &Core, link: &Link, now: Duration) -> Connection {
    let state = if link.is_established() { ConnectionState::Established } else { ConnectionState::Pending };
    let sum =
        |of: fn(&weave_forward::LinkCounters) -> u64| link.counters.iter().map(|counters| of(counters)).sum();
    #[expect(clippy::cast_possible_truncation, reason = "at most 64")]
    let lanes = |bits: u64| bits.count_ones() as u8;
    Connection {
        since_s: now.saturating_sub(link.since).as_secs(),
        reason: if link.is_established() { None } else { pending_reason(core, link, now) },
        encrypted: Some(link.is_encrypted()),
        peer: Some(link.peer.name),
        nickname: link.nickname.clone(),
        mtu: Some(link.peer.mtu),
        protocol: Some(link.peer.version.into()),
        rtt_us: link.liveness.as_ref().and_then(weave_mesh::Liveness::rtt).map(micros),
        lanes_in: lanes(link.lanes_in),
        lanes_out: lanes(link.lanes_out),
        tx_frames: sum(|counters| counters.frames_sent.get()),
        tx_bytes: sum(|counters| counters.bytes_sent.get()),
        rx_frames: sum(|counters| counters.frames_received.get()),
        rx_bytes: sum(|counters| counters.bytes_received.get()),
        degraded: degraded(core, link, now),
        ..blank(direction(link.side), link.address.unwrap_or(link.remote).into(), state)
    }
}

/// Why a link is pending: why the one before it was lost, or what delays it.
fn pending_reason(core: &Core, link: &Link, now: Duration) -> Option<String> {
    let lost = core.dialler.of_link(link.number).and_then(|entry| entry.reason.clone());
    let long = now.saturating_sub(link.since) >= PENDING_LONG;
    lost.or_else(|| long.then(|| "no datagram made the round trip yet: UDP may be blocked".into()))
}

/// In milliseconds.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn degraded(core: &Core, link: &Link, now: Duration) -> Vec<Degraded> {
    let state = |name: &str, reason: String, since: Duration| Degraded {
        name: name.into(),
        reason,
        since_s: now.saturating_sub(since).as_secs(),
    };
    let mut states = Vec::new();
    if let Some(since) = link.tcp_lost {
        let reason = "TCP is gone; the peer answers over UDP and TCP is dialled again";
        states.push(state("tcp_lost", reason.into(), since));
    }
    if let Some(since) = link.segmentation_refused {
        let reason = "the route takes no segmented datagrams; tried again within a minute";
        states.push(state("no_segmentation", reason.into(), since));
    }
    if let (Some(since), Some(path)) = (link.path_reduced, &link.path) {
        let reason = format!(
            "the path carries datagrams of {} bytes at most: larger frames are cut or come in fragments; more is \
             tried within a minute",
            path.usable()
        );
        states.push(state("small_path", reason, since));
    }
    if let Some(since) = link.ports.one_port() {
        let reason = "only datagrams from the mesh port pass (address translation or a firewall): all lanes share \
                      it; their own ports are tried again within a minute";
        states.push(state("one_port", reason.into(), since));
    }
    if link.peer.mtu != core.config.mtu {
        let reason = format!(
            "MTU {} there, {} here: give all hosts the same WEAVE_MTU",
            link.peer.mtu, core.config.mtu
        );
        states.push(state("unequal_mtu", reason, link.since));
    }
    states
}

fn dialled(entry: &Entry<Target>, now: Duration) -> Option<Connection> {
    let state = match entry.stand {
        Stand::Linked(_) => return None,
        Stand::Dialling(_) => ConnectionState::Connecting,
        Stand::Waiting(_) if entry.refused => ConnectionState::Failed,
        Stand::Waiting(_) => ConnectionState::Retrying,
    };
    Some(Connection {
        reason: entry.reason.clone(),
        retry_in_s: retry_in(entry, now),
        ..blank(Direction::Outbound, entry.target.clone(), state)
    })
}

fn peers(core: &Core) -> Vec<Peer> {
    let own = links(core).filter_map(|link| {
        Some(PeerConnection {
            direction: direction(link.side),
            address: Some(link.address.unwrap_or(link.remote).into()),
            peer: link.peer.name,
            nickname: link.nickname.clone()?,
            established: link.is_established(),
            encrypted: link.is_encrypted(),
        })
    });
    let ourselves = Peer {
        name: core.local.name,
        nickname: core.nickname.clone(),
        uid: core.local.uid,
        connections: own.collect(),
    };
    let others = core.mesh.peers().filter(|peer| peer.route.is_some() || peer.link.is_some());
    let others = others.filter_map(|peer| {
        let direct = || links(core).find(|link| link.peer.name == peer.name);
        let nickname = peer.nickname.cloned().or_else(|| direct()?.nickname.clone())?;
        let connections = peer.links.iter().map(|link| PeerConnection {
            direction: if link.outbound { Direction::Outbound } else { Direction::Inbound },
            address: address_of(core, link.peer),
            peer: link.peer,
            nickname: nickname_of(core, link.peer),
            established: true,
            encrypted: !link.unencrypted,
        });
        let uid = peer.uid.or_else(|| direct().map(|link| link.peer.uid))?;
        Some(Peer { name: peer.name, nickname, uid, connections: connections.collect() })
    });
    std::iter::once(ourselves).chain(others).collect()
}

/// Where a peer says it can be reached, or where it is linked to us from.
fn address_of(core: &Core, name: PeerName) -> Option<Target> {
    if name == core.local.name {
        return core.mesh.own_addresses().first().copied().map(Target::from);
    }
    let told = core.mesh.peer(name).and_then(|peer| peer.addresses.first().copied());
    let linked =
        || links(core).find(|link| link.peer.name == name).map(|link| link.address.unwrap_or(link.remote));
    told.or_else(linked).map(Target::from)
}

pub(super) fn nickname_of(core: &Core, name: PeerName) -> Nickname {
    if name == core.local.name {
        return core.nickname.clone();
    }
    let told = core.mesh.peer(name).and_then(|peer| peer.nickname.cloned());
    let linked = || links(core).find(|link| link.peer.name == name).and_then(|link| link.nickname.clone());
    told.or_else(linked).unwrap_or_else(|| Nickname::from_host_name("unknown"))
}

fn routes(core: &Core) -> Vec<Route> {
    let at = |number: &weave_mesh::LinkNumber| {
        core.links.values().find(|link| link.number == number.0).map(|link| link.peer.name)
    };
    let routes = core.mesh.routes().peers.iter().filter_map(|route| {
        let next = if core.config.require_encryption { route.next_sealed? } else { route.next };
        let via = at(&next)?;
        Some(Route {
            peer: route.peer,
            nickname: nickname_of(core, route.peer),
            via,
            via_nickname: nickname_of(core, via),
            hops: route.hops,
            encrypted: !route.unencrypted,
            broadcast_from: route.broadcast_from.contains(&route.next),
            broadcast_to: route.broadcast_to.iter().filter_map(at).collect(),
        })
    });
    routes.collect()
}

fn macs(core: &Core, now: Duration) -> Vec<MacEntry> {
    let attached = core.stations.attached().filter(|mac| !core.withdrawn.contains(mac)).map(|mac| MacEntry {
        mac,
        peer: core.local.name,
        nickname: core.nickname.clone(),
        source: MacSource::Attached,
        idle_s: 0,
    });
    let mut nicknames = Nicknames::of(core);
    let mut entry = |mac, peer, source, idle_s| {
        let nickname = nicknames.get(peer);
        MacEntry { mac, peer, nickname, source, idle_s }
    };
    let mut all: Vec<_> = attached.collect();
    all.extend(core.mesh.stations().map(|(mac, peer)| entry(mac, peer, MacSource::Attached, 0)));
    let idle = |seen| now.saturating_sub(seen).as_secs();
    let learned = core.stations.learned();
    all.extend(learned.map(|(mac, peer, seen)| entry(mac, peer, MacSource::Learned, idle(seen))));
    all.sort_by_key(|entry| entry.mac);
    all
}

/// The shards and their counters.
pub(super) fn shards(core: &Core) -> Vec<Shard> {
    let cores = core.config.cores.as_ref().map(|cores| cores.as_slice().to_vec()).unwrap_or_default();
    let mut shards = Vec::new();
    for (number, counters) in core.group.counters().iter().enumerate() {
        let snapshot = counters.snapshot();
        let named =
            |list: Vec<(&str, u64)>| list.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        #[expect(
            clippy::cast_possible_truncation,
            reason = "at most 64 shards; cores are numbered below 2^16"
        )]
        shards.push(Shard {
            shard: number as u8,
            core: cores.get(number % cores.len().max(1)).map(|core| *core as u16),
            counters: named(snapshot.values),
            drops: named(snapshot.drops),
        });
    }
    shards
}

macro_rules! counters {
    ($core:ident, $mesh:ident: $($name:literal = $value:expr,)*) => {
        /// Names of the counters of the control core and the mesh.
        #[cfg(test)]
        pub(super) const COUNTERS: &[&str] = &[$($name,)*];

        /// These counters.
        pub(super) fn counters(core: &Core) -> BTreeMap<String, u64> {
            let ($core, $mesh) = (&core.counters, core.mesh.counters());
            [$(($name, $value),)*].into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
        }
    };
}

counters! { counters, mesh:
    "tcp_accepted" = counters.accepted,
    "tcp_refused" = counters.refused,
    "handshakes_failed" = counters.handshakes_failed,
    "links_refused" = counters.links_refused,
    "links_made" = counters.links_made,
    "links_lost" = counters.links_lost,
    "links_unfinished" = counters.links_unfinished,
    "rekeys" = counters.rekeys,
    "keys_expired" = counters.keys_expired,
    "resumptions" = counters.resumptions,
    "address_moves" = counters.moves,
    "heartbeats_sent" = counters.heartbeats_sent,
    "heartbeats_unanswered" = counters.heartbeats_unanswered,
    "heartbeats_dropped" = counters.heartbeats_dropped,
    "keep_alives_dropped" = counters.keep_alives_dropped,
    "mac_flap" = counters.mac_flaps,
    "mac_replaced" = counters.macs_replaced,
    "mac_conflict" = counters.mac_conflicts,
    "gossip_accepted" = mesh.accepted,
    "gossip_published" = mesh.published,
    "gossip_stale" = mesh.stale,
    "gossip_forged" = mesh.forged,
    "gossip_key_conflict" = mesh.key_conflict,
    "gossip_version_limit" = mesh.version_limit,
    "gossip_unreadable" = mesh.unreadable,
    "gossip_farewelled" = mesh.farewelled,
    "gossip_peers_full" = mesh.peers_full,
    "gossip_parts_full" = mesh.parts_full,
    "gossip_bytes_full" = mesh.bytes_full,
    "gossip_wants_full" = mesh.wants_full,
    "gossip_pulls_full" = mesh.pulls_full,
    "gossip_unanswered" = mesh.unanswered,
    "gossip_own_copies" = mesh.own_copies,
    "stations_full" = mesh.stations_full,
    "names_full" = mesh.names_full,
    "own_does_not_fit" = mesh.does_not_fit,
    "peers_evicted" = mesh.evicted,
    "peers_collected" = mesh.collected,
    "route_runs" = mesh.route_runs,
    "log_lines_left_out" = crate::logging::left_out(),
}

#[cfg(test)]
mod tests {
    use super::*;
    use weave_mesh::Admission;

    /// An hour of one guess a second from each of `sources`, a genuine peer now and then: how many got
    /// to guess, and the lines of each source.
    fn guessed(sources: u32) -> (u64, Vec<u64>) {
        let (mut admission, mut refusals) = (Admission::new(Duration::ZERO), Refusals::default());
        let mut under_way = std::collections::VecDeque::new();
        let (mut tried, mut lines) = (0, vec![0; sources as usize]);
        let genuine = IpAddr::from([192, 0, 2, 1]);
        for second in 0..3600 {
            let now = Duration::from_secs(second);
            while under_way.front().is_some_and(|(until, _, _)| *until <= now) {
                let Some((_, ticket, source)) = under_way.pop_front() else { break };
                admission.done(ticket);
                tried += 1;
                let logged = refusals.note(IpAddr::from(u32::to_be_bytes(source)), "wrong".into(), now);
                lines[source as usize] += u64::from(logged);
            }
            for source in 0..sources {
                if let Ok(let_in) = admission.admit(IpAddr::from(source.to_be_bytes()), false, now) {
                    under_way.push_back((now + Duration::from_secs(2), let_in.ticket, source));
                }
            }
            // One that was away for a while, or comes back at once, whoever else comes.
            if second > 0 && second % 90 < 2 {
                match admission.admit(genuine, second % 90 == 1, now) {
                    Ok(let_in) => admission.done(let_in.ticket),
                    Err(refusal) => unreachable!("a genuine peer is refused in second {second}: {refusal:?}"),
                }
            }
        }
        (tried, lines)
    }

    #[test]
    fn an_hour_of_wrong_guesses_is_one_line_a_minute_and_source() {
        let (tried, lines) = guessed(3);
        assert_eq!((tried, lines), (3 * 3598, vec![60; 3]), "all but those under way at the end");
        // More than are let in together: fewer guesses than come, and no more lines.
        let (tried, lines) = guessed(40);
        assert!((14 * 3600..15 * 3600 + 15).contains(&tried), "{tried}");
        assert!(lines.iter().all(|lines| *lines <= 60), "{lines:?}");
        // However many there are, few are kept, and few lines are written.
        let (_, lines) = guessed(300);
        let all: u64 = lines.iter().sum();
        assert!(all <= 60 * REFUSALS as u64, "{all} lines");
        let mut refusals = Refusals::default();
        for source in 0..1000_u32 {
            refusals.note(IpAddr::from(source.to_be_bytes()), String::new(), Duration::from_secs(3600));
        }
        assert_eq!(refusals.shown.len(), REFUSALS);
    }

    #[test]
    fn a_refused_dial_is_one_line_a_minute() {
        let mut refusals = Refusals::default();
        let at = IpAddr::from([192, 0, 2, 1]);
        let lines = (0..3600).filter(|second| refusals.may_log(at, Duration::from_secs(*second))).count();
        assert_eq!(lines, 60);
        let mut others = (0..1000_u32).map(|source| IpAddr::from(source.to_be_bytes()));
        let logged = others.by_ref().filter(|at| refusals.may_log(*at, Duration::from_secs(7200))).count();
        assert_eq!(logged, REFUSALS, "at once");
        // What it was told of its own dials is said already.
        let mut refusals = Refusals::default();
        assert!(refusals.note(at, "wrong password".into(), Duration::ZERO));
        assert!(
            !refusals.may_log(at, Duration::from_secs(59)) && refusals.may_log(at, Duration::from_secs(60))
        );
    }
}
