//! Addresses of the host itself on the network: one file each, and the operations that keep
//! files, kernel and firewall in step.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::address::check_cidrs;
use crate::attach::{announce_on, is_host_interface, probe_on};
use crate::bridge::{self, BRIDGE, mtu_of};
use crate::error::{Error, Result};
use crate::firewall::{Degraded, ExposedNet, Firewall, Policy, other_bridges};
use crate::forwarding;
use crate::mtu::DEFAULT_MTU;
use crate::names::DnsSettings;
use crate::netlink::{Link, Netlink};
use crate::policy::HostPolicy;
use crate::protect;
use crate::records;
use crate::store::{Aside, StateDir, StateFile, StateLock};
use crate::tap::TAP;

/// Directory of these files in the state directory.
pub const DIRECTORY: &str = "exposed";

/// An address of this host on the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exposed {
    /// The address and the length of its network.
    pub cidr: IpNet,
    /// What crosses between its network and others is given the host's address.
    pub masquerade: bool,
    /// Names it goes by.
    #[serde(default)]
    pub names: Vec<String>,
    /// Rises with each that is exposed: their order. `None`: not exposed yet, or by a program that did not
    /// count them, which is before the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
}

impl StateFile for Exposed {
    const KIND: &'static str = "exposed address";
    const VERSION: u32 = 1;
}

/// The exposed addresses in the order in which they were exposed, read without the lock: for those who
/// only look.
///
/// # Errors
/// When the directory cannot be read or a file was written by a newer version.
pub fn read_all(state_dir: &Path) -> Result<Vec<Exposed>> {
    let mut all: Vec<Exposed> = StateDir::existing(state_dir.join(DIRECTORY)).read_all()?;
    all.sort_by_key(|exposed| exposed.number);
    Ok(all)
}

/// The exposed addresses of this host, locked against other commands.
#[derive(Debug)]
pub struct ExposedAddresses {
    state: StateDir,
    directory: StateDir,
    _lock: StateLock,
    all: Vec<Exposed>,
    aside: Vec<Aside>,
}

impl ExposedAddresses {
    /// Reads and locks them, making the state directory if need be.
    ///
    /// # Errors
    /// [`Error::State`].
    pub fn open(state_dir: &Path) -> Result<Self> {
        let state = StateDir::create(state_dir)?;
        let lock = state.lock()?;
        // Made with the first file: who only looks changes nothing.
        let directory = StateDir::existing(state_dir.join(DIRECTORY));
        let (mut all, aside) = directory.read_all_own::<Exposed>()?;
        all.sort_by_key(|exposed| exposed.number);
        aside.iter().for_each(Aside::warn);
        Ok(Self { state, directory, _lock: lock, all, aside })
    }

    /// Damaged files that were set aside: to be told to the user.
    #[must_use]
    pub fn set_aside(&self) -> &[Aside] {
        &self.aside
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Exposed] {
        &self.all
    }

    /// Gives the host these addresses on the network; waits for `probe` whether somebody else answers
    /// to them, if at all. A bridge that is made gets `mtu`, bytes. What is there already keeps its names,
    /// with those given now, and takes the masquerading asked for. When a step fails, what was made
    /// before it is taken back.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::AddressInUse`], [`Error::Missing`] when there is no program to
    /// change the firewall, otherwise what kernel or firewall refuse.
    pub fn expose(
        &mut self,
        host: &mut Netlink,
        new: &[Exposed],
        policy: &HostPolicy,
        mtu: Option<u32>,
        probe: Option<Duration>,
    ) -> Result<Vec<Degraded>> {
        let cidrs: Vec<IpNet> = new.iter().map(|exposed| exposed.cidr).collect();
        check_cidrs(&cidrs)?;
        for cidr in &cidrs {
            if let Some(exposed) = self.with_another_prefix(cidr) {
                let reason = format!("is exposed as {exposed}: `weave hide {exposed}` first");
                return Err(Error::invalid(cidr, reason));
            }
        }
        let bridge = host.link(BRIDGE)?;
        let made = bridge.is_none();
        let mtu = mtu_of(bridge.as_ref()).or(mtu).unwrap_or(DEFAULT_MTU);
        let link = bridge::ensure(host, mtu)?;
        let present = addresses_of(host, &link)?;
        let added: Vec<IpNet> = cidrs.into_iter().filter(|cidr| !present.contains(cidr)).collect();
        let before = self.all.clone();
        let result = self.carry_out(host, &link, new, &added, policy, probe);
        result.map_err(|error| {
            let undone = self.take_back(host, &link, &before, &added);
            let rules = self.apply_if_used(host, policy);
            let bridge = if made { bridge::remove(host) } else { Ok(()) };
            error.after_undo(undone.and(rules).and(bridge))
        })
    }

