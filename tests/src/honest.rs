//! Honest hosts beside a hostile one: what must not change, whatever that one does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use weave_api::status::{ConnectionState, MacSource};
use weave_wire::{HostName, MacAddr, Nickname, PeerName, Uid};

use crate::world::{LINK_WITHIN, Options, v4, v6};
use crate::{Pings, World, numbered, wait_until};

/// Seconds are counted in whole ones, and a status takes a while.
const CLOCK_SLACK: Duration = Duration::from_secs(2);

/// Honest hosts, all linked to each other, each with a container, and pings between these. The
/// last host of the world has no router: there the hostile member lives.
pub struct Honest {
    /// All hosts.
    pub world: World,
    count: usize,
    names: Vec<PeerName>,
    pings: Vec<Pings>,
    kept: Vec<Kept>,
    routers: Vec<u32>,
    memory: Vec<u64>,
    begun: Instant,
}

/// What one host says of the honest ones.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    /// Each with its nickname, run, and the honest peers it is linked to.
    peers: BTreeMap<PeerName, (Nickname, Uid, BTreeSet<PeerName>)>,
    /// By which peer and how far each is.
    routes: BTreeMap<PeerName, (PeerName, u8)>,
    /// Where each of their stations is attached.
    attached: BTreeMap<MacAddr, PeerName>,
    /// Where each of them is, attached or learned: at one place.
    places: BTreeMap<MacAddr, BTreeSet<PeerName>>,
    /// What each of them says of its names: the address, and which of them says it.
    names: BTreeSet<(HostName, IpAddr, PeerName)>,
}

/// The name of the container of an honest host.
#[must_use]
pub fn dns_name(host: usize) -> HostName {
    format!("honest-{host}.weave.local").parse().unwrap()
}

impl Honest {
    /// So many hosts, everything known to everybody, pings on their way.
    #[track_caller]
    pub fn hosts(count: usize) -> Self {
        let options = Options::encrypted().count(count + 1).no_wait();
        let launches = options.launches[..count].to_vec();
        let world = World::new(Options { launches, ..options });
        let all: Vec<usize> = (0..count).collect();
        for host in &all {
            let (name, address) = (dns_name(*host).to_string(), v4(*host).to_string());
            world.weave(*host, &["dns-add", &address, "-h", &name]).ok();
        }
        for (one, other) in pairs(&all) {
            world.wait_linked(one, other, LINK_WITHIN);
            world.wait_ping(one, v4(other).into(), LINK_WITHIN);
            world.wait_ping(other, v6(one).into(), LINK_WITHIN);
        }
        let names: Vec<_> = all.iter().map(|host| world.status(*host).name).collect();
        let told = |host: usize| {
            let kept = kept(&world, host, &names, &stations(&world, count));
            let is_whole = |peer: &(Nickname, Uid, BTreeSet<PeerName>)| peer.2.len() == count - 1;
            [kept.attached.len(), kept.peers.len(), kept.names.len()] == [count; 3]
                && kept.peers.values().all(is_whole)
        };
        wait_until(LINK_WITHIN, || "not everybody knows everybody".into(), || (0..count).all(told));
        let mut honest = Self {
            world,
            count,
            names,
            pings: vec![],
            kept: vec![],
            routers: vec![],
            memory: vec![],
            begun: Instant::now(),
        };
        honest.kept = all.iter().map(|host| honest.kept(*host)).collect();
        honest.routers = all.iter().map(|host| honest.world.status(*host).pid).collect();
        honest.memory = all.iter().map(|host| numbered::memory(&honest.world, *host)).collect();
        for (one, other) in pairs(&all) {
            honest.pings.push(Pings::between(&honest.world, one, v4(other).into()));
            honest.pings.push(Pings::between(&honest.world, other, v6(one).into()));
        }
        honest
    }

    /// The host where the hostile member lives.
    #[must_use]
    pub const fn stranger(&self) -> usize {
        self.count
    }

    /// The name of an honest host.
    #[must_use]
    pub fn name(&self, host: usize) -> PeerName {
        self.names[host]
    }

