//! The veth pair of an attachment.

use std::time::Duration;

use netlink_packet_route::route::{RouteHeader, RouteType};
use weave_wire::MacAddr;

use super::CONTAINER_INTERFACE;
use crate::bridge::random_mac;
use crate::error::{Error, Result};
use crate::namespace::{Namespace, NamespaceId};
use crate::netlink::{InterfaceRoute, Link, LinkWatch, Netlink, VethEnd, await_running};
use crate::protect;

/// How the names of all host ends begin; the inode of the namespace follows, hexadecimal.
pub const HOST_INTERFACE_PREFIX: &str = "vethw";

/// Digits of an inode of the namespace file system, which are of 32 bits.
const INODE_DIGITS: usize = 8;

/// How long the kernel may take to notice the carrier; a few milliseconds are usual.
const CARRIER_LIMIT: Duration = Duration::from_secs(3);

/// Metric of our IPv6 multicast route: before the kernel's own of every
/// interface (256), among which the oldest interface would win.
const MULTICAST_METRIC: u32 = 128;

/// Name of the host's end of the attachment of a namespace.
#[must_use]
pub fn host_interface(namespace: NamespaceId) -> String {
    // Inodes of namespaces have 32 bits; the mask only makes sure that the name fits.
    format!("{HOST_INTERFACE_PREFIX}{:08x}", namespace.inode & 0xffff_ffff)
}

/// Whether an interface of this name is the host's end of an attachment.
#[must_use]
pub fn is_host_interface(name: &str) -> bool {
    name.strip_prefix(HOST_INTERFACE_PREFIX).is_some_and(|digits| {
        digits.len() == INODE_DIGITS && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// Both ends of an attachment.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    /// The host's end, in the bridge.
    pub outer: Link,
    /// The container's end.
    pub inner: Link,
}

impl Pair {
    pub(super) fn mac(&self) -> Result<MacAddr> {
        self.inner.mac.ok_or_else(|| Error::NameTaken {
            interface: self.inner.name.clone(),
            found: "without a MAC".to_owned(),
        })
    }

    /// Puts right what somebody changed on an attachment that exists.
    pub(super) fn repair(
        mut self,
        host: &mut Netlink,
        inside: &mut Netlink,
        bridge: &Link,
        mac: Option<MacAddr>,
        mtu: u32,
    ) -> Result<Self> {
        protect::protect(&self.outer.name)?;
        if let Some(mac) = mac.filter(|mac| self.inner.mac != Some(*mac)) {
            inside.set_mac(&self.inner, mac)?;
        }
        if self.outer.mtu != mtu {
            host.set_mtu(&self.outer, mtu)?;
        }
        if self.inner.mtu != mtu {
            inside.set_mtu(&self.inner, mtu)?;
        }
        if self.outer.controller != Some(bridge.index) {
            host.set_controller(&self.outer, bridge.index)?;
        }
        self.switch_on(host, inside)?;
        Ok(self)
    }

    /// Switches both ends on and waits until frames sent now arrive.
    fn switch_on(&mut self, host: &mut Netlink, inside: &mut Netlink) -> Result<()> {
        let watch = LinkWatch::open()?;
        // The host's end first: the other then has its carrier from the start.
        if !self.outer.up {
            host.set_up(&self.outer)?;
        }
        if !self.inner.up {
            inside.set_up(&self.inner)?;
        }
        self.outer = await_running(host, &watch, &self.outer.name, CARRIER_LIMIT)?;
        self.inner = inside.expect_link(CONTAINER_INTERFACE)?;
        Ok(())
    }
}

/// Makes the pair, in the bridge, protected, up; removes it again when a step fails.
pub(super) fn create(
    host: &mut Netlink,
    inside: &mut Netlink,
    namespace: &Namespace,
    bridge: &Link,
    mac: Option<MacAddr>,
    mtu: u32,
) -> Result<Pair> {
    let name = host_interface(namespace.id());
    let mac = match mac {
        Some(mac) if mac.is_station() => mac,
        Some(mac) => return Err(Error::invalid(mac, "not the MAC of a station")),
        None => random_mac()?,
    };
    // What is left of an attachment whose other end was renamed or moved away.
    if let Some(stale) = host.link(&name)?.filter(|link| link.kind == "veth") {
        host.delete_link(&stale)?;
    }
    let outer = VethEnd { controller: Some(bridge.index), ..VethEnd::new(&name) };
    let inner = VethEnd { mac: Some(mac), namespace: Some(namespace), ..VethEnd::new(CONTAINER_INTERFACE) };
    host.create_veth(outer, inner, mtu)?;
    let outer = host.expect_link(&name)?;
    let mut finish = |host: &mut Netlink| {
        protect::protect(&name)?;
        namespace.run(|| protect::promote_secondaries(CONTAINER_INTERFACE))??;
        let inner = inside.expect_link(CONTAINER_INTERFACE)?;
        let mut pair = Pair { outer: outer.clone(), inner };
        pair.switch_on(host, inside)?;
        Ok(pair)
    };
    finish(host).map_err(|error: Error| error.after_undo(host.delete_link(&outer)))
}

/// Multicast leaves the container through `ethwe`, whatever its default route.
pub(super) fn add_multicast_routes(inside: &mut Netlink, namespace: &Namespace, index: u32) -> Result<()> {
    let main = u32::from(RouteHeader::RT_TABLE_MAIN);
    let local = u32::from(libc::RT_TABLE_LOCAL);
    let v4 = ipnet::IpNet::V4(ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(224, 0, 0, 0), 4));
    let route = InterfaceRoute { index, destination: v4, table: main, kind: RouteType::Unicast, metric: 0 };
    inside.add_route(route)?;
    if !namespace.run(|| protect::has_ipv6(CONTAINER_INTERFACE))? {
        return Ok(());
    }
    let all = std::net::Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0);
    let v6 = ipnet::IpNet::V6(ipnet::Ipv6Net::new_assert(all, 8));
    // The table `local` decides, since the kernel has such a route for each
    // interface there; the one in `main` is where `ip -6 route` shows it.
    let decides = InterfaceRoute {
        index,
        destination: v6,
        table: local,
        kind: RouteType::Multicast,
        metric: MULTICAST_METRIC,
    };
    inside.add_route(decides)?;
    inside.add_route(InterfaceRoute { table: main, kind: RouteType::Unicast, ..decides })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_host_ends_fit_and_are_recognised() {
        for inode in [1, 4_026_532_008, u64::from(u32::MAX), u64::MAX] {
            let name = host_interface(NamespaceId { device: 4, inode });
            assert!(name.len() <= crate::netlink::INTERFACE_NAME_MAX, "{name}");
            assert!(is_host_interface(&name), "{name}");
        }
        for name in
            ["vethw", "vethwe-bridge", "vethw1234567", "vethw12345678a", "vethw1234567G", "eth0", "weave"]
        {
            assert!(!is_host_interface(name), "{name}");
        }
    }
}
