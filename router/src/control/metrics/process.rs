//! The process itself, under the names that Prometheus clients use.

use std::fs;
use std::sync::OnceLock;

/// What the kernel says of the process.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(in crate::control) struct Process {
    /// Time on a core, in user space and in the kernel.
    pub(super) cpu_seconds: f64,
    /// Since 1970.
    pub(super) start_seconds: f64,
    pub(super) resident_bytes: u64,
    pub(super) virtual_bytes: u64,
    pub(super) threads: u64,
    pub(super) open_fds: u64,
    pub(super) max_fds: u64,
}

impl Process {
    /// Reads `/proc/self`; what cannot be read is 0.
    pub(in crate::control) fn read() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let ticks = rustix::param::clock_ticks_per_second();
        let page = rustix::param::page_size() as u64;
        // Once: the kernel computes the time of the boot anew each time, and a clock that is set
        // would look like a restart.
        static START: OnceLock<f64> = OnceLock::new();
        let start = START
            .get_or_init(|| started(&stat, &fs::read_to_string("/proc/stat").unwrap_or_default(), ticks));
        let max_fds = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        Self {
            open_fds: fs::read_dir("/proc/self/fd").map_or(0, |fds| fds.count().saturating_sub(1) as u64),
            max_fds: max_fds.unwrap_or(u64::MAX),
            start_seconds: *start,
            ..Self::parse(&stat, ticks, page)
        }
    }

    /// Memory of another process that is resident, bytes; 0 if there is none of that number.
    pub(in crate::control) fn resident_of(pid: u32) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        Self::parse(&stat, 1, rustix::param::page_size() as u64).resident_bytes
    }

    fn parse(stat: &str, ticks: u64, page: u64) -> Self {
        let field = |number| field(stat, number);
        Self {
            cpu_seconds: seconds(field(14) + field(15), ticks),
            threads: field(20),
            virtual_bytes: field(23),
            resident_bytes: field(24) * page,
            ..Self::default()
        }
    }
}

/// When the process was started, seconds since 1970.
fn started(stat: &str, kernel: &str, ticks: u64) -> f64 {
    let boot = kernel.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok());
    boot.unwrap_or_default() + seconds(field(stat, 22), ticks)
}

/// The field of that number of proc_pid_stat(5), from the third on. The name of the process may
/// hold anything, also brackets: they are counted after it.
fn field(stat: &str, number: usize) -> u64 {
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    rest.split_whitespace().nth(number - 3).and_then(|text| text.parse().ok()).unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "seconds")]
fn seconds(ticks_passed: u64, ticks: u64) -> f64 {
    ticks_passed as f64 / ticks.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_name() {
        let stat = "7 (we) ave (1) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 5 0 12300 1000000 42 1";
        let process = Process::parse(stat, 100, 4096);
        let start = started(stat, "cpu 1 2\nbtime 1000\n", 100);
        assert_eq!((process.cpu_seconds, start), (2.0, 1123.0));
        assert_eq!(
            (process.threads, process.virtual_bytes, process.resident_bytes),
            (5, 1_000_000, 42 * 4096)
        );
    }

    #[test]
    fn this_process_has_memory_and_files() {
        let process = Process::read();
        assert!(
            process.resident_bytes > 1 << 20 && process.open_fds > 2 && process.max_fds > 2,
            "{process:?}"
        );
        assert!(process.start_seconds > 1e9, "{process:?}");
        assert!(Process::resident_of(std::process::id()) > 1 << 20);
        assert_eq!(Process::resident_of(u32::MAX), 0);
    }

    #[test]
    fn nonsense_is_nothing() {
        assert_eq!(Process::parse("", 0, 0), Process::default());
        assert_eq!(started("", "", 0), 0.0);
    }
}
