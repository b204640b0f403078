//! The keeper's watch over the sidecar: it runs again at once when it ended by itself, and is ended where
//! it hangs.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;
use weave_api::names::ANSWER_WITHIN;
use weave_api::sidecar;
use weave_host::names::DnsSettings;

use super::launch::{self, Begun};
use crate::running::{Daemon, Running};

/// How often it is looked whether it is to run.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Wait after a start that failed, at first and at most.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How often one that runs is asked whether it works, and how often in turn it may leave that without an
/// answer: on a busy host, or while it takes up names, it is late.
const ASK_EVERY: Duration = Duration::from_secs(10);
const SILENT_MAX: u32 = 3;

/// How long the sidecar has been silent.
#[derive(Debug, Default)]
struct Silence {
    /// Its process, and how often it has left a question without an answer since the last one it gave.
    of: Option<(i32, u32)>,
    asked: Option<Instant>,
}

impl Silence {
    /// True once process `pid` is to be ended; `ask`: what comes of asking it, not more often than it is due.
    fn is_too_long<T>(&mut self, pid: i32, now: Instant, ask: impl FnOnce() -> io::Result<T>) -> bool {
        if self.asked.is_some_and(|asked| now.duration_since(asked) < ASK_EVERY) {
            return false;
        }
        self.asked = Some(now);
        // One that turns the question away works, in its way.
        let answered = ask()
            .err()
            .is_none_or(|error| !matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock));
        let before = self.of.filter(|(of, _)| *of == pid).map_or(0, |(_, times)| times);
        let times = if answered { 0 } else { before + 1 };
        self.of = Some((pid, times));
        times >= SILENT_MAX
    }
}

/// Watches on a thread of its own, until the process ends.
///
/// # Errors
/// When the thread cannot be made.
pub fn watch(run_dir: PathBuf, state_dir: PathBuf) -> std::io::Result<()> {
    thread::Builder::new().name("keeper-dns".into()).spawn(move || {
        let mut wait = AGAIN.0;
        let mut interface = None;
        let mut silence = Silence::default();
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
                    let ask = || sidecar::status(&run_dir, ANSWER_WITHIN);
                    let pid = running.pid().map(|pid| pid.as_raw_nonzero().get());
                    if pid.is_some_and(|pid| silence.is_too_long(pid, Instant::now(), ask)) {
                        tracing::warn!("the DNS runs and does not answer: it is ended and started anew");
                        // If it cannot be, it is tried again when it was silent once more.
                        running.kill();
                        continue;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sidecar_that_is_silent_three_times_in_turn_is_to_be_ended() {
        let begin = Instant::now();
        let mut silence = Silence::default();
        let mut look = |second, pid, answer: Result<(), ErrorKind>| {
            let now = begin + Duration::from_secs(second);
            silence.is_too_long(pid, now, || answer.map_err(io::Error::from))
        };
        let (late, full) = (Err(ErrorKind::TimedOut), Err(ErrorKind::WouldBlock));
        assert!(!look(0, 7, late) && !look(10, 7, full) && !look(20, 7, Ok(())));
        assert!(!look(30, 7, late) && !look(40, 7, late) && look(50, 7, late));
        // It is not asked all the time.
        assert!((60..69).all(|second| !look(second, 8, late)), "another process");
        assert!(!look(70, 8, late) && !look(80, 8, Err(ErrorKind::ConnectionRefused)));
        assert!(!look(90, 8, late) && !look(100, 8, late) && !look(101, 8, late) && look(110, 8, late));
        assert!(look(120, 8, late), "tried again");
    }
}
