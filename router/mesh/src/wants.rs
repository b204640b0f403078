//! Parts that others have newer: who is asked for them, and when.

use crate::output::LinkNumber;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use weave_wire::link::gossip::{PartKey, Version};

/// Parts wanted, at most.
pub const WANTS: usize = 16_384;
/// Parts asked of one link at once, at most.
pub const ASKED_PER_LINK: usize = 64;
/// Links remembered that have a part, at most.
const ANNOUNCERS: usize = 8;
/// How long a link may take for the next part asked of it; where others have the
/// part too, for this one.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct Want {
    announcers: Vec<(LinkNumber, Version)>,
    /// Who is asked, or will be.
    turn: LinkNumber,
    /// When it was asked.
    asked: Option<Duration>,
}

/// The wants whose turn is one link's.
#[derive(Debug, Default)]
struct Queue {
    idle: BTreeSet<PartKey>,
    /// Number of parts it is asked for.
    asked: usize,
    /// When the link answered last.
    answered: Duration,
}

impl Queue {
    fn load(&self) -> usize {
        self.idle.len() + self.asked
    }
}

/// All parts wanted. Each waits in the queue of one link that has it, so that no
/// link is kept from being asked by what others announce and never send.
#[derive(Debug, Default)]
pub(crate) struct Wants {
    wants: BTreeMap<PartKey, Want>,
    queues: BTreeMap<LinkNumber, Queue>,
    /// Announcements that found no room, and those that gave way.
    pub(crate) refused: u64,
}

impl Wants {
    /// `link` has a newer version of a part; `is_owner`: it is the part's owner,
    /// who is asked first and at once. False if there is no room for it.
    pub(crate) fn add(&mut self, key: PartKey, version: Version, link: LinkNumber, is_owner: bool) -> bool {
        let Some(want) = self.wants.get_mut(&key) else {
            if self.wants.len() >= WANTS && !self.make_room(link) {
                self.refused += 1;
                return false;
            }
            let announcers = vec![(link, version)];
            self.wants.insert(key, Want { announcers, turn: link, asked: None });
            self.queues.entry(link).or_default().idle.insert(key);
            return true;
        };
        let known = want.announcers.iter_mut().find(|(announcer, _)| *announcer == link);
        if let Some((_, known)) = known {
            *known = version.max(*known);
        } else if is_owner {
            want.announcers.truncate(ANNOUNCERS - 1);
            want.announcers.insert(0, (link, version));
        } else if want.announcers.len() < ANNOUNCERS {
            want.announcers.push((link, version));
        } else {
            return true;
        }
        let (turn, is_idle) = (want.turn, want.asked.is_none());
        if turn != link && (is_owner || (is_idle && self.load(link) + 1 < self.load(turn))) {
            self.leave_queue(key);
            self.enter_queue(key, link);
        }
        true
    }

    fn load(&self, link: LinkNumber) -> usize {
        self.queues.get(&link).map_or(0, Queue::load)
    }

    /// Makes room for a want of `link`: the link of which most is wanted gives way.
    fn make_room(&mut self, link: LinkNumber) -> bool {
        let greediest = self.queues.iter().max_by_key(|(_, queue)| queue.load()).map(|(link, _)| *link);
        let victim = greediest
            .filter(|greediest| self.load(*greediest) > self.load(link) + 1)
            .and_then(|greediest| self.queues.get(&greediest)?.idle.last().copied());
        let Some(key) = victim else { return false };
        self.refused += 1;
        self.drop_want(key);
        true
    }

    fn leave_queue(&mut self, key: PartKey) {
        let Some(want) = self.wants.get_mut(&key) else { return };
        let Some(queue) = self.queues.get_mut(&want.turn) else { return };
        if want.asked.take().is_some() {
            queue.asked = queue.asked.saturating_sub(1);
        } else {
            queue.idle.remove(&key);
        }
    }

    fn enter_queue(&mut self, key: PartKey, link: LinkNumber) {
        let Some(want) = self.wants.get_mut(&key) else { return };
        want.turn = link;
        self.queues.entry(link).or_default().idle.insert(key);
    }

    fn drop_want(&mut self, key: PartKey) {
        self.leave_queue(key);
        self.wants.remove(&key);
    }

    /// The link whose turn it was is done with: the next one, if any.
    fn next_turn(&mut self, key: PartKey) {
        self.leave_queue(key);
        let Some(want) = self.wants.get(&key) else { return };
        match want.announcers.iter().map(|(link, _)| *link).min_by_key(|link| self.load(*link)) {
            Some(link) => self.enter_queue(key, link),
            None => drop(self.wants.remove(&key)),
        }
    }

