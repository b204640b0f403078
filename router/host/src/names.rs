//! Names of this host's containers and of the host itself: what is remembered of them, and which
//! of them hold now.
//!
//! What a container is called stands in its attachment record, what the host is called beside the
//! exposed address, and names of addresses outside the network in a file of their own. Which of
//! these are names of the network depends on its domain ([`DnsSettings`]).

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use nix::net::if_::if_nametoindex;
use serde::{Deserialize, Serialize};
use weave_wire::HostName;

use crate::error::{Error, Result};
use crate::exposed;
use crate::records::{self, Record};
use crate::store::{Aside, StateDir, StateFile, StateLock, Stored};

/// Most names given to one container by hand, and most taken from it.
pub const GIVEN_MAX: usize = 256;
/// Most names of addresses outside the network.
pub const OUTSIDE_MAX: usize = 4096;
/// Time a name may be remembered by who asked, unless another is chosen, seconds.
pub const DEFAULT_TTL_S: u32 = 1;
/// File of the [`DnsSettings`] in the state directory.
pub(crate) const SETTINGS: &str = "dns.json";
/// File of the names of addresses outside the network.
pub(crate) const OUTSIDE: &str = "names.json";

/// How the DNS of this host was launched last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsSettings {
    /// It is to run.
    pub enabled: bool,
    /// An address of its own on the network.
    pub cidr: Option<IpNet>,
    /// The domain of all names.
    pub domain: HostName,
    /// Time a name may be remembered by who asked, seconds.
    pub ttl_s: u32,
    /// Containers that have ended lose their names.
    pub watch: bool,
    /// Answers for names outside the domain are remembered.
    pub cache: bool,
    /// The one address where it is asked, beside its own.
    pub listen: Option<IpAddr>,
    /// It logs more.
    #[serde(default)]
    pub debug: bool,
}

impl StateFile for DnsSettings {
    const KIND: &'static str = "dns";
    const VERSION: u32 = 1;
}

impl Default for DnsSettings {
    fn default() -> Self {
        Self {
            enabled: false,
            cidr: None,
            domain: HostName::weave_local(),
            ttl_s: DEFAULT_TTL_S,
            watch: true,
            cache: true,
            listen: None,
            debug: false,
        }
    }
}

impl DnsSettings {
    /// Those written down last.
    ///
    /// # Errors
    /// [`Error::State`].
    pub fn read(state_dir: &Path) -> Result<Option<Self>> {
        match StateDir::existing(state_dir).read(SETTINGS)? {
            Stored::Content(settings) => Ok(Some(settings)),
            Stored::Absent | Stored::Damaged(_) => Ok(None),
        }
    }

    /// Writes them down; returns what stood there before, if that was damaged.
    ///
    /// # Errors
    /// [`Error::State`].
    pub fn write(&self, state_dir: &Path) -> Result<Option<Aside>> {
        let directory = StateDir::create(state_dir)?;
        let _lock = directory.lock()?;
        let (_, aside) = directory.read_own::<Self>(SETTINGS)?;
        directory.write(SETTINGS, self)?;
        Ok(aside)
    }
}

/// A name given by hand or by label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenName {
    /// The name.
    pub name: HostName,
    /// The addresses it stands for; none: all the container has.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// It stands for all the container has, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub and_all: bool,
}

/// What a container is called.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ContainerNames {
    /// As a host, by itself.
    #[serde(default)]
    pub host: Option<String>,
    /// By its engine: its name in the domain, if its host name is none there.
    #[serde(default)]
    pub engine: Option<String>,
    /// By label: in the domain, if it is one word.
    #[serde(default)]
    pub labelled: Vec<HostName>,
    /// By hand.
    #[serde(default)]
    pub given: Vec<GivenName>,
    /// Names it has not, by hand.
    #[serde(default)]
    pub removed: Vec<HostName>,
}

impl ContainerNames {
    /// True if nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Takes note of what engine and container say now.
    pub fn refresh(&mut self, said: Self) {
        (self.host, self.engine, self.labelled) = (said.host, said.engine, said.labelled);
    }

