//! How large a datagram the path of one link carries.
//!
//! Probes of chosen length are sent on the data lanes' own path and answered on
//! the control lane (packetization layer path MTU discovery, RFC 8899). What the
//! network says by ICMP counts for nothing. The largest datagram the network
//! ever needs is tried first, then the largest that is usual (without a VLAN
//! tag); where neither passes, a binary search finds what does. What was found is confirmed again and again, because paths shrink, and
//! the largest is tried again within a minute, because they grow.

use std::time::Duration;

/// Probes of one length without an answer after which it counts as too long.
const LOSSES: u32 = 3;
/// Shortest time to wait for an answer.
const WAIT_MIN: Duration = Duration::from_millis(200);
/// Longest.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// How exactly the search finds the limit, bytes.
const STEP: u16 = 16;
/// How often a settled length is confirmed.
const CONFIRM_INTERVAL: Duration = Duration::from_secs(3);
/// How often more is tried where the path does not carry the largest.
const RAISE_INTERVAL: Duration = Duration::from_secs(40);

/// A probe to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Its number, unlike that of any other of this link.
    pub number: u64,
    /// Length of the UDP payload, bytes.
    pub len: u16,
}

#[derive(Debug, Clone, Copy)]
struct Outstanding {
    probe: Probe,
    sent: Duration,
    losses: u32,
}

/// What is known of one path. Lengths are those of UDP payloads, in bytes.
#[derive(Debug, Clone)]
pub struct PathMtu {
    /// What every path carries.
    floor: u16,
    /// The largest datagram of frames without a VLAN tag.
    usual: u16,
    /// The largest datagram that is ever needed.
    ceiling: u16,
    usable: u16,
    /// While searching: the smallest length that did not pass.
    too_long: Option<u16>,
    outstanding: Option<Outstanding>,
    next_number: u64,
    next_probe: Duration,
    raise_at: Duration,
    wait: Duration,
}

impl PathMtu {
    /// A new path. The largest is taken to pass until it is known not to.
    #[must_use]
    pub fn new(floor: u16, usual: u16, ceiling: u16, now: Duration) -> Self {
        let usual = usual.max(floor);
        let ceiling = ceiling.max(usual);
        Self {
            floor,
            usual,
            ceiling,
            usable: ceiling,
            too_long: None,
            outstanding: None,
            next_number: 0,
            next_probe: now,
            raise_at: now.saturating_add(RAISE_INTERVAL),
            wait: WAIT_MIN,
        }
    }

    /// The largest datagram to send.
    #[must_use]
    pub const fn usable(&self) -> u16 {
        self.usable
    }

    /// True where the path does not carry the usual frames.
    #[must_use]
    pub const fn is_reduced(&self) -> bool {
        self.usable < self.usual
    }

    /// True while the limit is being searched for: what is usable now may soon be more.
    #[must_use]
    pub const fn is_searching(&self) -> bool {
        self.too_long.is_some()
    }

    /// The path is another one: begins with what every path carries.
    pub fn reset(&mut self, now: Duration) {
        let next_number = self.next_number;
        *self =
            Self { next_number, usable: self.floor, ..Self::new(self.floor, self.usual, self.ceiling, now) };
        self.raise_at = now;
    }

    /// The round trip of the link, by which answers are awaited.
    pub fn set_round_trip(&mut self, round_trip: Duration) {
        self.wait = (round_trip * 3).clamp(WAIT_MIN, WAIT_MAX);
    }

    /// What to send at `now`, if anything.
    #[must_use]
    pub fn poll(&mut self, now: Duration) -> Option<Probe> {
        if let Some(outstanding) = self.outstanding {
            if now < outstanding.sent.saturating_add(self.wait) {
                return None;
            }
            if outstanding.losses + 1 < LOSSES {
                return Some(self.send(outstanding.probe.len, outstanding.losses + 1, now));
            }
            self.on_too_long(outstanding.probe.len, now);
        }
        if now < self.next_probe {
            return None;
        }
        let len = self.next_len(now);
        Some(self.send(len, 0, now))
    }

    fn send(&mut self, len: u16, losses: u32, now: Duration) -> Probe {
        let probe = Probe { number: self.next_number, len };
        self.next_number += 1;
        self.outstanding = Some(Outstanding { probe, sent: now, losses });
        probe
    }

    fn next_len(&mut self, now: Duration) -> u16 {
        match self.too_long {
            // Rounded up, so that the search ends.
            Some(too_long) => self.usable + (too_long - self.usable).div_ceil(2),
            None if self.usable < self.ceiling && now >= self.raise_at => self.ceiling,
            None => self.usable,
        }
    }

    fn on_too_long(&mut self, len: u16, now: Duration) {
        self.outstanding = None;
        self.next_probe = now;
        let lowered = len <= self.usable;
        if lowered {
            // It shrank, or never was that large.
            self.usable = if len > self.usual { self.usual } else { self.floor };
        }
        self.narrow(Some(len.max(self.floor + 1)), now);
        if lowered {
            // What is taken to pass now is looked into at once.
            self.next_probe = now;
        }
    }

