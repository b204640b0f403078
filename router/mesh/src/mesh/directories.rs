//! Which station and name is where: what all reachable peers and we ourselves claim.

use super::Mesh;
use crate::output::{Output, Signer};
use std::net::IpAddr;
use std::time::Duration;
use weave_wire::link::gossip::{NamesPart, PartId, PartKey, StationsPart};
use weave_wire::{HostName, MacAddr, PeerName};

impl<S: Signer> Mesh<S> {
    /// Takes a peer's parts into the directories, or out of them.
    pub(super) fn index_peer(&mut self, name: PeerName, now: Duration) {
        for id in (0..PartId::STATIONS).map(PartId::stations).chain((0..PartId::NAMES).map(PartId::names)) {
            self.index(PartKey { owner: name, part: id });
        }
        self.report_directories(now);
    }

    pub(super) fn index_part(&mut self, key: PartKey, now: Duration) {
        self.index(key);
        self.report_directories(now);
    }

    fn index(&mut self, key: PartKey) {
        let peer = self.store.peer(key.owner).filter(|peer| peer.reachable);
        let live = peer.and_then(|peer| peer.parts.get(&key.part).filter(|part| peer.is_live(part)));
        let content = live.map_or(&[][..], |part| &part.content);
        if key.part.is_stations() {
            let part = StationsPart::parse(content).unwrap_or_else(|_| {
                self.counters.unreadable += 1;
                StationsPart::default()
            });
            self.index_stations(key, &part);
        } else if key.part.is_names() {
            let part = NamesPart::parse(content).unwrap_or_else(|_| {
                self.counters.unreadable += 1;
                NamesPart::default()
            });
            let entries =
                part.entries.into_iter().map(|entry| (entry.name, (entry.address, entry.container)));
            let rank = self.store.rank(key.owner);
            self.names_directory.set_ranked(key, rank, entries.collect());
        }
    }

    fn index_stations(&mut self, key: PartKey, part: &StationsPart) {
        let rank = self.store.rank(key.owner);
        let macs = part.entries.iter().map(|entry| (entry.mac, entry.claim)).collect();
        let addresses = part
            .entries
            .iter()
            .flat_map(|entry| entry.addresses.iter().map(|a| (a.address, (a.claim, entry.mac, a.prefix))));
        self.addresses.set_ranked(key, rank, addresses.collect());
        self.stations.set_ranked(key, rank, macs);
    }

    /// Our own stations stand in the directory under the first of their parts.
    pub(super) fn index_own_stations(&mut self) {
        let key = self.key(PartId::stations(0));
        let live = || self.claims.iter().filter(|(_, claimed)| !claimed.withdrawn);
        let macs = live().map(|(mac, claimed)| (*mac, claimed.claim)).collect();
        let addresses = live().flat_map(|(mac, claimed)| {
            let told = claimed.addresses.iter().filter(|(_, (_, _, gone))| !gone);
            told.map(|(address, (prefix, claim, _))| (*address, (*claim, *mac, *prefix)))
        });
        self.addresses.set(key, addresses.collect());
        self.stations.set(key, macs);
    }

    pub(super) fn index_own_names(&mut self) {
        let key = self.key(PartId::names(0));
        let entries = self.names.iter().map(|entry| (entry.name.clone(), (entry.address, entry.container)));
        self.names_directory.set(key, entries.collect());
    }

    /// Reports what changed; withdraws what others claim higher, and claims again
    /// what nobody does any more.
    pub(super) fn report_directories(&mut self, now: Duration) {
        let names: Vec<HostName> = self.names_directory.take_changed().into_iter().collect();
        if !names.is_empty() {
            self.outputs.push_back(Output::NamesChanged(names));
        }
        let mut claims_changed = false;
        let addresses: Vec<IpAddr> = self.addresses.take_changed().into_iter().collect();
        for address in &addresses {
            claims_changed |= self.judge_address(*address);
        }
        if !addresses.is_empty() {
            self.outputs.push_back(Output::AddressesChanged(addresses));
        }
        let mut changes = Vec::new();
        for mac in self.stations.take_changed() {
            claims_changed |= self.judge(mac);
            let elsewhere = self.station_owner(mac).filter(|owner| *owner != self.config.name);
            let before = match elsewhere {
                Some(peer) => self.stations_reported.insert(mac, peer),
                None => self.stations_reported.remove(&mac),
            };
            if before != elsewhere {
                changes.push((mac, elsewhere));
            }
        }
        if !changes.is_empty() {
            self.outputs.push_back(Output::StationsChanged(changes));
        }
        self.counters.stations_full = self.stations.refused + self.addresses.refused;
        self.counters.names_full = self.names_directory.refused;
        if claims_changed {
            self.stations_changed(now);
        }
    }

    /// The best claim of another peer on a station.
    pub(super) fn best_other_claim(&self, mac: MacAddr) -> Option<(u32, PeerName)> {
        best_of_others(
            self.config.name,
            self.stations.get(&mac).iter().map(|(key, claim)| (*claim, key.owner)),
        )
    }

    /// The best claim of another peer on an address.
    pub(super) fn best_other_claim_on(&self, address: &IpAddr) -> Option<(u32, PeerName)> {
        let claims = self.addresses.get(address).iter();
        best_of_others(self.config.name, claims.map(|(key, (claim, ..))| (*claim, key.owner)))
    }

    /// Where a station is attached: the highest claim, of equal ones that of the
    /// largest name.
    #[must_use]
    pub fn station_owner(&self, mac: MacAddr) -> Option<PeerName> {
        let claims = self.stations.get(&mac).iter();
        claims.map(|(key, claim)| (*claim, key.owner)).max().map(|(_, owner)| owner)
    }

    /// The peer at which an address is attached, if none of our stations has it, be it that
    /// another has the better claim. Of peers that can be reached only.
    #[must_use]
    pub fn attached_elsewhere(&self, address: &IpAddr) -> Option<PeerName> {
        let is_ours = self.claims.values().any(|claimed| claimed.addresses.contains_key(address));
        let owner = self.address_owner(address).map(|(owner, _)| owner);
        owner.filter(|owner| !is_ours && *owner != self.config.name)
    }

    /// Where an address is attached, and at which station.
    #[must_use]
    pub fn address_owner(&self, address: &IpAddr) -> Option<(PeerName, MacAddr)> {
        owner_of(self.addresses.get(address))
    }

    /// The station of another peer at which an address is attached.
    #[must_use]
    pub fn station_elsewhere(&self, address: &IpAddr) -> Option<MacAddr> {
        let (owner, mac) = self.address_owner(address)?;
        (owner != self.config.name).then_some(mac)
    }

    /// All addresses that are attached at other peers, each with its station.
    pub fn addresses_elsewhere(&self) -> impl Iterator<Item = (IpAddr, MacAddr)> {
        self.addresses.iter().filter_map(|(address, claims)| {
            let (owner, mac) = owner_of(claims)?;
            (owner != self.config.name).then_some((*address, mac))
        })
    }
}

/// Whose claim on an address is the best, and which station has it.
fn owner_of(claims: &[(PartKey, (u32, MacAddr, u8))]) -> Option<(PeerName, MacAddr)> {
    let claims = claims.iter().map(|(key, (claim, mac, _))| (*claim, key.owner, *mac));
    claims.max().map(|(_, owner, mac)| (owner, mac))
}

fn best_of_others(ours: PeerName, claims: impl Iterator<Item = (u32, PeerName)>) -> Option<(u32, PeerName)> {
    claims.filter(|(_, owner)| *owner != ours).max()
}
