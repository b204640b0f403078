//! What this host must offer.

use std::fs::OpenOptions;
use std::path::Path;

use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};
use weave_host::firewall::Firewall;
use weave_router::{Features, LOCKED_MEMORY_MIN, SOCKET_BUFFER, probe_kernel};

use super::Finding;

/// Where the limits of socket buffers stand, and their names for sysctl.
const BUFFER_LIMITS: [(&str, &str); 2] = [
    ("/proc/sys/net/core/rmem_max", "net.core.rmem_max"),
    ("/proc/sys/net/core/wmem_max", "net.core.wmem_max"),
];

/// Looks at the kernel and its limits.
pub(super) fn look() -> Vec<Finding> {
    let root = rustix::process::geteuid().is_root();
    let mut findings = vec![privileges(root)];
    findings.extend(kernel());
    findings.push(tap());
    findings.push(locked_memory());
    findings.extend(BUFFER_LIMITS.iter().filter_map(|(path, name)| buffers(path, name, root)));
    findings.push(firewall());
    findings.extend(clock());
    findings
}

fn privileges(root: bool) -> Finding {
    if root {
        return Finding::ok("privileges", "root");
    }
    Finding::warning("privileges", "not root: some things cannot be looked at", "run it as root")
}

fn kernel() -> Vec<Finding> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let Features { read_multishot, gathering, segmentation, merging } = match probe_kernel(&[]) {
        Ok(features) => features,
        Err(error) => {
            let remedy = "Linux 6.1 or newer with io_uring: sysctl kernel.io_uring_disabled=0; in a container: a \
                          seccomp profile that allows it";
            return vec![Finding::failed("kernel", format_args!("{release}: {error}"), remedy)];
        }
    };
    let mut findings = vec![Finding::ok("kernel", format_args!("{release}, io_uring works"))];
    let mut slower = |has: bool, what: &str| {
        if !has {
            findings.push(Finding::warning("kernel", what, "a newer kernel makes the router faster"));
        }
    };
    slower(read_multishot, "no multishot reads: the tap is read frame by frame");
    slower(gathering, "no wait for several completions: a shard wakes for each small datagram");
    slower(segmentation, "no UDP segmentation: datagrams are sent one by one");
    slower(merging, "no UDP GRO: datagrams are received one by one");
    findings
}

fn tap() -> Finding {
    const DEVICE: &str = "/dev/net/tun";
    match OpenOptions::new().read(true).write(true).open(DEVICE) {
        Ok(_) => Finding::ok("tap", format_args!("{DEVICE} can be opened")),
        Err(error) if !Path::new(DEVICE).exists() => Finding::failed(
            "tap",
            format_args!("{DEVICE}: {error}"),
            "modprobe tun; Docker: --device /dev/net/tun",
        ),
        Err(error) => Finding::failed(
            "tap",
            format_args!("{DEVICE}: {error}"),
            "run it as root; Docker: --device /dev/net/tun",
        ),
    }
}

/// Root of a container has seldom what raises the limit.
fn locked_memory() -> Finding {
    let limit = getrlimit(Resource::Memlock);
    let raises = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_RESOURCE));
    match limit.maximum {
        Some(most) if most < LOCKED_MEMORY_MIN && !raises => Finding::failed(
            "locked memory",
            format_args!(
                "at most {} KiB may be locked, the router needs {} KiB",
                most >> 10,
                LOCKED_MEMORY_MIN >> 10
            ),
            "ulimit -l unlimited; systemd: LimitMEMLOCK=infinity; Docker: --ulimit memlock=-1",
        ),
        Some(_) | None => Finding::ok("locked memory", "as much as the router needs"),
    }
}

/// Root is not bound by these limits.
fn buffers(path: &str, name: &str, root: bool) -> Option<Finding> {
    let most: u64 = std::fs::read_to_string(path).ok()?.trim().parse().ok()?;
    if root || most >= SOCKET_BUFFER as u64 {
        return None;
    }
    let text = format!("{name} is {most}: under load datagrams are lost that larger buffers would hold");
    Some(Finding::warning("socket buffers", text, format_args!("sysctl -w {name}={SOCKET_BUFFER}")))
}

/// Nothing that hosts tell each other depends on it.
fn clock() -> Option<Finding> {
    let text = "nothing keeps it right: logs and metrics of hosts cannot be compared; links do not need it";
    match weave_host::is_clock_kept() {
        Ok(true) => Some(Finding::ok("clock", "is kept right")),
        Ok(false) => Some(Finding::warning("clock", text, "timedatectl set-ntp true, or another NTP client")),
        Err(_) => None,
    }
}

fn firewall() -> Finding {
    Firewall::find().map_or_else(
        || {
            let text = "neither iptables nor nft is installed: the host cannot let the network pass";
            Finding::failed("firewall", text, "apt-get install iptables, or nftables")
        },
        |firewall| Finding::ok("firewall", format_args!("rules are made by {firewall}")),
    )
}
