//! `weave report`: everything there is to know of this host's network, as one JSON document for
//! a bug report. Secrets are no part of it. It needs no running router: that may be the bug.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde::Serialize;
use weave_api::names::{ANSWER_WITHIN, NameEntry, SidecarStatus};
use weave_api::{Client, Status, client::TIME_LIMIT, sidecar};
use weave_host::firewall::{Firewall, Guard};
use weave_host::policy::HostPolicy;
use weave_host::records::{Record, read_all};

use super::check::{self, Finding};
use crate::environment::Environment;
use crate::failure::Result;
use crate::output;
use crate::running::{LOG, LOGS};

/// Version of the document; the parts named `status` and `names` are those of the HTTP endpoint.
const VERSION: u32 = 1;
/// Bytes of each log, from its end, at most.
const LOG_TAIL: u64 = 64 << 10;
/// What tells of interfaces, addresses and routes of this host, as arguments of `ip`.
const NETWORK: [&[&str]; 4] =
    [&["-details", "address"], &["rule"], &["-6", "rule"], &["route", "show", "table", "all"]];
/// Bytes of what one of these tells, and of the rules of the firewall, from the beginning, at most.
const PART_MAX: usize = 256 << 10;
/// The same of the metrics: some 300 peers are 400 KB.
const METRICS_MAX: usize = 2 << 20;
/// Time that the router has for them.
const METRICS_WITHIN: Duration = Duration::from_secs(2);
/// What the journal is asked for: a router or DNS that systemd started logs there, whatever is in files of
/// earlier runs.
const JOURNAL: [&str; 9] = ["-u", "weave", "-u", "weave-dns", "-n", "1000", "-o", "short-iso", "--no-pager"];
/// Bytes that are read of what a program tells, at most.
const TOLD_MAX: u64 = 1 << 20;
/// Time it has to tell it.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

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
    /// Chains and rules of ours, as the kernel has them; nothing of those of others.
    firewall: Option<String>,
    /// Interfaces, addresses and routes, by the command that tells them.
    network: BTreeMap<String, String>,
    /// What the router shows to Prometheus.
    metrics: Option<String>,
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
    for name in LOGS {
        match tail(&run_dir.join(name)) {
            Ok(text) => drop(logs.insert(name, text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => keep(name, &error),
        }
    }
    match journal("journalctl") {
        Ok(text) => drop(logs.insert("journal", text)),
        // Where systemd started none, files have it all.
        Err(why) if !logs.contains_key(LOG) => {
            keep("journal", &format_args!("there is no {LOG}, and journalctl: {why}"));
        }
        Err(_) => {}
    }
    let firewall = firewall().map_err(|why| keep("firewall", &why)).ok();
    let mut network = BTreeMap::new();
    for arguments in NETWORK {
        let line = format!("ip {}", arguments.join(" "));
        match told("ip", arguments) {
            Ok((bytes, _)) if !bytes.is_empty() => drop(network.insert(line, beginning(&bytes, PART_MAX))),
            Ok((_, status)) => keep(&line, &status),
            Err(why) => keep(&line, &why),
        }
    }
    let metrics = metrics(environment).map_err(|why| keep("metrics", &why)).ok();
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
        firewall,
        network,
        metrics,
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

/// The beginning of what was told, as text.
fn beginning(bytes: &[u8], most: usize) -> String {
    let text = String::from_utf8_lossy(bytes.get(..most).unwrap_or(bytes)).into_owned();
    if bytes.len() > most { text + "\n(cut here)\n" } else { text }
}

/// The rules of ours.
fn firewall() -> Result<String, String> {
    let firewall = Firewall::find().ok_or("neither iptables nor nft is installed")?;
    let rules = firewall.snapshot().map_err(|error| error.to_string())?;
    let guard = Guard::snapshot().map_err(|error| error.to_string())?.unwrap_or_default();
    Ok(beginning((rules + &guard).as_bytes(), PART_MAX))
}

/// What the router shows at its status address, as far as this command knows that.
fn metrics(environment: &Environment) -> Result<String, String> {
    let http = environment.http().map_err(|failure| failure.to_string())?;
    let address = http.ok_or("WEAVE_STATUS_ADDR is empty")?.address;
    let ask = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&address, METRICS_WITHIN)?;
        stream.set_read_timeout(Some(METRICS_WITHIN))?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.take(2 * METRICS_MAX as u64).read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error| format!("{address}: {error}"))?;
    let head_end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) = answer.split_at(head_end.ok_or_else(|| format!("{address} speaks no HTTP"))? + 4);
    if head.get(8..12) != Some(b" 200") {
        return Err(format!("{address}: {}", beginning(&answer, 200)));
    }
    Ok(beginning(body, METRICS_MAX))
}

/// What a program tells, and how it ended; else why it tells nothing.
fn told(program: &str, arguments: &[&str]) -> Result<(Vec<u8>, ExitStatus), String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let stdout = child.stdout.take();
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = stdout.map_or(Ok(0), |stdout| stdout.take(TOLD_MAX).read_to_end(&mut bytes));
        let _ = sender.send(read.map(|_| bytes));
    });
    let answer = receiver.recv_timeout(TOLD_WITHIN);
    if answer.is_err() {
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    let late = |_| format!("no answer within {} s", TOLD_WITHIN.as_secs());
    Ok((answer.map_err(late)?.map_err(|error| error.to_string())?, status))
}

/// The end of the logs of router and DNS in the journal, as `program` tells it; else why there is none.
fn journal(program: &str) -> Result<String, String> {
    let (bytes, status) = told(program, &JOURNAL)?;
    let end = bytes.len().saturating_sub(usize::try_from(LOG_TAIL).unwrap_or(usize::MAX));
    let text = String::from_utf8_lossy(bytes.get(end..).unwrap_or_default()).into_owned();
    // Without entries it says so in one line, and does not fail.
    if text.trim().is_empty() || text.starts_with("-- No entries") {
        return Err(if status.success() { "no entries of weave".to_owned() } else { status.to_string() });
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_cut_says_so() {
        assert_eq!(beginning(b"abc", 3), "abc");
        assert_eq!(beginning(b"abcd", 3), "abc\n(cut here)\n");
    }

    #[test]
    fn the_journal_is_told_from_its_end_or_why_there_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let answer = |script: &str| {
            let path = directory.path().join("journalctl");
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
            journal(path.to_str().unwrap())
        };
        assert_eq!(answer("echo \"$*\"").unwrap().trim_end(), JOURNAL.join(" "));
        let long = answer("head -c 100000 /dev/zero | tr '\\0' a; echo end").unwrap();
        assert!(long.len() as u64 == LOG_TAIL && long.ends_with("end\n"));
        // What is more than is read holds nobody up.
        assert!(answer("yes").is_ok());
        assert_eq!(answer("echo '-- No entries --'").unwrap_err(), "no entries of weave");
        assert!(answer("exit 3").unwrap_err().contains('3'));
        assert!(journal("/nonexistent/journalctl").unwrap_err().contains("No such file"));
    }
}
