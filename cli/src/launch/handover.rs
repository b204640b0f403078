//! What `launch` and the router it started say to each other.
//!
//! Standard input of the new process carries the passwords, so that they stand
//! neither in its arguments nor in its environment; standard output carries
//! one line of JSON: ready, or why not. Both become /dev/null afterwards.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};

use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use weave_router::config::{PASSWORD_MAX, Password, ReadyInfo};
use zeroize::Zeroizing;

use crate::failure::{Failure, Result};

/// Longest text with passwords, bytes.
const SECRETS_MAX: u64 = 2 * PASSWORD_MAX as u64 + 64;
/// Last line of the passwords. Without it they were cut short, and a network
/// that should be encrypted would start in clear.
const END: &str = "end";

/// The line with the outcome.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The router forwards.
    Ready(ReadyInfo),
    /// It ended before that: the failure as it is shown.
    Failed(String),
}

/// The text that hands `passwords` over.
pub fn secrets(passwords: &[Password]) -> Zeroizing<Vec<u8>> {
    let mut text = Zeroizing::new(Vec::with_capacity(SECRETS_MAX as usize));
    text.extend_from_slice(passwords.len().to_string().as_bytes());
    text.push(b'\n');
    for password in passwords {
        text.extend_from_slice(password.as_bytes());
        text.push(b'\n');
    }
    text.extend_from_slice(END.as_bytes());
    text.push(b'\n');
    text
}

/// Reads the passwords from standard input, then closes it.
pub fn read_secrets() -> Result<Vec<Password>> {
    let mut text = Zeroizing::new(Vec::with_capacity(SECRETS_MAX as usize + 1));
    let read = io::stdin().lock().take(SECRETS_MAX + 1).read_to_end(&mut text);
    read.map_err(|error| incomplete(&error))?;
    let passwords = parse_secrets(&text)?;
    let null = null()?;
    rustix::stdio::dup2_stdin(&null).map_err(|error| incomplete(&error))?;
    Ok(passwords)
}

fn parse_secrets(text: &[u8]) -> Result<Vec<Password>> {
    let text = std::str::from_utf8(text).map_err(|error| incomplete(&error))?;
    let mut lines = text.lines();
    let count = lines.next().and_then(|line| line.parse().ok()).unwrap_or(usize::MAX);
    let passwords: Vec<&str> = lines.by_ref().take(count.min(2)).collect();
    if passwords.len() != count || lines.next() != Some(END) || lines.next().is_some() {
        return Err(incomplete(&"the text is cut short"));
    }
    let password =
        |line: &str| Password::new(Zeroizing::new(line.to_owned())).map_err(|error| incomplete(&error));
    passwords.into_iter().map(password).collect()
}

fn incomplete(why: &dyn std::fmt::Display) -> Failure {
    Failure::new("cannot take over from `weave launch`", why, "start the router with `weave launch`")
}

fn null() -> Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/null").map_err(|error| incomplete(&error))
}

/// Where a router says that it is ready.
#[derive(Debug, Clone, Copy)]
pub enum Readiness {
    /// To the service manager that may have started it.
    Foreground,
    /// To the `launch` that started it.
    Launched,
}

impl Readiness {
    /// Says that the router is ready.
    pub fn ready(&self, info: ReadyInfo) {
        match self {
            Self::Foreground => {
                // Fails when no service manager asked for it: nobody to tell.
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
            }
            Self::Launched => {
                if tell(&Outcome::Ready(info)).is_err() {
                    // Whoever launched is gone and saw no success: end again.
                    let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::TERM);
                }
            }
        }
    }

    /// Says why the router never became ready. In the foreground that goes to
    /// standard error at the end of the process.
    pub fn failed(&self, failure: String) {
        match self {
            Self::Foreground => {}
            Self::Launched => {
                let _ = tell(&Outcome::Failed(failure));
            }
        }
    }
}

/// Writes the outcome to standard output, then closes it.
fn tell(outcome: &Outcome) -> io::Result<()> {
    let mut line = serde_json::to_vec(outcome)?;
    line.push(b'\n');
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(&line).and_then(|()| stdout.flush());
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    written
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn password(text: &str) -> Password {
        Password::new(Zeroizing::new(text.to_owned())).unwrap()
    }

    #[test]
    fn passwords_are_handed_over_whole() {
        for passwords in [vec![], vec![password("wEaVe")], vec![password("end"), password("2")]] {
            assert_eq!(parse_secrets(&secrets(&passwords)).unwrap(), passwords);
        }
    }

    #[test]
    fn passwords_cut_anywhere_never_make_a_clear_network() {
        let whole = secrets(&[password("current"), password("previous")]);
        // All but the last byte, a line end without meaning.
        for length in 0..whole.len() - 1 {
            assert!(parse_secrets(&whole[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "end\n", "0\n", "-1\nend\n", "3\na\nb\nc\nend\n", "0\nend\nmore\n", "1\n\nend\n"] {
            assert!(parse_secrets(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
