//! ICMP echo with as many bytes as a test wants, so that it is sent in fragments.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect, socket,
};
use std::os::fd::IntoRawFd;

use crate::checksums::sum;

/// ICMP header of an echo, bytes.
const HEADER: usize = 8;

/// Sends one echo request with `payload` to `address` and waits for its answer; from the
/// namespace of the calling thread.
///
/// # Panics
/// When none comes within `limit`, or it holds something else.
#[track_caller]
pub fn echo(address: IpAddr, payload: &[u8], limit: Duration) {
    let (family, protocol, request, reply) = match address {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, 8, 0),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, 128, 129),
    };
    let fd = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).unwrap();
    let any: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
    bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(any, 0))).unwrap();
    connect(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(address, 0))).unwrap();
    // SAFETY: `fd` was a descriptor of ours alone, and now belongs to the file.
    let mut file = unsafe { std::fs::File::from_raw_fd(fd.into_raw_fd()) };
    let identifier = (std::process::id() as u16).to_be_bytes();
    let mut message = vec![request, 0, 0, 0, identifier[0], identifier[1], 0, payload.len() as u8];
    message.extend_from_slice(payload);
    if address.is_ipv4() {
        // For ICMPv6 the kernel does it: it covers the addresses.
        let checksum = !sum(&[&message]);
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    file.write_all(&message).unwrap();
    let deadline = Instant::now() + limit;
    let mut heard = vec![0; 65_536];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "no echo of {} bytes from {address} within {limit:?}", payload.len());
        let wait = nix::poll::PollTimeout::try_from(left + Duration::from_millis(1)).unwrap();
        let mut ready =
            [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&file), nix::poll::PollFlags::POLLIN)];
        if nix::poll::poll(&mut ready, wait).unwrap() == 0 {
            continue;
        }
        let length = match file.read(&mut heard) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => panic!("echo from {address}: {error}"),
        };
        // A raw IPv4 socket gives the IP header too.
        let skip = if address.is_ipv4() { usize::from(heard[0] & 15) * 4 } else { 0 };
        let answer = &heard[skip..length];
        if answer.len() >= HEADER && answer[0] == reply && answer[4..8] == message[4..8] {
            assert!(answer[HEADER..] == *payload, "the echo from {address} holds something else");
            return;
        }
    }
}
