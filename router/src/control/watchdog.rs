//! Tells the service manager that the control core works (`WatchdogSec=`, sd_watchdog_enabled(3)).

use super::core::{Core, Event};
use crate::rt;
use sd_notify::NotifyState;
use std::sync::mpsc;
use std::time::Duration;

/// Says so this many times in the time after which the manager takes the router for dead.
const TIMES: u32 = 3;

/// How often it is to be said; `None` where nobody waits for it.
pub(super) fn every() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / TIMES)
}

/// Says so as long as the control core answers. A thread of its own speaks to the manager, which
/// may be slow to listen; and nothing that others wait for is waited for here.
pub(super) async fn run(every: Duration, core: rt::Sender<Event>) {
    let (well, said) = mpsc::sync_channel(1);
    let speak = move || {
        while said.recv().is_ok() {
            if let Err(error) = sd_notify::notify(&[NotifyState::Watchdog]) {
                tracing::debug!("the service manager is not told that this router works: {error}");
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name("weave-watchdog".into()).spawn(speak) {
        tracing::error!("the service manager will not be told that this router works: {error}");
        return;
    }
    loop {
        let (sender, answer) = rt::bounded(1);
        let look = Box::new(move |_: &Core| {
            let _ = sender.try_send(());
        });
        if core.send(Event::Look(look)).await.is_err() || answer.recv().await.is_err() {
            return;
        }
        let _ = well.try_send(());
        rt::sleep(every).await;
    }
}
