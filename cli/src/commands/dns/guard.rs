//! The keeper's watch over the sidecar: it runs again at once when it ended by itself.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use weave_host::names::DnsSettings;

use super::launch::{self, Begun};
use crate::running::{Daemon, Running};

/// How often it is looked whether it is to run.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Wait after a start that failed, at first and at most.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Watches on a thread of its own, until the process ends.
///
/// # Errors
/// When the thread cannot be made.
pub fn watch(run_dir: PathBuf, state_dir: PathBuf) -> std::io::Result<()> {
    thread::Builder::new().name("keeper-dns".into()).spawn(move || {
        let mut wait = AGAIN.0;
        loop {
            if !DnsSettings::read(&state_dir).ok().flatten().is_some_and(|settings| settings.enabled) {
                thread::sleep(LOOK_EVERY);
                continue;
            }
            match Running::find(&run_dir, Daemon::Dns) {
                Ok(Some(running)) => {
                    wait = AGAIN.0;
                    if running.wait(LOOK_EVERY).is_err() {
                        thread::sleep(LOOK_EVERY);
                    }
                    continue;
                }
                Ok(None) => {}
                Err(failure) => tracing::warn!("{failure}"),
            }
            match launch::begin_if_wanted(&run_dir, &state_dir) {
                Ok(Begun::Started) => tracing::info!("the DNS was started"),
                Ok(Begun::NotWanted) => thread::sleep(LOOK_EVERY),
                Err(failure) => {
                    tracing::warn!("{failure}");
                    thread::sleep(wait);
                    wait = (2 * wait).min(AGAIN.1);
                }
            }
        }
    })?;
    Ok(())
}
