//! Provided buffers: memory the kernel fills in the order it likes.

use super::memory::Memory;
use io_uring::types::BufRingEntry;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU16, Ordering};

/// A group of buffers of equal size, each either with the kernel or lent out
/// here to one or more users.
pub struct Buffers {
    data: Memory,
    ring: Memory,
    size: usize,
    group: u16,
    tail: u16,
    /// Users of each buffer; 0: with the kernel.
    users: Box<[u32]>,
    /// The buffer that follows each one in a write.
    next: Box<[u16]>,
    lent: usize,
}

impl Buffers {
    /// `count` buffers (a power of two) of `size` bytes, all with the kernel.
    ///
    /// # Errors
    /// The kernel's, if it gives no memory.
    pub fn new(group: u16, count: u16, size: usize) -> io::Result<Self> {
        if !count.is_power_of_two() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let data = Memory::map(usize::from(count) * size)?;
        let ring = Memory::map(usize::from(count) * size_of::<BufRingEntry>())?;
        let users = vec![1; usize::from(count)].into_boxed_slice();
        let next = vec![0; usize::from(count)].into_boxed_slice();
        let mut buffers = Self { data, ring, size, group, tail: 0, users, next, lent: usize::from(count) };
        for id in 0..count {
            buffers.release(id);
        }
        Ok(buffers)
    }

    /// Address of the ring of entries, for registration.
    #[must_use]
    pub fn ring_address(&self) -> u64 {
        self.ring.start().as_ptr() as u64
    }

    /// Number of buffers.
    #[must_use]
    pub fn count(&self) -> u16 {
        #[expect(clippy::cast_possible_truncation, reason = "made from a u16")]
        let count = self.users.len() as u16;
        count
    }

    /// Number of the group.
    #[must_use]
    pub const fn group(&self) -> u16 {
        self.group
    }

