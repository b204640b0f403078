//! Programs of the system that set what the netlink interface here does not: `ip`, `iptables`.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use weave_host::Namespace;

use super::error::{Error, Result};
use super::process::{Process, name_of};

/// Longest any of them may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(10);

/// Runs a program inside `namespace` with `input` and asserts its success.
pub(super) fn run(namespace: &Namespace, line: &str, input: &str) -> Result<()> {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let program = name_of(&command);
    let failed = |step| {
        let program = program.clone();
        move |cause| Error::Program { step, program, cause }
    };
    let child = namespace.run(|| command.spawn())?.map_err(failed("start"))?;
    let mut process = Process::new(child, line.to_owned());
    let stdin = process.child().stdin.take();
    let stderr = process.child().stderr.take();
    if let Some(mut stdin) = stdin {
        stdin.write_all(input.as_bytes()).map_err(failed("write to"))?;
    }
    let status = process.wait(LIMIT)?;
    if status.success() {
        return Ok(());
    }
    let mut said = String::new();
    if let Some(mut stderr) = stderr {
        stderr.read_to_string(&mut said).map_err(failed("read from"))?;
    }
    Err(Error::Tool { line: line.to_owned(), said: said.trim().to_owned() })
}

/// Runs `ip` with the same words for both families: `words` is made for 4 and 6.
pub(super) fn ip(namespace: &Namespace, words: impl Fn(u8) -> String) -> Result<()> {
    for family in [4, 6] {
        run(namespace, &format!("ip -{family} {}", words(family)), "")?;
    }
    Ok(())
}

/// Replaces tables of both families at once, each as `iptables-restore` reads it. Flows that are
/// established already are no exception.
pub(super) fn replace_rules(namespace: &Namespace, rules: impl Fn(u8) -> String) -> Result<()> {
    run(namespace, "iptables-restore -w", &rules(4))?;
    run(namespace, "ip6tables-restore -w", &rules(6))
}

/// Writes a setting below /proc/sys/net of `namespace`.
pub(super) fn set(namespace: &Namespace, name: &str, value: &str) -> Result<()> {
    let path = Path::new("/proc/sys/net").join(name);
    namespace.run(|| std::fs::write(&path, value))?.map_err(|error| Error::file("write", path.clone(), error))
}
