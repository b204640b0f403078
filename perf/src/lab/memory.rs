//! A memory cgroup for all that runs on a host, where the environment asks for one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::error::{Error, Result};

/// Mebibytes that all processes of a host may have together, engines and tools included.
pub const LIMIT_VARIABLE: &str = "WEAVE_LAB_MEMORY_MIB";
/// Where cgroups are: of the first kind (memory alone) and of the second.
const FIRST: &str = "/sys/fs/cgroup/memory";
const SECOND: &str = "/sys/fs/cgroup";
/// Time that processes have to be gone once their host is.
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// What the processes of a host had of what they may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUse {
    /// The most that was in use at once, bytes, page cache included.
    pub peak_bytes: u64,
    /// Processes that were ended because there was no memory for them.
    pub kills: u64,
}

/// A cgroup, removed when it is dropped.
#[derive(Debug)]
pub(super) struct MemoryLimit {
    directory: PathBuf,
    first: bool,
    /// Somebody looked at what was used, and judges it.
    asked: AtomicBool,
}

impl MemoryLimit {
    /// The one that the environment asks for, if it does, called `name`.
    pub(super) fn from_environment(name: &str) -> Result<Option<Self>> {
        let Ok(text) = std::env::var(LIMIT_VARIABLE) else { return Ok(None) };
        let invalid = || std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a number of mebibytes");
        let bytes = text.parse().ok().and_then(|mebibytes: u64| mebibytes.checked_mul(1 << 20));
        let bytes =
            bytes.ok_or_else(|| Error::file("take from the environment", LIMIT_VARIABLE, invalid()))?;
        Self::new(name, bytes).map(Some)
    }

    fn new(name: &str, bytes: u64) -> Result<Self> {
        let first = Path::new(FIRST).is_dir();
        let root = Path::new(if first { FIRST } else { SECOND });
        if !first {
            // Refused where it is so already, or where it cannot be; the limit then says which.
            let _ = fs::write(root.join("cgroup.subtree_control"), "+memory");
        }
        let directory = root.join(name);
        fs::create_dir(&directory).map_err(|error| Error::file("make", &directory, error))?;
        let limit = Self { directory, first, asked: AtomicBool::new(false) };
        let file = limit.file("memory.limit_in_bytes", "memory.max");
        fs::write(&file, bytes.to_string()).map_err(|error| Error::file("write", &file, error))?;
        Ok(limit)
    }

    fn file(&self, first: &str, second: &str) -> PathBuf {
        self.directory.join(if self.first { first } else { second })
    }

    /// Who writes 0 here is in it.
    pub(super) fn procs(&self) -> PathBuf {
        self.directory.join("cgroup.procs")
    }

    /// Whether a process is in it.
    pub(super) fn holds(&self, pid: u32) -> bool {
        let text = fs::read_to_string(self.procs()).unwrap_or_default();
        text.lines().any(|line| line.parse() == Ok(pid))
    }

    /// What was used so far; who asks tells and judges it in place of the end of the host.
    pub(super) fn ask(&self) -> MemoryUse {
        self.asked.store(true, Ordering::Relaxed);
        MemoryUse { peak_bytes: self.peak(), kills: self.kills() }
    }

    fn kills(&self) -> u64 {
        let text = fs::read_to_string(self.file("memory.oom_control", "memory.events")).unwrap_or_default();
        let of = |line: &str| line.strip_prefix("oom_kill ").and_then(|count| count.trim().parse().ok());
        text.lines().find_map(of).unwrap_or_default()
    }

    fn peak(&self) -> u64 {
        let text =
            fs::read_to_string(self.file("memory.max_usage_in_bytes", "memory.peak")).unwrap_or_default();
        text.trim().parse().unwrap_or_default()
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        let (kills, peak) = (self.kills(), self.peak() >> 20);
        let deadline = Instant::now() + GONE_WITHIN;
        let mut removed = fs::remove_dir(&self.directory);
        while removed.is_err() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
            removed = fs::remove_dir(&self.directory);
        }
        if let Some(error) = removed.err() {
            tell(&format!(
                "cannot remove {}: {error}; end the processes in it, then rmdir it",
                self.directory.display()
            ));
        }
        if self.asked.load(Ordering::Relaxed) {
            return;
        }
        tell(&format!(
            "{}: {peak} MiB at most, {kills} processes ended for lack of it",
            self.directory.display()
        ));
        assert!(kills == 0 || std::thread::panicking(), "{kills} processes were ended for lack of memory");
    }
}

#[expect(clippy::print_stderr, reason = "who asked for a limit wants to know")]
fn tell(line: &str) {
    eprintln!("{line}");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::process::Command;

    #[test]
    fn who_takes_more_than_there_is_is_ended_and_counted() {
        const MOST: u64 = 16 << 20;
        let name = format!("weave-memory-test-{}", std::process::id());
        let limit = MemoryLimit::new(&name, MOST).unwrap();
        // Remembers all of a line that never ends; somebody else ends it at 1 GiB.
        let greedy = "ulimit -v 1048576; echo 0 >\"$0\" && exec tail /dev/zero";
        let mut greedy = Command::new("sh").args(["-c", greedy]).arg(limit.procs()).spawn().unwrap();
        assert!(!greedy.wait().unwrap().success());
        let MemoryUse { peak_bytes, kills } = limit.ask();
        assert_eq!(kills, 1);
        assert!((MOST / 2..=MOST).contains(&peak_bytes), "{peak_bytes}");
        assert!(!limit.holds(std::process::id()));
    }
}
