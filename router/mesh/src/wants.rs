//! Parts that others have newer: who is asked for them, and when.

use crate::output::LinkNumber;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use weave_wire::link::gossip::{PartKey, Version};

/// Parts wanted, at most.
pub const WANTS: usize = 16_384;
/// Parts wanted because one link announced them first, at most: a member that
/// announces what does not exist leaves room for others.
pub const WANTS_PER_LINK: usize = WANTS / 2;
/// Parts asked of one link at once, at most.
pub const ASKED_PER_LINK: usize = 64;
/// Links remembered that have a part, at most.
const ANNOUNCERS: usize = 8;
/// How long a link may take for the next part asked of it.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// How long it may take for any part, whatever else it sends.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

#[derive(Debug)]
struct Want {
    announcers: Vec<(LinkNumber, Version)>,
    asked: Option<(LinkNumber, Duration)>,
    /// Who announced it first.
    first: LinkNumber,
}

#[derive(Debug, Default)]
struct Asked {
    parts: usize,
    /// When the link answered last.
    answered: Duration,
}

impl Asked {
    /// A link that was asked for much is asked again when it answered half of it.
    const fn is_full(&self) -> bool {
        self.parts > ASKED_PER_LINK / 2
    }
}

/// All parts wanted.
#[derive(Debug, Default)]
pub(crate) struct Wants {
    wants: BTreeMap<PartKey, Want>,
    /// Those that somebody may be asked for.
    idle: BTreeSet<PartKey>,
    /// Those of which every announcer was asked for much already, by announcer.
    blocked: BTreeMap<LinkNumber, BTreeSet<PartKey>>,
    asked: BTreeMap<LinkNumber, Asked>,
    /// Number of wants by who announced them first.
    first: BTreeMap<LinkNumber, usize>,
}

impl Wants {
    /// `link` has a newer version of a part; `is_owner`: it is the part's owner,
    /// who is asked first, even if another was asked already. False if too much is
    /// wanted already.
    pub(crate) fn add(&mut self, key: PartKey, version: Version, link: LinkNumber, is_owner: bool) -> bool {
        if !self.wants.contains_key(&key) {
            let first = self.first.entry(link).or_default();
            if self.wants.len() >= WANTS || *first >= WANTS_PER_LINK {
                return false;
            }
            *first += 1;
        }
        let want = self.wants.entry(key).or_insert(Want { announcers: Vec::new(), asked: None, first: link });
        if is_owner && let Some((other, _)) = want.asked.filter(|(asked, _)| *asked != link) {
            want.asked = None;
            release(&mut self.asked, other);
        }
        if want.asked.is_none() {
            self.idle.insert(key);
        }
        let known = want.announcers.iter_mut().find(|(announcer, _)| *announcer == link);
        if let Some((_, known)) = known {
            *known = version.max(*known);
        } else if is_owner {
            want.announcers.truncate(ANNOUNCERS - 1);
            want.announcers.insert(0, (link, version));
        } else if want.announcers.len() < ANNOUNCERS {
            want.announcers.push((link, version));
        }
        true
    }

