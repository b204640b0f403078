//! Points between the steps of a command at which a test has it killed, or the next step fail.
//!
//! Only with the feature `failpoints`, which the integration tests switch on; elsewhere they are
//! nothing. `WEAVE_FAILPOINT=attach:7` kills `weave attach`, and nothing that it starts, at the
//! seventh point that it passes, and `attach:7:fail` has the step fail there, if it is one that may;
//! `WEAVE_FAILPOINT_LOG` names a file that gets a line for each.

use std::io;

/// The process is between two steps; `next` is the one to come.
#[inline]
pub fn failpoint(next: &str) {
    // What cannot fail goes on.
    let _ = before_step(next);
}

/// The same before a step that may fail.
///
/// # Errors
/// That of the step, where a test wants one.
#[cfg(not(feature = "failpoints"))]
#[inline]
#[expect(clippy::unnecessary_wraps, reason = "as with the feature")]
pub(crate) const fn before_step(_next: &str) -> io::Result<()> {
    Ok(())
}

/// The same before a step that may fail.
///
/// # Errors
/// That of the step, where a test wants one.
#[cfg(feature = "failpoints")]
pub(crate) fn before_step(next: &str) -> io::Result<()> {
    use std::io::Write;
    use std::sync::atomic::{AtomicU64, Ordering};
    static PASSED: AtomicU64 = AtomicU64::new(0);

    let Ok(text) = std::env::var("WEAVE_FAILPOINT") else { return Ok(()) };
    let mut parts = text.split(':');
    let (Some(command), Some(number)) = (parts.next(), parts.next()) else { return Ok(()) };
    if std::env::args().nth(1).as_deref() != Some(command) {
        return Ok(());
    }
    let passed = PASSED.fetch_add(1, Ordering::Relaxed) + 1;
    if let Some(log) = std::env::var_os("WEAVE_FAILPOINT_LOG")
        && let Ok(mut log) = std::fs::OpenOptions::new().append(true).create(true).open(log)
    {
        let _ = writeln!(log, "{next}");
    }
    if number.parse() != Ok(passed) {
        return Ok(());
    }
    if parts.next() == Some("fail") {
        return Err(io::Error::other("a test has it fail"));
    }
    // Nothing is dropped, flushed or undone.
    let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
    Ok(())
}
