//! What the router measures, in the text format of Prometheus.
//!
//! A scrape takes a [`Sample`] of the control core, where shards' counters are only read, and
//! puts it into a registry of its own ([`Sheet`]): so a link that is gone has no line, and nothing
//! grows between scrapes. All that can be seen stands in the table of `families`.

mod families;
mod process;
mod publish;
mod round_trips;
mod sample;
mod sheet;
#[cfg(test)]
mod tests;

pub(super) use process::Process;
pub(super) use round_trips::RoundTrips;
pub(super) use sample::{Asked, Sample};

use super::http::HttpSample;
use sheet::Sheet;

/// Peers with lines of their own; the others are added up under the name `other`.
const PEERS_MAX: usize = 256;

/// All that a scrape shows.
pub(super) struct Scrape {
    pub(super) sample: Sample,
    pub(super) http: HttpSample,
    pub(super) process: Process,
    /// Resident memory of keeper and DNS, bytes, of those that run.
    pub(super) beside: Vec<(&'static str, u64)>,
    /// A DNS was launched on this host.
    pub(super) has_dns: bool,
}

/// The text of a scrape.
pub(super) fn render(scrape: &Scrape) -> String {
    let mut sheet = Sheet::new();
    publish::publish(scrape, &mut sheet);
    sheet.finish()
}
