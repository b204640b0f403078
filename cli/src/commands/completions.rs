//! `weave completions`: the script that completes commands in a shell.

use clap_complete::{Shell, generate};

use crate::failure::Result;
use crate::output;

/// Prints the completions of `command` for `shell`.
pub fn run(shell: Shell, command: &mut clap::Command) -> Result<()> {
    let mut script = Vec::new();
    generate(shell, command, "weave", &mut script);
    output::print(String::from_utf8_lossy(&script))
}
