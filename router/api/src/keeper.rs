//! What the keeper tells of itself: a file in the directory of the control socket, which it writes
//! when something changes. Whoever reads it waits for nobody: the keeper may be busy with an engine.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::socket::directory;
use crate::software::Software;

/// Name of the file in the run directory that a keeper that runs holds a lock on, and that holds its
/// process id.
pub const PID_FILE: &str = "keeper.pid";

/// Longest file that is read, bytes.
const FILE_MAX: u64 = 64 << 10;
/// Longest process id that is read, bytes.
const PID_MAX: u64 = 32;

/// The keeper of a host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KeeperStatus {
    /// Process id.
    pub pid: u32,
    /// Its program.
    #[serde(flatten)]
    pub software: Software,
    /// What changes the firewall's tables: `iptables` or `nft`; absent where neither is installed,
    /// or before a router runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firewall: Option<String>,
    /// The guard of the containers (`launch --guard`); absent where it is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<GuardStatus>,
    /// What works, but worse than it could.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub degraded: Vec<KeeperDegraded>,
    /// What it put right.
    #[serde(default)]
    pub repairs: KeeperRepairs,
    /// Attachments that somebody changed inside their containers.
    #[serde(default)]
    pub changed: u64,
    /// Where the engine is whose containers it follows; absent in one of an earlier version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// Rises every few seconds while it works; absent in one of an earlier version, or that just starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beat: Option<u64>,
}

/// What a keeper put right that others took or changed, since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KeeperRepairs {
    /// Times bridge, tap, ports, their state or MTU, or an address of the host.
    pub devices: u64,
    /// Times rules of the firewall or the guard.
    pub rules: u64,
}

/// The guard of the containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GuardStatus {
    /// Frames it dropped since it was switched on, as of at most half a minute ago.
    pub dropped: u64,
}

/// A way in which the keeper works worse than it could.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeeperDegraded {
    /// Its name.
    pub name: String,
    /// Why it is so, and the cure.
    pub reason: String,
}

/// Where it stands.
#[must_use]
pub fn file(run_dir: &Path) -> PathBuf {
    directory(run_dir).join("keeper.json")
}

/// How the keeper of a host stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keeper {
    /// None runs.
    Absent,
    /// One runs and tells nothing of itself: it is of an earlier version.
    Silent,
    /// What the one that runs told last.
    Tells(KeeperStatus),
}

/// Looks at the keeper of `run_dir`.
///
/// # Errors
/// When a file of it cannot be read.
pub fn look(run_dir: &Path) -> io::Result<Keeper> {
    let Some(pid) = running(run_dir)? else { return Ok(Keeper::Absent) };
    let mut text = Vec::new();
    match File::open(file(run_dir)) {
        Ok(file) => file.take(FILE_MAX).read_to_end(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Keeper::Silent),
        Err(error) => return Err(error),
    };
    // What another one left that was killed is not its word.
    let told = serde_json::from_slice(&text).ok().filter(|status: &KeeperStatus| status.pid == pid);
    Ok(told.map_or(Keeper::Silent, Keeper::Tells))
}

/// The process of the keeper that runs, which holds a lock on its file; 0 while it does not say.
fn running(run_dir: &Path) -> io::Result<Option<u32>> {
    let file = match File::open(run_dir.join(PID_FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => return Ok(None),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let mut text = String::new();
    file.take(PID_MAX).read_to_string(&mut text)?;
    Ok(Some(text.trim_end().parse().unwrap_or(0)))
}

/// Tells it; a reader finds the old text or the new one.
///
/// # Errors
/// What the file system refuses.
pub fn write(run_dir: &Path, status: &KeeperStatus) -> io::Result<()> {
    let path = file(run_dir);
    let temporary = temporary(run_dir);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(&serde_json::to_vec(status)?)?;
    std::fs::rename(temporary, path)
}

/// What a writer that was killed may leave.
#[must_use]
pub fn temporary(run_dir: &Path) -> PathBuf {
    file(run_dir).with_extension("tmp")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A keeper that runs, as far as can be seen.
    fn hold(run_dir: &Path, pid: u32) -> File {
        std::fs::write(run_dir.join(PID_FILE), format!("{pid}\n")).unwrap();
        let file = File::open(run_dir.join(PID_FILE)).unwrap();
        file.lock().unwrap();
        file
    }

    #[test]
    fn what_a_keeper_that_runs_tells_is_read() {
        let run_dir = tempfile::tempdir().unwrap();
        let run_dir = run_dir.path();
        crate::socket::prepare(run_dir).unwrap();
        assert_eq!(look(run_dir).unwrap(), Keeper::Absent);
        let held = hold(run_dir, 7);
        assert_eq!(look(run_dir).unwrap(), Keeper::Silent);
        let degraded = KeeperDegraded { name: "no_firewall".into(), reason: "none".into() };
        let status = KeeperStatus {
            pid: 7,
            software: Software::ours(),
            firewall: Some("nft".into()),
            guard: Some(GuardStatus { dropped: 3 }),
            repairs: KeeperRepairs { devices: 3, rules: 1 },
            degraded: vec![degraded],
            changed: 2,
            engine: Some("unix:///run/docker.sock".into()),
            beat: Some(5),
        };
        write(run_dir, &status).unwrap();
        assert_eq!(look(run_dir).unwrap(), Keeper::Tells(status));
        std::fs::write(file(run_dir), r#"{"pid":7,"version":"9","mood":"fine"}"#).unwrap();
        assert!(matches!(look(run_dir).unwrap(), Keeper::Tells(status) if status.software.version == "9"));
        drop(held);
        assert_eq!(look(run_dir).unwrap(), Keeper::Absent);
    }

    #[test]
    fn what_another_keeper_left_is_not_the_word_of_the_one_that_runs() {
        let run_dir = tempfile::tempdir().unwrap();
        let run_dir = run_dir.path();
        crate::socket::prepare(run_dir).unwrap();
        write(run_dir, &KeeperStatus { pid: 7, ..KeeperStatus::default() }).unwrap();
        let _held = hold(run_dir, 8);
        assert_eq!(look(run_dir).unwrap(), Keeper::Silent);
        std::fs::write(file(run_dir), "{").unwrap();
        assert_eq!(look(run_dir).unwrap(), Keeper::Silent);
    }
}
