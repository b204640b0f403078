//! The log of a daemon: to the journal under systemd, else to standard error as text or JSON.
//!
//! A line of one kind comes [`LINES`] times in [`WINDOW`] at most: what a peer or a broken link
//! can cause again and again must not fill a disk. What is left out is counted.

use crate::config::LogLevel;
use std::collections::HashMap;
use std::io;
use std::os::linux::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tracing::callsite::Identifier;
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// Names the form of the log on standard error: `text` or `json`.
pub const FORMAT_VARIABLE: &str = "WEAVE_LOG_FORMAT";
/// Lines of one kind in one [`WINDOW`], at most.
pub const LINES: u32 = 50;
/// See [`LINES`].
pub const WINDOW: Duration = Duration::from_secs(10);

/// Where the journal is told of, and who has it: systemd.exec(5).
const JOURNAL_VARIABLE: &str = "JOURNAL_STREAM";

static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

/// Starts the log of this process; `quieter` are directives for crates that say too much. A
/// second one in a process (tests) changes nothing.
pub fn start(level: LogLevel, quieter: &str) {
    let (filter, handle) = reload::Layer::new(directives(level, quieter));
    let registry = tracing_subscriber::registry().with(filter).with(Limit::default());
    let stderr =
        || tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(false).with_target(false);
    let started = match (journal(), std::env::var_os(FORMAT_VARIABLE).is_some_and(|format| format == "json"))
    {
        (Some(journal), _) => registry.with(journal).try_init(),
        (None, true) => registry.with(stderr().json().flatten_event(true)).try_init(),
        (None, false) => registry.with(stderr()).try_init(),
    };
    if started.is_ok() {
        let _ = FILTER.set(handle);
    }
}

/// Logs as much as `level` says from now on.
///
/// # Errors
/// When this process has no log of its own.
pub(crate) fn set_level(level: LogLevel) -> io::Result<()> {
    let filter = FILTER.get().ok_or_else(|| io::Error::other("another part of this process has the log"))?;
    filter.reload(directives(level, "")).map_err(io::Error::other)
}

/// Lines left out since the start.
pub(crate) fn left_out() -> u64 {
    LEFT_OUT.load(Ordering::Relaxed)
}

fn directives(level: LogLevel, quieter: &str) -> EnvFilter {
    let comma = if quieter.is_empty() { "" } else { "," };
    EnvFilter::new(format!("{}{comma}{quieter}", level.as_str()))
}

/// The journal, if standard error leads there: then fields stay fields.
fn journal() -> Option<tracing_journald::Layer> {
    let told = std::env::var(JOURNAL_VARIABLE).ok()?;
    let (device, inode) = told.split_once(':')?;
    let stderr = std::fs::metadata("/proc/self/fd/2").ok()?;
    let is_it = device.parse() == Ok(stderr.st_dev()) && inode.parse() == Ok(stderr.st_ino());
    if is_it { tracing_journald::layer().ok() } else { None }
}

/// Leaves lines out where there are too many of one kind.
#[derive(Default)]
struct Limit {
    /// By the place in the source, of which there are few.
    seen: Mutex<HashMap<Identifier, Seen>>,
}

struct Seen {
    since: Instant,
    lines: u32,
}

impl Limit {
    fn admit(&self, kind: Identifier, now: Instant) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = seen.entry(kind).or_insert(Seen { since: now, lines: 0 });
        if now.duration_since(seen.since) >= WINDOW {
            *seen = Seen { since: now, lines: 0 };
        }
        seen.lines = seen.lines.saturating_add(1);
        seen.lines <= LINES
    }
}

impl<S: Subscriber> Layer<S> for Limit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        // What is asked for by level is wanted whole.
        if *event.metadata().level() > tracing::Level::INFO
            || self.admit(event.metadata().callsite(), Instant::now())
        {
            return true;
        }
        LEFT_OUT.fetch_add(1, Ordering::Relaxed);
        false
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Write;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_of_one_kind_are_limited_and_others_are_not() {
        let written = Lines::default();
        let writer = written.clone();
        let log = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(Limit::default()).with(log);
        let before = left_out();
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..3 * LINES {
                tracing::warn!(number, "again");
                tracing::debug!("asked for");
            }
            tracing::warn!("once");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let count = |what| text.lines().filter(|line| line.contains(what)).count();
        assert_eq!((count("again"), count("once")), (LINES as usize, 1));
        assert_eq!(count("asked for"), 3 * LINES as usize);
        assert!(left_out() - before >= u64::from(2 * LINES));
    }

    #[test]
    fn a_kind_is_heard_again_after_a_while() {
        let limit = Limit::default();
        let kind = Identifier(&CALLSITE);
        let begin = Instant::now();
        assert_eq!((0..100).filter(|_| limit.admit(kind.clone(), begin)).count(), LINES as usize);
        assert!(limit.admit(kind, begin + WINDOW));
    }

    struct Callsite;
    static CALLSITE: Callsite = Callsite;
    impl tracing::callsite::Callsite for Callsite {
        fn set_interest(&self, _: tracing::subscriber::Interest) {}
        fn metadata(&self) -> &tracing::Metadata<'_> {
            unreachable!("nobody asks")
        }
    }
}
