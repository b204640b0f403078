//! How large a datagram the path of one link carries.
//!
//! Probes of chosen length are sent on the data lanes' own path and answered on
//! the control lane (packetization layer path MTU discovery, RFC 8899). What the
//! network says by ICMP counts for nothing. The largest datagram the network
//! ever needs is taken to pass until a probe of it is lost. Then many lengths are
//! probed at once, the largest first: one round trip later the largest that came
//! through is used, and further rounds between that and the next one find the
//! limit. What was found is confirmed again and again, because paths shrink, and
//! the largest is tried again within a minute, because they grow.
//!
//! With each round goes a length that passed before, or what every path carries. Where
//! that is not answered either, the path is silent, and nothing is learned about lengths.

use std::time::Duration;

/// Probes of one length without an answer after which it counts as too long.
const LOSSES: u32 = 3;
/// Shortest time to wait for an answer.
const WAIT_MIN: Duration = Duration::from_millis(200);
/// Longest.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// How exactly the search finds the limit, bytes.
const STEP: u16 = 16;
/// Lengths probed at once between two others. Three rounds find the limit of any path of
/// up to 9,000 bytes, two of those of up to 1,500.
const RUNGS: u16 = 11;
/// How often a settled length is confirmed.
const CONFIRM_INTERVAL: Duration = Duration::from_secs(5);
/// How much sooner, to go with what is sent anyway: heartbeats are no further apart.
const JOIN: Duration = Duration::from_secs(2);
/// How often more is tried where the path does not carry the largest.
const RAISE_INTERVAL: Duration = Duration::from_secs(40);
/// How long a path may be silent before no more is sent than every path carries. A link on
/// which nothing passes is dead by then.
const SILENCE: Duration = Duration::from_secs(10);

/// A probe to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Its number, unlike that of any other of this link.
    pub number: u64,
    /// Length of the UDP payload, bytes.
    pub len: u16,
}

