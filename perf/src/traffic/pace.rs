//! Sending at a fixed rate.

use std::num::NonZeroU64;
use std::thread;
use std::time::{Duration, Instant};

/// What fell due within this time before follows at once; what is later is left out. A sender that
/// waited for a processor would else send a burst that no queue was made for.
const CATCH_UP: Duration = Duration::from_millis(10);

/// Lets one datagram pass per interval; one that is late does not delay the following.
#[derive(Debug)]
pub(super) struct Pace {
    start: Instant,
    per_second: NonZeroU64,
    /// Datagrams passed or left out.
    past: u64,
}

impl Pace {
    /// The first datagram is due now.
    pub fn start(per_second: NonZeroU64) -> Self {
        Self { start: Instant::now(), per_second, past: 0 }
    }

    /// Returns when the next datagram is due.
    pub fn wait(&mut self) {
        let rate = self.per_second.get() as f64;
        let now = self.start.elapsed();
        // A sleep ends late by some 50 us (timer slack).
        self.past = self.past.max((now.saturating_sub(CATCH_UP).as_secs_f64() * rate) as u64);
        if let Some(early) = Duration::from_secs_f64(self.past as f64 / rate).checked_sub(now) {
            thread::sleep(early);
        }
        self.past += 1;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_what_fell_due_lately_follows_at_once() {
        let mut pace = Pace::start(NonZeroU64::new(1000).unwrap());
        thread::sleep(Duration::from_millis(300));
        let passed_within = |pace: &mut Pace, count, least: u64, most: u64| {
            let begin = Instant::now();
            (0..count).for_each(|_| pace.wait());
            let ms = begin.elapsed().as_millis() as u64;
            assert!((least..most).contains(&ms), "{count} in {ms} ms");
        };
        // Paced, they would take 300 ms.
        passed_within(&mut pace, 10, 0, 200);
        passed_within(&mut pace, 100, 85, u64::MAX);
    }

    #[test]
    fn the_rate_is_not_exceeded() {
        let mut pace = Pace::start(NonZeroU64::new(1000).unwrap());
        let begin = Instant::now();
        (0..51).for_each(|_| pace.wait());
        assert!(begin.elapsed() >= Duration::from_millis(49));
    }
}
