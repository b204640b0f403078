//! The process itself, under the names that Prometheus clients use.

use std::fs;

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
        let kernel = fs::read_to_string("/proc/stat").unwrap_or_default();
        let ticks = rustix::param::clock_ticks_per_second();
        let page = rustix::param::page_size() as u64;
        let max_fds = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        Self {
            open_fds: fs::read_dir("/proc/self/fd").map_or(0, |fds| fds.count().saturating_sub(1) as u64),
            max_fds: max_fds.unwrap_or(u64::MAX),
            ..Self::parse(&stat, &kernel, ticks, page)
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "seconds")]
    fn parse(stat: &str, kernel: &str, ticks: u64, page: u64) -> Self {
        // The name of the process may hold anything, also brackets: fields are counted after it
        // (proc_pid_stat(5), whose third field is the first here).
        let fields: Vec<&str> =
            stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let field =
            |number: usize| fields.get(number - 3).and_then(|text| text.parse().ok()).unwrap_or(0_u64);
        let seconds = |ticks_passed: u64| ticks_passed as f64 / ticks.max(1) as f64;
        let boot = kernel.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok());
        Self {
            cpu_seconds: seconds(field(14) + field(15)),
            start_seconds: boot.unwrap_or_default() + seconds(field(22)),
            threads: field(20),
            virtual_bytes: field(23),
            resident_bytes: field(24) * page,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_name() {
        let stat = "7 (we) ave (1) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 5 0 12300 1000000 42 1";
        let process = Process::parse(stat, "cpu 1 2\nbtime 1000\n", 100, 4096);
        assert_eq!((process.cpu_seconds, process.start_seconds), (2.0, 1123.0));
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
    }

    #[test]
    fn nonsense_is_nothing() {
        assert_eq!(Process::parse("", "", 0, 0), Process::default());
    }
}
