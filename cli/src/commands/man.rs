//! `weave man`: the manual pages.

use std::path::Path;

use crate::failure::{Failure, Result};

/// Writes the page of `command` and one for each of its commands that are shown.
pub fn run(directory: &Path, command: clap::Command) -> Result<()> {
    std::fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(command.disable_help_subcommand(true), directory))
        .map_err(|error| {
            let what = format!("cannot write manual pages to {}", directory.display());
            Failure::new(what, error, "name a directory that you may write to")
        })
}
