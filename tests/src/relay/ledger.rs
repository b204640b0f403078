//! What became of the frames in the datagrams that a relay saw, exactly.
//!
//! The unit is a frame of a container. Most go in a datagram of their own. On a path that is too
//! small a frame goes in fragments; the relay cannot look into them, but they follow each other in
//! a lane, and it knows the lengths that frames have: fragments whose lengths add up to one are one
//! frame. Of a frame some of whose fragments arrive the receiving router counts that it gave it up;
//! only one none of whose fragments is passed on is the relay's to count.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use weave_wire::{DatagramKind, INNER_LEN, Lane, OUTER_LEN, OuterHeader, TAG_LEN};

/// Why the relay did not pass a frame on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removal {
    /// By chance.
    Lost,
    /// Nothing passes in this direction.
    Blocked,
    /// The backlog is full.
    Clogged,
    /// Longer than what passes.
    TooBig,
}

/// What a UDP payload is to the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// No frame: heartbeats, keep-alives, probes.
    Control,
    /// A whole frame.
    Whole,
    /// A fragment of one.
    Part(Part),
}

/// Place and length of a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    session: u64,
    lane: u8,
    counter: u32,
    len: usize,
}

/// Counters that the test reads while the relay works.
#[derive(Debug, Default)]
pub struct Counts {
    /// Frames that are not passed on, by the order of [`Removal`].
    removed: [AtomicU64; 4],
    /// Frames in fragments none of which is passed on.
    removed_in_parts: AtomicU64,
    /// Copies that were passed on beside the original.
    copies: AtomicU64,
    /// Datagrams that the kernel did not take from the relay.
    refused: AtomicU64,
    /// Fragments without a frame: others of it did not come to the relay.
    orphans: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn value(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Counts {
    /// Frames that the relay took away, and how.
    #[must_use]
    pub fn removed(&self) -> [(&'static str, u64); 6] {
        let [lost, blocked, clogged, too_big] = self.removed.each_ref().map(value);
        [
            ("lost", lost),
            ("blocked", blocked),
            ("clogged", clogged),
            ("too_big", too_big),
            ("removed_in_parts", value(&self.removed_in_parts)),
            ("refused_by_kernel", value(&self.refused)),
        ]
    }

    /// Frames that the relay added.
    #[must_use]
    pub fn copies(&self) -> u64 {
        value(&self.copies)
    }

    /// Datagrams of which the relay does not know which frame they were part of.
    #[must_use]
    pub fn unclear(&self) -> u64 {
        value(&self.refused) + value(&self.orphans)
    }

    pub(super) fn add_copy(&self) {
        count(&self.copies);
    }

    pub(super) fn refuse(&self) {
        count(&self.refused);
    }
}

/// A frame whose fragments are coming.
#[derive(Debug, Clone, Copy)]
struct Open {
    next: u32,
    len: usize,
    parts: u64,
    removed: u64,
}

/// The account of one relay.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Lengths that frames have.
    frames: Vec<usize>,
    /// By session and lane.
    open: HashMap<(u64, u8), Open>,
}

impl Ledger {
    /// An account of frames of these lengths, bytes.
    pub(super) fn new(frames: &[usize]) -> Self {
        Self { frames: frames.to_vec(), open: HashMap::new() }
    }

    /// What a UDP payload is.
    pub(super) fn kind(&self, payload: &[u8]) -> Kind {
        let Some((header, _)) = OuterHeader::split(payload) else { return Kind::Control };
        let (Some(DatagramKind::Sealed), Some(lane)) = (header.kind(), header.lane()) else {
            return Kind::Control;
        };
        let Some(len) = payload.len().checked_sub(OUTER_LEN + INNER_LEN + TAG_LEN) else {
            return Kind::Control;
        };
        if lane == Lane::CONTROL {
            Kind::Control
        } else if self.frames.contains(&len) {
            Kind::Whole
        } else {
            let (session, counter) = (header.session().0, header.counter());
            Kind::Part(Part { session, lane: lane.number(), counter, len })
        }
    }

    /// A datagram came and is passed on, or not.
    pub(super) fn came(&mut self, kind: Kind, removal: Option<Removal>, counts: &Counts) {
        match (kind, removal) {
            (Kind::Control, _) | (Kind::Whole, None) => {}
            (Kind::Whole, Some(removal)) => count(&counts.removed[removal as usize]),
            (Kind::Part(part), removal) => self.came_in_part(part, removal.is_some(), counts),
        }
    }

    /// A copy is not passed on after all.
    pub(super) fn copy_removed(removal: Removal, counts: &Counts) {
        count(&counts.removed[removal as usize]);
    }

    fn came_in_part(&mut self, part: Part, removed: bool, counts: &Counts) {
        let key = (part.session, part.lane);
        let open = self.open.remove(&key);
        let mut frame = match open {
            Some(open) if open.next == part.counter => open,
            Some(_) => {
                count(&counts.orphans);
                Open { next: 0, len: 0, parts: 0, removed: 0 }
            }
            None => Open { next: 0, len: 0, parts: 0, removed: 0 },
        };
        frame.len += part.len;
        frame.parts += 1;
        frame.removed += u64::from(removed);
        frame.next = part.counter.wrapping_add(1);
        if self.frames.contains(&frame.len) {
            if frame.removed == frame.parts {
                count(&counts.removed_in_parts);
            }
        } else if self.frames.iter().any(|len| *len > frame.len) {
            self.open.insert(key, frame);
        } else {
            count(&counts.orphans);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weave_wire::SessionIndex;
    use zerocopy::IntoBytes;

    const FRAMES: [usize; 3] = [106, 642, 1342];

    fn payload(kind: DatagramKind, lane: Lane, counter: u32, len: usize) -> Vec<u8> {
        let header = OuterHeader::new(kind, lane, SessionIndex(7), counter);
        [header.as_bytes(), &vec![0; INNER_LEN + len + TAG_LEN]].concat()
    }

    /// Fragments of these lengths, of which some are removed, come on lane 0.
    fn fragments(parts: &[(u32, usize, bool)]) -> Counts {
        let (mut ledger, counts) = (Ledger::new(&FRAMES), Counts::default());
        for (counter, len, removed) in parts {
            let kind = ledger.kind(&payload(DatagramKind::Sealed, Lane::data(0).unwrap(), *counter, *len));
            ledger.came(kind, removed.then_some(Removal::Blocked), &counts);
        }
        counts
    }

    #[test]
    fn only_frames_count() {
        let ledger = Ledger::new(&FRAMES);
        let lane = Lane::data(3).unwrap();
        assert_eq!(ledger.kind(&payload(DatagramKind::Sealed, lane, 1, 642)), Kind::Whole);
        for other in [
            payload(DatagramKind::KeepAlive, lane, 1, 642),
            payload(DatagramKind::Control, Lane::CONTROL, 1, 642),
            vec![0x10; 9],
        ] {
            assert_eq!(ledger.kind(&other), Kind::Control);
        }
    }

    #[test]
    fn a_frame_is_removed_when_all_its_fragments_are() {
        let three = [(5, 464), (6, 464), (7, 414)];
        for removed in 0..8_u8 {
            let parts = [0, 1, 2].map(|at| (three[at].0, three[at].1, removed >> at & 1 == 1));
            let counts = fragments(&parts);
            assert_eq!(value(&counts.removed_in_parts), u64::from(removed == 7), "{removed:b}");
            assert_eq!(counts.unclear(), 0);
        }
        let two = fragments(&[(1, 464, true), (2, 178, true), (3, 1124, true), (4, 218, false)]);
        assert_eq!((value(&two.removed_in_parts), two.unclear()), (1, 0));
    }

    #[test]
    fn fragments_that_do_not_follow_each_other_are_unclear() {
        assert_eq!(fragments(&[(1, 464, false), (3, 178, false), (4, 464, false)]).unclear(), 1);
        assert_eq!(fragments(&[(1, 1000, false), (2, 1000, false)]).unclear(), 1);
    }
}
