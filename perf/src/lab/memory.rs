//! A memory cgroup for all that runs on a host, where the environment asks for one.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::error::{Error, Result};

/// Mebibytes that all processes of a host may have together, engines and tools included.
pub const LIMIT_VARIABLE: &str = "WEAVE_LAB_MEMORY_MIB";
/// Where cgroups are: of the first kind (memory alone) and of the second.
const FIRST: &str = "/sys/fs/cgroup/memory";
const SECOND: &str = "/sys/fs/cgroup";
/// Time that processes have to be gone once their host is.
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// A cgroup, removed when it is dropped.
#[derive(Debug)]
pub(super) struct MemoryLimit {
    directory: PathBuf,
    first: bool,
}

impl MemoryLimit {
    /// The one that the environment asks for, if it does, called `name`.
    pub(super) fn from_environment(name: &str) -> Result<Option<Self>> {
        let Ok(text) = std::env::var(LIMIT_VARIABLE) else { return Ok(None) };
        let invalid = || std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a number of mebibytes");
        let bytes = text.parse().ok().and_then(|mebibytes: u64| mebibytes.checked_mul(1 << 20));
        let bytes =
            bytes.ok_or_else(|| Error::file("take from the environment", LIMIT_VARIABLE, invalid()))?;
        let first = Path::new(FIRST).is_dir();
        let root = Path::new(if first { FIRST } else { SECOND });
        if !first {
            // Refused where it is so already, or where it cannot be; the limit then says which.
            let _ = fs::write(root.join("cgroup.subtree_control"), "+memory");
        }
        let directory = root.join(name);
        fs::create_dir(&directory).map_err(|error| Error::file("make", &directory, error))?;
        let limit = Self { directory, first };
        let file = limit.file("memory.limit_in_bytes", "memory.max");
        fs::write(&file, bytes.to_string()).map_err(|error| Error::file("write", &file, error))?;
        Ok(Some(limit))
    }

    fn file(&self, first: &str, second: &str) -> PathBuf {
        self.directory.join(if self.first { first } else { second })
    }

    /// Who writes 0 here is in it.
    pub(super) fn procs(&self) -> PathBuf {
        self.directory.join("cgroup.procs")
    }

    /// Processes that were ended because there was no memory for them.
    fn kills(&self) -> u64 {
        let text = fs::read_to_string(self.file("memory.oom_control", "memory.events")).unwrap_or_default();
        let of = |line: &str| line.strip_prefix("oom_kill ").and_then(|count| count.trim().parse().ok());
        text.lines().find_map(of).unwrap_or_default()
    }

    /// The most that was in use at once, bytes, page cache included.
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
        tell(&self.directory, kills, peak, removed.err());
        assert!(kills == 0 || std::thread::panicking(), "{kills} processes were ended for lack of memory");
    }
}

#[expect(clippy::print_stderr, reason = "who asked for a limit wants to know")]
fn tell(directory: &Path, kills: u64, peak: u64, left: Option<std::io::Error>) {
    let directory = directory.display();
    eprintln!("{directory}: {peak} MiB at most, {kills} processes ended for lack of it");
    if let Some(error) = left {
        eprintln!("cannot remove {directory}: {error}; end the processes in it, then rmdir it");
    }
}
