//! Which of our ports a link's datagrams leave by.
//!
//! Each lane has a source port of its own, which is what keeps lanes apart on
//! their way (DESIGN.md, "Lanes"). Behind some firewalls and translators only
//! the mesh port passes: then all lanes of the link share it (`one_port`).

use std::time::Duration;

/// How long heartbeats may stay unanswered before every other one leaves by the
/// mesh port, to learn whether that one passes.
pub(super) const TRIAL_AFTER: Duration = Duration::from_secs(1);
/// How long a lane may take to be seen by the peer before its own port is given up.
pub(super) const LANE_LIMIT: Duration = Duration::from_secs(4);
/// How often the lanes' own ports are tried again.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_secs(45);
/// How long such a trial goes on.
const RETRY_LENGTH: Duration = Duration::from_secs(3);
/// An answer that left by our own port counts this long.
const OWN_ANSWER_KEPT: Duration = Duration::from_secs(6);

/// A lane that passed is given up after so many turns without a sign of it, one after the other: a
/// fifth of all datagrams may get lost, keep-alives and what is told of them alike, and none is.
const LOST_AFTER: u8 = 16;
/// After so many, turns follow each other fast: a lane is given up within 7.5 s, with heartbeats every
/// 2 s and fast ones every 250 ms.
const SUSPECT_AFTER: u8 = 1;

/// Which lanes of one direction still pass, by turns in each of which every one should be seen.
#[derive(Debug)]
pub(super) struct LaneWatch {
    /// In this turn.
    seen: u64,
    /// Turns since each was seen.
    missed: [u8; u64::BITS as usize],
}

impl Default for LaneWatch {
    fn default() -> Self {
        Self { seen: 0, missed: [0; u64::BITS as usize] }
    }
}

impl LaneWatch {
    /// These lanes were seen, or could not be expected to be.
    pub(super) const fn note(&mut self, lanes: u64) {
        self.seen |= lanes;
    }

    /// A turn ends in which `all` should have been seen. Returns those given up.
    pub(super) fn end_turn(&mut self, all: u64) -> u64 {
        let seen = std::mem::take(&mut self.seen);
        let mut lost = 0;
        for (lane, missed) in (0..u64::BITS).zip(&mut self.missed) {
            let is_missing = (all & !seen) >> lane & 1 == 1;
            *missed = if is_missing { missed.saturating_add(1) } else { 0 };
            if *missed >= LOST_AFTER {
                lost |= 1 << lane;
            }
        }
        lost
    }

    /// True if one of these lanes was not seen for a while.
    pub(super) fn is_suspect(&self, lanes: u64) -> bool {
        let missed = (0..u64::BITS).zip(&self.missed);
        missed.into_iter().any(|(lane, missed)| lanes >> lane & 1 == 1 && *missed >= SUSPECT_AFTER)
    }
}

/// Ports of one link.
#[derive(Debug, Default)]
pub(super) struct Ports {
    /// Only the mesh port passes, since then.
    one_port: Option<Duration>,
    own_answered: Option<Duration>,
    mesh_answered: Option<Duration>,
    /// Our lanes that the peer saw coming from a port of their own, in this trial.
    own_lanes: u64,
    beats: u64,
}

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// From now on only the mesh port is used.
    OnePort,
    /// From now on every lane uses its own.
    OwnPorts,
}

impl Ports {
    /// Since when only the mesh port is used.
    pub(super) const fn one_port(&self) -> Option<Duration> {
        self.one_port
    }

    /// True while the lanes' own ports are tried beside the mesh port.
    pub(super) fn is_trying(&self, now: Duration) -> bool {
        self.one_port.is_some_and(|since| {
            let in_turn = now.saturating_sub(since).as_millis() % RETRY_INTERVAL.as_millis();
            now.saturating_sub(since) >= RETRY_INTERVAL && in_turn < RETRY_LENGTH.as_millis()
        })
    }

    /// Whether the next heartbeat leaves by the mesh port. `unanswered`: for how
    /// long heartbeats have had no answer.
    pub(super) fn next_by_mesh_port(&mut self, unanswered: Duration, now: Duration) -> bool {
        self.beats += 1;
        let odd = self.beats % 2 == 1;
        if self.one_port.is_none() {
            return unanswered >= TRIAL_AFTER && odd;
        }
        // The other kind is tried in turn, never instead.
        !self.is_trying(now) || odd
    }

