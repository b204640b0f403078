//! Taking addresses away again.

use ipnet::IpNet;

use super::inspect::State;
use crate::error::{Error, Result};
use crate::namespace::Namespace;
use crate::netlink::Netlink;

/// What [`detach`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detached {
    /// Addresses that were removed, in the order given.
    pub removed: Vec<IpNet>,
    /// Addresses the container still has; none: its interface is gone too.
    pub remaining: Vec<IpNet>,
}

/// Takes addresses from the container in `namespace`; the last one takes its
/// interface along. What is not attached is no error.
///
/// # Errors
/// [`Error::Invalid`] when an address is attached with another prefix,
/// [`Error::NameTaken`] when `ethwe` is not ours and ours is not there, otherwise what the kernel refuses.
pub fn detach(host: &mut Netlink, namespace: &Namespace, cidrs: &[IpNet]) -> Result<Detached> {
    namespace.refuse_own()?;
    let mut inside = Netlink::in_namespace(namespace)?;
    let state = State::read(host, &mut inside, namespace)?;
    let Some(pair) = state.pair.as_ref().or(state.renamed.as_ref()) else {
        return Ok(Detached { removed: Vec::new(), remaining: Vec::new() });
    };
    let present = state.cidrs();
    let mut removed = Vec::with_capacity(cidrs.len());
    for cidr in cidrs {
        match present.iter().find(|other| other.addr() == cidr.addr()) {
            Some(same) if same == cidr && !removed.contains(cidr) => removed.push(*cidr),
            Some(other) if other != cidr => {
                return Err(Error::invalid(cidr, format!("is attached as {other}: give it so")));
            }
            Some(_) | None => {}
        }
    }
    let remaining: Vec<IpNet> = present.into_iter().filter(|cidr| !removed.contains(cidr)).collect();
    if remaining.is_empty() {
        host.delete_link(&pair.outer)?;
        return Ok(Detached { removed, remaining });
    }
    for cidr in &removed {
        inside.delete_address(pair.inner.index, *cidr)?;
    }
    // Where somebody switched off the promotion of secondary addresses, the
    // first of a subnet took the others along.
    for cidr in &remaining {
        inside.add_address(pair.inner.index, *cidr)?;
    }
    Ok(Detached { removed, remaining })
}

/// Removes the interface of an attachment with all its addresses; whether there was one.
///
/// # Errors
/// As [`detach`].
pub fn detach_all(host: &mut Netlink, namespace: &Namespace) -> Result<bool> {
    let mut inside = Netlink::in_namespace(namespace)?;
    let state = State::read(host, &mut inside, namespace)?;
    match state.pair.or(state.renamed) {
        Some(pair) => host.delete_link(&pair.outer).map(|()| true),
        None => Ok(false),
    }
}
