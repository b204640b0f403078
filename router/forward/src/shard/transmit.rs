//! Onto the links: frames become datagrams, datagrams become sends.

use super::Shard;
use crate::command::LinkId;
use crate::counters::DropReason;
use crate::io::ring::File;
use crate::io::sends::Origin;
use crate::segment::cut::{Outgoing, SuperFrame};
use crate::tables::{Way, datagram_len};
use std::io;
use std::ops::Range;
use weave_wire::inner::ChecksumRequest;
use weave_wire::link::heartbeat::KEEP_ALIVE_LEN;
use weave_wire::vnet::VNET_LEN;
use weave_wire::{DatagramKind, INNER_LEN, InnerHeader, OUTER_LEN, PeerName, TAG_LEN};
use zerocopy::IntoBytes;

/// Where the bytes of a frame lie.
pub(super) enum Bytes<'a> {
    /// In a buffer read from the tap.
    Read(u16, Range<usize>),
    /// In a receive buffer.
    Received(u16, Range<usize>),
    /// In memory of the caller's.
    Held(&'a [u8]),
}

impl Bytes<'_> {
    /// Their number.
    pub(super) const fn len(&self) -> usize {
        match self {
            Self::Read(_, range) | Self::Received(_, range) => range.end - range.start,
            Self::Held(bytes) => bytes.len(),
        }
    }
}

impl Shard {
    /// Sends a frame or super-frame by `link`, and counts what of it is dropped.
    #[inline]
    pub(super) fn send(
        &mut self,
        buffer: u16,
        len: usize,
        outgoing: Outgoing,
        peer: Option<PeerName>,
        link: LinkId,
    ) -> io::Result<()> {
        let way = match self.tables.way(link) {
            Ok(way) => way,
            Err(reason) => return self.refuse(reason, outgoing.frames()),
        };
        let from = Bytes::Read(buffer, VNET_LEN..len);
        let plan = match outgoing {
            Outgoing::Super(plan) => plan,
            Outgoing::Whole(request) => {
                let (inner, len) = (self.inner(peer, request), from.len());
                let result = if len > way.room {
                    self.send_oversize(way, &inner, &from)?
                } else {
                    self.put(way, Origin::Tap, &inner, &from, len, <[u8]>::copy_from_slice)?
                };
                return result.or_else(|reason| self.refuse(reason, 1));
            }
        };
        let inner = self.inner(peer, plan.request());
        if plan.segment_len(0) <= way.room {
            return self.send_segments(way, &inner, &plan, &from);
        }
        match plan.cut_to(way.room) {
            Some(shorter) => self.send_segments(way, &inner, &shorter, &from),
            None => self.send_oversize_segments(way, &inner, &plan, &from),
        }
    }

    /// Sends the segments of a super-frame, each of which `way` has room for.
    #[inline]
    fn send_segments(
        &mut self,
        way: Way,
        inner: &InnerHeader,
        plan: &SuperFrame,
        from: &Bytes<'_>,
    ) -> io::Result<()> {
        for index in 0..plan.count() {
            let len = plan.segment_len(index);
            let result = self.put(way, Origin::Tap, inner, from, len, |frame, read| {
                plan.write(read, index, frame);
            })?;
            if let Err(reason) = result {
                return self.refuse(reason, plan.count() - index);
            }
        }
        Ok(())
    }

    fn inner(&self, peer: Option<PeerName>, request: Option<ChecksumRequest>) -> InnerHeader {
        InnerHeader::new(self.tables.own_name(), peer, request)
    }

