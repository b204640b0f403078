//! `weave check`: why does it not work. Looks at this host, its router and its peers, and says
//! for each thing what is wrong and which command mends it.

mod host;
mod peer;
mod remedies;
mod router;
mod underlay;

use std::fmt::{Display, Write as _};
use std::str::FromStr;

use clap::Args;
use serde::Serialize;
use weave_api::target::ParseTargetError;
use weave_api::{OneLine, Status, Target};
use weave_wire::PeerName;

use super::status::Format;
use crate::environment::Environment;
use crate::failure::{Failure, Result};
use crate::output;

/// What `check` takes.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Look at the way to this peer too: its address, name or nickname; without it, at those the router is told to connect to
    #[arg(value_name = "PEER[:PORT]")]
    peer: Option<Wanted>,
    /// How to print it
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

/// The peer to look at.
#[derive(Debug, Clone)]
pub enum Wanted {
    /// By its name in the mesh.
    Name(PeerName),
    /// By an address, a host name or its nickname.
    Target(Target),
}

impl FromStr for Wanted {
    type Err = ParseTargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map_or_else(|_| text.parse().map(Self::Target), |name| Ok(Self::Name(name)))
    }
}

/// How something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Standing {
    /// As it should be.
    Ok,
    /// It works, in a slower or weaker way, or is missing and not needed by all.
    Warning,
    /// It keeps the network from working.
    Failed,
}

/// What was found of one thing.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// What was looked at.
    subject: String,
    standing: Standing,
    /// How it is.
    text: String,
    /// What mends it.
    #[serde(skip_serializing_if = "String::is_empty")]
    remedy: String,
}

impl Finding {
    fn ok(subject: impl Display, text: impl Display) -> Self {
        Self::new(subject, Standing::Ok, text, "")
    }

    fn warning(subject: impl Display, text: impl Display, remedy: impl Display) -> Self {
        Self::new(subject, Standing::Warning, text, remedy)
    }

    fn failed(subject: impl Display, text: impl Display, remedy: impl Display) -> Self {
        Self::new(subject, Standing::Failed, text, remedy)
    }

    fn new(subject: impl Display, standing: Standing, text: impl Display, remedy: impl Display) -> Self {
        Self { subject: subject.to_string(), standing, text: text.to_string(), remedy: remedy.to_string() }
    }

    /// One line, two where something is to be done.
    fn render(&self) -> String {
        let mark = match self.standing {
            Standing::Ok => "ok",
            Standing::Warning => "warning",
            Standing::Failed => "FAILED",
        };
        // Reasons may come from peers and engines.
        let mut text = format!("{mark:<8} {:<16} {}\n", self.subject, OneLine(&self.text));
        if !self.remedy.is_empty() {
            let _ = writeln!(text, "{:<25} -> {}", "", OneLine(&self.remedy));
        }
        text
    }
}

/// Looks at everything; fails if something keeps the network from working.
pub fn run(arguments: &Arguments, environment: &Environment) -> Result<()> {
    let text = arguments.output == Format::Text;
    let findings = look(arguments.peer.as_ref(), environment, |findings| {
        // As it is found: looking at peers takes its time.
        if text { output::print(findings.iter().map(Finding::render).collect::<String>()) } else { Ok(()) }
    })?;
    if !text {
        output::print_json(&findings)?;
    }
    let failed = findings.iter().filter(|finding| finding.standing == Standing::Failed);
    let failed: Vec<_> = failed.map(|finding| finding.subject.as_str()).collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        "the network cannot work as it should",
        failed.join(", "),
        "see what is said of each above",
    ))
}

/// Everything that is to be said, to `show` part by part.
pub fn look(
    peer: Option<&Wanted>,
    environment: &Environment,
    show: impl Fn(&[Finding]) -> Result<()>,
) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut add = |more: Vec<Finding>| {
        show(&more)?;
        findings.extend(more);
        Ok(())
    };
    add(host::look())?;
    let (status, found) = router::look(environment)?;
    add(found)?;
    // Of a router that runs: this shell may know another one.
    let (port, mtu) = match &status {
        Some(status) => (status.port, status.mtu),
        None => (environment.port()?, environment.mtu()?),
    };
    let mut reached = Vec::new();
    for wanted in wanted(peer, status.as_ref()) {
        let (found, at) = peer::look(&wanted, status.as_ref(), port, mtu);
        add(found)?;
        reached.extend(at);
    }
    add(underlay::look(&reached))?;
    add(router::services(environment)?)?;
    Ok(findings)
}

/// The peers to look at, at most [`PEERS`].
fn wanted(named: Option<&Wanted>, status: Option<&Status>) -> Vec<Wanted> {
    if let Some(named) = named {
        return vec![named.clone()];
    }
    let told = status.into_iter().flat_map(|status| &status.targets);
    told.map(|target| Wanted::Target(target.target.clone())).take(PEERS).collect()
}

/// Targets of the router that are looked at, at most: each may take some seconds.
const PEERS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_and_what_mends_it_another() {
        assert_eq!(Finding::ok("kernel", "6.18").render(), "ok       kernel           6.18\n");
        let text = Finding::failed("tap", "gone\nfor good", "modprobe tun").render();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.starts_with("FAILED   tap") && text.contains("-> modprobe tun"), "{text}");
    }
}
