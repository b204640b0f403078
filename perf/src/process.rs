//! CPU time and memory of another process, as the kernel accounts them (proc(5)).

use std::fs;
use std::io::{self, ErrorKind};
use std::time::Duration;

/// What a process has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// User plus system time of all its threads, those that have ended included. Resolution: one
    /// clock tick, 10 ms as a rule.
    pub cpu: Duration,
    /// Bytes of memory resident now.
    pub resident_bytes: u64,
}

/// A process whose usage cannot be told.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}: {cause}; check that process {pid} still runs")]
pub struct UsageError {
    path: String,
    pid: u32,
    #[source]
    cause: io::Error,
}

impl Usage {
    /// Usage of process `pid` so far.
    ///
    /// # Errors
    /// The process has ended, or `/proc` is not the one of its PID namespace.
    pub fn of(pid: u32) -> Result<Self, UsageError> {
        let read = |file: &str, parse: fn(&str) -> Option<u64>| {
            let path = format!("/proc/{pid}/{file}");
            fs::read_to_string(&path)
                .and_then(|text| parse(&text).ok_or_else(|| ErrorKind::InvalidData.into()))
                .map_err(|cause| UsageError { path, pid, cause })
        };
        Ok(Self {
            cpu: Duration::from_secs_f64(read("stat", parse_ticks)? as f64 / ticks_per_second()),
            resident_bytes: read("status", parse_resident)?,
        })
    }

    /// Usage of several processes together.
    ///
    /// # Errors
    /// As [`Usage::of`], for the first that fails.
    pub fn of_all(pids: &[u32]) -> Result<Self, UsageError> {
        pids.iter().try_fold(Self::default(), |sum, pid| {
            let one = Self::of(*pid)?;
            Ok(Self { cpu: sum.cpu + one.cpu, resident_bytes: sum.resident_bytes + one.resident_bytes })
        })
    }

    /// CPU time used since `earlier`; zero if the clock of the kernel went back.
    pub fn cpu_since(&self, earlier: &Self) -> Duration {
        self.cpu.saturating_sub(earlier.cpu)
    }
}

/// Time that the threads of process `pid` that live now have spent on a core, exact to the
/// nanosecond: for what uses less than the 10 ms that [`Usage::cpu`] can tell apart.
///
/// # Errors
/// As [`Usage::of`].
pub fn run_time(pid: u32) -> Result<Duration, UsageError> {
    let path = format!("/proc/{pid}/task");
    let sum = || {
        let mut nanoseconds = 0_u64;
        for thread in fs::read_dir(&path)? {
            match fs::read_to_string(thread?.path().join("schedstat")) {
                Ok(text) => nanoseconds += parse_run_time(&text).ok_or(ErrorKind::InvalidData)?,
                // A thread that has ended since the directory was read.
                Err(e) if is_gone(&e) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(Duration::from_nanos(nanoseconds))
    };
    sum().map_err(|cause| UsageError { path: path.clone(), pid, cause })
}

fn is_gone(e: &io::Error) -> bool {
    e.kind() == ErrorKind::NotFound || e.raw_os_error() == Some(libc::ESRCH)
}

/// The first field of `/proc/PID/task/TID/schedstat`, nanoseconds.
fn parse_run_time(schedstat: &str) -> Option<u64> {
    schedstat.split_ascii_whitespace().next()?.parse().ok()
}

fn ticks_per_second() -> f64 {
    use nix::unistd::{SysconfVar, sysconf};
    // 100 on every architecture Linux supports (USER_HZ), should the kernel not tell.
    let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten();
    ticks.map_or(100.0, |ticks| ticks as f64)
}

/// Fields 14 (utime) and 15 (stime) of `/proc/PID/stat`, in clock ticks. The name in field 2 may
/// hold spaces and brackets, so counting starts after its last closing one.
fn parse_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

/// Line `VmRSS` of `/proc/PID/status`, in bytes. Kernel threads and zombies have none: 0.
fn parse_resident(status: &str) -> Option<u64> {
    let Some(line) = status.lines().find_map(|l| l.strip_prefix("VmRSS:")) else {
        return status.starts_with("Name:").then_some(0);
    };
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ticks_are_found_behind_a_name_with_brackets_and_spaces() {
        let stat = "42 (a) b) 3) S 1 42 42 0 -1 4194560 1 2 3 4 123 45 6 7 20 0 1 0 99";
        assert_eq!(parse_ticks(stat), Some(168));
    }

    #[test]
    fn a_cut_or_strange_stat_line_is_no_number() {
        for stat in ["", "42 (a", "42 (a) S 1 2", "42 (a) S 1 42 42 0 -1 4 1 2 3 4 x 45"] {
            assert_eq!(parse_ticks(stat), None, "{stat}");
        }
    }

    #[test]
    fn resident_memory_is_bytes() {
        assert_eq!(parse_resident("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
        assert_eq!(parse_resident("Name:\tzombie\n"), Some(0));
        assert_eq!(parse_resident("VmRSS:\t lots\n"), None);
        assert_eq!(parse_resident(""), None);
    }

    #[test]
    fn this_process_uses_memory_and_time() {
        let pid = std::process::id();
        let before = Usage::of(pid).unwrap();
        let mut sum = 0_u64;
        while Usage::of(pid).unwrap().cpu_since(&before) < Duration::from_millis(20) {
            sum = sum.wrapping_add(1);
        }
        assert!(before.resident_bytes > 100 << 10);
    }

    #[test]
    fn run_time_grows_while_something_runs() {
        let pid = std::process::id();
        let before = run_time(pid).unwrap();
        let mut sum = 0_u64;
        while run_time(pid).unwrap() <= before {
            sum = sum.wrapping_add(1);
        }
        assert_eq!(parse_run_time("12345 6 7\n"), Some(12345));
        assert_eq!(parse_run_time(""), None);
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error_with_its_number() {
        let errors = [Usage::of(u32::MAX).unwrap_err(), run_time(u32::MAX).unwrap_err()];
        for error in errors.map(|e| e.to_string()) {
            assert!(error.contains("4294967295"), "{error}");
        }
    }
}
