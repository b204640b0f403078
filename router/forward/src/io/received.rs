//! Reading a completed receive: source, control messages, datagrams.

use super::address;
use io_uring::types::RecvMsgOut;
use std::net::SocketAddr;
use std::ops::Range;

/// Room for control messages, bytes: two of a 4-byte value.
pub const CONTROL_LEN: usize = 64;
/// Room in front of the datagrams of a receive buffer, bytes.
pub const RECEIVE_OVERHEAD: usize = 16 + address::RAW_ADDRESS_LEN + CONTROL_LEN;

/// `UDP_GRO` of `linux/udp.h`: the segment size of what was merged.
const UDP_GRO: i32 = 104;

/// One completed receive.
#[derive(Debug, Clone)]
pub struct Received {
    /// Where the datagrams came from.
    pub source: SocketAddr,
    /// All datagrams, one behind the other, within the buffer.
    pub payload: Range<usize>,
    /// Length of each but the last, bytes.
    pub segment: usize,
    /// True if the last one did not fit.
    pub truncated: bool,
    /// Datagrams the socket has dropped since it was opened, if it says.
    pub dropped: Option<u32>,
}

impl Received {
    /// Reads `buffer` as the kernel filled it for a receive with `header`;
    /// `None` if it holds no message.
    #[must_use]
    pub fn parse(buffer: &[u8], header: &libc::msghdr) -> Option<Self> {
        let message = RecvMsgOut::parse(buffer, header).ok()?;
        let payload = message.payload_data();
        let start = (payload.as_ptr() as usize).checked_sub(buffer.as_ptr() as usize)?;
        let mut received = Self {
            source: address::parse(message.name_data())?,
            payload: start..start + payload.len(),
            segment: payload.len(),
            truncated: message.is_payload_truncated(),
            dropped: None,
        };
        received.read_control(message.control_data());
        Some(received)
    }

    /// Walks the control messages (`cmsg(3)`): a header of 16 bytes (length,
    /// level, type), the value, padding to 8 bytes.
    fn read_control(&mut self, mut control: &[u8]) {
        while let Some((head, value)) = control.split_at_checked(16) {
            let Some(&length) = head.first_chunk::<8>() else { return };
            let length = usize::from_ne_bytes(length);
            let field = |at: usize| {
                head.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, i32::from_ne_bytes)
            };
            let value = value.first_chunk::<4>().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
            match (field(8), field(12)) {
                (libc::SOL_UDP, UDP_GRO) => {
                    if let Ok(size @ 1..) = usize::try_from(value) {
                        self.segment = size;
                    }
                }
                (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => self.dropped = Some(value.cast_unsigned()),
                _ => {}
            }
            let Some(rest) = control.get(length.next_multiple_of(8).max(16)..) else { return };
            control = rest;
        }
    }

    /// The place of each datagram.
    pub fn datagrams(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let end = self.payload.end;
        let segment = self.segment.max(1);
        self.payload.clone().step_by(segment).map(move |start| start..(start + segment).min(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_control_bytes_are_read_without_panic(control in prop::collection::vec(any::<u8>(), 0..80), len in 0usize..5000) {
            let mut received = Received {
                source: ([192, 0, 2, 1], 1).into(),
                payload: 100..100 + len,
                segment: len,
                truncated: false,
                dropped: None,
            };
            received.read_control(&control);
            let mut covered = 100;
            for range in received.datagrams() {
                prop_assert_eq!(range.start, covered);
                covered = range.end;
            }
            prop_assert_eq!(covered, 100 + len);
        }
    }
}
