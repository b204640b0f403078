//! Looking at the control core on behalf of strangers: one at a time, and not too often.

use super::CORE_WITHIN;
use crate::control::core::{Core, Event};
use crate::rt;
use std::cell::Cell;
use std::time::{Duration, Instant};

/// After a look the core has so many times its duration for other work: strangers take a fifth of
/// its time at most.
const REST: u32 = 4;

/// Time to make something of what was seen.
const MADE_WITHIN: Duration = Duration::from_secs(5);

/// A way to look at the control core.
pub(super) struct Look {
    core: rt::Sender<Event>,
    /// Holds something while it is somebody's turn.
    turn: (rt::Sender<()>, rt::Receiver<()>),
    /// When the next look may be.
    next: Cell<Instant>,
}

/// Somebody's turn, until it is dropped.
struct Turn<'a>(&'a rt::Receiver<()>);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let _ = self.0.try_recv();
    }
}

impl Look {
    pub(super) fn new(core: rt::Sender<Event>) -> Self {
        Self { core, turn: rt::bounded(1), next: Cell::new(Instant::now()) }
    }

    /// What `look` sees at once, without a turn; `None` if the core does not answer in time. For
    /// what takes the core no time.
    pub(super) async fn glance<T: 'static>(&self, look: impl FnOnce(&Core) -> T + 'static) -> Option<T> {
        let (sender, receiver) = rt::bounded(1);
        let look = Box::new(move |core: &Core| {
            let _ = sender.try_send(look(core));
        });
        let seen = async {
            self.core.send(Event::Look(look)).await.ok()?;
            receiver.recv().await.ok()
        };
        rt::timeout(CORE_WITHIN, seen).await.flatten()
    }

    /// What `look` sees, made into something else on another thread before the next has its turn;
    /// `None` if either takes too long.
    pub(super) async fn make<T: Send + 'static, R: Send + 'static>(
        &self,
        look: impl FnOnce(&Core) -> T + 'static,
        make: impl FnOnce(T) -> R + Send + 'static,
    ) -> Option<R> {
        let (_turn, seen) = rt::timeout(CORE_WITHIN, self.seen(look)).await.flatten()?;
        rt::timeout(MADE_WITHIN, rt::blocking(move || make(seen))).await
    }

    async fn seen<T: 'static>(&self, look: impl FnOnce(&Core) -> T + 'static) -> Option<(Turn<'_>, T)> {
        self.turn.0.send(()).await.ok()?;
        let turn = Turn(&self.turn.1);
        let rest = self.next.get().saturating_duration_since(Instant::now());
        if !rest.is_zero() {
            rt::sleep(rest).await;
        }
        let (sender, receiver) = rt::bounded(1);
        let look = Box::new(move |core: &Core| {
            let begun = Instant::now();
            let seen = look(core);
            let _ = sender.try_send((seen, begun.elapsed()));
        });
        self.core.send(Event::Look(look)).await.ok()?;
        let (seen, took): (T, Duration) = receiver.recv().await.ok()?;
        self.next.set(Instant::now() + took * REST);
        Some((turn, seen))
    }
}