/// Lengths that are probed at the same time.
#[derive(Debug, Clone)]
struct Round {
    /// Those to send again if they are not answered, the largest first.
    open: Vec<u16>,
    /// Number of its first probe.
    first: u64,
    /// When they were last sent.
    sent: Duration,
    losses: u32,
    answered: bool,
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
    /// The smallest length that did not pass, if one is known.
    too_long: Option<u16>,
    /// What is usable may be less than what passes.
    searching: bool,
    round: Option<Round>,
    next_number: u64,
    next_round: Duration,
    raise_at: Duration,
    silent_since: Option<Duration>,
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
            searching: false,
            round: None,
            next_number: 0,
            next_round: now,
            raise_at: now.saturating_add(RAISE_INTERVAL),
            silent_since: None,
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
        self.searching
    }

    /// The path is another one: begins with what every path carries.
    pub fn reset(&mut self, now: Duration) {
        let (next_number, wait) = (self.next_number, self.wait);
        *self = Self {
            next_number,
            wait,
            usable: self.floor,
            searching: true,
            raise_at: now,
            ..Self::new(self.floor, self.usual, self.ceiling, now)
        };
    }

    /// The round trip of the link, by which answers are awaited.
    pub fn set_round_trip(&mut self, round_trip: Duration) {
        self.wait = (round_trip * 3).clamp(WAIT_MIN, WAIT_MAX);
    }

    /// Something else is sent on the link at `now`: a confirmation that is due soon goes with it.
    pub fn join(&mut self, now: Duration) {
        if self.round.is_none() && self.next_round.saturating_sub(now) <= JOIN {
            self.next_round = self.next_round.min(now);
        }
    }

    /// What to send at `now`, if anything, the largest first.
    #[must_use]
    pub fn poll(&mut self, now: Duration) -> Vec<Probe> {
        let Some(round) = &mut self.round else { return self.begin_round(now) };
        if now < round.sent.saturating_add(self.wait) {
            return Vec::new();
        }
        round.losses += 1;
        if round.losses == LOSSES {
            self.end_round(now);
            return self.begin_round(now);
        }
        if round.losses == 1 && round.open.contains(&self.usable) {
            // Does less pass?
            round.open.push(self.floor);
            if self.silent_since.is_none() {
                round.open.extend(rungs(self.floor, self.usable));
                round.open.extend(Some(self.usual).filter(|usual| *usual < self.usable));
            }
            in_order(&mut round.open);
        }
        self.send(now)
    }

    fn begin_round(&mut self, now: Duration) -> Vec<Probe> {
        if now < self.next_round {
            return Vec::new();
        }
        let mut open = vec![self.usable];
        if self.silent_since.is_some() {
            // Is it there at all?
        } else if let Some(too_long) = self.too_long.filter(|_| self.searching) {
            open.extend(rungs(self.usable, too_long));
        } else if self.usable < self.ceiling && now >= self.raise_at {
            self.raise_at = now.saturating_add(RAISE_INTERVAL);
            open.extend([self.ceiling, self.usual.max(self.usable)]);
            match self.too_long {
                // As long as this one does not pass, no other does.
                Some(too_long) => open.push(too_long),
                None => open.extend(rungs(self.usable, self.ceiling)),
            }
        }
        in_order(&mut open);
        self.round = Some(Round { open, first: self.next_number, sent: now, losses: 0, answered: false });
        self.send(now)
    }

    /// Sends what is open of the round.
    fn send(&mut self, now: Duration) -> Vec<Probe> {
        let Some(round) = &mut self.round else { return Vec::new() };
        round.sent = now;
        let probes = round.open.iter().zip(self.next_number..);
        let probes: Vec<_> = probes.map(|(len, number)| Probe { number, len: *len }).collect();
        self.next_number += probes.len() as u64;
        probes
    }

    /// A probe was answered.
    pub fn on_answer(&mut self, number: u64, len: u16, now: Duration) {
        let numbers = self.next_number;
        let Some(round) = &mut self.round else { return };
        if !(round.first..numbers).contains(&number) || !round.open.contains(&len) {
            return;
        }
        if self.silent_since.take().is_some() {
            // It is there again, and may be another one.
            (self.round, self.next_round, self.raise_at) = (None, now, now);
            return;
        }
        round.answered = true;
        // Where this one passed, shorter ones do.
        round.open.retain(|open| *open > len);
        let ended = round.open.is_empty();
        // Less than before is used while it is not known whether more passes.
        self.searching |= len != self.usable;
        self.usable = len;
        if ended {
            self.end_round(now);
        }
    }

    /// Ends the round: all is answered, or what is open does not pass.
    fn end_round(&mut self, now: Duration) {
        let Some(round) = self.round.take() else { return };
        self.next_round = now;
        if !round.answered {
            return self.on_silence(now);
        }
        match round.open.last() {
            Some(shortest) => self.too_long = Some(*shortest),
            None => self.too_long = self.too_long.filter(|too_long| *too_long > self.usable),
        }
        self.searching = self.too_long.is_some_and(|too_long| too_long - self.usable > STEP);
        if !self.searching {
            self.next_round = now.saturating_add(CONFIRM_INTERVAL);
        }
    }

    /// Nothing passes, of no length.
    fn on_silence(&mut self, now: Duration) {
        let since = *self.silent_since.get_or_insert(now);
        if now.saturating_sub(since) >= SILENCE {
            self.reset(now);
            self.silent_since = Some(since);
            self.next_round = now.saturating_add(CONFIRM_INTERVAL);
        }
    }

    /// When [`PathMtu::poll`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.round.as_ref().map_or(self.next_round, |round| round.sent.saturating_add(self.wait))
    }
}

/// Lengths between two others, each by the same factor longer than the one before.
fn rungs(low: u16, high: u16) -> impl Iterator<Item = u16> {
    let count = (high.saturating_sub(low) / STEP).min(RUNGS);
    let (from, factor) = (f64::from(low), f64::from(high) / f64::from(low.max(1)));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between two lengths")]
    let len = move |rung: u16| (from * factor.powf(f64::from(rung) / f64::from(count + 1))) as u16;
    (1..=count).map(len)
}

