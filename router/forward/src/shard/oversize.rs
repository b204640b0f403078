//! Frames too big for the path of a link: their sender is told, or they go in fragments.

use super::Shard;
use super::transmit::Bytes;
use crate::counters::DropReason;
use crate::io::deliveries::Home;
use crate::io::sends::Origin;
use crate::segment::cut::SuperFrame;
use crate::tables::Way;
use std::io;
use weave_wire::InnerHeader;
use weave_wire::inner::MAX_FRAGMENTS;
use weave_wire::packet::icmp;
use weave_wire::vnet::VnetHeader;

/// Senders of packets too big that are told, a second and shard at most.
pub const ANSWERS_PER_SECOND: u32 = 100;

impl Shard {
    /// Deals with a frame of the tap that is longer than `way` has room for.
    #[cold]
    pub(super) fn send_oversize(
        &mut self,
        way: Way,
        inner: &InnerHeader,
        frame: &Bytes<'_>,
    ) -> io::Result<Result<(), DropReason>> {
        if !way.advise {
            return self.fragment(way, Origin::Tap, inner, frame);
        }
        let mut answer = self.tables.reassembly.take_spare();
        if !icmp::too_big(self.bytes(frame), way.room, &mut answer) {
            self.tables.reassembly.give_back(answer);
            return self.fragment(way, Origin::Tap, inner, frame);
        }
        self.answer(answer)?;
        Ok(Err(DropReason::TooBig))
    }

    /// Writes an answer to the tap, if there were not too many.
    fn answer(&mut self, answer: Vec<u8>) -> io::Result<()> {
        if !self.handed.has_room() || !self.answers.admit(self.tables.now, ANSWERS_PER_SECOND) {
            self.counters.icmp_too_big_limited.add(1);
            self.tables.reassembly.give_back(answer);
            return Ok(());
        }
        let whole = 0..answer.len();
        match self.handed.put(answer, Home::Reassembly, whole, VnetHeader::plain()) {
            Ok(slot) => {
                self.counters.icmp_too_big_sent.add(1);
                self.ring.write_handed(&self.handed, slot)
            }
            Err(answer) => {
                self.tables.reassembly.give_back(answer);
                Ok(())
            }
        }
    }

    /// Sends the segments of a super-frame of UDP, some longer than `way` has room
    /// for, one by one, and counts those that are dropped.
    #[cold]
    pub(super) fn send_oversize_segments(
        &mut self,
        way: Way,
        inner: &InnerHeader,
        plan: &SuperFrame,
        from: &Bytes<'_>,
    ) -> io::Result<()> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut answered = false;
        for index in 0..plan.count() {
            scratch.resize(plan.segment_len(index), 0);
            plan.write(self.bytes(from), index, &mut scratch);
            let segment = Bytes::Held(&scratch);
            let result = if scratch.len() <= way.room {
                self.put(way, Origin::Tap, inner, &segment, scratch.len(), <[u8]>::copy_from_slice)?
            } else if answered {
                // One answer is enough for the sender of all.
                Err(DropReason::TooBig)
            } else {
                self.send_oversize(way, inner, &segment)?
            };
            if let Err(reason) = result {
                answered |= reason == DropReason::TooBig;
                self.counters.dropped(reason);
            }
        }
        self.scratch = scratch;
        Ok(())
    }

    /// Sends a frame in fragments, each of as many bytes as `way` has room for.
    #[cold]
    pub(super) fn fragment(
        &mut self,
        way: Way,
        origin: Origin,
        inner: &InnerHeader,
        frame: &Bytes<'_>,
    ) -> io::Result<Result<(), DropReason>> {
        let len = frame.len();
        let count = len.div_ceil(way.room);
        if count > usize::from(MAX_FRAGMENTS) {
            return Ok(Err(DropReason::TooManyFragments));
        }
        let mut start = 0;
        for index in 0..MAX_FRAGMENTS {
            let piece = start..(start + way.room).min(len);
            let header = inner.of_fragment(index, piece.end == len);
            let result = self.build(way, origin, &header, frame, piece.len(), |body, frame| {
                body.copy_from_slice(frame.get(piece.clone()).unwrap_or_default());
            })?;
            if result.is_err() {
                // The receiver gives up those that went.
                return Ok(result);
            }
            self.counters.fragments_sent.add(1);
            start = piece.end;
            if start == len {
                break;
            }
        }
        self.count_sent(way.link, len);
        Ok(Ok(()))
    }
}
