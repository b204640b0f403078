//! The tap: where the router takes frames from the bridge and puts them in.
//!
//! The device outlives the router (it is persistent), so that local traffic
//! and addresses stay when the router stops; a new router takes its queues up
//! again. Each queue is a descriptor for one forwarding shard. A frame on it
//! is preceded by a virtio-net header of [`VNET_HDR_LEN`] bytes in the host's
//! byte order.

use std::fmt;
use std::fs::OpenOptions;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use crate::bridge::{BRIDGE, describe, random_mac};
use crate::error::{Error, Result};
use crate::mtu::check_mtu;
use crate::netlink::{INTERFACE_NAME_MAX, Link, LinkWatch, Netlink};
use crate::protect::protect;
use crate::sys;

/// Name of the tap.
pub const TAP: &str = "weave-tap";

/// Length of the virtio-net header before each frame, bytes.
pub const VNET_HDR_LEN: usize = 10;

/// Most queues of one tap: one for each forwarding shard.
pub const QUEUES_MAX: usize = 64;

/// Frames that wait in each queue while its shard is busy. A frame may be a
/// super-frame of 64 KiB. The kernel's default for a tap (500) is a burst of
/// small frames that a shard misses when it is off its core for a
/// millisecond; the usual length of an Ethernet device bridges two.
pub const TX_QUEUE_LEN: u32 = 1000;

/// How long a router that was killed may hold its queues: the kernel closes
/// the descriptors of a ring after the process has gone.
const RELEASE_LIMIT: Duration = Duration::from_secs(3);

const DEVICE: &str = "/dev/net/tun";

/// What the router is willing to take from, and give to, the tap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offloads {
    /// TCP super-frames.
    pub tso: bool,
    /// UDP super-frames (Linux 6.2 and later).
    pub uso: bool,
}

impl Default for Offloads {
    fn default() -> Self {
        Self { tso: true, uso: true }
    }
}

/// What the tap does for the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapFeatures {
    /// Frames come without finished checksums and may be given so.
    pub checksum: bool,
    /// TCP super-frames, IPv4 and IPv6.
    pub tso: bool,
    /// UDP super-frames, IPv4 and IPv6.
    pub uso: bool,
}

impl fmt::Display for TapFeatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [("csum", self.checksum), ("tso", self.tso), ("uso", self.uso)];
        let on: Vec<&str> = names.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
        f.write_str(&on.join(","))
    }
}

impl TapFeatures {
    /// The `TUN_F_*` mask. TSO_ECN is left out: the kernel then cuts the rare
    /// super-frame that carries a congestion signal itself, and we need not
    /// reproduce on which of its segments the signal goes.
    fn mask(self) -> libc::c_uint {
        let mut mask = 0;
        if self.checksum {
            mask |= libc::TUN_F_CSUM;
        }
        if self.tso {
            mask |= libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
        }
        if self.uso {
            mask |= libc::TUN_F_USO4 | libc::TUN_F_USO6;
        }
        mask
    }
}

/// The open queues of a tap.
#[derive(Debug)]
pub struct TapQueues {
    /// One descriptor for each queue, non-blocking.
    pub fds: Vec<OwnedFd>,
    /// What the kernel granted.
    pub features: TapFeatures,
    /// The interface, in the bridge and up.
    pub link: Link,
}