    /// Size of each, bytes.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size
    }

    /// Number of those that the kernel does not have.
    #[must_use]
    pub const fn lent(&self) -> usize {
        self.lent
    }

    /// True if the kernel has at least one.
    #[must_use]
    pub fn any_with_kernel(&self) -> bool {
        self.lent < self.users.len()
    }

    /// Takes over a buffer that the kernel filled: its first user.
    pub fn take(&mut self, id: u16) {
        if let Some(users) = self.users.get_mut(usize::from(id)) {
            debug_assert_eq!(*users, 0, "a buffer came twice");
            *users = 1;
            self.lent += 1;
        }
    }

    /// Adds a user.
    pub fn retain(&mut self, id: u16) {
        if let Some(users) = self.users.get_mut(usize::from(id)) {
            debug_assert!(*users > 0, "a buffer of the kernel's");
            *users += 1;
        }
    }

    /// Removes a user; after the last one the kernel gets the buffer back.
    pub fn release(&mut self, id: u16) {
        let Some(users) = self.users.get_mut(usize::from(id)) else { return };
        debug_assert!(*users > 0, "released too often");
        *users -= 1;
        if *users > 0 {
            return;
        }
        self.lent -= 1;
        let start = self.data.start().as_ptr() as u64 + u64::from(id) * self.size as u64;
        let entries = self.ring.start().as_ptr().cast::<BufRingEntry>();
        let place = usize::from(self.tail) & (self.users.len() - 1);
        #[expect(clippy::cast_possible_truncation, reason = "buffers are far smaller than 4 GiB")]
        let size = self.size as u32;
        // SAFETY: `place` is within the ring (its length is a power of two), the
        // memory is mapped, zeroed and aligned to a page, and the kernel reads
        // an entry only after the tail below passed it.
        unsafe {
            let entry = &mut *entries.add(place);
            entry.set_addr(start);
            entry.set_len(size);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `entries` is the first entry of the ring, in whose reserved
        // field the tail lives (io_uring_register(2)); it is aligned to 2 bytes,
        // and only this thread writes it.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(entries).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// Adds a user to `id`: a write that goes on there after `last`, and may have other buffers before.
    pub fn chain(&mut self, last: u16, id: u16) {
        if let Some(next) = self.next.get_mut(usize::from(last)) {
            *next = id;
        }
        self.retain(id);
    }

    /// Removes the user that a write is of `first` and of the `more` buffers that were [chained](Self::chain)
    /// to it. A buffer has a follower in one write only: that which was open when its last byte was looked
    /// at.
    pub fn release_chain(&mut self, first: u16, more: u16) {
        let mut id = first;
        for _ in 0..more {
            let next = self.next.get(usize::from(id)).copied().unwrap_or(id);
            self.release(id);
            id = next;
        }
        self.release(id);
    }

    /// Bytes of a buffer that is lent out; empty if `range` does not fit.
    #[must_use]
    #[inline]
    pub fn bytes_mut(&mut self, id: u16, range: Range<usize>) -> &mut [u8] {
        let lent = self.users.get(usize::from(id)).is_some_and(|&users| users > 0);
        if !lent || range.end > self.size || range.start > range.end {
            return &mut [];
        }
        // SAFETY: the range lies within buffer `id` of the mapping. The kernel
        // does not write to a buffer that was completed and not returned, and
        // writes in flight to the tap only read parts that are not changed any
        // more. The borrow of `self` keeps other slices away.
        unsafe {
            let start = self.data.start().as_ptr().add(usize::from(id) * self.size + range.start);
            std::slice::from_raw_parts_mut(start, range.len())
        }
    }

    /// Bytes of a buffer that is lent out; empty if `range` does not fit.
    #[must_use]
    #[inline]
    pub fn bytes(&self, id: u16, range: Range<usize>) -> &[u8] {
        let lent = self.users.get(usize::from(id)).is_some_and(|&users| users > 0);
        if !lent || range.end > self.size || range.start > range.end {
            return &[];
        }
        // SAFETY: as in `bytes_mut`, for reading.
        unsafe {
            let start = self.data.start().as_ptr().add(usize::from(id) * self.size + range.start);
            std::slice::from_raw_parts(start, range.len())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_buffer_returns_to_the_kernel_with_its_last_user() {
        let mut buffers = Buffers::new(0, 4, 4096).unwrap();
        assert!(buffers.any_with_kernel());
        for id in 0..4 {
            buffers.take(id);
        }
        assert!(!buffers.any_with_kernel());
        buffers.retain(2);
        buffers.release(2);
        assert!(!buffers.any_with_kernel());
        buffers.release(2);
        assert!(buffers.any_with_kernel());
    }

    #[test]
    fn bytes_of_a_buffer_that_is_not_lent_are_none() {
        let mut buffers = Buffers::new(0, 2, 4096).unwrap();
        assert!(buffers.bytes_mut(0, 0..10).is_empty());
        buffers.take(0);
        assert_eq!(buffers.bytes_mut(0, 0..10).len(), 10);
        assert!(buffers.bytes_mut(0, 4000..5000).is_empty());
        assert!(buffers.bytes_mut(7, 0..1).is_empty());
    }

    #[test]
    fn buffers_of_a_write_return_with_it_also_where_the_last_is_the_first_of_another() {
        let mut buffers = Buffers::new(0, 4, 4096).unwrap();
        for id in 0..4 {
            buffers.take(id);
        }
        // One write of 2, 0 and 3, then one of 3 and 1.
        buffers.retain(2);
        buffers.chain(2, 0);
        buffers.chain(0, 3);
        buffers.retain(3);
        buffers.chain(3, 1);
        (0..4).for_each(|id| buffers.release(id));
        assert_eq!(buffers.lent(), 4);
        buffers.release_chain(2, 2);
        assert_eq!(buffers.lent(), 2, "3 is still in use");
        buffers.release_chain(3, 1);
        assert_eq!(buffers.lent(), 0);
    }
}
