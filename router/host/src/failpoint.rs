//! Points between the steps of a command at which a test has it killed.
//!
//! Only with the feature `failpoints`, which the integration tests switch on; elsewhere they are
//! nothing. `WEAVE_FAILPOINT=attach:7` kills `weave attach`, and nothing that it starts, at the
//! seventh point that it passes; `WEAVE_FAILPOINT_LOG` names a file that gets a line for each.

/// The process is between two steps; `next` is the one to come.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub const fn failpoint(_next: &str) {}

/// The process is between two steps; `next` is the one to come.
#[cfg(feature = "failpoints")]
pub fn failpoint(next: &str) {
    use std::io::Write;
    use std::sync::atomic::{AtomicU64, Ordering};
    static PASSED: AtomicU64 = AtomicU64::new(0);

    let Ok(text) = std::env::var("WEAVE_FAILPOINT") else { return };
    let Some((command, number)) = text.split_once(':') else { return };
    if std::env::args().nth(1).as_deref() != Some(command) {
        return;
    }
    let passed = PASSED.fetch_add(1, Ordering::Relaxed) + 1;
    if let Some(log) = std::env::var_os("WEAVE_FAILPOINT_LOG")
        && let Ok(mut log) = std::fs::OpenOptions::new().append(true).create(true).open(log)
    {
        let _ = writeln!(log, "{next}");
    }
    if number.parse() == Ok(passed) {
        // Nothing is dropped, flushed or undone.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
    }
}
