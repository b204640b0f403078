//! Putting frames together again that came in fragments.
//!
//! Fragments of one frame have consecutive numbers on one lane, so that the number
//! of the first names the frame. They may come in any order; each number comes once,
//! the replay window sees to that.

use crate::command::LinkId;
use crate::counters::DropReason;
use std::ops::Range;
use std::time::Duration;
use weave_wire::inner::MAX_FRAGMENTS;
use weave_wire::{InnerHeader, Lane, SessionIndex};

/// Frames of which fragments are missing, at most.
pub const MAX_PARTIAL_FRAMES: usize = 64;
/// Of these from one link, at most.
pub const MAX_PARTIAL_FRAMES_OF_LINK: usize = 8;
/// Bytes of their fragments together, at most.
pub const MAX_PARTIAL_BYTES: usize = 2 << 20;
/// How long fragments wait for the others.
pub const FRAGMENT_LIFETIME: Duration = Duration::from_secs(1);

/// Where a fragment came from and what frame it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FrameKey {
    session: SessionIndex,
    lane: Lane,
    /// Number of the fragment with index 0.
    first: u32,
}

/// A fragment that was opened.
#[derive(Debug, Clone, Copy)]
pub struct Fragment<'a> {
    /// The link it came by.
    pub link: LinkId,
    /// Its session.
    pub session: SessionIndex,
    /// Its lane.
    pub lane: Lane,
    /// Its number.
    pub counter: u32,
    /// Its header.
    pub inner: InnerHeader,
    /// What it holds of the frame.
    pub bytes: &'a [u8],
}

/// A frame of which fragments are missing.
struct Partial {
    key: FrameKey,
    link: LinkId,
    begun: Duration,
    /// Of the fragment that came first, or of fragment 0 once that came.
    inner: InnerHeader,
    /// Index of the last fragment, once known.
    last: Option<u8>,
    count: u8,
    /// Where each fragment lies in `bytes`; empty: missing.
    places: [Range<usize>; MAX_FRAGMENTS as usize],
    /// Fragments in the order in which they came.
    bytes: Vec<u8>,
}

/// A frame put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reassembled {
    /// The header of its first fragment.
    pub inner: InnerHeader,
    /// The frame. To be given back.
    pub bytes: Vec<u8>,
}

/// Frames of a shard of which fragments are missing.
pub struct Reassembly {
    /// The oldest first.
    partials: Vec<Partial>,
    /// Bytes in them.
    held: usize,
    /// Longest frame, bytes.
    max_frame: usize,
    /// Memory that goes round.
    spare: Vec<Vec<u8>>,
    /// Frames given up since they were asked for, by reason.
    timed_out: u64,
    displaced: u64,
}

impl Reassembly {
    /// No fragments yet, of frames of at most `max_frame` bytes.
    #[must_use]
    pub fn new(max_frame: usize) -> Self {
        Self {
            partials: Vec::with_capacity(MAX_PARTIAL_FRAMES),
            held: 0,
            max_frame,
            spare: Vec::with_capacity(MAX_PARTIAL_FRAMES),
            timed_out: 0,
            displaced: 0,
        }
    }