    /// The bytes of a frame.
    pub(super) fn bytes<'a>(&'a self, at: &'a Bytes<'_>) -> &'a [u8] {
        match at {
            Bytes::Read(buffer, range) => self.read.bytes(*buffer, range.clone()),
            Bytes::Received(buffer, range) => self.receive.bytes(*buffer, range.clone()),
            Bytes::Held(bytes) => bytes,
        }
    }

    /// Builds the datagram of a whole frame, as [`build`](Self::build) does, and
    /// counts it.
    #[inline]
    pub(super) fn put(
        &mut self,
        way: Way,
        origin: Origin,
        inner: &InnerHeader,
        from: &Bytes<'_>,
        frame_len: usize,
        fill: impl FnOnce(&mut [u8], &[u8]),
    ) -> io::Result<Result<(), DropReason>> {
        let result = self.build(way, origin, inner, from, frame_len, fill)?;
        if result.is_ok() {
            self.count_sent(way.link, frame_len);
        }
        Ok(result)
    }

    /// Counts a frame of `len` bytes that was put on a link.
    #[inline]
    pub(super) fn count_sent(&mut self, link: LinkId, len: usize) {
        if let Some(to) = self.tables.link_mut(link) {
            to.counters.frames_sent.add(1);
            to.counters.bytes_sent.add(len as u64);
        }
    }

    /// Builds one datagram in the batch: `fill` writes its body of `body_len` bytes
    /// out of what lies at `from`. The outer result is the ring's, the inner one says
    /// whether it was dropped.
    #[inline]
    pub(super) fn build(
        &mut self,
        way: Way,
        origin: Origin,
        inner: &InnerHeader,
        from: &Bytes<'_>,
        body_len: usize,
        fill: impl FnOnce(&mut [u8], &[u8]),
    ) -> io::Result<Result<(), DropReason>> {
        let full = match origin {
            Origin::Tap => DropReason::SendQueueFull,
            Origin::Relay => DropReason::RelayFull,
        };
        let link = way.link;
        let len = datagram_len(way.mode, body_len);
        let Some(slot) = self.slot_for(link, origin, len)? else { return Ok(Err(full)) };
        let Some(datagram) = self.sends.extend(slot, len) else { return Ok(Err(full)) };
        // The borrows are of different fields.
        let from = match from {
            Bytes::Read(buffer, range) => self.read.bytes(*buffer, range.clone()),
            Bytes::Received(buffer, range) => self.receive.bytes(*buffer, range.clone()),
            Bytes::Held(bytes) => bytes,
        };
        let (head, rest) = datagram.split_at_mut(OUTER_LEN + INNER_LEN);
        head[OUTER_LEN..].copy_from_slice(inner.as_bytes());
        fill(&mut rest[..body_len], from);
        let sealed = match self.tables.link_mut(link) {
            Some(to) => to.sender.as_mut().is_some_and(|sender| sender.finish(datagram).is_ok()),
            None => false,
        };
        if !sealed {
            // What is not sealed must not stay in the batch.
            self.sends.retract(slot, len);
            return Ok(Err(DropReason::KeyExpired));
        }
        Ok(Ok(()))
    }

    /// The slot in which the next datagram of `len` bytes to `link` belongs.
    #[inline]
    fn slot_for(&mut self, link: LinkId, origin: Origin, len: usize) -> io::Result<Option<u16>> {
        if let Some(slot) = self.batch {
            if self.sends.link(slot) == link && self.sends.fits(slot, len) {
                return Ok(Some(slot));
            }
            self.flush()?;
        }
        // Asking the kernel once for each frame that is dropped would cost more than the frame.
        let in_vain = origin == Origin::Relay && self.relay_full;
        if self.sends.available(origin) == 0 && !in_vain {
            self.make_room()?;
        }
        let Some(to) = self.tables.link_mut(link) else { return Ok(None) };
        self.batch = self.sends.begin(link, origin, &to.address, len);
        if origin == Origin::Relay {
            self.relay_full = self.batch.is_none();
        }
        Ok(self.batch)
    }

    /// A slot for a datagram of our own: not one that frames of containers fill. It waits behind
    /// theirs in the socket, but is sent; else a lane or a path would look dead when it is busy.
    fn slot_for_own(&mut self, link: LinkId, len: usize) -> io::Result<Option<u16>> {
        if self.tables.way(link).is_err() {
            return Ok(None);
        }
        let slot = self.slot_for(link, Origin::Relay, len)?;
        if slot.is_none() {
            self.counters.dropped(DropReason::SendQueueFull);
        }
        Ok(slot)
    }

    /// Hands the batch to the kernel.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let Some(slot) = self.batch else { return Ok(()) };
        let file = self.file_for(self.sends.link(slot));
        self.flush_from(file)
    }

    /// The socket that the link's datagrams leave by.
    fn file_for(&self, link: LinkId) -> File {
        if self.tables.is_one_port(link) { File::Mesh } else { File::Lane }
    }

    fn flush_from(&mut self, file: File) -> io::Result<()> {
        let Some(slot) = self.batch.take() else { return Ok(()) };
        if self.sends.count(slot) == 0 {
            self.sends.cancel(slot);
            return Ok(());
        }
        let link = self.sends.link(slot);
        self.tables.note_wear(link);
        let segmented = self.segmentation && self.tables.may_segment(link);
        self.sends.set_segmented(slot, segmented);
        self.counters.sends.add(1);
        self.ring.send(file, &mut self.sends, slot)
    }

    /// Seals and sends an empty datagram on this shard's lane; with `own_port`
    /// from the lane's own port in any case, beside what else is sent.
    pub(super) fn keep_alive(&mut self, link: LinkId, own_port: bool) -> io::Result<()> {
        if own_port {
            self.flush()?;
        }
        let len = OUTER_LEN + KEEP_ALIVE_LEN + TAG_LEN;
        let Some(slot) = self.slot_for_own(link, len)? else { return Ok(()) };
        let Some(datagram) = self.sends.extend(slot, len) else { return Ok(()) };
        datagram.fill(0);
        let sealed = self
            .tables
            .link_mut(link)
            .and_then(|to| to.sender.as_mut())
            .is_some_and(|sender| sender.key.seal(DatagramKind::KeepAlive, datagram).is_ok());
        if !sealed {
            self.sends.retract(slot, len);
        }
        if own_port { self.flush_from(File::Lane) } else { Ok(()) }
    }

    /// Sends a probe of the path: a keep-alive of `len` bytes in a datagram of its own.
    #[cold]
    pub(super) fn probe(&mut self, link: LinkId, number: u64, len: u16) -> io::Result<()> {
        let len = usize::from(len).max(OUTER_LEN + KEEP_ALIVE_LEN + 1 + TAG_LEN);
        self.flush()?;
        let Some(slot) = self.slot_for_own(link, len)? else { return Ok(()) };
        let Some(datagram) = self.sends.extend(slot, len) else { return Ok(()) };
        datagram.fill(0);
        if let Some(place) = datagram.get_mut(OUTER_LEN..OUTER_LEN + KEEP_ALIVE_LEN) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        let sealed = self
            .tables
            .link_mut(link)
            .and_then(|to| to.sender.as_mut())
            .is_some_and(|sender| sender.key.seal(DatagramKind::KeepAlive, datagram).is_ok());
        if sealed {
            self.probe_slots |= 1 << slot;
        } else {
            self.sends.retract(slot, len);
        }
        self.flush()
    }

    pub(super) fn on_sent(&mut self, slot: u16, result: i32) -> io::Result<()> {
        let sent = self.sends.complete(slot);
        let probe = self.probe_slots & (1 << slot) != 0;
        self.probe_slots &= !(1 << slot);
        // What one of them shows holds for all.
        let resent = self.resent_slots & (1 << slot) != 0;
        self.resent_slots &= !(1 << slot);
        if probe && -result == libc::EMSGSIZE {
            // It was to show just that.
        } else if result >= 0 {
            self.counters.datagrams_sent.add(sent.datagrams as u64);
            if resent {
                // They were not too long: the route's device cannot segment.
                self.tables.pause_segmentation(sent.link);
            }
        } else if sent.segmented && matches!(-result, libc::EIO | libc::EINVAL) {
            // The same datagrams one by one. That they are too long is EINVAL as well, before Linux
            // 6.14; then the first of them says so.
            self.counters.segmentation_refused.add(1);
            self.resent_slots |= 1 << slot;
            self.sends.set_segmented(slot, false);
            let file = self.file_for(sent.link);
            return self.ring.send(file, &mut self.sends, slot);
        } else if sent.segmented && -result == libc::EMSGSIZE {
            // Whether the one at the end is too big is not said yet.
            let (lost, rest) = self.sends.keep_shorter(slot);
            self.counters.dropped_many(DropReason::TooBig, lost as u64);
            if rest {
                let file = self.file_for(sent.link);
                return self.ring.send(file, &mut self.sends, slot);
            }
        } else {
            let reason = match -result {
                libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => DropReason::SendQueueFull,
                libc::EMSGSIZE => DropReason::TooBig,
                libc::ECONNREFUSED | libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN => {
                    DropReason::Unreachable
                }
                _ => DropReason::SendError,
            };
            self.counters.dropped_many(reason, sent.datagrams as u64);
        }
        if self.sends.release(slot) {
            self.relay_full = false;
        }
        Ok(())
    }
}
