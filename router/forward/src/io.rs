//! The unsafe part: ring, buffers and sockets behind a safe face.
//!
//! The kernel works on memory of this module while operations are in flight.
//! Three rules keep that sound: memory given to the ring has a stable address
//! and lives as long as the ring ([`ring::Ring`] is dropped first, and its drop
//! waits for the kernel to let go); a provided buffer is read or written here
//! only between its completion and its return; a slot is refilled only after
//! the completions of all its operations.

pub mod address;
pub mod buffers;
pub mod deliveries;
pub mod memory;
pub mod received;
pub mod ring;
pub mod sends;
pub mod socket;
