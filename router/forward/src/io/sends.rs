//! Slots in which datagrams are built and wait until the kernel took them.

use super::address::{RAW_ADDRESS_LEN, RawAddress};
use super::memory::Memory;
use crate::command::LinkId;
use crate::segment::MAX_SEGMENTS;
use std::io;

/// Slots of one shard.
pub const SLOTS: u16 = 64;
// A shard keeps a bit for each.
const _: () = assert!(SLOTS as u32 <= u64::BITS);
/// Bytes of datagrams in one slot: what one `UDP_SEGMENT` send may carry over
/// IPv4 (65,535 less IP and UDP header) and IPv6.
pub const SLOT_LEN: usize = 65_487;
/// Distance of slots in memory, bytes.
const STRIDE: usize = 65_536;

/// Slots that each [`Origin`] has however many the other fills, in the order of [`Origin`].
const GUARANTEED: [usize; 2] = [16, 8];
const _: () = assert!(GUARANTEED[0] + GUARANTEED[1] <= SLOTS as usize);

const UDP_SEGMENT: i32 = 103;
/// `CMSG_LEN(2)`; checked against the kernel's macro below.
const CONTROL_LEN: usize = 18;

/// Memory of a control message with one `u16`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Default)]
struct Control {
    len: usize,
    level: i32,
    kind: i32,
    value: u16,
}

// SAFETY: CMSG_LEN only computes.
const _: () = assert!(unsafe { libc::CMSG_LEN(2) } as usize == CONTROL_LEN);
const _: () = assert!(size_of::<Control>() == 24);

/// Whose frames a slot was taken for. Neither can use up all slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// This host's.
    Tap = 0,
    /// Other peers', sent on; and what we send by ourselves, to be seen and to probe paths.
    Relay = 1,
}

impl Origin {
    const fn other(self) -> Self {
        match self {
            Self::Tap => Self::Relay,
            Self::Relay => Self::Tap,
        }
    }
}

/// One call of `sendmsg`: a whole slot, or one of its datagrams.
struct Part {
    vector: libc::iovec,
    message: libc::msghdr,
}

/// What is in a slot and under way from it.
struct Slot {
    parts: Vec<Part>,
    control: Control,
    address: [u8; RAW_ADDRESS_LEN],
    address_len: usize,
    link: LinkId,
    origin: Origin,
    /// Length of each datagram but the last, bytes.
    segment: usize,
    len: usize,
    /// Datagrams in it.
    count: usize,
    /// The first of these that are not sent (again).
    skipped: usize,
    /// Sends that are not completed.
    pending: usize,
    segmented: bool,
}

/// All slots of a shard. A slot is free, being filled, or under way.
pub struct Sends {
    data: Memory,
    slots: Box<[Slot]>,
    /// Free slots, the one used last on top: its memory is still in the cache.
    free: Vec<u16>,
    /// Slots in use, in the order of [`Origin`].
    used: [usize; 2],
}

// SAFETY: the raw pointers in `Part` point into `data` and into the slot itself,
// both owned by this value and at stable addresses.
unsafe impl Send for Sends {}

/// What became of a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// The link it was for.
    pub link: LinkId,
    /// Datagrams in this send.
    pub datagrams: usize,
    /// True if it was one segmented send.
    pub segmented: bool,
}

impl Sends {
    /// Slots, all free.
    ///
    /// # Errors
    /// The kernel's, if it gives no memory.
    pub fn new() -> io::Result<Self> {
        let slot = |_| Slot {
            parts: Vec::with_capacity(MAX_SEGMENTS),
            control: Control::default(),
            address: [0; RAW_ADDRESS_LEN],
            address_len: 0,
            link: LinkId(0),
            origin: Origin::Tap,
            segment: 0,
            len: 0,
            count: 0,
            skipped: 0,
            pending: 0,
            segmented: false,
        };
        Ok(Self {
            data: Memory::map(usize::from(SLOTS) * STRIDE)?,
            slots: (0..SLOTS).map(slot).collect(),
            free: (0..SLOTS).rev().collect(),
            used: [0; 2],
        })
    }

    /// Number of free slots.
    #[cfg(test)]
    pub const fn free(&self) -> usize {
        self.free.len()
    }

