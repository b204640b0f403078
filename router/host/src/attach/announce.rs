//! Telling the network where an address is now.

use std::net::IpAddr;

use super::CONTAINER_INTERFACE;
use crate::error::Result;
use crate::namespace::Namespace;
use crate::neighbour;
use crate::netlink::Link;
use crate::packet::PacketSocket;

/// Times each announcement is sent: a flood may lose one.
const REPEATS: usize = 2;

/// Announces addresses of an interface in the namespace of the calling thread.
pub(crate) fn announce_on(interface: &str, link: &Link, addresses: &[IpAddr]) -> Result<()> {
    announce_in(&Namespace::own()?, interface, link, addresses)
}

/// Announces addresses from inside the container, so that neighbours and
/// switches turn to it at once wherever the address was before.
pub(super) fn announce(namespace: &Namespace, inner: &Link, addresses: &[IpAddr]) -> Result<()> {
    announce_in(namespace, CONTAINER_INTERFACE, inner, addresses)
}

fn announce_in(namespace: &Namespace, interface: &str, link: &Link, addresses: &[IpAddr]) -> Result<()> {
    let Some(mac) = link.mac.filter(|_| !addresses.is_empty()) else { return Ok(()) };
    let socket = PacketSocket::open(namespace, interface, link.index)?;
    for _ in 0..REPEATS {
        for frame in addresses.iter().flat_map(|address| neighbour::announcements(mac, *address)) {
            socket.send(&frame)?;
        }
    }
    Ok(())
}
