//! What must hold: at all times, and once everything is calm.

use crate::host::{Host, MAX_LINKS, SEND_QUEUE};
use crate::network::HostId;
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use weave_mesh::PeerView;
use weave_mesh::mesh::{LINK_ENDS, MAX_NAMES, MAX_STATIONS};
use weave_mesh::store::{PART_BYTES, PEERS};
use weave_wire::{HostName, PeerName};

/// Entries of a dialler, at most: targets, recent and discovered peers.
const DIALS: usize = 512 + 512 + 4_096 * 8;
/// Links that one frame may cross in all, for each host: every host sends it on by
/// each of its links only while routes change.
const CROSSINGS_PER_HOST: u32 = 16;
/// The same while two hosts run under one name: frames of that name have two roots, and each
/// host follows the tree of the one it heard of last. The hop limit contains them.
const CROSSINGS_PER_HOST_CLONED: u32 = 256;

/// What must hold at all times. Violations go into the ledger. `one_owner`: no
/// two hosts publish under one name and key, so that what is withdrawn stays so.
/// `true_observers`: no neighbour lies to a host about where it sees it.
pub fn always(world: &mut World, one_owner: bool, true_observers: bool) {
    let mut found = Vec::new();
    let mut names = Vec::new();
    for (id, host) in world.members() {
        found.extend(limits(id, host));
        found.extend(host.mesh.peers().filter_map(|view| authentic(world, id, &view, true_observers)));
        found.extend(entries_authentic(world, id, host));
        names.push((id, names_of(host), reachable(host)));
    }
    for (id, names, reachable) in names.into_iter().filter(|_| one_owner) {
        world.ledger.sees(id, names, |owner| reachable.contains(&owner));
    }
    let each = if one_owner { CROSSINGS_PER_HOST } else { CROSSINGS_PER_HOST_CLONED };
    let limit = each * u32::try_from(world.slots().len()).unwrap_or(u32::MAX);
    let most = world.ledger.totals.most_crossings;
    if most > limit {
        found.push(format!("one frame crossed {most} links"));
    }
    for violation in found {
        world.ledger.violation(violation);
    }
}

fn reachable(host: &Host) -> BTreeSet<PeerName> {
    host.mesh.routes().peers.iter().map(|route| route.peer).collect()
}

fn names_of(host: &Host) -> BTreeSet<(PeerName, HostName)> {
    host.mesh.names().map(|(name, owner, ..)| (owner, name.clone())).collect()
}

/// Tables are within their limits.
fn limits(id: HostId, host: &Host) -> Vec<String> {
    let mut to_peers: BTreeMap<_, usize> = BTreeMap::new();
    for link in host.links.values() {
        *to_peers.entry(link.peer.name).or_default() += 1;
    }
    let checks = [
        ("peers", host.mesh.peers().count(), PEERS),
        ("peers in the graph", host.mesh.peers_in_graph(), host.mesh.peers().count() + 1),
        ("ends of links", host.mesh.link_ends(), LINK_ENDS),
        ("bytes of parts", host.mesh.part_bytes(), PART_BYTES),
        ("stations", host.mesh.stations().count(), MAX_STATIONS),
        ("names", host.mesh.names().count(), MAX_NAMES),
        // One, and for a moment that which it follows.
        ("links to one peer", to_peers.values().copied().max().unwrap_or(0), 2),
        ("peers linked", to_peers.len(), MAX_LINKS.min(host.settings.conn_limit + 1)),
        ("dials", host.dials(), DIALS),
        ("bytes queued", host.longest_queue(), SEND_QUEUE),
    ];
    let over = checks.into_iter().filter(|(_, is, limit)| is > limit);
    over.map(|(what, is, limit)| format!("host {}: {is} {what}, {limit} at most", id.0)).collect()
}

/// What a host believes of another is something that one said of itself.
fn authentic(world: &World, id: HostId, view: &PeerView<'_>, true_observers: bool) -> Option<String> {
    let name = view.name;
    if !world.ledger.is_known(name) {
        return None;
    }
    let machines: Vec<_> = world.ledger.machines(name).collect();
    if machines.iter().any(|machine| world.slot(*machine).is_none_or(|slot| !slot.is_member)) {
        return None;
    }
    let wrong = |what: &str| Some(format!("host {} believes a wrong {what} of {name}", id.0));
    if view.uid.is_some_and(|uid| !world.ledger.had_run(name, uid)) {
        return wrong("run");
    }
    if view.nickname.is_some_and(|nickname| nickname.as_str() != Host::nickname_of(name).as_str()) {
        return wrong("nickname");
    }
    let is_own =
        |address: &std::net::SocketAddr| machines.iter().any(|machine| machine.address() == *address);
    if true_observers && !view.addresses.iter().all(is_own) {
        return wrong("address");
    }
    None
}

