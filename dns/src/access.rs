//! Who may ask.

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;
use weave_api::names::PODMAN_BRIDGES;

/// Names of bridges that engines make, beside the default one: their beginnings.
const ENGINE_BRIDGES: [&str; 4] = ["br-", "podman", "cni-podman", "docker_gwbridge"];

/// Whose questions are answered: containers' and this host's own.
#[derive(Debug, Default)]
pub(crate) struct Access {
    /// Networks of attached containers and exposed addresses.
    pub(crate) attached: Vec<IpNet>,
    /// Networks of the engine's bridges.
    engine: Vec<IpNet>,
    /// Addresses of this host.
    host: Vec<IpAddr>,
}

/// Addresses of this host, by what they are for.
#[derive(Debug, Default)]
pub(crate) struct HostAddresses {
    /// Of the engine's default bridge, and of Podman's.
    pub(crate) bridge: Vec<IpAddr>,
    /// Networks of all of the engine's bridges.
    engine: Vec<IpNet>,
    all: Vec<IpAddr>,
}

impl HostAddresses {
    /// As they are now.
    pub(crate) fn read(engine_bridge: &str) -> nix::Result<Self> {
        let mut found = Self::default();
        for one in getifaddrs()? {
            let ip = |address: &Option<SockaddrStorage>| {
                let address = address.as_ref()?;
                let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
                v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
            };
            let (Some(address), name) = (ip(&one.address), one.interface_name.as_str()) else { continue };
            found.all.push(address);
            let is_default = name == engine_bridge || PODMAN_BRIDGES.contains(&name);
            let is_other = ENGINE_BRIDGES.iter().any(|start| name.starts_with(start)) && is_bridge(name);
            let network = ip(&one.netmask).and_then(|mask| IpNet::with_netmask(address, mask).ok());
            // On a bridge every address of the link is a container's.
            found.engine.extend(network.filter(|_| is_default || is_other));
            // An address of the link is no address without its interface.
            let is_link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
            if is_default && !is_link_local {
                found.bridge.push(address);
            }
        }
        Ok(found)
    }
}

fn is_bridge(interface: &str) -> bool {
    Path::new("/sys/class/net").join(interface).join("bridge").exists()
}

impl Access {
    /// Takes note of the addresses of this host.
    pub(crate) fn set_host(&mut self, addresses: HostAddresses) {
        self.engine = addresses.engine;
        self.host = addresses.all;
    }

    /// True if this address may ask.
    pub(crate) fn allows(&self, source: IpAddr) -> bool {
        self.is_host(source) || self.attached.iter().chain(&self.engine).any(|net| net.contains(&source))
    }

    /// True if this is an address of this host, where an engine's own DNS asks for many containers.
    pub(crate) fn is_host(&self, source: IpAddr) -> bool {
        source.is_loopback() || self.host.contains(&source)
    }

    /// The network of containers that an address, or a network of which a part is asked for, belongs
    /// to: nobody else knows it. The widest of several.
    pub(crate) fn ours(&self, net: &IpNet) -> Option<IpNet> {
        let ours = self.attached.iter().filter(|attached| attached.contains(net));
        ours.min_by_key(|attached| attached.prefix_len()).copied()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_containers_and_the_host_may_ask() {
        let access = Access {
            attached: vec!["10.2.1.0/24".parse().unwrap()],
            engine: vec!["172.17.0.0/16".parse().unwrap()],
            host: vec!["192.0.2.1".parse().unwrap()],
        };
        for source in ["10.2.1.9", "172.17.3.4", "192.0.2.1", "127.0.0.1"] {
            assert!(access.allows(source.parse().unwrap()), "{source}");
        }
        for source in ["192.0.2.2", "10.2.2.9", "2001:db8::1"] {
            assert!(!access.allows(source.parse().unwrap()), "{source}");
        }
        assert_eq!(access.ours(&"10.2.1.7/32".parse().unwrap()), Some(access.attached[0]));
        assert_eq!(access.ours(&"10.0.0.0/8".parse().unwrap()), None);
    }

    #[test]
    fn the_addresses_of_this_host_are_read() {
        let addresses = HostAddresses::read("lo").unwrap();
        assert!(addresses.all.is_empty() || addresses.bridge.contains(&"127.0.0.1".parse().unwrap()));
    }
}
