//! What the tests of this crate share.
#![allow(dead_code)]

#[cfg(feature = "engine")]
pub mod engine;

use std::fs;

use weave_host::{Namespace, Netlink, ethtool};

/// Runs `test` on a host of its own: a fresh namespace that goes with the test.
pub fn in_host<T: Send>(test: impl FnOnce(&mut Netlink) -> T + Send) -> T {
    let host = Namespace::create("host").expect("these tests need root");
    host.run(|| test(&mut Netlink::open().unwrap())).unwrap()
}

/// A setting under /proc/sys/net, as the calling thread's namespace has it.
pub fn sysctl(name: &str) -> String {
    fs::read_to_string(format!("/proc/sys/net/{name}")).unwrap().trim().to_owned()
}

/// Whether the device takes TCP and UDP super-frames, as the kernel itself says.
pub fn tap_offloads(name: &str) -> (bool, bool) {
    let features = ethtool::features(name).unwrap();
    assert_eq!(features[ethtool::TSO4], features[ethtool::TSO6]);
    (features[ethtool::TSO4], features[ethtool::USO])
}

/// A container: a fresh namespace with its loopback interface up.
pub fn container(label: &str) -> Namespace {
    let namespace = Namespace::create(label).unwrap();
    Netlink::in_namespace(&namespace).unwrap().set_loopback_up().unwrap();
    namespace
}

/// Parses a list of addresses.
pub fn cidrs(texts: &[&str]) -> Vec<ipnet::IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}