    /// Gives a name that stands for `addresses`, or for all the container has.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it has too many.
    pub fn add(&mut self, name: &HostName, addresses: &[IpAddr]) -> Result<()> {
        self.removed.retain(|removed| removed != name);
        let is_full = self.given.len() >= GIVEN_MAX;
        match self.given.iter_mut().find(|given| given.name == *name) {
            Some(given) => {
                given.and_all |= addresses.is_empty() || given.addresses.is_empty();
                given.addresses.extend(addresses);
                given.addresses.sort_unstable();
                given.addresses.dedup();
            }
            None if is_full => return Err(too_many(name, GIVEN_MAX)),
            None => {
                let addresses = addresses.to_vec();
                self.given.push(GivenName { name: name.clone(), addresses, and_all: false });
            }
        }
        Ok(())
    }

    /// Takes a name, for these addresses of all that the container has, or for all of them.
    ///
    /// # Errors
    /// [`Error::Invalid`] when too many were taken.
    pub fn remove(
        &mut self,
        name: &HostName,
        addresses: &[IpAddr],
        all: &[IpAddr],
        domain: &HostName,
    ) -> Result<()> {
        let stays: Vec<IpAddr> = self
            .addresses_of(name, all, domain)
            .into_iter()
            .filter(|address| !addresses.is_empty() && !addresses.contains(address))
            .collect();
        self.given.retain(|given| given.name != *name);
        if self.derived(domain).contains(name) {
            if self.removed.len() >= GIVEN_MAX {
                return Err(too_many(name, GIVEN_MAX));
            }
            self.removed.push(name.clone());
        }
        if !stays.is_empty() {
            self.given.push(GivenName { name: name.clone(), addresses: stays, and_all: false });
        }
        Ok(())
    }

    /// All names in the domain.
    #[must_use]
    pub fn names(&self, domain: &HostName) -> Vec<HostName> {
        let given = self.given.iter().map(|given| given.name.clone());
        let mut names: Vec<HostName> = self.derived(domain).into_iter().chain(given).collect();
        names.retain(|name| name.is_in(domain));
        names.sort();
        names.dedup();
        names
    }

    /// Those it has by itself: of its host name or the engine's name, and of labels.
    fn derived(&self, domain: &HostName) -> Vec<HostName> {
        let host = self.host.as_deref().and_then(|host| HostName::typed(host).ok());
        let host = host.filter(|host| host.is_in(domain));
        let engine = || HostName::typed(&format!("{}.{domain}", self.engine.as_deref()?)).ok();
        let mut names: Vec<HostName> = host.or_else(engine).into_iter().collect();
        names.extend(self.labelled.iter().filter_map(|name| {
            let is_word = !name.as_str().contains('.');
            if is_word { HostName::typed(&format!("{name}.{domain}")).ok() } else { Some(name.clone()) }
        }));
        names.retain(|name| !self.removed.contains(name));
        names
    }

    /// What a name stands for, of all addresses the container has.
    #[must_use]
    pub fn addresses_of(&self, name: &HostName, all: &[IpAddr], domain: &HostName) -> Vec<IpAddr> {
        let given = self.given.iter().find(|given| given.name == *name);
        let stands_for_all = given.is_some_and(|given| given.and_all || given.addresses.is_empty());
        let own = if stands_for_all || self.derived(domain).contains(name) { all } else { &[] };
        let extra = given.map_or(&[][..], |given| &given.addresses);
        own.iter().chain(extra.iter().filter(|address| !own.contains(address))).copied().collect()
    }
}

fn too_many(name: &HostName, most: usize) -> Error {
    Error::invalid(name, format!("there are {most} names already, which is the most: remove some"))
}

/// A name of an address outside the network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OutsideName {
    /// The name.
    pub name: HostName,
    /// The address.
    pub address: IpAddr,
}

impl StateFile for Vec<OutsideName> {
    const KIND: &'static str = "names";
    const VERSION: u32 = 1;
}

/// Names of addresses outside the network, locked against other commands.
#[derive(Debug)]
pub struct OutsideNames {
    directory: StateDir,
    _lock: StateLock,
    all: Vec<OutsideName>,
    aside: Option<Aside>,
}

impl OutsideNames {
    /// Reads and locks them.
    ///
    /// # Errors
    /// [`Error::State`].
    pub fn open(state_dir: &Path) -> Result<Self> {
        let directory = StateDir::create(state_dir)?;
        let lock = directory.lock()?;
        let (all, aside) = directory.read_own(OUTSIDE)?;
        Ok(Self { directory, _lock: lock, all: all.unwrap_or_default(), aside })
    }

