//! Sockets for whole frames of one interface (packet(7)), with what the kernel knows about each.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// `struct virtio_net_hdr` without the number of buffers.
const VNET_LEN: usize = 10;

/// `PACKET_VNET_HDR` of linux/if_packet.h.
const PACKET_VNET_HDR: libc::c_int = 15;
/// Longest frame: 64 KiB of IP, Ethernet and two tags, the offload header.
const FRAME_MAX: usize = 65_536 + 64;
/// Receive buffer asked for, bytes: a capture must lose nothing.
const BUFFER: libc::c_int = 64 << 20;

/// A frame and what is still to be done to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// From the Ethernet header on, tags included.
    pub bytes: Vec<u8>,
    /// The offload header; zero where nothing is left to do.
    pub offload: Offload,
    /// It was sent from here, not received.
    pub outgoing: bool,
}

/// The fields of a virtio-net header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offload {
    /// `VIRTIO_NET_HDR_F_NEEDS_CSUM` 1, `VIRTIO_NET_HDR_F_DATA_VALID` 2.
    pub flags: u8,
    /// 0: none, 1: TCP over IPv4, 4: TCP over IPv6, 5: UDP; 0x80 with ECN.
    pub gso_type: u8,
    /// Length of headers.
    pub hdr_len: u16,
    /// Payload of a segment.
    pub gso_size: u16,
    /// Where the sum begins.
    pub csum_start: u16,
    /// Where it goes, from there.
    pub csum_offset: u16,
}

impl Offload {
    /// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
    pub const NEEDS_CSUM: u8 = 1;

    fn bytes(self) -> [u8; VNET_LEN] {
        let mut bytes = [0; VNET_LEN];
        bytes[..2].copy_from_slice(&[self.flags, self.gso_type]);
        let words = [self.hdr_len, self.gso_size, self.csum_start, self.csum_offset];
        for (to, word) in bytes[2..].chunks_mut(2).zip(words) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    fn parse(bytes: &[u8; VNET_LEN]) -> Self {
        let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0],
            gso_type: bytes[1],
            hdr_len: word(2),
            gso_size: word(4),
            csum_start: word(6),
            csum_offset: word(8),
        }
    }
}

/// A raw socket on one interface.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    interface: String,
}

impl PacketSocket {
    /// Opens `interface` in the namespace of the calling thread, frames of every type. They
    /// come as the kernel has them: super-frames whole, checksums unfinished, and [`Offload`] says so.
    ///
    /// # Panics
    /// When there is no such interface.
    #[must_use]
    pub fn open(interface: &str) -> Self {
        Self::with_type(interface, libc::ETH_P_ALL as u16)
    }

    /// The same for one EtherType.
    ///
    /// # Panics
    /// When there is no such interface.
    #[must_use]
    pub fn with_type(interface: &str, ethertype: u16) -> Self {
        let index = nix::net::if_::if_nametoindex(interface)
            .unwrap_or_else(|error| panic!("no interface {interface} here: {error}"));
        // SAFETY: socket(2) takes integers only.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        assert!(fd >= 0, "a packet socket: {}", io::Error::last_os_error());
        // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let socket = Self { fd, interface: interface.to_owned() };
        socket.set(libc::SOL_PACKET, PACKET_VNET_HDR, 1);
        socket.set(libc::SOL_PACKET, libc::PACKET_AUXDATA, 1);
        socket.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER);
        // SAFETY: sockaddr_ll consists of integers and byte arrays, for which zero is a value.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = ethertype.to_be();
        address.sll_ifindex = index as i32;
        // SAFETY: the pointer and the length describe `address`, which lives through the call.
        let result = unsafe {
            libc::bind(
                socket.fd.as_raw_fd(),
                (&raw const address).cast(),
                mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        assert!(result == 0, "bind to {interface}: {}", io::Error::last_os_error());
        socket
    }

    fn set(&self, level: libc::c_int, option: libc::c_int, value: libc::c_int) {
        // SAFETY: the pointer and the length describe `value`, which lives through the call.
        let result = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                level,
                option,
                (&raw const value).cast(),
                mem::size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        assert!(result == 0, "option {option} of a packet socket: {}", io::Error::last_os_error());
    }

    /// Sends a frame as it is.
    ///
    /// # Errors
    /// What the kernel says: `EMSGSIZE` when the interface takes no frame of that length.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.send_offloaded(Offload::default(), frame)
    }

