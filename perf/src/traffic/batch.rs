//! Receiving many datagrams with one system call.

use std::io::{self, IoSliceMut};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg};

/// Datagrams taken with one system call.
pub const BATCH: usize = 64;

/// The datagrams received last, each in a slot of its own.
#[derive(Debug)]
pub(super) struct Batch {
    headers: MultiHeaders<()>,
    slots: Vec<u8>,
    slot_bytes: usize,
    lengths: [usize; BATCH],
    count: usize,
}

impl Batch {
    /// Room for [`BATCH`] datagrams of up to `slot_bytes` (at least 1); longer ones are cut.
    pub fn new(slot_bytes: usize) -> Self {
        Self {
            headers: MultiHeaders::preallocate(BATCH, None),
            slots: vec![0; BATCH * slot_bytes],
            slot_bytes,
            lengths: [0; BATCH],
            count: 0,
        }
    }

    /// Waits for a datagram, at most as long as the socket's own limit, and takes what is there
    /// with it. After an error the batch is empty.
    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<()> {
        self.count = 0;
        let mut rest = self.slots.chunks_exact_mut(self.slot_bytes);
        let mut vectors: [[IoSliceMut<'_>; 1]; BATCH] =
            std::array::from_fn(|_| [IoSliceMut::new(rest.next().unwrap_or_default())]);
        let flags = MsgFlags::MSG_WAITFORONE;
        let received = recvmmsg(socket.as_raw_fd(), &mut self.headers, &mut vectors, flags, None)?;
        for (length, message) in self.lengths.iter_mut().zip(received) {
            *length = message.bytes;
            self.count += 1;
        }
        Ok(())
    }

    /// The datagrams of the last call of [`Batch::receive`].
    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        let slots = self.slots.chunks_exact(self.slot_bytes);
        slots.zip(self.lengths).take(self.count).map(|(slot, length)| &slot[..length])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::Duration;

    #[test]
    fn datagrams_come_whole_in_order_and_too_long_ones_cut() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut batch = Batch::new(8);
        for datagram in [&b""[..], b"one", b"too long by far"] {
            socket.send_to(datagram, socket.local_addr().unwrap()).unwrap();
        }
        batch.receive(&socket).unwrap();
        assert!(batch.datagrams().eq([&b""[..], b"one", b"too long"]));
    }

    #[test]
    fn a_wait_in_vain_leaves_the_batch_empty() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        let mut batch = Batch::new(8);
        socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
        batch.receive(&socket).unwrap();
        assert_eq!(batch.receive(&socket).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(batch.datagrams().count(), 0);
    }
}
