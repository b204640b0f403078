//! The arguments of `attach` and `detach`: addresses and one container, in any order.

use ipnet::IpNet;
use weave_host::NamespaceSpec;
use weave_host::address::check_cidrs;

use crate::cidr;
use crate::failure::{Failure, Result};

/// Addresses, each once, and the container they are for.
#[derive(Debug, PartialEq, Eq)]
pub struct Addressed {
    /// As the user named it.
    pub container: String,
    /// Where its namespace is found.
    pub spec: NamespaceSpec,
    /// In the order given.
    pub cidrs: Vec<IpNet>,
}

impl Addressed {
    /// `error` kept this container from being attached or detached.
    pub fn failure(&self, command: &str, error: &weave_host::Error) -> Failure {
        let why = error.to_string();
        let why = why.strip_prefix(&format!("{}: ", self.container)).unwrap_or(&why);
        Failure::because(format_args!("cannot {command} {}", self.container), why)
    }
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
    let spec = spec(command, container)?;
    let cidrs =
        check_cidrs(&cidrs).map_err(|error| Failure::usage(format_args!("cannot {command}"), error, ""))?;
    Ok(Addressed { container: container.clone(), spec, cidrs })
}

fn spec(command: &str, container: &str) -> Result<NamespaceSpec> {
    let named =
        container.starts_with('/') || container.starts_with("pid:") || container.starts_with("netns:");
    if !named {
        return Err(Failure::usage(
            format_args!("cannot {command} container {container:.80?}"),
            "this version does not ask a container engine",
            "name its namespace: pid:N (`docker inspect -f '{{.State.Pid}}' NAME` tells N), netns:NAME or a path",
        ));
    }
    container.parse().map_err(|error| Failure::usage(format_args!("cannot {command}"), error, ""))
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
            assert_eq!(addressed.spec, NamespaceSpec::Pid(7));
            let shown: Vec<String> = addressed.cidrs.iter().map(ToString::to_string).collect();
            assert_eq!(shown, ["10.2.1.1/24", "fd00::1/64"]);
        }
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
            ("10.2.1.1/24 web", "container engine"),
            ("10.2.1.1/24 ;reboot", "container engine"),
        ] {
            let failure = read(line).unwrap_err().to_string();
            assert!(failure.contains(why), "{failure}");
        }
    }
}