    /// Sends a frame of which the kernel or the interface has still something to do.
    ///
    /// # Errors
    /// What the kernel says: `EINVAL` when the offload fields do not fit the frame.
    pub fn send_offloaded(&self, offload: Offload, frame: &[u8]) -> io::Result<()> {
        let bytes = [&offload.bytes()[..], frame].concat();
        // SAFETY: the pointer and the length describe `bytes`, which lives through the call.
        let sent = unsafe { libc::send(self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The next frame, either direction; `None` when none came until `deadline`.
    ///
    /// # Panics
    /// When the interface fails.
    #[must_use]
    pub fn receive(&self, deadline: Instant) -> Option<Frame> {
        loop {
            if let Some(frame) = self.receive_now() {
                return Some(frame);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let timeout = PollTimeout::try_from(left + Duration::from_micros(999)).unwrap();
            let _ = poll(&mut [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)], timeout);
        }
    }

    /// The next frame that was received (not sent here) for which `wanted` is true.
    #[must_use]
    pub fn receive_where(&self, limit: Duration, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        let deadline = Instant::now() + limit;
        loop {
            let frame = self.receive(deadline)?;
            if !frame.outgoing && wanted(&frame) {
                return Some(frame);
            }
        }
    }

    fn receive_now(&self) -> Option<Frame> {
        let mut bytes = vec![0_u8; VNET_LEN + FRAME_MAX];
        let mut control = [0_u64; 16];
        // SAFETY: sockaddr_ll and msghdr consist of integers, arrays and pointers, for which zero is a value.
        let (mut address, mut message): (libc::sockaddr_ll, libc::msghdr) = unsafe { mem::zeroed() };
        let mut iovec = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        message.msg_name = (&raw mut address).cast();
        message.msg_namelen = mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        message.msg_iov = &raw mut iovec;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = mem::size_of_val(&control);
        // SAFETY: `message` points to buffers that live through the call, with their lengths.
        let read = unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
        if read < 0 {
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                // A namespace that is being removed takes its interfaces down.
                Some(libc::EAGAIN | libc::EINTR | libc::ENETDOWN) => return None,
                _ => panic!("frames of {}: {error}", self.interface),
            }
        }
        assert!(message.msg_flags & libc::MSG_TRUNC == 0, "a frame longer than any can be");
        bytes.truncate(read as usize);
        let mut bytes_of_frame = bytes.split_off(VNET_LEN);
        let mut offload = Offload::parse(bytes.first_chunk().unwrap());
        if let Some(tag) = tag(&message) {
            bytes_of_frame.splice(12..12, tag);
            if offload.flags & Offload::NEEDS_CSUM != 0 {
                offload.csum_start += 4;
            }
        }
        let outgoing = address.sll_pkttype == libc::PACKET_OUTGOING;
        Some(Frame { bytes: bytes_of_frame, offload, outgoing })
    }

    /// Frames that the kernel could not keep for this socket since the last call.
    #[must_use]
    pub fn lost(&self) -> u32 {
        let mut stats = [0_u32; 2];
        let mut length = mem::size_of_val(&stats) as libc::socklen_t;
        // SAFETY: the pointers describe `stats` and its length, which live through the call.
        let result = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                stats.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        assert!(result == 0, "statistics of a capture: {}", io::Error::last_os_error());
        stats[1]
    }
}

/// The VLAN tag that the kernel took out of the frame.
fn tag(message: &libc::msghdr) -> Option<[u8; 4]> {
    // SAFETY: the control buffer of `message` was filled by recvmsg and still lives.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: a header that CMSG_FIRSTHDR or CMSG_NXTHDR gave lies in the buffer.
        let (level, kind) = unsafe { ((*header).cmsg_level, (*header).cmsg_type) };
        if level == libc::SOL_PACKET && kind == libc::PACKET_AUXDATA {
            // SAFETY: the kernel puts a tpacket_auxdata behind a header of this type.
            let data: libc::tpacket_auxdata =
                unsafe { libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned() };
            if data.tp_status & libc::TP_STATUS_VLAN_VALID == 0 {
                return None;
            }
            let [t0, t1] = data.tp_vlan_tpid.to_be_bytes();
            let [c0, c1] = data.tp_vlan_tci.to_be_bytes();
            return Some([t0, t1, c0, c1]);
        }
        // SAFETY: as for the first.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    None
}

/// Keeps every frame of an interface from its start to [`Capture::finish`].
#[derive(Debug)]
pub struct Capture {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Frame>>,
}

impl Capture {
    /// Captures `interface` in the namespace of the calling thread. When this returns, nothing is
    /// missed any more.
    #[must_use]
    pub fn start(interface: &str) -> Self {
        let socket = PacketSocket::open(interface);
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            const LOOK: Duration = Duration::from_millis(20);
            let mut frames = Vec::new();
            loop {
                // Read before the socket is found empty, so that what came earlier is kept.
                let last = seen.load(Ordering::Acquire);
                while let Some(frame) =
                    socket.receive(if last { Instant::now() } else { Instant::now() + LOOK })
                {
                    frames.push(frame);
                    if !last && seen.load(Ordering::Acquire) {
                        break;
                    }
                }
                if last {
                    break;
                }
            }
            assert_eq!(socket.lost(), 0, "the capture of {} lost frames", socket.interface);
            frames
        });
        Self { over, thread }
    }

    /// Ends it: all frames that came so far.
    #[must_use]
    pub fn finish(self) -> Vec<Frame> {
        self.over.store(true, Ordering::Release);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
