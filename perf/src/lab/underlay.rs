//! The network between the hosts of a lab.

use std::time::Duration;

use ipnet::IpNet;
use weave_host::ethtool::{self, GRO, GSO, TSO4, TSO6, USO};
use weave_host::netlink::{LinkWatch, VethEnd, await_running};
use weave_host::{Namespace, Netlink};

use super::error::Result;
use super::host::{Host, device_name};
use super::layout::{self, Place, ROUTER, TRANSLATED, TRANSLATOR};
use super::nat;
use super::segments::{Plug, Segments};
use super::tool;

/// Name of every host's first device on the underlay.
pub const UNDERLAY: &str = "eth0";

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

/// What is between the hosts; dropping it takes it away.
#[derive(Debug, Default)]
pub(super) struct Between {
    /// Absent where hosts are joined directly, or alone.
    pub segments: Option<Segments>,
    /// Namespaces of the translators.
    pub translators: Vec<Namespace>,
}

/// Joins the hosts.
pub(super) fn connect(hosts: &[Host], underlay: &Underlay) -> Result<Between> {
    let mut between = Between::default();
    let usual = hosts.iter().all(|host| *host.place() == Place::default());
    match hosts {
        [_] if usual => return Ok(between),
        // Directly, since a switch would take a share of the machine that is to be measured.
        [one, other] if usual => {
            let end = VethEnd { namespace: Some(other.namespace()), ..VethEnd::new(UNDERLAY) };
            Netlink::in_namespace(one.namespace())?.create_veth(VethEnd::new(UNDERLAY), end, underlay.mtu)?;
        }
        _ => {
            let last = hosts.iter().flat_map(|host| &host.place().segments).max();
            let segments = Segments::build(last.copied().unwrap_or_default() + 1, underlay)?;
            for host in hosts {
                between.translators.extend(plug(host, &segments, underlay)?);
            }
            between.segments = Some(segments);
        }
    }
    for host in hosts {
        for (device, segment) in host.place().segments.iter().enumerate() {
            host.run(|| configure(host, device, *segment, underlay))??;
        }
    }
    for host in hosts {
        for device in 0..host.place().segments.len() {
            host.run(|| await_link(device))??;
        }
        set_gateways(host, between.segments.as_ref())?;
    }
    Ok(between)
}

/// Connects the devices of a host; gives the namespace of its translator, if it has one.
fn plug(host: &Host, segments: &Segments, underlay: &Underlay) -> Result<Option<Namespace>> {
    if let (Some(nat), [segment]) = (host.place().nat, host.place().segments.as_slice()) {
        return Ok(Some(nat::build(host, nat, *segment, segments, underlay)?));
    }
    for (number, segment) in host.place().segments.iter().enumerate() {
        let (port, device) = (host.port(number), device_name(number));
        let plug = Plug { port: &port, namespace: host.namespace(), device: &device, segment: *segment };
        segments.plug(&plug, underlay)?;
    }
    Ok(None)
}

fn configure(host: &Host, number: usize, segment: u8, underlay: &Underlay) -> Result<()> {
    let device = device_name(number);
    let mut netlink = Netlink::open()?;
    let link = netlink.expect_link(&device)?;
    set_features(&device, underlay)?;
    let addresses = match host.place().nat {
        Some(_) => layout::behind_nat(host.number(), TRANSLATED)?,
        None => layout::on_segment(segment, host.number())?,
    };
    for address in addresses {
        netlink.add_address(link.index, address)?;
    }
    netlink.set_up(&link)?;
    Ok(())
}

/// Sets what the host reaches other networks by, if there are any.
pub(super) fn set_gateways(host: &Host, segments: Option<&Segments>) -> Result<()> {
    if host.place().nat.is_some() {
        set_gateway(host.namespace(), layout::behind_nat(host.number(), TRANSLATOR)?)
    } else if segments.is_some_and(Segments::is_routed) {
        set_gateway(host.namespace(), layout::on_segment(host.segment(), ROUTER)?)
    } else {
        Ok(())
    }
}

/// Sets the default routes of both families.
pub(super) fn set_gateway(namespace: &Namespace, [v4, v6]: [IpNet; 2]) -> Result<()> {
    tool::ip(namespace, |family| {
        let gateway = if family == 4 { v4.addr() } else { v6.addr() };
        format!("route replace default via {gateway}")
    })
}

pub(super) fn set_features(interface: &str, underlay: &Underlay) -> Result<()> {
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

fn await_link(device: usize) -> Result<()> {
    let watch = LinkWatch::open()?;
    await_running(&mut Netlink::open()?, &watch, &device_name(device), LINK_LIMIT)?;
    Ok(())
}
