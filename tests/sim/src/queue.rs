//! What is to happen, in order of time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

#[derive(Debug)]
struct Entry<E> {
    at: Duration,
    order: u64,
    event: E,
}

impl<E> Entry<E> {
    const fn key(&self) -> (Duration, u64) {
        (self.at, self.order)
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

/// Events to come. Those of one moment happen in the order in which they were put in.
#[derive(Debug)]
pub struct Queue<E> {
    heap: BinaryHeap<Reverse<Entry<E>>>,
    order: u64,
    /// Times are rounded up to a multiple of this.
    quantum: Duration,
    /// The time now.
    pub now: Duration,
}

impl<E> Queue<E> {
    /// Nothing is to happen.
    #[must_use]
    pub const fn new(quantum: Duration) -> Self {
        Self { heap: BinaryHeap::new(), order: 0, quantum, now: Duration::ZERO }
    }

    /// `event` happens at `at`, or now if that is past.
    pub fn push(&mut self, at: Duration, event: E) {
        let at = self.rounded(at);
        self.heap.push(Reverse(Entry { at, order: self.order, event }));
        self.order += 1;
    }

    /// When something happens that is to happen at `at`.
    #[must_use]
    pub fn rounded(&self, at: Duration) -> Duration {
        let quantum = self.quantum.as_nanos().max(1);
        let rounded = at.max(self.now).as_nanos().div_ceil(quantum).saturating_mul(quantum);
        Duration::from_nanos(u64::try_from(rounded).unwrap_or(u64::MAX))
    }

    /// When the next event happens.
    #[must_use]
    pub fn next_at(&self) -> Option<Duration> {
        self.heap.peek().map(|Reverse(entry)| entry.at)
    }

    /// Takes the next event if it happens at `at` or before.
    pub fn pop_until(&mut self, at: Duration) -> Option<E> {
        if self.next_at()? > at {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry.event)
    }

    /// Number of events to come.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// True if nothing is to happen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_order_of_time_and_then_of_arrival() {
        let mut queue = Queue::new(Duration::from_millis(1));
        queue.push(Duration::from_micros(1500), 'c');
        queue.push(Duration::from_micros(900), 'a');
        queue.push(Duration::from_micros(300), 'b');
        let end = Duration::from_secs(1);
        let all: Vec<_> = std::iter::from_fn(|| queue.pop_until(end)).collect();
        assert_eq!(all, ['a', 'b', 'c']);
    }
}
