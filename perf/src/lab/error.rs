//! What can go wrong in a lab.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::HOSTS_MAX;
use super::layout::{Place, SEGMENTS_MAX};

/// Result of this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A step of building or using a lab that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel's side of the network.
    #[error(transparent)]
    Host(#[from] weave_host::Error),
    /// A file or directory.
    #[error("{step} {}: {cause}", path.display())]
    File {
        /// What was tried.
        step: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        cause: io::Error,
    },
    /// A program that could not be started, or was lost.
    #[error("{step} {program}: {cause}")]
    Program {
        /// What was tried.
        step: &'static str,
        /// The program.
        program: String,
        /// Why it failed.
        cause: io::Error,
    },
    /// A program that did not end in time and was killed.
    #[error("{program} did not end within {} ms and was killed", limit.as_millis())]
    TimedOut {
        /// The program.
        program: String,
        /// The time it had.
        limit: Duration,
    },
    /// A number of hosts that no lab has.
    #[error("a lab of {given} hosts is out of range: give 1 to {HOSTS_MAX}")]
    Hosts {
        /// What was asked for.
        given: usize,
    },
    /// A place that no host can have.
    #[error(
        "no host can be at {given:?}: name distinct segments below {SEGMENTS_MAX}, one with address translation"
    )]
    Place {
        /// What was asked for.
        given: Place,
    },
    /// Something that only an underlay of another form has.
    #[error("{what} is not in this lab")]
    Absent {
        /// What was asked for.
        what: String,
    },
    /// A program of the system that refused.
    #[error("{line}: {said}")]
    Tool {
        /// The command line.
        line: String,
        /// What it said.
        said: String,
    },
}

impl Error {
    pub(super) fn file(step: &'static str, path: impl Into<PathBuf>, cause: io::Error) -> Self {
        Self::File { step, path: path.into(), cause }
    }
}
