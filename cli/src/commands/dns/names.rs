//! `weave dns-add`, `weave dns-remove` and `weave dns-lookup`.

use std::net::IpAddr;

use clap::Args;
use ipnet::IpNet;
use weave_host::exposed::ExposedAddresses;
use weave_host::names::{ContainerNames, OutsideNames};
use weave_host::records::{Record, Records, read_all};
use weave_wire::HostName;

use super::publish;
use crate::commands::attach::open_records;
use crate::commands::ps::full_name;
use crate::environment::Environment;
use crate::failure::{Failure, Result};
use crate::output;
use crate::root;

/// How names are given and taken.
pub const HELP: &str = "CONTAINER is one that is attached: the id, the beginning of the id or the name of a \
    container of the engine, or a network namespace as it was attached.";

/// Addresses, a container, names.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Addresses, and at most one container; no address: all that the container has
    #[arg(value_name = "ADDRESS… CONTAINER")]
    arguments: Vec<String>,
    /// A name in the domain; none: all that the container has
    #[arg(short = 'h', value_name = "FQDN", value_parser = HostName::typed)]
    names: Vec<HostName>,
}

/// What is meant.
struct Meant {
    addresses: Vec<IpAddr>,
    container: Option<String>,
    domain: HostName,
}

fn read(command: &str, arguments: &Arguments, environment: &Environment) -> Result<Meant> {
    let usage = |why: &dyn std::fmt::Display, remedy: &str| {
        Failure::usage(format_args!("cannot {command}"), why, remedy)
    };
    let (mut addresses, mut containers) = (Vec::new(), Vec::new());
    for text in &arguments.arguments {
        match text.parse::<IpAddr>() {
            Ok(address) if address.is_unspecified() || address.is_multicast() => {
                return Err(usage(&format!("{address} is not the address of one host"), "name another"));
            }
            Ok(address) => addresses.push(address),
            Err(_) if text.parse::<IpNet>().is_ok() => {
                return Err(usage(&format!("{text} is an address with a length"), "leave the length out"));
            }
            Err(_) => containers.push(text.clone()),
        }
    }
    if let [first, second, ..] = containers.as_slice() {
        let why = format!("{first:.80?} and {second:.80?} are two containers or no addresses");
        return Err(usage(&why, "name one container, and addresses without a length"));
    }
    let container = containers.pop();
    if container.is_none() && (arguments.names.is_empty() || (addresses.is_empty() && command == "dns-add")) {
        let remedy = format!(
            "name a container, or addresses and a name, as in `weave {command} 192.0.2.1 -h db.weave.local`"
        );
        return Err(usage(&"neither a container nor an address with a name is given", &remedy));
    }
    let domain = super::settings(environment)?.domain;
    if let Some(outside) = arguments.names.iter().find(|name| !name.is_in(&domain)) {
        let remedy = format!("name one like web.{domain}, or launch the DNS with another --domain");
        return Err(usage(&format_args!("{outside} is not in the domain {domain}"), &remedy));
    }
    root::require(command)?;
    Ok(Meant { addresses, container, domain })
}

/// Gives names.
pub fn add(arguments: &Arguments, environment: &Environment) -> Result<()> {
    let meant = read("dns-add", arguments, environment)?;
    let failed = |error: weave_host::Error| Failure::because("cannot add a name", error);
    match &meant.container {
        None => {
            let mut outside = open_outside(environment)?;
            for name in &arguments.names {
                outside.add(name, &meant.addresses).map_err(failed)?;
            }
        }
        Some(container) => {
            let (mut records, record) = find("dns-add", container, environment)?;
            let mut changed = record.names.clone();
            let own = ContainerNames { given: Vec::new(), removed: Vec::new(), ..changed.clone() };
            let names =
                if arguments.names.is_empty() { own.names(&meant.domain) } else { arguments.names.clone() };
            if names.is_empty() {
                return Err(Failure::new(
                    format_args!("cannot add a name of {container}"),
                    format_args!("it has none in the domain {}", meant.domain),
                    format_args!("name one, as in `weave dns-add {container} -h web.{}`", meant.domain),
                ));
            }
            for name in &names {
                changed.add(name, &meant.addresses).map_err(failed)?;
            }
            records.change_names(&record.container, |names| *names = changed).map_err(failed)?;
        }
    }
    publish::tell(environment)
}

