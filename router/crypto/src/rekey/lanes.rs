//! When each lane of the peer was last seen in one epoch.

use std::time::Duration;
use weave_wire::Lane;

/// All data lanes, and the control lane at the end.
const SLOTS: usize = Lane::COUNT + 1;

#[derive(Clone)]
pub(super) struct LanesSeen(Box<[Option<Duration>; SLOTS]>);

impl Default for LanesSeen {
    fn default() -> Self {
        Self(Box::new([None; SLOTS]))
    }
}

impl LanesSeen {
    pub(super) fn mark(&mut self, lane: Lane, now: Duration) {
        let slot = usize::from(lane.number()).min(Lane::COUNT);
        if let Some(slot) = self.0.get_mut(slot) {
            *slot = Some(now);
        }
    }

    /// The time from which every lane seen here is seen in `current` or has been
    /// silent for `idle`, counted from `left` at the earliest.
    pub(super) fn settled_at(&self, current: &Self, left: Duration, idle: Duration) -> Duration {
        let unsettled = self.0.iter().zip(current.0.iter()).filter_map(|(old, new)| match new {
            Some(_) => None,
            None => *old,
        });
        unsettled.max().map_or(Duration::ZERO, |last| last.max(left).saturating_add(idle))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_lane_holds_the_next_epoch_up_until_it_moved_or_fell_silent() {
        let (second, idle) = (Duration::from_secs, Duration::from_secs(1));
        let (mut old, mut new) = (LanesSeen::default(), LanesSeen::default());
        let settled = |old: &LanesSeen, new: &LanesSeen| old.settled_at(new, second(3), idle);
        assert_eq!(settled(&old, &new), Duration::ZERO);
        old.mark(Lane::CONTROL, second(2));
        assert_eq!(settled(&old, &new), second(4), "the peer left at 3 s");
        old.mark(Lane::CONTROL, second(5));
        old.mark(Lane::data(63).unwrap(), second(7));
        assert_eq!(settled(&old, &new), second(8));
        new.mark(Lane::data(63).unwrap(), second(7));
        assert_eq!(settled(&old, &new), second(6));
        new.mark(Lane::CONTROL, second(7));
        assert_eq!(settled(&old, &new), Duration::ZERO);
    }
}
