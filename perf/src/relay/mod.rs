//! `weave-perf relay`: what it costs that frames go over another host.
//!
//! Three hosts on one switch: in `direct` A has a link to C, in `relayed` A and C have a link to B
//! each and dial nobody they hear of. Every round measures both on hosts built anew, in random
//! order, so that a slow minute of the machine hits both; what counts is the median.

mod world;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use weave_perf::machine::CpuTimes;
use weave_perf::stats::{Summary, ratios};
use weave_perf::traffic::Window;

use crate::ab::error::{Error, Result};
use crate::ab::{self, interrupt, order, program};
use world::{Way, World};

/// Least share of the direct throughput that a relayed stream is to have.
const SHARE_MIN: f64 = 0.5;
/// Most direct round trips that a relayed one may take: one hop more.
const ROUND_TRIPS_MAX: f64 = 2.0;
/// How long the machine is watched before anything is started.
const BACKGROUND_TIME: Duration = Duration::from_millis(300);

/// What to measure, and how long.
#[derive(Debug, Args)]
pub struct Options {
    /// How often each way is measured.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Length of each measurement, seconds, after a warm-up of a quarter of it.
    #[arg(long, default_value_t = 2.0, value_parser = ab::parse_seconds)]
    seconds: f64,
    /// The build of `weave` to measure; none given: the one beside this program, or in PATH.
    #[arg(long, value_name = "PATH")]
    weave: Option<PathBuf>,
    /// Offloads of the underlay's network devices, as for `ab`.
    #[arg(long, value_enum, default_value_t = ab::Offload::On)]
    underlay_offload: ab::Offload,
    /// Seed of the order within the rounds, to repeat a run.
    #[arg(long)]
    seed: Option<u64>,
}

/// What one way did in one round.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// One TCP stream, Gbit/s.
    gigabits: f64,
    /// Median round trip, microseconds.
    round_trip_us: f64,
}

/// What one way did in all rounds; `None` where it failed.
#[derive(Debug, Default)]
struct Series(Vec<Option<Sample>>);

impl Series {
    fn of(&self, figure: fn(&Sample) -> f64) -> Vec<Option<f64>> {
        self.0.iter().map(|sample| sample.as_ref().map(figure)).collect()
    }

    fn summary(&self, figure: fn(&Sample) -> f64) -> Option<Summary> {
        let present: Vec<f64> = self.of(figure).into_iter().flatten().collect();
        Summary::of(&present)
    }
}

/// Measures and prints; the exit code, which is not 0 when something failed, did not hold, or a
/// signal came.
pub fn run(options: &Options) -> Result<i32> {
    ab::require_root()?;
    interrupt::watch();
    let weave = program::weave(options.weave.as_deref())?;
    let window = Window::of(Duration::from_secs_f64(options.seconds));
    let seed = options.seed.unwrap_or_else(order::random_seed);
    let mut shuffle = order::Shuffle::new(seed);
    let mut series = Way::ALL.map(|_| Series::default());
    let mut busy = Vec::new();
    let mut failed = false;
    for round in 1..=options.rounds {
        for index in shuffle.order(Way::ALL.len()) {
            let way = Way::ALL[index];
            busy.push(background()?);
            let measured = World::build(way, &weave, options.underlay_offload.underlay())
                .and_then(|world| world.measure(window));
            match measured {
                Ok(Sample { gigabits, round_trip_us }) => say(&format!(
                    "round {round}/{} {}: {gigabits:.2} Gbit/s, {round_trip_us:.0} us",
                    options.rounds,
                    way.name()
                )),
                Err(Error::Interrupted { signal }) => return Ok(interrupt::exit_code(signal)),
                Err(ref error) => {
                    failed = true;
                    say(&format!("round {round}/{} {}: FAILED: {error}", options.rounds, way.name()));
                }
            }
            series[index].0.push(measured.ok());
        }
    }
    let report = report(options, seed, &series, &busy);
    let (text, holds) = report.unwrap_or_else(|| ("nothing could be measured\n".to_owned(), false));
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes()).map_err(|e| Error::file("write to", "standard output", e))?;
    Ok(i32::from(failed || !holds))
}

