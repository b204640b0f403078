//! The arguments of `attach` and `detach`: addresses and one container, in any order.

use std::fmt;

use ipnet::IpNet;
use weave_host::address::check_cidrs;
use weave_host::detached::DetachedRun;
use weave_host::engine::{Engine, EngineContainer, check_name, place};
use weave_host::records::{self, Known};
use weave_host::{Namespace, NamespaceSpec};

use super::dns;
use crate::cidr;
use crate::environment::Environment;
use crate::failure::{Failure, Result};
use crate::output;

/// A container, as the user named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Container {
    /// By its network namespace.
    Namespace(NamespaceSpec),
    /// By its id, the beginning of it, or its name: the engine knows.
    Engine(String),
}

/// A container whose namespace is open.
#[derive(Debug)]
pub struct Opened {
    /// What it is remembered as: the engine's id of it, or what the user gave.
    pub name: String,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its description by the engine, if one knows it, and where that is.
    container: Option<(EngineContainer, String)>,
}

impl Opened {
    /// What is to be remembered of it, if an engine knows it: it may run again.
    pub fn known(&self) -> Option<Known> {
        let (container, engine) = self.container.as_ref()?;
        Some(Known { called: container.called(), engine: engine.clone() })
    }

    /// What of its label for names gives no name in the domain of this host.
    pub fn fault_of_names(&self, environment: &Environment) -> Result<Option<String>> {
        let Some((container, _)) = &self.container else { return Ok(None) };
        Ok(container.fault_of_names(&dns::settings(environment)?.domain))
    }

    /// This run of it, if its label attaches it.
    fn run(&self) -> Option<DetachedRun> {
        self.container.as_ref()?.0.detached_run()
    }

    /// The runs of containers in this namespace that their labels attach, whichever way it was named.
    ///
    /// # Errors
    /// When the records cannot be read. What the engine does not tell is a warning: a namespace can be
    /// detached without it.
    pub fn runs(&self, environment: &Environment) -> Result<Vec<DetachedRun>> {
        let failed = |error: weave_host::Error| Failure::because("cannot look for labels", error);
        let (records, _) = records::read_all(&environment.state_dir()?).map_err(failed)?;
        let others = records.iter().filter(|record| {
            record.is_of_engine() && record.namespace == self.namespace.id() && record.container != self.name
        });
        let mut runs: Vec<DetachedRun> = self.run().into_iter().collect();
        for other in others {
            let host = environment.engine_host()?;
            match Engine::new(&host).and_then(|engine| engine.find(&other.container)) {
                Ok(container) => runs.extend(container.detached_run()),
                Err(weave_host::Error::NoContainer { .. }) => {}
                Err(error) => output::warn(format_args!(
                    "if {:.12} has a label with addresses, the keeper attaches it again: {error}",
                    other.container
                )),
            }
        }
        Ok(runs)
    }
}

impl Container {
    /// Reads what the user gave.
    pub fn parse(text: &str) -> weave_host::Result<Self> {
        let is_namespace = text.starts_with('/') || text.starts_with("pid:") || text.starts_with("netns:");
        if is_namespace {
            return text.parse().map(Self::Namespace);
        }
        check_name(text)?;
        Ok(Self::Engine(text.to_owned()))
    }

    /// Finds its namespace; the host's own is refused.
    pub fn open(&self, engine_host: &str) -> weave_host::Result<Opened> {
        let opened = match self {
            Self::Namespace(spec) => {
                Opened { name: spec.to_string(), namespace: Namespace::open(spec)?, container: None }
            }
            Self::Engine(name) => {
                let engine = Engine::new(engine_host)?;
                let container = engine.find(name)?;
                let namespace = engine.namespace(&container)?;
                let name = container.id.to_string();
                Opened { name, namespace, container: Some((container, place(engine_host))) }
            }
        };
        opened.namespace.refuse_own()?;
        Ok(opened)
    }
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace(spec) => spec.fmt(f),
            Self::Engine(name) => f.write_str(name),
        }
    }
}

/// Addresses, each once, and the container they are for.
#[derive(Debug, PartialEq, Eq)]
pub struct Addressed {
    /// The container.
    pub container: Container,
    /// In the order given.
    pub cidrs: Vec<IpNet>,
}