    /// `link` sent the part, be it as it may.
    pub(crate) fn answered(&mut self, key: PartKey, link: LinkNumber, now: Duration) {
        let Some(want) = self.wants.get_mut(&key) else { return };
        if want.turn == link && want.asked.is_some() {
            want.announcers.retain(|(announcer, _)| *announcer != link);
            self.next_turn(key);
            if let Some(queue) = self.queues.get_mut(&link) {
                queue.answered = now;
            }
        }
    }

    /// We have this version now: who has none newer need not be asked. Returns
    /// the links known to have it.
    pub(crate) fn have(&mut self, key: PartKey, version: Version) -> Vec<LinkNumber> {
        let Some(want) = self.wants.get_mut(&key) else { return Vec::new() };
        let holders =
            want.announcers.iter().filter(|(_, has)| *has >= version).map(|(link, _)| *link).collect();
        want.announcers.retain(|(_, has)| *has > version);
        if want.announcers.iter().all(|(link, _)| *link != want.turn) {
            self.next_turn(key);
        }
        holders
    }

    /// A link is gone: others are asked.
    pub(crate) fn link_removed(&mut self, link: LinkNumber) {
        let mut left = Vec::new();
        for (key, want) in &mut self.wants {
            want.announcers.retain(|(announcer, _)| *announcer != link);
            if want.turn == link {
                left.push(*key);
            }
        }
        for key in left {
            self.next_turn(key);
        }
        self.queues.remove(&link);
    }

    /// Whom to ask now for what. A link that was asked for much is asked again
    /// when it answered half of it.
    pub(crate) fn due(&mut self, now: Duration) -> BTreeMap<LinkNumber, Vec<PartKey>> {
        let mut due = BTreeMap::new();
        let free = self
            .queues
            .iter_mut()
            .filter(|(_, queue)| queue.asked <= ASKED_PER_LINK / 2 && !queue.idle.is_empty());
        for (link, queue) in free {
            let room = ASKED_PER_LINK - queue.asked;
            let keys: Vec<_> = std::iter::from_fn(|| queue.idle.pop_first()).take(room).collect();
            queue.asked += keys.len();
            for key in &keys {
                if let Some(want) = self.wants.get_mut(key) {
                    want.asked = Some(now);
                }
            }
            due.insert(*link, keys);
        }
        due
    }

    /// Gives up on links that did not answer in time; returns how many parts
    /// that concerns. Those announced by nobody else are wanted no more.
    pub(crate) fn expire(&mut self, now: Duration) -> u64 {
        let is_late = |want: &Want| {
            want.asked.is_some_and(|at| {
                // Who sends one part after the other is waited for, but not where
                // another link may be quicker.
                let answered = self.queues.get(&want.turn).map_or(Duration::ZERO, |queue| queue.answered);
                let since = if want.announcers.len() > 1 { at } else { at.max(answered) };
                now.saturating_sub(since) >= ANSWER_LIMIT
            })
        };
        let late: Vec<_> = self.wants.iter().filter(|(_, want)| is_late(want)).map(|(key, _)| *key).collect();
        for key in &late {
            if let Some(want) = self.wants.get_mut(key) {
                let turn = want.turn;
                want.announcers.retain(|(announcer, _)| *announcer != turn);
                self.next_turn(*key);
            }
        }
        late.len() as u64
    }

