//! `weave status`: the state of the router, as text or JSON.

mod watch;

use clap::{Args, ValueEnum};
use serde::Serialize;
use weave_api::keeper::{self, Keeper};
use weave_api::names::{OwnName, SidecarStatus};
use weave_api::{Client, Status, client::TIME_LIMIT};

use super::dns;
use crate::environment::Environment;
use crate::failure::{Failure, Result};
use crate::output;
use crate::text;

/// What `status` takes.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Only this part
    part: Option<Part>,
    /// How to print it
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,
    /// Show links, rates, latencies and drops live, until `q`
    #[arg(long, conflicts_with_all = ["part", "output"])]
    watch: bool,
}

/// A part of the state.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Part {
    /// Peers of the mesh and their links
    Peers,
    /// Links of this router, with their states
    Connections,
    /// What this router is told to connect to
    Targets,
    /// The way to each peer
    Routes,
    /// Stations and the peers they are at
    Macs,
    /// All names: address, container, the host that says so
    Dns,
}

/// How to print it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

/// The router, and the DNS beside it.
#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    status: &'a Status,
    /// What the DNS says of itself; absent: there is to be none, or it says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    sidecar: Option<&'a SidecarStatus>,
    /// Why it says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    dns_error: Option<&'a String>,
    /// The names of this host.
    own_names: &'a [OwnName],
}

/// Prints what is asked.
pub fn run(arguments: &Arguments, environment: &Environment) -> Result<()> {
    if arguments.watch {
        return watch::run(environment);
    }
    if let Some(Part::Dns) = arguments.part {
        return names(arguments.output, environment);
    }
    let fetched = fetch(environment);
    if fetched.is_err() && matches!((arguments.part, arguments.output), (None, Format::Text)) {
        // The DNS goes on without a router, and says how old what it knows is.
        if let Some(Ok(status)) = sidecar(environment)? {
            output::print(dns_summary(Some(Ok(status)), environment)?.trim_start())?;
        }
    }
    let status = fetched?;
    match (arguments.part, arguments.output) {
        (None, Format::Text) => {
            output::print(text::summary(&status))?;
            output::print(dns_summary(sidecar(environment)?, environment)?)
        }
        (None, Format::Json) => {
            let sidecar = sidecar(environment)?.map(|told| told.map_err(|error| error.to_string()));
            output::print_json(&Whole {
                status: &status,
                dns_error: sidecar.as_ref().and_then(|told| told.as_ref().err()),
                sidecar: sidecar.as_ref().and_then(|told| told.as_ref().ok()),
                own_names: &dns::own_names(environment)?,
            })
        }
        (Some(Part::Peers), Format::Text) => output::print(text::peers(&status.peers)),
        (Some(Part::Peers), Format::Json) => output::print_json(&status.peers),
        (Some(Part::Connections), Format::Text) => output::print(text::connections(&status.connections)),
        (Some(Part::Connections), Format::Json) => output::print_json(&status.connections),
        (Some(Part::Targets), Format::Text) => output::print(text::targets(&status.targets)),
        (Some(Part::Targets), Format::Json) => output::print_json(&status.targets),
        (Some(Part::Routes), Format::Text) => output::print(text::routes(&status.routes)),
        (Some(Part::Routes), Format::Json) => output::print_json(&status.routes),
        (Some(Part::Macs), Format::Text) => output::print(text::macs(&status.macs)),
        (Some(Part::Macs), Format::Json) => output::print_json(&status.macs),
        (Some(Part::Dns), _) => Ok(()),
    }
}

/// All names of the mesh.
fn names(format: Format, environment: &Environment) -> Result<()> {
    let run_dir = environment.run_dir()?;
    let names = Client::connect(&run_dir, TIME_LIMIT)
        .and_then(|mut client| client.names())
        .map_err(|error| Failure::of_client("cannot get the names", &run_dir, &error))?;
    match format {
        Format::Text => output::print(text::names(&names)),
        Format::Json => output::print_json(&names),
    }
}

/// What the sidecar says of itself; `None`: there is to be none.
fn sidecar(environment: &Environment) -> Result<Option<std::io::Result<SidecarStatus>>> {
    match weave_api::sidecar::status(&environment.run_dir()?, weave_api::names::ANSWER_WITHIN) {
        Ok(status) => Ok(Some(Ok(status))),
        Err(error) => Ok(dns::settings(environment)?.enabled.then_some(Err(error))),
    }
}

/// The sidecar and the names of this host.
fn dns_summary(sidecar: Option<std::io::Result<SidecarStatus>>, environment: &Environment) -> Result<String> {
    let run_dir = environment.run_dir()?;
    // One of which nothing is known may run.
    let is_kept = !matches!(keeper::look(&run_dir), Ok(Keeper::Absent));
    Ok(text::dns(sidecar, is_kept, &dns::own_names(environment)?))
}

/// The state of the router.
pub fn fetch(environment: &Environment) -> Result<Status> {
    let run_dir = environment.run_dir()?;
    Client::connect(&run_dir, TIME_LIMIT)
        .and_then(|mut client| client.status())
        .map_err(|error| Failure::of_client("cannot get the status", &run_dir, &error))
}
