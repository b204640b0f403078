//! Our own parts: what they say, and telling others of changes.

use super::{Claimed, Mesh};
use crate::output::{Output, OwnStation, Signer};
use crate::own::{place, placement_hash};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use weave_wire::link::gossip::content::{MAX_HOST_ADDRESSES, MAX_STATION_ADDRESSES};
use weave_wire::link::gossip::{
    Digest, Gossip, HostPart, MAX_CONTENT_LEN, NameEntry, NamesPart, PartId, SignedPart, StationAddress,
    StationEntry, StationsPart,
};

impl<S: Signer> Mesh<S> {
    pub(super) fn change_own(&mut self, part: PartId, urgent: bool, now: Duration) {
        if !self.superseded && !self.leaving {
            self.own.change(part, urgent, now, &mut self.random);
        }
    }

    /// These stations are attached here from now on. A station that was not
    /// attached before is claimed anew, above every claim known; one whose claim was
    /// withdrawn keeps that until it was absent once.
    pub fn set_stations(&mut self, stations: Vec<OwnStation>, now: Duration) {
        let mut claims = BTreeMap::new();
        for station in stations.into_iter().filter(|station| station.mac.is_station()) {
            if claims.len() >= super::MAX_STATIONS_PER_PEER {
                self.counters.does_not_fit += 1;
                continue;
            }
            let old = self.claims.get(&station.mac);
            let (claim, withdrawn) = match old {
                Some(old) => (old.claim, old.withdrawn),
                None => (next_claim(self.stations.get(&station.mac).iter().map(|(_, claim)| *claim)), false),
            };
            let addresses = station.addresses.into_iter().take(MAX_STATION_ADDRESSES);
            let addresses = addresses
                .map(|(address, prefix)| {
                    let known = old.and_then(|old| old.addresses.get(&address)).copied();
                    let others = self.addresses.get(&address).iter().map(|(_, (claim, ..))| *claim);
                    let (claim, gone) = known.map_or_else(|| (next_claim(others), false), |(_, c, g)| (c, g));
                    (address, (prefix, claim, gone))
                })
                .collect();
            claims.insert(station.mac, Claimed { claim, withdrawn, addresses });
        }
        if self.claims != claims {
            self.claims = claims;
            self.stations_changed(now);
        }
    }

    /// These names are published from here from now on.
    pub fn set_names(&mut self, mut names: Vec<NameEntry>, now: Duration) {
        names.sort();
        names.dedup();
        let over = names.len().saturating_sub(super::MAX_NAMES_PER_PEER);
        self.counters.does_not_fit += over as u64;
        names.truncate(super::MAX_NAMES_PER_PEER);
        if self.names != names {
            self.names = names;
            (0..PartId::NAMES).for_each(|index| self.change_own(PartId::names(index), true, now));
            self.index_own_names();
            self.report_directories(now);
        }
    }

    /// We think we can be reached there from now on; the first 16 are told.
    pub fn set_addresses(&mut self, addresses: Vec<SocketAddr>, now: Duration) {
        if self.config.addresses != addresses {
            self.config.addresses = addresses;
            self.change_own(PartId::HOST, false, now);
        }
    }

    pub(super) fn stations_changed(&mut self, now: Duration) {
        (0..PartId::STATIONS).for_each(|index| self.change_own(PartId::stations(index), true, now));
        self.index_own_stations();
        self.report_directories(now);
    }

    /// Our host leaves for good: others forget its key, and all it told.
    pub fn farewell(&mut self, now: Duration) {
        self.leaving = true;
        self.publish_part(PartId::HOST, now);
        self.own.take_changed(now);
        if let Some(part) = self.own.part(PartId::HOST).cloned() {
            for link in self.links.keys().copied().collect::<Vec<_>>() {
                self.send(link, Gossip::Part(Box::new(part.clone())));
            }
        }
    }

    /// Publishes what changed, to all links.
    pub(super) fn publish(&mut self, now: Duration) {
        let changed = self.own.take_changed(now);
        if self.superseded || self.leaving {
            return;
        }
        let contents = self.contents(&changed);
        let mut digests = Vec::new();
        for (part, content) in contents {
            digests.extend(self.publish_content(part, content));
        }
        for link in self.links.keys().copied().collect::<Vec<_>>() {
            self.send_digests(link, digests.clone());
        }
    }

    pub(super) fn publish_part(&mut self, part: PartId, now: Duration) {
        let contents = self.contents(&BTreeSet::from([part]));
        for (part, content) in contents {
            self.publish_content(part, content);
        }
        self.routes_dirty(now);
    }

