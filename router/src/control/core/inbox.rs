//! Events on their way to the core.
//!
//! What comes over TCP waits in a queue of its own: heartbeats, timers and clients
//! do not wait behind what peers tell.

use super::Event;
use crate::rt;

/// Events that wait for the core, at most; who brings more waits.
const EVENTS: usize = 1024;
/// Reads from TCP that wait, at most: enough to keep the core busy, and so few that a
/// link that tells little waits for a read of each other link and no more.
const TOLD: usize = 8;

/// Where the core takes events from.
pub(in crate::control) struct Inbox {
    pub(super) events: rt::Receiver<Event>,
    pub(super) told: rt::Receiver<Event>,
}

/// Queues for events: for all but what comes over TCP, and for that.
pub(in crate::control) fn inbox() -> (rt::Sender<Event>, rt::Sender<Event>, Inbox) {
    let (events_in, events) = rt::bounded(EVENTS);
    let (told_in, told) = rt::bounded(TOLD);
    (events_in, told_in, Inbox { events, told })
}

impl Inbox {
    /// True if nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.told.is_empty()
    }

    /// The next event.
    ///
    /// # Errors
    /// Nobody is left who would bring one.
    pub(super) async fn next(&self) -> Result<Event, async_channel::RecvError> {
        futures_lite::future::or(self.events.recv(), self.told.recv()).await
    }
}
