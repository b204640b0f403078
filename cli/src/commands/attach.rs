//! `weave attach`: addresses for a running container.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use weave_api::{Client, ClientError};
use weave_host::attach::{AttachOptions, Attachment};
use weave_host::bridge::BRIDGE;
use weave_host::records::Records;
use weave_host::{Netlink, failpoint};

use super::container::{self, Opened};
use super::dns::{self, publish};
use super::free::once_free;
use super::{elsewhere, keeper};
use crate::app::{AddressArguments, Force};
use crate::environment::Environment;
use crate::failure::{Failure, Result};
use crate::output;
use crate::root;

/// How containers and addresses are written.
pub const HELP: &str = "CONTAINER is the id, the beginning of the id or the name of a container of Docker or \
    Podman, or a network namespace: pid:N, netns:NAME or a path.\n\
    CIDR is an address with the length of its network: 10.2.1.1/24, ip:10.2.1.1/24, fd00:2::1/64.";

/// Time a router has to take note; it reads the records by itself sooner or later.
const NOTE_WITHIN: Duration = Duration::from_secs(1);

/// Attaches and prints the addresses.
pub fn run(arguments: &AddressArguments, force: Force, environment: &Environment) -> Result<()> {
    let addressed = container::parse("attach", &arguments.arguments)?;
    let mtu = environment.mtu_if_set()?.map(u32::from);
    root::require("attach")?;
    let failed = |error: weave_host::Error| addressed.failure("attach", &error);
    let opened = addressed.open("attach", environment)?;
    let options = AttachOptions { mac: None, mtu, probe: force.probe() };
    attach(&opened, &addressed.cidrs, &options, environment)?.map_err(failed)?;
    print_addresses(&addressed.cidrs)
}

/// Attaches, remembers it and tells the router. The inner error is the kernel's.
pub fn attach(
    opened: &Opened,
    cidrs: &[IpNet],
    options: &AttachOptions,
    environment: &Environment,
) -> Result<weave_host::Result<Attachment>> {
    let mut host = match Netlink::open() {
        Ok(host) => host,
        Err(error) => return Ok(Err(error)),
    };
    if options.probe.is_some() {
        // Not under the lock of the records: others attach while an address comes free.
        if let Err(error) = elsewhere::refuse_attached(cidrs, environment)? {
            return Ok(Err(error));
        }
    }
    let known = opened.known();
    let attached = once_free(environment, |records| {
        records.attach_known(&mut host, &opened.name, &opened.namespace, cidrs, options, known.clone())
    })?;
    if attached.is_ok() {
        failpoint("tell the router");
        publish::tell(environment)?;
        warn_of_mtu(&mut host, options.mtu);
        if let Some(known) = known {
            keeper::ensure(environment);
            keeper::warn_of_other_engine(&opened.name, &known.engine, environment)?;
        }
        if let Some(fault) = opened.fault_of_names(environment)? {
            output::warn(format_args!("container {}: {fault}", dns::shown(&opened.name)));
        }
    }
    Ok(attached)
}

/// Frames that are longer than the bridge takes are dropped there, and nobody is told.
fn warn_of_mtu(host: &mut Netlink, wanted: Option<u32>) {
    let bridge = host.link(BRIDGE).ok().flatten().map(|bridge| bridge.mtu);
    if let (Some(wanted), Some(bridge)) = (wanted, bridge)
        && wanted > bridge
    {
        output::warn(format_args!(
            "WEAVE_MTU is {wanted}, and this host's network takes {bridge}: longer frames to other hosts are lost; \
             have one value on all hosts"
        ));
    }
}

/// The records, locked, with a word on those that were damaged.
pub fn open_records(environment: &Environment) -> Result<Records> {
    let records = Records::open(&environment.state_dir()?)
        .map_err(|error| Failure::because("cannot open the records of attachments", error))?;
    records.set_aside().iter().for_each(output::warn);
    Ok(records)
}

/// The addresses on one line, without their prefixes.
pub fn print_addresses(cidrs: &[IpNet]) -> Result<()> {
    let addresses: Vec<String> = cidrs.iter().map(IpNet::addr).map(|ip: IpAddr| ip.to_string()).collect();
    output::print(format_args!("{}\n", addresses.join(" ")))
}

/// Tells a running router that the records changed. One that does not run
/// reads them when it starts.
pub fn tell_router(run_dir: &Path) {
    let told = Client::connect(run_dir, NOTE_WITHIN).and_then(|mut client| client.attachments_changed());
    match told {
        Ok(()) | Err(ClientError::NotRunning(_)) => {}
        Err(error) => {
            output::warn(format_args!("the router was not told and will notice within 30 s: {error}"))
        }
    }
}
