//! All names: what they stand for, and what stands for an address.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use weave_api::names::Says;
use weave_wire::HostName;

/// Addresses of one name that are answered, at most.
pub(crate) const ADDRESSES_MAX: usize = 64;
/// Names of other hosts, at most: as many as a router holds.
const NAMES_MAX: usize = 131_072;

/// What is said of a name.
#[derive(Debug, Default)]
struct Entry {
    /// By this host.
    own: Vec<IpAddr>,
    /// By all others, as the router tells.
    others: Vec<IpAddr>,
    /// The router told it before it was lost, and has not again.
    stale: bool,
}

impl Entry {
    /// Each address once.
    fn addresses(&self) -> Vec<IpAddr> {
        let mut addresses = self.own.clone();
        addresses.extend(self.others.iter().filter(|address| !self.own.contains(address)));
        addresses
    }

    fn is_empty(&self) -> bool {
        self.own.is_empty() && self.others.is_empty()
    }
}

/// What a name is here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It stands for these, each once.
    Addresses(Vec<IpAddr>),
    /// It stands for nothing itself, but is the domain of names that do, or the domain itself.
    Domain,
    /// Nobody says anything of it.
    Nothing,
}

/// The names of a domain.
#[derive(Debug)]
pub(crate) struct Zone {
    domain: HostName,
    names: HashMap<HostName, Entry>,
    /// What stands for an address.
    reverse: HashMap<IpAddr, Vec<HostName>>,
    /// How many names are inside a name, not counting those of one label in the domain.
    inside: HashMap<String, usize>,
    own: Vec<HostName>,
    entries: usize,
}

impl Zone {
    pub(crate) fn new(domain: HostName) -> Self {
        Self {
            domain,
            names: HashMap::new(),
            reverse: HashMap::new(),
            inside: HashMap::new(),
            own: Vec::new(),
            entries: 0,
        }
    }

    /// The domain.
    pub(crate) const fn domain(&self) -> &HostName {
        &self.domain
    }

