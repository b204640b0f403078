//! One direction of a connection.

use super::Payload;
use std::collections::BTreeMap;
use std::time::Duration;

/// What a router reads of one link each second, bytes; what is more is read later.
const READ_RATE: f64 = 256.0 * 1024.0;
/// What it reads at once.
const READ_BURST: f64 = 8.0 * 1024.0 * 1024.0;

/// Messages in one direction.
#[derive(Debug)]
pub(super) struct Pipe {
    /// Those that have not left, by number.
    waiting: BTreeMap<u64, Payload>,
    next: u64,
    /// The number that the other end reads next.
    pub(super) expected: u64,
    /// The first of them is passing a clogged way.
    pub(super) leaving: bool,
    /// Since when something is unacknowledged; nothing more leaves then.
    pub(super) unacknowledged: Option<Duration>,
    /// The last wait before it was sent again.
    pub(super) retry: Duration,
    /// When the last message that left arrives.
    pub(super) last_arrival: Duration,
    budget: f64,
    budget_at: Duration,
}

impl Default for Pipe {
    fn default() -> Self {
        Self {
            waiting: BTreeMap::new(),
            next: 0,
            expected: 0,
            leaving: false,
            unacknowledged: None,
            retry: Duration::ZERO,
            last_arrival: Duration::ZERO,
            budget: READ_BURST,
            budget_at: Duration::ZERO,
        }
    }
}

impl Pipe {
    pub(super) fn enqueue(&mut self, payload: Payload) {
        self.waiting.insert(self.next, payload);
        self.next += 1;
    }

    /// A message that arrived too early, or not at all, is sent again.
    pub(super) fn put_back(&mut self, number: u64, payload: Payload) {
        self.waiting.insert(number, payload);
    }

    pub(super) fn dequeue(&mut self) -> Option<(u64, Payload)> {
        self.waiting.pop_first()
    }

    pub(super) fn next_len(&self) -> Option<usize> {
        self.waiting.first_key_value().map(|(_, payload)| payload.len())
    }

    /// The reader takes `len` bytes; or, if it has read too much lately, when it will.
    #[expect(clippy::cast_precision_loss, reason = "a token bucket of bytes")]
    pub(super) fn read(&mut self, len: usize, now: Duration) -> Option<Duration> {
        let earned = now.saturating_sub(self.budget_at).as_secs_f64() * READ_RATE;
        self.budget = (self.budget + earned).min(READ_BURST);
        self.budget_at = now;
        if self.budget < 0.0 {
            return Some(now + Duration::from_secs_f64(-self.budget / READ_RATE) + Duration::from_millis(1));
        }
        self.budget -= len as f64;
        None
    }
}
