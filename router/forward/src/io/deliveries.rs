//! Frames on their way from a receive buffer to the tap.
//!
//! Nothing is copied: a write gathers the header for the tap and the pieces of
//! a super-frame where they lie in receive buffers. Each receive buffer has
//! room for the writes that begin in it, so that no write waits for a free slot.

use super::buffers::Buffers;
use crate::handover::INBOX;
use std::ops::Range;
use weave_wire::vnet::{VNET_LEN, VnetHeader};

/// Datagrams one receive may hold: `UDP_MAX_SEGMENTS` since Linux 6.9.
pub const MAX_DATAGRAMS: usize = 128;

/// Part of a buffer's room used by one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Write {
    /// The receive buffer it begins in, whose room it uses.
    pub buffer: u16,
    first: usize,
    count: usize,
}

struct Room {
    /// Headers for the tap.
    headers: [VnetHeader; MAX_DATAGRAMS],
    used_headers: usize,
    /// Pieces, the header of each write first.
    pieces: [libc::iovec; 2 * MAX_DATAGRAMS],
    used_pieces: usize,
}

/// Room for the writes of every receive buffer of a shard.
pub struct Deliveries {
    rooms: Box<[Room]>,
}

// SAFETY: the raw pointers in `Room` point into buffers and headers of the same
// shard, at stable addresses; they are only handed to its ring.
unsafe impl Send for Deliveries {}

const EMPTY: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };

impl Deliveries {
    /// Room for `buffers` receive buffers.
    #[must_use]
    pub fn new(buffers: u16) -> Self {
        let room = |_| Room {
            headers: [VnetHeader::plain(); MAX_DATAGRAMS],
            used_headers: 0,
            pieces: [EMPTY; 2 * MAX_DATAGRAMS],
            used_pieces: 0,
        };
        Self { rooms: (0..buffers).map(room).collect() }
    }

    /// Forgets the writes of a buffer; all of them are completed.
    pub fn clear(&mut self, buffer: u16) {
        let room = &mut self.rooms[usize::from(buffer)];
        room.used_headers = 0;
        room.used_pieces = 0;
    }

    /// Begins a write with the bytes `range` of `buffer`; `None` without room.
    pub fn begin(&mut self, buffers: &mut Buffers, buffer: u16, range: Range<usize>) -> Option<Write> {
        let room = &mut self.rooms[usize::from(buffer)];
        let first = room.used_pieces;
        if room.used_headers == MAX_DATAGRAMS || first + 2 > room.pieces.len() {
            return None;
        }
        let header: *mut VnetHeader = &raw mut room.headers[room.used_headers];
        room.used_headers += 1;
        room.pieces[first] = libc::iovec { iov_base: header.cast(), iov_len: VNET_LEN };
        room.pieces[first + 1] = piece(buffers.bytes_mut(buffer, range));
        room.used_pieces += 2;
        Some(Write { buffer, first, count: 2 })
    }

    /// True if the write begun last in a buffer can be extended.
    #[must_use]
    pub fn has_room(&self, buffer: u16) -> bool {
        let room = &self.rooms[usize::from(buffer)];
        room.used_pieces < room.pieces.len()
    }

    /// Adds bytes of any receive buffer to the write begun last in its own; false without room.
    #[must_use]
    pub fn extend(&mut self, write: &mut Write, bytes: &mut [u8]) -> bool {
        let room = &mut self.rooms[usize::from(write.buffer)];
        debug_assert_eq!(write.first + write.count, room.used_pieces, "not the last write");
        let Some(place) = room.pieces.get_mut(room.used_pieces) else { return false };
        *place = piece(bytes);
        room.used_pieces += 1;
        write.count += 1;
        true
    }

    /// Sets the header of the write begun last in a buffer.
    pub fn set_header(&mut self, buffer: u16, header: VnetHeader) {
        let room = &mut self.rooms[usize::from(buffer)];
        if let Some(place) = room.used_headers.checked_sub(1) {
            room.headers[place] = header;
        }
    }

    /// Pieces of a write and their number.
    pub(super) fn parts(&self, write: Write) -> (*const libc::iovec, u32) {
        let pieces = &self.rooms[usize::from(write.buffer)].pieces[write.first..write.first + write.count];
        #[expect(clippy::cast_possible_truncation, reason = "at most 256")]
        let count = pieces.len() as u32;
        (pieces.as_ptr(), count)
    }
}

fn piece(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
}

/// Whose the memory of a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// The inbox of the shard.
    Inbox,
    /// The reassembly of the shard.
    Reassembly,
}

struct HandedSlot {
    header: VnetHeader,
    datagram: Vec<u8>,
    home: Home,
    pieces: [libc::iovec; 2],
}

/// Frames on their way to the tap from memory other than receive buffers: handed-over
/// datagrams, frames put together out of fragments, answers of our own.
pub struct HandedDelivery {
    slots: Box<[HandedSlot]>,
    free: Vec<u16>,
}

// SAFETY: as for `Deliveries`: pointers into the slot itself and the heap memory
// of its datagram, which does not move while the slot is in use.
unsafe impl Send for HandedDelivery {}

impl HandedDelivery {
    /// As many slots as an inbox holds datagrams.
    #[must_use]
    pub fn new() -> Self {
        let slot = |_| HandedSlot {
            header: VnetHeader::plain(),
            datagram: Vec::new(),
            home: Home::Inbox,
            pieces: [EMPTY; 2],
        };
        #[expect(clippy::cast_possible_truncation, reason = "256")]
        let count = INBOX as u16;
        Self { slots: (0..count).map(slot).collect(), free: (0..count).collect() }
    }

    /// True if another frame can be delivered.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Keeps `datagram`, of which `frame` is to be written behind `header`.
    ///
    /// # Errors
    /// Gives the datagram back if there is no room or `frame` does not fit.
    pub fn put(
        &mut self,
        datagram: Vec<u8>,
        home: Home,
        frame: Range<usize>,
        header: VnetHeader,
    ) -> Result<u16, Vec<u8>> {
        if frame.end > datagram.len() || frame.start > frame.end {
            return Err(datagram);
        }
        let Some(id) = self.free.pop() else { return Err(datagram) };
        let slot = &mut self.slots[usize::from(id)];
        slot.header = header;
        slot.datagram = datagram;
        slot.home = home;
        slot.pieces = [
            libc::iovec { iov_base: (&raw mut slot.header).cast(), iov_len: VNET_LEN },
            piece(slot.datagram.get_mut(frame).unwrap_or_default()),
        ];
        Ok(id)
    }

    /// Takes the datagram of a completed write back, to where it belongs.
    pub fn complete(&mut self, id: u16) -> Option<(Vec<u8>, Home)> {
        let slot = self.slots.get_mut(usize::from(id))?;
        slot.pieces = [EMPTY; 2];
        self.free.push(id);
        Some((std::mem::take(&mut slot.datagram), slot.home))
    }

    pub(super) fn parts(&self, id: u16) -> (*const libc::iovec, u32) {
        (self.slots[usize::from(id)].pieces.as_ptr(), 2)
    }
}
