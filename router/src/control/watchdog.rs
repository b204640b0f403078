//! Tells the service manager that the control core works (`WatchdogSec=`, sd_watchdog_enabled(3)).

use super::core::{Core, Event};
use crate::rt;
use sd_notify::NotifyState;
use std::time::Duration;

/// Says so this many times in the time after which the manager takes the router for dead.
const TIMES: u32 = 3;

/// How often it is to be said; `None` where nobody waits for it.
pub(super) fn every() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / TIMES)
}

/// Says so as long as the control core answers.
pub(super) async fn run(every: Duration, core: rt::Sender<Event>) {
    loop {
        let (sender, answer) = rt::bounded(1);
        let look = Box::new(move |_: &Core| {
            let _ = sender.try_send(());
        });
        if core.send(Event::Look(look)).await.is_err() || answer.recv().await.is_err() {
            return;
        }
        if let Err(error) = rt::blocking(|| sd_notify::notify(&[NotifyState::Watchdog])).await {
            tracing::debug!("the service manager is not told that this router works: {error}");
        }
        rt::sleep(every).await;
    }
}