    /// `link` sent the part, be it as it may.
    pub(crate) fn answered(&mut self, key: PartKey, link: LinkNumber, now: Duration) {
        let Some(want) = self.wants.get_mut(&key) else { return };
        if want.asked.is_some_and(|(asked, _)| asked == link) {
            want.asked = None;
            want.announcers.retain(|(announcer, _)| *announcer != link);
            self.idle.insert(key);
            release(&mut self.asked, link);
            if let Some(asked) = self.asked.get_mut(&link) {
                asked.answered = now;
            }
            if self.wants.get(&key).is_some_and(|want| want.announcers.is_empty()) {
                self.drop_want(key);
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
        if want.announcers.is_empty() {
            self.drop_want(key);
        }
        holders
    }

    fn drop_want(&mut self, key: PartKey) {
        let Some(want) = self.wants.remove(&key) else { return };
        self.idle.remove(&key);
        self.blocked.retain(|_, keys| {
            keys.remove(&key);
            !keys.is_empty()
        });
        if let Some((link, _)) = want.asked {
            release(&mut self.asked, link);
        }
        if let Some(first) = self.first.get_mut(&want.first) {
            *first = first.saturating_sub(1);
            if *first == 0 {
                self.first.remove(&want.first);
            }
        }
    }

    /// A link is gone: others are asked.
    pub(crate) fn link_removed(&mut self, link: LinkNumber) {
        self.asked.remove(&link);
        self.blocked.remove(&link);
        let keys: Vec<_> = self.wants.keys().copied().collect();
        for key in keys {
            let Some(want) = self.wants.get_mut(&key) else { continue };
            want.announcers.retain(|(announcer, _)| *announcer != link);
            if want.asked.is_some_and(|(asked, _)| asked == link) {
                want.asked = None;
            }
            if want.asked.is_none() {
                self.idle.insert(key);
            }
            if want.announcers.is_empty() && want.asked.is_none() {
                self.drop_want(key);
            }
        }
    }

    /// Whom to ask now for what.
    pub(crate) fn due(&mut self, now: Duration) -> BTreeMap<LinkNumber, Vec<PartKey>> {
        let was_full: BTreeSet<LinkNumber> =
            self.asked.iter().filter(|(_, asked)| asked.is_full()).map(|(link, _)| *link).collect();
        let mut due: BTreeMap<LinkNumber, Vec<PartKey>> = BTreeMap::new();
        loop {
            self.unblock(&was_full);
            if self.idle.is_empty() {
                return due;
            }
            for key in std::mem::take(&mut self.idle) {
                let Some(want) = self.wants.get_mut(&key) else { continue };
                let room = |link: &LinkNumber| room_of(&self.asked, &was_full, *link) > 0;
                let Some(link) = want.announcers.iter().map(|(link, _)| *link).find(room) else {
                    for (link, _) in &want.announcers {
                        self.blocked.entry(*link).or_default().insert(key);
                    }
                    continue;
                };
                want.asked = Some((link, now));
                self.asked.entry(link).or_insert(Asked { parts: 0, answered: now }).parts += 1;
                due.entry(link).or_default().push(key);
            }
        }
    }

    /// What waits for links that may be asked again waits no longer.
    fn unblock(&mut self, was_full: &BTreeSet<LinkNumber>) {
        let Self { blocked, asked, idle, wants, .. } = self;
        blocked.retain(|link, keys| {
            let mut room = room_of(asked, was_full, *link);
            while room > 0
                && let Some(key) = keys.pop_first()
            {
                if wants.get(&key).is_some_and(|want| want.asked.is_none()) && idle.insert(key) {
                    room -= 1;
                }
            }
            !keys.is_empty()
        });
    }

    /// Gives up on links that did not answer in time; returns how many parts
    /// that concerns. Those announced by nobody else are wanted no more.
    pub(crate) fn expire(&mut self, now: Duration) -> u64 {
        let is_late = |asked: &BTreeMap<LinkNumber, Asked>, link: LinkNumber, at: Duration| {
            let answered = asked.get(&link).map_or(Duration::ZERO, |asked| asked.answered);
            let is_silent = now.saturating_sub(at.max(answered)) >= ANSWER_LIMIT;
            is_silent || now.saturating_sub(at) >= LONGEST_WAIT
        };
        let late: Vec<_> = self
            .wants
            .iter()
            .filter_map(|(key, want)| want.asked.map(|(link, at)| (*key, link, at)))
            .filter(|(_, link, at)| is_late(&self.asked, *link, *at))
            .collect();
        let count = late.len() as u64;
        for (key, link, _) in late {
            release(&mut self.asked, link);
            let Some(want) = self.wants.get_mut(&key) else { continue };
            want.asked = None;
            want.announcers.retain(|(announcer, _)| *announcer != link);
            if want.announcers.is_empty() {
                self.drop_want(key);
            } else {
                self.idle.insert(key);
            }
        }
        count
    }

    /// True if somebody is asked for something.
    pub(crate) fn is_waiting(&self) -> bool {
        self.asked.values().any(|asked| asked.parts > 0)
    }
}

/// A link is asked for one part less.
fn release(asked: &mut BTreeMap<LinkNumber, Asked>, link: LinkNumber) {
    if let Some(asked) = asked.get_mut(&link) {
        asked.parts = asked.parts.saturating_sub(1);
    }
}

/// How many parts more a link may be asked for.
fn room_of(asked: &BTreeMap<LinkNumber, Asked>, was_full: &BTreeSet<LinkNumber>, link: LinkNumber) -> usize {
    let parts = asked.get(&link).map_or(0, |asked| asked.parts);
    if was_full.contains(&link) { 0 } else { ASKED_PER_LINK.saturating_sub(parts) }
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
    fn the_number_of_wants_is_bounded_in_all_and_for_one_link() {
        let mut wants = Wants::default();
        let half = WANTS_PER_LINK as u16;
        for (link, first) in [(A, 0), (B, half)] {
            for n in first..first + half {
                assert!(wants.add(key(n), version(1), link, false));
            }
            assert!(!wants.add(key(u16::MAX), version(1), link, false));
        }
        assert!(!wants.add(key(u16::MAX), version(1), LinkNumber(3), false));
        assert!(wants.add(key(1), version(2), A, false));
        wants.link_removed(A);
        assert!(wants.add(key(u16::MAX), version(1), LinkNumber(3), false));
    }

    #[test]
    fn what_one_link_announces_and_never_sends_delays_nobody_else() {
        let mut wants = Wants::default();
        for n in 0..4000 {
            assert!(wants.add(key(n), version(9), A, false));
        }
        assert_eq!(wants.due(at(0))[&A].len(), ASKED_PER_LINK);
        assert!(wants.add(key(5000), version(1), B, false));
        assert!(wants.add(key(3999), version(1), B, false));
        assert_eq!(wants.due(at(1)), BTreeMap::from([(B, vec![key(3999), key(5000)])]));
        assert_eq!(wants.expire(at(2001)), ASKED_PER_LINK as u64 + 2);
        assert_eq!(wants.due(at(2001))[&A].len(), ASKED_PER_LINK, "its turn comes again");
    }

    #[test]
    fn the_owner_is_asked_at_once_even_if_another_was_asked_already() {
        let mut wants = Wants::default();
        assert!(wants.add(key(1), version(9), A, false));
        assert_eq!(wants.due(at(0)), BTreeMap::from([(A, vec![key(1)])]));
        assert!(wants.add(key(1), version(2), B, true));
        assert_eq!(wants.due(at(1)), BTreeMap::from([(B, vec![key(1)])]));
    }

    #[test]
    fn a_link_that_sends_now_and_then_cannot_hold_a_part_back() {
        let mut wants = Wants::default();
        for n in 0..30 {
            assert!(wants.add(key(n), version(9), A, false));
        }
        wants.due(at(0));
        for n in 0..11 {
            wants.answered(key(n), A, at(1900 * u64::from(n)));
            assert_eq!(wants.expire(at(1900 * u64::from(n))), 0, "it sends");
        }
        assert_eq!(wants.expire(at(20_000)), 19);
    }
}
