//! The content of a numbered datagram: a number, a proof that it is ours, and a pattern.
//!
//! | bytes | content |
//! | --- | --- |
//! | 0..8 | number, little endian, from 0 |
//! | 8..16 | tag: a mix of the number and the run's own random value |
//! | 16.. | pattern: every byte follows from number and position |
//!
//! The tag makes a damaged number and a datagram of somebody else visible at the cost of a few
//! instructions; the pattern is filled in and compared only when asked for.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// Bytes of number and tag, and so the smallest datagram that can be numbered.
pub(super) const HEADER_BYTES: usize = 16;

/// What tells the datagrams of one measurement from all others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp {
    run: u64,
    pattern: bool,
}

impl Stamp {
    /// A stamp of its own for one measurement; with `pattern` every byte is checked.
    pub fn new(pattern: bool) -> Self {
        // The standard library seeds its hashers from the kernel's random numbers.
        let run = RandomState::new().build_hasher().finish();
        Self { run, pattern }
    }

    /// Writes number, tag and pattern into `datagram`, which has at least [`HEADER_BYTES`].
    pub fn write(self, number: u64, datagram: &mut [u8]) {
        datagram[..8].copy_from_slice(&number.to_le_bytes());
        datagram[8..HEADER_BYTES].copy_from_slice(&self.tag(number).to_le_bytes());
        if self.pattern {
            let first = first_byte(number);
            for (at, byte) in datagram[HEADER_BYTES..].iter_mut().enumerate() {
                *byte = first.wrapping_add(at as u8);
            }
        }
    }

    /// The number of a datagram of this measurement, `None` if it is damaged or not ours.
    pub fn read(self, datagram: &[u8]) -> Option<u64> {
        let (number, rest) = datagram.split_first_chunk()?;
        let (tag, pattern) = rest.split_first_chunk()?;
        let number = u64::from_le_bytes(*number);
        if u64::from_le_bytes(*tag) != self.tag(number) {
            return None;
        }
        let first = first_byte(number);
        let intact = !self.pattern
            || pattern.iter().enumerate().all(|(at, byte)| *byte == first.wrapping_add(at as u8));
        intact.then_some(number)
    }

    /// Finaliser of SplitMix64 (Steele, Lea, Flood 2014): one changed bit changes half of them.
    fn tag(self, number: u64) -> u64 {
        let mut z = number ^ self.run;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Neighbouring numbers start their pattern at bytes far apart.
fn first_byte(number: u64) -> u8 {
    (number as u8).wrapping_mul(97)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back() {
        for pattern in [false, true] {
            let stamp = Stamp::new(pattern);
            let mut datagram = [0; 64];
            stamp.write(1_000_003, &mut datagram);
            assert_eq!(stamp.read(&datagram), Some(1_000_003));
        }
    }

    #[test]
    fn any_flipped_bit_of_a_patterned_datagram_is_noticed() {
        let stamp = Stamp::new(true);
        let mut datagram = [0; 48];
        stamp.write(7, &mut datagram);
        for bit in 0..datagram.len() * 8 {
            let mut damaged = datagram;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(stamp.read(&damaged), None, "bit {bit}");
        }
    }

    #[test]
    fn a_datagram_of_another_run_or_too_short_is_not_ours() {
        let mut datagram = [0; HEADER_BYTES];
        Stamp::new(false).write(7, &mut datagram);
        assert_eq!(Stamp::new(false).read(&datagram), None);
        assert_eq!(Stamp::new(false).read(&datagram[..15]), None);
    }
}
