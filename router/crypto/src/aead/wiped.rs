//! Key schedules of foreign makers, wiped when dropped.
//!
//! `ring` leaves an expanded key in memory when it is dropped. This box writes
//! zeros over it, and keeps it in one place meanwhile. (What the maker leaves on
//! the stack while it expands a key is out of reach.)
#![allow(unsafe_code, reason = "writing over a value whose type does not allow it")]

use std::mem::{MaybeUninit, needs_drop};
use zeroize::Zeroize;

/// A value without a destructor, whose memory is wiped when it is dropped.
pub(super) struct Wiped<T>(Box<MaybeUninit<T>>);

impl<T> Wiped<T> {
    pub(super) fn new(value: T) -> Self {
        const { assert!(!needs_drop::<T>(), "the destructor would run on zeros, or not at all") };
        Self(Box::new(MaybeUninit::new(value)))
    }

    pub(super) fn get(&self) -> &T {
        // SAFETY: `new` is the only constructor and initialises the value; only
        // `drop` writes to it, after which nobody holds a reference to `self`.
        unsafe { self.0.assume_init_ref() }
    }
}

impl<T> Wiped<T> {
    fn wipe(&mut self) {
        let start = self.0.as_mut_ptr().cast::<MaybeUninit<u8>>();
        // SAFETY: the box owns `size_of::<T>()` bytes at `start`, aligned for any
        // byte; `&mut self` makes them ours alone; `MaybeUninit<u8>` may hold
        // anything, padding included. Only `drop` calls this (and a test of a
        // type for which zeros are a value), so nothing reads the value again;
        // it has no destructor.
        let bytes = unsafe { std::slice::from_raw_parts_mut(start, size_of::<T>()) };
        bytes.zeroize();
    }
}

impl<T> Drop for Wiped<T> {
    fn drop(&mut self) {
        self.wipe();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_kept_until_it_is_wiped_and_then_it_is_zeros() {
        let mut wiped = Wiped::new([7_u32; 9]);
        assert_eq!(wiped.get(), &[7; 9]);
        wiped.wipe();
        assert_eq!(wiped.get(), &[0; 9]);
    }
}
