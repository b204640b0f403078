//! Which numbers of a numbered stream arrived, how often, and in what order.

/// Numbers behind the highest seen that are still told apart.
///
/// 2^20 datagrams are a second of the fastest path measured here; what arrives later than that
/// counts as too late.
const WINDOW: u64 = 1 << 20;

/// Counts distinct, doubled, late and reordered numbers, in a fixed amount of memory.
#[derive(Debug)]
pub(super) struct SequenceTracker {
    /// One bit per number of the window, at `number % WINDOW`.
    seen: Box<[u64]>,
    /// One more than the highest number seen.
    next: u64,
    /// Numbers seen for the first time.
    pub distinct: u64,
    /// Numbers seen again.
    pub duplicates: u64,
    /// Numbers seen for the first time after a higher one.
    pub reordered: u64,
    /// Numbers so far behind the highest that a duplicate could not be told; not in `distinct`.
    pub too_late: u64,
}

impl SequenceTracker {
    pub fn new() -> Self {
        Self {
            seen: vec![0; (WINDOW / 64) as usize].into(),
            next: 0,
            distinct: 0,
            duplicates: 0,
            reordered: 0,
            too_late: 0,
        }
    }

    /// Notes that `number` arrived.
    pub fn observe(&mut self, number: u64) {
        if number >= self.next {
            self.forget(self.next, number);
            self.next = number.saturating_add(1);
            self.mark(number);
            self.distinct += 1;
        } else if self.next - number > WINDOW {
            self.too_late += 1;
        } else if self.mark(number) {
            self.distinct += 1;
            self.reordered += 1;
        } else {
            self.duplicates += 1;
        }
    }

    /// Clears the bits of `from..=to`, which held numbers a window earlier.
    fn forget(&mut self, from: u64, to: u64) {
        if to - from >= WINDOW {
            self.seen.fill(0);
            return;
        }
        for number in from..=to {
            let (word, bit) = place(number);
            self.seen[word] &= !bit;
        }
    }

    /// Sets the bit of `number`; true if it was clear.
    fn mark(&mut self, number: u64) -> bool {
        let (word, bit) = place(number);
        let fresh = self.seen[word] & bit == 0;
        self.seen[word] |= bit;
        fresh
    }
}

fn place(number: u64) -> (usize, u64) {
    let slot = number % WINDOW;
    ((slot / 64) as usize, 1 << (slot % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracker(numbers: &[u64]) -> SequenceTracker {
        let mut tracker = SequenceTracker::new();
        numbers.iter().for_each(|n| tracker.observe(*n));
        tracker
    }

    #[test]
    fn numbers_in_order_are_distinct_and_nothing_else() {
        let t = tracker(&[0, 1, 2, 5]);
        assert_eq!((t.distinct, t.duplicates, t.reordered), (4, 0, 0));
    }

    #[test]
    fn a_number_after_a_higher_one_is_reordered_once_and_then_a_duplicate() {
        let t = tracker(&[0, 2, 1, 1, 2, 3]);
        assert_eq!((t.distinct, t.duplicates, t.reordered), (4, 2, 1));
    }

    #[test]
    fn a_number_behind_the_window_is_too_late_whatever_it_was() {
        let t = tracker(&[0, WINDOW + 1, 1, 2, 0]);
        assert_eq!((t.distinct, t.too_late, t.reordered), (3, 2, 1));
    }

    #[test]
    fn a_jump_by_more_than_the_window_leaves_no_old_bits() {
        let t = tracker(&[0, 3 * WINDOW, 3 * WINDOW - 5]);
        assert_eq!((t.distinct, t.duplicates, t.reordered), (3, 0, 1));
    }
}
