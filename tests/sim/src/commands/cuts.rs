//! Random cuts, and how soon data passes after each.

use clap::Args;
use std::io::{self, Write};
use std::time::Duration;
use weave_sim::cuts::{Cut, Cuts, PASSES_WITHIN};
use weave_sim::shape::Shape;

/// Which cuts.
#[derive(Debug, Args)]
pub struct Options {
    /// The seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many.
    #[arg(long, default_value_t = 1000)]
    cuts: usize,
    /// Hosts, each linked to the next.
    #[arg(long, default_value_t = 2)]
    hosts: usize,
}

/// Makes the cuts; true if data passed in time after each.
///
/// # Errors
/// Standard output is gone, or hosts never met.
pub fn run(options: &Options) -> io::Result<bool> {
    let shape = if options.hosts > 2 { Shape::Ring } else { Shape::Line };
    let cuts = Cuts { seed: options.seed, cuts: options.cuts, hosts: options.hosts, shape };
    let cuts = cuts.run().ok_or_else(|| io::Error::other("the hosts never met"))?;
    let mut out = io::stdout().lock();
    writeln!(out, "cut for       cuts  passed again after: median     slowest  late")?;
    let seconds = |s: f64| Duration::from_secs_f64(s);
    for (low, high) in [(0.0, 1.0), (1.0, 9.0), (9.0, 20.0), (20.0, 61.0)] {
        let in_range = |cut: &&Cut| cut.lasted >= seconds(low) && cut.lasted < seconds(high);
        let mut times: Vec<_> = cuts.iter().filter(in_range).map(|cut| cut.passed_after).collect();
        times.sort_unstable();
        let late = times.iter().filter(|time| **time > PASSES_WITHIN).count();
        let (median, slowest) = (times.get(times.len() / 2), times.last());
        writeln!(
            out,
            "{low:4}..{high:<4} s {:7} {:>26.2} s {:>8.2} s {late:5}",
            times.len(),
            median.copied().unwrap_or_default().as_secs_f64(),
            slowest.copied().unwrap_or_default().as_secs_f64()
        )?;
    }
    let late: Vec<_> = cuts.iter().filter(|cut| cut.passed_after > PASSES_WITHIN).collect();
    for cut in late.iter().take(10) {
        writeln!(out, "late: {cut:?}")?;
    }
    Ok(late.is_empty())
}
