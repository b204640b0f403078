//! A netlink socket for rtnetlink that needs no executor and no reactor.
//!
//! The kernel answers a request before `send` returns, so there is nothing to
//! run in the background: the caller polls the connection and its request in
//! turn and sleeps in poll(2) between them ([`super::Netlink`]). No thread of
//! ours stays behind in a foreign namespace and keeps it alive.

use std::io;
use std::task::{Context, Poll};

use bytes::BufMut;
use netlink_sys::{AsyncSocket, Socket, SocketAddr};

/// Never blocks; what would block is `Pending`, and the owner waits on the descriptor.
pub(super) struct DirectSocket(pub(super) Socket);

fn poll<T>(mut operation: impl FnMut() -> io::Result<T>) -> Poll<io::Result<T>> {
    loop {
        match operation() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            result => return Poll::Ready(result),
        }
    }
}

impl AsyncSocket for DirectSocket {
    fn socket_ref(&self) -> &Socket {
        &self.0
    }

    fn socket_mut(&mut self) -> &mut Socket {
        &mut self.0
    }

    fn new(protocol: isize) -> io::Result<Self> {
        Socket::new(protocol).map(Self)
    }

    fn poll_send(&self, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        poll(|| self.0.send(buf, libc::MSG_DONTWAIT))
    }

    fn poll_send_to(&self, _: &mut Context<'_>, buf: &[u8], addr: &SocketAddr) -> Poll<io::Result<usize>> {
        poll(|| self.0.send_to(buf, addr, libc::MSG_DONTWAIT))
    }

    fn poll_recv<B: BufMut>(&self, _: &mut Context<'_>, buf: &mut B) -> Poll<io::Result<()>> {
        poll(|| self.0.recv(buf, libc::MSG_DONTWAIT).map(drop))
    }

    fn poll_recv_from<B: BufMut>(&self, _: &mut Context<'_>, buf: &mut B) -> Poll<io::Result<SocketAddr>> {
        poll(|| self.0.recv_from(buf, libc::MSG_DONTWAIT).map(|(_, address)| address))
    }

    fn poll_recv_from_full(&self, _: &mut Context<'_>) -> Poll<io::Result<(Vec<u8>, SocketAddr)>> {
        // The socket blocks by default, and `recv_from_full` takes no flags: peek first.
        poll(|| {
            let mut nothing: &mut [u8] = &mut [];
            self.0.recv_from(&mut nothing, libc::MSG_DONTWAIT | libc::MSG_PEEK)?;
            self.0.recv_from_full()
        })
    }
}
