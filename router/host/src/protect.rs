//! Settings that keep an interface of ours from talking, or listening to
//! routers, on its own: the network on it belongs to the containers.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::failpoint::before_step;

/// What a router advertisement or redirect from the network could change.
const IPV6_PORT: &[(&str, &str)] = &[
    ("accept_ra", "0"),
    ("accept_redirects", "0"),
    ("autoconf", "0"),
    // IN6_ADDR_GEN_MODE_NONE: no link-local address.
    ("addr_gen_mode", "1"),
];

const IPV4_PORT: &[(&str, &str)] = &[
    // The kernel also asks `all`, but with "and" while forwarding is on: 0 here decides.
    ("accept_redirects", "0"),
    ("send_redirects", "0"),
];

/// What a station of the network could ask or tell the host itself.
const IPV4_BRIDGE: &[(&str, &str)] = &[
    // Answers for the bridge's own addresses only, and only to stations of their networks: who is
    // answered becomes a neighbour.
    ("arp_ignore", "2"),
    // Asks by such an address: others do likewise.
    ("arp_announce", "2"),
];

/// Whether IPv4 is forwarded.
const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// Protects the host's end: no router advertisements, no redirects, no
/// autoconfiguration, no link-local address. Call it before the interface is up.
///
/// # Errors
/// When /proc/sys cannot be written.
pub(crate) fn protect(interface: &str) -> Result<()> {
    write_all("ipv6", interface, IPV6_PORT)?;
    write_all("ipv4", interface, IPV4_PORT)
}

/// Protects the bridge, which unlike its ports hears what the network says to the host.
///
/// # Errors
/// As [`protect`].
pub(crate) fn protect_bridge(interface: &str) -> Result<()> {
    protect(interface)?;
    write_all("ipv4", interface, IPV4_BRIDGE)
}

/// Takes IPv6 from an interface: a router advertisement makes its sender a neighbour even where it
/// is not accepted.
pub(crate) fn refuse_ipv6(interface: &str) -> Result<()> {
    write_all("ipv6", interface, &[("disable_ipv6", "1")])
}

/// Lets an interface have IPv6 addresses where the namespace has IPv6 off by
/// default, as engines do for containers without an IPv6 network. Runs in the
/// namespace of the calling thread.
pub(crate) fn allow_ipv6(interface: &str) -> Result<()> {
    write_all("ipv6", interface, &[("disable_ipv6", "0")])
}

/// Keeps the other addresses of a subnet when its first is removed. Runs in
/// the namespace of the calling thread.
pub(crate) fn promote_secondaries(interface: &str) -> Result<()> {
    write_all("ipv4", interface, &[("promote_secondaries", "1")])
}

/// Whether this namespace forwards IPv4 between its networks.
pub(crate) fn forwards_ipv4() -> Result<bool> {
    let value = fs::read_to_string(FORWARD).map_err(|error| Error::kernel("read", FORWARD, error))?;
    Ok(value.trim() != "0")
}

/// Lets it, or not.
pub(crate) fn set_forward_ipv4(on: bool) -> Result<()> {
    let value = if on { "1" } else { "0" };
    write(Path::new(FORWARD), value).map_err(|error| Error::kernel("set", FORWARD, error))
}

/// Whether IPv6 is on for the interface, in the namespace of the calling thread.
pub(crate) fn has_ipv6(interface: &str) -> bool {
    let path = directory("ipv6", interface).join("disable_ipv6");
    fs::read_to_string(path).is_ok_and(|value| value.trim() == "0")
}

fn directory(family: &str, interface: &str) -> PathBuf {
    Path::new("/proc/sys/net").join(family).join("conf").join(interface)
}

fn write_all(family: &str, interface: &str, settings: &[(&str, &str)]) -> Result<()> {
    let directory = directory(family, interface);
    if !Path::new("/proc/sys/net").join(family).exists() {
        return Ok(()); // A kernel without this family has nothing to protect.
    }
    for (name, value) in settings {
        let path = directory.join(name);
        match write(&path, value) {
            // Interfaces whose MTU is under 1280 have no IPv6 side.
            Err(error) if error.kind() == io::ErrorKind::NotFound && family == "ipv6" => {}
            Err(error) => return Err(Error::kernel("set", path.display(), error)),
            Ok(()) => {}
        }
    }
    Ok(())
}

/// Writes only what differs: /proc/sys may be read-only and yet be as it should.
fn write(path: &Path, value: &str) -> io::Result<()> {
    if fs::read_to_string(path)?.trim() == value {
        return Ok(());
    }
    before_step("write a setting")?;
    fs::write(path, value)
}
