//! Where the hosts of a lab are.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use weave_host::address::cidr;

use super::error::{Error, Result};

/// Most segments of an underlay.
pub const SEGMENTS_MAX: u8 = 16;

/// Prefix lengths of all subnets of the underlay.
pub(super) const PREFIX_V4: u8 = 24;
pub(super) const PREFIX_V6: u8 = 64;
/// Number of the router in the subnet of each segment.
pub(super) const ROUTER: u8 = 254;

/// Where one host is on the underlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The segments it has a device on, in the order of its devices (eth0, eth1, ...). What is on
    /// none of them goes by the router of the first.
    pub segments: Vec<u8>,
    /// What stands between it and its segment; only for a host on one segment.
    pub nat: Option<Nat>,
}

impl Default for Place {
    /// On segment 0, where all hosts are that nothing else is said of.
    fn default() -> Self {
        Self::on(&[0])
    }
}

impl Place {
    /// On these segments.
    #[must_use]
    pub fn on(segments: &[u8]) -> Self {
        Self { segments: segments.to_vec(), nat: None }
    }

    /// On a segment behind address translation.
    #[must_use]
    pub fn behind(segment: u8, nat: Nat) -> Self {
        Self { segments: vec![segment], nat: Some(nat) }
    }

    pub(super) fn check(&self) -> Result<()> {
        let known = self.segments.iter().all(|segment| *segment < SEGMENTS_MAX);
        let mut distinct = self.segments.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let single = self.nat.is_none() || self.segments.len() == 1;
        if !known || !single || self.segments.is_empty() || distinct.len() < self.segments.len() {
            return Err(Error::Place { given: self.clone() });
        }
        Ok(())
    }
}

/// How a translator chooses the port that a flow of the host behind it comes from. Answers pass
/// only from the address and port that the flow goes to (RFC 4787: address and port-dependent
/// filtering); a UDP flow is forgotten after [`NAT_FORGETS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nat {
    /// The host's own port, whatever the destination: what the kernel does while nothing else has
    /// it (RFC 4787: endpoint-independent mapping, port preservation).
    Steady,
    /// A random port for each new flow (RFC 4787: address and port-dependent mapping), hence
    /// another one for the same flow after a silence.
    Changing,
}

/// After how long without a packet a translator forgets a UDP flow.
pub const NAT_FORGETS: std::time::Duration = std::time::Duration::from_secs(2);

/// The IPv4 address of number `number` on a segment: 10.99.SEGMENT.NUMBER.
#[must_use]
pub fn v4(segment: u8, number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, segment, number)
}

/// The IPv6 address of number `number` on a segment: fd99:0:0:SEGMENT::NUMBER.
#[must_use]
pub fn v6(segment: u8, number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd99, 0, 0, segment.into(), 0, 0, 0, number.into())
}

/// Both addresses of number `number` on a segment with the lengths of their prefixes.
pub(super) fn on_segment(segment: u8, number: u8) -> Result<[IpNet; 2]> {
    Ok([cidr(v4(segment, number).into(), PREFIX_V4)?, cidr(v6(segment, number).into(), PREFIX_V6)?])
}

/// Number of a translator in the network behind it.
pub(super) const TRANSLATOR: u8 = 1;
/// Number of the host there.
pub(super) const TRANSLATED: u8 = 2;

pub(super) fn v4_behind(host: u8, number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, host, number)
}

pub(super) fn v6_behind(host: u8, number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfdc0, 0, 0, host.into(), 0, 0, 0, number.into())
}

/// Both addresses of number `number` in the network behind the translator of host `host`.
pub(super) fn behind_nat(host: u8, number: u8) -> Result<[IpNet; 2]> {
    let [v4, v6] = [v4_behind(host, number).into(), v6_behind(host, number).into()];
    Ok([cidr(v4, PREFIX_V4)?, cidr(v6, PREFIX_V6)?])
}
