//! The tap of this host: deleted under the router, it is made again by the keeper, of the queues
//! that the router holds.

use super::core::Event;
use crate::rt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use weave_host::keeper_socket::{KeeperClient, KeeperError, Wanted};

/// Time the keeper has for it.
const WITHIN: Duration = Duration::from_secs(5);
/// When it is asked again after it could not be done.
const AGAIN: Duration = Duration::from_secs(1);

/// Queues and what they were asked for with.
#[derive(Debug)]
pub(crate) struct Tap {
    pub(crate) queues: Vec<OwnedFd>,
    pub(crate) wanted: Wanted,
    /// Where the keeper's socket is.
    pub(crate) directory: PathBuf,
}

impl Tap {
    fn restore(&self) -> Result<(), KeeperError> {
        let queues: Vec<BorrowedFd<'_>> = self.queues.iter().map(AsFd::as_fd).collect();
        KeeperClient::connect(&self.directory)?.restore(self.wanted, &queues, WITHIN)
    }
}

/// A tap that is not there.
#[derive(Debug)]
pub(super) struct Gone {
    /// Since when, as time since the start.
    pub(super) since: Duration,
    /// Why it is not there again.
    pub(super) reason: String,
}

/// Asks the keeper until the tap is there; what comes of it becomes an event each time.
pub(super) async fn restore(tap: Arc<Tap>, events: rt::Sender<Event>) {
    loop {
        let tap = Arc::clone(&tap);
        let done = rt::blocking(move || tap.restore()).await.map_err(|error| error.to_string());
        let is_done = done.is_ok();
        if events.send(Event::TapRestored(done)).await.is_err() || is_done {
            return;
        }
        rt::sleep(AGAIN).await;
    }
}
