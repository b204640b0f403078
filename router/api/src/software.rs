//! Which program a process runs: daemons of one host may be of different versions after an upgrade.

use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};

/// Longest text of either field that is taken from another process, bytes.
const TEXT_MAX: usize = 80;
/// The executable of this process, also once its file was replaced.
const OWN: &str = "/proc/self/exe";

/// The program of a daemon.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Software {
    /// Its version.
    pub version: String,
    /// Tells executables of one version apart: length and time of change of the file; empty where
    /// that is not known.
    #[serde(default)]
    pub executable: String,
}

impl Software {
    /// That of this process.
    #[must_use]
    pub fn ours() -> Self {
        let executable = std::fs::metadata(OWN).map_or_else(
            |_| String::new(),
            |file| format!("{:x}-{:x}.{:09}", file.len(), file.mtime(), file.mtime_nsec()),
        );
        Self { version: env!("CARGO_PKG_VERSION").into(), executable }
    }

    /// True if nobody told what it is.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.version.is_empty()
    }

    /// How `self` differs from `ours`, in words that follow "it runs"; `None` if it does not, as
    /// far as can be known.
    #[must_use]
    pub fn difference(&self, ours: &Self) -> Option<String> {
        let is_known = !self.executable.is_empty() && !ours.executable.is_empty();
        if self.version != ours.version {
            let version: String = self.version.chars().take(TEXT_MAX).collect();
            return Some(format!("version {version}, the router {}", ours.version));
        }
        (is_known && self.executable != ours.executable)
            .then(|| format!("another executable of version {} than the router", ours.version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_executables_are_told_apart_and_what_is_not_known_is_not() {
        let ours = Software::ours();
        assert!(!ours.executable.is_empty());
        assert_eq!(ours.difference(&ours), None);
        let newer = Software { version: "9.0.0".into(), ..ours.clone() };
        assert!(ours.difference(&newer).is_some_and(|text| text.contains("9.0.0")));
        let rebuilt = Software { executable: "1-2.3".into(), ..ours.clone() };
        assert!(rebuilt.difference(&ours).is_some_and(|text| text.contains("another executable")));
        let unknown = Software { executable: String::new(), ..ours.clone() };
        assert_eq!(unknown.difference(&ours), None);
    }
}