/// How busy the machine is although nothing is measured.
fn background() -> Result<f64> {
    let times = || CpuTimes::now().map_err(|e| Error::file("read", "/proc/stat", e));
    let before = times()?;
    std::thread::sleep(BACKGROUND_TIME);
    Ok(times()?.busy_share_since(&before))
}

fn say(line: &str) {
    // Nothing is left to tell it to when stderr is gone.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The result, and whether it is as it is to be; `None` when a way has no figures.
fn report(options: &Options, seed: u64, series: &[Series; 2], busy: &[f64]) -> Option<(String, bool)> {
    let [direct, relayed] = series;
    let figures = |series: &Series| {
        Some((series.summary(|sample| sample.gigabits)?, series.summary(|sample| sample.round_trip_us)?))
    };
    let of = |figure: fn(&Sample) -> f64| Summary::of(&ratios(&relayed.of(figure), &direct.of(figure)));
    let (share, trips) = (of(|sample| sample.gigabits)?, of(|sample| sample.round_trip_us)?);
    let ((direct_gigabits, direct_trip), (relayed_gigabits, relayed_trip)) =
        (figures(direct)?, figures(relayed)?);
    let busy = Summary::of(busy)?;
    let row = |name: &str, gigabits: Summary, trip: Summary| {
        format!(
            "{name:<8} {:.2} ±{:.2} Gbit/s, one TCP stream; {:.0} ±{:.0} us, median round trip\n",
            gigabits.median, gigabits.mad, trip.median, trip.mad
        )
    };
    let verdict = |holds: bool| if holds { "holds" } else { "DOES NOT HOLD" };
    let (fast, near) = (share.median >= SHARE_MIN, trips.median <= ROUND_TRIPS_MAX);
    let text = [
        format!("{} rounds of {} s, order by seed {seed}; AES-256-GCM; ", options.rounds, options.seconds),
        format!("other programs kept the machine {:.0} % busy\n\n", busy.median * 100.0),
        row("direct", direct_gigabits, direct_trip),
        row("relayed", relayed_gigabits, relayed_trip),
        format!(
            "\nthroughput {:.2} ({:.2}..{:.2}) of direct in the same round; at least {SHARE_MIN}: {}\n",
            share.median,
            share.min,
            share.max,
            verdict(fast)
        ),
        format!(
            "round trip {:.2} ({:.2}..{:.2}) of direct, {:+.0} us; at most {ROUND_TRIPS_MAX}, one hop more: {}\n",
            trips.median,
            trips.min,
            trips.max,
            relayed_trip.median - direct_trip.median,
            verdict(near)
        ),
    ];
    Some((text.concat(), fast && near))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn options() -> Options {
        Options { rounds: 2, seconds: 1.0, weave: None, underlay_offload: ab::Offload::On, seed: None }
    }

    fn series(figures: [(f64, f64); 2]) -> Series {
        let sample = |(gigabits, round_trip_us)| Some(Sample { gigabits, round_trip_us });
        Series(figures.map(sample).to_vec())
    }

    #[test]
    fn half_the_throughput_and_twice_the_round_trip_hold_and_less_does_not() {
        for (gigabits, trip, expected) in
            [(2.0, 200.0, true), (1.9, 200.0, false), (2.0, 201.0, false), (4.0, 90.0, true)]
        {
            let both = [series([(4.0, 100.0); 2]), series([(gigabits, trip); 2])];
            let (text, holds) = report(&options(), 1, &both, &[0.5]).unwrap();
            assert_eq!(holds, expected, "{text}");
            assert_eq!(text.contains("DOES NOT HOLD"), !expected, "{text}");
        }
    }

    #[test]
    fn a_round_that_failed_is_left_out_and_no_round_is_no_result() {
        let mut relayed = series([(3.0, 150.0); 2]);
        relayed.0[0] = None;
        assert!(report(&options(), 1, &[series([(4.0, 100.0); 2]), relayed], &[0.0]).unwrap().1);
        let none = Series(vec![None, None]);
        assert!(report(&options(), 1, &[series([(4.0, 100.0); 2]), none], &[0.0]).is_none());
    }
}
