//! Starting the router in the background and waiting until it is ready.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use weave_router::Config;
use weave_router::config::ReadyInfo;

use super::handover::{Outcome, secrets};
use crate::failure::{Failure, Result};
use crate::running::{self, LOG};

/// Time a router has to become ready.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Longest line with the outcome, bytes.
const OUTCOME_MAX: u64 = 64 * 1024;

/// Starts `weave router` with `arguments` in a session of its own, hands it the
/// passwords and returns what it says when it is ready.
pub fn spawn(config: &Config, arguments: impl IntoIterator<Item = OsString>) -> Result<ReadyInfo> {
    let failed = |why: &dyn std::fmt::Display| Failure::new("cannot start the router", why, "");
    make_run_dir(&config.run_dir)?;
    let log = open_log(&config.run_dir)?;
    let executable = std::env::current_exe().map_err(|error| failed(&error))?;
    weave_host::keep_descriptors().map_err(|error| failed(&error))?;
    let mut child = Command::new(executable)
        .args(["router", "--launched"])
        .args(arguments)
        .env_remove("WEAVE_PASSWORD")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(|error| failed(&error))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A child that died already says so below.
        let _ = stdin.write_all(&secrets(&config.passwords));
    }
    let why = match outcome(&mut child) {
        Said::Outcome(Outcome::Ready(info)) => return Ok(info),
        Said::Outcome(Outcome::Failed(text)) => {
            let _ = child.wait();
            return Err(Failure::verbatim(text));
        }
        Said::Nothing => match child.wait() {
            Ok(status) => format!("it ended early ({status})"),
            Err(error) => format!("it ended early ({error})"),
        },
        Said::NothingYet => {
            let _ = child.kill().and_then(|()| child.wait());
            format!("it was not ready within {} s", READY_WITHIN.as_secs())
        }
    };
    let log = config.run_dir.join(LOG);
    let last = last_line(&log).map_or_else(String::new, |line| format!(": {line}"));
    Err(Failure::new(
        "cannot start the router",
        format_args!("{why}{last}"),
        format_args!("look into {}", log.display()),
    ))
}

/// What came through the pipe.
enum Said {
    Outcome(Outcome),
    /// It was closed without a word: the process ends or has ended.
    Nothing,
    /// The time is up.
    NothingYet,
}

fn outcome(child: &mut Child) -> Said {
    let Some(stdout) = child.stdout.take() else {
        return Said::Nothing;
    };
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut line = Vec::new();
        let _ = stdout.take(OUTCOME_MAX).read_to_end(&mut line);
        let _ = sender.send(line);
    });
    match receiver.recv_timeout(READY_WITHIN) {
        Ok(line) => serde_json::from_slice(&line).map_or(Said::Nothing, Said::Outcome),
        Err(_) => Said::NothingYet,
    }
}

fn last_line(path: &Path) -> Option<String> {
    let text = std::fs::read(path).ok()?;
    let tail = text.get(text.len().saturating_sub(4096)..)?;
    let tail = String::from_utf8_lossy(tail);
    tail.lines().map(str::trim).rfind(|line| !line.is_empty()).map(|line| line.chars().take(300).collect())
}

/// The run directory may be entered by all: pid files are no secret, the
/// control socket has a directory of its own.
pub fn make_run_dir(path: &Path) -> Result<()> {
    let failed = |error: io::Error| {
        Failure::new(format_args!("cannot make {}", path.display()), error, "name another WEAVE_RUN_DIR")
    };
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o711).create(path).map_err(failed)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o711)).map_err(failed)
}

fn open_log(run_dir: &Path) -> Result<File> {
    running::open_log(run_dir, LOG).map_err(|error| {
        let what = format_args!("cannot write {}", run_dir.join(LOG).display()).to_string();
        Failure::new(what, error, "check WEAVE_RUN_DIR")
    })
}