    /// Names, and addresses they stand for.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.names.len(), self.entries)
    }

    /// True if `name` is the domain or in it.
    pub(crate) fn holds(&self, name: &str) -> bool {
        let rest = name.strip_suffix(self.domain.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }

    /// What is known of a name, which is in lower case and without a dot at its end.
    pub(crate) fn find(&self, name: &str) -> Found {
        if let Some(entry) = self.names.get(name) {
            return Found::Addresses(entry.addresses());
        }
        if name == self.domain.as_str() || self.inside.contains_key(name) {
            return Found::Domain;
        }
        Found::Nothing
    }

    /// What stands for an address.
    pub(crate) fn names_of(&self, address: &IpAddr) -> &[HostName] {
        self.reverse.get(address).map_or(&[], Vec::as_slice)
    }

    /// The names of this host are these from now on.
    pub(crate) fn set_own(&mut self, names: impl IntoIterator<Item = (HostName, IpAddr)>) {
        let mut new: BTreeMap<HostName, Vec<IpAddr>> = BTreeMap::new();
        for (name, address) in names {
            new.entry(name).or_default().push(address);
        }
        let gone: Vec<HostName> = self.own.iter().filter(|name| !new.contains_key(*name)).cloned().collect();
        for name in gone {
            self.change(&name, |entry| entry.own.clear());
        }
        self.own = new.keys().filter(|name| name.is_in(&self.domain)).cloned().collect();
        for (name, addresses) in new {
            self.change(&name, |entry| entry.own = addresses);
        }
    }

    /// Others say this of names from now on.
    pub(crate) fn set_others(&mut self, names: impl IntoIterator<Item = (HostName, Vec<Says>)>) {
        for (name, says) in names {
            let mut addresses: Vec<IpAddr> = says.into_iter().map(|says| says.address).collect();
            addresses.sort_unstable();
            addresses.dedup();
            self.change(&name, |entry| {
                entry.others = addresses;
                entry.stale = false;
            });
        }
    }

    /// The router is another run: what it says holds, the rest until [`Self::drop_stale`].
    pub(crate) fn mark_stale(&mut self) {
        self.names.values_mut().for_each(|entry| entry.stale = !entry.others.is_empty());
    }

    /// Forgets what the router has not said again.
    pub(crate) fn drop_stale(&mut self) {
        let stale = self.names.iter().filter(|(_, entry)| entry.stale);
        for name in stale.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.change(&name, |entry| {
                entry.others.clear();
                entry.stale = false;
            });
        }
    }

    fn change(&mut self, name: &HostName, change: impl FnOnce(&mut Entry)) {
        if !name.is_in(&self.domain) || (self.names.len() >= NAMES_MAX && !self.names.contains_key(name)) {
            return;
        }
        let is_new = !self.names.contains_key(name);
        let entry = self.names.entry(name.clone()).or_default();
        let before = entry.addresses();
        change(entry);
        let after = entry.addresses();
        if entry.is_empty() {
            self.names.remove(name);
        }
        if before == after {
            return;
        }
        for address in before.iter().filter(|address| !after.contains(address)) {
            if let Some(names) = self.reverse.get_mut(address) {
                names.retain(|known| known != name);
                if names.is_empty() {
                    self.reverse.remove(address);
                }
            }
        }
        for address in after.iter().filter(|address| !before.contains(address)) {
            self.reverse.entry(*address).or_default().push(name.clone());
        }
        self.entries = (self.entries + after.len()).saturating_sub(before.len());
        if is_new && !after.is_empty() {
            self.count_parents(name, |count| *count += 1);
        } else if after.is_empty() && !is_new {
            self.count_parents(name, |count| *count = count.saturating_sub(1));
        }
    }

    /// The names between this one and the domain.
    fn count_parents(&mut self, name: &HostName, count: impl Fn(&mut usize)) {
        let mut rest = name.as_str();
        while let Some((_, parent)) = rest.split_once('.') {
            if parent.len() <= self.domain.as_str().len() {
                return;
            }
            let number = self.inside.entry(parent.to_owned()).or_default();
            count(number);
            if *number == 0 {
                self.inside.remove(parent);
            }
            rest = parent;
        }
    }
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

    fn says(address: &str) -> Says {
        Says {
            origin: "02:00:00:00:00:01".parse().unwrap(),
            address: ip(address),
            container: Default::default(),
        }
    }

    fn addresses(zone: &Zone, name: &str) -> Vec<IpAddr> {
        let Found::Addresses(addresses) = zone.find(name) else { return Vec::new() };
        addresses
    }

    fn zone() -> Zone {
        Zone::new(HostName::weave_local())
    }

    #[test]
    fn own_names_and_those_of_others_are_answered_together() {
        let mut zone = zone();
        zone.set_own([(name("a.weave.local"), ip("10.2.1.1"))]);
        zone.set_others([(name("a.weave.local"), vec![says("10.2.1.2"), says("10.2.1.1")])]);
        assert_eq!(addresses(&zone, "a.weave.local"), [ip("10.2.1.1"), ip("10.2.1.2")]);
        zone.set_own([]);
        assert_eq!(addresses(&zone, "a.weave.local"), [ip("10.2.1.1"), ip("10.2.1.2")]);
        zone.set_others([(name("a.weave.local"), Vec::new())]);
        assert_eq!(zone.find("a.weave.local"), Found::Nothing);
        assert_eq!(zone.size(), (0, 0));
        assert!(zone.reverse.is_empty() && zone.inside.is_empty());
    }

    #[test]
    fn an_address_has_the_names_that_stand_for_it_now() {
        let mut zone = zone();
        for host in ["a", "b", "c"] {
            zone.set_own([(name(&format!("{host}.weave.local")), ip("10.2.1.1"))]);
            assert_eq!(zone.names_of(&ip("10.2.1.1")), [name(&format!("{host}.weave.local"))]);
        }
        zone.set_own([]);
        assert_eq!(zone.names_of(&ip("10.2.1.1")), []);
    }

    #[test]
    fn what_a_new_router_does_not_say_again_is_forgotten_later() {
        let mut zone = zone();
        zone.set_others(
            ["a", "b"].map(|host| (name(&format!("{host}.weave.local")), vec![says("10.2.1.1")])),
        );
        zone.set_own([(name("b.weave.local"), ip("10.2.1.9"))]);
        zone.mark_stale();
        zone.set_others([(name("a.weave.local"), vec![says("10.2.1.1")])]);
        assert_eq!(addresses(&zone, "b.weave.local").len(), 2);
        zone.drop_stale();
        assert_eq!(addresses(&zone, "a.weave.local"), [ip("10.2.1.1")]);
        assert_eq!(addresses(&zone, "b.weave.local"), [ip("10.2.1.9")]);
    }

    #[test]
    fn names_outside_the_domain_are_not_taken() {
        let mut zone = zone();
        zone.set_own([(name("a.elsewhere"), ip("10.2.1.1"))]);
        zone.set_others([(name("weave.local"), vec![says("10.2.1.1")])]);
        assert_eq!(zone.size(), (0, 0));
        assert!(zone.holds("weave.local") && zone.holds("a.weave.local") && !zone.holds("aweave.local"));
    }

    #[test]
    fn the_domains_of_names_exist() {
        let mut zone = zone();
        zone.set_own([
            (name("a.b.c.weave.local"), ip("10.2.1.1")),
            (name("d.c.weave.local"), ip("10.2.1.1")),
        ]);
        for domain in ["b.c.weave.local", "c.weave.local", "weave.local"] {
            assert_eq!(zone.find(domain), Found::Domain, "{domain}");
        }
        zone.set_own([(name("d.c.weave.local"), ip("10.2.1.1"))]);
        assert_eq!(zone.find("b.c.weave.local"), Found::Nothing);
        assert_eq!(zone.find("c.weave.local"), Found::Domain);
    }
}
