//! How long and how often a key may be used.
//!
//! AES-GCM loses its strength with the amount sealed under one key (SP 800-38D,
//! 8.3) and a stolen key opens all it sealed; both are bounded. Counting is done
//! here, by [`crate::SendKey`]; age is known to whoever holds the clock.

use std::time::Duration;

/// Age at which the next epoch is begun.
pub const REKEY_AFTER: Duration = Duration::from_secs(120);
/// Age at which sealing and opening stop.
pub const KEY_LIFETIME: Duration = Duration::from_secs(180);
/// Datagrams of any one lane at which the next epoch is begun.
pub const REKEY_DATAGRAMS: u32 = 1 << 27;
/// Datagrams of one lane under one key, at most.
pub const KEY_DATAGRAMS: u32 = 1 << 28;
