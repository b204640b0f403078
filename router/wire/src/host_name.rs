//! Names of containers as hosts (RFC 1123, with the underscore engines allow).

use crate::name::ParseNameError;
use std::fmt;
use std::str::FromStr;

/// A host name: labels of 1 to 63 of `a-z 0-9 - _`, joined by dots, none
/// beginning or ending with a hyphen; at most [`HostName::MAX_LEN`] bytes, no
/// dot at its end.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct HostName(String);

impl HostName {
    /// Longest name, bytes (RFC 1035 as text without the last dot).
    pub const MAX_LEN: usize = 253;

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The domain of all names of a network, unless another is chosen.
    #[must_use]
    pub fn weave_local() -> Self {
        Self("weave.local".to_owned())
    }

    /// The name as people type it: in any case, with a dot at its end or without.
    ///
    /// # Errors
    /// [`ParseNameError`] if it is no host name.
    pub fn typed(text: &str) -> Result<Self, ParseNameError> {
        text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase().parse()
    }

    /// True if it is a name inside `domain`, not the domain itself.
    #[must_use]
    pub fn is_in(&self, domain: &Self) -> bool {
        self.0.strip_suffix(domain.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
    }
}

impl std::borrow::Borrow<str> for HostName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<HostName> for String {
    fn from(name: HostName) -> Self {
        name.0
    }
}

impl TryFrom<String> for HostName {
    type Error = ParseNameError;

    fn try_from(text: String) -> Result<Self, ParseNameError> {
        text.parse()
    }
}

fn is_label(label: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    (1..=63).contains(&label.len())
        && label.bytes().all(allowed)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

impl FromStr for HostName {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() <= Self::MAX_LEN && text.split('.').all(is_label) {
            Ok(Self(text.into()))
        } else {
            Err(ParseNameError::new(text, "a host name: labels of a-z, 0-9, - and _ joined by dots"))
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_but_lower_case_labels_is_a_host_name() {
        let long = format!("{}.{}.{}.{}", "a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(62));
        for bad in ["", ".", "a.", ".a", "a..b", "A", "-a", "a-", "a b", "ü", "a\n", &"x".repeat(64), &long]
        {
            assert!(bad.parse::<HostName>().is_err(), "{bad:?}");
        }
        for good in ["a", "web.weave.local", "my_db-1", &long[1..]] {
            assert_eq!(good.parse::<HostName>().unwrap().as_str(), good);
        }
    }

    #[test]
    fn a_typed_name_may_have_capitals_and_a_last_dot() {
        assert_eq!(HostName::typed("Web.Weave.LOCAL.").unwrap().as_str(), "web.weave.local");
        assert!(HostName::typed("web..").is_err());
        assert!(HostName::typed(".").is_err());
    }

    #[test]
    fn a_name_is_in_a_domain_by_whole_labels() {
        let name = |text: &str| text.parse::<HostName>().unwrap();
        assert!(name("a.b.weave.local").is_in(&name("weave.local")));
        for other in ["weave.local", "aweave.local", "a.weave.locals"] {
            assert!(!name(other).is_in(&name("weave.local")), "{other}");
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in "\\PC{0,300}") {
            let _ = text.parse::<HostName>();
        }
    }
}
