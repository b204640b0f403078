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
/// How long a link may take for the next part asked of it.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
struct Want {
    announcers: Vec<(LinkNumber, Version)>,
    asked: Option<(LinkNumber, Duration)>,
}

#[derive(Debug, Default)]
struct Asked {
    parts: usize,
    /// When the link answered last.
    answered: Duration,
}

/// All parts wanted.
#[derive(Debug, Default)]
pub(crate) struct Wants {
    wants: BTreeMap<PartKey, Want>,
    /// Those that nobody is asked for at the moment.
    idle: BTreeSet<PartKey>,
    asked: BTreeMap<LinkNumber, Asked>,
}

impl Wants {
    /// `link` has a newer version of a part; `is_owner`: it is the part's owner,
    /// who is asked first. False if too much is wanted already.
    pub(crate) fn add(&mut self, key: PartKey, version: Version, link: LinkNumber, is_owner: bool) -> bool {
        if self.wants.len() >= WANTS && !self.wants.contains_key(&key) {
            return false;
        }
        let want = self.wants.entry(key).or_default();
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
            if let Some(asked) = self.asked.get_mut(&link) {
                asked.parts = asked.parts.saturating_sub(1);
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
        self.idle.remove(&key);
        if let Some((link, _)) = self.wants.remove(&key).and_then(|want| want.asked)
            && let Some(asked) = self.asked.get_mut(&link)
        {
            asked.parts = asked.parts.saturating_sub(1);
        }
    }

    /// A link is gone: others are asked.
    pub(crate) fn link_removed(&mut self, link: LinkNumber) {
        self.asked.remove(&link);
        let keys: Vec<_> = self.wants.keys().copied().collect();
        for key in keys {
            let Some(want) = self.wants.get_mut(&key) else { continue };
            want.announcers.retain(|(announcer, _)| *announcer != link);
            if want.asked.is_some_and(|(asked, _)| asked == link) {
                want.asked = None;
                self.idle.insert(key);
            }
            if want.announcers.is_empty() && want.asked.is_none() {
                self.drop_want(key);
            }
        }
    }

    /// Whom to ask now for what. A link that was asked for much is asked again
    /// when it answered half of it.
    pub(crate) fn due(&mut self, now: Duration) -> BTreeMap<LinkNumber, Vec<PartKey>> {
        let mut due: BTreeMap<LinkNumber, Vec<PartKey>> = BTreeMap::new();
        let mut asked_now = Vec::new();
        let room: BTreeMap<LinkNumber, usize> = self
            .asked
            .iter()
            .filter(|(_, asked)| asked.parts > ASKED_PER_LINK / 2)
            .map(|(link, _)| (*link, 0))
            .collect();
        let mut full = room.len();
        for key in &self.idle {
            let Some(want) = self.wants.get_mut(key) else { continue };
            let free = want.announcers.iter().map(|(link, _)| *link).find(|link| {
                let before = self.asked.get(link).map_or(0, |asked| asked.parts);
                !room.contains_key(link) && before < ASKED_PER_LINK
            });
            let Some(link) = free else {
                full += 1;
                if full > WANTS_LOOKED_AT {
                    break;
                }
                continue;
            };
            want.asked = Some((link, now));
            self.asked.entry(link).or_insert(Asked { parts: 0, answered: now }).parts += 1;
            due.entry(link).or_default().push(*key);
            asked_now.push(*key);
        }
        for key in asked_now {
            self.idle.remove(&key);
        }
        due
    }

    /// Gives up on links that did not answer in time; returns how many parts
    /// that concerns. Those announced by nobody else are wanted no more.
    pub(crate) fn expire(&mut self, now: Duration) -> u64 {
        let is_late = |asked: &BTreeMap<LinkNumber, Asked>, link: LinkNumber, at: Duration| {
            let answered = asked.get(&link).map_or(Duration::ZERO, |asked| asked.answered);
            now.saturating_sub(at.max(answered)) >= ANSWER_LIMIT
        };
        let late: Vec<_> = self
            .wants
            .iter()
            .filter_map(|(key, want)| want.asked.map(|(link, at)| (*key, link, at)))
            .filter(|(_, link, at)| is_late(&self.asked, *link, *at))
            .collect();
        let count = late.len() as u64;
        for (key, link, _) in late {
            if let Some(asked) = self.asked.get_mut(&link) {
                asked.parts = asked.parts.saturating_sub(1);
            }
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

/// Wants looked at in vain before the rest has to wait.
const WANTS_LOOKED_AT: usize = 256;

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
    fn the_number_of_wants_is_bounded() {
        let mut wants = Wants::default();
        for n in 0..WANTS as u16 {
            assert!(wants.add(key(n), version(1), A, false));
        }
        assert!(!wants.add(key(WANTS as u16), version(1), A, false));
        assert!(wants.add(key(1), version(2), A, false));
    }
}
