//! `weave detach`: takes addresses from a container.

use weave_host::{Netlink, failpoint};

use super::attach::{open_records, print_addresses};
use super::container;
use super::dns::publish;
use crate::app::AddressArguments;
use crate::environment::Environment;
use crate::failure::Result;
use crate::root;

/// Detaches and prints the addresses.
pub fn run(arguments: &AddressArguments, environment: &Environment) -> Result<()> {
    let addressed = container::parse("detach", &arguments.arguments)?;
    root::require("detach")?;
    let failed = |error: weave_host::Error| addressed.failure("detach", &error);
    let opened = addressed.open("detach", environment)?;
    let runs = opened.runs(environment)?;
    let mut host = Netlink::open().map_err(failed)?;
    let mut records = open_records(environment)?;
    records.detach(&mut host, &opened.name, &opened.namespace, &addressed.cidrs, &runs).map_err(failed)?;
    drop(records);
    failpoint("tell the router");
    publish::tell(environment)?;
    print_addresses(&addressed.cidrs)
}
