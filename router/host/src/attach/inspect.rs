//! What an attachment looks like in the kernel now.

use ipnet::IpNet;
use weave_wire::MacAddr;

use super::CONTAINER_INTERFACE;
use super::pair::{Pair, host_interface};
use crate::bridge::describe;
use crate::error::{Error, Result};
use crate::namespace::Namespace;
use crate::netlink::{InterfaceAddress, Link, Netlink};

/// A container on the network, as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// MAC of the container's end.
    pub mac: MacAddr,
    /// MTU, bytes.
    pub mtu: u32,
    /// Its addresses but link-local ones and those that others gave it for a time, in the kernel's order
    /// (not that of attachment).
    pub cidrs: Vec<IpNet>,
}

/// The attachment of a namespace; `None` when it is not attached, or `ethwe` is not ours.
///
/// # Errors
/// When the namespace cannot be entered or the kernel refuses.
pub fn attached(host: &mut Netlink, namespace: &Namespace) -> Result<Option<Attached>> {
    let mut inside = Netlink::in_namespace(namespace)?;
    let state = match State::read(host, &mut inside, namespace) {
        Ok(state) => state,
        Err(Error::NameTaken { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(pair) = &state.pair else { return Ok(None) };
    Ok(Some(Attached { mac: pair.mac()?, mtu: pair.inner.mtu, cidrs: state.cidrs() }))
}

/// The interfaces and addresses of a container.
pub(super) struct State {
    pub pair: Option<Pair>,
    /// The pair, if somebody renamed the container's end: of no use, and taken away with the rest.
    pub renamed: Option<Pair>,
    addresses: Vec<InterfaceAddress>,
}

impl State {
    /// # Errors
    /// [`Error::NameTaken`] when `ethwe` is not the other end of our interface.
    pub(super) fn read(host: &mut Netlink, inside: &mut Netlink, namespace: &Namespace) -> Result<Self> {
        let outer = host.link(&host_interface(namespace.id()))?;
        let inner = inside.link(CONTAINER_INTERFACE)?;
        let addresses = inside.addresses()?;
        let is_pair = |outer: &Link, inner: &Link| {
            outer.kind == "veth"
                && inner.kind == "veth"
                && outer.peer == Some(inner.index)
                && inner.peer == Some(outer.index)
        };
        let pair = match (outer, inner) {
            (Some(outer), Some(inner)) if is_pair(&outer, &inner) => Some(Pair { outer, inner }),
            (Some(outer), inner) => {
                let renamed = inside.links()?.into_iter().find(|link| is_pair(&outer, link));
                let renamed = renamed.map(|inner| Pair { outer, inner });
                if let Some(inner) = inner.filter(|_| renamed.is_none()) {
                    return Err(Error::NameTaken {
                        interface: format!("{} of {}", inner.name, namespace.label()),
                        found: describe(&inner.kind),
                    });
                }
                return Ok(Self { pair: None, renamed, addresses });
            }
            (None, Some(inner)) => {
                return Err(Error::NameTaken {
                    interface: format!("{} of {}", inner.name, namespace.label()),
                    found: describe(&inner.kind),
                });
            }
            (None, None) => None,
        };
        Ok(Self { pair, renamed: None, addresses })
    }

    /// Addresses of `ethwe`, however it is called by now, but link-local ones the kernel gave it, and those
    /// that it made of a router advertisement, or has by a lease.
    pub(super) fn cidrs(&self) -> Vec<IpNet> {
        let Some(pair) = self.pair.as_ref().or(self.renamed.as_ref()) else { return Vec::new() };
        self.addresses
            .iter()
            .filter(|address| address.index == pair.inner.index && !address.link_local && address.permanent)
            .map(|address| address.cidr)
            .collect()
    }

    /// Which of `wanted` are still to be added.
    ///
    /// # Errors
    /// [`Error::AddressInUse`] when another interface has one of them,
    /// [`Error::Invalid`] when `ethwe` has it with another prefix.
    pub(super) fn missing(&self, wanted: &[IpNet]) -> Result<Vec<IpNet>> {
        let ours = self.pair.as_ref().map(|pair| pair.inner.index);
        // That is made anew.
        let stale = self.renamed.as_ref().map(|pair| pair.inner.index);
        let held = |address: &&InterfaceAddress| Some(address.index) != stale;
        let mut missing = Vec::with_capacity(wanted.len());
        for cidr in wanted {
            let mut held = self.addresses.iter().filter(held);
            match held.find(|address| address.cidr.addr() == cidr.addr()) {
                None => missing.push(*cidr),
                Some(present) if Some(present.index) == ours && present.cidr == *cidr => {}
                Some(present) if Some(present.index) == ours => {
                    let reason = format!("is attached as {}: detach that first", present.cidr);
                    return Err(Error::invalid(cidr, reason));
                }
                Some(_) => {
                    return Err(Error::AddressInUse {
                        address: cidr.addr(),
                        holder: "another interface of this container".to_owned(),
                    });
                }
            }
        }
        Ok(missing)
    }
}
