//! When keys change, as far as time decides it.

use crate::limits::REKEY_AFTER;
use std::time::Duration;

/// When keys change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RekeyPolicy {
    /// Age at which the next epoch begins.
    pub after: Duration,
    /// Least age of an epoch when the next begins, whatever asks for it.
    pub spacing: Duration,
    /// How long the epoch before is accepted once the peer has left it.
    pub drain: Duration,
    /// A lane silent for this long has nothing on the way.
    pub idle: Duration,
}

impl Default for RekeyPolicy {
    fn default() -> Self {
        Self {
            after: REKEY_AFTER,
            spacing: Duration::from_secs(10),
            drain: Duration::from_secs(10),
            idle: Duration::from_secs(1),
        }
    }
}

impl RekeyPolicy {
    /// Re-keys as often as tests want: every `interval`, at least 100 ms.
    #[must_use]
    pub fn every(interval: Duration) -> Self {
        let interval = interval.max(Duration::from_millis(100));
        Self { after: interval, spacing: interval, ..Self::default() }
    }
}
