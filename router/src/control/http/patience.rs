//! How long a client is waited for.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Time to send the first request.
const FIRST_REQUEST_WITHIN: Duration = Duration::from_secs(5);
/// Time to send the rest of another request, and to read an answer.
const WITHIN: Duration = Duration::from_secs(30);
/// Time between two requests: a Prometheus may scrape once a minute only.
const IDLE_MAX: Duration = Duration::from_secs(120);

/// What a connection is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// A request is read or answered.
    Busy,
    /// The whole answer is on its way to the client.
    Answered,
    /// The client has it, and asks for nothing.
    Idle,
}

/// The time that a client has left.
#[derive(Debug)]
pub(super) struct Patience {
    deadline: Cell<Instant>,
    stage: Cell<Stage>,
}

impl Patience {
    pub(super) fn new() -> Self {
        Self { deadline: Cell::new(Instant::now() + FIRST_REQUEST_WITHIN), stage: Cell::new(Stage::Busy) }
    }

    pub(super) fn left(&self) -> Duration {
        self.deadline.get().saturating_duration_since(Instant::now())
    }

    /// True if the client is waited for in vain because it has nothing to ask.
    pub(super) fn is_idle(&self) -> bool {
        self.stage.get() == Stage::Idle
    }

    /// A request came, or a part of an answer that goes on.
    pub(super) fn begin(&self) {
        self.stage.set(Stage::Busy);
        self.deadline.set(Instant::now() + WITHIN);
    }

    /// Something of a request came: only the first of it gives the client more time.
    pub(super) fn read(&self) {
        if self.is_idle() {
            self.begin();
        }
    }

    /// The connection has the whole answer, to send it.
    pub(super) fn answered(&self) {
        self.stage.set(Stage::Answered);
    }

    /// All that there was to send is sent.
    pub(super) fn sent(&self) {
        if self.stage.get() == Stage::Answered {
            self.stage.set(Stage::Idle);
            self.deadline.set(Instant::now() + IDLE_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_little_time_until_it_has_its_answer_and_more_before_it_asks_again() {
        let patience = Patience::new();
        let within = |limit: Duration| {
            let left = patience.left();
            assert!(left <= limit && left + Duration::from_secs(2) > limit, "{left:?} of {limit:?}");
        };
        within(FIRST_REQUEST_WITHIN);
        // Nothing that it sends before the first request is whole gives it more.
        patience.read();
        patience.sent();
        within(FIRST_REQUEST_WITHIN);
        for _ in 0..2 {
            patience.begin();
            patience.sent();
            within(WITHIN);
            patience.answered();
            // It does not read.
            within(WITHIN);
            assert!(!patience.is_idle());
            patience.sent();
            within(IDLE_MAX);
            assert!(patience.is_idle());
            // It begins to ask.
            patience.read();
            within(WITHIN);
            assert!(!patience.is_idle());
        }
    }
}
