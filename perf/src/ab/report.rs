//! The result: tables for a reader, or one JSON document with every sample.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;
use weave_perf::lab::LIMIT_VARIABLE;
use weave_perf::stats::{Summary, ratios};

use super::error::{Error, Result};
use super::metric::{METRICS, Metric};
use super::table::Table;
use super::world::TUNNEL_MTU;
use super::{Offload, Options, Series};

/// Share of the machine that other programs may use without disturbing.
const QUIET: f64 = 0.05;

/// A whole run, summed up.
#[derive(Debug, Serialize)]
pub struct Report {
    machine: Machine,
    settings: Settings,
    against: Vec<String>,
    peers: Vec<PeerReport>,
}

#[derive(Debug, Serialize)]
struct Machine {
    kernel: String,
    processor: String,
    cpus: usize,
}

#[derive(Debug, Serialize)]
struct Settings {
    rounds: u16,
    seconds: f64,
    underlay_offload: Offload,
    seed: u64,
}

#[derive(Debug, Serialize)]
struct PeerReport {
    name: String,
    description: String,
    failures: Vec<String>,
    figures: Vec<Figure>,
}

/// One metric of one tunnel.
#[derive(Debug, Serialize)]
struct Figure {
    metric: Metric,
    unit: &'static str,
    /// One a round; `null` where it could not be measured.
    samples: Vec<Option<f64>>,
    summary: Option<Summary>,
    /// Of the ratios, within each round, to the tunnels compared with; by their names.
    ratios: BTreeMap<String, Summary>,
}

impl Report {
    pub fn new(options: &Options, seed: u64, series: &[Series]) -> Self {
        let measured = |name: &String| series.iter().any(|s| s.peer.name() == *name);
        let against: Vec<String> = options.against.iter().filter(|n| measured(n)).cloned().collect();
        let is_base = |one: &&Series| against.contains(&one.peer.name());
        let bases: Vec<&Series> = series.iter().filter(is_base).collect();
        let peers = series.iter().map(|one| PeerReport {
            name: one.peer.name(),
            description: one.peer.description(),
            failures: one.failures.clone(),
            figures: METRICS.iter().map(|m| figure(*m, one, &bases)).collect(),
        });
        Self {
            machine: Machine::this(),
            settings: Settings {
                rounds: options.rounds,
                seconds: options.seconds,
                underlay_offload: options.underlay_offload,
                seed,
            },
            against,
            peers: peers.collect(),
        }
    }

