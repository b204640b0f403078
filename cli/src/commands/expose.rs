//! `weave expose` and `weave hide`: the host itself on the network.

use std::ffi::OsString;

use ipnet::IpNet;
use weave_host::exposed::{self, Exposed, ExposedAddresses};
use weave_host::policy::HostPolicy;
use weave_host::{Netlink, failpoint};
use weave_wire::HostName;

use super::attach::print_addresses;
use super::dns::publish;
use super::run::parse;
use super::{elsewhere, keeper};
use crate::app::Force;
use crate::environment::Environment;
use crate::failure::{Failure, Result};
use crate::{output, root};

/// Gives the host addresses on the network and prints them.
pub fn expose(
    texts: &[OsString],
    names: Vec<HostName>,
    masquerade: bool,
    force: Force,
    environment: &Environment,
) -> Result<()> {
    let cidrs = parse(texts)?;
    let policy = known_policy(environment)?;
    let mtu = environment.mtu_if_set()?.map(u32::from);
    root::require_network("expose")?;
    let failed = |error: weave_host::Error| Failure::because("cannot expose this host", error);
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let new =
        cidrs.iter().map(|cidr| Exposed { cidr: *cidr, masquerade, names: names.clone(), number: None });
    let mut host = Netlink::open().map_err(failed)?;
    let state_dir = environment.state_dir()?;
    // Not locked while an address may come free.
    let known = exposed::read_all(&state_dir).map_err(failed)?;
    let is_new = |cidr: &&IpNet| known.iter().all(|held| held.cidr != **cidr);
    let added: Vec<IpNet> = cidrs.iter().filter(is_new).copied().collect();
    if !force.force {
        elsewhere::refuse_attached(&added, environment)?.map_err(failed)?;
    }
    let mut exposed = ExposedAddresses::open(&state_dir).map_err(failed)?;
    exposed.set_aside().iter().for_each(output::warn);
    let degraded =
        exposed.expose(&mut host, &new.collect::<Vec<_>>(), &policy, mtu, force.probe()).map_err(failed)?;
    degraded.iter().for_each(output::warn);
    drop(exposed);
    failpoint("have it kept");
    publish::tell(environment)?;
    keeper::ensure(environment);
    let domain = super::dns::settings(environment)?.domain;
    for outside in names.iter().filter(|name| HostName::typed(name).is_ok_and(|name| !name.is_in(&domain))) {
        output::warn(format_args!("{outside} is not in the domain {domain}: nobody finds it there"));
    }
    print_addresses(&cidrs)
}

/// Takes addresses from the host and prints them.
pub fn hide(texts: &[OsString], environment: &Environment) -> Result<()> {
    let cidrs: Vec<IpNet> = parse(texts)?;
    let policy = known_policy(environment)?;
    root::require("hide")?;
    let failed = |error: weave_host::Error| Failure::because("cannot hide this host", error);
    let mut host = Netlink::open().map_err(failed)?;
    let mut exposed = ExposedAddresses::open(&environment.state_dir()?).map_err(failed)?;
    exposed.set_aside().iter().for_each(output::warn);
    exposed.hide(&mut host, &cidrs, &policy).map_err(failed)?;
    // Rules that stay are kept.
    let is_used = exposed.is_used(&mut host).map_err(failed)?;
    drop(exposed);
    publish::tell(environment)?;
    if !is_used {
        keeper::end_if_idle(environment)?;
    }
    print_addresses(&cidrs)
}

/// That of the router that was launched last.
fn known_policy(environment: &Environment) -> Result<HostPolicy> {
    let usual = policy(environment, environment.port()?, false)?;
    Ok(HostPolicy::read(&environment.state_dir()?).ok().flatten().unwrap_or(usual))
}

/// That of a router on `port`.
pub fn policy(environment: &Environment, port: u16, guard: bool) -> Result<HostPolicy> {
    Ok(HostPolicy { port, engine_bridge: environment.engine_bridge()?, guard })
}
