//! What the router that was launched last was told about its host: for the commands and the keeper
//! that come after it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::store::{Aside, StateDir, StateFile, Stored};

/// File of the [`HostPolicy`] in the state directory.
pub(crate) const FILE: &str = "host.json";

/// What the rules need to know beside addresses and attachments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPolicy {
    /// TCP and UDP port of the mesh.
    pub port: u16,
    /// The engine's default bridge.
    pub engine_bridge: String,
    /// Containers send from their own addresses only.
    #[serde(default)]
    pub guard: bool,
}

impl StateFile for HostPolicy {
    const KIND: &'static str = "host policy";
    const VERSION: u32 = 1;
}

impl HostPolicy {
    /// What was written down last.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(state_dir: &Path) -> Result<Option<Self>> {
        match StateDir::existing(state_dir).read(FILE)? {
            Stored::Content(policy) => Ok(Some(policy)),
            Stored::Absent | Stored::Damaged(_) => Ok(None),
        }
    }

    /// The same for who holds the lock: a damaged file is set aside.
    pub(crate) fn read_own(state: &StateDir) -> Result<(Option<Self>, Option<Aside>)> {
        state.read_own(FILE)
    }

    /// Writes it down.
    ///
    /// # Errors
    /// [`Error::State`](crate::Error::State).
    pub fn write(&self, state_dir: &Path) -> Result<()> {
        let directory = StateDir::create(state_dir)?;
        let _lock = directory.lock()?;
        let (_, damaged) = Self::read_own(&directory)?;
        damaged.iter().for_each(Aside::warn);
        directory.write(FILE, self)
    }
}
