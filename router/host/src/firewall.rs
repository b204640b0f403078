//! Rules of the host's firewall, in chains of our own.
//!
//! They let the network pass the host's own filter, keep the engine's default bridge away from it,
//! and masquerade what crosses between the network and others where the host is exposed. The
//! kernel's tables are changed by `iptables` and `ip6tables`, or by `nft` where only that is
//! installed: other programs of the host use them too, and each has its own idea of the tables.

mod guard;
mod iptables;
mod nft;
mod tool;

use std::fmt;

use ipnet::IpNet;

use crate::bridge::BRIDGE;
use crate::error::Result;
pub use guard::{Guard, GuardedPort};

/// What the rules shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// TCP and UDP port of the mesh, closed to containers.
    pub port: u16,
    /// The engine's default bridge, kept away from the network.
    pub engine_bridge: String,
    /// Other bridges of engines: kept away, too, but for answers to what the network asks there.
    pub other_bridges: Vec<String>,
    /// Where the host is exposed.
    pub exposed: Vec<ExposedNet>,
}

/// Other bridges of engines that rules are made for, at most.
const OTHER_BRIDGES_MAX: usize = 256;

/// Bridges that engines make for networks of their users, by their names: `br-` and twelve hexadecimal
/// digits (Docker), `docker_gwbridge` (Swarm), `podman` and `cni-podman` with a number (Podman). One that
/// was given another name is not known.
#[must_use]
pub fn other_bridges() -> Vec<String> {
    let interfaces = nix::net::if_::if_nameindex();
    let names = interfaces.iter().flat_map(|all| all.iter());
    let mut names: Vec<String> = names
        .filter_map(|interface| interface.name().to_str().ok())
        .filter(|name| is_of_engine(name))
        .map(str::to_owned)
        .collect();
    names.sort_unstable();
    names.truncate(OTHER_BRIDGES_MAX);
    names
}

fn is_of_engine(name: &str) -> bool {
    const DOCKER_DIGITS: usize = 12;
    let docker = name.strip_prefix("br-").is_some_and(|rest| {
        rest.len() == DOCKER_DIGITS && rest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    });
    let podman = name.strip_prefix("cni-").unwrap_or(name).strip_prefix("podman");
    docker
        || name == "docker_gwbridge"
        || podman.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A network that the host has an address on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExposedNet {
    /// The host's address and the length of the network.
    pub cidr: IpNet,
    /// What comes into it from outside and leaves it is given the host's address.
    pub masquerade: bool,
}

/// Something that works, but at a price.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Degraded {
    /// What it is called.
    pub name: &'static str,
    /// Why it is so.
    pub reason: String,
}

impl Degraded {
    /// Name of what [`Firewall::take_others`] leaves.
    pub(crate) const OTHER_RULES: &str = "other_rules";

    /// Datagrams of the mesh are not exempt from tracking while addresses are translated.
    fn tracked(why: &dyn fmt::Display) -> Self {
        let reason =
            format!("the kernel tracks datagrams of the mesh as connections, which delays them: {why}");
        Self { name: "mesh_tracked", reason }
    }

    /// Rules of ours by the program that was in use before are there yet.
    fn other_rules(firewall: Firewall, why: &dyn fmt::Display) -> Self {
        let reason = format!(
            "rules of ours that were not made by {firewall}, as those in use are, cannot be taken away and may \
             still decide: {why}: remove what leads to them"
        );
        Self { name: Self::OTHER_RULES, reason }
    }

    /// There are no rules of ours, or not all.
    #[must_use]
    pub fn no_firewall(why: &dyn fmt::Display) -> Self {
        let reason = format!(
            "{why}: the host's own filter decides about the network, the engine's bridge reaches it, and the port \
             of the mesh is open to containers"
        );
        Self { name: "no_firewall", reason }
    }

    /// No program can make rules.
    #[must_use]
    pub fn no_program() -> Self {
        Self::no_firewall(&"neither iptables nor nft is installed (apt-get install iptables)")
    }

    /// Containers are not guarded as they should be.
    #[must_use]
    pub fn no_guard(why: &dyn fmt::Display) -> Self {
        let reason = format!("containers may speak under addresses of others: {why}");
        Self { name: "no_guard", reason }
    }
}

impl fmt::Display for Degraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.reason)
    }
}

