//! Anonymous memory with a page-aligned, stable address.

use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// A private mapping, zeroed, unmapped on drop. Pages cost nothing until touched.
#[derive(Debug)]
pub struct Memory {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to this value alone; nothing about it is tied to
// the thread that made it.
unsafe impl Send for Memory {}

impl Memory {
    /// Maps `len` bytes.
    ///
    /// # Errors
    /// The kernel's.
    pub fn map(len: usize) -> io::Result<Self> {
        let size = NonZeroUsize::new(len).ok_or(io::ErrorKind::InvalidInput)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new private anonymous mapping at an address of the kernel's
        // choice touches no existing memory.
        let start = unsafe { mmap_anonymous(None, size, protection, MapFlags::MAP_PRIVATE)? };
        Ok(Self { start: start.cast(), len })
    }

    /// The first byte.
    #[must_use]
    pub const fn start(&self) -> NonNull<u8> {
        self.start
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: start and length are those of the mapping made in `map`;
        // whoever lent parts of it to the kernel has got them back (module rules).
        if let Err(error) = unsafe { munmap(self.start.cast(), self.len) } {
            tracing::error!("unmapping {} bytes: {error}", self.len);
        }
    }
}
