//! Super-frames: cutting what the kernel hands over, joining what arrives.
//!
//! Both directions are pure functions over bytes. Offload headers are made from
//! checked fields only; nothing a peer says about segmentation is believed.

pub mod cut;
pub mod join;
#[cfg(test)]
mod tests;

/// Segments of one super-frame or one `UDP_SEGMENT` send, at most (`UDP_MAX_SEGMENTS`
/// of kernels before 6.9).
pub const MAX_SEGMENTS: usize = 64;
/// Bytes of one super-frame, at most (`GSO_LEGACY_MAX_SIZE`).
pub const MAX_SUPER_FRAME: usize = 65_535;
