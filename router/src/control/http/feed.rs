//! Events for those who listen: the report once a second, made once for all of them.

use super::Place;
use super::look::Look;
use crate::control::core::Core;
use crate::control::status::{self, millis};
use crate::rt;
use bytes::Bytes;
use futures_lite::Stream;
use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use weave_api::report::{EVENT_NAME, EVENT_NAMES_MAX, REPORT_VERSION, Report};

/// How often there is an event.
const EVENT_EVERY: Duration = Duration::from_secs(1);
/// Where events are long there are fewer: bytes a second, at most.
const EVENT_BYTES_PER_SECOND: usize = 2 << 20;
/// Events that wait for one listener; those it misses it does not need.
const EVENTS_WAITING: usize = 1;

/// Makes the events while somebody listens.
pub(super) struct Feed {
    core: Rc<Look>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    listeners: Vec<rt::Sender<Bytes>>,
    running: bool,
}

/// Somebody who listens.
pub(super) struct Listener {
    events: Pin<Box<rt::Receiver<Bytes>>>,
    _place: Place,
}

impl Listener {
    /// The next event; `None` when there are no more.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.events.as_mut().poll_next(cx)
    }
}

impl Feed {
    pub(super) fn new(core: Rc<Look>) -> Self {
        Self { core, state: RefCell::default() }
    }

    /// Somebody listens from now on.
    pub(super) fn listen(self: &Rc<Self>, place: Place) -> Listener {
        let (sender, events) = rt::bounded(EVENTS_WAITING);
        let mut state = self.state.borrow_mut();
        state.listeners.push(sender);
        if !std::mem::replace(&mut state.running, true) {
            rt::spawn(Rc::clone(self).run());
        }
        Listener { events: Box::pin(events), _place: place }
    }

    async fn run(self: Rc<Self>) {
        loop {
            let event = self.event().await;
            {
                let mut state = self.state.borrow_mut();
                state.listeners.retain(|listener| match &event {
                    Some(event) => listener.try_send(event.clone()).is_ok() || !listener.is_closed(),
                    None => !listener.is_closed(),
                });
                if state.listeners.is_empty() {
                    state.running = false;
                    return;
                }
            }
            let len = event.as_ref().map_or(0, Bytes::len);
            #[expect(clippy::cast_possible_truncation, reason = "seconds")]
            rt::sleep(EVENT_EVERY * len.div_ceil(EVENT_BYTES_PER_SECOND).max(1) as u32).await;
        }
    }

    async fn event(&self) -> Option<Bytes> {
        let look = |core: &Core| {
            let (names, names_left_out) = status::names(core, EVENT_NAMES_MAX);
            let now = core.now();
            let status = status::status_without_macs(core, now);
            let by_host = core.mesh.names_by_peer().filter(|_| names_left_out > 0);
            Report {
                version: REPORT_VERSION,
                taken_ms: millis(now),
                status,
                names,
                names_left_out,
                names_by_host: by_host.collect(),
            }
        };
        let event = self.core.make(look, |report| {
            let mut event = format!("event: {EVENT_NAME}\ndata: ").into_bytes();
            // Its lines end at its end: JSON holds no line feed of its own.
            serde_json::to_writer(&mut event, &report).ok()?;
            event.extend_from_slice(b"\n\n");
            Some(event)
        });
        event.await.flatten().map(Bytes::from)
    }
}
