//! `weave start`: starts a container that was stopped and attaches it.

use std::ffi::{OsStr, OsString};

use ipnet::IpNet;
use weave_host::attach::AttachOptions;
use weave_host::engine::{Engine, EngineContainer};
use weave_host::exposed;
use weave_host::records::Record;

use super::attach::{attach, open_records};
use super::container::{self, Container, Opened};
use super::elsewhere;
use super::free::once_free;
use super::run::{docker, parse};
use crate::app::Force;
use crate::cidr;
use crate::environment::Environment;
use crate::failure::{Failure, Result};
use crate::output;
use crate::root;

/// Time a container that could not be attached has to end, seconds.
const STOPPED_WITHIN: &str = "1";

/// Starts, attaches with exactly these addresses, or with the remembered ones, and prints what
/// was started.
pub fn run(arguments: &[OsString], force: Force, environment: &Environment) -> Result<()> {
    let (texts, names): (Vec<_>, Vec<_>) =
        arguments.iter().cloned().partition(|argument| argument.to_str().is_some_and(cidr::is_meant));
    let [name] = names.as_slice() else {
        return Err(Failure::usage(
            "cannot start a container",
            format_args!("{} containers are named", names.len()),
            "name one, as in `weave start 10.2.1.1/24 web`",
        ));
    };
    let name = name.to_string_lossy().into_owned();
    let container = of_engine(&name)?;
    let given = if texts.is_empty() { Vec::new() } else { parse(&texts)? };
    let mtu = environment.mtu_if_set()?.map(u32::from);
    root::require("start")?;
    let host = environment.engine_host()?;
    let failed = |error: weave_host::Error| container::failure("start", &container, &error);
    let known = Engine::new(&host).and_then(|engine| engine.find(&name)).map_err(failed)?;
    let cidrs =
        if given.is_empty() { remembered(known.id.as_str(), &container, environment)? } else { given };
    refuse_exposed("start", &cidrs, environment)?;
    // Before the keeper sees it start, and attaches what is remembered.
    if !force.force {
        elsewhere::refuse_attached(&cidrs, environment)?.map_err(failed)?;
    }
    // The keeper may be the first to attach it.
    let before = remember(known.id.as_str(), &cidrs, environment)?.map_err(failed)?;
    let undo = Undo { name: &name, known: &known, before, host: &host, environment };
    let ran = docker(["start", name.as_str()].map(OsStr::new).into_iter(), &host);
    // What does not answer cannot be asked to stop it.
    let ran = ran.map_err(|failure| undo.after_no_answer(failure))?;
    if !ran.status.success() {
        let why = format_args!("the engine refused ({})", ran.status).to_string();
        let refused = Failure::new(format_args!("cannot start {name}"), why, "its own words stand above");
        return Err(undo.after(refused));
    }
    let attached = container.open(&host).map_err(failed).and_then(|opened| {
        let options = AttachOptions { mac: None, mtu, probe: force.probe() };
        attach(&opened, &cidrs, &options, environment)?.map_err(failed)?;
        Ok(opened)
    });
    let opened = attached.map_err(|failure| undo.after(failure))?;
    take_others(&opened, &cidrs, environment)?;
    output::print(String::from_utf8_lossy(&ran.stdout))
}

/// What is as it was before when a container could not be started and attached.
struct Undo<'a> {
    name: &'a str,
    /// The container as it was.
    known: &'a EngineContainer,
    /// The addresses that were remembered and are not any more.
    before: Option<Vec<IpNet>>,
    host: &'a str,
    environment: &'a Environment<'a>,
}

