//! Many seeds, one after the other.

use clap::Args;
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};
use weave_sim::{Outcome, Scenario};

/// Which seeds.
#[derive(Debug, Args)]
pub struct Options {
    /// This seed only, run twice: both runs must be alike.
    #[arg(long)]
    seed: Option<u64>,
    /// With `--seed`: show how every host stood in the end.
    #[arg(long, requires = "seed")]
    explain: bool,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// Also report runs that took longer to agree than so many seconds.
    #[arg(long)]
    slow: Option<u64>,
    /// Hosts of a run.
    #[arg(long, default_value = "3..30", value_parser = range, value_name = "A..B")]
    hosts: RangeInclusive<usize>,
    /// End after so many minutes.
    #[arg(long)]
    minutes: Option<u64>,
}

fn range(text: &str) -> Result<RangeInclusive<usize>, String> {
    let (low, high) = text.split_once("..").unwrap_or((text, text));
    let number = |text: &str| text.parse::<usize>().map_err(|error| error.to_string());
    let (low, high) = (number(low)?, number(high)?);
    if (2..=high).contains(&low) { Ok(low..=high) } else { Err("from 2, and rising".into()) }
}

/// Runs them; true if all went well.
///
/// # Errors
/// Standard output is gone.
pub fn run(options: &Options) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    if let Some(seed) = options.seed {
        return one(seed, options, &mut out);
    }
    let begun = Instant::now();
    let limit = options.minutes.map(|minutes| Duration::from_secs(60 * minutes));
    let (mut failed, mut done, mut slowest) = (0_u64, 0, Duration::ZERO);
    for seed in options.from..options.from.saturating_add(options.seeds) {
        if limit.is_some_and(|limit| begun.elapsed() >= limit) {
            break;
        }
        let outcome = Scenario { seed, hosts: options.hosts.clone() }.run();
        done += 1;
        slowest = slowest.max(outcome.agreed_after.unwrap_or_default());
        failed += u64::from(!outcome.is_good());
        let is_slow = options.slow.is_some_and(|slow| outcome.agreed_after > Some(Duration::from_secs(slow)));
        if is_slow || !outcome.is_good() {
            report(&outcome, &options.hosts, &mut out)?;
        }
        if done % 100 == 0 {
            let rate = f64::from(done) / begun.elapsed().as_secs_f64();
            let slowest = slowest.as_secs_f64();
            writeln!(out, "{done} seeds, {failed} failed, {rate:.1}/s, all agreed within {slowest:.2} s")?;
        }
    }
    let slowest = slowest.as_secs_f64();
    writeln!(out, "{done} seeds from {}: {failed} failed; all agreed within {slowest:.2} s", options.from)?;
    Ok(failed == 0)
}

fn one(seed: u64, options: &Options, out: &mut impl Write) -> io::Result<bool> {
    let scenario = Scenario { seed, hosts: options.hosts.clone() };
    let (outcome, again) = (scenario.run(), scenario.run());
    report(&outcome, &options.hosts, out)?;
    for line in outcome.hosts_at_end.iter().filter(|_| options.explain) {
        writeln!(out, "{line}")?;
    }
    if outcome.trace != again.trace {
        writeln!(out, "  a second run was another: {:016x}", again.trace)?;
    }
    Ok(outcome.is_good() && outcome.trace == again.trace)
}

fn report(outcome: &Outcome, hosts: &RangeInclusive<usize>, out: &mut impl Write) -> io::Result<()> {
    let (low, high) = (hosts.start(), hosts.end());
    let (seed, agreed) = (outcome.seed, outcome.agreed_after);
    writeln!(
        out,
        "seed {seed}: {} hosts, {:?}, {:.1} s, agreed after {agreed:?}, trace {:016x}",
        outcome.hosts,
        outcome.kinds,
        outcome.time.as_secs_f64(),
        outcome.trace
    )?;
    for violation in &outcome.violations {
        writeln!(out, "  {violation}")?;
    }
    writeln!(out, "  again: cargo run --release -p weave-sim -- run --seed {seed} --hosts {low}..{high}")
}
