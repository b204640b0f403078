//! Ctrl-C: everything is removed before the process ends.
//!
//! A process that is started while the others are being killed would stay
//! behind. So whatever starts one does it behind a gate, which the thread that
//! removes everything closes for good.

use std::process::exit;
use std::sync::{Mutex, PoisonError};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use weave_perf::lab;

use crate::failure::{Failure, Result};

static GATE: Mutex<()> = Mutex::new(());

/// Removes everything and ends the process when a signal asks for its end, or
/// when a thread panics.
pub fn watch() -> Result<()> {
    let failed = |error| Failure::new("cannot watch for signals", error, "");
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).map_err(failed)?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            if let Some(signal) = signals.forever().next() {
                let _closed = GATE.lock().unwrap_or_else(PoisonError::into_inner);
                lab::cleanup();
                exit(128 + signal);
            }
        })
        .map_err(failed)?;
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        lab::cleanup();
        usual(panic);
    }));
    Ok(())
}

/// Runs `work` unless everything is being removed: then it waits for the end
/// of the process.
pub fn while_not_interrupted<T>(work: impl FnOnce() -> T) -> T {
    let _open = GATE.lock().unwrap_or_else(PoisonError::into_inner);
    work()
}
