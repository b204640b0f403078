//! The segments of an underlay and the router between them, in a namespace of their own.
//!
//! Each segment is a bridge. With more than one, the bridges have addresses and the kernel routes
//! between them by one table for each segment that packets come from: so every path has an MTU of
//! its own, or is closed, in each direction.

use std::fmt;

use weave_host::bridge::random_mac;
use weave_host::netlink::VethEnd;
use weave_host::{Namespace, Netlink};

use super::error::{Error, Result};
use super::layout::{self, PREFIX_V4, PREFIX_V6, ROUTER};
use super::tool;
use super::underlay::{Underlay, set_features};

/// Number of the table for packets from segment 0; the others follow.
const TABLE: u32 = 100;

/// What the way between two segments lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Everything that fits the devices.
    Open,
    /// Packets up to so many bytes; of larger ones the sender is told, unless
    /// [`super::Lab::set_too_big`] says otherwise. For IPv6 never under 1280.
    Mtu(u32),
    /// Nothing, and says nothing.
    Closed,
}

/// The namespace of segments and router.
#[derive(Debug)]
pub(super) struct Segments {
    namespace: Namespace,
    count: u8,
}

/// A device of a host or translator on a segment.
#[derive(Debug)]
pub(super) struct Plug<'a> {
    /// Name of the port at this end.
    pub port: &'a str,
    /// Namespace and name of the other end.
    pub namespace: &'a Namespace,
    pub device: &'a str,
    pub segment: u8,
}

impl Segments {
    /// Builds segments 0 to `count` - 1; every path is open.
    pub(super) fn build(count: u8, underlay: &Underlay) -> Result<Self> {
        let segments = Self { namespace: Namespace::create("underlay")?, count };
        let mut netlink = Netlink::in_namespace(&segments.namespace)?;
        netlink.set_loopback_up()?;
        for segment in 0..count {
            netlink.create_bridge(&bridge(segment), random_mac()?, underlay.mtu)?;
            let link = netlink.expect_link(&bridge(segment))?;
            netlink.set_up(&link)?;
            if count > 1 {
                for address in layout::on_segment(segment, ROUTER)? {
                    netlink.add_address(link.index, address)?;
                }
            }
        }
        if count > 1 {
            segments.route()?;
        }
        Ok(segments)
    }

    fn route(&self) -> Result<()> {
        forward(&self.namespace)?;
        for from in 0..self.count {
            let (device, table) = (bridge(from), table(from));
            tool::ip(&self.namespace, |_| format!("rule add iif {device} lookup {table}"))?;
            for to in 0..self.count {
                self.set_way(from, to, Way::Open)?;
            }
        }
        Ok(())
    }

    pub(super) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Whether there is a router.
    pub(super) fn is_routed(&self) -> bool {
        self.count > 1
    }

    /// Connects a device.
    pub(super) fn plug(&self, plug: &Plug<'_>, underlay: &Underlay) -> Result<()> {
        let mut netlink = Netlink::in_namespace(&self.namespace)?;
        let controller = netlink.expect_link(&bridge(plug.segment))?.index;
        let here = VethEnd { controller: Some(controller), ..VethEnd::new(plug.port) };
        let there = VethEnd { namespace: Some(plug.namespace), ..VethEnd::new(plug.device) };
        netlink.create_veth(here, there, underlay.mtu)?;
        let link = netlink.expect_link(plug.port)?;
        self.namespace.run(|| set_features(plug.port, underlay))??;
        Ok(netlink.set_up(&link)?)
    }

    /// Puts a port into another segment, as when a cable is moved.
    pub(super) fn replug(&self, port: &str, segment: u8) -> Result<()> {
        self.check(segment)?;
        let mut netlink = Netlink::in_namespace(&self.namespace)?;
        let controller = netlink.expect_link(&bridge(segment))?.index;
        let link = netlink.expect_link(port)?;
        Ok(netlink.set_controller(&link, controller)?)
    }

    /// Sets the way of packets that come from segment `from` and go to `to`.
    pub(super) fn set_way(&self, from: u8, to: u8, way: Way) -> Result<()> {
        self.check(from)?;
        self.check(to)?;
        let (device, table) = (bridge(to), table(from));
        tool::ip(&self.namespace, |family| {
            let subnet = subnet(family, to);
            match way {
                Way::Open => format!("route replace {subnet} dev {device} table {table}"),
                Way::Mtu(mtu) => format!("route replace {subnet} dev {device} mtu lock {mtu} table {table}"),
                Way::Closed => format!("route replace blackhole {subnet} table {table}"),
            }
        })
    }

    /// Whether the router tells senders of packets that are too big.
    pub(super) fn set_too_big(&self, told: bool) -> Result<()> {
        if !self.is_routed() {
            return Err(absent("a router"));
        }
        tool::replace_rules(&self.namespace, |family| {
            let what = match family {
                4 => "-p icmp --icmp-type fragmentation-needed",
                _ => "-p icmpv6 --icmpv6-type packet-too-big",
            };
            let rule = if told { String::new() } else { format!("-A OUTPUT {what} -j DROP\n") };
            format!("*mangle\n:OUTPUT ACCEPT [0:0]\n{rule}COMMIT\n")
        })
    }

    fn check(&self, segment: u8) -> Result<()> {
        if segment < self.count { Ok(()) } else { Err(absent(format_args!("segment {segment}"))) }
    }
}

pub(super) fn absent(what: impl fmt::Display) -> Error {
    Error::Absent { what: what.to_string() }
}

/// Lets the kernel forward packets of both families.
pub(super) fn forward(namespace: &Namespace) -> Result<()> {
    tool::set(namespace, "ipv4/ip_forward", "1")?;
    tool::set(namespace, "ipv6/conf/all/forwarding", "1")
}

fn bridge(segment: u8) -> String {
    format!("segment{segment}")
}

fn table(from: u8) -> u32 {
    TABLE + u32::from(from)
}

fn subnet(family: u8, segment: u8) -> String {
    match family {
        4 => format!("{}/{PREFIX_V4}", layout::v4(segment, 0)),
        _ => format!("{}/{PREFIX_V6}", layout::v6(segment, 0)),
    }
}
