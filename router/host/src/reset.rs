//! Removing every interface of ours from the host.

use crate::attach::is_host_interface;
use crate::error::Result;
use crate::netlink::Netlink;
use crate::tap::TAP;
use crate::{bridge, forwarding, names, policy, tap};

/// Files that lie in the state directory itself.
pub const STATE_FILES: [&str; 4] = [names::SETTINGS, names::OUTSIDE, forwarding::FILE, policy::FILE];

/// Removes all attachments (and with them the containers' interfaces), the
/// tap and the bridge. What is not there is no error; what cannot be removed
/// does not keep the rest.
///
/// # Errors
/// The first of what the kernel refused, or of names that belong to something else.
pub fn remove_interfaces(host: &mut Netlink) -> Result<()> {
    let mut outcome = Ok(());
    for link in host.links()? {
        if link.kind == "veth" && is_host_interface(&link.name) {
            outcome = outcome.and(host.delete_link(&link));
        }
    }
    outcome.and(tap::remove(host, TAP)).and(bridge::remove(host))
}
