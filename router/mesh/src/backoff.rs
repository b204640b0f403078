//! When a failed dial is tried again.

use std::time::Duration;

/// First wait after a loss.
const FIRST: Duration = Duration::from_millis(200);
/// Longest wait while the loss is fresh.
const FRESH_LIMIT: Duration = Duration::from_secs(1);
/// How long a loss is fresh: a peer that restarts is back by then, and a way that
/// is cut for a minute, too. After that data must pass within 3 s.
const FRESH: Duration = Duration::from_secs(90);
/// The same after links that ended before they passed data: their peer answers, and
/// each costs both ends a handshake.
const FRESH_ENDED: Duration = Duration::from_secs(15);
/// Longest wait at all.
const LIMIT: Duration = Duration::from_secs(180);
/// First wait after a refusal that time alone does not cure.
const SLOW: Duration = Duration::from_secs(10);

/// Grows with every failure since the last success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    begun: Duration,
    last: Option<Duration>,
}

impl Backoff {
    /// Begins at a loss, or at the first dial of a new target.
    #[must_use]
    pub const fn new(now: Duration) -> Self {
        Self { begun: now, last: None }
    }

    /// The wait after a failure at `now`; `refused`: for a reason that time alone
    /// does not cure. `jitter` is random, 0 to 1: the wait is shortened by up to
    /// a quarter, so that peers that lost each other do not dial in step.
    #[must_use]
    pub fn fail(&mut self, refused: bool, now: Duration, jitter: f64) -> Duration {
        match refused {
            true => self.wait(SLOW, LIMIT, jitter),
            false => self.grow(FRESH, now, jitter),
        }
    }

    /// The wait after a link that ended at `now` before it passed data.
    #[must_use]
    pub fn ended(&mut self, now: Duration, jitter: f64) -> Duration {
        self.grow(FRESH_ENDED, now, jitter)
    }

    fn grow(&mut self, fresh: Duration, now: Duration, jitter: f64) -> Duration {
        let is_fresh = now.saturating_sub(self.begun) < fresh;
        let (floor, limit) = if is_fresh { (FIRST, FRESH_LIMIT) } else { (FRESH_LIMIT, LIMIT) };
        self.wait(floor, limit, jitter)
    }

    fn wait(&mut self, floor: Duration, limit: Duration, jitter: f64) -> Duration {
        let wait = self.last.map_or(floor, |last| last * 2).clamp(floor, limit);
        self.last = Some(wait);
        wait.mul_f64(1.0 - 0.25 * jitter.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn waits_stay_under_a_second_while_the_loss_is_fresh_and_then_grow_to_minutes() {
        let mut backoff = Backoff::new(seconds(100));
        let mut now = seconds(100);
        let mut dials = 0;
        while now < seconds(190) {
            let wait = backoff.fail(false, now, 0.0);
            assert!((FIRST..=FRESH_LIMIT).contains(&wait), "{wait:?}");
            now += wait;
            dials += 1;
        }
        assert!(dials >= 90);
        let mut longest = Duration::ZERO;
        for _ in 0..20 {
            let wait = backoff.fail(false, now, 0.0);
            assert!(wait >= longest);
            longest = wait;
            now += wait;
        }
        assert_eq!(longest, LIMIT);
    }

    #[test]
    fn a_refusal_is_retried_slowly_at_once() {
        let mut backoff = Backoff::new(seconds(0));
        assert!(backoff.fail(true, seconds(0), 1.0) >= SLOW.mul_f64(0.75));
    }
}
