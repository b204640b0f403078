//! Commands that change the host's network say so before they touch anything.

use rustix::thread::{CapabilitySet, capabilities};

use crate::failure::{Failure, Result};

/// Refuses unless this process runs as root (of its user namespace).
pub fn require(command: &str) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Failure::new(
        format_args!("cannot {command}"),
        "only root may change the network of this host",
        format_args!("run `sudo weave {command} …`"),
    ))
}

/// The same, and refuses without the capability for what commands do to interfaces: root of a
/// container has few.
pub fn require_network(command: &str) -> Result<()> {
    require(command)?;
    // Where they cannot be read, the kernel refuses by itself what is not allowed.
    if capabilities(None).is_ok_and(|sets| !sets.effective.contains(CapabilitySet::NET_ADMIN)) {
        return Err(Failure::new(
            format_args!("cannot {command}"),
            "this process has not the capability CAP_NET_ADMIN",
            "run it as root of the host; Docker: --cap-add NET_ADMIN",
        ));
    }
    Ok(())
}
