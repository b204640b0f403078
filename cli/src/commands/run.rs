//! `weave run`: starts a container and attaches it.

use std::ffi::{OsStr, OsString};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use nix::sys::signal::Signal;
use weave_host::address::check_cidrs;
use weave_host::attach::AttachOptions;
use weave_host::engine::{ContainerId, Engine};
use weave_host::{Netlink, PidFd};

use super::attach::attach;
use super::container::{self, Container};
use super::free::once_free;
use super::start::refuse_exposed;
use super::{dns, elsewhere};
use crate::app::Force;
use crate::cidr;
use crate::environment::Environment;
use crate::failure::{Failure, Result};
use crate::output;
use crate::root;

/// How addresses and arguments are written.
pub const HELP: &str = "What follows the addresses goes to `docker run -d` unchanged. Prints the container's id.\n\
    CIDR is an address with the length of its network: 10.2.1.1/24, ip:10.2.1.1/24, fd00:2::1/64.";

/// Runs, attaches, prints the id.
pub fn run(arguments: &[OsString], with_dns: bool, force: Force, environment: &Environment) -> Result<()> {
    let (cidrs, rest) = split(arguments)?;
    let mtu = environment.mtu_if_set()?.map(u32::from);
    root::require("run")?;
    // Whether the engine answers is known before anything is started.
    let host = environment.engine_host()?;
    let failed = |error: weave_host::Error| Failure::because("cannot run a container", error);
    Engine::new(&host).and_then(|engine| engine.list()).map_err(failed)?;
    refuse_in_use(&cidrs, force, environment)?;
    let dns = if with_dns { dns::arguments::arguments(rest, environment)? } else { Vec::new() };
    let ours = ["run", "-d"].map(OsStr::new).into_iter().chain(dns.iter().map(OsString::as_os_str));
    let id = start(docker(ours.chain(rest.iter().map(OsString::as_os_str)), &host)?)?;
    let container = Container::Engine(id.to_string());
    let options = AttachOptions { mac: None, mtu, probe: force.probe() };
    let early = |error| if has_ended(&host, &id) { Ended::Early(error) } else { Ended::Kernel(error) };
    let attached = container.open(&host).map_err(early).and_then(|opened| {
        attach(&opened, &cidrs, &options, environment).map_err(Ended::Failed)?.map_err(Ended::Kernel)
    });
    match attached {
        Ok(_) => output::print(format_args!("{id}\n")),
        // It did what it was started for before it could be attached: its output is kept.
        Err(Ended::Early(error)) => Err(container::failure("attach", &container, &error)),
        Err(Ended::Kernel(error)) => {
            remove(&id, &host);
            Err(container::failure("attach", &container, &error))
        }
        Err(Ended::Failed(failure)) => {
            remove(&id, &host);
            Err(failure)
        }
    }
}

/// Refuses addresses that somebody has, as far as that is known without a container to ask from: what it
/// is to run may change more than can be taken back.
fn refuse_in_use(cidrs: &[IpNet], force: Force, environment: &Environment) -> Result<()> {
    let failed = |error: weave_host::Error| Failure::because("cannot run a container", error);
    if !force.force {
        refuse_exposed("run", cidrs, environment)?;
        elsewhere::refuse_attached(cidrs, environment)?.map_err(failed)?;
    }
    let mut host = Netlink::open().map_err(failed)?;
    // No force gives an address to two containers of one host.
    once_free(environment, |records| records.refuse_taken(&mut host, cidrs, !force.force))?.map_err(failed)
}

/// Why a container that was started is not attached.
enum Ended {
    Early(weave_host::Error),
    Kernel(weave_host::Error),
    Failed(Failure),
}

fn has_ended(host: &str, id: &ContainerId) -> bool {
    let found = Engine::new(host).and_then(|engine| engine.find(id.as_str()));
    found.is_ok_and(|container| container.pid.is_none())
}

/// The addresses in front, and what is Docker's.
fn split(arguments: &[OsString]) -> Result<(Vec<IpNet>, &[OsString])> {
    let is_cidr = |argument: &&OsString| argument.to_str().is_some_and(cidr::is_written);
    let count = arguments.iter().take_while(is_cidr).count();
    let (cidrs, rest) = arguments.split_at(count);
    if let Some(option) = arguments.first().filter(|first| first.to_string_lossy().starts_with('-'))
        && arguments.iter().any(|argument| is_cidr(&argument))
    {
        let why = format!("{:?} stands before the addresses", option.to_string_lossy());
        let remedy = "name the addresses first, then what `docker run` takes; see `weave run --help`";
        return Err(Failure::usage("cannot run a container", why, remedy));
    }
    if cidrs.is_empty() {
        return Err(Failure::usage(
            "cannot run a container",
            "no address is named, and automatic addresses are not offered",
            "name at least one, as in `weave run 10.2.1.1/24 -t -i ubuntu`",
        ));
    }
    if rest.is_empty() {
        return Err(Failure::usage(
            "cannot run a container",
            "no image is named",
            "name one, as in `weave run 10.2.1.1/24 -t -i ubuntu`",
        ));
    }
    Ok((parse(cidrs)?, rest))
}

