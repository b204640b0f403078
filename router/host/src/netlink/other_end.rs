//! The other end of a veth pair, asked for from here: nobody enters its namespace.

use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::LinkAttribute;

use super::{InterfaceAddress, Link, Netlink, collect, is_absent, open_socket};
use crate::error::{Error, Result};

/// Asks for the other ends of pairs.
pub(crate) struct OtherEnds(Netlink);

impl OtherEnds {
    /// # Errors
    /// When no socket can be made.
    pub(crate) fn open() -> Result<Self> {
        let socket = open_socket()?;
        // Else the kernel lists the addresses of this namespace, whichever is asked for.
        socket
            .set_netlink_get_strict_chk(true)
            .map_err(|error| Error::kernel("set up", "a netlink socket", error))?;
        Ok(Self(Netlink::over(socket)))
    }

    /// The other end of the pair whose end here is called `name`; `None` if there is none, or it is here.
    ///
    /// # Errors
    /// When the kernel refuses or does not answer.
    pub(crate) fn of(&mut self, name: &str) -> Result<Option<OtherEnd>> {
        let Some(here) = self.0.link(name)?.filter(|link| link.kind == "veth") else { return Ok(None) };
        let (Some(index), Some(namespace)) = (here.peer, here.peer_namespace) else { return Ok(None) };
        let mut request = self.0.handle.link().get().match_index(index);
        request.message_mut().attributes.push(LinkAttribute::IfNetnsId(namespace));
        let links = self.0.call("look up", name, collect(request.execute()));
        let link = present(links)?.and_then(|links| links.into_iter().next());
        Ok(link.map(|link| OtherEnd { namespace, link: Link::from_message(link) }))
    }

    /// The addresses of this end, of one family; `None`: it is gone.
    ///
    /// # Errors
    /// When the kernel refuses or does not answer.
    pub(crate) fn addresses(&mut self, end: &OtherEnd, ipv6: bool) -> Result<Option<Vec<InterfaceAddress>>> {
        let mut request = self.0.handle.address().get();
        let message = request.message_mut();
        message.header.family = if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
        message.header.index = end.link.index;
        message.attributes.push(AddressAttribute::TargetNetNsId(end.namespace));
        let addresses = self.0.call("list", "addresses", collect(request.execute()));
        let of = |messages: Vec<_>| messages.iter().filter_map(InterfaceAddress::from_message).collect();
        Ok(present(addresses)?.map(of))
    }
}

/// What is not there any more is no error: a namespace that is gone has no number.
fn present<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_absent(&error) || error.os_error() == Some(libc::EINVAL) => Ok(None),
        Err(error) => Err(error),
    }
}

/// An interface in another namespace.
pub(crate) struct OtherEnd {
    namespace: i32,
    /// As it is there.
    pub(crate) link: Link,
}
