//! Running other programs, each with a time limit.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::cleanup;
use super::error::{Error, Result};

/// Longest time a program may take that is not a daemon, seconds.
const LIMIT_SECONDS: &str = "30";

/// Where Debian keeps programs, should `PATH` of this process lack the half of them.
const PROGRAM_DIRECTORIES: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Runs a program to its end; its standard output.
pub fn run<A: AsRef<OsStr>>(arguments: &[A]) -> Result<String> {
    run_with_input(arguments, "")
}

/// Runs a program to its end with `input` on its standard input; its standard output.
pub fn run_with_input<A: AsRef<OsStr>>(arguments: &[A], input: &str) -> Result<String> {
    let line = line(arguments);
    let failed = |cause: String| Error::Command { line: line.clone(), cause };
    let mut child = Command::new("timeout")
        .args(["--kill-after=1", LIMIT_SECONDS])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| failed(e.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input is judged by its exit code.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|e| failed(e.to_string()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let last = words.lines().rfind(|l| !l.trim().is_empty()).unwrap_or("no message");
    Err(failed(match output.status.code() {
        Some(124) => format!("not done after {LIMIT_SECONDS} s: {last}"),
        Some(code) => format!("exit code {code}: {last}"),
        None => format!("killed: {last}"),
    }))
}

/// Runs `ip` with arguments separated by blanks (no argument of ours contains one).
pub fn ip(arguments: &str) -> Result<()> {
    let mut words = vec!["ip"];
    words.extend(arguments.split_ascii_whitespace());
    run(&words).map(drop)
}

/// A program in the background, killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts a program that stays in the foreground; its output goes to the file `log`.
    pub fn spawn<A: AsRef<OsStr>>(arguments: &[A], log: &Path) -> Result<Self> {
        let file = |e| Error::file("create", log, e);
        let out = File::create(log).map_err(file)?;
        let err = out.try_clone().map_err(file)?;
        let failed =
            |cause: std::io::Error| Error::Command { line: line(arguments), cause: cause.to_string() };
        let (program, rest) = arguments
            .split_first()
            .ok_or_else(|| failed(std::io::Error::from(std::io::ErrorKind::InvalidInput)))?;
        let mut command = Command::new(program);
        command.args(rest).stdin(Stdio::null()).stdout(out).stderr(err);
        let child = cleanup::note_child(|| command.spawn()).map_err(failed)?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Its process. `ip netns exec` replaces itself by the program, so this is the program.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The last line it wrote, for an error message.
    pub fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let last = log.lines().rfind(|l| !l.trim().is_empty());
        last.unwrap_or("it wrote nothing").to_owned()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        cleanup::end_child(&mut self.child);
    }
}

/// The first file `name` among the directories that hold programs.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(PROGRAM_DIRECTORIES.iter().map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

fn line<A: AsRef<OsStr>>(arguments: &[A]) -> String {
    let words: Vec<_> = arguments.iter().map(|a| a.as_ref().to_string_lossy()).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_program_gets_its_input_and_gives_its_output() {
        assert_eq!(run_with_input(&["cat"], "hello").unwrap(), "hello");
    }

    #[test]
    fn a_failed_program_is_an_error_with_line_code_and_last_words() {
        let error = run(&["sh", "-c", "echo one >&2; echo two >&2; exit 3"]).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("exit code 3: two") && text.contains("sh -c"), "{text}");
    }

    #[test]
    fn a_missing_program_is_an_error() {
        assert!(run(&["/nonexistent/program"]).is_err());
        assert_eq!(find_program("no-such-program-here"), None);
    }

    #[test]
    fn a_dropped_daemon_is_gone() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let daemon = Daemon::spawn(&["sleep", "60"], log.path()).unwrap();
        let directory = PathBuf::from(format!("/proc/{}", daemon.pid()));
        assert!(directory.exists());
        drop(daemon);
        assert!(!directory.exists());
    }
}
