//! `weave ps`: attached containers, from the records.

use std::fmt::Write;
use std::path::Path;

use weave_api::OneLine;
use weave_host::Netlink;
use weave_host::records::{Record, read_all};

use crate::environment::Environment;
use crate::failure::{Failure, Result};
use crate::output;

/// Prints a line for each container, or for each of `wanted`.
pub fn run(wanted: &[String], environment: &Environment) -> Result<()> {
    let failed = |error: weave_host::Error| Failure::because("cannot list containers", error);
    let state_dir = environment.state_dir()?;
    refuse_unreadable(&state_dir)?;
    let (records, damaged) = read_all(&state_dir).map_err(failed)?;
    damaged.iter().for_each(output::warn);
    let links = Netlink::open().and_then(|mut host| host.links()).map_err(failed)?;
    // A container that has ended took its interface along.
    let is_alive = |record: &Record| links.iter().any(|link| link.name == record.host_interface());
    let is_wanted = |record: &Record| wanted.is_empty() || wanted.contains(&record.container);
    output::print(text(records.iter().filter(|record| is_alive(record) && is_wanted(record))))
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
        let _ = writeln!(text, "{} {} {}", OneLine(&record.container), record.mac, cidrs.join(" "));
    }
    text
}
