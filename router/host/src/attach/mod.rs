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
use crate::netlink::Netlink;
use crate::protect;
use inspect::State;

pub use detach::{Detached, detach, detach_all};
pub use inspect::{Attached, attached};
pub use pair::{HOST_INTERFACE_PREFIX, host_interface, is_host_interface};
pub use probe::{Holder, PROBE_WAIT, probe};

/// Name of the interface inside the container.
pub const CONTAINER_INTERFACE: &str = "ethwe";

/// How to attach.
#[derive(Debug, Clone, Default)]
pub struct AttachOptions {
    /// MAC of the container's end, if it is made now: that of an earlier
    /// attachment. Random if none.
    pub mac: Option<MacAddr>,
    /// MTU of both ends, bytes. If none: an attachment keeps its own, a new
    /// one takes that of the bridge, a new bridge [`DEFAULT_MTU`].
    pub mtu: Option<u32>,
    /// Ask the network for each new address and wait this long for a holder
    /// to object, usually [`PROBE_WAIT`]. Not asked if none.
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
    namespace.refuse_own()?;
    let cidrs = check_cidrs(cidrs)?;
    let wants_ipv6 = cidrs.iter().any(|cidr| cidr.addr().is_ipv6());
    if let Some(mtu) = options.mtu {
        check_mtu(mtu)?;
    }
    let mut inside = Netlink::in_namespace(namespace)?;
    let state = State::read(host, &mut inside, namespace)?;
    let new = state.missing(&cidrs)?;

    let bridge = match host.link(bridge::BRIDGE)? {
        Some(link) if link.kind == "bridge" && link.up => link,
        Some(link) => bridge::ensure(host, link.mtu)?,
        None => bridge::ensure(host, options.mtu.unwrap_or(DEFAULT_MTU))?,
    };
    let old_mtu = state.pair.as_ref().map(|pair| pair.inner.mtu);
    let mtu = options.mtu.or(old_mtu).unwrap_or(bridge.mtu);
    if wants_ipv6 && mtu < IPV6_MTU_MIN {
        return Err(Error::invalid(
            format!("MTU {mtu}"),
            format!("too small for an IPv6 address: at least {IPV6_MTU_MIN} is needed"),
        ));
    }
    let is_new = state.pair.is_none();
    let pair = match state.pair {
        Some(pair) => pair.repair(host, &mut inside, &bridge, mtu)?,
        None => pair::create(host, &mut inside, namespace, &bridge, options.mac, mtu)?,
    };
    let mut added = Vec::with_capacity(new.len());
    let finished = configure(&mut inside, namespace, &pair, &new, options.probe, &mut added)
        .and_then(|()| announce::announce(namespace, &pair.inner, &addresses(&cidrs)));
    match finished {
        Ok(()) => Ok(Attachment { mac: pair.mac()?, host_interface: pair.outer.name, is_new, added }),
        Err(error) if is_new => Err(error.after_undo(host.delete_link(&pair.outer))),
        Err(error) => Err(error.after_undo(take_back(&mut inside, &pair, &added))),
    }
}

/// Everything inside the container, once both ends are up.
fn configure(
    inside: &mut Netlink,
    namespace: &Namespace,
    pair: &pair::Pair,
    new: &[IpNet],
    wait: Option<Duration>,
    added: &mut Vec<IpNet>,
) -> Result<()> {
    if let Some(wait) = wait
        && let Some(holder) = probe::probe(namespace, &addresses(new), wait)?.into_iter().next()
    {
        return Err(Error::AddressInUse {
            address: holder.address,
            holder: format!("station {}", holder.mac),
        });
    }
    if new.iter().any(|cidr| cidr.addr().is_ipv6()) {
        namespace.run(|| protect::allow_ipv6(CONTAINER_INTERFACE))??;
    }
    for cidr in new {
        if inside.add_address(pair.inner.index, *cidr)? {
            added.push(*cidr);
        }
    }
    pair::add_multicast_routes(inside, namespace, pair.inner.index)
}

fn take_back(inside: &mut Netlink, pair: &pair::Pair, added: &[IpNet]) -> Result<()> {
    for cidr in added.iter().rev() {
        inside.delete_address(pair.inner.index, *cidr)?;
    }
    Ok(())
}

fn addresses(cidrs: &[IpNet]) -> Vec<IpAddr> {
    cidrs.iter().map(IpNet::addr).collect()
}
