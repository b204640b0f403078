//! Traffic between the containers of a world that is compared byte for byte.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recv, sendto, setsockopt,
    socket, sockopt,
};
use weave_host::Namespace;

use crate::World;
use crate::checksums::sum;
use crate::flow::unspecified;
use crate::world::{Spot, addresses};

/// Time for anything here to arrive on a busy machine.
pub const WITHIN: Duration = Duration::from_secs(15);
/// Most datagrams of one send: 128 since Linux 6.9, 64 before (`UDP_MAX_SEGMENTS`).
const BATCH_MAX: usize = 128;
const BATCH_MAX_OLD: usize = 64;
/// Most payload of one send, bytes.
const SEND_MAX: usize = 65_000;
/// Receive buffer for datagrams, bytes: nothing may be lost at the receiving socket.
const BUFFER: usize = 8 << 20;

/// `length` bytes that repeat nowhere near; another `seed`, other bytes.
#[must_use]
pub fn pattern(length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut bytes = Vec::with_capacity(length + 4);
    while bytes.len() < length {
        // xorshift32 (Marsaglia).
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Runs `work` on a thread inside the container that has `address`.
fn inside<T: Send>(world: &World, address: IpAddr, work: impl FnOnce() -> T + Send) -> T {
    world.container_at(Spot::of(address)).run(work).unwrap()
}

/// Sends `length` bytes over one TCP connection from the container of host `from` to that which
/// has `address`, and as many back at the same time; compares both.
#[track_caller]
pub fn tcp(world: &World, from: usize, address: IpAddr, length: usize) {
    let listener = inside(world, address, || TcpListener::bind((address, 0)).unwrap());
    let target = listener.local_addr().unwrap();
    let stream = world.inside(from, || TcpStream::connect_timeout(&target, WITHIN)).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    let begin = Instant::now();
    let heard = thread::scope(|scope| {
        let ends =
            [(&stream, &accepted, 1), (&accepted, &stream, 2)].map(|(mut sender, mut receiver, seed)| {
                for stream in [sender, receiver] {
                    stream.set_read_timeout(Some(WITHIN)).unwrap();
                    stream.set_write_timeout(Some(WITHIN)).unwrap();
                }
                let sending = scope.spawn(move || {
                    sender.write_all(&pattern(length, seed)).and_then(|()| sender.shutdown(Shutdown::Write))
                });
                let receiving = scope.spawn(move || {
                    let mut heard = Vec::with_capacity(length);
                    receiver.read_to_end(&mut heard).map(|_| heard)
                });
                (sending, receiving)
            });
        ends.map(|(sending, receiving)| {
            sending.join().unwrap().unwrap_or_else(|error| panic!("sending to {address}: {error}"));
            receiving.join().unwrap().unwrap_or_else(|error| panic!("receiving at {address}: {error}"))
        })
    });
    for (heard, seed) in heard.iter().zip([1, 2]) {
        compare(heard, &pattern(length, seed), &format!("TCP with {address} after {:?}", begin.elapsed()));
    }
}

#[track_caller]
fn compare(heard: &[u8], sent: &[u8], what: &str) {
    if heard != sent {
        let at = heard.iter().zip(sent).position(|(heard, sent)| heard != sent);
        panic!("{what}: {} of {} bytes, the first wrong one at {at:?}", heard.len(), sent.len());
    }
}

/// Two sockets and the size of the datagrams that many of go out by one call (`UDP_SEGMENT`).
struct Segments {
    sender: UdpSocket,
    receiver: UdpSocket,
    size: usize,
    to: SocketAddr,
}

impl Segments {
    fn open(world: &World, from: usize, address: IpAddr, size: u16) -> Self {
        let receiver = inside(world, address, || UdpSocket::bind((address, 0)).unwrap());
        let to = receiver.local_addr().unwrap();
        setsockopt(&receiver, sockopt::RcvBufForce, &BUFFER).unwrap();
        receiver.set_read_timeout(Some(WITHIN)).unwrap();
        let sender = world.inside(from, || UdpSocket::bind(unspecified(address)).unwrap());
        setsockopt(&sender, sockopt::UdpGsoSegment, &i32::from(size)).unwrap();
        sender.connect(to).unwrap();
        Self { sender, receiver, size: usize::from(size), to }
    }

    /// Waits for a burst to arrive whole and in order.
    #[track_caller]
    fn receive(&self, sent: &[u8], burst: usize) {
        let mut heard = vec![0; 65_536];
        for (number, datagram) in sent.chunks(self.size).enumerate() {
            let what =
                format!("datagram {number} of burst {burst}, {} bytes each, to {}", self.size, self.to);
            let length = self.receiver.recv(&mut heard).unwrap_or_else(|error| panic!("{what}: {error}"));
            compare(&heard[..length], datagram, &what);
        }
    }
}

/// Sends datagrams of `segment` bytes, `count` of them by one call, the last of each call one byte
/// shorter; waits for each burst to arrive whole and in order.
#[track_caller]
pub fn udp_segments(world: &World, from: usize, address: IpAddr, segment: u16, count: usize, bursts: u32) {
    let segments = Segments::open(world, from, address, segment);
    for burst in 0..bursts {
        let sent = pattern(segments.size * count - 1, burst + 1);
        segments
            .sender
            .send(&sent)
            .unwrap_or_else(|error| panic!("{count} datagrams of {segment} bytes: {error}"));
        segments.receive(&sent, burst as usize);
    }
}

/// The same with as many datagrams by one call as the kernel takes, the last of each call of
/// another length each time.
#[track_caller]
pub fn udp_batches(world: &World, from: usize, address: IpAddr, segment: u16, batches: usize) {
    let segments = Segments::open(world, from, address, segment);
    let size = segments.size;
    let mut most = BATCH_MAX;
    for batch in 0..batches {
        let last = 1 + batch * 7 % size;
        let build = |most: usize| pattern(size * (most.min(SEND_MAX / size) - 1) + last, batch as u32 + 3);
        let mut sent = build(most);
        match segments.sender.send(&sent) {
            Err(error) if most == BATCH_MAX && error.raw_os_error() == Some(libc::EINVAL) => {
                most = BATCH_MAX_OLD;
                sent = build(most);
                segments.sender.send(&sent).unwrap();
            }
            other => assert_eq!(other.unwrap(), sent.len()),
        }
        segments.receive(&sent, batch);
    }
}

/// Sends one datagram of `length` bytes, which the kernel cuts into fragments where it must.
#[track_caller]
pub fn udp(world: &World, from: usize, address: IpAddr, length: usize) {
    let receiver = inside(world, address, || UdpSocket::bind((address, 0)).unwrap());
    receiver.set_read_timeout(Some(WITHIN)).unwrap();
    let sender = world.inside(from, || UdpSocket::bind(unspecified(address)).unwrap());
    let sent = pattern(length, length as u32);
    sender.send_to(&sent, receiver.local_addr().unwrap()).unwrap();
    let mut heard = vec![0; 65_536];
    let what = format!("a datagram of {length} bytes to {address}");
    let got = receiver.recv(&mut heard).unwrap_or_else(|error| panic!("{what}: {error}"));
    compare(&heard[..got], &sent, &what);
}

/// Sends an ICMP echo request with `length` bytes of payload and compares the answer.
#[track_caller]
pub fn ping(world: &World, from: usize, address: IpAddr, length: usize) {
    const IDENTIFIER: u16 = 0x5eed;
    let (family, protocol, request, reply) = match address {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, 8_u8, 0_u8),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, 128, 129),
    };
    let mut message = vec![request, 0, 0, 0];
    message.extend(IDENTIFIER.to_be_bytes());
    message.extend([0, 1]);
    message.extend(pattern(length, 7));
    if address.is_ipv4() {
        let checksum = !sum(&[&message]);
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    let raw = world.inside(from, || socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).unwrap());
    setsockopt(&raw, sockopt::ReceiveTimeout, &nix::sys::time::TimeVal::new(1, 0)).unwrap();
    let target = SockaddrStorage::from(SocketAddr::new(address, 0));
    sendto(raw.as_raw_fd(), &message, &target, MsgFlags::empty()).unwrap();
    let deadline = Instant::now() + WITHIN;
    let mut heard = vec![0; 65_536];
    while Instant::now() < deadline {
        let Ok(length) = recv(raw.as_raw_fd(), &mut heard, MsgFlags::empty()) else { continue };
        // A raw IPv4 socket also gives the header.
        let skip = if address.is_ipv4() { 20 } else { 0 };
        let answer = &heard[skip.min(length)..length];
        if answer.first() == Some(&reply) && answer.get(4..) == Some(&message[4..]) {
            return;
        }
    }
    panic!("no right answer to {length} bytes of ICMP echo from {address}");
}

/// Something of every kind between the first containers of all hosts, both ways, by IPv4 and IPv6: streams, single
/// and many datagrams, fragments, echoes.
#[track_caller]
pub fn everything(world: &World, stream: usize) {
    let hosts = world.indices();
    let ways = hosts.iter().flat_map(|from| hosts.iter().map(move |to| (*from, *to)));
    for (from, to) in ways.filter(|(from, to)| from != to) {
        for address in addresses(to) {
            world.wait_ping(from, address, WITHIN);
            tcp(world, from, address, stream);
            udp_segments(world, from, address, 1300, 40, 4);
            udp_segments(world, from, address, 65, 60, 4);
            for length in [1, 1000, 5000, 20_001] {
                udp(world, from, address, length);
            }
            for length in [56, 4001] {
                ping(world, from, address, length);
            }
        }
    }
}

/// Whether the kernel can make interfaces for VLANs.
#[must_use]
pub fn kernel_has_vlans() -> bool {
    let namespace = Namespace::create("a look at VLANs").unwrap();
    let line = ["link", "add", "link", "lo", "name", "v", "type", "vlan", "id", "1"];
    namespace.run(|| Command::new("ip").args(line).output().unwrap().status.success()).unwrap()
}
