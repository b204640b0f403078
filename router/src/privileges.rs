//! Giving up privileges for good.

use crate::seccomp::{self, Process};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};
use std::io;

/// What a keeper keeps, with the programs it runs:
///
/// | for | capability |
/// | --- | --- |
/// | interfaces, addresses, tables of the firewall, the tap | `NET_ADMIN`, `NET_RAW` |
/// | namespaces of containers, also of other users | `SYS_ADMIN`, `SYS_PTRACE` |
/// | state of other owners: the socket's group, files of the DNS | `DAC_OVERRIDE`, `DAC_READ_SEARCH`, `CHOWN`, `FOWNER`, `FSETID` |
/// | the DNS, which becomes a user of its own with port 53, and its end | `NET_BIND_SERVICE`, `SETUID`, `SETGID`, `KILL` |
/// | `iptables` of legacy tables, which loads them itself | `SYS_MODULE` |
pub const KEEPER: CapabilitySet = CapabilitySet::NET_ADMIN
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SYS_MODULE);

/// A step that the kernel refused, and why.
pub type StepError = (&'static str, io::Error);

/// Takes every capability from the calling thread, from those it starts and from all that is
/// executed later (capabilities(7)), and the system calls it has no use for. Gives the degraded
/// state where the kernel filters no calls. Call it before there is a second thread.
///
/// # Errors
/// The step that the kernel refused. Where only the bounding set stays, as in a container without
/// `CAP_SETPCAP`, that is no error: what is executed gains nothing from it.
pub(crate) fn drop_all() -> Result<Option<(&'static str, String)>, StepError> {
    keep(CapabilitySet::empty())?;
    Ok(seccomp::restrict(Process::Router).err().map(|error| {
        let reason = format!(
            "this kernel filters no system calls ({error}): a router that is taken over could make any; run a kernel \
             with CONFIG_SECCOMP_FILTER"
        );
        ("no_seccomp", reason)
    }))
}

/// Leaves the calling thread, those it starts and all that is executed later the capabilities of
/// [`KEEPER`] that they have, and takes the system calls that no keeper makes. A kernel that
/// filters no calls is said in the log. Call it before there is a second thread.
///
/// # Errors
/// The step that the kernel refused, as for the router.
pub fn keep_those_of_keeper() -> Result<(), StepError> {
    keep(KEEPER)?;
    if let Err(error) = seccomp::restrict(Process::Keeper) {
        tracing::warn!("this kernel filters no system calls: {error}; run one with CONFIG_SECCOMP_FILTER");
    }
    Ok(())
}

/// No capability beside `kept`, now and for whatever is executed.
fn keep(kept: CapabilitySet) -> Result<(), StepError> {
    let failed = |step| move |error: rustix::io::Errno| (step, io::Error::from(error));
    set_no_new_privs(true).map_err(failed("forbidding new privileges"))?;
    for bit in (0..u64::BITS).filter(|bit| kept.bits() & 1 << bit == 0) {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            Ok(()) => {}
            // The kernel knows no more.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => {
                tracing::info!("the bounding set of capabilities stays: {error}");
                break;
            }
        }
    }
    clear_ambient_capability_set().map_err(failed("clearing the ambient capabilities"))?;
    let had = capabilities(None).map_err(failed("reading the capabilities"))?.permitted;
    let left = had.intersection(kept);
    let sets = CapabilitySets { effective: left, permitted: left, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).map_err(failed("dropping the capabilities"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use nix::sched::{CloneFlags, unshare};
    use rustix::io::Errno;
    use std::process::Command;

    /// What a keeper may no more, whether a capability is missing for it or the call is refused.
    fn is_refused_the_rest() {
        // Capabilities: of others' priorities, of clocks, of files that cannot be changed.
        assert_eq!(rustix::process::setpriority_process(None, -5), Err(Errno::ACCESS));
        assert!(!capabilities(None).unwrap().permitted.intersects(KEEPER.complement()));
        // Calls, for all that the capability is there.
        let mounted = nix::mount::mount(
            Some("none"),
            "/mnt",
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            None::<&str>,
        );
        assert_eq!(mounted, Err(nix::errno::Errno::EPERM));
        let (mut here, there) = ([0; 1], nix::sys::uio::RemoteIoVec { base: 0x1000, len: 1 });
        let read = nix::sys::uio::process_vm_readv(
            nix::unistd::Pid::parent(),
            &mut [io::IoSliceMut::new(&mut here)],
            &[there],
        );
        assert_eq!(read, Err(nix::errno::Errno::EPERM));
        let bluetooth = nix::sys::socket::socket(
            nix::sys::socket::AddressFamily::Bluetooth,
            nix::sys::socket::SockType::Raw,
            nix::sys::socket::SockFlag::empty(),
            None,
        );
        assert_eq!(bluetooth.map(drop), Err(nix::errno::Errno::EPERM));
        // SAFETY: fails before it reads its arguments, which are null.
        let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, std::ptr::null::<u8>()) };
        assert_eq!((ring, io::Error::last_os_error().raw_os_error()), (-1, Some(libc::EPERM)));
    }

    #[test]
    fn a_keeper_does_what_it_has_to_and_is_refused_the_rest() {
        std::thread::spawn(|| {
            keep_those_of_keeper().unwrap();
            is_refused_the_rest();
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let parent = format!("/proc/{}/ns/net", std::os::unix::process::parent_id());
            let namespace = std::fs::File::open(parent).unwrap();
            nix::sched::setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
            rustix::net::socket(rustix::net::AddressFamily::PACKET, rustix::net::SocketType::RAW, None)
                .unwrap();
            let status = Command::new("cat").arg("/proc/self/status").output().unwrap().stdout;
            let status = String::from_utf8(status).unwrap();
            for set in ["CapPrm", "CapEff", "CapBnd"] {
                let line = format!("{set}:\t{:016x}", KEEPER.bits());
                assert!(status.contains(&line), "{line} of a program in {status}");
            }
            // Threads inherit it.
            std::thread::spawn(is_refused_the_rest).join().unwrap();
        })
        .join()
        .unwrap();
    }
}