    /// A probe was answered.
    pub fn on_answer(&mut self, number: u64, len: u16, now: Duration) {
        let Some(outstanding) = self.outstanding else { return };
        if outstanding.probe.len != len || number > outstanding.probe.number {
            return;
        }
        self.outstanding = None;
        self.next_probe = now;
        self.usable = self.usable.max(len.min(self.ceiling));
        let too_long = self.too_long;
        self.narrow(too_long, now);
    }

    /// Goes on with the search, or ends it.
    fn narrow(&mut self, too_long: Option<u16>, now: Duration) {
        self.too_long = too_long.filter(|limit| limit.saturating_sub(self.usable) > STEP);
        if self.too_long.is_none() {
            self.next_probe = now.saturating_add(CONFIRM_INTERVAL);
            if now >= self.raise_at {
                self.raise_at = now.saturating_add(RAISE_INTERVAL);
            }
        }
    }

    /// When [`PathMtu::poll`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.outstanding.map_or(self.next_probe, |outstanding| outstanding.sent.saturating_add(self.wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FLOOR: u16 = 548;
    const USUAL: u16 = 1438;
    const CEILING: u16 = 1442;

    /// Runs the machine over a path that carries `limit` bytes for `length`;
    /// `lost` decides which probes get lost besides.
    fn run(
        path: &mut PathMtu,
        begin: Duration,
        length: Duration,
        limit: u16,
        mut lost: impl FnMut(u64) -> bool,
    ) -> Duration {
        let end = begin + length;
        let mut now = begin;
        while now < end {
            if let Some(probe) = path.poll(now)
                && probe.len <= limit
                && !lost(probe.number)
            {
                path.on_answer(probe.number, probe.len, now + Duration::from_millis(1));
            }
            assert!(path.usable() >= FLOOR && path.usable() <= CEILING);
            now = path.deadline().max(now + Duration::from_millis(1));
        }
        end
    }

    #[test]
    fn a_path_that_carries_everything_is_used_in_full_and_checked() {
        let mut path = PathMtu::new(FLOOR, USUAL, CEILING, Duration::ZERO);
        run(&mut path, Duration::ZERO, Duration::from_secs(120), 9000, |_| false);
        assert_eq!(path.usable(), CEILING);
        assert!(!path.is_reduced());
    }

    #[test]
    fn a_path_that_shrinks_and_grows_again_is_followed() {
        let mut path = PathMtu::new(FLOOR, USUAL, CEILING, Duration::ZERO);
        let now = run(&mut path, Duration::ZERO, Duration::from_secs(10), 1472, |_| false);
        let now = run(&mut path, now, Duration::from_secs(10), 1000, |_| false);
        assert!((1000 - STEP..=1000).contains(&path.usable()), "{}", path.usable());
        run(&mut path, now, Duration::from_secs(60), 1472, |_| false);
        assert_eq!(path.usable(), CEILING);
    }

    #[test]
    fn a_new_path_begins_at_the_floor_and_rises_at_once() {
        let mut path = PathMtu::new(FLOOR, USUAL, CEILING, Duration::ZERO);
        let now = run(&mut path, Duration::ZERO, Duration::from_secs(10), 1472, |_| false);
        path.reset(now);
        assert_eq!(path.usable(), FLOOR);
        run(&mut path, now, Duration::from_secs(1), 1472, |_| false);
        assert_eq!(path.usable(), CEILING);
    }

    #[test]
    fn a_path_that_carries_all_but_tags_is_never_taken_for_a_small_one() {
        let mut path = PathMtu::new(FLOOR, USUAL, CEILING, Duration::ZERO);
        let mut now = Duration::ZERO;
        while now < Duration::from_secs(120) {
            if let Some(probe) = path.poll(now)
                && probe.len <= USUAL
            {
                path.on_answer(probe.number, probe.len, now);
            }
            assert!(path.usable() >= USUAL && !path.is_reduced(), "{} at {now:?}", path.usable());
            now = path.deadline().max(now + Duration::from_millis(1));
        }
        assert_eq!(path.usable(), USUAL);
    }

    #[test]
    fn a_late_or_foreign_answer_changes_nothing() {
        let mut path = PathMtu::new(FLOOR, USUAL, CEILING, Duration::ZERO);
        path.reset(Duration::ZERO);
        path.on_answer(0, 1400, Duration::ZERO);
        let probe = path.poll(Duration::ZERO);
        assert_eq!(probe.map(|probe| probe.len), Some(CEILING));
        path.on_answer(0, CEILING - 1, Duration::ZERO);
        path.on_answer(9, CEILING, Duration::ZERO);
        assert_eq!(path.usable(), FLOOR);
    }

    proptest! {
        #[test]
        fn any_path_is_found_within_seconds(limit in FLOOR..2000, seed: u64) {
            let mut path = PathMtu::new(FLOOR, USUAL, CEILING, Duration::ZERO);
            // One probe in sixteen is lost.
            let lost = |number: u64| (seed ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60 == 0;
            let now = run(&mut path, Duration::ZERO, Duration::from_secs(60), limit, lost);
            run(&mut path, now, Duration::from_secs(60), limit, |_| false);
            let expected = limit.min(CEILING);
            prop_assert!(path.usable() <= expected && path.usable() + STEP >= expected,
                "{} of {expected}", path.usable());
        }
    }
}
