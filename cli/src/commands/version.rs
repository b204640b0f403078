//! `weave version`.

use crate::failure::Result;
use crate::output;

/// Prints the version of this executable.
pub fn run() -> Result<()> {
    output::print(format_args!("weave {}\n", env!("CARGO_PKG_VERSION")))
}
