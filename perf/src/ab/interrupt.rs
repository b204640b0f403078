//! Leaves nothing behind on Ctrl-C or a panic.
//!
//! The first signal is only noted: the run stops at its next step and everything is removed on
//! the usual way out, which makes no race between building and removing. A second signal removes
//! what there is and ends at once.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::exit;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use nix::sys::signal::{SigSet, Signal};
use weave_perf::lab;

use super::error::{Error, Result};

/// Number of the signal that came, 0 for none.
static SIGNAL: AtomicI32 = AtomicI32::new(0);

/// Files outside of the lab that programs in it make.
static FILES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Notes a file outside of the lab, for [`remove_files`].
pub fn note_file(path: PathBuf) {
    FILES.lock().unwrap_or_else(PoisonError::into_inner).push(path);
}

/// Removes the files noted so far.
pub fn remove_files() {
    for path in FILES.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        // Its program may have removed it already.
        let _ = fs::remove_file(path);
    }
}

/// Takes over Ctrl-C, SIGTERM, SIGHUP and panics.
///
/// Call it before the first thread is started: threads inherit the blocked signals. (Programs
/// started by the standard library do not.)
pub fn watch() {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    if signals.thread_block().is_ok() {
        thread::spawn(move || {
            while let Ok(signal) = signals.wait() {
                if SIGNAL.swap(signal as i32, Ordering::Relaxed) != 0 {
                    remove_all();
                    exit(exit_code(signal as i32));
                }
                // Nothing is left to tell it to when stderr is gone.
                let _ = writeln!(std::io::stderr(), "stopping after this step; again to stop at once");
            }
        });
    }
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        hook(panic);
        remove_all();
    }));
}

fn remove_all() {
    lab::cleanup();
    remove_files();
}

/// To be called before each step.
///
/// # Errors
/// A signal has come.
pub fn check() -> Result<()> {
    match SIGNAL.load(Ordering::Relaxed) {
        0 => Ok(()),
        signal => Err(Error::Interrupted { signal }),
    }
}

/// What a shell reports for a program that the signal ended.
pub fn exit_code(signal: i32) -> i32 {
    128 + signal
}
