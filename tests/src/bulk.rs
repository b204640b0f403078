//! Much traffic at once, compared byte for byte.
//!
//! Senders never get ahead of receivers by more than the receivers' buffers hold, so nothing here
//! may be lost on a sound network.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use crate::World;

/// Longest silence in the middle of a stream on a busy machine.
const SILENCE: Duration = Duration::from_secs(10);
/// Most datagrams of one send: 128 since Linux 6.9, 64 before (`UDP_MAX_SEGMENTS`).
const BATCH_MAX: usize = 128;
const BATCH_MAX_OLD: usize = 64;
/// Most payload of one send, bytes.
const SEND_MAX: usize = 65_000;
/// Receive buffer of a UDP receiver, bytes: holds a whole batch with the kernel's own share.
const BUFFER: usize = 4 << 20;

/// Bytes that differ by place, so that none can stand in for another.
fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift64 (Marsaglia, 2003)
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Sends `length` bytes over one TCP connection from the container of host `from` to `address` in
/// the other one, and as many others back at the same time.
///
/// # Panics
/// When a byte is wrong or missing, or nothing moves for 10 s.
#[track_caller]
pub fn tcp(world: &World, from: usize, address: IpAddr, length: usize) {
    let listener = world.inside(1 - from, || TcpListener::bind((address, 0)).unwrap());
    let target = listener.local_addr().unwrap();
    let stream = world.inside(from, || TcpStream::connect_timeout(&target, SILENCE)).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    std::thread::scope(|scope| {
        for (sender, receiver, seed) in [(&stream, &accepted, 1), (&accepted, &stream, 2)] {
            sender.set_write_timeout(Some(SILENCE)).unwrap();
            receiver.set_read_timeout(Some(SILENCE)).unwrap();
            let expected = pattern(seed, length);
            let sent = expected.clone();
            scope.spawn(move || {
                let mut sender = sender;
                sender.write_all(&sent).unwrap();
                sender.shutdown(Shutdown::Write).unwrap();
            });
            scope.spawn(move || {
                let mut heard = vec![0; length + 1];
                let mut filled = 0;
                loop {
                    let mut receiver = receiver;
                    match receiver.read(&mut heard[filled..]) {
                        Ok(0) => break,
                        Ok(read) => filled += read,
                        Err(error) => {
                            panic!("{filled} of {length} bytes arrived at {address}, then: {error}")
                        }
                    }
                }
                let differs = (0..filled.min(length)).find(|at| heard[*at] != expected[*at]);
                assert_eq!(
                    (differs, filled),
                    (None, length),
                    "place of the first wrong byte, length, {address}"
                );
            });
        }
    });
}

/// Sends `batches` super-datagrams (`UDP_SEGMENT`, as many datagrams of `size` bytes as the kernel
/// takes, the last one shorter) from the container of host `from` to `address` in the other one. Each batch
/// must be there whole before the next is sent.
///
/// # Panics
/// When a datagram is wrong, missing, doubled or out of order.
#[track_caller]
pub fn udp(world: &World, from: usize, address: IpAddr, size: u16, batches: usize) {
    let receiver = world.inside(1 - from, || UdpSocket::bind((address, 0)).unwrap());
    let target = receiver.local_addr().unwrap();
    setsockopt(&receiver, sockopt::RcvBufForce, &BUFFER).unwrap();
    receiver.set_read_timeout(Some(SILENCE)).unwrap();
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let sender = world.inside(from, || UdpSocket::bind((any, 0)).unwrap());
    sender.connect(target).unwrap();
    setsockopt(&sender, sockopt::UdpGsoSegment, &i32::from(size)).unwrap();
    let size = usize::from(size);
    let mut heard = vec![0; size + 1];
    let mut most = BATCH_MAX;
    for batch in 0..batches {
        let last = 1 + batch * 7 % size;
        let build = |most: usize| pattern(batch as u64 + 3, size * (most.min(SEND_MAX / size) - 1) + last);
        let mut sent = build(most);
        match sender.send(&sent) {
            Err(error) if most == BATCH_MAX && error.raw_os_error() == Some(libc::EINVAL) => {
                most = BATCH_MAX_OLD;
                sent = build(most);
                sender.send(&sent).unwrap();
            }
            other => assert_eq!(other.unwrap(), sent.len()),
        }
        for (place, expected) in sent.chunks(size).enumerate() {
            let length = receiver.recv(&mut heard).unwrap_or_else(|error| {
                panic!("datagram {place} of batch {batch} ({size} bytes each) to {address}: {error}")
            });
            assert!(
                heard[..length] == *expected,
                "datagram {place} of batch {batch} to {address}: {length} bytes, {} expected, or wrong ones",
                expected.len()
            );
        }
    }
}
