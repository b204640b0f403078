//! Names of containers as hosts (RFC 1123, with the underscore engines allow).

use crate::name::ParseNameError;
use std::fmt;
use std::str::FromStr;

/// A host name: labels of 1 to 63 of `a-z 0-9 - _`, joined by dots, none
/// beginning or ending with a hyphen; at most [`HostName::MAX_LEN`] bytes, no
/// dot at its end.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(String);

impl HostName {
    /// Longest name, bytes (RFC 1035 as text without the last dot).
    pub const MAX_LEN: usize = 253;

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
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

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in "\\PC{0,300}") {
            let _ = text.parse::<HostName>();
        }
    }
}
