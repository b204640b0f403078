//! The Internet checksum (RFC 1071).

use crate::packet::{Protocol, Transport};

/// A sum of 16-bit words in one's complement, not yet folded. Words are taken
/// in memory order; the fold gives bytes in network order on any machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// The sum with `bytes` added. Every part but the last must have even length.
    #[must_use]
    pub fn with(self, bytes: &[u8]) -> Self {
        // Wide enough never to overflow: an addition with carry for eight bytes, which no vector
        // instruction of the baseline matches. Four sums, so that none waits for the one before.
        let mut sums = [0u128; 4];
        let (blocks, rest) = bytes.as_chunks::<32>();
        for block in blocks {
            let (words, _) = block.as_chunks::<8>();
            for (sum, word) in sums.iter_mut().zip(words) {
                *sum += u128::from(u64::from_ne_bytes(*word));
            }
        }
        let mut sum = sums.iter().sum::<u128>();
        let (words, rest) = rest.as_chunks::<8>();
        sum += words.iter().map(|word| u128::from(u64::from_ne_bytes(*word))).sum::<u128>();
        let (half, rest) = rest.as_chunks::<4>();
        sum += half.iter().map(|half| u128::from(u32::from_ne_bytes(*half))).sum::<u128>();
        let (pair, rest) = rest.as_chunks::<2>();
        sum += pair.iter().map(|pair| u128::from(u16::from_ne_bytes(*pair))).sum::<u128>();
        // As if a zero followed (RFC 1071 §1).
        sum += rest.iter().map(|last| u128::from(u16::from_ne_bytes([*last, 0]))).sum::<u128>();
        #[expect(clippy::cast_possible_truncation, reason = "both halves are added")]
        let (low, high) = (sum as u64, (sum >> 64) as u64);
        self.with_folded(low).with_folded(high)
    }

    /// The sum with a 16-bit number added.
    #[must_use]
    pub fn with_u16(self, value: u16) -> Self {
        self.with_folded(u64::from(u16::from_ne_bytes(value.to_be_bytes())))
    }

    /// The sum with another one added, of an even number of bytes before.
    #[must_use]
    pub fn with_sum(self, other: Self) -> Self {
        self.with_folded(other.0)
    }

    fn with_folded(self, sum: u64) -> Self {
        let (total, carry) = self.0.overflowing_add(sum);
        Self(total + u64::from(carry))
    }

    /// The folded sum as two bytes in network order, not complemented: what a
    /// checksum field holds while its checksum is still to be completed.
    #[must_use]
    pub const fn partial(self) -> [u8; 2] {
        let mut sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        #[expect(clippy::cast_possible_truncation, reason = "folded to 16 bits")]
        (sum as u16).to_ne_bytes()
    }

    /// The checksum as two bytes in network order.
    #[must_use]
    pub const fn checksum(self) -> [u8; 2] {
        let [a, b] = self.partial();
        [!a, !b]
    }
}

/// The sum of the pseudo header of a transport segment of `len` bytes
/// (RFC 9293 §3.1, RFC 8200 §8.1).
#[must_use]
pub fn pseudo_header(frame: &[u8], at: &Transport, len: usize) -> Sum {
    let addresses = frame.get(at.addresses()).unwrap_or_default();
    #[expect(clippy::cast_possible_truncation, reason = "a segment has at most 65,535 bytes")]
    Sum::default().with(addresses).with_u16(u16::from(at.protocol.number())).with_u16(len as u16)
}

/// Writes the sum of the pseudo header into the checksum field: the form in
/// which a segment waits for its checksum.
pub fn prepare(frame: &mut [u8], at: &Transport) {
    let sum = pseudo_header(frame, at, at.end - at.l4).partial();
    if let Some(field) = frame.get_mut(at.checksum_field()) {
        field.copy_from_slice(&sum);
    }
}

impl Protocol {
    /// The checksum that a sender writes for `sum`, in network order.
    #[must_use]
    pub fn sent(self, sum: Sum) -> [u8; 2] {
        match (self, sum.checksum()) {
            // RFC 768: zero means "no checksum", so a computed zero is sent as ones.
            (Self::Udp, [0, 0]) => [0xff, 0xff],
            (_, sum) => sum,
        }
    }
}

/// Completes the checksum of the segment at `at`, whatever its field holds.
pub fn complete(frame: &mut [u8], at: &Transport) {
    if let Some(field) = frame.get_mut(at.checksum_field()) {
        field.fill(0);
    }
    let segment = frame.get(at.l4..at.end).unwrap_or_default();
    let sum = at.protocol.sent(pseudo_header(frame, at, segment.len()).with(segment));
    if let Some(field) = frame.get_mut(at.checksum_field()) {
        field.copy_from_slice(&sum);
    }
}

/// True if the checksum of the segment at `at` is right. A UDP datagram without
/// one (zero, RFC 768) counts as wrong here: it proves nothing.
#[must_use]
pub fn verify(frame: &[u8], at: &Transport) -> bool {
    let segment = frame.get(at.l4..at.end).unwrap_or_default();
    let Some(field) = frame.get(at.checksum_field()) else { return false };
    if at.protocol == Protocol::Udp && field == [0, 0] {
        return false;
    }
    pseudo_header(frame, at, segment.len()).with(segment).checksum() == [0, 0]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 §4.1, one word at a time.
    fn plain(bytes: &[u8]) -> [u8; 2] {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        (!u16::try_from(sum).unwrap()).to_be_bytes()
    }

    #[test]
    fn the_example_of_rfc_1071_sums_as_printed() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::default().with(&bytes).partial(), [0xdd, 0xf2]);
    }

    proptest! {
        #[test]
        fn the_sum_is_that_of_the_definition(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert_eq!(Sum::default().with(&bytes).checksum(), plain(&bytes));
        }

        #[test]
        fn parts_of_even_length_add_up(a in prop::collection::vec(any::<u8>(), 0..100), b in prop::collection::vec(any::<u8>(), 0..100)) {
            let a = &a[..a.len() & !1];
            let whole = [a, &b].concat();
            prop_assert_eq!(Sum::default().with(a).with(&b).checksum(), plain(&whole));
        }
    }
}
