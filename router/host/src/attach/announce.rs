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

/// Announces addresses from inside the container, so that neighbours and
/// switches turn to it at once wherever the address was before.
pub(super) fn announce(namespace: &Namespace, inner: &Link, addresses: &[IpAddr]) -> Result<()> {
    let Some(mac) = inner.mac else { return Ok(()) };
    let socket = PacketSocket::open(namespace, CONTAINER_INTERFACE, inner.index)?;
    for _ in 0..REPEATS {
        for frame in addresses.iter().flat_map(|address| neighbour::announcements(mac, *address)) {
            socket.send(&frame)?;
        }
    }
    Ok(())
}
