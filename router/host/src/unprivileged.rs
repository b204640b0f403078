//! Root of a world of its own: what `weave demo` needs when the user is not root.
//!
//! In a user namespace of its own a process may make network namespaces,
//! bridges and taps that nobody else sees (user_namespaces(7)). Two things
//! must be so on the machine: user namespaces are allowed, and /dev/net/tun is
//! open to all, as udev leaves it.

use std::fs::{self, OpenOptions};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use crate::error::{Error, Result};

const TUN: &str = "/dev/net/tun";
const NOTHING: Option<&str> = None;

/// Whether this process may set up interfaces and namespaces as it is: it is
/// root, with its capabilities, here or in a user namespace.
#[must_use]
pub fn is_privileged() -> bool {
    /// CAP_NET_ADMIN and CAP_SYS_ADMIN of linux/capability.h.
    const NEEDED: u64 = 1 << 12 | 1 << 21;
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|value| u64::from_str_radix(value.trim(), 16).ok())
        .is_some_and(|capabilities| capabilities & NEEDED == NEEDED)
}

/// Makes the calling process root of a user, mount and network namespace of
/// its own, with an empty /run. Call it before the process has a second
/// thread: the kernel demands that.
///
/// # Errors
/// [`Error::Missing`] says which of the two is missing: /dev/net/tun for
/// everybody, or user namespaces.
pub fn enter() -> Result<()> {
    check_tun()?;
    // Before unshare: afterwards both are "nobody" until the maps are written.
    let (uid, gid) = (geteuid(), getegid());
    let flags = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    unshare(flags).map_err(|error| no_user_namespaces(&error.to_string()))?;
    // A process without privileges may write a group map only after it has
    // given up changing its groups (user_namespaces(7)).
    for (file, value) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("0 {uid} 1")),
        ("gid_map", format!("0 {gid} 1")),
    ] {
        fs::write(format!("/proc/self/{file}"), value)
            .map_err(|error| no_user_namespaces(&format!("writing {file}: {error}")))?;
    }
    mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NOTHING)
        .map_err(|error| no_user_namespaces(&format!("a mount namespace of its own: {error}")))?;
    // Names of namespaces and control sockets go there.
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=0755"))
        .map_err(|error| Error::kernel("mount", "/run", error))
}

fn check_tun() -> Result<()> {
    match OpenOptions::new().read(true).write(true).open(TUN) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::Missing {
            step: "open",
            object: format!("{TUN}: {error}"),
            remedy: format!("run as root, or let root do `modprobe tun && chmod 666 {TUN}`"),
        }),
    }
}

fn no_user_namespaces(cause: &str) -> Error {
    Error::Missing {
        step: "make a user namespace",
        object: cause.to_owned(),
        remedy: "run as root, or let root allow user namespaces: sysctl user.max_user_namespaces, \
                 kernel.unprivileged_userns_clone (Debian), \
                 kernel.apparmor_restrict_unprivileged_userns (Ubuntu)"
            .to_owned(),
    }
}
