//! `weave ps`: attached containers, from the records.

use std::fmt::Write;
use std::path::Path;

use weave_api::OneLine;
use weave_host::bridge::BRIDGE;
use weave_host::engine::Engine;
use weave_host::exposed;
use weave_host::records::{Record, read_all};
use weave_host::{Link, Netlink};

use super::container::{self, Container};
use crate::environment::Environment;
use crate::failure::{Failure, Result};
use crate::output;

/// What the host itself is called, where it is exposed.
const EXPOSE: &str = "weave:expose";
/// Digits of an engine's id that are shown.
const ID_SHOWN: usize = 12;

/// Prints a line for each container, or for each of `wanted`: ids, their beginnings, names, or
/// namespaces as they were given to `attach`.
pub fn run(wanted: &[String], environment: &Environment) -> Result<()> {
    let failed = |error: weave_host::Error| Failure::because("cannot list containers", error);
    let state_dir = environment.state_dir()?;
    refuse_unreadable(&state_dir)?;
    let (records, damaged) = read_all(&state_dir).map_err(failed)?;
    damaged.iter().for_each(output::warn);
    let links = Netlink::open().and_then(|mut host| host.links()).map_err(failed)?;
    // A container that has ended took its interface along.
    let is_alive = |record: &Record| links.iter().any(|link| link.name == record.host_interface());
    let alive: Vec<&Record> = records.iter().filter(|record| is_alive(record)).collect();
    let exposed = exposed_line(&state_dir, &links)?;
    if wanted.is_empty() {
        return output::print(exposed + &text(alive.into_iter()));
    }
    if wanted.iter().any(|name| name == EXPOSE) {
        output::print(exposed)?;
    }
    let mut chosen = Vec::new();
    for name in wanted.iter().filter(|name| *name != EXPOSE) {
        let name = full_name(name, &alive, environment)?;
        chosen.extend(alive.iter().filter(|record| record.container == name).copied());
    }
    output::print(text(chosen.into_iter()))
}

/// The host's own line: the bridge, and the host's addresses on the network if it has any.
fn exposed_line(state_dir: &Path, links: &[Link]) -> Result<String> {
    let all =
        exposed::read_all(state_dir).map_err(|error| Failure::because("cannot list containers", error))?;
    let mac = links.iter().find(|link| link.name == BRIDGE).and_then(|link| link.mac);
    let Some(mac) = mac else { return Ok(String::new()) };
    let mut line = format!("{EXPOSE} {mac}");
    for exposed in all {
        let _ = write!(line, " {}", exposed.cidr);
    }
    Ok(line + "\n")
}

/// What the container called `name` is remembered as.
pub fn full_name(name: &str, records: &[&Record], environment: &Environment) -> Result<String> {
    if records.iter().any(|record| record.container == name) {
        return Ok(name.to_owned());
    }
    let mut by_id =
        records.iter().filter(|record| record.is_of_engine() && record.container.starts_with(name));
    if let (Some(record), None, true) = (by_id.next(), by_id.next(), name.len() >= ID_SHOWN) {
        return Ok(record.container.clone());
    }
    match Container::parse(name) {
        Ok(Container::Engine(name)) => {
            let host = environment.engine_host()?;
            let found = Engine::new(&host).and_then(|engine| engine.find(&name));
            found
                .map(|container| container.id.to_string())
                .map_err(|error| container::failure("find", &Container::Engine(name), &error))
        }
        // A namespace that is not attached has no line.
        Ok(Container::Namespace(_)) => Ok(name.to_owned()),
        Err(error) => Err(Failure::usage("cannot list containers", error, "")),
    }
}

/// The directory belongs to root; what cannot be looked into must not pass for empty.
fn refuse_unreadable(state_dir: &Path) -> Result<()> {
    match std::fs::read_dir(state_dir) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Err(Failure::new(
            "cannot list containers",
            format_args!("{}: {error}", state_dir.display()),
            "run `sudo weave ps`",
        )),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn text<'a>(records: impl Iterator<Item = &'a Record>) -> String {
    let mut text = String::new();
    for record in records {
        let cidrs: Vec<String> = record.cidrs.iter().map(ToString::to_string).collect();
        let id = record.container.get(..ID_SHOWN).filter(|_| record.is_of_engine());
        let name = OneLine(id.unwrap_or(&record.container)).to_string();
        let _ = writeln!(text, "{name} {} {}", record.mac, cidrs.join(" "));
    }
    text
}
