//! When a shard waits a moment for more, instead of waking for each datagram.
//!
//! What a network card does by interrupt moderation: where small frames come one by one, most of
//! a processor goes into falling asleep and waking up, and their sender is interrupted by each.

use std::time::Duration;

/// How long a shard waits for more once it wakes often: what a frame may lose by it. Measured with
/// 64-byte datagrams on two cores: 20 µs carry a tenth more of them than none, 50 µs a fifth and
/// without rounds that fall to half, 100 µs a third.
pub(super) const GATHERING: Duration = Duration::from_micros(50);

/// Turns are counted over this long.
const WINDOW: Duration = Duration::from_millis(1);

/// So many turns in a window are many: less than 16 µs each.
const MANY: u32 = 64;

/// With fewer in a window, more of the time is work than waiting: over 80 µs a turn.
const FEW: u32 = 12;

/// Counts turns, and says how to wait.
#[derive(Debug, Default)]
pub(super) struct Moderation {
    window_began: Duration,
    turns: u32,
    often: bool,
    /// The last wait found nothing.
    empty: bool,
}

impl Moderation {
    /// Takes note of a turn that begins at `now`, and whether its wait found anything.
    pub(super) fn turn(&mut self, now: Duration, found: bool) {
        self.empty = !found;
        if self.empty {
            return;
        }
        self.turns += 1;
        let passed = now.saturating_sub(self.window_began);
        if passed < WINDOW {
            return;
        }
        // A window in which nothing came for long has few turns for its length.
        let within = passed < 2 * WINDOW;
        self.often = within && self.turns >= if self.often { FEW } else { MANY };
        self.window_began = now;
        self.turns = 0;
    }

    /// True if the next wait should be for more than one completion. After a wait that found
    /// nothing it is for whatever comes first: else a shard would wake for ever.
    pub(super) const fn gathers(&self) -> bool {
        self.often && !self.empty
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turns `apart` from `start` on, for `long`; returns when they ended.
    fn run(moderation: &mut Moderation, start: Duration, apart: Duration, long: Duration) -> Duration {
        let mut now = start;
        while now < start + long {
            now += apart;
            moderation.turn(now, true);
        }
        now
    }

    const START: Duration = Duration::from_secs(100);
    const LONG: Duration = Duration::from_millis(20);

    #[test]
    fn who_wakes_often_gathers_and_who_has_work_does_not() {
        let mut moderation = Moderation::default();
        let mut now = START;
        for (apart_us, gathers) in
            [(50, false), (18, false), (10, true), (52, true), (70, true), (100, false), (52, false)]
        {
            now = run(&mut moderation, now, Duration::from_micros(apart_us), LONG);
            assert_eq!(moderation.gathers(), gathers, "{apart_us} us");
        }
    }

    #[test]
    fn a_request_now_and_then_waits_for_nobody() {
        let mut moderation = Moderation::default();
        // A request and its answer are a handful of turns at once.
        let mut now = START;
        for _ in 0..1000 {
            now = run(&mut moderation, now, Duration::from_micros(3), Duration::from_micros(24));
            assert!(!moderation.gathers());
            now += Duration::from_micros(300);
        }
    }

    #[test]
    fn a_wait_that_found_nothing_is_followed_by_one_without_end() {
        let mut moderation = Moderation::default();
        let end = run(&mut moderation, START, Duration::from_micros(10), LONG);
        moderation.turn(end + GATHERING, false);
        assert!(!moderation.gathers());
        moderation.turn(end + 3 * GATHERING, true);
        assert!(moderation.gathers(), "one gap is no end of a flow");
    }

    #[test]
    fn after_a_pause_nobody_waits() {
        let mut moderation = Moderation::default();
        let end = run(&mut moderation, START, Duration::from_micros(10), LONG);
        assert!(moderation.gathers());
        moderation.turn(end + 2 * WINDOW, true);
        assert!(!moderation.gathers());
    }
}
