//! How busy the whole machine is: whether anything but the measured runs on it.

use std::fs;
use std::io::{self, ErrorKind};

/// CPU time of the whole machine since it started, clock ticks (proc_stat(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuTimes {
    busy: u64,
    all: u64,
}

impl CpuTimes {
    /// The times until now. They advance every 10 ms as a rule, so look again after many times
    /// that.
    ///
    /// # Errors
    /// `/proc` is not mounted.
    pub fn now() -> io::Result<Self> {
        let text = fs::read_to_string("/proc/stat")?;
        parse(&text).ok_or_else(|| ErrorKind::InvalidData.into())
    }

    /// Share (0.0 to 1.0) of all cores that was busy since `earlier`, time stolen by other virtual
    /// machines included; 0 when no time has passed.
    pub fn busy_share_since(&self, earlier: &Self) -> f64 {
        let all = self.all.saturating_sub(earlier.all);
        let busy = self.busy.saturating_sub(earlier.busy);
        if all == 0 { 0.0 } else { busy as f64 / all as f64 }
    }
}

/// The line of all cores: user, nice, system, idle, iowait, irq, softirq, steal. (What follows,
/// time of guests, is part of user and nice.)
fn parse(stat: &str) -> Option<CpuTimes> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let mut fields = line.split_ascii_whitespace().map(str::parse::<u64>);
    let mut times = [0; 8];
    for time in &mut times {
        *time = fields.next()?.ok()?;
    }
    let all = times.iter().try_fold(0_u64, |sum, time| sum.checked_add(*time))?;
    let [_, _, _, idle, waiting, ..] = times;
    Some(CpuTimes { busy: all - idle - waiting, all })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn idle_and_waiting_are_not_busy() {
        let before = parse("cpu  10 0 10 100 0 0 0 0 0 0\ncpu0 1 2 3").unwrap();
        let after = parse("cpu  20 5 20 150 10 5 5 5 99 99\n").unwrap();
        assert!((after.busy_share_since(&before) - 0.4).abs() < 1e-9);
        assert!(before.busy_share_since(&before).abs() < 1e-9);
        assert!(before.busy_share_since(&after).abs() < 1e-9);
    }

    #[test]
    fn a_cut_or_strange_line_is_no_time() {
        for stat in ["", "cpu  1 2 3\n", "cpu  1 2 3 x 5 6 7 8\n", "cpu0 1 2 3 4 5 6 7 8\n"] {
            assert_eq!(parse(stat), None, "{stat}");
        }
    }

    #[test]
    fn this_machine_tells() {
        let now = CpuTimes::now().unwrap();
        assert!(now.busy > 0 && now.all > now.busy);
    }
}