    fn carry_out(
        &mut self,
        host: &mut Netlink,
        link: &Link,
        new: &[Exposed],
        added: &[IpNet],
        policy: &HostPolicy,
        probe: Option<Duration>,
    ) -> Result<Vec<Degraded>> {
        let addresses: Vec<IpAddr> = added.iter().map(IpNet::addr).collect();
        host.refuse_own(&addresses, Some(link.index))?;
        if let Some(wait) = probe
            && let Some(holder) = probe_on(BRIDGE, link, &addresses, wait)?.first()
        {
            return Err(Error::AddressInUse { address: holder.address, holder: holder.mac.to_string() });
        }
        for exposed in new {
            self.put(exposed)?;
        }
        if added.iter().any(|cidr| cidr.addr().is_ipv6()) {
            protect::allow_ipv6(BRIDGE)?;
        }
        for cidr in added {
            host.add_address(link.index, *cidr)?;
        }
        self.keep_forwarding(host)?;
        let degraded = self.apply(policy)?;
        announce_on(BRIDGE, link, &addresses)?;
        Ok(degraded)
    }

    /// Forwards IPv4 while an address of it is exposed.
    fn keep_forwarding(&self, host: &mut Netlink) -> Result<()> {
        if self.all.iter().any(|exposed| exposed.cidr.addr().is_ipv4()) {
            forwarding::switch_on(&self.state)
        } else {
            forwarding::put_back(self.state.path(), host)
        }
    }

    fn take_back(
        &mut self,
        host: &mut Netlink,
        link: &Link,
        before: &[Exposed],
        added: &[IpNet],
    ) -> Result<()> {
        // One step that fails keeps none of the others from being done.
        let mut done: Vec<Result<()>> = Vec::new();
        done.extend(added.iter().map(|cidr| host.delete_address(link.index, *cidr).map(drop)));
        let now = self.all.clone();
        for exposed in now.iter().filter(|exposed| before.iter().all(|old| old.cidr != exposed.cidr)) {
            done.push(self.forget(exposed.cidr));
        }
        for exposed in before.iter().filter(|exposed| !now.contains(exposed)) {
            done.push(self.write(exposed.clone()));
        }
        done.push(self.refuse_ipv6_if_unused(host));
        done.push(self.keep_forwarding(host));
        done.into_iter().collect()
    }

    /// Takes these addresses from the host. What is not there is no error.
    ///
    /// # Errors
    /// [`Error::Invalid`] when an address is exposed with another prefix; nothing has changed then.
    /// What kernel or firewall refuse.
    pub fn hide(&mut self, host: &mut Netlink, cidrs: &[IpNet], policy: &HostPolicy) -> Result<()> {
        for cidr in cidrs {
            if let Some(exposed) = self.with_another_prefix(cidr) {
                return Err(Error::invalid(cidr, format!("is exposed as {exposed}: hide that")));
            }
        }
        if let Some(link) = host.link(BRIDGE)? {
            protect::promote_secondaries(BRIDGE)?;
            for cidr in cidrs {
                host.delete_address(link.index, *cidr)?;
            }
        }
        for cidr in cidrs {
            self.forget(*cidr)?;
        }
        self.refuse_ipv6_if_unused(host)?;
        self.keep_forwarding(host)?;
        self.apply_if_used(host, policy)
    }

    /// Takes names from the exposed ones of `addresses`, or from all when none is given. What has no
    /// such name is left as it is.
    ///
    /// # Errors
    /// [`Error::State`].
    pub fn remove_names(&mut self, names: &[String], addresses: &[IpAddr]) -> Result<()> {
        let is_meant = |exposed: &&mut Exposed| {
            (addresses.is_empty() || addresses.contains(&exposed.cidr.addr()))
                && exposed.names.iter().any(|name| names.contains(name))
        };
        for exposed in self.all.iter_mut().filter(is_meant) {
            exposed.names.retain(|name| !names.contains(name));
            self.directory.write(&file_name(exposed.cidr), exposed)?;
        }
        Ok(())
    }

    /// The same address as it is exposed, if only with another prefix.
    fn with_another_prefix(&self, cidr: &IpNet) -> Option<IpNet> {
        let mut same = self.all.iter().map(|exposed| exposed.cidr).filter(|held| held.addr() == cidr.addr());
        let first = same.next()?;
        (first != *cidr && same.all(|held| held != *cidr)).then_some(first)
    }

    /// Takes IPv6 from the bridge while no address of it is exposed.
    fn refuse_ipv6_if_unused(&self, host: &mut Netlink) -> Result<()> {
        if self.all.iter().any(|exposed| exposed.cidr.addr().is_ipv6()) || host.link(BRIDGE)?.is_none() {
            return Ok(());
        }
        protect::refuse_ipv6(BRIDGE)
    }