impl Addressed {
    /// `error` kept this container from being attached or detached.
    pub fn failure(&self, command: &str, error: &weave_host::Error) -> Failure {
        failure(command, &self.container, error)
    }

    /// Finds the container's namespace.
    pub fn open(&self, command: &str, environment: &Environment) -> Result<Opened> {
        self.container.open(&environment.engine_host()?).map_err(|error| self.failure(command, &error))
    }
}

/// `error` kept `command` from being done to this container.
pub fn failure(command: &str, container: &Container, error: &weave_host::Error) -> Failure {
    let why = error.to_string();
    let why = why.strip_prefix(&format!("{container}: ")).unwrap_or(&why);
    Failure::because(format_args!("cannot {command} {container}"), why)
}

/// Sorts out the arguments of `command`.
pub fn parse(command: &str, arguments: &[String]) -> Result<Addressed> {
    let mut cidrs = Vec::new();
    let mut containers = Vec::new();
    for text in arguments {
        if cidr::is_meant(text) {
            cidrs.push(cidr::parse(text).map_err(|why| {
                let why = why.strip_prefix(&format!("{text}: ")).unwrap_or(&why);
                Failure::usage(format_args!("cannot {command} {text:.80?}"), why, "")
            })?);
        } else {
            containers.push(text);
        }
    }
    let wrong = |why: &str, remedy: &str| {
        Failure::usage(
            format_args!("cannot {command}"),
            why,
            format_args!("{remedy}, as in `weave {command} 10.2.1.1/24 pid:4711`"),
        )
    };
    let container = match containers.as_slice() {
        [container] => *container,
        [] => return Err(wrong("no container is named", "name one")),
        [first, second, ..] => {
            let why = format!("{first:.80?} and {second:.80?} are two containers or no addresses");
            return Err(wrong(&why, "name one container and addresses with the length of their network"));
        }
    };
    if cidrs.is_empty() {
        return Err(wrong("no address is named", "name at least one"));
    }
    let container = Container::parse(container)
        .map_err(|error| Failure::usage(format_args!("cannot {command}"), error, ""))?;
    let cidrs =
        check_cidrs(&cidrs).map_err(|error| Failure::usage(format_args!("cannot {command}"), error, ""))?;
    Ok(Addressed { container, cidrs })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(line: &str) -> Result<Addressed> {
        let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
        parse("attach", &arguments)
    }

    #[test]
    fn addresses_and_container_come_in_any_order() {
        for line in [
            "10.2.1.1/24 fd00::1/64 pid:7",
            "pid:7 10.2.1.1/24 ip:fd00::1/64",
            "10.2.1.1/24 pid:7 fd00::1/64",
        ] {
            let addressed = read(line).unwrap();
            assert_eq!(addressed.container, Container::Namespace(NamespaceSpec::Pid(7)));
            let shown: Vec<String> = addressed.cidrs.iter().map(ToString::to_string).collect();
            assert_eq!(shown, ["10.2.1.1/24", "fd00::1/64"]);
        }
    }

    #[test]
    fn what_is_no_namespace_is_a_container_of_the_engine() {
        assert_eq!(read("10.2.1.1/24 web").unwrap().container, Container::Engine("web".into()));
    }

    #[test]
    fn an_address_named_twice_counts_once() {
        assert_eq!(read("10.2.1.1/24 ip:10.2.1.1/24 pid:7").unwrap().cidrs.len(), 1);
        assert!(read("10.2.1.1/24 10.2.1.1/16 pid:7").is_err());
    }

    #[test]
    fn what_is_missing_or_too_much_is_said() {
        for (line, why) in [
            ("pid:7", "no address"),
            ("10.2.1.1/24", "no container"),
            ("10.2.1.1/24 pid:7 pid:8", "two containers"),
            ("10.2.1.1 pid:7", "the length of its network"),
            ("10.2.1.1/24 pid:0", "pid:0"),
            ("10.2.1.1/24 netns:../x", "netns:../x"),
            ("10.2.1.1/24 ;reboot", ";reboot"),
        ] {
            let failure = read(line).unwrap_err().to_string();
            assert!(failure.contains(why), "{failure}");
        }
    }
}
