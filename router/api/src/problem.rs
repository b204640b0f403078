//! Errors as data: what failed, why, and what to do about it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What kind of problem it is, for programs. People read the texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The request is not one this router knows (it is older than the client).
    UnknownCommand,
    /// The request cannot be read or one of its fields makes no sense.
    BadRequest,
    /// The two ends speak no common version of the control protocol.
    Version,
    /// A frame, a list or a text is longer than its limit.
    TooLarge,
    /// A limit on how much is done at once is reached.
    Busy,
    /// The caller may not ask this.
    NotPermitted,
    /// The router is starting or stopping.
    NotReady,
    /// It was tried and did not work.
    Failed,
    /// A code newer than this library.
    #[serde(other)]
    Other,
}

/// A failure told to a person. Each text is a phrase on one line, without a final dot:
/// `cannot connect to host2: no such host; check the name`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The kind, for programs.
    pub code: Code,
    /// What was tried, on what.
    pub what: String,
    /// Why it failed.
    pub why: String,
    /// What to do; empty when nothing can be advised.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

impl Problem {
    /// A problem of kind `code` with its three texts.
    pub fn new(
        code: Code,
        what: impl Into<String>,
        why: impl fmt::Display,
        remedy: impl Into<String>,
    ) -> Self {
        Self { code, what: what.into(), why: why.to_string(), remedy: remedy.into() }
    }

    /// A problem of kind [`Code::Failed`].
    pub fn failed(what: impl Into<String>, why: impl fmt::Display, remedy: impl Into<String>) -> Self {
        Self::new(Code::Failed, what, why, remedy)
    }
}

impl fmt::Display for Problem {
    /// One line, whatever the texts hold: control characters are shown escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", OneLine(&self.what), OneLine(&self.why))?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", OneLine(&self.remedy))?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

/// Shows a text on one line: line breaks become `; `, other control
/// characters their escapes, so that nothing a peer or user wrote can forge a
/// line of log or move a terminal's cursor.
pub struct OneLine<'a>(pub &'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = self.0.lines().map(str::trim).filter(|line| !line.is_empty());
        let mut separator = "";
        for line in &mut lines {
            f.write_str(separator)?;
            separator = "; ";
            for c in line.chars() {
                if c.is_control() {
                    write!(f, "{}", c.escape_default())?
                } else {
                    fmt::Write::write_char(f, c)?
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_problem_is_one_line_whatever_it_holds() {
        let problem = Problem::failed("cannot attach \u{1b}[2J", "first\nsecond\r\n", "try\tagain");
        assert_eq!(problem.to_string(), "cannot attach \\u{1b}[2J: first; second; try\\tagain");
        assert_eq!(Problem::failed("a", "b", "").to_string(), "a: b");
    }

    #[test]
    fn a_code_of_the_future_is_read_as_other() {
        let problem: Problem =
            serde_json::from_str(r#"{"code":"from-2031","what":"a","why":"b","extra":1}"#).unwrap();
        assert_eq!(problem.code, Code::Other);
    }
}