    /// One JSON document.
    pub fn json(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self);
        text.map(|text| text + "\n").map_err(|e| Error::file("write", "the JSON", e.into()))
    }

    /// Two tables and what is needed to read them.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let Machine { kernel, processor, cpus } = &self.machine;
        let Settings { rounds, seconds, underlay_offload, seed } = &self.settings;
        let underlay = match underlay_offload {
            Offload::On => "with all offloads",
            Offload::Off => "without segmentation offload, without GRO",
            Offload::Gro => "without segmentation offload, with GRO",
        };
        // Writing to a string does not fail.
        let _ = writeln!(text, "{cpus} x {processor}, Linux {kernel}, underlay {underlay}");
        let _ = writeln!(text, "{rounds} rounds of {seconds} s, order by seed {seed}\n");
        let _ = writeln!(text, "Median ± median absolute deviation:\n");
        text.push_str(&self.table(
            2,
            |metric| !metric.is_of_limits() || !self.samples(metric).is_empty(),
            median_cell,
        ));
        let busy = self.background();
        if busy > QUIET {
            let percent = busy * 100.0;
            let _ = writeln!(
                text,
                "\nCAUTION: other programs kept the machine {percent:.0} % busy between the \
                 measurements.\nThese figures are theirs as well; repeat the run on a quiet machine."
            );
        }
        for base in &self.against {
            let _ = writeln!(text, "\nTimes {base} of the same round, median (min..max):\n");
            let shown = |m: Metric| m.is_compared() && self.has_ratio(m, base);
            text.push_str(&self.table(1, shown, |figure| ratio_cell(figure, base)));
        }
        let _ = writeln!(
            text,
            "\nContainer MTU {TUNNEL_MTU} for every tunnel. TCP: payload read by the receiver. UDP: \
             datagrams delivered\nwhile one sender offers all it can, one `send` each. RTT: 64-byte \
             UDP requests, 1000/s. CPU: user and\nsystem time of both routers over 10^9 bytes of one \
             TCP stream. Memory: resident, the larger router.\nOthers: share of \
             the machine busy before the tunnel was started. Better: high Gbit/s and k/s, low us, \
             s/GB and MiB.\n"
        );
        for peer in &self.peers {
            let _ = writeln!(text, "{:<14} {}", peer.name, peer.description);
        }
        text.push_str(&self.limited().unwrap_or_default());
        if self.peers.iter().any(|peer| !peer.failures.is_empty()) {
            let _ = write!(text, "\nFailed:\n");
            for peer in &self.peers {
                for failure in &peer.failures {
                    let _ = writeln!(text, "{:<14} {failure}", peer.name);
                }
            }
        }
        text
    }

    /// Median share of the machine that other programs used.
    fn background(&self) -> f64 {
        Summary::of(&self.samples(Metric::Background)).map_or(0.0, |summary| summary.median)
    }

    /// What hosts used of the memory that they may have; `None`: as much as they wanted.
    fn limited(&self) -> Option<String> {
        let peak = self.samples(Metric::HostMemory).into_iter().reduce(f64::max)?;
        let killed = self.samples(Metric::Killed).into_iter().sum::<f64>();
        Some(format!(
            "\nEach host in a memory cgroup of {} MiB: {:.1} MiB in use at most, page cache included; \
             {killed} programs ended\nfor lack of memory.\n",
            std::env::var(LIMIT_VARIABLE).unwrap_or_default(),
            peak / Metric::HostMemory.scale()
        ))
    }

    /// All samples of all tunnels.
    fn samples(&self, metric: Metric) -> Vec<f64> {
        let figures = self.peers.iter().flat_map(|peer| &peer.figures).filter(|f| f.metric == metric);
        figures.flat_map(|figure| figure.samples.iter().copied().flatten()).collect()
    }

    /// A row for each tunnel, under so many lines of each heading.
    fn table(
        &self,
        heading_lines: usize,
        shown: impl Fn(Metric) -> bool,
        cell: impl Fn(&Figure) -> String,
    ) -> String {
        let metrics: Vec<Metric> = METRICS.into_iter().filter(|m| shown(*m)).collect();
        let mut table = Table::default();
        for line in 0..heading_lines {
            let headings = metrics.iter().map(|m| m.heading()[line]);
            table.row(std::iter::once("").chain(headings));
        }
        for peer in &self.peers {
            let figures = peer.figures.iter().filter(|f| metrics.contains(&f.metric));
            table.row(std::iter::once(peer.name.clone()).chain(figures.map(&cell)));
        }
        table.render()
    }

    /// Whether any tunnel has a ratio to `base` for this metric.
    fn has_ratio(&self, metric: Metric, base: &str) -> bool {
        let figures = self.peers.iter().flat_map(|peer| &peer.figures);
        figures.filter(|f| f.metric == metric).any(|f| f.ratios.contains_key(base))
    }
}

fn figure(metric: Metric, one: &Series, bases: &[&Series]) -> Figure {
    let samples = samples(metric, one);
    let ratio = |base: &&Series| {
        let summary = Summary::of(&ratios(&samples, &self::samples(metric, base)))?;
        metric.is_compared().then(|| (base.peer.name(), summary))
    };
    let ratios = bases.iter().filter_map(ratio).collect();
    let present: Vec<f64> = samples.iter().copied().flatten().collect();
    Figure { metric, unit: metric.unit(), summary: Summary::of(&present), samples, ratios }
}

fn samples(metric: Metric, one: &Series) -> Vec<Option<f64>> {
    one.samples.iter().map(|sample| sample.get(&metric).copied()).collect()
}

fn median_cell(figure: &Figure) -> String {
    let (digits, scale) = (figure.metric.digits(), figure.metric.scale());
    figure
        .summary
        .map_or_else(missing, |s| format!("{:.digits$} ±{:.digits$}", s.median / scale, s.mad / scale))
}

fn ratio_cell(figure: &Figure, base: &str) -> String {
    figure.ratios.get(base).map_or_else(missing, |s| format!("{:.2} ({:.2}..{:.2})", s.median, s.min, s.max))
}

fn missing() -> String {
    "—".to_owned()
}

impl Machine {
    fn this() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
        let processor = model.and_then(|line| line.split_once(": ")).map_or("CPU", |(_, m)| m);
        Self {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            processor: processor.to_owned(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}