/// Reads and checks addresses.
pub fn parse(texts: &[OsString]) -> Result<Vec<IpNet>> {
    let read = |text: &OsString| {
        let text = text.to_string_lossy();
        cidr::parse(&text).map_err(|why| {
            let why = why.strip_prefix(&format!("{text}: ")).unwrap_or(&why);
            Failure::usage(format_args!("cannot use {text:.80?}"), why, "")
        })
    };
    let cidrs = texts.iter().map(read).collect::<Result<Vec<_>>>()?;
    check_cidrs(&cidrs).map_err(|error| Failure::usage("cannot use an address", error, ""))
}

/// How often it is seen whether the engine still answers while its command line works.
const LOOKED_EVERY: Duration = Duration::from_secs(2);
/// So many times in a row it may leave that without an answer.
const UNANSWERED_MAX: u32 = 2;
/// Longest that its command line may take: it may have a large image to fetch.
const WORKS_WITHIN: Duration = Duration::from_secs(3600);

/// The engine's own command line, which knows what its arguments mean. It is ended when the engine on
/// `host` does not answer any more.
pub fn docker<'a>(arguments: impl Iterator<Item = &'a OsStr> + Clone, host: &str) -> Result<Output> {
    for program in ["docker", "podman"] {
        let mut command = Command::new(program);
        command.args(arguments.clone()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        match command.spawn() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(Failure::new(format_args!("cannot start `{program}`"), error, ""));
            }
            Ok(child) => return wait_for(program, child, host),
        }
    }
    Err(Failure::new(
        "cannot run a container",
        "neither `docker` nor `podman` is in PATH",
        "install the engine's command line",
    ))
}

/// What it printed, which is little, once it has ended by itself.
fn wait_for(program: &str, child: Child, host: &str) -> Result<Output> {
    let what = format_args!("cannot wait for `{program}`");
    let failed = |error: weave_host::Error| Failure::because(what, error);
    let process = PidFd::open(child.id()).map_err(failed)?;
    let (begin, mut unanswered) = (Instant::now(), 0);
    while let Some(process) = &process
        && !process.wait_end(Instant::now() + LOOKED_EVERY).map_err(failed)?
    {
        match Engine::new(host).and_then(|engine| engine.list()) {
            Ok(_) => unanswered = 0,
            Err(_) => unanswered += 1,
        }
        let why = if unanswered >= UNANSWERED_MAX {
            format!("the engine at {host} stopped answering while `{program}` waited for it")
        } else if begin.elapsed() > WORKS_WITHIN {
            format!("`{program}` was not done within {} s", WORKS_WITHIN.as_secs())
        } else {
            continue;
        };
        process.signal(Signal::SIGKILL).map_err(failed)?;
        let remedy = "look after the engine and at what it has started, and say it again";
        return Err(Failure::new("cannot have the engine do it", why, remedy));
    }
    child.wait_with_output().map_err(|error| Failure::new(what, error, ""))
}

/// The id that the engine printed; what went wrong it has said itself.
fn start(ran: Output) -> Result<ContainerId> {
    if !ran.status.success() {
        return Err(Failure::new(
            "cannot run a container",
            format_args!("the engine refused ({})", ran.status),
            "its own words stand above",
        ));
    }
    let text = String::from_utf8_lossy(&ran.stdout);
    let id = text.lines().last().unwrap_or_default().trim();
    id.parse().map_err(|error| {
        Failure::new(
            "cannot attach the container",
            format_args!("{id:.80?}: {error}"),
            "attach it by its name",
        )
    })
}

/// Takes a container back that could not be attached.
fn remove(id: &ContainerId, host: &str) {
    let arguments = ["rm", "-f", id.as_str()].map(OsStr::new);
    if !docker(arguments.into_iter(), host).is_ok_and(|ran| ran.status.success()) {
        output::warn(format_args!("container {id} runs and is not attached: remove it"));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn addresses_come_first_and_the_rest_is_dockers() {
        let line = words("10.2.1.1/24 ip:10.2.2.1/24 -t -i --name web ubuntu echo 10.9.9.9/24");
        let (cidrs, rest) = split(&line).unwrap();
        assert_eq!(cidrs.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.2.1.1/24", "10.2.2.1/24"]);
        assert_eq!(rest, words("-t -i --name web ubuntu echo 10.9.9.9/24"));
        let image = words("10.2.1.1/24 library/ubuntu");
        assert_eq!(split(&image).unwrap().1, words("library/ubuntu"));
        let image = words("fd00:2::1/64 cafe:5000/ubuntu");
        assert_eq!(split(&image).unwrap().1, words("cafe:5000/ubuntu"));
        for bad in ["-t ubuntu", "10.2.1.1/24", "10.2.1.0/24 ubuntu", "10.2.1.1/33 ubuntu"] {
            assert!(split(&words(bad)).is_err(), "{bad}");
        }
    }
}
