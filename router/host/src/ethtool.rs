//! Features of interfaces by their names in `ethtool -k` (ethtool ioctl, linux/ethtool.h).

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::error::{Error, Result};
use crate::netlink::INTERFACE_NAME_MAX;

const SIOCETHTOOL: libc::Ioctl = 0x8946;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_SFEATURES: u32 = 0x3b;
const ETH_SS_FEATURES: u32 = 4;

/// Length of a feature's name in the kernel's table, in words of 32 bits.
const NAME_WORDS: usize = 8;

/// More features than any kernel has.
const FEATURES_MAX: usize = 4096;

/// TCP segmentation offload over IPv4.
pub const TSO4: &str = "tx-tcp-segmentation";
/// TCP segmentation offload over IPv6.
pub const TSO6: &str = "tx-tcp6-segmentation";
/// UDP segmentation offload.
pub const USO: &str = "tx-udp-segmentation";
/// Segmentation by the kernel, as late as possible.
pub const GSO: &str = "tx-generic-segmentation";
/// Joining of received segments by the kernel.
pub const GRO: &str = "rx-gro";
/// Joining of received UDP datagrams also for packets that are passed on.
pub const GRO_UDP_FORWARDING: &str = "rx-udp-gro-forwarding";

/// Checksums of packets that are sent: of any protocol, of IPv4 and of IPv6.
pub const TX_CHECKSUMS: [&str; 3] = ["tx-checksum-ip-generic", "tx-checksum-ipv4", "tx-checksum-ipv6"];

/// How a feature stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature {
    /// It is on.
    pub active: bool,
    /// `ethtool -K` can switch it.
    pub changeable: bool,
}

/// All features of an interface of the calling thread's namespace, and whether each is active.
///
/// # Errors
/// When there is no such interface.
pub fn features(interface: &str) -> Result<BTreeMap<String, bool>> {
    Ok(standing(interface)?.into_iter().map(|(name, feature)| (name, feature.active)).collect())
}

/// The same with whether each can be switched.
///
/// # Errors
/// When there is no such interface.
pub fn standing(interface: &str) -> Result<BTreeMap<String, Feature>> {
    let device = Device::open(interface)?;
    let names = device.names()?;
    let standing = device.standing(names.len())?;
    Ok(names.into_iter().zip(standing).collect())
}

/// Switches features on or off. Unknown names are errors; a feature that the
/// device cannot change stays as it is.
///
/// # Errors
/// When there is no such interface or feature, or the caller lacks CAP_NET_ADMIN.
pub fn set_features(interface: &str, wanted: &[(&str, bool)]) -> Result<()> {
    let device = Device::open(interface)?;
    let names = device.names()?;
    let blocks = names.len().div_ceil(32);
    let mut request = vec![0u32; 2 + blocks * 2];
    for (name, on) in wanted {
        let index = names.iter().position(|known| known == name).ok_or_else(|| {
            Error::invalid(name, format!("is no feature this kernel knows of interface {interface}"))
        })?;
        let bit = 1 << (index % 32);
        // Each block: which bits count, and what they shall be.
        if let Some([valid, requested]) =
            request.get_mut(2 + index / 32 * 2..).and_then(|rest| rest.first_chunk_mut())
        {
            *valid |= bit;
            *requested |= if *on { bit } else { 0 };
        }
    }
    device.call(ETHTOOL_SFEATURES, &[blocks as u32], &mut request)
}

/// An interface, and a socket in its namespace to reach it by.
struct Device<'a> {
    socket: OwnedFd,
    interface: &'a str,
}

impl<'a> Device<'a> {
    fn open(interface: &'a str) -> Result<Self> {
        if interface.is_empty() || interface.len() > INTERFACE_NAME_MAX {
            return Err(Error::invalid(interface, "not the name of an interface: 1 to 15 bytes"));
        }
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
            .map_err(|error| Error::kernel("open", "a socket", error))?;
        Ok(Self { socket, interface })
    }

    fn names(&self) -> Result<Vec<String>> {
        let mut info = [0; 5];
        // Reserved, then a mask of 64 bits.
        self.call(ETHTOOL_GSSET_INFO, &[0, 1 << ETH_SS_FEATURES, 0], &mut info)?;
        let [.., count] = info;
        let count = (count as usize).min(FEATURES_MAX);
        let mut strings = vec![0; 3 + count * NAME_WORDS];
        self.call(ETHTOOL_GSTRINGS, &[ETH_SS_FEATURES, count as u32], &mut strings)?;
        let names = strings.get(3..).unwrap_or_default().chunks(NAME_WORDS);
        Ok(names
            .map(|words| {
                let bytes: Vec<u8> =
                    words.iter().flat_map(|word| word.to_ne_bytes()).take_while(|byte| *byte != 0).collect();
                String::from_utf8_lossy(&bytes).into_owned()
            })
            .collect())
    }

    fn standing(&self, count: usize) -> Result<Vec<Feature>> {
        let blocks = count.div_ceil(32);
        let mut features = vec![0u32; 2 + blocks * 4];
        self.call(ETHTOOL_GFEATURES, &[blocks as u32], &mut features)?;
        // Each block: available, requested, active, never changed.
        let blocks: Vec<&[u32; 4]> = features.get(2..).unwrap_or_default().as_chunks().0.iter().collect();
        let bit = |index: usize, word: usize| {
            blocks.get(index / 32).is_some_and(|block| block[word] >> (index % 32) & 1 == 1)
        };
        Ok((0..count)
            .map(|index| Feature { active: bit(index, 2), changeable: bit(index, 0) && !bit(index, 3) })
            .collect())
    }

    /// Runs a command. `arguments` follow the command word in `buffer`, which
    /// must be as long as the command with these arguments reads and writes.
    fn call(&self, command: u32, arguments: &[u32], buffer: &mut [u32]) -> Result<()> {
        for (to, from) in buffer.iter_mut().zip([command].iter().chain(arguments)) {
            *to = *from;
        }
        // SAFETY: ifreq consists of integers, arrays and pointers, for which zero is a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(self.interface.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_data = buffer.as_mut_ptr().cast();
        // SAFETY: `request` lives through the call and points to `buffer`, whose
        // length is what the kernel derives from the command and the count in it.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
        if result < 0 {
            let error = std::io::Error::last_os_error();
            return Err(Error::kernel("ask for features of", self.interface, error));
        }
        Ok(())
    }
}
