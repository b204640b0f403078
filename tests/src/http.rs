//! A small client of the router's HTTP, on any host of a world.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, socket};

use super::World;

/// Where a router listens unless told otherwise.
pub const STATUS_ADDR: &str = "127.0.0.1:6782";
/// Time an answer may take.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The code of its first line.
    pub code: u16,
    /// Its headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// What follows them.
    pub body: String,
}

impl Answer {
    /// Takes the bytes of an answer apart.
    #[track_caller]
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let mut lines = head.lines();
        let code = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap().parse().unwrap();
        let header = |line: &str| line.split_once(": ").map(|(n, v)| (n.to_lowercase(), v.to_owned()));
        Self { code, headers: lines.filter_map(header).collect(), body: body.to_owned() }
    }
}

/// Connects to the router's HTTP; to be called inside its host.
#[track_caller]
#[must_use]
pub fn connect() -> TcpStream {
    connect_to(STATUS_ADDR)
}

/// The same from this address of the host.
#[track_caller]
#[must_use]
pub fn connect_from(source: Ipv4Addr) -> TcpStream {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let source = SockaddrIn::from(SocketAddrV4::new(source, 0));
    bind(socket.as_raw_fd(), &source).unwrap();
    let router: SocketAddrV4 = STATUS_ADDR.parse().unwrap();
    nix::sys::socket::connect(socket.as_raw_fd(), &SockaddrIn::from(router)).unwrap();
    TcpStream::from(socket)
}

#[track_caller]
fn connect_to(address: &str) -> TcpStream {
    let address: SocketAddr = address.parse().unwrap();
    let stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN).unwrap();
    stream.set_read_timeout(Some(ANSWER_WITHIN)).unwrap();
    stream.set_write_timeout(Some(ANSWER_WITHIN)).unwrap();
    stream
}

/// Sends `request` to the router and reads until the end; to be called inside the host.
#[track_caller]
#[must_use]
pub fn ask(request: &str) -> Answer {
    ask_at(STATUS_ADDR, request)
}

/// The same of any server.
#[track_caller]
#[must_use]
pub fn ask_at(address: &str, request: &str) -> Answer {
    let mut stream = connect_to(address);
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    Answer::parse(&bytes)
}

impl World {
    /// GETs `path` from the router of host `index`.
    #[track_caller]
    pub fn get(&self, index: usize, path: &str) -> Answer {
        self.on_host(index, || {
            ask(&format!("GET {path} HTTP/1.1\r\nHost: {STATUS_ADDR}\r\nConnection: close\r\n\r\n"))
        })
    }
}
