//! What an engine tells of a container.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use bollard::models::{ContainerInspectResponse, ContainerSummary, ContainerSummaryStateEnum};

/// Digits of the id that are shown.
const SHORT: usize = 12;
/// Digits of an id.
const LEN: usize = 64;

/// The id of a container: 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(String);

/// It is not 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the id of a container: 64 hexadecimal digits are needed")]
pub struct NotAnId;

impl ContainerId {
    /// All digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 12 digits, as engines show it.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(..SHORT).unwrap_or(&self.0)
    }
}

impl FromStr for ContainerId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == LEN && text.bytes().all(is_digit) { Ok(Self(text.to_owned())) } else { Err(NotAnId) }
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A container in an engine's list.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Its id.
    pub id: ContainerId,
    /// True if it runs.
    pub running: bool,
    /// Its labels.
    pub labels: HashMap<String, String>,
}

impl Listed {
    /// `None` without an id.
    pub(super) fn read(summary: ContainerSummary) -> Option<Self> {
        Some(Self {
            id: summary.id?.parse().ok()?,
            running: summary.state == Some(ContainerSummaryStateEnum::RUNNING),
            labels: summary.labels.unwrap_or_default(),
        })
    }
}

/// A container of an engine.
#[derive(Debug, Clone)]
pub struct EngineContainer {
    /// Its id.
    pub id: ContainerId,
    /// Its name.
    pub name: String,
    /// Its first process; `None`: it does not run.
    pub pid: Option<u32>,
    /// The engine's handle of its network namespace.
    pub sandbox: Option<PathBuf>,
    /// Its labels.
    pub labels: HashMap<String, String>,
}

impl EngineContainer {
    /// `None` if the answer lacks an id.
    pub(super) fn read(response: ContainerInspectResponse) -> Option<Self> {
        let id: ContainerId = response.id?.parse().ok()?;
        let state = response.state.unwrap_or_default();
        let pid = state.pid.filter(|_| state.running == Some(true)).and_then(|pid| u32::try_from(pid).ok());
        let sandbox = response.network_settings.and_then(|settings| settings.sandbox_key);
        Some(Self {
            name: response
                .name
                .map_or_else(|| id.short().to_owned(), |name| name.trim_start_matches('/').to_owned()),
            pid: pid.filter(|pid| *pid > 0),
            sandbox: sandbox.filter(|path| path.starts_with('/')).map(PathBuf::from),
            labels: response.config.and_then(|config| config.labels).unwrap_or_default(),
            id,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_64_hexadecimal_digits() {
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(id.parse::<ContainerId>().map(|id| id.short().to_owned()), Ok("0123456789ab".into()));
        for bad in ["", "web", &id[1..], &id.to_uppercase(), &format!("{id}0")] {
            assert!(bad.parse::<ContainerId>().is_err(), "{bad}");
        }
    }
}