impl Undo<'_> {
    /// Stops what did not run, and only then puts addresses back: the keeper would attach with those
    /// what is about to end.
    fn after(&self, failure: Failure) -> Failure {
        let mut has_ended = false;
        if self.known.pid.is_none() {
            let stop = ["stop", "-t", STOPPED_WITHIN, self.name].map(OsStr::new);
            has_ended = docker(stop.into_iter(), self.host).is_ok_and(|ran| ran.status.success());
            if !has_ended {
                output::warn(format_args!("container {} runs and is not attached: stop it", self.name));
            }
        }
        if let Err(error) = self.put_back(has_ended) {
            output::warn(error);
        }
        failure
    }

    /// The same when it is not known whether it was started.
    fn after_no_answer(&self, failure: Failure) -> Failure {
        if let Err(error) = self.put_back(false) {
            output::warn(error);
        }
        failure
    }

    fn put_back(&self, has_ended: bool) -> Result<()> {
        let what = format_args!("cannot give {} its former addresses", self.name);
        let failed = |error: weave_host::Error| Failure::because(what, error);
        let mut records = open_records(self.environment)?;
        let mut host = weave_host::Netlink::open().map_err(failed)?;
        let id = self.known.id.as_str();
        // The keeper may have attached it in between.
        let attached = records.all().iter().find(|record| record.container == id);
        let is_alone = |record: &&Record| {
            let mut others = records.all().iter().filter(|other| other.container != id);
            others.all(|other| other.namespace != record.namespace)
        };
        if let Some(record) = attached.filter(|_| has_ended).filter(is_alone) {
            records.take_interface(&mut host, record).map_err(failed)?;
        }
        let Some(before) = &self.before else { return Ok(()) };
        records.remember(&mut host, id, before).map(drop).map_err(failed)
    }
}

/// An address of the host itself is refused before anything is started, so that the engine is not asked
/// to do `what`.
pub fn refuse_exposed(what: &str, cidrs: &[IpNet], environment: &Environment) -> Result<()> {
    let failed =
        |error: weave_host::Error| Failure::because(format_args!("cannot {what} a container"), error);
    let exposed = exposed::read_all(&environment.state_dir()?).map_err(failed)?;
    let taken = cidrs.iter().find(|cidr| exposed.iter().any(|held| held.cidr.addr() == cidr.addr()));
    taken.map_or(Ok(()), |cidr| {
        let holder = "this host, by `weave expose`".to_owned();
        Err(failed(weave_host::Error::AddressInUse { address: cidr.addr(), holder }))
    })
}

/// Has a container that does not run come up with these addresses; returns those it had. The inner
/// error is that another container has one of them, or the kernel's.
fn remember(
    id: &str,
    cidrs: &[IpNet],
    environment: &Environment,
) -> Result<weave_host::Result<Option<Vec<IpNet>>>> {
    let mut host = match weave_host::Netlink::open() {
        Ok(host) => host,
        Err(error) => return Ok(Err(error)),
    };
    once_free(environment, |records| records.remember(&mut host, id, cidrs))
}

/// What only an engine can start.
fn of_engine(name: &str) -> Result<Container> {
    match Container::parse(name) {
        Ok(container @ Container::Engine(_)) => Ok(container),
        Ok(Container::Namespace(_)) => {
            let why = format_args!("{name:.80?} is a network namespace, which nothing starts").to_string();
            Err(Failure::usage("cannot start a container", why, "use `weave attach`"))
        }
        Err(error) => Err(Failure::usage("cannot start a container", error, "")),
    }
}

/// The addresses that a container had when it ran last.
fn remembered(id: &str, container: &Container, environment: &Environment) -> Result<Vec<IpNet>> {
    let records = open_records(environment)?;
    let record = records.all().iter().find(|record| record.container == id);
    record.map(|record| record.cidrs.clone()).ok_or_else(|| {
        Failure::new(
            format_args!("cannot start {container}"),
            "no address is named and none is remembered for it",
            format_args!("name one, as in `weave start 10.2.1.1/24 {container}`"),
        )
    })
}

/// A container that ran already keeps none but the addresses given.
fn take_others(opened: &Opened, cidrs: &[IpNet], environment: &Environment) -> Result<()> {
    let failed = |error: weave_host::Error| Failure::because("cannot take former addresses", error);
    let mut host = weave_host::Netlink::open().map_err(failed)?;
    let mut records = open_records(environment)?;
    let id = opened.namespace.id();
    let of_itself = |cidr: &&IpNet| !cidrs.contains(cidr) && !records.is_shared(&opened.name, id, cidr);
    let others: Vec<IpNet> = records
        .find(&opened.name, id)
        .map(|record| record.cidrs.iter().filter(of_itself).copied().collect())
        .unwrap_or_default();
    if !others.is_empty() {
        records.detach(&mut host, &opened.name, &opened.namespace, &others, &[]).map_err(failed)?;
        drop(records);
        super::dns::publish::tell(environment)?;
    }
    Ok(())
}
