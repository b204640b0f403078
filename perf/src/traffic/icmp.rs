//! ICMP echo (ping) for IPv4 (RFC 792) and IPv6 (RFC 4443).
//!
//! Uses a raw socket, which root of the network namespace may open, also root of a user namespace
//! only. Where that is refused it uses a ping socket (`SOCK_DGRAM`), which needs the caller's
//! group in `net.ipv4.ping_group_range`.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, connect, recv, send, socket,
};

use super::error::CHECK_PATH;
use super::ping::wait_readable;
use super::{Result, TrafficError};

/// Bytes of an echo message: header, sequence and padding, as `ping` sends by default.
const MESSAGE_BYTES: usize = 64;

/// Echo request and reply, IPv4 then IPv6.
const TYPES_V4: (u8, u8) = (8, 0);
const TYPES_V6: (u8, u8) = (128, 129);

/// What became of the requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Echoes {
    /// Requests without an answer.
    pub lost: u32,
    /// Round-trip times of the others, in the order of sending.
    pub round_trips: Vec<Duration>,
}

/// Sends `count` echo requests to `address`, waiting for the answer to each at most `interval`
/// and sending the next `interval` after the last; from the namespace of the calling thread.
///
/// The last answer is waited for at most `interval`, too, so that a call takes at most
/// `count * interval`.
///
/// # Errors
/// Neither kind of socket may be opened, or there is no route. A host that does not answer is no
/// error: its requests are counted as lost.
pub fn ping(address: IpAddr, count: u16, interval: Duration) -> Result<Echoes> {
    let echo = EchoSocket::open(address)
        .map_err(|e| TrafficError::new("open an ICMP socket to", address, e, OPEN_REMEDY))?;
    let start = Instant::now();
    let mut echoes = Echoes { lost: 0, round_trips: Vec::with_capacity(count.into()) };
    for sequence in 0..count {
        let sent_at = Instant::now();
        let until = interval * (u32::from(sequence) + 1);
        let answered = match echo.request(sequence) {
            Ok(()) => echo.wait_answer(sequence, start, until),
            Err(e) => Err(e),
        };
        match answered {
            Ok(true) => echoes.round_trips.push(sent_at.elapsed()),
            Ok(false) => echoes.lost += 1,
            Err(e) if is_unreachable(&e) => echoes.lost += 1,
            Err(e) => return Err(TrafficError::new("ping", address, e, CHECK_PATH)),
        }
        if sequence + 1 < count {
            let left = until.saturating_sub(start.elapsed());
            std::thread::sleep(left);
        }
    }
    Ok(echoes)
}

/// Pings `address` every 20 ms until it answers; false when it did not within `limit`.
///
/// # Errors
/// As [`ping`].
pub fn wait_reachable(address: IpAddr, limit: Duration) -> Result<bool> {
    const INTERVAL: Duration = Duration::from_millis(20);
    let start = Instant::now();
    while start.elapsed() < limit {
        // No route yet is one of the things waited for.
        match ping(address, 1, INTERVAL) {
            Ok(echoes) if echoes.lost == 0 => return Ok(true),
            Ok(_) => {}
            Err(e) if is_unreachable(e.cause()) => {}
            Err(e) => return Err(e),
        }
        std::thread::sleep(INTERVAL);
    }
    Ok(false)
}

const OPEN_REMEDY: &str = "run as root of the network namespace, or add your group to \
    net.ipv4.ping_group_range";

/// A raw or ping socket connected to one address.
#[derive(Debug)]
struct EchoSocket {
    descriptor: OwnedFd,
    /// Tells our answers from those to other raw sockets; the kernel sets its own on ping sockets.
    identifier: u16,
    is_v4: bool,
    is_raw: bool,
}

