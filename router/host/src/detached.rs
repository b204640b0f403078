//! Containers that their label would attach and that the user detached: one file each, kept as long
//! as the container runs on and is not attached again.
//!
//! A file says of which run it speaks: a container that was started since is attached by its label,
//! whether anybody looked meanwhile or not.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::store::{Aside, StateDir, StateFile};

/// Directory of these files in the state directory.
pub const DIRECTORY: &str = "detached";

/// The run of a container in which the user detached it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetachedRun {
    /// The engine's id of the container.
    pub container: String,
    /// When this run began, as the engine writes it; `None`: it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
}

impl StateFile for DetachedRun {
    const KIND: &'static str = "detached container";
    const VERSION: u32 = 1;
}

/// All of them, read without the lock: for those who only look. Damaged files are left out.
///
/// # Errors
/// [`Error::State`](crate::Error::State) when the directory cannot be read or a file was written by a
/// newer version.
pub fn read_all(state_dir: &Path) -> Result<Vec<DetachedRun>> {
    StateDir::existing(state_dir.join(DIRECTORY)).read_all()
}

/// Those of this host, for who holds the lock of the state directory.
#[derive(Debug)]
pub(crate) struct DetachedRuns {
    directory: StateDir,
    all: Vec<DetachedRun>,
}

impl DetachedRuns {
    /// Damaged files are set aside and come second.
    pub(crate) fn read_own(state_dir: &Path) -> Result<(Self, Vec<Aside>)> {
        let directory = StateDir::existing(state_dir.join(DIRECTORY));
        let (all, aside) = directory.read_all_own()?;
        Ok((Self { directory, all }, aside))
    }

    pub(crate) fn all(&self) -> &[DetachedRun] {
        &self.all
    }

    /// In place of an earlier run of the same container.
    pub(crate) fn put(&mut self, run: DetachedRun) -> Result<()> {
        self.directory = StateDir::create(self.directory.path())?;
        self.directory.write(&file_name(&run.container), &run)?;
        self.all.retain(|other| other.container != run.container);
        self.all.push(run);
        Ok(())
    }

    /// One that is not there is no error.
    pub(crate) fn remove(&mut self, container: &str) -> Result<()> {
        if self.all.iter().any(|run| run.container == container) {
            self.directory.remove(&file_name(container))?;
            self.all.retain(|run| run.container != container);
        }
        Ok(())
    }

    /// Takes the directory away if it is empty.
    pub(crate) fn tidy(&self) {
        if self.all.is_empty() {
            let _ = std::fs::remove_dir(self.directory.path());
        }
    }
}

fn file_name(container: &str) -> String {
    format!("{container}.json")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_run_is_known_until_it_is_removed_and_the_last_takes_the_directory_along() {
        let state = tempfile::tempdir().unwrap();
        let read = || read_all(state.path()).unwrap();
        let run = |container: &str, started: Option<&str>| DetachedRun {
            container: container.into(),
            started: started.map(str::to_owned),
        };
        let (mut runs, _) = DetachedRuns::read_own(state.path()).unwrap();
        assert!(runs.all().is_empty() && !state.path().join(DIRECTORY).exists());
        for one in [run("a", None), run("b", Some("1")), run("b", Some("2"))] {
            runs.put(one).unwrap();
        }
        let all = [run("a", None), run("b", Some("2"))];
        assert_eq!((runs.all(), read().as_slice()), (&all[..], &all[..]));
        std::fs::write(state.path().join(DIRECTORY).join("c.json"), "{").unwrap();
        assert_eq!(read(), all);
        let (mut runs, aside) = DetachedRuns::read_own(state.path()).unwrap();
        assert_eq!((runs.all(), aside.len()), (&all[..], 1));
        for name in ["a", "b", "nobody"] {
            runs.remove(name).unwrap();
        }
        std::fs::remove_file(&aside[0].kept).unwrap();
        runs.tidy();
        assert!(!state.path().join(DIRECTORY).exists());
    }
}