/// Families of addresses, each with tables of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Bit of a packet's mark that says that it crosses the bridge, where rules of IP see frames that are only
/// bridged (`bridge-nf-call-iptables`): such a one is nobody's to masquerade. A packet that is routed out by
/// the bridge again has the bit too, and, unlike a frame, still the interface that it came in by when
/// addresses are translated (Linux 5.7, `ip_output`). The kernel takes marks from what leaves a namespace.
const BRIDGED_MARK: &str = "0x2000000";

impl Family {
    const ALL: [Self; 2] = [Self::V4, Self::V6];

    const fn of(cidr: &IpNet) -> Self {
        match cidr {
            IpNet::V4(_) => Self::V4,
            IpNet::V6(_) => Self::V6,
        }
    }

    /// What goes to many, and is never masqueraded.
    const fn to_many(self) -> &'static [&'static str] {
        match self {
            Self::V4 => &["224.0.0.0/4", "255.255.255.255/32"],
            Self::V6 => &["ff00::/8"],
        }
    }
}

/// The program that changes the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firewall {
    /// `iptables` and `ip6tables`, of whichever kind.
    Iptables,
    /// `nft`.
    Nft,
}

impl fmt::Display for Firewall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Iptables => "iptables",
            Self::Nft => "nft",
        })
    }
}

impl Firewall {
    /// The one that this host has; `None`: neither is installed.
    #[must_use]
    pub fn find() -> Option<Self> {
        if ["iptables", "iptables-restore", "iptables-save"].into_iter().all(tool::is_installed) {
            Some(Self::Iptables)
        } else if tool::is_installed("nft") {
            Some(Self::Nft)
        } else {
            None
        }
    }

    /// Puts the rules in place of those there were, each table at once, also of those that the other
    /// program made while it was the one in use. What they lack, if anything.
    ///
    /// # Errors
    /// When the program refuses, with its words.
    pub fn apply(self, policy: &Policy) -> Result<Vec<Degraded>> {
        let tracked = match self {
            Self::Iptables => iptables::apply(policy)?,
            Self::Nft => nft::apply(policy).map(|()| None)?,
        };
        Ok(tracked.into_iter().chain(self.take_others()).collect())
    }

    /// Takes away what the other program made; what is left of it where that fails, as where a rule of
    /// somebody else's leads there.
    pub(crate) fn take_others(self) -> Option<Degraded> {
        self.remove_others().err().map(|error| Degraded::other_rules(self, &error))
    }

    /// Takes all rules of ours away.
    ///
    /// # Errors
    /// When the program refuses, with its words.
    pub fn remove(self) -> Result<()> {
        let removed = match self {
            Self::Iptables => iptables::remove(),
            Self::Nft => nft::remove(),
        };
        removed.and(self.remove_others())
    }

    /// Takes away what other programs made, iptables of the kind that is not in use among them, as far as
    /// what is installed can: the chains of iptables of the older kind are out of reach without it.
    fn remove_others(self) -> Result<()> {
        let others = match self {
            Self::Iptables => nft::remove_if_there(),
            Self::Nft => nft::remove_chains(iptables::CHAINS),
        };
        others.and(iptables::remove_other_kinds())
    }

    /// The rules of ours as the kernel has them: when this changes, somebody else changed them.
    ///
    /// # Errors
    /// When the program refuses, with its words.
    pub fn snapshot(self) -> Result<String> {
        match self {
            Self::Iptables => iptables::snapshot(),
            Self::Nft => nft::snapshot(),
        }
    }
}

impl Policy {
    /// The bridges of engines beside the default one.
    fn others(&self) -> impl Iterator<Item = &str> {
        self.other_bridges.iter().map(String::as_str).filter(|other| *other != self.engine_bridge)
    }

    /// All bridges of engines.
    fn bridges(&self) -> impl Iterator<Item = &str> {
        [self.engine_bridge.as_str()].into_iter().chain(self.others())
    }

    fn exposed(&self, family: Family) -> impl Iterator<Item = &ExposedNet> {
        self.exposed.iter().filter(move |exposed| Family::of(&exposed.cidr) == family)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bridges_of_engines_are_known_by_their_names_and_others_are_not() {
        for name in ["br-0a1b2c3d4e5f", "docker_gwbridge", "podman0", "podman12", "cni-podman0"] {
            assert!(is_of_engine(name), "{name}");
        }
        for name in ["br0", "br-lan", "br-0a1b2c3d4e5", "br-0a1b2c3d4e5f0", "podman", "cni-podman", "virbr0"]
        {
            assert!(!is_of_engine(name), "{name}");
        }
    }
}
