//! What can go wrong while tunnels are compared.

use std::io;

use weave_perf::lab;
use weave_perf::process::UsageError;
use weave_perf::traffic::TrafficError;

/// A step of the comparison that failed. Of one peer: noted, and the others go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program did not do what it was run for.
    #[error("`{line}` failed: {cause}")]
    Command {
        /// The command line.
        line: String,
        /// Its last words, or why it could not be run.
        cause: String,
    },
    /// A file or directory of the run.
    #[error("cannot {step} {object}: {cause}")]
    File {
        /// What was tried.
        step: &'static str,
        /// On which file.
        object: String,
        /// Why it failed.
        #[source]
        cause: io::Error,
    },
    /// The tunnel did not come up.
    #[error("the far container did not answer within {seconds} s; {hint}")]
    NotReady {
        /// How long was waited.
        seconds: u64,
        /// Where to look.
        hint: String,
    },
    /// A program that carries the tunnel is not in the cgroup of its host.
    #[error("process {pid} runs outside of the cgroup that limits the memory of its host")]
    NotLimited {
        /// Its number.
        pid: u32,
    },
    /// The limit of memory that was asked for is too low.
    #[error("{kills} processes of the two hosts were ended for lack of memory")]
    Killed {
        /// How many.
        kills: u64,
    },
    /// The simulated hosts.
    #[error(transparent)]
    Lab(#[from] lab::Error),
    /// A signal asked to stop.
    #[error("interrupted")]
    Interrupted {
        /// Its number.
        signal: i32,
    },
    /// The generator failed.
    #[error(transparent)]
    Traffic(#[from] TrafficError),
    /// A daemon has gone.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// The command line asks for what is not there.
    #[error("{0}")]
    Request(String),
}

impl Error {
    pub fn file(step: &'static str, object: impl AsRef<std::path::Path>, cause: io::Error) -> Self {
        Self::File { step, object: object.as_ref().display().to_string(), cause }
    }
}

/// Result of anything in this program.
pub type Result<T, E = Error> = std::result::Result<T, E>;
