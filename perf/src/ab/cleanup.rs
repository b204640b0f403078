//! Leaves nothing behind: not at the end, not on an error, not on Ctrl-C, not on a panic.
//!
//! What was made is noted in one list before it is made. Whoever ends the run takes the list and
//! removes what is on it; removing twice does no harm.

use std::fs;
use std::path::PathBuf;
use std::process::exit;
use std::sync::{Mutex, PoisonError};
use std::thread;

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use super::command::run;

/// Something that outlives this process unless it is removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trace {
    /// A named network namespace, with every process in it.
    Namespace(String),
    /// A file or a directory with all that is in it.
    Path(PathBuf),
}

static TRACES: Mutex<Vec<Trace>> = Mutex::new(Vec::new());

/// Notes `trace`, to be removed by [`remove`] or [`remove_all`].
pub fn note(trace: Trace) {
    TRACES.lock().unwrap_or_else(PoisonError::into_inner).push(trace);
}

/// Removes everything on `traces` and takes it off the list.
pub fn remove(traces: &[Trace]) {
    // The last made goes first: what was made inside another thing goes before that.
    traces.iter().rev().for_each(remove_one);
    let mut noted = TRACES.lock().unwrap_or_else(PoisonError::into_inner);
    noted.retain(|trace| !traces.contains(trace));
}

/// Removes everything that was noted and not removed yet.
pub fn remove_all() {
    let noted = TRACES.lock().unwrap_or_else(PoisonError::into_inner).clone();
    remove(&noted);
}

/// From now on Ctrl-C, SIGTERM, SIGHUP and a panic remove everything that was noted.
///
/// Call it before the first thread is started: threads inherit the blocked signals. (Programs
/// started by the standard library do not.)
pub fn on_any_end() {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    if signals.thread_block().is_ok() {
        thread::spawn(move || {
            if let Ok(signal) = signals.wait() {
                remove_all();
                // What a shell reports for a program that the signal ended.
                exit(128 + signal as i32);
            }
        });
    }
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        hook(panic);
        remove_all();
    }));
}

/// Failures are ignored: what is left out of reach here was removed by somebody else.
fn remove_one(trace: &Trace) {
    match trace {
        Trace::Namespace(name) => {
            let pids = run(&["ip", "netns", "pids", name]).unwrap_or_default();
            for pid in pids.split_ascii_whitespace().filter_map(|p| p.parse().ok()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            let _ = run(&["ip", "netns", "delete", name]);
        }
        Trace::Path(path) if path.is_dir() => {
            let _ = fs::remove_dir_all(path);
        }
        Trace::Path(path) => {
            let _ = fs::remove_file(path);
        }
    }
}
