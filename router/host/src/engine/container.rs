//! What an engine tells of a container.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use bollard::models::{ContainerInspectResponse, ContainerSummary, ContainerSummaryStateEnum};
use weave_wire::HostName;

use crate::detached::DetachedRun;
use crate::names::{ContainerNames, GIVEN_MAX};

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
    /// It neither runs nor is paused: it has ended, or will be started again.
    pub exited: bool,
    /// Its labels.
    pub labels: HashMap<String, String>,
    /// Its name.
    pub name: Option<String>,
}

impl Listed {
    /// `None` without an id.
    pub(super) fn read(summary: ContainerSummary) -> Option<Self> {
        Some(Self {
            id: summary.id?.parse().ok()?,
            running: summary.state == Some(ContainerSummaryStateEnum::RUNNING),
            exited: !matches!(
                summary.state,
                Some(ContainerSummaryStateEnum::RUNNING | ContainerSummaryStateEnum::PAUSED)
            ),
            labels: summary.labels.unwrap_or_default(),
            // Further ones are links of other containers, with a second slash.
            name: summary.names.unwrap_or_default().into_iter().find_map(|name| {
                name.strip_prefix('/').filter(|name| !name.contains('/')).map(str::to_owned)
            }),
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
    /// What it calls itself, with its domain if it has one.
    pub host_name: String,
    /// The engine's handle of its network namespace.
    pub sandbox: Option<PathBuf>,
    /// Its labels.
    pub labels: HashMap<String, String>,
    /// When it was started last, as the engine writes it.
    pub started: Option<String>,
}

/// The label that attaches a container without a command: addresses separated by blanks or commas.
pub const CIDR_LABEL: &str = "weave.cidr";
/// Longest time of a start that is believed, bytes: engines write 30 and 35.
const STARTED_MAX: usize = 64;

/// The label that gives a container names, separated by blanks or commas.
pub const NAMES_LABEL: &str = "weave.dns";

impl EngineContainer {
    /// What it is called; words of its label that are no names are left out.
    #[must_use]
    pub fn called(&self) -> ContainerNames {
        let words = words_of(self.labels.get(NAMES_LABEL).map_or("", String::as_str));
        ContainerNames {
            host: Some(self.host_name.clone()),
            engine: Some(self.name.clone()),
            labelled: words.filter_map(|word| HostName::typed(word).ok()).take(GIVEN_MAX).collect(),
            ..ContainerNames::default()
        }
    }

    /// What of its label gives no name in `domain`, and why.
    #[must_use]
    pub fn fault_of_names(&self, domain: &HostName) -> Option<String> {
        fault_of_names(self.labels.get(NAMES_LABEL)?, domain)
    }

    /// What is to be remembered when the user detaches it; `None`: no label attaches it.
    #[must_use]
    pub fn detached_run(&self) -> Option<DetachedRun> {
        self.labels
            .contains_key(CIDR_LABEL)
            .then(|| DetachedRun { container: self.id.to_string(), started: self.started.clone() })
    }

    /// `None` if the answer lacks an id.
    pub(super) fn read(response: ContainerInspectResponse) -> Option<Self> {
        let id: ContainerId = response.id?.parse().ok()?;
        let state = response.state.unwrap_or_default();
        let pid = state.pid.filter(|_| state.running == Some(true)).and_then(|pid| u32::try_from(pid).ok());
        let config = response.config.unwrap_or_default();
        let parts = [config.hostname, config.domainname].map(Option::unwrap_or_default);
        let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let sandbox = response.network_settings.and_then(|settings| settings.sandbox_key);
        Some(Self {
            name: response
                .name
                .map_or_else(|| id.short().to_owned(), |name| name.trim_start_matches('/').to_owned()),
            pid: pid.filter(|pid| *pid > 0),
            sandbox: sandbox.filter(|path| path.starts_with('/')).map(PathBuf::from),
            host_name: parts.join("."),
            labels: config.labels.unwrap_or_default(),
            started: state.started_at.filter(|text| text.len() <= STARTED_MAX),
            id,
        })
    }
}

fn words_of(label: &str) -> impl Iterator<Item = &str> {
    label.split([' ', ',']).filter(|word| !word.is_empty())
}

/// What of a label [`NAMES_LABEL`] gives no name in `domain`, and why; the first such word.
pub(crate) fn fault_of_names(label: &str, domain: &HostName) -> Option<String> {
    let fault_of = |word: &str| match HostName::typed(word) {
        Err(error) => Some(format!("{word:.80?} is no name: {error}")),
        Ok(name) if name.as_str().contains('.') && !name.is_in(domain) => {
            Some(format!("{name} is not in the domain {domain}"))
        }
        Ok(_) => None,
    };
    let fault = words_of(label).take(GIVEN_MAX).find_map(fault_of);
    let many = || {
        let count = words_of(label).count();
        (count > GIVEN_MAX).then(|| format!("it has {count} names: the first {GIVEN_MAX} count"))
    };
    Some(format!("its label {NAMES_LABEL}: {}", fault.or_else(many)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn words_of_a_label_that_give_no_name_are_told() {
        let domain = "weave.local".parse().unwrap();
        for good in ["", "web", "web,db.weave.local api", "a.b.weave.local"] {
            assert_eq!(fault_of_names(good, &domain), None, "{good}");
        }
        let long = "a".repeat(64);
        for (bad, why) in [
            ("web bad!name", "\"bad!name\" is no name"),
            ("web,db.example.com", "db.example.com is not in the domain weave.local"),
            ("-", "\"-\" is no name"),
            (long.as_str(), "is no name"),
        ] {
            let fault = fault_of_names(bad, &domain).unwrap_or_default();
            assert!(fault.contains(why) && fault.contains(NAMES_LABEL), "{bad}: {fault}");
        }
        let many = vec!["web"; GIVEN_MAX + 1].join(" ");
        assert!(fault_of_names(&many, &domain).unwrap().contains("the first"));
    }

    #[test]
    fn ids_are_64_hexadecimal_digits() {
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(id.parse::<ContainerId>().map(|id| id.short().to_owned()), Ok("0123456789ab".into()));
        for bad in ["", "web", &id[1..], &id.to_uppercase(), &format!("{id}0")] {
            assert!(bad.parse::<ContainerId>().is_err(), "{bad}");
        }
    }
}
