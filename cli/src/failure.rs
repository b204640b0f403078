//! Why a command did not do what it was asked, rendered once, on one line.

use std::fmt;
use std::path::Path;
use std::process::ExitCode;

use weave_api::{ClientError, OneLine, Problem};

/// Result of a command.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// A command that failed or was typed wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    usage: bool,
    text: String,
}

impl Failure {
    /// It was tried and failed (exit code 1): what was tried, why it failed, what to do.
    pub fn new(what: impl fmt::Display, why: impl fmt::Display, remedy: impl fmt::Display) -> Self {
        Self { usage: false, text: join(what, why, remedy) }
    }

    /// It was typed wrong (exit code 2): nothing was tried.
    pub fn usage(what: impl fmt::Display, why: impl fmt::Display, remedy: impl fmt::Display) -> Self {
        Self { usage: true, text: join(what, why, remedy) }
    }

    /// It failed because of `error`, whose text names cause and remedy.
    pub fn because(what: impl fmt::Display, error: impl fmt::Display) -> Self {
        Self::new(what, error, "")
    }

    /// It failed as `text` says, which was rendered elsewhere.
    pub fn verbatim(text: impl fmt::Display) -> Self {
        Self { usage: false, text: OneLine(&text.to_string()).to_string() }
    }

    /// The router of `run_dir` could not do `what`.
    pub fn of_client(what: impl fmt::Display, run_dir: &Path, error: &ClientError) -> Self {
        let directory = weave_api::socket::directory(run_dir);
        let remedy = match error {
            ClientError::NotRunning(_) => "start it with `weave launch`".to_owned(),
            ClientError::Socket(weave_api::socket::SocketError::NotPermitted(_)) => {
                "run it as root".to_owned()
            }
            ClientError::Socket(weave_api::socket::SocketError::Unsafe { .. }) => {
                format!(
                    "make sure only root can reach {}, or name another WEAVE_RUN_DIR",
                    directory.display()
                )
            }
            ClientError::Socket(weave_api::socket::SocketError::TooLong(_)) => {
                "name a shorter WEAVE_RUN_DIR".to_owned()
            }
            ClientError::TimedOut(_) | ClientError::Closed | ClientError::Nonsense(_) => {
                format!("look into {}; `weave stop` ends a router that hangs", running_log(run_dir))
            }
            ClientError::Refused(problem) => return Self::of_problem(what, problem),
            ClientError::Socket(_) | ClientError::Io(_) => String::new(),
        };
        Self::new(what, error, remedy)
    }

    /// The router refused with `problem`.
    fn of_problem(what: impl fmt::Display, problem: &Problem) -> Self {
        Self::new(what, &problem.why, &problem.remedy)
    }

    /// 1 for what failed, 2 for wrong usage.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(if self.usage { 2 } else { 1 })
    }
}

fn running_log(run_dir: &Path) -> String {
    run_dir.join(crate::running::LOG).display().to_string()
}

fn join(what: impl fmt::Display, why: impl fmt::Display, remedy: impl fmt::Display) -> String {
    let (what, why, remedy) = (what.to_string(), why.to_string(), remedy.to_string());
    let mut text = format!("{}: {}", OneLine(&what), OneLine(&why));
    if !remedy.is_empty() {
        text.push_str("; ");
        text.push_str(&OneLine(&remedy).to_string());
    }
    text
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_of_what_why_and_remedy() {
        let failure = Failure::new("cannot stop", "it hangs\nbadly", "wait");
        assert_eq!(failure.to_string(), "cannot stop: it hangs; badly; wait");
        assert_eq!(
            Failure::because("cannot stop", "it hangs; wait").to_string(),
            "cannot stop: it hangs; wait"
        );
    }

    #[test]
    fn a_refusal_of_the_router_is_told_in_its_words() {
        let problem = Problem::failed("cannot dial host2", "no such host", "check the name");
        let failure = Failure::of_client("cannot connect", Path::new("/run/weave"), &problem.into());
        assert_eq!(failure.to_string(), "cannot connect: no such host; check the name");
    }
}
