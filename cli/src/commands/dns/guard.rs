//! The keeper's watch over the sidecar: it runs again at once when it ended by itself.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::net::if_::if_nametoindex;
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
        let mut interface = None;
        loop {
            let settings = DnsSettings::read(&state_dir).ok().flatten();
            let Some(settings) = settings.filter(|settings| settings.enabled) else {
                thread::sleep(LOOK_EVERY);
                continue;
            };
            match Running::find(&run_dir, Daemon::Dns) {
                Ok(Some(running)) => {
                    wait = AGAIN.0;
                    if running.wait(LOOK_EVERY).is_err() {
                        thread::sleep(LOOK_EVERY);
                    }
                    if settings.cidr.is_some() && !is_there(&mut interface, &state_dir) {
                        tracing::warn!("the interface of the DNS was taken: it is started anew");
                        if let Err(failure) = launch::renew_without_interface(&run_dir, &state_dir) {
                            tracing::warn!("{failure}");
                        }
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

/// Whether the sidecar's own interface is there; `known`: the one that was found last. Others are
/// looked for when that is gone.
fn is_there(known: &mut Option<String>, state_dir: &Path) -> bool {
    let is_known = known.as_deref().is_some_and(|name| if_nametoindex(name).is_ok());
    if !is_known {
        *known = launch::interface(state_dir);
    }
    known.is_some()
}
