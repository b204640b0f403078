//! The replay window: which numbers of a key were seen (RFC 6479).

use crate::limits::KEY_DATAGRAMS;

/// Blocks of the window; a power of two, so that a number finds its block by a mask.
const BLOCKS: usize = 256;
/// Numbers behind the highest that can still be told apart: one block is always
/// in part ahead of the highest number.
pub const REPLAY_WINDOW: u32 = (BLOCKS as u32 - 1) * u64::BITS;

const _: () = assert!(BLOCKS.is_power_of_two() && REPLAY_WINDOW >= 8192);

/// Why a number is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The number was seen before.
    #[error("the datagram was received before")]
    Replayed,
    /// The number is so far behind that nothing is known of it.
    #[error("the datagram is more than {REPLAY_WINDOW} behind the newest")]
    TooOld,
    /// No sender uses this number.
    #[error("the number of the datagram is past the end of its key")]
    Exhausted,
}

/// Numbers seen under one key. Takes no memory until the first is committed,
/// 2 KiB from then on.
///
/// Asking ([`ReplayWindow::peek`]) and marking ([`ReplayWindow::commit`]) are
/// apart, because a number may be marked only once its datagram is known to be
/// genuine, and a genuine datagram is worth opening only if its number is new.
#[derive(Debug, Default)]
pub struct ReplayWindow {
    /// Highest number committed.
    highest: u32,
    blocks: Option<Box<[u64; BLOCKS]>>,
}

const fn block(number: u32) -> u32 {
    number / u64::BITS
}

const fn slot(block: u32) -> usize {
    block as usize & (BLOCKS - 1)
}

const fn bit(number: u32) -> u64 {
    1 << (number % u64::BITS)
}

impl ReplayWindow {
    /// A window that has seen nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { highest: 0, blocks: None }
    }

    /// True once a number was committed.
    #[must_use]
    pub const fn is_used(&self) -> bool {
        self.blocks.is_some()
    }

    /// Checks that `number` may be accepted; changes nothing.
    ///
    /// # Errors
    /// [`ReplayError`] if it may not.
    #[inline]
    pub fn peek(&self, number: u32) -> Result<(), ReplayError> {
        if number >= KEY_DATAGRAMS {
            return Err(ReplayError::Exhausted);
        }
        let Some(blocks) = &self.blocks else {
            return Ok(());
        };
        if number > self.highest {
            return Ok(());
        }
        if self.highest - number >= REPLAY_WINDOW {
            return Err(ReplayError::TooOld);
        }
        if blocks[slot(block(number))] & bit(number) == 0 { Ok(()) } else { Err(ReplayError::Replayed) }
    }

    /// Marks `number`, which [`ReplayWindow::peek`] let pass, as seen.
    #[inline]
    pub fn commit(&mut self, number: u32) {
        let blocks = self.blocks.get_or_insert_with(|| Box::new([0; BLOCKS]));
        if number > self.highest {
            let (from, to) = (block(self.highest), block(number));
            // All slots are cleared by the last `BLOCKS` of a longer jump.
            for fresh in (from + 1).max((to + 1).saturating_sub(BLOCKS as u32))..=to {
                blocks[slot(fresh)] = 0;
            }
            self.highest = number;
        }
        blocks[slot(block(number))] |= bit(number);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn accept(window: &mut ReplayWindow, number: u32) -> Result<(), ReplayError> {
        window.peek(number)?;
        window.commit(number);
        Ok(())
    }

    #[test]
    fn every_number_passes_once() {
        let mut window = ReplayWindow::new();
        for number in [0, 1, 9, 3, 63, 64, 65, 2, 100_000, 99_999] {
            assert_eq!(accept(&mut window, number), Ok(()), "{number}");
            assert_eq!(accept(&mut window, number), Err(ReplayError::Replayed), "{number}");
        }
    }

    #[test]
    fn the_window_ends_where_it_says() {
        let mut window = ReplayWindow::new();
        let top = 1_000_003;
        assert_eq!(accept(&mut window, top), Ok(()));
        assert_eq!(accept(&mut window, top - REPLAY_WINDOW + 1), Ok(()));
        assert_eq!(accept(&mut window, top - REPLAY_WINDOW), Err(ReplayError::TooOld));
    }

    #[test]
    fn no_number_past_the_end_of_a_key_passes() {
        let mut window = ReplayWindow::new();
        assert_eq!(accept(&mut window, KEY_DATAGRAMS - 1), Ok(()));
        assert_eq!(accept(&mut window, KEY_DATAGRAMS), Err(ReplayError::Exhausted));
        assert_eq!(accept(&mut window, u32::MAX), Err(ReplayError::Exhausted));
    }

    #[test]
    fn nothing_is_allocated_before_the_first_commit() {
        let window = ReplayWindow::new();
        assert_eq!(window.peek(5), Ok(()));
        assert!(!window.is_used());
    }

    /// Numbers as a hostile network makes them: near the top, or far jumps.
    fn numbers() -> impl Strategy<Value = Vec<u32>> {
        let step = prop_oneof![
            8 => -80_i64..80,
            4 => -20_000_i64..20_000,
            1 => -1_000_000_i64..1_000_000,
        ];
        prop::collection::vec(step, 1..400).prop_map(|steps| {
            let mut at = 500_000_i64;
            steps
                .into_iter()
                .map(|step| {
                    at = (at + step).clamp(0, i64::from(KEY_DATAGRAMS));
                    u32::try_from(at).unwrap()
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_set_of_all_numbers(numbers in numbers()) {
            let mut window = ReplayWindow::new();
            let mut seen = HashSet::new();
            let mut highest = 0;
            for number in numbers {
                let expected = if number >= KEY_DATAGRAMS {
                    Err(ReplayError::Exhausted)
                } else if !seen.is_empty() && number + REPLAY_WINDOW <= highest {
                    Err(ReplayError::TooOld)
                } else if seen.contains(&number) {
                    Err(ReplayError::Replayed)
                } else {
                    Ok(())
                };
                prop_assert_eq!(accept(&mut window, number), expected);
                if expected.is_ok() {
                    seen.insert(number);
                    highest = highest.max(number);
                }
            }
        }
    }
}