/// Opens `count` queues of the tap `name`, making it if it is not there, and
/// puts it into the bridge, protected, with this MTU (bytes), up.
///
/// # Errors
/// [`Error::TapBusy`] when another router holds queues of it,
/// [`Error::NameTaken`] when an interface of that name is no tap, otherwise
/// what the kernel refuses. A tap that was made for this call is removed again.
pub fn open_queues(
    netlink: &mut Netlink,
    name: &str,
    count: usize,
    mtu: u32,
    offloads: Offloads,
) -> Result<TapQueues> {
    check_mtu(mtu)?;
    if name.is_empty() || name.len() > INTERFACE_NAME_MAX {
        return Err(Error::invalid(name, "not the name of an interface: 1 to 15 bytes"));
    }
    if !(1..=QUEUES_MAX).contains(&count) {
        return Err(Error::invalid(
            format!("{count} queues"),
            format!("out of range: give 1 to {QUEUES_MAX}"),
        ));
    }
    let bridge = netlink.expect_link(BRIDGE)?;
    let before = await_released(netlink, name)?;
    if let Some(link) = &before {
        // Nothing may arrive while the offload mask changes hands.
        netlink.set_down(link)?;
    }
    let opened = open(name, count, before.is_none(), offloads)
        .and_then(|(fds, features)| Ok((fds, features, finish(netlink, name, count, mtu, &bridge)?)));
    match opened {
        Ok((fds, features, link)) => Ok(TapQueues { fds, features, link }),
        Err(error) if before.is_none() => Err(error.after_undo(remove(netlink, name))),
        Err(error) => Err(error),
    }
}

/// Makes a tap again that was deleted, of queues that were those of the one before and belong to
/// nothing now; whether any did. Queues that are of the tap `name` stay so.
///
/// # Errors
/// [`Error::Invalid`] for a descriptor that is no queue or one of another device, and for an MTU out of
/// range; otherwise what the kernel refuses. A queue that was given to the tap stays with it: what
/// was refused is tried again.
pub fn restore_queues(
    netlink: &mut Netlink,
    name: &str,
    queues: &[OwnedFd],
    mtu: u32,
    offloads: Offloads,
) -> Result<bool> {
    check_mtu(mtu)?;
    let Some(first) = queues.first() else {
        return Err(Error::invalid("0 queues", format!("give 1 to {QUEUES_MAX}")));
    };
    let bridge = netlink.expect_link(BRIDGE)?;
    let mut was_gone = false;
    for queue in queues {
        match device_of(queue.as_fd()) {
            Ok(device) if device == name => {}
            Ok(device) => {
                return Err(Error::invalid("a descriptor", format!("it is a queue of {device}, not {name}")));
            }
            Err(nix::errno::Errno::EBADFD) => {
                give_to(queue.as_fd(), name)?;
                was_gone = true;
            }
            Err(error) => return Err(Error::invalid("a descriptor", format!("it is no queue: {error}"))),
        }
    }
    let link = netlink.expect_link(name)?;
    if was_gone && !link.up {
        // One that the kernel chose is replaced by some service managers.
        netlink.set_mac(&link, random_mac()?)?;
    }
    persist(first.as_fd(), name)?;
    set_header_length(first.as_fd(), name)?;
    set_offloads(first.as_fd(), name, offloads)?;
    finish(netlink, name, queues.len(), mtu, &bridge)?;
    Ok(was_gone)
}

/// Name of the device that a queue belongs to; `EBADFD`: none.
fn device_of(queue: BorrowedFd<'_>) -> nix::Result<String> {
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: TUNGETIFF writes one ifreq through the pointer, which is to one of ours; any other
    // driver refuses the number, and the descriptor is open.
    unsafe { sys::tun_get_iff(queue.as_raw_fd(), &raw mut request)? };
    let name = request.ifr_name.iter().take_while(|byte| **byte != 0).map(|byte| byte.cast_unsigned());
    Ok(String::from_utf8_lossy(&name.collect::<Vec<_>>()).into_owned())
}