fn entries_authentic(world: &World, id: HostId, host: &Host) -> Option<String> {
    let is_honest = |name: PeerName| {
        world.ledger.is_known(name)
            && world
                .ledger
                .machines(name)
                .all(|machine| world.slot(machine).is_some_and(|slot| slot.is_member))
    };
    for (name, owner, address, _) in host.mesh.names() {
        if is_honest(owner) && !world.ledger.had_name(owner, name, address) {
            return Some(format!("host {} believes that {owner} has the name {name}", id.0));
        }
    }
    for (mac, owner) in host.mesh.stations() {
        if is_honest(owner) && !world.ledger.had_station(owner, mac) {
            return Some(format!("host {} believes that {owner} has the station {mac}", id.0));
        }
    }
    None
}

/// The first thing about which members do not agree, or believe what is not so.
#[must_use]
pub fn disagreement(world: &World) -> Option<String> {
    let members: Vec<_> = world.members().collect();
    let has_strangers = world.running().count() > members.len();
    let truths: Vec<_> = members.iter().map(|(id, host)| Truth::of(world, *id, host)).collect();
    for (id, host) in &members {
        let others = truths.iter().filter(|truth| truth.id != *id);
        if let Some(wrong) = others.clone().find_map(|truth| truth.contradicts(host)) {
            return Some(format!("host {}: {wrong}", id.0));
        }
        let known = host.mesh.routes().peers.len();
        if !has_strangers && known != members.len() - 1 {
            return Some(format!("host {} has routes to {known} peers", id.0));
        }
        if let Some(link) = host
            .links
            .values()
            .find(|link| link.is_current() && (!link.is_established() || link.is_degraded()))
        {
            return Some(format!("host {}: the link to {} does not pass all", id.0, link.peer.name));
        }
    }
    names_agree(&members, &truths).or_else(|| stations_agree(world, &members))
}

/// What is so of one member.
struct Truth<'a> {
    id: HostId,
    host: &'a Host,
    name: PeerName,
    links: BTreeSet<PeerName>,
    names: BTreeSet<(HostName, std::net::IpAddr)>,
}

impl<'a> Truth<'a> {
    fn of(world: &World, id: HostId, host: &'a Host) -> Self {
        let established = host.links.values().filter(|link| link.is_established());
        let attached = world.slot(id).map(|slot| &slot.attached);
        let names = attached.map(|attached| attached.names.iter().map(|e| (e.name.clone(), e.address)));
        Self {
            id,
            host,
            name: host.state.name,
            links: established.map(|link| link.peer.name).collect(),
            names: names.map(Iterator::collect).unwrap_or_default(),
        }
    }

    fn contradicts(&self, observer: &Host) -> Option<String> {
        let at = self.id.0;
        let Some(view) = observer.mesh.peer(self.name) else {
            return Some(format!("does not know host {at}"));
        };
        if view.route.is_none() {
            return Some(format!("has no route to host {at}"));
        }
        if view.uid != Some(self.host.who().uid) {
            return Some(format!("knows another run of host {at}"));
        }
        let links: BTreeSet<_> = view.links.iter().map(|link| link.peer).collect();
        if links != self.links {
            return Some(format!("knows {} links of host {at}, which has {}", links.len(), self.links.len()));
        }
        if view.addresses != self.host.mesh.own_addresses() {
            return Some(format!("knows other addresses of host {at}"));
        }
        None
    }
}

