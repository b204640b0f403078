//! The log of a daemon: to the journal under systemd, else to standard error as text or JSON.
//!
//! What a peer or a broken link can cause again and again must not fill a disk: lines of one kind
//! are limited ([`limit`]).

mod limit;

use crate::config::LogLevel;
use std::io;
use std::os::linux::fs::MetadataExt;
use std::sync::OnceLock;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// Names the form of the log on standard error: `text` or `json`.
pub const FORMAT_VARIABLE: &str = "WEAVE_LOG_FORMAT";

/// Where the journal is told of, and who has it: systemd.exec(5).
const JOURNAL_VARIABLE: &str = "JOURNAL_STREAM";

pub(crate) use limit::left_out;

static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Starts the log of this process; `quieter` are directives for crates that say too much. A
/// second one in a process (tests) changes nothing.
pub fn start(level: LogLevel, quieter: &str) {
    let (filter, handle) = reload::Layer::new(directives(level, quieter));
    let registry = tracing_subscriber::registry().with(filter).with(limit::Limit::default());
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
