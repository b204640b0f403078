//! IPv4 forwarding of the host: on while it is exposed, and afterwards as it was before.
//!
//! IPv6 is left as it is: a host that forwards it takes no default route from advertisements any
//! more.

use std::fs;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::bridge::BRIDGE;
use crate::error::Result;
use crate::netlink::Netlink;
use crate::protect::{forwards_ipv4, set_forward_ipv4};
use crate::store::{StateDir, StateFile, Stored};

pub(crate) const FILE: &str = "forwarding.json";
/// Where settings of the kernel are written that a start of the host makes, files and directories.
const CONFIGURATION: [&str; 5] =
    ["/etc/sysctl.conf", "/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d"];
/// How much of such a file is read, bytes.
const CONFIGURATION_MAX: u64 = 1 << 20;

/// That it was us who switched it on.
#[derive(Debug, Serialize, Deserialize)]
struct SwitchedOn {}

impl StateFile for SwitchedOn {
    const KIND: &'static str = "forwarding";
    const VERSION: u32 = 1;
}

/// Switches it on, and remembers if it was off.
pub(crate) fn switch_on(state: &StateDir) -> Result<()> {
    if forwards_ipv4()? {
        return Ok(());
    }
    state.write(FILE, &SwitchedOn {})?;
    set_forward_ipv4(true)
}

/// Switches it off again if it was off before, unless something else may need it by now.
///
/// # Errors
/// When the state or /proc/sys cannot be read or written.
pub fn put_back(state_dir: &Path, host: &mut Netlink) -> Result<()> {
    let state = StateDir::existing(state_dir);
    if matches!(state.read::<SwitchedOn>(FILE)?, Stored::Absent) {
        return Ok(());
    }
    if !has_other_bridge(host)? && !is_configured() {
        set_forward_ipv4(false)?;
    }
    state.remove(FILE).map(drop)
}

/// Engines and virtual machines have bridges, and rely on it without setting it when it is on.
fn has_other_bridge(host: &mut Netlink) -> Result<bool> {
    Ok(host.links()?.iter().any(|link| link.kind == "bridge" && link.name != BRIDGE))
}

/// Whether the host is told to forward whenever it starts.
fn is_configured() -> bool {
    CONFIGURATION.iter().map(Path::new).any(|place| match fs::read_dir(place) {
        Ok(entries) => entries.flatten().any(|entry| switches_on(&read(&entry.path()))),
        Err(_) => switches_on(&read(place)),
    })
}

fn read(path: &Path) -> String {
    let mut text = Vec::new();
    let _ = fs::File::open(path).and_then(|file| file.take(CONFIGURATION_MAX).read_to_end(&mut text));
    String::from_utf8_lossy(&text).into_owned()
}

/// sysctl.d(5): a minus before the name, dots or slashes in it.
fn switches_on(configuration: &str) -> bool {
    configuration.lines().filter_map(|line| line.split_once('=')).any(|(name, value)| {
        let name = name.trim().trim_start_matches('-').replace('/', ".");
        ["net.ipv4.ip_forward", "net.ipv4.conf.all.forwarding"].contains(&name.as_str())
            && value.trim() != "0"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_is_configured_to_forward_is_known() {
        for text in
            ["net.ipv4.ip_forward=1", "# x\n-net/ipv4/ip_forward = 1\n", "net.ipv4.conf.all.forwarding = 1"]
        {
            assert!(switches_on(text), "{text}");
        }
        for text in
            ["", "# net.ipv4.ip_forward=1", "net.ipv4.ip_forward = 0", "net.ipv4.ip_forward_use_pmtu=1"]
        {
            assert!(!switches_on(text), "{text}");
        }
    }
}