    /// Puts all addresses and rules back, as they shall be.
    ///
    /// # Errors
    /// What kernel or firewall refuse.
    pub fn restore(&self, host: &mut Netlink, link: &Link, policy: &HostPolicy) -> Result<Vec<Degraded>> {
        self.restore_addresses(host, link)?;
        self.apply(policy)
    }

    /// Puts the addresses back that are not there, and the forwarding they need; returns how many
    /// addresses were not.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn restore_addresses(&self, host: &mut Netlink, link: &Link) -> Result<usize> {
        let present = addresses_of(host, link)?;
        let mut restored = 0;
        for exposed in self.all.iter().filter(|exposed| !present.contains(&exposed.cidr)) {
            if exposed.cidr.addr().is_ipv6() {
                protect::allow_ipv6(BRIDGE)?;
            }
            host.add_address(link.index, exposed.cidr)?;
            announce_on(BRIDGE, link, &[exposed.cidr.addr()])?;
            restored += 1;
        }
        self.keep_forwarding(host).map(|()| restored)
    }

    /// Puts the firewall's rules in place.
    ///
    /// # Errors
    /// What the firewall refuses, or that there is none while the host is exposed.
    pub fn apply(&self, policy: &HostPolicy) -> Result<Vec<Degraded>> {
        let exposed = self.all.iter();
        let exposed = exposed.map(|one| ExposedNet { cidr: one.cidr, masquerade: one.masquerade });
        let mut exposed: Vec<_> = exposed.collect();
        // Whoever puts them in place, they come in one order.
        exposed.sort_by_key(|one| one.cidr);
        let engine_bridge = policy.engine_bridge.clone();
        let policy = Policy { port: policy.port, engine_bridge, other_bridges: other_bridges(), exposed };
        match Firewall::find() {
            Some(firewall) => firewall.apply(&policy),
            None if policy.exposed.is_empty() => Ok(vec![Degraded::no_program()]),
            None => Err(Error::Missing {
                step: "change the firewall",
                object: "neither iptables nor nft is installed".to_owned(),
                remedy: "install iptables, or nftables".to_owned(),
            }),
        }
    }

    /// The same; takes all rules away where there is nothing that they are for.
    fn apply_if_used(&self, host: &mut Netlink, policy: &HostPolicy) -> Result<()> {
        if self.is_used(host)? {
            return self.apply(policy).map(drop);
        }
        Firewall::find().map_or(Ok(()), Firewall::remove)
    }

    /// Whether there is anything on this host that rules are for: an exposed address, an attachment that
    /// is there or remembered, the DNS, or the tap, which a router leaves behind.
    ///
    /// # Errors
    /// When the state cannot be read or the kernel refuses.
    pub fn is_used(&self, host: &mut Netlink) -> Result<bool> {
        let state = self.state.path();
        let is_port = |link: &Link| link.name == TAP || is_host_interface(&link.name);
        Ok(!self.all.is_empty()
            || DnsSettings::read(state)?.is_some_and(|dns| dns.enabled)
            || !records::read_all(state)?.0.is_empty()
            || host.links()?.iter().any(is_port))
    }

    fn put(&mut self, exposed: &Exposed) -> Result<()> {
        let mut exposed = exposed.clone();
        match self.all.iter().find(|old| old.cidr == exposed.cidr) {
            Some(old) => {
                exposed.names.extend(old.names.iter().cloned());
                exposed.number = old.number;
            }
            None => {
                exposed.number =
                    self.all.iter().filter_map(|old| old.number).max().unwrap_or(0).checked_add(1)
            }
        }
        exposed.names.sort();
        exposed.names.dedup();
        self.write(exposed)
    }

    fn write(&mut self, exposed: Exposed) -> Result<()> {
        self.directory = StateDir::create(self.directory.path())?;
        self.directory.write(&file_name(exposed.cidr), &exposed)?;
        match self.all.iter_mut().find(|old| old.cidr == exposed.cidr) {
            Some(old) => *old = exposed,
            None => self.all.push(exposed),
        }
        Ok(())
    }

    fn forget(&mut self, cidr: IpNet) -> Result<()> {
        self.directory.remove(&file_name(cidr))?;
        self.all.retain(|exposed| exposed.cidr != cidr);
        Ok(())
    }
}

impl Drop for ExposedAddresses {
    fn drop(&mut self) {
        // A directory with files stays.
        if self.all.is_empty() {
            let _ = std::fs::remove_dir(self.directory.path());
        }
    }
}

fn addresses_of(host: &mut Netlink, link: &Link) -> Result<Vec<IpNet>> {
    let all = host.addresses()?.into_iter();
    Ok(all.filter(|held| held.index == link.index).map(|held| held.cidr).collect())
}

fn file_name(cidr: IpNet) -> String {
    format!("{}.json", cidr.to_string().replace(['/', ':'], "_"))
}