    /// True if somebody is asked for something.
    pub(crate) fn is_waiting(&self) -> bool {
        self.queues.values().any(|queue| queue.asked > 0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::topology::tests::peer;
    use weave_wire::Uid;
    use weave_wire::link::gossip::PartId;

    fn key(n: u16) -> PartKey {
        PartKey { owner: peer(n), part: PartId::HOST }
    }

    fn version(version: u64) -> Version {
        Version { version, uid: Uid(1) }
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    const A: LinkNumber = LinkNumber(1);
    const B: LinkNumber = LinkNumber(2);

    #[test]
    fn a_part_is_asked_of_one_link_and_of_the_next_when_that_is_silent() {
        let mut wants = Wants::default();
        assert!(wants.add(key(1), version(1), A, false));
        assert!(wants.add(key(1), version(1), B, false));
        assert_eq!(wants.due(at(0)), BTreeMap::from([(A, vec![key(1)])]));
        assert!(wants.due(at(10)).is_empty());
        assert_eq!(wants.expire(at(1999)), 0);
        assert_eq!(wants.expire(at(2000)), 1);
        assert_eq!(wants.due(at(2000)), BTreeMap::from([(B, vec![key(1)])]));
        assert_eq!(wants.expire(at(4000)), 1);
        assert!(wants.due(at(4000)).is_empty());
        assert!(!wants.is_waiting());
    }

    #[test]
    fn the_owner_is_asked_first_and_a_lost_link_is_replaced() {
        let mut wants = Wants::default();
        assert!(wants.add(key(1), version(1), A, false));
        assert!(wants.add(key(1), version(1), B, true));
        assert_eq!(wants.due(at(0)), BTreeMap::from([(B, vec![key(1)])]));
        wants.link_removed(B);
        assert_eq!(wants.due(at(1)), BTreeMap::from([(A, vec![key(1)])]));
        assert_eq!(wants.have(key(1), version(1)), [A]);
        assert!(wants.due(at(2)).is_empty());
    }

    #[test]
    fn a_link_is_asked_for_a_bounded_number_at_once() {
        let mut wants = Wants::default();
        for n in 0..1000 {
            assert!(wants.add(key(n), version(1), A, false));
        }
        assert_eq!(wants.due(at(0))[&A].len(), ASKED_PER_LINK);
        for n in 0..ASKED_PER_LINK as u16 / 2 {
            wants.answered(key(n), A, at(1));
            wants.have(key(n), version(1));
        }
        assert_eq!(wants.due(at(1))[&A].len(), ASKED_PER_LINK / 2);
        assert_eq!(wants.expire(at(2000)), 0, "the link answers");
        assert_eq!(wants.expire(at(2001)), ASKED_PER_LINK as u64);
    }

    #[test]
    fn the_owner_is_asked_at_once_though_another_link_was() {
        let mut wants = Wants::default();
        assert!(wants.add(key(1), version(9), A, false));
        assert_eq!(wants.due(at(0)), BTreeMap::from([(A, vec![key(1)])]));
        assert!(wants.add(key(1), version(1), B, true));
        assert_eq!(wants.due(at(1)), BTreeMap::from([(B, vec![key(1)])]));
        wants.answered(key(1), B, at(2));
        assert_eq!(wants.have(key(1), version(1)), [A]);
        assert_eq!(wants.due(at(3)), BTreeMap::from([(A, vec![key(1)])]), "what it said it has");
    }

    #[test]
    fn answers_to_other_questions_put_off_nobody_who_has_the_part_too() {
        let mut wants = Wants::default();
        for n in 1..=2 {
            assert!(wants.add(key(n), version(1), A, false));
        }
        assert_eq!(wants.due(at(0))[&A].len(), 2);
        assert!(wants.add(key(1), version(1), B, false));
        wants.answered(key(2), A, at(1900));
        wants.have(key(2), version(1));
        assert_eq!(wants.expire(at(2000)), 1);
        assert_eq!(wants.due(at(2000)), BTreeMap::from([(B, vec![key(1)])]));
    }

    #[test]
    fn a_link_that_announces_what_it_does_not_send_leaves_room_for_others() {
        let mut wants = Wants::default();
        for n in 0..2 * WANTS as u16 {
            wants.add(key(n), version(1), A, false);
        }
        assert_eq!(wants.refused, WANTS as u64);
        let _ = wants.due(at(0));
        // The last of all keys: whatever is looked at first, it is asked for at once.
        assert!(wants.add(key(u16::MAX), version(1), B, false));
        assert_eq!(wants.due(at(1)), BTreeMap::from([(B, vec![key(u16::MAX)])]));
        assert_eq!((wants.wants.len(), wants.refused), (WANTS, WANTS as u64 + 1));
    }

    #[test]
    fn links_that_have_the_same_share_the_work() {
        let mut wants = Wants::default();
        for link in [A, B] {
            for n in 0..60 {
                assert!(wants.add(key(n), version(1), link, false));
            }
        }
        let due = wants.due(at(0));
        assert!(due[&A].len().abs_diff(due[&B].len()) <= 2, "{} {}", due[&A].len(), due[&B].len());
    }

    #[test]
    fn the_number_of_wants_is_bounded() {
        let mut wants = Wants::default();
        for n in 0..WANTS as u16 {
            assert!(wants.add(key(n), version(1), A, false));
        }
        assert!(!wants.add(key(WANTS as u16), version(1), A, false));
        assert!(wants.add(key(1), version(2), A, false));
    }
}