    /// Number of slots in use.
    #[must_use]
    pub fn count_used(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Number of free slots that are there for `origin`.
    #[must_use]
    #[inline]
    pub fn available(&self, origin: Origin) -> usize {
        let other = origin.other() as usize;
        self.free.len().saturating_sub(GUARANTEED[other].saturating_sub(self.used[other]))
    }

    /// Takes a free slot for `origin` to fill it with datagrams of `segment` bytes.
    pub fn begin(
        &mut self,
        link: LinkId,
        origin: Origin,
        address: &RawAddress,
        segment: usize,
    ) -> Option<u16> {
        if self.available(origin) == 0 {
            return None;
        }
        let id = self.free.pop()?;
        self.used[origin as usize] += 1;
        let slot = &mut self.slots[usize::from(id)];
        let bytes = address.as_bytes();
        slot.address[..bytes.len()].copy_from_slice(bytes);
        slot.address_len = bytes.len();
        slot.link = link;
        slot.origin = origin;
        slot.segment = segment;
        slot.len = 0;
        slot.count = 0;
        slot.skipped = 0;
        Some(id)
    }

    /// True if a datagram of `len` bytes may follow in this slot: not longer than
    /// the others, not behind a shorter one, and there is room.
    #[must_use]
    #[inline]
    pub fn fits(&self, id: u16, len: usize) -> bool {
        let slot = &self.slots[usize::from(id)];
        len <= slot.segment
            && slot.len == slot.count * slot.segment
            && slot.count < MAX_SEGMENTS
            && slot.len + len <= SLOT_LEN
    }

    /// Room for the next datagram of `len` bytes; `None` if it does not
    /// [fit](Self::fits).
    #[must_use]
    #[inline]
    pub fn extend(&mut self, id: u16, len: usize) -> Option<&mut [u8]> {
        if !self.fits(id, len) {
            return None;
        }
        let slot = &mut self.slots[usize::from(id)];
        let start = usize::from(id) * STRIDE + slot.len;
        slot.len += len;
        slot.count += 1;
        // SAFETY: the range lies within this slot of the mapping, and a slot
        // being filled is not with the kernel. The borrow of `self` keeps other
        // slices away.
        Some(unsafe { std::slice::from_raw_parts_mut(self.data.start().as_ptr().add(start), len) })
    }

    /// Takes the last datagram of the slot back.
    pub fn retract(&mut self, id: u16, len: usize) {
        let slot = &mut self.slots[usize::from(id)];
        slot.len -= len;
        slot.count -= 1;
    }

    /// The link a slot's datagrams are for.
    #[must_use]
    pub fn link(&self, id: u16) -> LinkId {
        self.slots[usize::from(id)].link
    }

    /// Says whether the slot goes out as one segmented send or datagram by
    /// datagram.
    pub fn set_segmented(&mut self, id: u16, segmented: bool) {
        let slot = &mut self.slots[usize::from(id)];
        slot.segmented = segmented && slot.count > 1;
    }

    /// Datagrams in a slot.
    #[must_use]
    pub fn count(&self, id: u16) -> usize {
        self.slots[usize::from(id)].count
    }

    /// Gives up all datagrams of a slot but a shorter one at its end, which is sent
    /// again; returns how many were given up, and whether one is left.
    pub fn keep_shorter(&mut self, id: u16) -> (usize, bool) {
        let slot = &mut self.slots[usize::from(id)];
        let shorter = slot.len < slot.count * slot.segment;
        slot.skipped = slot.count - usize::from(shorter);
        slot.segmented = false;
        (slot.skipped, shorter)
    }

    /// Returns a slot that was not sent.
    pub fn cancel(&mut self, id: u16) {
        debug_assert_eq!(self.slots[usize::from(id)].pending, 0, "a slot under way");
        self.give_back(id);
    }

    fn give_back(&mut self, id: u16) {
        self.used[self.slots[usize::from(id)].origin as usize] -= 1;
        self.free.push(id);
    }

    /// Makes the messages of a filled slot; returns their number.
    pub(super) fn prepare(&mut self, id: u16) -> usize {
        let slot = &mut self.slots[usize::from(id)];
        debug_assert_eq!(slot.pending, 0, "sent twice");
        let base = usize::from(id) * STRIDE;
        let pieces = if slot.segmented { 1 } else { slot.count - slot.skipped };
        #[expect(clippy::cast_possible_truncation, reason = "a datagram has less than 65,536 bytes")]
        let segment = slot.segment as u16;
        slot.control = Control { len: CONTROL_LEN, level: libc::SOL_UDP, kind: UDP_SEGMENT, value: segment };
        slot.parts.clear();
        for piece in 0..pieces {
            let (start, len) = if slot.segmented {
                (0, slot.len)
            } else {
                let start = (slot.skipped + piece) * slot.segment;
                (start, slot.segment.min(slot.len - start))
            };
            // SAFETY: `start` lies within this slot of the mapping.
            let address = unsafe { self.data.start().as_ptr().add(base + start) };
            // SAFETY: all-zero is a valid msghdr.
            let message = unsafe { std::mem::zeroed() };
            slot.parts.push(Part { vector: libc::iovec { iov_base: address.cast(), iov_len: len }, message });
        }
        // `parts` does not grow any more (its capacity covers MAX_SEGMENTS), so
        // the addresses taken now stay until the slot is prepared again.
        for part in &mut slot.parts {
            part.message.msg_name = (&raw mut slot.address).cast();
            #[expect(clippy::cast_possible_truncation, reason = "28 at most")]
            let name_len = slot.address_len as u32;
            part.message.msg_namelen = name_len;
            part.message.msg_iov = &raw mut part.vector;
            part.message.msg_iovlen = 1;
            if slot.segmented {
                part.message.msg_control = (&raw mut slot.control).cast();
                part.message.msg_controllen = size_of::<Control>();
            }
        }
        slot.pending = pieces;
        pieces
    }

    /// Message number `part` of a prepared slot.
    pub(super) fn message(&self, id: u16, part: usize) -> *const libc::msghdr {
        &raw const self.slots[usize::from(id)].parts[part].message
    }

    /// Takes note of one completed send.
    pub fn complete(&mut self, id: u16) -> Sent {
        let slot = &mut self.slots[usize::from(id)];
        slot.pending = slot.pending.saturating_sub(1);
        let datagrams = if slot.segmented { slot.count } else { 1 };
        Sent { link: slot.link, datagrams, segmented: slot.segmented }
    }

    /// Frees a slot whose sends are all completed; false while some are not.
    pub fn release(&mut self, id: u16) -> bool {
        let done = self.slots[usize::from(id)].pending == 0;
        if done {
            self.give_back(id);
        }
        done
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::io::address::Family;

    #[test]
    fn a_slot_takes_equal_datagrams_and_one_shorter_at_the_end() {
        let mut sends = Sends::new().unwrap();
        let address = RawAddress::new(([192, 0, 2, 1], 1).into(), Family::V4).unwrap();
        let slot = sends.begin(LinkId(1), Origin::Tap, &address, 1000).unwrap();
        assert!(sends.extend(slot, 1001).is_none());
        for _ in 0..3 {
            assert_eq!(sends.extend(slot, 1000).unwrap().len(), 1000);
        }
        assert_eq!(sends.extend(slot, 10).unwrap().len(), 10);
        assert!(sends.extend(slot, 10).is_none());
        sends.set_segmented(slot, true);
        assert_eq!(sends.prepare(slot), 1);
        assert!(sends.complete(slot).segmented);
        assert!(sends.release(slot));
        assert_eq!(sends.free(), usize::from(SLOTS));
    }

    #[test]
    fn a_slot_holds_64_datagrams_and_no_more_than_one_send_may_carry() {
        let mut sends = Sends::new().unwrap();
        let address = RawAddress::new(([192, 0, 2, 1], 1).into(), Family::V4).unwrap();
        for (segment, expected) in [(100, 64), (1438, 45), (9000, 7)] {
            let slot = sends.begin(LinkId(1), Origin::Tap, &address, segment).unwrap();
            let count = (0..100).take_while(|_| sends.extend(slot, segment).is_some()).count();
            assert_eq!(count, expected);
            sends.set_segmented(slot, false);
            assert_eq!(sends.prepare(slot), expected);
            for _ in 0..expected {
                assert!(!sends.release(slot) || sends.free() == 0);
                sends.complete(slot);
            }
            assert!(sends.release(slot));
        }
    }

    #[test]
    fn neither_origin_can_take_the_slots_of_the_other() {
        let address = RawAddress::new(([192, 0, 2, 1], 1).into(), Family::V4).unwrap();
        for greedy in [Origin::Tap, Origin::Relay] {
            let mut sends = Sends::new().unwrap();
            let mut slots = Vec::new();
            while let Some(slot) = sends.begin(LinkId(1), greedy, &address, 100) {
                slots.push(slot);
            }
            let left = GUARANTEED[greedy.other() as usize];
            assert_eq!((slots.len(), sends.available(greedy)), (usize::from(SLOTS) - left, 0));
            assert_eq!(sends.available(greedy.other()), left);
            for _ in 0..left {
                slots.push(sends.begin(LinkId(1), greedy.other(), &address, 100).unwrap());
            }
            assert_eq!(sends.begin(LinkId(1), greedy.other(), &address, 100), None);
            for slot in slots {
                sends.cancel(slot);
            }
            assert_eq!((sends.free(), sends.used), (usize::from(SLOTS), [0; 2]));
        }
    }
}
