//! Is the peer there? Heartbeats on the control lane of one link.
//!
//! A link is established once a heartbeat made the round trip, and dead when
//! none did for [`DEAD_AFTER`]; one that never did is given up after
//! [`PENDING_LIMIT`]. While answers come, a beat every [`INTERVAL`] is enough;
//! when one is missing, beats follow each other fast, so that 20 % loss never
//! looks like death. When TCP is closed or reset, three probes decide within
//! 600 ms.

use std::collections::VecDeque;
use std::time::Duration;

/// Why a link is given up that no datagram made the round trip over.
pub const NO_UDP: &str = "UDP does not pass: open the port of the mesh for UDP in both directions";
/// Time between heartbeats that are answered.
pub const INTERVAL: Duration = Duration::from_secs(2);
/// The same where something on the way forgets a flow that is silent: address
/// translators do after as little as 2 s.
pub const SHORT_INTERVAL: Duration = Duration::from_secs(1);
/// Time between heartbeats while an answer is missing.
pub const FAST_INTERVAL: Duration = Duration::from_millis(250);
/// Silence after which an established link is dead.
pub const DEAD_AFTER: Duration = Duration::from_secs(9);
/// Time a link may take to pass its first heartbeat.
pub const PENDING_LIMIT: Duration = Duration::from_secs(15);
/// Distance of the probes after the end of TCP.
const PROBE_INTERVAL: Duration = Duration::from_millis(200);
/// Number of these probes.
const PROBES: u32 = 3;
/// Heartbeats whose answer is awaited at once, at most.
const OUTSTANDING: usize = 64;

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// Send a heartbeat with this number.
    Send(u64),
    /// The link is dead; why, in words for `status`.
    Dead(&'static str),
}

/// State of one link.
#[derive(Debug, Clone)]
pub struct Liveness {
    begun: Duration,
    interval: Duration,
    last_answer: Option<Duration>,
    next_beat: Duration,
    sequence: u64,
    outstanding: VecDeque<(u64, Duration)>,
    /// Probing since then, because TCP ended; and probes sent.
    probing: Option<(Duration, u32)>,
    rtt: Option<Duration>,
}

impl Liveness {
    /// A link that has just been authenticated; the first beat is due.
    #[must_use]
    pub const fn new(now: Duration) -> Self {
        Self {
            begun: now,
            interval: INTERVAL,
            last_answer: None,
            next_beat: now,
            sequence: 0,
            outstanding: VecDeque::new(),
            probing: None,
            rtt: None,
        }
    }

    /// True once a heartbeat made the round trip.
    #[must_use]
    pub const fn is_established(&self) -> bool {
        self.last_answer.is_some()
    }

    /// Round trip of the last answered heartbeat.
    #[must_use]
    pub const fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Time between heartbeats from the next one on.
    pub fn set_interval(&mut self, interval: Duration, now: Duration) {
        self.interval = interval;
        self.next_beat = self.next_beat.min(now.saturating_add(interval));
    }

    /// For how long no heartbeat has been answered.
    #[must_use]
    pub fn unanswered(&self, now: Duration) -> Duration {
        let oldest = self.outstanding.front().map_or(now, |(_, sent)| *sent);
        now.saturating_sub(oldest)
    }

    /// TCP ended, and not because nothing came for long: probe.
    pub fn on_tcp_end(&mut self, now: Duration) {
        if self.probing.is_none() {
            self.probing = Some((now, 0));
            self.next_beat = now;
        }
    }

    /// TCP is back: the peer proved that it is there. Heartbeats decide again.
    pub fn on_tcp_resumed(&mut self) {
        self.probing = None;
    }

    /// Heartbeat `sequence` was answered: its round trip, if its answer was awaited. The link is
    /// established by it.
    pub fn on_answer(&mut self, sequence: u64, now: Duration) -> Option<Duration> {
        let place = self.outstanding.iter().position(|(number, _)| *number == sequence)?;
        let (_, sent) = self.outstanding.remove(place)?;
        if self.probing.is_some_and(|(since, _)| sent < since) {
            // Sent before the end of TCP: proves nothing about now.
            return None;
        }
        self.outstanding.retain(|(number, _)| *number > sequence);
        self.probing = None;
        self.rtt = Some(now.saturating_sub(sent));
        self.last_answer = Some(now);
        self.next_beat = sent.saturating_add(self.interval).max(now);
        self.rtt
    }

