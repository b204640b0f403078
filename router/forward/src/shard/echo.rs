//! Echoes: how long a frame takes to a peer and back, the way that frames of containers take.

use super::Shard;
use super::transmit::Bytes;
use crate::clock::boot_time;
use crate::command::Report;
use crate::counters::DropReason;
use std::io;
use std::time::Duration;
use weave_wire::inner::{ECHO_LEN, FrameKind};
use weave_wire::{InnerHeader, PeerName};

/// Echoes sent back, and answers to ours taken, a second and shard at most.
pub const ECHOES_PER_SECOND: u32 = 1000;

impl Shard {
    /// Asks `peer` for an echo of `len` bytes.
    #[cold]
    pub(super) fn ask_for_echo(&mut self, peer: PeerName, number: u64, len: u16) -> io::Result<()> {
        let mut body = self.tables.reassembly.take_spare();
        body.clear();
        body.extend_from_slice(&number.to_be_bytes());
        body.extend_from_slice(&nanoseconds(boot_time()).to_be_bytes());
        body.resize(usize::from(len).clamp(ECHO_LEN, self.tables.max_frame()), 0);
        let result = self.send_echo(peer, FrameKind::EchoRequest, &Bytes::Held(&body));
        self.tables.reassembly.give_back(body);
        result
    }

    /// Answers an echo of a peer, or takes note of the answer to one of ours, whose body lies
    /// at `from`.
    #[cold]
    pub(super) fn on_echo(&mut self, inner: InnerHeader, from: &Bytes<'_>) -> io::Result<()> {
        // One without a source is not let in.
        let Some(peer) = inner.source() else { return Ok(()) };
        if !self.echoes.admit(self.tables.now, ECHOES_PER_SECOND) {
            self.counters.dropped(DropReason::EchoLimit);
            return Ok(());
        }
        if inner.kind() == Some(FrameKind::EchoRequest) {
            self.counters.echoes_answered.add(1);
            return self.send_echo(peer, FrameKind::EchoReply, from);
        }
        let Some((number, rest)) = self.bytes(from).split_first_chunk() else { return Ok(()) };
        let Some((sent, _)) = rest.split_first_chunk() else { return Ok(()) };
        let round_trip = boot_time().saturating_sub(Duration::from_nanos(u64::from_be_bytes(*sent)));
        let report = Report::EchoSeen { peer, number: u64::from_be_bytes(*number), round_trip };
        self.tables.reports.push(report);
        Ok(())
    }

    fn send_echo(&mut self, peer: PeerName, kind: FrameKind, body: &Bytes<'_>) -> io::Result<()> {
        let inner = InnerHeader::echo(self.tables.own_name(), peer, kind);
        let result = match self.tables.next(peer) {
            Some(link) => self.put_whole(link, &inner, body)?,
            None => Err(DropReason::NoRoute),
        };
        if let Err(reason) = result {
            self.counters.dropped(reason);
        }
        Ok(())
    }
}

/// A time as an echo carries it: nobody but who sent it reads it.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
