//! Running the programs that change the kernel's tables.

use std::fs::Metadata;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::{Error, Result};
use crate::failpoint::{before_step, failpoint};

/// Time a program has; it may wait for another that changes the tables.
const WITHIN: Duration = Duration::from_secs(10);
/// What is read of a program's output and of its errors, bytes: some 500,000 rules.
const OUTPUT_MAX: usize = 64 << 20;
/// Longest words of a program that are passed on, bytes.
const WORDS: usize = 500;

/// Where programs are, beside `PATH`: that of a service may be short.
const PLACES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// Whether there is a program of this name.
pub(super) fn is_installed(name: &str) -> bool {
    file_of(name).is_some()
}

/// Whether programs of these names are there and are one file, whatever links lead to it.
pub(super) fn is_same(name: &str, other: &str) -> bool {
    let number = |name| file_of(name).map(|data| (data.dev(), data.ino()));
    number(name).is_some_and(|file| number(other) == Some(file))
}

fn file_of(name: &str) -> Option<Metadata> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).chain(PLACES.map(Into::into));
    places.find_map(|place| {
        let data = place.join(name).metadata().ok()?;
        (data.is_file() && data.permissions().mode() & 0o111 != 0).then_some(data)
    })
}

/// What a program said, whatever came of it.
pub(super) fn ask(program: &str, arguments: &[&str]) -> Result<Output> {
    run(program, arguments, "")
}

/// Runs a program with this input; its words if it refuses.
pub(super) fn tell(program: &str, arguments: &[&str], input: &str) -> Result<()> {
    before_step("change the firewall").map_err(|error| Error::kernel("run", program, error))?;
    let output = run(program, arguments, input)?;
    failpoint("go on after the firewall was changed");
    if output.status.success() {
        return Ok(());
    }
    Err(refusal("change the firewall with", program, &output))
}

/// What a program was run for, and its words, as it refused.
pub(super) fn refusal(step: &'static str, program: &str, output: &Output) -> Error {
    let words = String::from_utf8_lossy(&output.stderr);
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    let words: String = words.chars().filter(|c| !c.is_control()).take(WORDS).collect();
    let refused = std::io::Error::other(if words.is_empty() { output.status.to_string() } else { words });
    Error::kernel(step, program, refused)
}

fn run(program: &str, arguments: &[&str], input: &str) -> Result<Output> {
    let failed = |error| Error::kernel("run", program, error);
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    for place in PLACES {
        path.push(":");
        path.push(place);
    }
    let mut child = Command::new(program)
        .args(arguments)
        .env("PATH", path)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    failpoint("wait for a program");
    let pid = i32::try_from(child.id()).ok().map(Pid::from_raw);
    let (done, waiting) = channel::<()>();
    let watchdog = std::thread::spawn(move || {
        let late = waiting.recv_timeout(WITHIN) == Err(RecvTimeoutError::Timeout);
        if let Some(pid) = pid.filter(|_| late) {
            let _ = kill(pid, Signal::SIGKILL);
        }
        late
    });
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (stdout, stderr) = std::thread::scope(|scope| {
        // One that refuses its input says so by its status.
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(input.as_bytes())));
        let stderr = scope.spawn(|| read(stderr));
        let stdout = read(stdout);
        (stdout, stderr.join().unwrap_or_default())
    });
    let ended = child.wait();
    drop(done);
    if watchdog.join().unwrap_or(false) {
        return Err(Error::TimedOut { step: "run", object: program.to_owned(), limit: WITHIN });
    }
    let output = Output { status: ended.map_err(failed)?, stdout, stderr };
    if output.stdout.len() > OUTPUT_MAX || output.stderr.len() > OUTPUT_MAX {
        return Err(failed(std::io::Error::other("it says more than is read of it")));
    }
    Ok(output)
}

/// What a program says, until it ends or has said one byte more than [`OUTPUT_MAX`]: then its pipe
/// is closed, which ends it.
fn read(pipe: Option<impl Read>) -> Vec<u8> {
    let mut words = Vec::new();
    if let Some(pipe) = pipe {
        // What came by then counts: the status says how it ended.
        let _ = pipe.take(OUTPUT_MAX as u64 + 1).read_to_end(&mut words);
    }
    words
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_program_that_says_too_much_is_not_heard_to_the_end() {
        let error = ask("yes", &[]).unwrap_err().to_string();
        assert!(error.contains("more than is read"), "{error}");
        let error = ask("sh", &["-c", "yes >&2"]).unwrap_err().to_string();
        assert!(error.contains("more than is read"), "{error}");
    }

    #[test]
    fn a_program_that_talks_before_it_listens_is_heard() {
        let input = "x".repeat(1 << 20);
        let script = "head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2; cat";
        let output = run("sh", &["-c", script], &input).unwrap();
        assert!(output.status.success());
        assert_eq!((output.stdout.len(), output.stderr.len()), (1_000_000 + input.len(), 1_000_000));
    }

    #[test]
    fn a_program_that_never_listens_ends_by_its_own_status() {
        let input = "x".repeat(1 << 20);
        assert_eq!(run("sh", &["-c", "exit 3"], &input).unwrap().status.code(), Some(3));
    }
}
