//! Sending at a fixed rate.

use std::num::NonZeroU64;
use std::thread;
use std::time::{Duration, Instant};

/// Lets one datagram pass per interval; one that is late does not delay the following.
#[derive(Debug)]
pub(super) struct Pace {
    start: Instant,
    per_second: NonZeroU64,
    passed: u64,
}

impl Pace {
    /// The first datagram is due now.
    pub fn start(per_second: NonZeroU64) -> Self {
        Self { start: Instant::now(), per_second, passed: 0 }
    }

    /// Returns when the next datagram is due.
    pub fn wait(&mut self) {
        let due = Duration::from_secs_f64(self.passed as f64 / self.per_second.get() as f64);
        self.passed += 1;
        // A sleep ends late by some 50 us (timer slack); what fell due meanwhile follows at once.
        if let Some(early) = due.checked_sub(self.start.elapsed()) {
            thread::sleep(early);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_fell_due_during_a_stall_follows_at_once() {
        let mut pace = Pace::start(NonZeroU64::new(1000).unwrap());
        thread::sleep(Duration::from_millis(300));
        let begin = Instant::now();
        (0..290).for_each(|_| pace.wait());
        // Paced, it would take 290 ms.
        assert!(begin.elapsed() < Duration::from_millis(200));
    }

    #[test]
    fn the_rate_is_not_exceeded() {
        let mut pace = Pace::start(NonZeroU64::new(1000).unwrap());
        let begin = Instant::now();
        (0..51).for_each(|_| pace.wait());
        assert!(begin.elapsed() >= Duration::from_millis(49));
    }
}
