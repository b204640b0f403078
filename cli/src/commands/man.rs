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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_command_that_is_shown_has_a_page() {
        let directory = tempfile::tempdir().unwrap();
        let hidden = clap::Command::new("keeper").hide(true);
        let command = clap::Command::new("weave").subcommands([clap::Command::new("launch"), hidden]);
        run(&directory.path().join("man"), command).unwrap();
        let pages = std::fs::read_dir(directory.path().join("man")).unwrap();
        let mut pages: Vec<_> = pages.map(|page| page.unwrap().file_name()).collect();
        pages.sort();
        assert_eq!(pages, ["weave-launch.1", "weave.1"]);
    }
}
