//! What grows with the number of hosts.

use clap::{Args, ValueEnum};
use std::io::{self, Write};
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use weave_sim::curve::{self, Machine, Point};
use weave_sim::shape::Shape;

/// Hosts of a world in which all are linked to all, at most; larger ones have
/// [`DEGREE`] links for each host.
const FULL: usize = 400;
const DEGREE: usize = 30;
/// Bytes of a page (`getconf PAGESIZE`) of the machines this is for.
const PAGE: u64 = 4096;

/// Which sizes.
#[derive(Debug, Args)]
pub struct Options {
    /// Numbers of hosts: up to 400 all are linked to all, from there each to 30.
    #[arg(long, value_delimiter = ',', default_values_t = [50, 100, 200, 300, 1000])]
    sizes: Vec<usize>,
    /// The seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Measures; true if hosts of every size agreed.
///
/// # Errors
/// Standard output is gone.
pub fn run(options: &Options) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    let is_text = options.output == Format::Text;
    if is_text {
        writeln!(
            out,
            "hosts  links settled  bytes/host  one link  records  routes    runs  memory  idle   name   took"
        )?;
        writeln!(
            out,
            "                      to settle   B/host    B        us      /host  KiB     B/s    ms     s"
        )?;
    }
    let mut points = Vec::new();
    for hosts in &options.sizes {
        let shape = if *hosts > FULL { Shape::Degree(DEGREE) } else { Shape::Full };
        let Some(point) = curve::measure(*hosts, shape, options.seed, Machine { clock, memory }) else {
            writeln!(io::stderr(), "{hosts} hosts did not agree")?;
            return Ok(false);
        };
        if is_text {
            row(&point, &mut out)?;
        }
        points.push(point);
    }
    if !is_text {
        serde_json::to_writer_pretty(&mut out, &points)?;
        writeln!(out)?;
    }
    Ok(true)
}

fn row(point: &Point, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "{:5} {:6} {:6.2}s {:11} {:9} {:8} {:7} {:8} {:7} {:5} {:6} {:6.1}",
        point.hosts,
        point.links,
        point.settled_s,
        point.settle_bytes,
        point.change_bytes,
        point.changed_records,
        point.routes_us,
        point.route_runs,
        point.memory_kib,
        point.idle_link_bps,
        point.name_ms,
        point.took_s
    )
}

fn clock() -> Duration {
    static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
    BEGUN.elapsed()
}

/// Resident memory of this process (proc(5), `/proc/self/statm`), bytes.
fn memory() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * PAGE
}
