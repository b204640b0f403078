//! Giving up all privileges for good.

use crate::seccomp;
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};
use std::io;

/// Takes every capability from the calling thread, from those it starts and from all that is
/// executed later (capabilities(7)), and the system calls it has no use for. Gives the degraded
/// state where the kernel filters no calls. Call it before there is a second thread.
///
/// # Errors
/// The step that the kernel refused. Where only the bounding set stays, as in a container without
/// `CAP_SETPCAP`, that is no error: what is executed gains nothing from it.
pub(crate) fn drop_all() -> Result<Option<(&'static str, String)>, (&'static str, io::Error)> {
    let failed = |step| move |error: rustix::io::Errno| (step, io::Error::from(error));
    set_no_new_privs(true).map_err(failed("forbidding new privileges"))?;
    for bit in 0..u64::BITS {
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
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    set_capabilities(None, sets).map_err(failed("dropping the capabilities"))?;
    Ok(seccomp::restrict().err().map(|error| {
        let reason = format!(
            "this kernel filters no system calls ({error}): a router that is taken over could make any; run a kernel \
             with CONFIG_SECCOMP_FILTER"
        );
        ("no_seccomp", reason)
    }))
}
