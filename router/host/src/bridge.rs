//! The bridge `weave`: local containers and the router's tap are its ports.

use weave_wire::MacAddr;

use crate::error::{Error, Result};
use crate::mtu::check_mtu;
use crate::netlink::{Link, Netlink, is_present};
use crate::protect::{protect_bridge, refuse_ipv6};

/// Name of the bridge.
pub const BRIDGE: &str = "weave";

/// Makes the bridge as it should be: there, protected, of this MTU (bytes), up.
/// A bridge that is there already keeps its ports and addresses.
///
/// # Errors
/// [`Error::NameTaken`] when an interface of that name is no bridge; whatever
/// the kernel refuses.
pub fn ensure(netlink: &mut Netlink, mtu: u32) -> Result<Link> {
    check_mtu(mtu)?;
    let (bridge, is_new) = match netlink.link(BRIDGE)? {
        Some(bridge) => (bridge, false),
        None => create(netlink, mtu)?,
    };
    if bridge.kind != "bridge" {
        return Err(Error::NameTaken { interface: bridge.name, found: describe(&bridge.kind) });
    }
    // Until it is exposed by an IPv6 address.
    let refused = if is_new { refuse_ipv6(BRIDGE) } else { Ok(()) };
    let finished = refused.and_then(|()| finish(netlink, &bridge, mtu));
    if is_new && let Err(error) = finished {
        return Err(error.after_undo(netlink.delete_link(&bridge)));
    }
    finished
}

/// MTU of the network as its bridge has it, bytes. `None` where it says nothing: there is none, or
/// one that is down, as a command leaves it that was killed while it made it.
#[must_use]
pub fn mtu_of(bridge: Option<&Link>) -> Option<u32> {
    bridge.filter(|link| link.up).map(|link| link.mtu)
}

/// The MAC of the bridge; `None` without one. No netlink is needed for it.
#[must_use]
pub fn mac() -> Option<MacAddr> {
    crate::sys::hardware_address(BRIDGE).ok().map(MacAddr)
}

fn create(netlink: &mut Netlink, mtu: u32) -> Result<(Link, bool)> {
    // Another one than it gets: the kernel takes note that somebody has set it when it changes only.
    let is_new = match netlink.create_bridge(BRIDGE, random_mac()?, mtu - 1) {
        Ok(()) => true,
        // Another command was faster.
        Err(error) if is_present(&error) => false,
        Err(error) => return Err(error),
    };
    Ok((netlink.expect_link(BRIDGE)?, is_new))
}

fn finish(netlink: &mut Netlink, bridge: &Link, mtu: u32) -> Result<Link> {
    protect_bridge(BRIDGE)?;
    // Always, also when it is right: a bridge whose MTU nobody has set follows
    // the smallest of its ports.
    netlink.set_mtu(bridge, mtu)?;
    if !bridge.up {
        netlink.set_up(bridge)?;
    }
    netlink.expect_link(BRIDGE)
}

/// Removes the bridge; one that is not there is no error.
///
/// # Errors
/// When the name belongs to something that is no bridge, or the kernel refuses.
pub fn remove(netlink: &mut Netlink) -> Result<()> {
    match netlink.link(BRIDGE)? {
        None => Ok(()),
        Some(link) if link.kind == "bridge" => netlink.delete_link(&link),
        Some(link) => Err(Error::NameTaken { interface: link.name, found: describe(&link.kind) }),
    }
}

/// What to call an interface of this kind in a message.
pub(crate) fn describe(kind: &str) -> String {
    match kind {
        "" => "not ours (hardware or loopback)".to_owned(),
        kind => format!("not ours (kind {kind})"),
    }
}

/// A random MAC that claims no vendor: local, unicast.
///
/// # Errors
/// When the kernel gives no random bytes.
pub fn random_mac() -> Result<MacAddr> {
    let mut bytes = [0; 6];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::kernel("read", "random bytes", std::io::Error::other(error.to_string())))?;
    bytes[0] = (bytes[0] & !0b01) | 0b10;
    Ok(MacAddr(bytes))
}
