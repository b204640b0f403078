//! The only places that write to standard output and standard error.

use std::fmt::Display;
use std::io::{self, Write};

use serde::Serialize;
use weave_api::OneLine;

use crate::failure::{Failure, Result};

/// Writes `text` to standard output. A reader that went away (`weave status | head`)
/// is no failure.
pub fn print(text: impl Display) -> Result<()> {
    print_on(text).map(drop)
}

/// The same; false when the reader went away, for who would go on.
pub fn print_on(text: impl Display) -> Result<bool> {
    let mut stdout = io::stdout().lock();
    match write!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::new("cannot write the answer", error, "")),
    }
}

/// Writes `value` as JSON, indented.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    match serde_json::to_string_pretty(value) {
        Ok(text) => print(format_args!("{text}\n")),
        Err(error) => Err(Failure::new("cannot write the answer as JSON", error, "")),
    }
}

/// Writes a failure to standard error. When even that fails there is nobody to tell.
pub fn complain(failure: &Failure) {
    let _ = writeln!(io::stderr().lock(), "{failure}");
}

/// Writes something the user should know, but that failed nothing.
pub fn warn(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "warning: {}", OneLine(&text.to_string()));
}

/// Writes what a command found or skipped.
pub fn note(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{}", OneLine(&text.to_string()));
}