/// Takes names.
pub fn remove(arguments: &Arguments, environment: &Environment) -> Result<()> {
    let meant = read("dns-remove", arguments, environment)?;
    let failed = |error: weave_host::Error| Failure::because("cannot remove a name", error);
    match &meant.container {
        None => {
            let mut outside = open_outside(environment)?;
            for name in &arguments.names {
                outside.remove(name, &meant.addresses).map_err(failed)?;
            }
            drop(outside);
            // And those of this host, by `weave expose -h`.
            let names: Vec<String> = arguments.names.iter().map(ToString::to_string).collect();
            ExposedAddresses::open(&environment.state_dir()?)
                .and_then(|mut exposed| exposed.remove_names(&names, &meant.addresses))
                .map_err(failed)?;
        }
        Some(container) => {
            let (mut records, record) = find("dns-remove", container, environment)?;
            let mut changed = record.names.clone();
            let all: Vec<IpAddr> = record.cidrs.iter().map(IpNet::addr).collect();
            let names = if arguments.names.is_empty() {
                changed.names(&meant.domain)
            } else {
                arguments.names.clone()
            };
            for name in &names {
                changed.remove(name, &meant.addresses, &all, &meant.domain).map_err(failed)?;
            }
            records.change_names(&record.container, |names| *names = changed).map_err(failed)?;
        }
    }
    publish::tell(environment)
}

fn open_outside(environment: &Environment) -> Result<OutsideNames> {
    let outside = OutsideNames::open(&environment.state_dir()?)
        .map_err(|error| Failure::because("cannot open the names given by hand", error))?;
    if let Some(aside) = outside.set_aside() {
        let kept = aside.kept.display();
        output::warn(format_args!("a damaged file of names was set aside as {kept}: {}", aside.cause));
    }
    Ok(outside)
}

/// The record of an attached container.
fn find(command: &str, container: &str, environment: &Environment) -> Result<(Records, Record)> {
    // Without the lock, which others wait for: an engine may take its time to answer.
    let failed =
        |error: weave_host::Error| Failure::because(format_args!("cannot {command} {container}"), error);
    let (all, _damaged) = read_all(&environment.state_dir()?).map_err(failed)?;
    let name = full_name(container, &all.iter().collect::<Vec<_>>(), environment)?;
    let records = open_records(environment)?;
    let record = records.all().iter().find(|record| record.container == name).cloned();
    let record = record.ok_or_else(|| {
        Failure::new(
            format_args!("cannot {command} {container}"),
            "it is not attached",
            format_args!("attach it first, as in `weave attach 10.2.1.1/24 {container}`"),
        )
    })?;
    Ok((records, record))
}

/// Prints what a name stands for.
pub fn lookup(name: &HostName, environment: &Environment) -> Result<()> {
    let what = format!("cannot look up {name}");
    let domain = super::settings(environment)?.domain;
    let bare = !name.as_str().contains('.');
    let full = if bare { HostName::typed(&format!("{name}.{domain}")) } else { Ok(name.clone()) };
    let full = full.map_err(|error| Failure::usage(&what, error, ""))?;
    let found = weave_api::sidecar::lookup(&environment.run_dir()?, &full).map_err(|error| {
        Failure::new(
            &what,
            format_args!("the DNS does not answer ({error})"),
            "start it with `weave launch-dns`",
        )
    })?;
    if found.addresses.is_empty() {
        return Err(Failure::new(what, format_args!("nobody has the name {full}"), "see `weave status dns`"));
    }
    found.addresses.iter().try_for_each(|address| output::print(format_args!("{address}\n")))
}