    /// Memory for a frame.
    #[must_use]
    pub fn take_spare(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// Takes the memory of a frame back.
    pub fn give_back(&mut self, mut bytes: Vec<u8>) {
        if self.spare.len() < MAX_PARTIAL_FRAMES {
            bytes.clear();
            self.spare.push(bytes);
        }
    }

    /// Frames given up for the time they took, and for others that came, since the
    /// last call.
    #[must_use]
    pub const fn take_given_up(&mut self) -> (u64, u64) {
        let both = (self.timed_out, self.displaced);
        (self.timed_out, self.displaced) = (0, 0);
        both
    }

    /// Gives up frames whose fragments have waited too long at `now`.
    pub fn expire(&mut self, now: Duration) {
        while self.partials.first().is_some_and(|oldest| now >= oldest.begun + FRAGMENT_LIFETIME) {
            self.remove(0);
            self.timed_out += 1;
        }
    }

    fn remove(&mut self, place: usize) {
        let partial = self.partials.remove(place);
        self.held -= partial.bytes.len();
        self.give_back(partial.bytes);
    }

    /// Adds a fragment that came at `now`; returns the frame if it was the last one
    /// missing.
    ///
    /// # Errors
    /// [`DropReason::FragmentInconsistent`] if it does not fit the others, all of which
    /// are given up then, and [`DropReason::FrameTooLong`] if the frame is too long.
    pub fn add(&mut self, fragment: Fragment<'_>, now: Duration) -> Result<Option<Reassembled>, DropReason> {
        let index = fragment.inner.fragment();
        let first = fragment.counter.checked_sub(u32::from(index)).ok_or(DropReason::FragmentInconsistent)?;
        let key = FrameKey { session: fragment.session, lane: fragment.lane, first };
        let place = match self.partials.iter().position(|partial| partial.key == key) {
            Some(place) => place,
            None => self.begin(key, &fragment, now),
        };
        if self.partials.get(place).is_none_or(|partial| !partial.accepts(&fragment)) {
            self.remove(place);
            return Err(DropReason::FragmentInconsistent);
        }
        let Some(partial) = self.partials.get_mut(place) else { return Ok(None) };
        if partial.bytes.len() + fragment.bytes.len() > self.max_frame {
            self.remove(place);
            return Err(DropReason::FrameTooLong);
        }
        partial.add(&fragment);
        self.held += fragment.bytes.len();
        if partial.is_complete() {
            let partial = self.partials.remove(place);
            self.held -= partial.bytes.len();
            return Ok(Some(self.join(partial)));
        }
        // The oldest goes first, and never the one that just grew: it alone is shorter.
        while self.held > MAX_PARTIAL_BYTES && self.partials.len() > 1 {
            self.displaced += 1;
            self.remove(0);
        }
        Ok(None)
    }

    /// Makes room for another frame; returns its place.
    fn begin(&mut self, key: FrameKey, fragment: &Fragment<'_>, now: Duration) -> usize {
        let of_link = self.partials.iter().filter(|partial| partial.link == fragment.link).count();
        let oldest = if of_link >= MAX_PARTIAL_FRAMES_OF_LINK {
            self.partials.iter().position(|partial| partial.link == fragment.link)
        } else {
            (self.partials.len() >= MAX_PARTIAL_FRAMES).then_some(0)
        };
        if let Some(oldest) = oldest {
            self.displaced += 1;
            self.remove(oldest);
        }
        let bytes = self.take_spare();
        self.partials.push(Partial {
            key,
            link: fragment.link,
            begun: now,
            inner: fragment.inner,
            last: None,
            count: 0,
            places: [const { 0..0 }; MAX_FRAGMENTS as usize],
            bytes,
        });
        self.partials.len() - 1
    }

    /// The fragments in their order.
    fn join(&mut self, partial: Partial) -> Reassembled {
        let used = &partial.places[..usize::from(partial.count)];
        let inner = partial.inner.of_fragment(0, true);
        if used.is_sorted_by_key(|place| place.start) {
            return Reassembled { inner, bytes: partial.bytes };
        }
        let mut bytes = self.take_spare();
        for place in used {
            bytes.extend_from_slice(partial.bytes.get(place.clone()).unwrap_or_default());
        }
        self.give_back(partial.bytes);
        Reassembled { inner, bytes }
    }
}

impl Partial {
    /// True if the fragment can be one of this frame.
    fn accepts(&self, fragment: &Fragment<'_>) -> bool {
        let (inner, index) = (&fragment.inner, fragment.inner.fragment());
        let is_last = inner.is_last_fragment();
        let missing = self.places.get(usize::from(index)).is_some_and(Range::is_empty);
        let behind = self.places.iter().skip(usize::from(index) + 1).any(|place| !place.is_empty());
        missing
            && !fragment.bytes.is_empty()
            && inner.is_of_same_frame(&self.inner)
            && !(is_last && (self.last.is_some() || behind))
            && self.last.is_none_or(|last| index < last)
    }

    fn add(&mut self, fragment: &Fragment<'_>) {
        let index = fragment.inner.fragment();
        if index == 0 {
            self.inner = fragment.inner;
        }
        if fragment.inner.is_last_fragment() {
            self.last = Some(index);
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(fragment.bytes);
        self.count += 1;
        if let Some(place) = self.places.get_mut(usize::from(index)) {
            *place = start..self.bytes.len();
        }
    }

    fn is_complete(&self) -> bool {
        self.last.is_some_and(|last| self.count == last + 1)
    }
}

#[cfg(test)]
mod tests;
