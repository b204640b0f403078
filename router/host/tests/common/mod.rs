//! What the tests of this crate share.
#![allow(dead_code)]

use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use weave_host::{Namespace, Netlink};

/// Runs `test` on a host of its own: a fresh namespace that goes with the test.
pub fn in_host<T: Send>(test: impl FnOnce(&mut Netlink) -> T + Send) -> T {
    let host = Namespace::create("host").expect("these tests need root");
    host.run(|| test(&mut Netlink::open().unwrap())).unwrap()
}

/// A setting under /proc/sys/net, as the calling thread's namespace has it.
pub fn sysctl(name: &str) -> String {
    fs::read_to_string(format!("/proc/sys/net/{name}")).unwrap().trim().to_owned()
}

/// Whether the device takes TCP and UDP super-frames: ETHTOOL_GFLAGS knows neither,
/// so ask for the single features by their old commands.
pub fn tap_offloads(name: &str) -> (bool, bool) {
    const ETHTOOL_GTSO: u32 = 0x1e;
    let tso = ethtool_value(name, ETHTOOL_GTSO) != 0;
    (tso, feature(name, "tx-udp-segmentation"))
}

fn ethtool_value(name: &str, command: u32) -> u32 {
    let mut value = [command, 0];
    ethtool(name, value.as_mut_ptr().cast());
    value[1]
}

/// Whether a feature is active, by its name in `ethtool -k`.
pub fn feature(name: &str, feature: &str) -> bool {
    const ETHTOOL_GSSET_INFO: u32 = 0x37;
    const ETHTOOL_GSTRINGS: u32 = 0x1b;
    const ETHTOOL_GFEATURES: u32 = 0x3a;
    const ETH_SS_FEATURES: u32 = 4;
    let mut info = [ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_FEATURES, 0, 0];
    ethtool(name, info.as_mut_ptr().cast());
    let count = info[4] as usize;
    let mut strings = vec![0u32; 3 + count * 8];
    strings[..3].copy_from_slice(&[ETHTOOL_GSTRINGS, ETH_SS_FEATURES, count as u32]);
    ethtool(name, strings.as_mut_ptr().cast());
    let names: Vec<String> = strings[3..]
        .chunks(8)
        .map(|words| {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned()
        })
        .collect();
    let index = names.iter().position(|name| name == feature).expect("an unknown feature");
    let blocks = count.div_ceil(32);
    let mut features = vec![0u32; 2 + blocks * 4];
    features[..2].copy_from_slice(&[ETHTOOL_GFEATURES, blocks as u32]);
    ethtool(name, features.as_mut_ptr().cast());
    // Each block: available, requested, active, never changed.
    features[2 + index / 32 * 4 + 2] >> (index % 32) & 1 == 1
}

fn ethtool(name: &str, data: *mut libc::c_char) {
    // SAFETY: socket(2) takes integers; the descriptor is new and ours.
    let socket = unsafe { OwnedFd::from_raw_fd(libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)) };
    // SAFETY: ifreq is integers, arrays and pointers, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = data;
    // SAFETY: the request points to a buffer of the size its command fills.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), 0x8946, &raw mut request) };
    assert_eq!(result, 0, "ethtool {name}: {}", std::io::Error::last_os_error());
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
