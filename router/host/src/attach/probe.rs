//! Asking the network whether somebody has an address already.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use weave_wire::MacAddr;

use super::CONTAINER_INTERFACE;
use crate::error::{Error, Result};
use crate::namespace::Namespace;
use crate::neighbour;
use crate::netlink::{Link, Netlink};
use crate::packet::PacketSocket;

/// How long an answer to a probe is awaited.
pub const PROBE_WAIT: Duration = Duration::from_millis(30);

/// A station that has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// The address.
    pub address: IpAddr,
    /// MAC of its holder.
    pub mac: MacAddr,
}

/// Asks for all of `addresses` at once, through the `ethwe` of `namespace`
/// (which must be up and need not have an address), and returns who answered
/// within `wait`. Does not wait longer than until each address has an answer.
///
/// # Errors
/// When there is no `ethwe` or the kernel refuses.
pub fn probe(namespace: &Namespace, addresses: &[IpAddr], wait: Duration) -> Result<Vec<Holder>> {
    if addresses.is_empty() {
        return Ok(Vec::new());
    }
    let link = Netlink::in_namespace(namespace)?.expect_link(CONTAINER_INTERFACE)?;
    probe_in(namespace, CONTAINER_INTERFACE, &link, addresses, wait)
}

/// The same through an interface in the namespace of the calling thread.
pub(crate) fn probe_on(
    interface: &str,
    link: &Link,
    addresses: &[IpAddr],
    wait: Duration,
) -> Result<Vec<Holder>> {
    if addresses.is_empty() {
        return Ok(Vec::new());
    }
    probe_in(&Namespace::own()?, interface, link, addresses, wait)
}

fn probe_in(
    namespace: &Namespace,
    interface: &str,
    link: &Link,
    addresses: &[IpAddr],
    wait: Duration,
) -> Result<Vec<Holder>> {
    let Some(own) = link.mac else {
        return Err(Error::invalid(interface, "has no MAC"));
    };
    let socket = PacketSocket::open(namespace, interface, link.index)?;
    for address in addresses {
        socket.send(&neighbour::probe(own, *address))?;
    }
    let deadline = Instant::now() + wait;
    let mut holders: Vec<Holder> = Vec::new();
    while holders.len() < addresses.len() {
        let Some(frame) = socket.receive(deadline)? else { break };
        if let Some((mac, address)) = neighbour::claim(&frame)
            && mac != own
            && addresses.contains(&address)
            && holders.iter().all(|holder| holder.address != address)
        {
            holders.push(Holder { address, mac });
        }
    }
    Ok(holders)
}