impl EchoSocket {
    fn open(address: IpAddr) -> io::Result<Self> {
        let (family, protocol) = match address {
            IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
            IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (descriptor, is_raw) = match socket(family, SockType::Raw, flags, protocol) {
            Ok(descriptor) => (descriptor, true),
            Err(Errno::EPERM | Errno::EACCES) => {
                (socket(family, SockType::Datagram, flags, protocol)?, false)
            }
            Err(e) => return Err(e.into()),
        };
        let peer = SockaddrStorage::from(SocketAddr::new(address, 0));
        connect(descriptor.as_raw_fd(), &peer)?;
        Ok(Self { descriptor, identifier: random_identifier(), is_v4: address.is_ipv4(), is_raw })
    }

    fn types(&self) -> (u8, u8) {
        if self.is_v4 { TYPES_V4 } else { TYPES_V6 }
    }

    fn request(&self, sequence: u16) -> io::Result<()> {
        let message = echo_request(self.types().0, self.identifier, sequence);
        send(self.descriptor.as_raw_fd(), &message, MsgFlags::empty())?;
        Ok(())
    }

    /// Waits for the answer until `until` after `start`; false when it did not come.
    fn wait_answer(&self, sequence: u16, start: Instant, until: Duration) -> io::Result<bool> {
        // A raw IPv4 socket delivers the IP header (at most 60 bytes) as well.
        let mut buffer = [0; 60 + MESSAGE_BYTES];
        while let Some(left) = until.checked_sub(start.elapsed()) {
            if !wait_readable(self.descriptor.as_fd(), left)? {
                continue;
            }
            match recv(self.descriptor.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) if self.is_answer(&buffer[..length], sequence) => return Ok(true),
                Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(false)
    }

    fn is_answer(&self, packet: &[u8], sequence: u16) -> bool {
        let message = if self.is_v4 && self.is_raw {
            packet.first().and_then(|b| packet.get(usize::from(b & 15) * 4..))
        } else {
            Some(packet)
        };
        let Some([kind, 0, _, _, i0, i1, s0, s1]) = message.and_then(<[u8]>::first_chunk) else {
            return false;
        };
        let ours = !self.is_raw || u16::from_be_bytes([*i0, *i1]) == self.identifier;
        *kind == self.types().1 && ours && u16::from_be_bytes([*s0, *s1]) == sequence
    }
}

/// An echo request with its checksum. (The kernel replaces the checksum of ICMPv6, whose pseudo
/// header needs the source address.)
fn echo_request(kind: u8, identifier: u16, sequence: u16) -> [u8; MESSAGE_BYTES] {
    let mut message = [0; MESSAGE_BYTES];
    message[0] = kind;
    message[4..6].copy_from_slice(&identifier.to_be_bytes());
    message[6..8].copy_from_slice(&sequence.to_be_bytes());
    let checksum = internet_checksum(&message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    message
}

/// The checksum of RFC 1071 over an even number of bytes.
fn internet_checksum(bytes: &[u8; MESSAGE_BYTES]) -> u16 {
    let words = bytes.as_chunks::<2>().0;
    let sum: u32 = words.iter().map(|w| u32::from(u16::from_be_bytes(*w))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

fn random_identifier() -> u16 {
    use std::hash::{BuildHasher, Hasher};
    let hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.finish() as u16
}

/// The path says that the host cannot be reached at the moment.
fn is_unreachable(e: &io::Error) -> bool {
    matches!(
        e.raw_os_error(),
        Some(
            libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::ECONNREFUSED
                | libc::EHOSTDOWN
                | libc::ENOBUFS
                | libc::EADDRNOTAVAIL
        )
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_request_has_a_checksum_that_sums_to_zero() {
        let message = echo_request(8, 0x1234, 7);
        assert_eq!(internet_checksum(&message), 0);
        assert_eq!(&message[..2], [8, 0]);
    }

    #[test]
    fn only_the_answer_to_this_request_counts() {
        let socket = EchoSocket {
            descriptor: std::fs::File::open("/dev/null").unwrap().into(),
            identifier: 0x1234,
            is_v4: true,
            is_raw: true,
        };
        let packet = |kind, identifier, sequence| {
            let mut packet = vec![0x45; 20];
            packet.extend(echo_request(kind, identifier, sequence));
            packet
        };
        assert!(socket.is_answer(&packet(0, 0x1234, 7), 7));
        assert!(!socket.is_answer(&packet(8, 0x1234, 7), 7), "a request");
        assert!(!socket.is_answer(&packet(0, 0x1235, 7), 7), "somebody else's");
        assert!(!socket.is_answer(&packet(0, 0x1234, 6), 7), "an earlier one");
        for length in 0..28 {
            assert!(!socket.is_answer(&packet(0, 0x1234, 7)[..length], 7), "cut at {length}");
        }
    }
}
