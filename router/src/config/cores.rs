//! The cores that `--cores` names.

use std::fmt;
use std::str::FromStr;

/// Most cores (so most shards): lanes 0 to 63 carry data.
pub const MAX_CORES: usize = 64;
/// Highest number of a core, what a `cpu_set_t` holds.
const HIGHEST_CORE: usize = 1023;

/// Cores in the order given, each once, 1 to [`MAX_CORES`] of them: `0-3,6`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoreList(Vec<usize>);

impl CoreList {
    /// The cores, in order.
    #[must_use]
    pub fn as_slice(&self) -> &[usize] {
        &self.0
    }
}

/// A text that lists no cores.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no list of at most {MAX_CORES} different cores, like 0-3,6")]
pub struct ParseCoresError {
    text: String,
}

impl FromStr for CoreList {
    type Err = ParseCoresError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map(Self).ok_or_else(|| ParseCoresError { text: text.chars().take(80).collect() })
    }
}

fn parse(text: &str) -> Option<Vec<usize>> {
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return None;
        }
        for core in first..=last {
            if cores.len() == MAX_CORES || cores.contains(&core) {
                return None;
            }
            cores.push(core);
        }
    }
    Some(cores)
}

fn number(text: &str) -> Option<usize> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|core| digits && *core <= HIGHEST_CORE)
}

impl fmt::Display for CoreList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, core) in self.0.iter().enumerate() {
            write!(f, "{}{core}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lists_and_ranges_of_cores_are_read() {
        for (text, shown) in [("0", "0"), ("0-3,6", "0,1,2,3,6"), ("2,1", "2,1"), ("1023", "1023")] {
            assert_eq!(text.parse::<CoreList>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn other_texts_are_no_cores() {
        for text in ["", ",", "0,", "a", "-1", "+1", "3-1", "0,0", "0-1,1", "0-64", "1024", "0--2", "0 1"] {
            assert!(text.parse::<CoreList>().is_err(), "{text:?}");
        }
    }
}
