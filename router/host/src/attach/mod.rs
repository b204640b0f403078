//! Attachments: the pair of interfaces that joins a container to the bridge,
//! and its addresses.
//!
//! The container's end is [`CONTAINER_INTERFACE`]; the host's end is a port of
//! the bridge, named after the namespace ([`host_interface`]), so that there
//! is one attachment for each namespace and each can be found again from it.

mod announce;
mod detach;
mod inspect;
mod pair;
mod probe;

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use weave_wire::MacAddr;

use crate::address::check_cidrs;
use crate::bridge;
use crate::error::{Error, Result};
use crate::mtu::{DEFAULT_MTU, IPV6_MTU_MIN, check_mtu};
use crate::namespace::Namespace;
use crate::netlink::{Link, Netlink};
use crate::protect;
use inspect::State;
use pair::Pair;

pub(crate) use announce::announce_on;
pub use detach::{Detached, detach, detach_all};
pub use inspect::{Attached, attached};
pub use pair::{HOST_INTERFACE_PREFIX, host_interface, is_host_interface};
pub(crate) use probe::probe_on;
pub use probe::{Holder, PROBE_WAIT, probe};

/// Name of the interface inside the container.
pub const CONTAINER_INTERFACE: &str = "ethwe";

/// How to attach.
#[derive(Debug, Clone, Default)]
pub struct AttachOptions {
    /// MAC of the container's end: that of an earlier attachment. If none: an attachment keeps its own,
    /// a new one has a random one.
    pub mac: Option<MacAddr>,
    /// MTU of both ends, bytes. If none: an attachment keeps its own, a new
    /// one takes that of the bridge, a new bridge [`DEFAULT_MTU`].
    pub mtu: Option<u32>,
    /// Ask the network for each new address and wait this long for a holder
    /// to object, usually [`PROBE_WAIT`]; zero: it was asked already. Not asked if none; one of the
    /// host's own interfaces may have it then, too.
    pub probe: Option<Duration>,
}

/// What [`attach`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// MAC of the container's end.
    pub mac: MacAddr,
    /// The host's end.
    pub host_interface: String,
    /// The interfaces were made now.
    pub is_new: bool,
    /// Addresses that were not there before, in the order given.
    pub added: Vec<IpNet>,
}

/// Gives the container in `namespace` these addresses on the network, making
/// the bridge and the interfaces as needed. What is there already is no error.
/// When a step fails, what was made before it is taken back.
///
/// # Errors
/// [`Error::OwnNamespace`] for the host itself, [`Error::Invalid`] for bad
/// addresses or MTU, [`Error::AddressInUse`] when another interface of the
/// container or, if asked, a station of the network holds an address,
/// [`Error::NameTaken`] when the container has another interface called
/// `ethwe`, otherwise what the kernel refuses.
pub fn attach(
    host: &mut Netlink,
    namespace: &Namespace,
    cidrs: &[IpNet],
    options: &AttachOptions,
) -> Result<Attachment> {
    attach_and(host, namespace, cidrs, options, |_| Ok(()))
}

/// [`attach`], of which `then` is the last step: when that fails, all is taken back.
///
/// # Errors
/// As [`attach`], and those of `then`.
pub(crate) fn attach_and(
    host: &mut Netlink,
    namespace: &Namespace,
    cidrs: &[IpNet],
    options: &AttachOptions,
    then: impl FnOnce(&Attachment) -> Result<()>,
) -> Result<Attachment> {
    namespace.refuse_own()?;
    let cidrs = check_cidrs(cidrs)?;
    let wants_ipv6 = cidrs.iter().any(|cidr| cidr.addr().is_ipv6());
    if let Some(mtu) = options.mtu {
        check_mtu(mtu)?;
    }
    let mut inside = Netlink::in_namespace(namespace)?;
    let state = State::read(host, &mut inside, namespace)?;
    let new = state.missing(&cidrs)?;

    let bridge = host.link(bridge::BRIDGE)?;
    let old_mtu = state.pair.as_ref().map(|pair| pair.inner.mtu);
    let bridge_mtu = bridge::mtu_of(bridge.as_ref());
    let mtu = choose_mtu(options, old_mtu, bridge_mtu);
    if wants_ipv6 && mtu < IPV6_MTU_MIN {
        return Err(Error::invalid(
            format!("MTU {mtu}"),
            format!("too small for an IPv6 address: at least {IPV6_MTU_MIN} is needed"),
        ));
    }
    let made_bridge = bridge.is_none();
    let bridge = bridge::ensure(host, bridge_mtu.unwrap_or(mtu))?;
    let plan = Plan { namespace, bridge: &bridge, mtu, cidrs: &cidrs, new: &new, options };
    plan.carry_out(host, &mut inside, state.pair, then)
        .map_err(|error| if made_bridge { error.after_undo(bridge::remove(host)) } else { error })
}