    /// True if a heartbeat is due.
    #[must_use]
    pub fn is_beat_due(&self, now: Duration) -> bool {
        now >= self.next_beat
    }

    /// Heartbeats of other links are sent at `now`: if nothing is amiss and the next
    /// one is due soon, it goes with them, and from then on stays with them: one
    /// wake-up serves many links. True if it was brought forward.
    pub fn join_beat(&mut self, now: Duration) -> bool {
        let joins = self.probing.is_none()
            && self.outstanding.is_empty()
            && self.is_established()
            && now < self.next_beat
            && self.next_beat.saturating_sub(now) <= self.interval / 4;
        if joins {
            self.next_beat = now;
        }
        joins
    }

    /// What is due at `now`, one thing at a time.
    pub fn poll(&mut self, now: Duration) -> Option<Beat> {
        if let Some(reason) = self.dead(now) {
            return Some(Beat::Dead(reason));
        }
        if now < self.next_beat {
            return None;
        }
        let wait = match &mut self.probing {
            Some((_, sent)) if *sent < PROBES => {
                *sent += 1;
                PROBE_INTERVAL
            }
            Some(_) => return None,
            None => FAST_INTERVAL,
        };
        self.next_beat = now.saturating_add(wait);
        let sequence = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        if self.outstanding.len() == OUTSTANDING {
            self.outstanding.pop_front();
        }
        self.outstanding.push_back((sequence, now));
        Some(Beat::Send(sequence))
    }

