//! The DNS of a host, asked by the containers of a world.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use crate::World;
use crate::world::v4;

/// Time for one answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Where the DNS of a host is asked on the network of the containers.
#[must_use]
pub fn address(host: usize) -> SocketAddr {
    let [a, b, c, _] = v4(0).octets();
    SocketAddr::new(Ipv4Addr::new(a, b, c, 200 + u8::try_from(host).unwrap()).into(), 53)
}

/// Starts the DNS of a host.
#[track_caller]
pub fn launch(world: &World, host: usize) {
    world.weave(host, &["launch-dns", &format!("{}/24", address(host).ip())]).ok();
}

/// Who asks; made in the namespace of a container.
#[derive(Debug)]
pub struct Asker(UdpSocket);

impl Asker {
    /// One that asks the DNS of a host.
    #[must_use]
    pub fn of(host: usize) -> Self {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(ANSWER_WITHIN)).unwrap();
        socket.connect(address(host)).unwrap();
        Self(socket)
    }

    /// Whether a name is answered with any address.
    #[must_use]
    #[track_caller]
    pub fn finds(&self, name: &str) -> bool {
        self.0.send(&question(name)).unwrap();
        let mut answer = [0; 512];
        let len = self.0.recv(&mut answer).unwrap_or_else(|error| panic!("no answer for {name}: {error}"));
        assert!(len > 12 && answer[1] == 7, "{:?}", &answer[..len]);
        u16::from_be_bytes([answer[6], answer[7]]) > 0
    }
}

/// A question for IPv4 addresses (RFC 1035, 4.1).
fn question(name: &str) -> Vec<u8> {
    let mut message = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}
