//! Commands that change the host's network say so before they touch anything.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

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
    require_capability(command, CapabilitySet::NET_ADMIN, "NET_ADMIN")
}

/// The same for `weave router`, which may be run as a container: then the keeper it starts has to enter those
/// of others, which else fails one by one later.
pub fn require_router() -> Result<()> {
    require_network("router")?;
    if is_container() {
        require_capability("router", CapabilitySet::SYS_ADMIN, "SYS_ADMIN")?;
        require_capability("router", CapabilitySet::SYS_PTRACE, "SYS_PTRACE")?;
    }
    Ok(())
}

fn require_capability(command: &str, capability: CapabilitySet, name: &str) -> Result<()> {
    // Where they cannot be read, the kernel refuses by itself what is not allowed.
    if capabilities(None).is_ok_and(|sets| !sets.effective.contains(capability)) {
        return Err(Failure::new(
            format_args!("cannot {command}"),
            format_args!("this process has not the capability CAP_{name}"),
            format_args!("run it as root of the host; Docker: --cap-add {name}"),
        ));
    }
    Ok(())
}

/// Files by which Docker and Podman mark their containers.
const MARKS: [&str; 2] = ["/.dockerenv", "/run/.containerenv"];

fn is_container() -> bool {
    MARKS.iter().any(|mark| Path::new(mark).exists()) || is_parent_outside()
}

/// Whether the parent is of another pid namespace.
fn is_parent_outside() -> bool {
    rustix::process::getppid().is_none()
}

/// What a container of its own makes impossible for a router, and how it is run better. The parent of a
/// container's first process is of the engine: in the host's namespaces, and with the host's root.
pub fn kept_apart() -> Option<&'static str> {
    if is_parent_outside() {
        return Some(
            "this container sees no process of the host, so that no container can be attached; Docker: --pid host",
        );
    }
    let parent = rustix::process::getppid()?;
    let parent = format!("/proc/{}", parent.as_raw_nonzero());
    let is_same = |theirs: &str, ours: &str| {
        let number = |path: &str| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
        let (theirs, ours) = (number(&format!("{parent}/{theirs}")), number(ours));
        theirs.is_none() || theirs == ours
    };
    if is_same("root", "/") || is_same("ns/net", "/proc/self/ns/net") {
        return None;
    }
    Some(
        "this container has a network of its own: bridge, tap and ports are made in there, and not on the host; \
         Docker: --network host",
    )
}