fn names_agree(members: &[(HostId, &Host)], truths: &[Truth<'_>]) -> Option<String> {
    for (id, host) in members {
        let mut seen: BTreeMap<PeerName, BTreeSet<_>> = BTreeMap::new();
        for (name, owner, address, _) in host.mesh.names() {
            seen.entry(owner).or_default().insert((name.clone(), address));
        }
        for truth in truths {
            let of_owner = seen.remove(&truth.name).unwrap_or_default();
            if of_owner != truth.names {
                let (is, has) = (of_owner.len(), truth.names.len());
                return Some(format!(
                    "host {} knows {is} names of host {}, which has {has}",
                    id.0, truth.id.0
                ));
            }
        }
    }
    None
}

/// All say of each station that it is at the same host, and it is attached there.
fn stations_agree(world: &World, members: &[(HostId, &Host)]) -> Option<String> {
    let mut attached: BTreeMap<_, BTreeSet<PeerName>> = BTreeMap::new();
    for (id, host) in members {
        for (mac, _) in world.slot(*id).map(|slot| slot.attached.stations.as_slice()).unwrap_or_default() {
            attached.entry(*mac).or_default().insert(host.state.name);
        }
    }
    for (mac, at) in attached {
        let said: BTreeSet<_> = members.iter().map(|(_, host)| host.mesh.station_owner(mac)).collect();
        let owner = said.first().copied().flatten();
        if said.len() != 1 || owner.is_none_or(|owner| !at.contains(&owner)) {
            let said: Vec<_> =
                members.iter().map(|(id, host)| (id.0, host.mesh.station_owner(mac))).collect();
            return Some(format!("members do not agree where the station {mac} of {at:?} is: {said:?}"));
        }
    }
    None
}

/// True if each two members have exactly one link.
#[must_use]
pub fn is_full_mesh(world: &World) -> bool {
    let members: Vec<_> = world.members().collect();
    let names: BTreeSet<_> = members.iter().map(|(_, host)| host.state.name).collect();
    members.iter().all(|(_, host)| {
        let linked: Vec<_> =
            host.links.values().filter(|l| l.is_established()).map(|l| l.peer.name).collect();
        let distinct: BTreeSet<_> = linked.iter().copied().filter(|name| names.contains(name)).collect();
        distinct.len() == names.len() - 1 && linked.len() == linked.iter().collect::<BTreeSet<_>>().len()
    })
}

/// Links from each member to each other on a shortest way, by what members have now.
fn distances(world: &World, from: HostId) -> BTreeMap<HostId, u8> {
    let by_run: BTreeMap<_, _> = world.running().map(|(id, host)| (host.who().uid, id)).collect();
    let mut distances = BTreeMap::from([(from, 0)]);
    let mut open = VecDeque::from([from]);
    while let Some(at) = open.pop_front() {
        let links = world.slot(at).and_then(|slot| slot.process.as_ref()).map(|host| host.links.values());
        for link in links.into_iter().flatten().filter(|link| link.is_established()) {
            let Some(to) = by_run.get(&link.peer.uid) else { continue };
            if !distances.contains_key(to) {
                distances.insert(*to, distances.get(&at).copied().unwrap_or(0) + 1);
                open.push_back(*to);
            }
        }
    }
    distances
}

/// Sends frames between all members and sees that each arrives once, everywhere
/// it should and by a shortest way. The world must be calm; a link that comes meanwhile or a
/// moment before, as between hosts at their limit of links, may be used or not.
pub fn traffic(world: &mut World) {
    let members: Vec<_> = world.members().map(|(id, _)| id).collect();
    let distances_now = |world: &World| -> BTreeMap<_, _> {
        members.iter().map(|from| (*from, distances(world, *from))).collect()
    };
    let earlier = distances_now(world);
    // Longest that routes follow links.
    world.run_for(Duration::from_secs(1));
    let before = distances_now(world);
    let running = world.running().count();
    let mut unicast = Vec::new();
    let mut broadcast = Vec::new();
    for from in &members {
        broadcast.push(world.send_frame(*from, None));
        for to in members.iter().filter(|to| *to != from) {
            unicast.push((*from, *to, world.send_frame(*from, Some(*to))));
        }
    }
    world.run_for(Duration::from_secs(1));
    let mut found = Vec::new();
    let after = distances_now(world);
    for (from, to, number) in unicast {
        let Some(frame) = world.ledger.frame(number) else { continue };
        let shortest =
            [&earlier, &before, &after].map(|all| all.get(&from).and_then(|all| all.get(&to)).copied());
        let arrived = frame.deliveries.get(&to).map(Vec::as_slice).unwrap_or_default();
        let is_right = matches!(arrived, [crossed] if shortest.contains(&Some(*crossed)));
        if frame.deliveries.len() != 1 || !is_right {
            found.push(format!(
                "a frame from host {} to {} crossed {arrived:?} links instead of {shortest:?} ({:?})",
                from.0, to.0, frame.drops
            ));
        }
    }
    for number in broadcast {
        let Some(frame) = world.ledger.frame(number) else { continue };
        let from = frame.from.0;
        let mut heard = frame.deliveries.iter().filter(|(at, _)| members.contains(at));
        if let Some((at, times)) = heard.find(|(_, crossed)| crossed.len() > 1) {
            let times = times.len();
            found.push(format!("host {} heard a broadcast of host {from} {times} times", at.0));
        }
        let heard = frame.deliveries.keys().filter(|at| members.contains(at)).count();
        if heard != members.len() - 1 || frame.deliveries.len() > running - 1 {
            found.push(format!("{heard} hosts of {} heard a broadcast of host {from}", members.len() - 1));
        }
    }
    found.into_iter().for_each(|violation| world.ledger.violation(violation));
}

/// Nothing is left of hosts that are gone for longer than state is kept.
pub fn collected(world: &mut World) {
    let live: BTreeSet<_> = world.running().map(|(_, host)| host.state.name).collect();
    let mut found = Vec::new();
    for (id, host) in world.members() {
        for view in host.mesh.peers().filter(|view| view.route.is_none() && !live.contains(&view.name)) {
            if view.uid.is_some() || !view.links.is_empty() {
                let links: Vec<_> = host.links.values().filter(|l| l.peer.name == view.name).collect();
                found.push(format!("host {} still keeps what {} told, links {links:?}", id.0, view.name));
            }
        }
        if host.mesh.names().any(|(_, owner, ..)| !live.contains(&owner) && world.ledger.is_known(owner)) {
            found.push(format!("host {} still knows names of hosts that are gone", id.0));
        }
    }
    found.into_iter().for_each(|violation| world.ledger.violation(violation));
}