    /// A damaged file that was set aside: to be told to the user.
    #[must_use]
    pub const fn set_aside(&self) -> Option<&Aside> {
        self.aside.as_ref()
    }

    /// Gives these addresses a name.
    ///
    /// # Errors
    /// [`Error::State`], or [`Error::Invalid`] when there are too many.
    pub fn add(&mut self, name: &HostName, addresses: &[IpAddr]) -> Result<()> {
        let new = addresses.iter().map(|address| OutsideName { name: name.clone(), address: *address });
        let mut all: Vec<OutsideName> = self.all.iter().cloned().chain(new).collect();
        all.sort();
        all.dedup();
        if all.len() > OUTSIDE_MAX {
            return Err(too_many(name, OUTSIDE_MAX));
        }
        self.put(all)
    }

    /// Takes a name from these addresses; from all, if none is named.
    ///
    /// # Errors
    /// [`Error::State`].
    pub fn remove(&mut self, name: &HostName, addresses: &[IpAddr]) -> Result<()> {
        let goes = |one: &OutsideName| {
            one.name == *name && (addresses.is_empty() || addresses.contains(&one.address))
        };
        self.put(self.all.iter().filter(|one| !goes(one)).cloned().collect())
    }

    fn put(&mut self, all: Vec<OutsideName>) -> Result<()> {
        if all == self.all {
            return Ok(());
        }
        if all.is_empty() {
            self.directory.remove(OUTSIDE)?;
        } else {
            self.directory.write(OUTSIDE, &all)?;
        }
        self.all = all;
        Ok(())
    }
}

/// A name that holds now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    /// The name.
    pub name: HostName,
    /// An address it stands for.
    pub address: IpAddr,
    /// Whose it is.
    pub holder: Holder,
}

/// Whose a name is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// A container, as it is remembered.
    Container(String),
    /// This host.
    Host,
    /// Somebody outside the network.
    Outside,
}

/// Names and networks of this host as they are now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Own {
    /// The names, sorted, each with an address once.
    pub names: Vec<Held>,
    /// The networks of containers and host.
    pub subnets: Vec<IpNet>,
    /// Addresses of the host on the network.
    pub exposed: Vec<IpAddr>,
}

/// Reads them, without the lock.
///
/// # Errors
/// [`Error::State`].
pub fn own(state_dir: &Path) -> Result<Own> {
    let settings = DnsSettings::read(state_dir)?.unwrap_or_default();
    let domain = &settings.domain;
    let mut own = Own::default();
    let (records, _) = records::read_all(state_dir)?;
    for record in records.iter().filter(|record| !settings.watch || is_here(record)) {
        own.add_container(record, domain);
    }
    for exposed in exposed::read_all(state_dir)? {
        own.subnets.push(exposed.cidr.trunc());
        own.exposed.push(exposed.cidr.addr());
        let names = exposed.names.iter().filter_map(|name| HostName::typed(name).ok());
        for name in names.filter(|name| name.is_in(domain)) {
            own.names.push(Held { name, address: exposed.cidr.addr(), holder: Holder::Host });
        }
    }
    if let Stored::Content(outside) = StateDir::existing(state_dir).read::<Vec<OutsideName>>(OUTSIDE)? {
        for one in outside.into_iter().filter(|one| one.name.is_in(domain)) {
            own.names.push(Held { name: one.name, address: one.address, holder: Holder::Outside });
        }
    }
    if let Some(cidr) = settings.cidr {
        own.subnets.push(cidr.trunc());
    }
    own.names.sort();
    own.names.dedup_by(|a, b| (&a.name, a.address) == (&b.name, b.address));
    own.subnets.sort();
    own.subnets.dedup();
    own.exposed.sort_unstable();
    Ok(own)
}

impl Own {
    fn add_container(&mut self, record: &Record, domain: &HostName) {
        self.subnets.extend(record.cidrs.iter().map(IpNet::trunc));
        let all: Vec<IpAddr> = record.cidrs.iter().map(IpNet::addr).collect();
        for name in record.names.names(domain) {
            for address in record.names.addresses_of(&name, &all, domain) {
                let holder = Holder::Container(record.container.clone());
                self.names.push(Held { name: name.clone(), address, holder });
            }
        }
    }
}

