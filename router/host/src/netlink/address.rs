//! Addresses of interfaces.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};

use super::{Netlink, collect, is_absent, is_present};
use crate::error::{Error, Result};

/// An address as the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// Index of the interface.
    pub index: u32,
    /// Address with the length of its prefix.
    pub cidr: IpNet,
    /// Valid on one link only: `fe80::/64` and the like.
    pub link_local: bool,
    /// Stays until it is taken away: not one that a router advertisement or a lease gave for a time.
    pub permanent: bool,
    /// Cannot be used yet, or never (duplicate address detection).
    pub tentative: bool,
}

impl Netlink {
    /// Addresses of all interfaces, in the order the kernel keeps them.
    ///
    /// # Errors
    /// When the kernel refuses or does not answer.
    pub fn addresses(&mut self) -> Result<Vec<InterfaceAddress>> {
        let request = self.handle.address().get().execute();
        let messages = self.call("list", "addresses", collect(request))?;
        Ok(messages.iter().filter_map(InterfaceAddress::from_message).collect())
    }

    /// Refuses addresses that this host has itself, but on interface `except`.
    ///
    /// # Errors
    /// [`Error::AddressInUse`]; when the kernel does not list them.
    pub fn refuse_own(&mut self, addresses: &[IpAddr], except: Option<u32>) -> Result<()> {
        if addresses.is_empty() {
            return Ok(());
        }
        let is_taken =
            |held: &InterfaceAddress| Some(held.index) != except && addresses.contains(&held.cidr.addr());
        let Some(held) = self.addresses()?.into_iter().find(is_taken) else { return Ok(()) };
        let interface = self.links()?.into_iter().find(|link| link.index == held.index);
        let name = interface.map_or_else(|| held.index.to_string(), |link| link.name);
        let holder = format!("interface {name} of this host");
        Err(Error::AddressInUse { address: held.cidr.addr(), holder })
    }

    /// Adds an address; whether it was new. IPv6 addresses are usable at once:
    /// no duplicate address detection by the kernel, which takes a second.
    ///
    /// # Errors
    /// When the kernel refuses, for example IPv6 on an interface where it is off.
    pub fn add_address(&mut self, index: u32, cidr: IpNet) -> Result<bool> {
        let mut request = self.handle.address().add(index, cidr.addr(), cidr.prefix_len());
        if cidr.addr().is_ipv6() {
            let message = request.message_mut();
            message.header.flags |= AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        match self.call("add address", cidr, request.execute()) {
            Ok(()) => {
                if let IpAddr::V6(address) = cidr.addr() {
                    self.await_local(address);
                }
                Ok(true)
            }
            Err(error) if is_present(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes an address; whether it was there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete_address(&mut self, index: u32, cidr: IpNet) -> Result<bool> {
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.header.prefix_len = cidr.prefix_len();
        message.header.family = match cidr {
            IpNet::V4(_) => AddressFamily::Inet,
            IpNet::V6(_) => AddressFamily::Inet6,
        };
        message.attributes.push(AddressAttribute::Local(cidr.addr()));
        message.attributes.push(AddressAttribute::Address(cidr.addr()));
        let request = self.handle.address().del(message).execute();
        match self.call("remove address", cidr, request) {
            Ok(()) => Ok(true),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl InterfaceAddress {
    // The kernel's attributes are an open set: what is not asked for is passed over.
    #[allow(clippy::wildcard_enum_match_arm)]
    pub(super) fn from_message(message: &AddressMessage) -> Option<Self> {
        let mut address: Option<IpAddr> = None;
        let mut local: Option<IpAddr> = None;
        let mut tentative = false;
        let mut permanent = message.header.flags.contains(AddressHeaderFlags::Permanent);
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Address(ip) => address = Some(*ip),
                // With a point-to-point address, ADDRESS is the other end.
                AddressAttribute::Local(ip) => local = Some(*ip),
                AddressAttribute::Flags(flags) => {
                    tentative = flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed);
                    permanent = flags.contains(AddressFlags::Permanent);
                }
                _ => {}
            }
        }
        Some(Self {
            index: message.header.index,
            cidr: IpNet::new(local.or(address)?, message.header.prefix_len).ok()?,
            link_local: message.header.scope == AddressScope::Link,
            permanent,
            tentative,
        })
    }
}
