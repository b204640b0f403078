//! `weave report`: everything there is to know of this host's network, as one JSON document for
//! a bug report. Secrets are no part of it. It needs no running router: that may be the bug.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use serde::Serialize;
use weave_api::names::{ANSWER_WITHIN, NameEntry, SidecarStatus};
use weave_api::{Client, Status, client::TIME_LIMIT, sidecar};
use weave_host::policy::HostPolicy;
use weave_host::records::{Record, read_all};

use super::check::{self, Finding};
use crate::environment::Environment;
use crate::failure::Result;
use crate::output;
use crate::running::{DNS_LOG, KEEPER_LOG, LOG, LOG_OLD};

/// Version of the document; the parts named `status` and `names` are those of the HTTP endpoint.
const VERSION: u32 = 1;
/// Bytes of each log, from its end, at most.
const LOG_TAIL: u64 = 64 << 10;

#[derive(Debug, Serialize)]
struct Report {
    version: u32,
    /// Version of this command.
    software: &'static str,
    host: Host,
    checks: Vec<Finding>,
    /// What could not be found out, and why.
    missing: Vec<String>,
    status: Option<Status>,
    names: Option<Vec<NameEntry>>,
    dns: Option<SidecarStatus>,
    attachments: Vec<Record>,
    policy: Option<HostPolicy>,
    /// The ends of the logs, by file.
    logs: BTreeMap<&'static str, String>,
}

#[derive(Debug, Serialize)]
struct Host {
    name: String,
    kernel: String,
    machine: String,
    cores: usize,
    memory_kib: u64,
}

/// Prints the report.
pub fn run(environment: &Environment) -> Result<()> {
    let (run_dir, state_dir) = (environment.run_dir()?, environment.state_dir()?);
    let mut missing = Vec::new();
    let checks = check::look(None, environment, |_| Ok(()))?;
    let asked =
        Client::connect(&run_dir, TIME_LIMIT).and_then(|mut client| Ok((client.status()?, client.names()?)));
    let (status, names) = match asked {
        Ok((status, names)) => (Some(status), Some(names)),
        Err(error) => {
            missing.push(format!("status, names: {error}"));
            (None, None)
        }
    };
    let mut keep = |what: &str, error: &dyn std::fmt::Display| missing.push(format!("{what}: {error}"));
    let dns = sidecar::status(&run_dir, ANSWER_WITHIN).map_err(|error| keep("dns", &error)).ok();
    let (attachments, damaged) = read_all(&state_dir).unwrap_or_else(|error| {
        keep("attachments", &error);
        Default::default()
    });
    for name in damaged {
        keep("attachments", &format_args!("{name} is damaged"));
    }
    let policy = HostPolicy::read(&state_dir).unwrap_or_else(|error| {
        keep("policy", &error);
        None
    });
    let mut logs = BTreeMap::new();
    for name in [LOG, LOG_OLD, KEEPER_LOG, DNS_LOG] {
        match tail(&run_dir.join(name)) {
            Ok(text) => drop(logs.insert(name, text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => keep(name, &error),
        }
    }
    output::print_json(&Report {
        version: VERSION,
        software: env!("CARGO_PKG_VERSION"),
        host: host(),
        checks,
        missing,
        status,
        names,
        dns,
        attachments,
        policy,
        logs,
    })
}

fn host() -> Host {
    let system = rustix::system::uname();
    Host {
        name: system.nodename().to_string_lossy().into_owned(),
        kernel: format!("{} {}", system.release().to_string_lossy(), system.version().to_string_lossy()),
        machine: system.machine().to_string_lossy().into_owned(),
        cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        memory_kib: (rustix::system::sysinfo().totalram * u64::from(rustix::system::sysinfo().mem_unit))
            >> 10,
    }
}

/// The end of a log.
fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
