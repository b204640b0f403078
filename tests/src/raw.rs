//! Frames of an interface as the kernel carries them, without a copy of each being kept.
//!
//! [`PacketSocket`](crate::PacketSocket) is for looking at frames; this is for passing many on: the
//! offload header in front of each goes through unread, so that a checksum the sender left open
//! stays open.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use weave_wire::MacAddr;

/// Length of the offload header in front of every frame (`struct virtio_net_hdr`).
pub const OFFLOAD: usize = 10;
/// `VIRTIO_NET_HDR_F_NEEDS_CSUM` in the first byte of it.
pub const NEEDS_CSUM: u8 = 1;
/// Room for any frame and its offload header.
pub const ROOM: usize = OFFLOAD + 65_536 + 18;
/// Kernel buffer asked for, bytes.
const BUFFER: libc::c_int = 16 << 20;
/// `PACKET_VNET_HDR` and `PACKET_IGNORE_OUTGOING` of `linux/if_packet.h`.
const PACKET_VNET_HDR: libc::c_int = 15;
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

/// A raw socket on one interface, which sees what arrives there only.
#[derive(Debug)]
pub struct RawSocket(OwnedFd);

impl RawSocket {
    /// Opens `interface` in the namespace of the calling thread.
    ///
    /// # Panics
    /// When there is no such interface.
    #[must_use]
    pub fn open(interface: &str) -> Self {
        Self::filtered(interface, None)
    }

    /// The same for frames to one station.
    ///
    /// # Panics
    /// When there is no such interface.
    #[must_use]
    pub fn open_for(interface: &str, destination: MacAddr) -> Self {
        Self::filtered(interface, Some(destination))
    }

    fn filtered(interface: &str, destination: Option<MacAddr>) -> Self {
        let index = nix::net::if_::if_nametoindex(interface)
            .unwrap_or_else(|error| panic!("no interface {interface} here: {error}"));
        // SAFETY: socket(2) takes integers only.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        assert!(fd >= 0, "a packet socket: {}", io::Error::last_os_error());
        // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
        let socket = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        for (level, option, value) in [
            (libc::SOL_PACKET, PACKET_VNET_HDR, 1),
            (libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1),
            (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER),
            (libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, BUFFER),
        ] {
            let length = mem::size_of::<libc::c_int>() as libc::socklen_t;
            // SAFETY: pointer and length describe `value`, which lives through the call.
            let result = unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), length) };
            assert!(result == 0, "option {option} of a packet socket: {}", io::Error::last_os_error());
        }
        if let Some(destination) = destination {
            socket.keep_only(destination);
        }
        // SAFETY: sockaddr_ll consists of integers and byte arrays, for which zero is a value.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = index as i32;
        let length = mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: pointer and length describe `address`, which lives through the call.
        let result = unsafe { libc::bind(fd, (&raw const address).cast(), length) };
        assert!(result == 0, "bind to {interface}: {}", io::Error::last_os_error());
        socket
    }

    /// Lets the kernel drop, uncounted, what goes to other stations (classic BPF).
    fn keep_only(&self, destination: MacAddr) {
        let [a, b, c, d, e, f] = destination.0;
        let step = |code: u32, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf, k };
        let (load, equal, end) = (libc::BPF_LD | libc::BPF_ABS, libc::BPF_JMP | libc::BPF_JEQ, libc::BPF_RET);
        let mut program = [
            step(load | libc::BPF_W, 0, 0),
            step(equal, 3, u32::from_be_bytes([a, b, c, d])),
            step(load | libc::BPF_H, 0, 4),
            step(equal, 1, u32::from_be_bytes([0, 0, e, f])),
            step(end, 0, u32::MAX),
            step(end, 0, 0),
        ];
        let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        let length = mem::size_of::<libc::sock_fprog>() as libc::socklen_t;
        // SAFETY: pointer and length describe `program`, which points to the steps; both live
        // through the call, which copies them.
        let result = unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const program).cast(),
                length,
            )
        };
        assert!(result == 0, "a filter on a packet socket: {}", io::Error::last_os_error());
    }

    /// The next frame behind its offload header, if one waits.
    pub fn receive<'a>(&self, room: &'a mut [u8]) -> Option<&'a mut [u8]> {
        // SAFETY: pointer and length describe `room`, which lives through the call.
        let read = unsafe {
            libc::recv(self.0.as_raw_fd(), room.as_mut_ptr().cast(), room.len(), libc::MSG_DONTWAIT)
        };
        let read = usize::try_from(read).ok().filter(|read| *read > OFFLOAD)?;
        room.get_mut(..read)
    }

    /// Sends a frame with its offload header; false if the kernel does not take it.
    pub fn send(&self, bytes: &[u8]) -> bool {
        // SAFETY: pointer and length describe `bytes`, which lives through the call.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        sent >= 0
    }

    /// Frames that the kernel could not keep for this socket since the last call.
    #[must_use]
    pub fn lost(&self) -> u32 {
        let mut stats = [0_u32; 2];
        let mut length = mem::size_of_val(&stats) as libc::socklen_t;
        // SAFETY: the pointers describe `stats` and its length, which live through the call.
        let result = unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                stats.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        assert!(result == 0, "statistics of a packet socket: {}", io::Error::last_os_error());
        stats[1]
    }
}

impl AsFd for RawSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Where the UDP header of an IPv4 frame behind its offload header is.
#[must_use]
pub fn udp_at(bytes: &[u8]) -> Option<usize> {
    let ip = OFFLOAD + 14;
    let is_udp = bytes.get(OFFLOAD + 12..ip)? == [8, 0] && *bytes.get(ip + 9)? == 17;
    let at = ip + usize::from(bytes.get(ip)? & 15) * 4;
    (is_udp && bytes.len() >= at + 8).then_some(at)
}
