//! The clock of key ages.

use std::time::Duration;

/// Time since boot, suspension included (`CLOCK_BOOTTIME`): a key that slept
/// has aged.
#[must_use]
pub fn boot_time() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map_or(Duration::MAX, Duration::from)
}
