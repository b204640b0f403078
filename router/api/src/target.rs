//! Where a peer may be found: what a user types after `launch` or `connect`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest host name, bytes (RFC 1035, 2.3.4, without the root's dot).
pub const HOST_NAME_MAX: usize = 253;

/// The host part of a target.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TargetHost {
    /// A unicast address.
    Address(IpAddr),
    /// A host name (RFC 1123), lower case, without a final dot.
    Name(String),
}

/// A host and, where it differs from the network's, a port: `host2`,
/// `10.0.0.2:6800`, `fd00::2`, `[fd00::2]:6800`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// Address or name.
    pub host: TargetHost,
    /// TCP and UDP port; `None` is the port of the network (`WEAVE_PORT`).
    pub port: Option<u16>,
}

/// A text that names no peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} {why}")]
pub struct ParseTargetError {
    text: String,
    why: &'static str,
}

impl Target {
    /// The address to use, if the host is an address: its own port or `default_port`.
    #[must_use]
    pub fn address(&self, default_port: u16) -> Option<SocketAddr> {
        match &self.host {
            TargetHost::Address(ip) => Some(SocketAddr::new(*ip, self.port.unwrap_or(default_port))),
            TargetHost::Name(_) => None,
        }
    }

    /// All ways to write the same: with and without its port, where that is `default_port`.
    #[must_use]
    pub fn spellings(self, default_port: u16) -> Vec<Self> {
        match self.port.unwrap_or(default_port) {
            port if port == default_port => {
                vec![Self { port: None, ..self.clone() }, Self { port: Some(port), ..self }]
            }
            _ => vec![self],
        }
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self { host: TargetHost::Address(address.ip().to_canonical()), port: Some(address.port()) }
    }
}

impl From<IpAddr> for Target {
    fn from(ip: IpAddr) -> Self {
        Self { host: TargetHost::Address(ip.to_canonical()), port: None }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.host, self.port) {
            (TargetHost::Address(ip), Some(port)) => SocketAddr::new(*ip, port).fmt(f),
            (TargetHost::Address(ip), None) => ip.fmt(f),
            (TargetHost::Name(name), Some(port)) => write!(f, "{name}:{port}"),
            (TargetHost::Name(name), None) => f.write_str(name),
        }
    }
}

impl FromStr for Target {
    type Err = ParseTargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map_err(|why| ParseTargetError { text: text.chars().take(80).collect(), why })
    }
}

fn parse(text: &str) -> Result<Target, &'static str> {
    if let Some(rest) = text.strip_prefix('[') {
        let (inside, after) = rest.split_once(']').ok_or("lacks the closing bracket of an IPv6 address")?;
        let ip: Ipv6Addr = inside.parse().map_err(|_| "has no IPv6 address in its brackets")?;
        let port = match after.strip_prefix(':') {
            Some(port) => Some(parse_port(port)?),
            None if after.is_empty() => None,
            None => return Err("has something other than a port after its brackets"),
        };
        return target(TargetHost::Address(IpAddr::V6(ip)), port);
    }
    if let Ok(ip) = text.parse() {
        return target(TargetHost::Address(ip), None);
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(parse_port(port)?)),
        None => (text, None),
    };
    if let Ok(ip) = host.parse() {
        return target(TargetHost::Address(ip), port);
    }
    target(TargetHost::Name(parse_name(host)?), port)
}

fn target(host: TargetHost, port: Option<u16>) -> Result<Target, &'static str> {
    let TargetHost::Address(ip) = host else {
        return Ok(Target { host, port });
    };
    let ip = ip.to_canonical();
    if ip.is_multicast() || ip.is_unspecified() || ip == IpAddr::from([255; 4]) {
        return Err("is not the address of one host");
    }
    Ok(Target { host: TargetHost::Address(ip), port })
}

fn parse_port(text: &str) -> Result<u16, &'static str> {
    let port = text.parse().ok().filter(|port| *port != 0 && text.bytes().all(|b| b.is_ascii_digit()));
    port.ok_or(
        "has no port from 1 to 65535 after its colon (an IPv6 address with a port is written [ADDRESS]:PORT)",
    )
}

/// A host name as RFC 1123 allows it, underscores too since they are met in
/// practice. A name whose last label is a number is a mistyped address.
fn parse_name(text: &str) -> Result<String, &'static str> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last_is_number =
        name.rsplit('.').next().is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()));
    if name.len() > HOST_NAME_MAX || last_is_number || !name.split('.').all(label_ok) {
        return Err("is neither an address nor a host name");
    }
    Ok(name.to_ascii_lowercase())
}

impl Serialize for Target {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_and_addresses_with_and_without_port_are_targets() {
        for (text, shown) in [
            ("host2", "host2"),
            ("Host2.Example.Com.", "host2.example.com"),
            ("host2:1", "host2:1"),
            ("10.0.0.2", "10.0.0.2"),
            ("10.0.0.2:6783", "10.0.0.2:6783"),
            ("fd00::2", "fd00::2"),
            ("[fd00::2]", "fd00::2"),
            ("[fd00::2]:65535", "[fd00::2]:65535"),
            ("::ffff:10.0.0.2", "10.0.0.2"),
            ("4you.example", "4you.example"),
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_cannot_be_dialled_is_refused() {
        for text in [
            "",
            ":",
            ":6783",
            "host:",
            "host:0",
            "host:65536",
            "host:+1",
            "host:a",
            "a b",
            "$(reboot)",
            "a;b",
            "a/b",
            "-x",
            "x-",
            "a..b",
            "300.1.1.1",
            "10.0.0",
            "10",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "[fd00::2",
            "[fd00::2]6783",
            "[host]:1",
            "fd00::2:99999",
            "fe80::1%eth0",
            "h\u{fc}tte",
            "a\nb",
            &"x".repeat(64),
            &"x.".repeat(128),
        ] {
            assert!(text.parse::<Target>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_survives_being_shown(text in "\\PC{0,80}|[a-z0-9.:\\[\\]-]{0,40}") {
            if let Ok(target) = text.parse::<Target>() {
                prop_assert_eq!(target.to_string().parse::<Target>().unwrap(), target);
            }
        }

        #[test]
        fn socket_addresses_survive(ip: [u8; 16], port in 1u16..) {
            let address = SocketAddr::new(IpAddr::from(ip), port);
            let target = Target::from(address);
            prop_assume!(target.to_string().parse::<Target>().is_ok());
            prop_assert_eq!(target.address(1).unwrap().port(), port);
        }
    }
}