    /// A heartbeat was answered; `mesh_port`: it had left by the mesh port.
    /// `first`: the link is established by it.
    pub(super) fn on_answer(&mut self, mesh_port: bool, first: bool, now: Duration) -> Option<Change> {
        if !mesh_port {
            self.own_answered = Some(now);
            return None;
        }
        self.mesh_answered = Some(now);
        let own_passes = self.own_answered.is_some_and(|at| now.saturating_sub(at) < OWN_ANSWER_KEPT);
        if self.one_port.is_none() && (first || !own_passes) {
            return Some(self.give_up_own(now));
        }
        None
    }

    /// The peer says which of our lanes it saw, all and those from own ports;
    /// `all`: the lanes that need a port of their own to pass.
    pub(super) fn on_lanes(&mut self, own: u64, all: u64, now: Duration) -> Option<Change> {
        if !self.is_trying(now) {
            self.own_lanes = 0;
            return None;
        }
        self.own_lanes |= own;
        let control = self.own_answered.is_some_and(|at| now.saturating_sub(at) < RETRY_LENGTH);
        if control && self.own_lanes & all == all {
            self.one_port = None;
            self.own_lanes = 0;
            return Some(Change::OwnPorts);
        }
        None
    }

    /// A lane of ours did not come through by its own port.
    pub(super) const fn give_up_own(&mut self, now: Duration) -> Change {
        self.one_port = Some(now);
        self.own_lanes = 0;
        Change::OnePort
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_lane_that_stops_passing_is_given_up_and_one_that_passes_again_is_not() {
        let mut watch = LaneWatch::default();
        for turn in 1..LOST_AFTER {
            watch.note(0b101);
            assert_eq!(watch.end_turn(0b111), 0);
            assert_eq!(watch.is_suspect(0b111), turn >= SUSPECT_AFTER);
            assert!(!watch.is_suspect(0b101));
        }
        watch.note(0b010);
        watch.note(0b100);
        assert_eq!(watch.end_turn(0b110), 0);
        assert!(!watch.is_suspect(0b111));
        let lost: Vec<_> = (0..LOST_AFTER).map(|_| watch.end_turn(0b110)).collect();
        assert_eq!(lost.iter().filter(|lost| **lost == 0b110).count(), 1);
        assert_eq!(lost.last(), Some(&0b110));
    }

    #[test]
    fn no_lane_is_given_up_where_a_fifth_of_all_datagrams_gets_lost() {
        let mut watch = LaneWatch::default();
        // xorshift (Marsaglia 2003)
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut arrives = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            !state.is_multiple_of(5)
        };
        for _ in 0..100_000 {
            // What is told of the lanes gets lost, or the keep-alive of one.
            if arrives() {
                for lane in [0b01, 0b10] {
                    watch.note(if arrives() { lane } else { 0 });
                }
            }
            assert_eq!(watch.end_turn(0b11), 0);
        }
    }

    #[test]
    fn heartbeats_leave_by_their_own_port_while_they_are_answered() {
        let mut ports = Ports::default();
        assert!((0..10).all(|n| !ports.next_by_mesh_port(ms(999), ms(n))));
    }

    #[test]
    fn a_link_of_which_only_the_mesh_port_passes_uses_it() {
        let mut ports = Ports::default();
        let by_mesh: Vec<_> = (0..4).map(|_| ports.next_by_mesh_port(TRIAL_AFTER, ms(1_000))).collect();
        assert_eq!(by_mesh, [true, false, true, false]);
        assert_eq!(ports.on_answer(true, true, ms(1_100)), Some(Change::OnePort));
        assert!((0..4).all(|_| ports.next_by_mesh_port(ms(0), ms(1_200))));
    }

    #[test]
    fn an_answer_by_the_mesh_port_changes_nothing_where_the_own_one_passes() {
        let mut ports = Ports::default();
        assert_eq!(ports.on_answer(false, true, ms(0)), None);
        assert_eq!(ports.on_answer(true, false, ms(1_000)), None);
        assert_eq!(ports.one_port(), None);
    }

    #[test]
    fn own_ports_are_tried_again_and_used_once_every_lane_passes() {
        let mut ports = Ports::default();
        ports.give_up_own(ms(0));
        assert!(!ports.is_trying(ms(10_000)));
        assert_eq!(ports.on_lanes(0b10, 0b10, ms(10_000)), None, "not in a trial");
        let trial = RETRY_INTERVAL + ms(100);
        assert!(ports.is_trying(trial));
        let by_mesh: Vec<_> = (0..2).map(|_| ports.next_by_mesh_port(ms(0), trial)).collect();
        assert_eq!(by_mesh, [true, false]);
        assert_eq!(ports.on_lanes(0b010, 0b110, trial), None);
        assert_eq!(ports.on_answer(false, false, trial), None);
        assert_eq!(ports.on_lanes(0b100, 0b110, trial), Some(Change::OwnPorts));
        assert_eq!(ports.one_port(), None);
    }
}