    fn publish_content(&mut self, part: PartId, content: Vec<u8>) -> Option<Digest> {
        let version = self.own.next_version(part, &content)?;
        let mut signed = SignedPart {
            owner: self.config.name,
            identity: self.signer.identity(),
            uid: self.config.uid,
            part,
            version,
            content,
            signature: [0; 64],
        };
        signed.signature = self.signer.sign(&signed.signed_bytes());
        let digest = signed.digest();
        self.own.insert(signed);
        self.summary = None;
        self.counters.published += 1;
        Some(digest)
    }

    /// What these of our parts say.
    fn contents(&mut self, parts: &BTreeSet<PartId>) -> Vec<(PartId, Vec<u8>)> {
        let mut contents = Vec::new();
        let stations = parts.iter().any(|part| part.is_stations()).then(|| self.placed_stations());
        let names = parts.iter().any(|part| part.is_names()).then(|| self.placed_names());
        for part in parts {
            let content = if *part == PartId::HOST {
                self.host_part().encode()
            } else if part.is_stations() {
                content_of(&stations, *part)
            } else if part.is_names() {
                content_of(&names, *part)
            } else {
                Vec::new()
            };
            contents.push((*part, content));
        }
        contents
    }

    fn host_part(&self) -> HostPart {
        HostPart {
            nickname: self.config.nickname.clone(),
            port: self.config.port,
            addresses: self.config.addresses.iter().take(MAX_HOST_ADDRESSES).copied().collect(),
            links: if self.leaving { Vec::new() } else { self.announced_links() },
            farewell: self.leaving,
            sealed_only: self.config.sealed_only,
            features: self.config.features,
        }
    }

    fn placed_stations(&mut self) -> BTreeMap<PartId, Vec<u8>> {
        let claims = self.claims.iter().filter(|(_, claimed)| !claimed.withdrawn);
        let entries = claims.map(|(mac, claimed)| {
            let entry = StationEntry { mac: *mac, claim: claimed.claim, addresses: told(&claimed.addresses) };
            (placement_hash(&mac.0), entry.encoded_len(), entry)
        });
        let (placed, homeless) = place(entries, PartId::STATIONS, MAX_CONTENT_LEN);
        self.counters.does_not_fit += homeless;
        let contents = placed.into_iter().map(|entries| StationsPart { entries }.encode());
        (0..PartId::STATIONS).map(PartId::stations).zip(contents).collect()
    }

    fn placed_names(&mut self) -> BTreeMap<PartId, Vec<u8>> {
        let entries = self.names.iter().map(|entry| {
            (placement_hash(entry.name.as_str().as_bytes()), entry.encoded_len(), entry.clone())
        });
        let (placed, homeless) = place(entries, PartId::NAMES, MAX_CONTENT_LEN);
        self.counters.does_not_fit += homeless;
        let contents = placed.into_iter().map(|entries| NamesPart { entries }.encode());
        (0..PartId::NAMES).map(PartId::names).zip(contents).collect()
    }

    /// A claim on a station changed: ours stands unless another's is better. It
    /// stays what it was, so that a better one wins again when it comes back. True
    /// if that is new.
    pub(super) fn judge(&mut self, mac: weave_wire::MacAddr) -> bool {
        let (ours, best) = (self.config.name, self.best_other_claim(mac));
        let Some(claimed) = self.claims.get_mut(&mac) else { return false };
        let loses = best.is_some_and(|best| best > (claimed.claim, ours));
        if std::mem::replace(&mut claimed.withdrawn, loses) == loses {
            return false;
        }
        if loses {
            self.outputs.push_back(Output::Withdrawn(mac));
        }
        true
    }

    /// The same for an address.
    pub(super) fn judge_address(&mut self, address: IpAddr) -> bool {
        let (ours, best) = (self.config.name, self.best_other_claim_on(&address));
        let (mut changed, mut withdrawn) = (false, false);
        for claimed in self.claims.values_mut() {
            let Some((_, claim, gone)) = claimed.addresses.get_mut(&address) else { continue };
            let loses = best.is_some_and(|best| best > (*claim, ours));
            if std::mem::replace(gone, loses) != loses {
                changed = true;
                withdrawn |= loses;
            }
        }
        if withdrawn {
            self.outputs.push_back(Output::AddressWithdrawn(address));
        }
        changed
    }
}

fn content_of(placed: &Option<BTreeMap<PartId, Vec<u8>>>, part: PartId) -> Vec<u8> {
    placed.as_ref().and_then(|placed| placed.get(&part)).cloned().unwrap_or_default()
}

fn next_claim(seen: impl Iterator<Item = u32>) -> u32 {
    seen.max().unwrap_or(0).saturating_add(1)
}

/// The addresses of a station that are not withdrawn.
fn told(addresses: &BTreeMap<IpAddr, (u8, u32, bool)>) -> Vec<StationAddress> {
    let told = addresses.iter().filter(|(_, (_, _, gone))| !gone);
    told.map(|(address, (prefix, claim, _))| StationAddress {
        address: *address,
        prefix: *prefix,
        claim: *claim,
    })
    .collect()
}
