//! What can go wrong while traffic is generated.

use std::io;

/// A step of the generator that failed: what was tried, on what, why, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} {object}: {cause}; {remedy}")]
pub struct TrafficError {
    step: &'static str,
    object: String,
    #[source]
    cause: io::Error,
    remedy: &'static str,
}

impl TrafficError {
    pub(crate) fn new(
        step: &'static str,
        object: impl ToString,
        cause: impl Into<io::Error>,
        remedy: &'static str,
    ) -> Self {
        Self { step, object: object.to_string(), cause: cause.into(), remedy }
    }

    /// Why the step failed, as the kernel or the generator named it.
    pub fn cause(&self) -> &io::Error {
        &self.cause
    }
}

/// For steps that fail only when an address or a port is unusable.
pub(crate) const CHECK_ADDRESS: &str =
    "check that the address is configured in this network namespace and the port is free";

/// For steps that fail when the far end is not reachable.
pub(crate) const CHECK_PATH: &str = "check that the far address answers a ping from here";

/// For steps that fail when the machine is out of something.
pub(crate) const CHECK_LIMITS: &str = "check the limits on open files, threads and memory";
