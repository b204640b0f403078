//! `weave-perf ab`: tunnels side by side.
//!
//! Every tunnel is measured once a round on two hosts built for it alone; the rounds are repeated,
//! each in a fresh random order, so that a slow minute of the machine hits all alike. What is
//! reported of each figure is the median over the rounds, its spread, and the median of the
//! ratios to kernel VXLAN (or others named) within each round.

pub mod error;
pub mod interrupt;
mod measure;
mod metric;
pub mod order;
mod peer;
pub mod program;
mod progress;
mod report;
mod table;
mod world;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;
use weave_perf::lab;
use weave_perf::traffic::Window;

use error::{Error, Result};
use metric::Sample;
use peer::Peer;
use progress::Progress;

/// Most rounds of one run.
const MAX_ROUNDS: u16 = 1000;

/// Shortest and longest time of one measurement, seconds.
const SECONDS: std::ops::RangeInclusive<f64> = 0.2..=60.0;

/// What to compare, and how long.
#[derive(Debug, Args, Serialize)]
pub struct Options {
    /// How often each tunnel is measured.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=MAX_ROUNDS as i64))]
    rounds: u16,
    /// Length of each measurement, seconds, after a warm-up of a quarter of it.
    #[arg(long, default_value_t = 2.0, value_parser = parse_seconds)]
    seconds: f64,
    /// Measure only these, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    only: Vec<String>,
    /// Compare with these, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "LIST", default_value = peer::BASE)]
    against: Vec<String>,
    /// A build of `weave` to measure, clear and encrypted; may be given several times. None
    /// given: the one beside this program, or in PATH.
    #[arg(long, value_name = "PATH")]
    weave: Vec<PathBuf>,
    /// A program `PATH TAP LOCAL:PORT PEER:PORT aes|null` to measure; may be given several times.
    #[arg(long, value_name = "PATH")]
    spike: Vec<PathBuf>,
    /// Offloads of the underlay's network device: all; no segmentation offload and no GRO; no
    /// segmentation offload but GRO.
    #[arg(long, value_enum, default_value_t = Offload::On)]
    underlay_offload: Offload,
    /// Seed of the order within the rounds, to repeat a run.
    #[arg(long)]
    seed: Option<u64>,
    /// Form of the result.
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    output: Form,
}

/// Offloads of the underlay device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Offload {
    /// As the kernel makes it: segmentation offload, big packets pass whole.
    On,
    /// No segmentation offload and no GRO: a poor network card.
    Off,
    /// No segmentation offload, GRO: a common network card.
    Gro,
}

/// Form of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum Form {
    /// Tables for a reader.
    Text,
    /// One document with every sample.
    Json,
}

impl Offload {
    /// The underlay with them.
    pub fn underlay(self) -> lab::Underlay {
        let usual = lab::Underlay { mtu: world::UNDERLAY_MTU, ..lab::Underlay::default() };
        match self {
            Self::On => usual,
            Self::Off => lab::Underlay { segmentation: false, gro: false, ..usual },
            Self::Gro => lab::Underlay { segmentation: false, gro: true, ..usual },
        }
    }
}

impl Options {
    fn window(&self) -> Window {
        Window::of(Duration::from_secs_f64(self.seconds))
    }
}

/// Reads the length of a measurement.
pub fn parse_seconds(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if SECONDS.contains(&seconds) => Ok(seconds),
        Ok(_) | Err(_) => Err(format!("not a number from {} to {}", SECONDS.start(), SECONDS.end())),
    }
}

/// All that is known of one tunnel: a sample a round, and what went wrong.
#[derive(Debug)]
struct Series {
    peer: Box<dyn Peer>,
    samples: Vec<Sample>,
    failures: Vec<String>,
}

/// Namespaces are root's to make.
///
/// # Errors
/// This process is not root's.
pub fn require_root() -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let cause = "comparing tunnels needs root to make network namespaces; run it with sudo";
    Err(Error::Request(cause.to_owned()))
}

/// Measures and prints; the exit code, which is not 0 when a tunnel failed or a signal came.
pub fn run(options: &Options) -> Result<i32> {
    require_root()?;
    interrupt::watch();
    let mut series: Vec<Series> = peer::select(options)?
        .into_iter()
        .map(|peer| Series { peer, samples: Vec::new(), failures: Vec::new() })
        .collect();
    let names: Vec<_> = series.iter().map(|s| s.peer.name()).collect();
    let mut progress = Progress::start(options, &names);
    let seed = options.seed.unwrap_or_else(order::random_seed);
    let mut shuffle = order::Shuffle::new(seed);
    for round in 1..=options.rounds {
        for index in shuffle.order(series.len()) {
            let one = &mut series[index];
            progress.begin(round, &one.peer.name());
            let (sample, ended) = measure::round(&*one.peer, options, &mut |step| progress.step(step));
            match ended {
                Ok(()) => progress.done(round, &one.peer.name(), &sample),
                Err(Error::Interrupted { signal }) => return Ok(interrupt::exit_code(signal)),
                Err(error) => {
                    progress.failed(round, &one.peer.name(), &error);
                    one.failures.push(format!("round {round}: {error}"));
                }
            }
            one.samples.push(sample);
        }
    }
    progress.finish();
    let report = report::Report::new(options, seed, &series);
    let text = match options.output {
        Form::Text => report.text(),
        Form::Json => report.json()?,
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|e| Error::file("write to", "standard output", e))?;
    Ok(i32::from(series.iter().any(|s| !s.failures.is_empty())))
}
