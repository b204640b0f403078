//! `weave report`: the whole state as one JSON document, secrets left out.

use super::status;
use crate::environment::Environment;
use crate::failure::Result;
use crate::output;

/// Prints the report.
pub fn run(environment: &Environment) -> Result<()> {
    output::print_json(&status::fetch(environment)?)
}
