//! Whether this user may make namespaces and taps, and what makes it slower.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use weave_host::unprivileged;

use crate::failure::{Failure, Result};

/// Receive buffer that a router asks for, bytes.
const WANTED_BUFFER: u64 = 8 << 20;
/// Locked memory that two shards and the control core ask for, bytes.
const WANTED_LOCKED: u64 = 16 << 20;

/// Where the demonstration runs.
#[derive(Debug)]
pub struct Ground {
    /// Limits of an unprivileged user that cost speed; `None`: root has none.
    limits: Option<Vec<String>>,
    executable: PathBuf,
}

impl Ground {
    /// This program.
    pub fn executable(&self) -> &Path {
        &self.executable
    }

    /// How many shards the limits allow; `None`: as many as usual.
    pub fn shards(&self) -> Option<usize> {
        self.limits.as_ref().map(|_| 1)
    }
}

impl fmt::Display for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.limits {
            None => f.write_str("in namespaces of their own"),
            Some(limits) if limits.is_empty() => f.write_str("without root: one shard each"),
            Some(limits) => write!(f, "without root: one shard each, slower by {}", limits.join(" and ")),
        }
    }
}

/// Becomes root of a world of its own, if this process is not root already.
/// Must come before the process has a second thread.
pub fn prepare() -> Result<Ground> {
    // Before it is in a mount namespace of its own: if nobody is left in the former one, the kernel tells
    // only where it is on its mount.
    let executable =
        std::env::current_exe().map_err(|error| Failure::new("cannot find this executable", error, ""))?;
    if unprivileged::is_privileged() {
        return Ok(Ground { limits: None, executable });
    }
    // Read here: inside a network namespace of its own they are not to be seen.
    let mut limits = Vec::new();
    if let Some(bytes) = receive_buffer().filter(|bytes| *bytes < WANTED_BUFFER) {
        limits.push(format!(
            "net.core.rmem_max of {} KiB (wanted: {} KiB)",
            bytes >> 10,
            WANTED_BUFFER >> 10
        ));
    }
    if let Some(bytes) = locked_memory().filter(|bytes| *bytes < WANTED_LOCKED) {
        limits.push(format!("memlock of {} KiB (wanted: {} KiB)", bytes >> 10, WANTED_LOCKED >> 10));
    }
    unprivileged::enter().map_err(|error| Failure::because("cannot show the demo without root", error))?;
    Ok(Ground { limits: Some(limits), executable })
}

fn receive_buffer() -> Option<u64> {
    fs::read_to_string("/proc/sys/net/core/rmem_max").ok()?.trim().parse().ok()
}

/// `None`: unlimited.
fn locked_memory() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Memlock).current
}