/// The longest first, each once.
fn in_order(lens: &mut Vec<u16>) {
    lens.sort_unstable_by(|one, other| other.cmp(one));
    lens.dedup();
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
            for probe in path.poll(now) {
                if probe.len <= limit && !lost(probe.number) {
                    path.on_answer(probe.number, probe.len, now + Duration::from_millis(1));
                }
            }
            assert!(path.usable() >= FLOOR && path.usable() <= path.ceiling);
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
            for probe in path.poll(now).into_iter().filter(|probe| probe.len <= USUAL) {
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
        let probes = path.poll(Duration::ZERO);
        assert_eq!(probes[0], Probe { number: 0, len: CEILING });
        path.on_answer(0, CEILING - 1, Duration::ZERO);
        path.on_answer(probes.len() as u64, CEILING, Duration::ZERO);
        assert_eq!(path.usable(), FLOOR);
        // Of what was sent on another path.
        path.reset(Duration::ZERO);
        let again = path.poll(Duration::ZERO);
        path.on_answer(0, CEILING, Duration::ZERO);
        assert_eq!(path.usable(), FLOOR);
        path.on_answer(again[0].number, CEILING, Duration::ZERO);
        assert_eq!(path.usable(), CEILING);
    }

    /// Lengths that are used on a path of a network of MTU 8890 which carries `limit` from `now`
    /// on, and since when each is.
    fn used(path: &mut PathMtu, mut now: Duration, limit: u16) -> Vec<(Duration, u16)> {
        let (mut used, end) = (Vec::new(), now + Duration::from_secs(12));
        while now < end {
            for probe in path.poll(now).into_iter().filter(|probe| probe.len <= limit) {
                path.on_answer(probe.number, probe.len, now);
            }
            if used.last().is_none_or(|(_, len)| *len != path.usable()) {
                used.push((now, path.usable()));
            }
            now = path.deadline().max(now + Duration::from_millis(1));
        }
        used
    }

    #[test]
    fn a_large_path_that_shrinks_is_never_used_at_the_floor() {
        const LARGE: u16 = 8938;
        for limit in (760..LARGE).step_by(7) {
            let mut path = PathMtu::new(FLOOR, LARGE - 4, LARGE, Duration::ZERO);
            used(&mut path, Duration::ZERO, 9000);
            let shrinks = Duration::from_secs(12);
            let used = used(&mut path, shrinks, limit);
            // Frames of 8,904 bytes fit in 16 fragments.
            assert!(used.iter().all(|(_, len)| *len >= 8904 / 16 + 48), "{limit}: {used:?}");
            // What does not pass is used until it is confirmed again and one probe is lost.
            let lower = used.iter().find(|(_, len)| *len <= limit).map(|(at, _)| *at - shrinks);
            assert!(lower.is_some_and(|at| at <= CONFIRM_INTERVAL + WAIT_MIN), "{limit}: {used:?}");
            let (last, found) = used[used.len() - 1];
            assert!(last - shrinks <= CONFIRM_INTERVAL + 9 * WAIT_MIN && !path.is_searching());
            assert!(found <= limit && found + STEP >= limit, "{limit}: {used:?}");
        }
    }

    #[test]
    fn a_large_path_is_found_in_a_round_trip_after_a_move() {
        let mut path = PathMtu::new(FLOOR, 8934, 8938, Duration::ZERO);
        path.reset(Duration::ZERO);
        let used = used(&mut path, Duration::ZERO, 1472);
        assert!(used[0].0.is_zero() && used[0].1 > 1300, "{used:?}");
    }

    #[test]
    fn a_silent_path_says_nothing_of_lengths() {
        let mut path = PathMtu::new(FLOOR, USUAL, CEILING, Duration::ZERO);
        let now = run(&mut path, Duration::ZERO, Duration::from_secs(10), 1472, |_| false);
        let now = run(&mut path, now, Duration::from_secs(9), 1472, |_| true);
        assert_eq!(path.usable(), CEILING);
        // Where nothing passes for as long as no link lives, the path may be a very small one.
        let now = run(&mut path, now, Duration::from_secs(10), 0, |_| false);
        assert_eq!(path.usable(), FLOOR);
        // Some datagrams an interval of confirmation go there.
        let mut sent = 0;
        let now = run(&mut path, now, 10 * CONFIRM_INTERVAL, 1472, |_| {
            sent += 1;
            true
        });
        assert!(sent < 100, "{sent} probes");
        run(&mut path, now, CONFIRM_INTERVAL + Duration::from_secs(1), 1472, |_| false);
        assert_eq!(path.usable(), CEILING);
    }

    #[test]
    fn a_confirmation_goes_with_heartbeats() {
        let mut path = PathMtu::new(FLOOR, USUAL, CEILING, Duration::ZERO);
        let (mut now, mut confirmed) = (Duration::ZERO, Vec::new());
        while now < Duration::from_secs(60) {
            // Each a little late.
            now += Duration::from_millis(2001);
            path.join(now);
            for probe in path.poll(now) {
                confirmed.push(now);
                path.on_answer(probe.number, probe.len, now + Duration::from_millis(300));
            }
            assert!(path.deadline() > now + Duration::from_millis(2001), "a probe of its own");
        }
        assert!((14..=16).contains(&confirmed.len()), "{confirmed:?}");
    }

    #[test]
    fn a_reduced_path_is_tried_again_with_few_bytes() {
        let mut path = PathMtu::new(FLOOR, USUAL, CEILING, Duration::ZERO);
        let now = run(&mut path, Duration::ZERO, Duration::from_secs(60), 1400, |_| false);
        let (mut sent, mut at) = (0, now);
        while at < now + 10 * RAISE_INTERVAL {
            for probe in path.poll(at) {
                sent += u64::from(probe.len);
                if probe.len <= 1400 {
                    path.on_answer(probe.number, probe.len, at);
                }
            }
            assert!(!path.is_searching());
            at = path.deadline().max(at + Duration::from_millis(1));
        }
        let rate = sent / (at - now).as_secs();
        assert!(rate < 800, "{rate} bytes a second");
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
