//! Commands that change the host's network say so before they touch anything.

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