/// Whether a container runs: it has its interface.
#[must_use]
pub fn is_here(record: &Record) -> bool {
    if_nametoindex(record.host_interface().as_str()).is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn name(text: &str) -> HostName {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn called(host: &str, engine: &str) -> ContainerNames {
        ContainerNames { host: Some(host.into()), engine: Some(engine.into()), ..Default::default() }
    }

    #[test]
    fn the_engines_name_counts_where_the_host_name_is_not_in_the_domain() {
        let domain = name("weave.local");
        assert_eq!(called("Web.Weave.Local", "c1").names(&domain), [name("web.weave.local")]);
        assert_eq!(called("0a1b2c", "C1").names(&domain), [name("c1.weave.local")]);
        assert_eq!(called("web.weave.local", "c1").names(&name("foo.bar")), [name("c1.foo.bar")]);
        // No label of a name is that long.
        assert_eq!(called("0a1b2c", &"x".repeat(65)).names(&domain), Vec::<HostName>::new());
    }

    #[test]
    fn names_are_given_and_taken_for_some_addresses_or_all() {
        let domain = name("weave.local");
        let all = [ip("10.2.1.1"), ip("10.2.2.1")];
        let mut names = called("web.weave.local", "c1");
        let of = |names: &ContainerNames, text| names.addresses_of(&name(text), &all, &domain);
        names.add(&name("db.weave.local"), &[]).unwrap();
        assert_eq!(of(&names, "db.weave.local"), all);
        names.remove(&name("db.weave.local"), &[all[0]], &all, &domain).unwrap();
        assert_eq!(of(&names, "db.weave.local"), [all[1]]);
        names.add(&name("db.weave.local"), &[all[0]]).unwrap();
        assert_eq!(of(&names, "db.weave.local"), all);
        names.remove(&name("db.weave.local"), &[], &all, &domain).unwrap();
        assert_eq!(of(&names, "db.weave.local"), Vec::<IpAddr>::new());
        // Others beside those it has, in any order.
        let other = ip("192.0.2.9");
        for given in [&[&[][..], &[other]], &[&[other][..], &[]]] {
            given.iter().for_each(|given| names.add(&name("db.weave.local"), given).unwrap());
            assert_eq!(of(&names, "db.weave.local"), [&all[..], &[other]].concat());
            names.remove(&name("db.weave.local"), &[], &all, &domain).unwrap();
        }
        names.add(&name("web.weave.local"), &[other]).unwrap();
        assert_eq!(of(&names, "web.weave.local"), [&all[..], &[other]].concat());
        names.remove(&name("web.weave.local"), &[other], &all, &domain).unwrap();
        assert_eq!(of(&names, "web.weave.local"), all);
        // A name it has by itself is taken, and given back.
        names.remove(&name("web.weave.local"), &[], &all, &domain).unwrap();
        assert_eq!(names.names(&domain), Vec::<HostName>::new());
        names.add(&name("web.weave.local"), &[]).unwrap();
        assert_eq!(of(&names, "web.weave.local"), all);
    }

    #[test]
    fn outside_names_are_remembered_until_the_last_is_removed() {
        let state = tempfile::tempdir().unwrap();
        let both = [ip("192.0.2.1"), ip("2001:db8::1")];
        OutsideNames::open(state.path()).unwrap().add(&name("out.weave.local"), &both).unwrap();
        OutsideNames::open(state.path()).unwrap().add(&name("out.elsewhere"), &both).unwrap();
        let own_names = || own(state.path()).unwrap().names;
        assert_eq!(own_names().iter().map(|held| held.address).collect::<Vec<_>>(), both);
        OutsideNames::open(state.path()).unwrap().remove(&name("out.weave.local"), &both[..1]).unwrap();
        assert_eq!(own_names().len(), 1);
        OutsideNames::open(state.path()).unwrap().remove(&name("out.weave.local"), &[]).unwrap();
        OutsideNames::open(state.path()).unwrap().remove(&name("out.elsewhere"), &[]).unwrap();
        assert!(!state.path().join(OUTSIDE).exists());
    }
}
