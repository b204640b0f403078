//! Neighbours of an exposed host: it reaches each attached address at the station that it is attached
//! to, whatever other stations say of it by ARP or neighbour discovery.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use weave_wire::MacAddr;

use crate::error::{Error, Result};
use crate::exposed::Exposed;
use crate::netlink::{Neighbours, Netlink};
use crate::records::Record;

/// Addresses that are attached on other hosts, as the router told them last.
#[derive(Debug, Clone, Default)]
pub struct Elsewhere(Arc<Mutex<Told>>);

#[derive(Debug, Default)]
struct Told {
    all: Neighbours,
    /// The router that told it runs.
    is_current: bool,
    /// Networks that this host had an address of when its neighbours were looked at last.
    networks: Vec<IpNet>,
}

impl Told {
    fn is_near(&self, address: &IpAddr) -> bool {
        self.networks.iter().any(|net| net.contains(address))
    }
}

impl Elsewhere {
    fn lock(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what changed; `None`: it is attached nowhere else any more. Whether it concerns the
    /// neighbours of this host.
    pub fn change(&self, changes: impl IntoIterator<Item = (IpAddr, Option<MacAddr>)>) -> bool {
        let (mut told, mut concerns) = (self.lock(), false);
        for (address, mac) in changes {
            concerns |= told.is_near(&address);
            match mac {
                Some(mac) => told.all.insert(address, mac),
                None => told.all.remove(&address),
            };
        }
        concerns
    }

    /// What a router that has just begun knows takes the place of all that another one told. Whether
    /// it may concern the neighbours of this host.
    pub fn replace(&self, all: Neighbours) -> bool {
        let mut told = self.lock();
        (told.all, told.is_current) = (all, true);
        !told.networks.is_empty()
    }

    /// The router that told has ended: where addresses were last is better than nothing for who is to
    /// be reached, and no reason to refuse one.
    pub fn router_ended(&self) {
        self.lock().is_current = false;
    }

    /// Refuses addresses that a container of another host has, as the router that runs knows.
    ///
    /// # Errors
    /// [`Error::AddressInUse`].
    pub(super) fn refuse_attached(&self, cidrs: &[IpNet]) -> Result<()> {
        let told = self.lock();
        if !told.is_current {
            return Ok(());
        }
        let held = cidrs.iter().find_map(|cidr| Some((cidr.addr(), told.all.get(&cidr.addr())?)));
        held.map_or(Ok(()), |(address, mac)| {
            Err(Error::AddressInUse { address, holder: format!("a container of another host ({mac})") })
        })
    }

    /// The attached addresses in the networks that this host has an address of; on this host those
    /// of `attached`, unless another host claims one, which the router has found to be right then.
    /// And its own, at its `bridge`: else a solicitation in their name leaves a neighbour.
    pub(super) fn neighbours(
        &self,
        exposed: &[Exposed],
        attached: &[Record],
        bridge: Option<MacAddr>,
    ) -> Neighbours {
        let here =
            attached.iter().flat_map(|record| record.cidrs.iter().map(|cidr| (cidr.addr(), record.mac)));
        let own = exposed.iter().filter_map(|one| Some((one.cidr.addr(), bridge?)));
        let mut told = self.lock();
        told.networks = exposed.iter().map(|one| one.cidr.trunc()).collect();
        let elsewhere = told.all.iter().map(|(address, mac)| (*address, *mac));
        here.chain(elsewhere).chain(own).filter(|(address, _)| told.is_near(address)).collect()
    }
}

/// Makes the kernel's neighbours of ours on this interface those that are `wanted`; one that the
/// kernel refuses keeps none of the others out.
pub(super) fn keep(host: &mut Netlink, index: u32, wanted: &Neighbours) -> Result<()> {
    let there = host.neighbours(index)?;
    let mut done: Vec<Result<()>> = Vec::new();
    for address in there.keys().filter(|address| !wanted.contains_key(*address)) {
        done.push(host.delete_neighbour(index, *address));
    }
    for (address, mac) in wanted.iter().filter(|(address, mac)| there.get(*address) != Some(*mac)) {
        done.push(host.set_neighbour(index, *address, *mac));
    }
    done.into_iter().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn mac(number: u8) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, number])
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn exposed(cidr: &str) -> Exposed {
        Exposed { cidr: cidr.parse().unwrap(), masquerade: true, names: Vec::new(), number: None }
    }

    #[test]
    fn only_networks_of_the_host_count_and_what_the_router_found_wins() {
        let elsewhere = Elsewhere::default();
        let told = [("10.2.1.7", 7), ("10.2.2.7", 7), ("fd00::7", 7), ("10.2.1.101", 9)];
        elsewhere.replace(told.map(|(address, number)| (ip(address), mac(number))).into());
        let all = [exposed("10.2.1.101/24"), exposed("fd00::101/64")];
        let near = |all: &[Exposed]| elsewhere.neighbours(all, &[], Some(mac(1)));
        let own = [(ip("10.2.1.101"), mac(1)), (ip("fd00::101"), mac(1))];
        let with_own = |others: &[(IpAddr, MacAddr)]| others.iter().copied().chain(own).collect();
        assert_eq!(near(&all), with_own(&[(ip("10.2.1.7"), mac(7)), (ip("fd00::7"), mac(7))]));
        assert_eq!(near(&all[1..]), [own[1], (ip("fd00::7"), mac(7))].into());
        assert_eq!(near(&[]), Neighbours::new());
        let changes = [(ip("10.2.1.7"), Some(mac(8))), (ip("fd00::7"), None)];
        assert!(!elsewhere.change(changes), "it is exposed nowhere");
        assert_eq!(near(&all), with_own(&[(ip("10.2.1.7"), mac(8))]));
        assert!(elsewhere.change(changes) && !elsewhere.change([(ip("10.2.2.7"), None)]));
        // Only what the router that runs has told is a reason to refuse one.
        let cidr = ["10.2.1.7/24".parse().unwrap()];
        assert!(elsewhere.replace([(ip("10.2.1.7"), mac(8))].into()));
        assert!(matches!(elsewhere.refuse_attached(&cidr), Err(Error::AddressInUse { .. })));
        assert!(elsewhere.refuse_attached(&["10.2.1.8/24".parse().unwrap()]).is_ok());
        elsewhere.router_ended();
        assert!(elsewhere.refuse_attached(&cidr).is_ok());
    }
}