/// Makes a queue that belongs to nothing one of the tap `name`, as [`open`] does with new ones.
fn give_to(queue: BorrowedFd<'_>, name: &str) -> Result<()> {
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One byte stays zero: the name ends there.
    for (place, byte) in request.ifr_name.iter_mut().take(INTERFACE_NAME_MAX).zip(name.bytes()) {
        *place = byte.cast_signed();
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq through the pointer, which is to one of ours, and
    // the descriptor is open.
    unsafe { sys::tun_set_iff(queue.as_raw_fd(), &raw mut request) }
        .map(drop)
        .map_err(|error| open_error(name, error.into()))
}

fn persist(queue: BorrowedFd<'_>, name: &str) -> Result<()> {
    // SAFETY: TUNSETPERSIST takes its argument by value, and the descriptor is open.
    unsafe { sys::tun_set_persist(queue.as_raw_fd(), 1) }
        .map(drop)
        .map_err(|error| Error::kernel("make persistent", name, error))
}

/// Removes the tap; one that is not there is no error.
///
/// # Errors
/// When the name belongs to something that is no tap, or the kernel refuses.
pub fn remove(netlink: &mut Netlink, name: &str) -> Result<()> {
    match netlink.link(name)? {
        None => Ok(()),
        Some(link) if link.kind == "tun" => netlink.delete_link(&link),
        Some(link) => Err(Error::NameTaken { interface: link.name, found: describe(&link.kind) }),
    }
}

/// Queues of the tap that a router holds now; 0 when there is no tap.
///
/// # Errors
/// When the kernel refuses or does not answer.
pub fn queues_in_use(netlink: &mut Netlink, name: &str) -> Result<u32> {
    Ok(netlink.link(name)?.and_then(|link| link.tap_queues).unwrap_or(0))
}

/// The tap, once no router holds queues of it. A multi-queue tap lets a second
/// process add queues and would share the traffic out among both, so the
/// kernel's own EBUSY never comes.
fn await_released(netlink: &mut Netlink, name: &str) -> Result<Option<Link>> {
    let watch = LinkWatch::open()?;
    let deadline = Instant::now() + RELEASE_LIMIT;
    loop {
        let Some(link) = netlink.link(name)? else { return Ok(None) };
        if link.kind != "tun" {
            return Err(Error::NameTaken { interface: link.name, found: describe(&link.kind) });
        }
        let queues = link.tap_queues.unwrap_or(0);
        if queues == 0 {
            return Ok(Some(link));
        }
        // The last queue that goes takes the carrier away, and that is news.
        if !watch.wait(deadline)? {
            return Err(Error::TapBusy { interface: link.name, queues });
        }
    }
}

fn open(name: &str, count: usize, is_new: bool, offloads: Offloads) -> Result<(Vec<OwnedFd>, TapFeatures)> {
    let mut builder = DeviceBuilder::new().name(name).layer(Layer::L2).enable(false).with(|builder| {
        // Multi-queue also for one queue: the device can only be opened again
        // the way it was made, and the number of shards may grow.
        builder.offload(true).multi_queue(true);
    });
    if is_new {
        let mac = random_mac()?;
        builder = builder.mac_addr(mac.0);
    }
    let first = builder.build_sync().map_err(|error| open_error(name, error))?;
    first.persist().map_err(|error| Error::kernel("make persistent", name, error))?;
    let mut devices = Vec::with_capacity(count);
    for _ in 1..count {
        devices.push(first.try_clone().map_err(|error| open_error(name, error))?);
    }
    devices.insert(0, first);
    let mut fds = Vec::with_capacity(count);
    for device in devices {
        fds.push(into_fd(device, name)?);
    }
    // Both are properties of the device, not of a queue, and survive their
    // owner: whatever an earlier one left is replaced.
    let mut features = TapFeatures { checksum: false, tso: false, uso: false };
    if let Some(fd) = fds.first() {
        set_header_length(fd.as_fd(), name)?;
        features = set_offloads(fd.as_fd(), name, offloads)?;
    }
    Ok((fds, features))
}

fn into_fd(device: SyncDevice, name: &str) -> Result<OwnedFd> {
    device.set_nonblocking(true).map_err(|error| Error::kernel("make non-blocking", name, error))?;
    // SAFETY: `into_raw_fd` gives up the device's ownership of the descriptor, which is open.
    Ok(unsafe { OwnedFd::from_raw_fd(device.into_raw_fd()) })
}

fn set_header_length(tap: BorrowedFd<'_>, name: &str) -> Result<()> {
    let wanted = VNET_HDR_LEN as libc::c_int;
    let mut actual: libc::c_int = 0;
    // SAFETY: TUNSETVNETHDRSZ reads one int through the pointer, TUNGETVNETHDRSZ
    // writes one; both point to ints of ours, and the descriptor is open.
    unsafe {
        sys::tun_set_vnet_hdr_len(tap.as_raw_fd(), &raw const wanted)
            .and_then(|_| sys::tun_get_vnet_hdr_len(tap.as_raw_fd(), &raw mut actual))
    }
    .map_err(|error| Error::kernel("set the header length of", name, error))?;
    if actual == wanted {
        Ok(())
    } else {
        Err(Error::invalid(
            format!("tap {name}"),
            format!("its virtio-net header stays at {actual} bytes, {wanted} are needed"),
        ))
    }
}

fn set_offloads(tap: BorrowedFd<'_>, name: &str, offloads: Offloads) -> Result<TapFeatures> {
    let set = |features: TapFeatures| {
        // SAFETY: TUNSETOFFLOAD takes its argument by value, and the descriptor is open.
        unsafe { sys::tun_set_offload(tap.as_raw_fd(), u64::from(features.mask())) }
    };
    // The kernel takes super-frames only with the checksum left to us.
    let wanted = TapFeatures { checksum: true, tso: offloads.tso, uso: offloads.uso };
    let without_uso = TapFeatures { uso: false, ..wanted };
    match set(wanted) {
        Ok(_) => Ok(wanted),
        // EINVAL: a bit the kernel does not know; USO came with 6.2.
        Err(nix::errno::Errno::EINVAL) if wanted.uso => set(without_uso)
            .map(|_| without_uso)
            .map_err(|error| Error::kernel("set the offloads of", name, error)),
        Err(error) => Err(Error::kernel("set the offloads of", name, error)),
    }
}

fn finish(netlink: &mut Netlink, name: &str, count: usize, mtu: u32, bridge: &Link) -> Result<Link> {
    let link = netlink.expect_link(name)?;
    protect(name)?;
    if link.mtu != mtu {
        netlink.set_mtu(&link, mtu)?;
    }
    if link.tx_queue_len != TX_QUEUE_LEN {
        netlink.set_tx_queue_len(&link, TX_QUEUE_LEN)?;
    }
    if link.controller != Some(bridge.index) {
        netlink.set_controller(&link, bridge.index)?;
    }
    netlink.set_up(&link)?;
    let link = netlink.expect_link(name)?;
    // Two routers started at once have both found no queue in use.
    match link.tap_queues {
        Some(queues) if queues as usize > count => {
            Err(Error::TapBusy { interface: link.name, queues: queues - count as u32 })
        }
        Some(_) | None => Ok(link),
    }
}

fn open_error(name: &str, error: std::io::Error) -> Error {
    let missing = |what, remedy: &str| Error::Missing {
        step: "open",
        object: format!("{DEVICE} {what}"),
        remedy: remedy.to_owned(),
    };
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
            missing("is missing", "load the module (`modprobe tun`); Docker: --device /dev/net/tun")
        }
        // A node alone does not do in a container.
        Some(libc::EPERM | libc::EACCES)
            if OpenOptions::new().read(true).write(true).open(DEVICE).is_err() =>
        {
            missing("may not be opened", "run as root of the host; Docker: --device /dev/net/tun")
        }
        // What an existing device was made with cannot be changed.
        Some(libc::EINVAL) => {
            Error::NameTaken { interface: name.to_owned(), found: "a tap of another kind".to_owned() }
        }
        _ => Error::kernel("open tap", name, error),
    }
}
