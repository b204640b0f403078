//! Neighbours: which MAC an address of a network is reached at.

use std::collections::BTreeMap;
use std::net::IpAddr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::RouteProtocol;
use weave_wire::MacAddr;

use super::{Netlink, collect, is_absent};
use crate::error::Result;

/// What tells our neighbours from those of others: nobody has this number of a protocol
/// (rtnetlink(7), `/etc/iproute2/rt_protos`).
const PROTOCOL: RouteProtocol = RouteProtocol::Other(119);

/// Addresses, and where each is reached.
pub type Neighbours = BTreeMap<IpAddr, MacAddr>;

impl Netlink {
    /// The neighbours of an interface that [`set_neighbour`](Self::set_neighbour) set.
    ///
    /// # Errors
    /// When the kernel refuses or does not answer.
    pub fn neighbours(&mut self, index: u32) -> Result<Neighbours> {
        let mut ours = Neighbours::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = self.handle.neighbours().get().set_address_family(family);
            request.message_mut().header.ifindex = index;
            let all = self.call("list", "neighbours", collect(request.execute()))?;
            ours.extend(all.iter().filter(|one| one.header.ifindex == index).filter_map(ours_in));
        }
        Ok(ours)
    }

    /// Has the kernel reach `address` at `mac`, whatever stations say of it.
    ///
    /// # Errors
    /// When the kernel refuses, for example IPv6 on an interface where it is off.
    pub fn set_neighbour(&mut self, index: u32, address: IpAddr, mac: MacAddr) -> Result<()> {
        let mut request = self.handle.neighbours().add(index, address).link_layer_address(&mac.0).replace();
        request.message_mut().attributes.push(NeighbourAttribute::Protocol(PROTOCOL));
        self.call("set neighbour", address, request.execute())
    }

    /// Has the kernel ask again who has `address`. One that is not there is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete_neighbour(&mut self, index: u32, address: IpAddr) -> Result<()> {
        let message = self.handle.neighbours().add(index, address).message_mut().clone();
        let request = self.handle.neighbours().del(message).execute();
        match self.call("remove neighbour", address, request) {
            Err(error) if !is_absent(&error) => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

// The kernel's attributes are an open set: what is not asked for is passed over.
#[allow(clippy::wildcard_enum_match_arm)]
fn ours_in(message: &NeighbourMessage) -> Option<(IpAddr, MacAddr)> {
    let (mut address, mut mac, mut is_ours) = (None, None, false);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => address = Some(IpAddr::V4(*ip)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => address = Some(IpAddr::V6(*ip)),
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = bytes.as_slice().try_into().ok().map(MacAddr)
            }
            NeighbourAttribute::Protocol(protocol) => is_ours = *protocol == PROTOCOL,
            _ => {}
        }
    }
    let is_permanent = message.header.state == NeighbourState::Permanent;
    (is_ours && is_permanent).then_some((address?, mac?))
}
