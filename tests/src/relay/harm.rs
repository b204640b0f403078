//! What the relay does to the bytes of a frame.

use crate::random::Random;
use crate::raw::{NEEDS_CSUM, OFFLOAD};

/// Changes one to three bytes of what begins at `payload` of a UDP frame, or takes some off its
/// end; returns the new length. The checksum stays open or is made to be none, so that the kernel
/// lets the damage through.
pub(super) fn damage(frame: &mut [u8], payload: usize, random: &mut Random) -> usize {
    let len = frame.len() - payload;
    if len == 0 {
        return frame.len();
    }
    if frame[0] & NEEDS_CSUM == 0 {
        frame[payload - 2..payload].fill(0);
    }
    for _ in 0..1 + random.below(3) {
        let at = payload + random.below(len as u64) as usize;
        frame[at] ^= 1 + random.below(255) as u8;
    }
    if !random.chance(200) {
        return frame.len();
    }
    // Cut short, with lengths that say so.
    let cut = random.below(len as u64) as usize;
    let udp = payload - 8;
    let field = |frame: &mut [u8], at: usize| {
        let value = u16::from_be_bytes([frame[at], frame[at + 1]]).saturating_sub(cut as u16);
        frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
    };
    field(frame, udp + 4);
    let ip = OFFLOAD + 14;
    field(frame, ip + 2);
    frame[ip + 10..ip + 12].fill(0);
    let sum = crate::checksums::sum(&[&frame[ip..udp]]);
    frame[ip + 10..ip + 12].copy_from_slice(&(!sum).to_be_bytes());
    frame[payload - 2..payload].fill(0);
    frame[0] &= !NEEDS_CSUM;
    frame.len() - cut
}

/// Lets a data datagram, whose UDP header is `at`, come from `port`; false if it is none or does
/// already. An open checksum holds no port; a complete one is corrected (RFC 1624).
pub(super) fn rename(frame: &mut [u8], at: usize, port: u16) -> bool {
    let lane = frame.get(at + 8 + 1).copied();
    let old = u16::from_be_bytes([frame[at], frame[at + 1]]);
    if lane == Some(255) || old == port {
        return false;
    }
    frame[at..at + 2].copy_from_slice(&port.to_be_bytes());
    if frame[0] & NEEDS_CSUM == 0 {
        let sum = u16::from_be_bytes([frame[at + 6], frame[at + 7]]);
        let mut new = u32::from(!sum) + u32::from(!old) + u32::from(port);
        new = (new & 0xffff) + (new >> 16);
        new = (new & 0xffff) + (new >> 16);
        frame[at + 6..at + 8].copy_from_slice(&(!(new as u16)).to_be_bytes());
    }
    true
}
