//! Leaves nothing behind: not at the end, not on an error, not on Ctrl-C, not on a panic.
//!
//! What was made is noted in one list before it is made. Whoever ends the run takes the list and
//! removes what is on it; removing twice does no harm. On a signal the list stays locked until the
//! process is gone, so that nothing new can be made behind the back of the removal.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, exit};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::command::run;

/// Something that outlives this process unless it is removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trace {
    /// A named network namespace, with every process in it.
    Namespace(String),
    /// A child of this process, not waited for yet.
    Process(Pid),
    /// A file or a directory with all that is in it.
    Path(PathBuf),
}

static TRACES: Mutex<Vec<Trace>> = Mutex::new(Vec::new());

/// Most times the processes of a namespace are looked for and killed: they may start others.
const KILL_PASSES: usize = 20;

/// Notes `trace`, to be removed by [`remove`] or when the run ends early.
pub fn note(trace: Trace) {
    lock().push(trace);
}

/// Starts a child and notes it, with nobody able to look at the list in between.
pub fn note_child<E>(start: impl FnOnce() -> Result<Child, E>) -> Result<Child, E> {
    let mut noted = lock();
    let child = start()?;
    noted.push(Trace::Process(Pid::from_raw(child.id().cast_signed())));
    Ok(child)
}

/// Kills a child, waits for its end and takes it off the list.
pub fn end_child(child: &mut Child) {
    // Locked, so that the number is not killed by another after it has been given away. The child
    // may have ended by itself: then there is nothing to kill, and waiting returns at once.
    let mut noted = lock();
    let _ = child.kill();
    let _ = child.wait();
    let pid = Pid::from_raw(child.id().cast_signed());
    noted.retain(|trace| *trace != Trace::Process(pid));
}

/// Removes everything on `traces` and takes it off the list.
pub fn remove(traces: &[Trace]) {
    remove_each(traces);
    lock().retain(|trace| !traces.contains(trace));
}

fn lock() -> MutexGuard<'static, Vec<Trace>> {
    TRACES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The last made goes first: what was made inside another thing goes before that.
fn remove_each(traces: &[Trace]) {
    traces.iter().rev().for_each(remove_one);
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
                let noted = lock();
                remove_each(&noted);
                // What a shell reports for a program that the signal ended.
                exit(128 + signal as i32);
            }
        });
    }
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        hook(panic);
        remove_each(&lock());
    }));
}

/// Failures are ignored: what is left out of reach here was removed by somebody else.
fn remove_one(trace: &Trace) {
    match trace {
        Trace::Namespace(name) => {
            for _ in 0..KILL_PASSES {
                let pids = run(&["ip", "netns", "pids", name]).unwrap_or_default();
                if pids.trim().is_empty() {
                    break;
                }
                for pid in pids.split_ascii_whitespace().filter_map(|p| p.parse().ok()) {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
            }
            let _ = run(&["ip", "netns", "delete", name]);
        }
        Trace::Process(pid) => {
            let _ = kill(*pid, Signal::SIGKILL);
            let _ = waitpid(*pid, None);
        }
        Trace::Path(path) if path.is_dir() => {
            let _ = fs::remove_dir_all(path);
        }
        Trace::Path(path) => {
            let _ = fs::remove_file(path);
        }
    }
}
