//! The network between the hosts of a lab.

use std::time::Duration;

use weave_host::address::cidr;
use weave_host::bridge::random_mac;
use weave_host::ethtool::{self, GRO, GSO, TSO4, TSO6, USO};
use weave_host::netlink::{LinkWatch, VethEnd, await_running};
use weave_host::{Namespace, Netlink};

use super::error::Result;
use super::host::Host;

/// Name of every host's device on the underlay.
pub const UNDERLAY: &str = "eth0";

/// Prefix lengths of the underlay's subnets.
const PREFIX_V4: u8 = 24;
const PREFIX_V6: u8 = 64;

/// How long a link may take to come up.
const LINK_LIMIT: Duration = Duration::from_secs(5);

/// What the network between the hosts is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Underlay {
    /// Largest packet, bytes.
    pub mtu: u32,
    /// Devices cut super-frames themselves, as most network cards do.
    pub segmentation: bool,
    /// The kernel joins received segments.
    pub gro: bool,
}

impl Default for Underlay {
    /// What veth pairs offer by themselves.
    fn default() -> Self {
        Self { mtu: 1500, segmentation: true, gro: false }
    }
}

/// Joins the hosts; returns the namespace of the switch between more than two.
pub(super) fn connect(hosts: &[Host], underlay: &Underlay) -> Result<Option<Namespace>> {
    let switch = match hosts {
        [_] => None,
        // Directly, since a switch would take a share of the machine that is to be measured.
        [one, other] => {
            let end = VethEnd { namespace: Some(other.namespace()), ..VethEnd::new(UNDERLAY) };
            Netlink::in_namespace(one.namespace())?.create_veth(VethEnd::new(UNDERLAY), end, underlay.mtu)?;
            None
        }
        _ => Some(build_switch(hosts, underlay)?),
    };
    if hosts.len() > 1 {
        for host in hosts {
            host.run(|| configure(host, underlay))??;
        }
        for host in hosts {
            host.run(await_link)??;
        }
    }
    Ok(switch)
}

fn build_switch(hosts: &[Host], underlay: &Underlay) -> Result<Namespace> {
    const BRIDGE: &str = "switch";
    let switch = Namespace::create("underlay switch")?;
    let mut netlink = Netlink::in_namespace(&switch)?;
    netlink.create_bridge(BRIDGE, random_mac()?, underlay.mtu)?;
    let bridge = netlink.expect_link(BRIDGE)?;
    netlink.set_up(&bridge)?;
    for host in hosts {
        let port = format!("port{}", host.number());
        let here = VethEnd { controller: Some(bridge.index), ..VethEnd::new(&port) };
        let there = VethEnd { namespace: Some(host.namespace()), ..VethEnd::new(UNDERLAY) };
        netlink.create_veth(here, there, underlay.mtu)?;
        let link = netlink.expect_link(&port)?;
        switch.run(|| set_features(&port, underlay))??;
        netlink.set_up(&link)?;
    }
    Ok(switch)
}

fn configure(host: &Host, underlay: &Underlay) -> Result<()> {
    let mut netlink = Netlink::open()?;
    let link = netlink.expect_link(UNDERLAY)?;
    set_features(UNDERLAY, underlay)?;
    for (address, prefix) in [(host.v4().into(), PREFIX_V4), (host.v6().into(), PREFIX_V6)] {
        netlink.add_address(link.index, cidr(address, prefix)?)?;
    }
    netlink.set_up(&link)?;
    Ok(())
}

fn set_features(interface: &str, underlay: &Underlay) -> Result<()> {
    if *underlay == (Underlay { mtu: underlay.mtu, ..Underlay::default() }) {
        return Ok(());
    }
    let cut = underlay.segmentation;
    ethtool::set_features(
        interface,
        &[(TSO4, cut), (TSO6, cut), (USO, cut), (GSO, cut), (GRO, underlay.gro)],
    )?;
    Ok(())
}

fn await_link() -> Result<()> {
    let watch = LinkWatch::open()?;
    await_running(&mut Netlink::open()?, &watch, UNDERLAY, LINK_LIMIT)?;
    Ok(())
}
