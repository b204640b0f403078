//! Hosts whose addresses change while they run.

use std::net::IpAddr;

use ipnet::IpNet;
use weave_host::address::cidr;

use super::Lab;
use super::error::Result;
use super::host::Host;
use super::layout::{self, PREFIX_V4, PREFIX_V6};
use super::segments::{Way, absent};
use super::underlay::{self, UNDERLAY};

impl Lab {
    /// Gives host `index` one more address on its first device.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add_address(&self, index: usize, address: IpAddr) -> Result<()> {
        self.host(index).change_addresses(&[], &[with_prefix(address)?])?;
        self.follow(index)
    }

    /// Takes an address from the first device of host `index` and gives it another one, as when it
    /// gets a new lease.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn change_address(&self, index: usize, old: IpAddr, new: IpAddr) -> Result<()> {
        let host = self.host(index);
        host.change_addresses(&[with_prefix(old)?], &[with_prefix(new)?])?;
        self.restore_gateways(host)?;
        self.follow(index)
    }

    /// Moves the first device of host `index` to another segment with its number and new
    /// addresses of both families there, as when a cable is moved. Not for a host behind a
    /// translator.
    ///
    /// # Errors
    /// When there is no such segment, or the kernel refuses.
    pub fn move_to(&self, index: usize, segment: u8) -> Result<()> {
        let host = self.host(index);
        let segments = self.segments.as_ref().ok_or_else(|| absent("a segment"))?;
        if host.place().nat.is_some() {
            return Err(absent("a cable of a host behind a translator"));
        }
        let old = host.addresses_on(UNDERLAY)?;
        segments.replug(&host.port(0), segment)?;
        host.change_addresses(&old, &layout::on_segment(segment, host.number())?)?;
        host.set_segment(segment);
        self.restore_gateways(host)?;
        self.follow(index)
    }

    /// Sets the way between two segments, in both directions.
    ///
    /// # Errors
    /// When there is no such segment.
    pub fn set_way(&self, one: u8, other: u8, way: Way) -> Result<()> {
        let segments = self.segments.as_ref().ok_or_else(|| absent("a segment"))?;
        segments.set_way(one, other, way)?;
        segments.set_way(other, one, way)
    }

    /// Whether senders of packets that are too big for a path are told so (ICMP fragmentation
    /// needed, ICMPv6 packet too big). They are at first.
    ///
    /// # Errors
    /// When there is one segment only, hence no router.
    pub fn set_too_big(&self, told: bool) -> Result<()> {
        self.segments.as_ref().ok_or_else(|| absent("a router"))?.set_too_big(told)
    }

    /// The kernel drops routes with the last address of their subnet.
    fn restore_gateways(&self, host: &Host) -> Result<()> {
        underlay::set_gateways(host, self.segments.as_ref())
    }
}

fn with_prefix(address: IpAddr) -> Result<IpNet> {
    Ok(cidr(address, if address.is_ipv4() { PREFIX_V4 } else { PREFIX_V6 })?)
}