    fn dead(&self, now: Duration) -> Option<&'static str> {
        if self.probing.is_some_and(|(since, _)| now.saturating_sub(since) >= PROBE_INTERVAL * PROBES) {
            return Some("TCP ended and the peer answers no probe");
        }
        match self.last_answer {
            Some(at) => (now.saturating_sub(at) >= DEAD_AFTER).then_some("the peer answers no heartbeat"),
            None => (now.saturating_sub(self.begun) >= PENDING_LIMIT).then_some(NO_UDP),
        }
    }

    /// When [`poll`](Self::poll) has something to say.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        let end = match self.last_answer {
            Some(at) => at.saturating_add(DEAD_AFTER),
            None => self.begun.saturating_add(PENDING_LIMIT),
        };
        let probe_end = self.probing.map(|(since, _)| since.saturating_add(PROBE_INTERVAL * PROBES));
        let beat = match self.probing {
            Some((_, PROBES..)) => None,
            Some(_) | None => Some(self.next_beat),
        };
        [Some(end), probe_end, beat].into_iter().flatten().min().unwrap_or(end)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    /// Runs a link for `length`; `lost` says for each beat whether beat or answer
    /// gets lost. Returns when it died, if it did.
    fn run(
        link: &mut Liveness,
        from: Duration,
        length: Duration,
        mut lost: impl FnMut() -> bool,
    ) -> Option<Duration> {
        let mut now = from;
        while now < from + length {
            match link.poll(now) {
                Some(Beat::Dead(_)) => return Some(now),
                Some(Beat::Send(sequence)) => {
                    if !lost() {
                        link.on_answer(sequence, now + Duration::from_millis(1));
                    }
                }
                None => now = link.deadline().max(now + Duration::from_millis(1)),
            }
        }
        None
    }

    #[test]
    fn silence_is_death_within_ten_seconds_and_not_before_nine() {
        let mut link = Liveness::new(Duration::ZERO);
        assert_eq!(run(&mut link, Duration::ZERO, Duration::from_secs(20), || false), None);
        let died = run(&mut link, Duration::from_secs(20), Duration::from_secs(20), || true).unwrap();
        let silent = died - Duration::from_secs(20);
        assert!(silent < Duration::from_secs(10) && silent > Duration::from_secs(6), "{silent:?}");
    }

    #[test]
    fn a_link_that_never_passed_is_given_up_after_fifteen_seconds() {
        let mut link = Liveness::new(Duration::ZERO);
        assert_eq!(run(&mut link, Duration::ZERO, Duration::from_secs(60), || true), Some(PENDING_LIMIT));
        assert!(!link.is_established());
    }

    #[test]
    fn after_the_end_of_tcp_three_probes_decide_within_600_ms() {
        for (answered, dead) in [(false, true), (true, false)] {
            let mut link = Liveness::new(Duration::ZERO);
            run(&mut link, Duration::ZERO, Duration::from_secs(5), || false);
            let end = Duration::from_secs(5);
            link.on_tcp_end(end);
            let died = run(&mut link, end, Duration::from_secs(2), || !answered);
            assert_eq!(died.is_some(), dead);
            assert!(died.is_none_or(|at| at <= end + Duration::from_millis(600)));
        }
    }

    #[test]
    fn a_link_whose_tcp_is_resumed_in_time_outlives_lost_probes() {
        let mut link = Liveness::new(Duration::ZERO);
        run(&mut link, Duration::ZERO, Duration::from_secs(5), || false);
        let end = Duration::from_secs(5);
        link.on_tcp_end(end);
        let resumed = end + Duration::from_millis(500);
        assert_eq!(run(&mut link, end, Duration::from_millis(500), || true), None);
        link.on_tcp_resumed();
        assert_eq!(run(&mut link, resumed, Duration::from_secs(20), || false), None);
        // A peer that is there by TCP alone is dead all the same.
        link.on_tcp_end(Duration::from_secs(30));
        link.on_tcp_resumed();
        assert!(run(&mut link, Duration::from_secs(30), Duration::from_secs(10), || true).is_some());
    }

    #[test]
    fn an_answer_to_a_beat_from_before_the_end_of_tcp_proves_nothing() {
        let mut link = Liveness::new(Duration::ZERO);
        let Some(Beat::Send(early)) = link.poll(Duration::ZERO) else { panic!() };
        link.on_tcp_end(Duration::from_millis(1));
        assert_eq!(link.on_answer(early, Duration::from_millis(2)), None);
        assert!(!link.is_established());
    }

    #[test]
    fn an_idle_link_beats_once_in_two_seconds() {
        let mut link = Liveness::new(Duration::ZERO);
        let mut beats = 0;
        run(&mut link, Duration::ZERO, Duration::from_secs(60), || {
            beats += 1;
            false
        });
        assert!((29..=32).contains(&beats), "{beats}");
    }

    #[test]
    fn beats_of_links_that_are_due_soon_go_together_and_no_more_often() {
        let mut links = [0, 400].map(|millis| Liveness::new(Duration::from_millis(millis)));
        let (mut beats, mut wakes) = (0, 0);
        let mut now = Duration::ZERO;
        while now < Duration::from_secs(60) {
            if links.iter().any(|link| link.is_beat_due(now)) {
                for link in &mut links {
                    let _ = link.join_beat(now);
                }
            }
            let mut woken = false;
            for link in &mut links {
                while let Some(Beat::Send(sequence)) = link.poll(now) {
                    link.on_answer(sequence, now);
                    (beats, woken) = (beats + 1, true);
                }
            }
            wakes += u32::from(woken);
            now += Duration::from_millis(10);
        }
        assert!(wakes <= 32 && beats <= 2 * wakes, "{wakes} {beats}");
        // Where an answer is missing, beats follow a clock of their own.
        let Some(Beat::Send(_)) = links[0].poll(now + INTERVAL) else { panic!() };
        assert!(!links[0].join_beat(now + INTERVAL));
    }

    proptest! {
        #[test]
        fn a_fifth_of_all_datagrams_lost_kills_no_link(seed: u64) {
            let mut state = seed | 1;
            // xorshift64: both the beat and its answer get through with 0.8 each.
            let lost = move || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state % 10_000) as f64 / 10_000.0 > 0.64
            };
            let mut link = Liveness::new(Duration::ZERO);
            prop_assert_eq!(run(&mut link, Duration::ZERO, Duration::from_secs(60), lost), None);
        }
    }
}
