//! What a router gives out over HTTP: `/report`, and once a second `/events`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weave_wire::PeerName;

use crate::names::NameEntry;
use crate::status::Status;

/// Version of [`Report`]. Raised when a reader of the version before would misunderstand; new
/// fields do not raise it.
pub const REPORT_VERSION: u16 = 1;
/// Names in a report among `/events`, at most.
pub const EVENT_NAMES_MAX: usize = 1000;
/// What the reports among `/events` are named.
pub const EVENT_NAME: &str = "report";

/// The state of a router and the names it knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`REPORT_VERSION`].
    pub version: u16,
    /// When it was taken, milliseconds since the router became ready: for rates between two reports.
    pub taken_ms: u64,
    /// The state; among `/events` without `macs`.
    pub status: Status,
    /// Names of all hosts.
    pub names: Vec<NameEntry>,
    /// How many more there are.
    pub names_left_out: usize,
    /// How many each host has, where some are left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub names_by_host: BTreeMap<PeerName, usize>,
}
