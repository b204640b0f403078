//! Datagrams that reached a shard which does not own their lane.
//!
//! Each shard has an inbox of bounded size; whoever finds a datagram of its
//! lane copies it there unopened. The memory goes round: full buffers one way,
//! empty ones back.

use crossbeam_queue::ArrayQueue;
use std::net::SocketAddr;

/// Datagrams one inbox holds, at most.
pub const INBOX: usize = 256;
/// Size of a buffer before it had to grow, bytes.
const USUAL_SIZE: usize = 2048;

/// A datagram on its way to the owner of its lane.
#[derive(Debug)]
pub struct HandedOver {
    /// The datagram, as it came.
    pub datagram: Vec<u8>,
    /// Where it came from.
    pub source: SocketAddr,
}

/// Inbox of one shard.
#[derive(Debug)]
pub struct Inbox {
    full: ArrayQueue<HandedOver>,
    empty: ArrayQueue<Vec<u8>>,
}

impl Inbox {
    /// An inbox with all its buffers empty.
    #[must_use]
    pub fn new() -> Self {
        let empty = ArrayQueue::new(INBOX);
        while empty.push(Vec::new()).is_ok() {}
        Self { full: ArrayQueue::new(INBOX), empty }
    }

    /// Copies a datagram into the inbox; false if it is full.
    #[must_use]
    pub fn put(&self, datagram: &[u8], source: SocketAddr) -> bool {
        let Some(mut buffer) = self.empty.pop() else { return false };
        buffer.clear();
        buffer.reserve(datagram.len().max(USUAL_SIZE));
        buffer.extend_from_slice(datagram);
        match self.full.push(HandedOver { datagram: buffer, source }) {
            Ok(()) => true,
            Err(refused) => {
                self.give_back(refused.datagram);
                false
            }
        }
    }

    /// Takes the oldest datagram.
    #[must_use]
    pub fn take(&self) -> Option<HandedOver> {
        self.full.pop()
    }

    /// Returns a buffer from [`take`](Self::take).
    pub fn give_back(&self, buffer: Vec<u8>) {
        // As many buffers as places: there is always room.
        let _ = self.empty.push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inbox_refuses_what_it_cannot_hold_and_its_buffers_come_back() {
        let inbox = Inbox::new();
        let source = SocketAddr::from(([192, 0, 2, 1], 6783));
        for _ in 0..3 {
            for number in 0..INBOX {
                assert!(inbox.put(&[number as u8; 40], source));
            }
            assert!(!inbox.put(&[0; 40], source));
            let mut number = 0;
            while let Some(handed) = inbox.take() {
                assert_eq!(handed.datagram, [number as u8; 40]);
                inbox.give_back(handed.datagram);
                number += 1;
            }
            assert_eq!(number, INBOX);
        }
    }
}