/// MTU of both ends, bytes, of an attachment and a bridge that have these.
pub(crate) fn choose_mtu(options: &AttachOptions, old: Option<u32>, bridge: Option<u32>) -> u32 {
    options.mtu.or(old).or(bridge).unwrap_or(DEFAULT_MTU)
}

/// An attachment that has passed all checks that need no change.
struct Plan<'a> {
    namespace: &'a Namespace,
    bridge: &'a Link,
    mtu: u32,
    cidrs: &'a [IpNet],
    new: &'a [IpNet],
    options: &'a AttachOptions,
}

impl Plan<'_> {
    fn carry_out(
        self,
        host: &mut Netlink,
        inside: &mut Netlink,
        pair: Option<Pair>,
        then: impl FnOnce(&Attachment) -> Result<()>,
    ) -> Result<Attachment> {
        let before = match &pair {
            Some(pair) => Some(Before {
                outer_mtu: pair.outer.mtu,
                inner_mtu: pair.inner.mtu,
                ipv6: self.namespace.run(|| protect::has_ipv6(CONTAINER_INTERFACE))?,
            }),
            None => None,
        };
        let pair = match (pair, before) {
            (Some(pair), Some(before)) => {
                let repaired = pair.clone().repair(host, inside, self.bridge, self.options.mac, self.mtu);
                repaired.map_err(|error| {
                    error.after_undo(take_back(self.namespace, host, inside, &pair, &[], before))
                })?
            }
            _ => pair::create(host, inside, self.namespace, self.bridge, self.options.mac, self.mtu)?,
        };
        let mut added = Vec::with_capacity(self.new.len());
        let mut finish = |added: &mut Vec<IpNet>| {
            self.configure(inside, &pair, added)?;
            announce::announce(self.namespace, &pair.inner, &addresses(self.cidrs))?;
            pair.mac()
        };
        let finished = finish(&mut added).and_then(|mac| {
            let host_interface = pair.outer.name.clone();
            let attachment =
                Attachment { mac, host_interface, is_new: before.is_none(), added: added.clone() };
            then(&attachment).map(|()| attachment)
        });
        match finished {
            Ok(attachment) => Ok(attachment),
            Err(error) => Err(error.after_undo(match before {
                Some(before) => take_back(self.namespace, host, inside, &pair, &added, before),
                None => host.delete_link(&pair.outer),
            })),
        }
    }

    /// Everything inside the container, once both ends are up.
    fn configure(&self, inside: &mut Netlink, pair: &Pair, added: &mut Vec<IpNet>) -> Result<()> {
        if let Some(wait) = self.options.probe.filter(|wait| !wait.is_zero())
            && let Some(holder) = probe::probe(self.namespace, &addresses(self.new), wait)?.into_iter().next()
        {
            let Holder { address, mac } = holder;
            return Err(Error::AddressInUse { address, holder: format!("station {mac}") });
        }
        if self.new.iter().any(|cidr| cidr.addr().is_ipv6()) {
            self.namespace.run(|| protect::allow_ipv6(CONTAINER_INTERFACE))??;
        }
        for cidr in self.new {
            if inside.add_address(pair.inner.index, *cidr)? {
                added.push(*cidr);
            }
        }
        pair::add_multicast_routes(inside, self.namespace, pair.inner.index)
    }
}

/// Leaves an attachment with the addresses and settings it had `before`; the first step that fails
/// keeps none of the others from being done.
fn take_back(
    namespace: &Namespace,
    host: &mut Netlink,
    inside: &mut Netlink,
    pair: &Pair,
    added: &[IpNet],
    before: Before,
) -> Result<()> {
    let mut done: Vec<Result<()>> = Vec::new();
    done.extend(added.iter().rev().map(|cidr| inside.delete_address(pair.inner.index, *cidr).map(drop)));
    if !before.ipv6 {
        let refused = namespace.run(|| protect::refuse_ipv6(CONTAINER_INTERFACE));
        done.push(refused.and_then(|refused| refused));
    }
    done.push(inside.set_mtu(&pair.inner, before.inner_mtu));
    done.push(host.set_mtu(&pair.outer, before.outer_mtu));
    done.into_iter().collect()
}

/// What an attachment was like: MTU of each end of the pair, bytes, and whether the container's has
/// IPv6.
#[derive(Debug, Clone, Copy)]
struct Before {
    outer_mtu: u32,
    inner_mtu: u32,
    ipv6: bool,
}

fn addresses(cidrs: &[IpNet]) -> Vec<IpAddr> {
    cidrs.iter().map(IpNet::addr).collect()
}
