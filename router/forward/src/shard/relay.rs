//! From the underlay to the underlay: frames of other peers, sent on.

use super::Shard;
use super::transmit::Bytes;
use crate::command::LinkId;
use crate::counters::DropReason;
use crate::io::deliveries::MAX_DATAGRAMS;
use crate::io::sends::Origin;
use crate::tables::Spread;
use std::io;
use std::ops::Range;
use weave_wire::InnerHeader;

/// Frames for everybody in the receive buffer at hand, all on one course. They
/// are kept until the next thing happens to the buffer, so that all of them go to
/// one link and then all to the next: as batches.
pub(super) struct Spreading {
    spread: Option<Spread>,
    frames: Vec<(Range<usize>, InnerHeader)>,
}

impl Spreading {
    /// No frames, and room for all of a receive buffer.
    pub(super) fn new() -> Self {
        Self { spread: None, frames: Vec::with_capacity(MAX_DATAGRAMS) }
    }

    /// True if there are none.
    pub(super) const fn is_empty(&self) -> bool {
        self.spread.is_none()
    }

    /// Adds a frame; false if it must wait until the others are sent.
    fn add(&mut self, spread: Spread, place: Range<usize>, inner: InnerHeader) -> bool {
        let fits = self.spread.is_none_or(|current| current == spread) && self.frames.len() < MAX_DATAGRAMS;
        if fits {
            self.spread = Some(spread);
            self.frames.push((place, inner));
        }
        fits
    }
}

impl Shard {
    /// Sends a frame that came with the header `inner` on by `link`.
    #[inline]
    pub(super) fn relay(&mut self, link: LinkId, inner: InnerHeader, from: &Bytes<'_>) -> io::Result<()> {
        let Some(inner) = inner.relayed() else {
            self.counters.dropped(DropReason::HopLimit);
            return Ok(());
        };
        match self.put_whole(link, &inner, from)? {
            Ok(()) => {
                self.counters.frames_relayed.add(1);
                self.counters.bytes_relayed.add(from.len() as u64);
            }
            Err(reason) => self.counters.dropped(reason),
        }
        Ok(())
    }

    /// Puts what lies at `from` on `link`, in fragments if its path is too short. The outer
    /// result is the ring's, the inner one says whether it was dropped.
    #[inline]
    pub(super) fn put_whole(
        &mut self,
        link: LinkId,
        inner: &InnerHeader,
        from: &Bytes<'_>,
    ) -> io::Result<Result<(), DropReason>> {
        let len = from.len();
        match self.tables.way(link) {
            Err(reason) => Ok(Err(reason)),
            Ok(way) if len > way.room => self.fragment(way, Origin::Relay, inner, from),
            Ok(way) => self.put(way, Origin::Relay, inner, from, len, <[u8]>::copy_from_slice),
        }
    }

    /// True if a frame for everybody may be sent on; else it is counted as dropped.
    fn may_spread(&self, inner: InnerHeader) -> bool {
        // One without a source is not let in.
        let Some(source) = inner.source() else { return false };
        match self.storm.admit_peer(source, self.tables.now) {
            Ok(()) => true,
            Err(reason) => {
                self.counters.dropped(reason);
                false
            }
        }
    }

    /// Sends a frame for everybody on, now, if there were not too many.
    pub(super) fn spread(&mut self, spread: Spread, inner: InnerHeader, from: &Bytes<'_>) -> io::Result<()> {
        if !self.may_spread(inner) {
            return Ok(());
        }
        let mut number = 0;
        while let Some(link) = self.tables.spread_to(spread, number) {
            number += 1;
            if let Some(link) = link {
                self.relay(link, inner, from)?;
            }
        }
        Ok(())
    }

    /// Takes note that the frame at `place` of `buffer` is to be sent on, if there were not
    /// too many.
    pub(super) fn spread_later(
        &mut self,
        buffer: u16,
        spread: Spread,
        place: Range<usize>,
        inner: InnerHeader,
    ) -> io::Result<()> {
        if !self.may_spread(inner) {
            return Ok(());
        }
        if !self.spreading.add(spread, place.clone(), inner) {
            self.spread_pending(buffer)?;
            // Now there is room.
            let _ = self.spreading.add(spread, place, inner);
        }
        Ok(())
    }

    /// Sends on what was taken note of in `buffer`.
    pub(super) fn spread_pending(&mut self, buffer: u16) -> io::Result<()> {
        let Some(spread) = self.spreading.spread.take() else { return Ok(()) };
        // The memory goes round.
        let mut frames = std::mem::take(&mut self.spreading.frames);
        let mut number = 0;
        while let Some(link) = self.tables.spread_to(spread, number) {
            number += 1;
            let Some(link) = link else { continue };
            for (place, inner) in &frames {
                self.relay(link, *inner, &Bytes::Received(buffer, place.clone()))?;
            }
        }
        frames.clear();
        self.spreading.frames = frames;
        Ok(())
    }
}