    /// A counter of the control core of host `host`.
    #[must_use]
    pub fn counted(&self, host: usize, counter: &str) -> u64 {
        *self.world.status(host).counters.get(counter).expect("no such counter")
    }

    /// Waits until this counter of host `host` shows at least so much.
    #[track_caller]
    pub fn wait_counted(&self, host: usize, counter: &str, at_least: u64) {
        let counted = || self.counted(host, counter);
        let what =
            || format!("{counter} is {}, not {at_least}; {:#?}", counted(), self.world.status(host).counters);
        wait_until(LINK_WITHIN, what, || counted() >= at_least);
    }

    /// Bytes by which the router of `host` has grown.
    #[must_use]
    pub fn grown(&self, host: usize) -> u64 {
        numbered::memory(&self.world, host).saturating_sub(self.memory[host])
    }

    fn kept(&self, host: usize) -> Kept {
        kept(&self.world, host, &self.names, &stations(&self.world, self.count))
    }

    /// Ends the test unless the honest hosts are as they were: no ping lost, no link made anew, the
    /// same records, routes, stations and names, the same processes, which have grown by `room` bytes at
    /// most.
    #[track_caller]
    pub fn unharmed(mut self, room: u64) {
        for pings in std::mem::take(&mut self.pings) {
            let flowed = pings.finish();
            assert!(!flowed.sent.is_empty());
            flowed.assert_whole("pings between honest hosts");
        }
        let lasted = self.begun.elapsed();
        for host in 0..self.count {
            let status = self.world.status(host);
            assert_eq!(status.pid, self.routers[host], "router {host} is another one");
            assert_eq!(self.kept(host), self.kept[host], "what host {host} says of honest hosts");
            let honest = status.connections.iter().filter(|link| {
                link.state == ConnectionState::Established
                    && link.peer.is_some_and(|peer| self.names.contains(&peer))
            });
            let ages: Vec<_> = honest.map(|link| Duration::from_secs(link.since_s)).collect();
            assert_eq!(ages.len(), self.count - 1, "{:#?}", status.connections);
            assert!(
                ages.iter().all(|age| *age + CLOCK_SLACK > lasted),
                "a link is newer than {lasted:?}: {ages:?}"
            );
            let grown = self.grown(host);
            assert!(grown <= room, "router {host} has grown by {grown} bytes, not {room}");
            assert!(!self.world.log(host).contains("panicked"), "{}", self.world.log(host));
        }
    }
}

fn pairs(hosts: &[usize]) -> Vec<(usize, usize)> {
    let with_later = |one: &usize| {
        hosts.iter().filter(|other| *other > one).map(|other| (*one, *other)).collect::<Vec<_>>()
    };
    hosts.iter().flat_map(with_later).collect()
}

fn stations(world: &World, count: usize) -> Vec<MacAddr> {
    (0..count).map(|host| world.mac(host)).collect()
}

fn kept(world: &World, host: usize, names: &[PeerName], stations: &[MacAddr]) -> Kept {
    let status = world.status(host);
    let is_honest = |peer: &PeerName| names.contains(peer);
    let peers = status.peers.iter().filter(|peer| is_honest(&peer.name)).map(|peer| {
        let links = peer.connections.iter().filter(|link| link.established).map(|link| link.peer);
        (peer.name, (peer.nickname.clone(), peer.uid, links.filter(is_honest).collect()))
    });
    let routes = status.routes.iter().filter(|route| is_honest(&route.peer));
    let macs = || status.macs.iter().filter(|entry| stations.contains(&entry.mac));
    let attached = macs().filter(|entry| entry.source == MacSource::Attached);
    let mut places: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for entry in macs() {
        places.entry(entry.mac).or_default().insert(entry.peer);
    }
    let told = world.names(host).into_iter().filter(|entry| is_honest(&entry.origin));
    Kept {
        names: told.map(|entry| (entry.name, entry.address, entry.origin)).collect(),
        peers: peers.collect(),
        routes: routes.map(|route| (route.peer, (route.via, route.hops))).collect(),
        attached: attached.map(|entry| (entry.mac, entry.peer)).collect(),
        places,
    }
}
