//! From the underlay to the tap.

use super::transmit::Bytes;
use super::{ERRORS_IN_A_ROW, Shard};
use crate::command::Report;
use crate::counters::DropReason;
use crate::handover::INBOX;
use crate::io::deliveries::{Home, Write};
use crate::io::received::Received;
use crate::io::ring::Completion;
use crate::segment::join::{Checksum, Joined, Run};
use crate::tables::{Course, Frame, Opened};
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::Ordering;
use weave_wire::Lane;
use weave_wire::inner::ChecksumRequest;
use weave_wire::packet::{Protocol, Transport};
use weave_wire::vnet::VnetHeader;

/// A super-frame being put together, of datagrams in one or more receive buffers.
pub(super) struct Open {
    run: Run,
    write: Write,
    /// The first frame, in the buffer that the write begins in.
    first: Range<usize>,
    request: Option<ChecksumRequest>,
    /// The buffer of its last frame.
    last: u16,
    /// Buffers that are chained to the first.
    more: u16,
}

impl Shard {
    pub(super) fn on_receive(&mut self, completion: Completion) -> io::Result<()> {
        if !completion.more() {
            self.receive_armed = false;
        }
        let Some(buffer) = completion.buffer() else {
            return match -completion.result {
                libc::ENOBUFS => {
                    self.counters.buffers_exhausted.add(1);
                    Ok(())
                }
                errno => self.on_receive_error(errno),
            };
        };
        self.receive.take(buffer);
        self.deliveries.clear(buffer);
        let result = match usize::try_from(completion.result) {
            Ok(len) => {
                self.receive_errors = 0;
                self.deliver_all(buffer, len)
            }
            Err(_) => self.on_receive_error(-completion.result),
        };
        self.receive.release(buffer);
        result
    }

    /// An error of an unconnected socket is of one datagram; many without a
    /// datagram in between are of the socket.
    fn on_receive_error(&mut self, errno: i32) -> io::Result<()> {
        self.counters.dropped(DropReason::ReceiveError);
        self.receive_errors += 1;
        if self.receive_errors < ERRORS_IN_A_ROW {
            return Ok(());
        }
        let cause = io::Error::from_raw_os_error(errno);
        Err(io::Error::new(
            cause.kind(),
            format!("the UDP socket is broken (receiving: {cause}): launch the router again"),
        ))
    }

    fn deliver_all(&mut self, buffer: u16, len: usize) -> io::Result<()> {
        let Some(received) = Received::parse(self.receive.bytes(buffer, 0..len), self.ring.receive_header())
        else {
            self.counters.dropped(DropReason::Malformed);
            return Ok(());
        };
        self.counters.receives.add(1);
        self.note_socket_drops(received.dropped);
        let mut datagrams = received.datagrams().peekable();
        while let Some(range) = datagrams.next() {
            self.counters.datagrams_received.add(1);
            if received.truncated && datagrams.peek().is_none() {
                self.counters.dropped(DropReason::Truncated);
                break;
            }
            match self.tables.open(self.receive.bytes_mut(buffer, range.clone()), received.source) {
                Ok(Opened::Frame(Frame { place, inner, course })) => {
                    let place = range.start + place.start..range.start + place.end;
                    match course {
                        Course::Here if !inner.is_ethernet() => {
                            self.on_echo(inner, &Bytes::Received(buffer, place))?;
                            continue;
                        }
                        Course::Here => {}
                        Course::Relay(link) => {
                            self.relay(link, inner, &Bytes::Received(buffer, place))?;
                            continue;
                        }
                        Course::Everywhere(spread) => {
                            self.spread_later(buffer, spread, place.clone(), inner)?;
                        }
                    }
                    self.deliver(buffer, place, inner.checksum())?;
                }
                Ok(Opened::Reassembled(bytes, frame)) => {
                    self.finish_in(buffer)?;
                    self.take_reassembled(bytes, frame)?;
                }
                Ok(Opened::Fragment) => self.counters.fragments_received.add(1),
                Ok(Opened::KeepAlive) => {}
                Ok(Opened::Foreign(lane)) => self.hand_over(buffer, range, lane, received.source),
                Err(reason) => self.counters.dropped(reason),
            }
        }
        self.spread_pending(buffer)
    }

    fn note_socket_drops(&mut self, dropped: Option<u32>) {
        let Some(total) = dropped else { return };
        let new = total.wrapping_sub(self.socket_drops);
        if new > 0 {
            self.counters.dropped_many(DropReason::SocketFull, new.into());
            self.socket_drops = total;
        }
    }

    /// Joins a frame to the open super-frame, or begins another.
    #[inline]
    fn deliver(
        &mut self,
        buffer: u16,
        frame: Range<usize>,
        request: Option<ChecksumRequest>,
    ) -> io::Result<()> {
        let state = if request.is_some() { Checksum::Requested } else { Checksum::Complete };
        if let Some(current) = &mut self.open {
            let home = current.write.buffer;
            let joined = if current.request == request && self.deliveries.has_room(home) {
                let first = self.receive.bytes(home, current.first.clone());
                current.run.offer(first, self.receive.bytes(buffer, frame.clone()), state)
            } else {
                Joined::No
            };
            if joined != Joined::No {
                let payload = frame.start + current.run.payload_start()..frame.end;
                if !self.deliveries.extend(&mut current.write, self.receive.bytes_mut(buffer, payload)) {
                    self.counters.dropped(DropReason::DeliveryFull);
                }
                if current.last != buffer {
                    self.receive.chain(current.last, buffer);
                    current.last = buffer;
                    current.more += 1;
                }
                return if joined == Joined::Closed { self.finish_in(buffer) } else { Ok(()) };
            }
            self.finish_in(buffer)?;
        }
        let bytes = self.receive.bytes(buffer, frame.clone());
        let at = Transport::find(bytes);
        if request.is_some() && at.and_then(|at| at.checksum_request()) != request {
            self.counters.dropped(DropReason::BadOffload);
            return Ok(());
        }
        let run = at.filter(|at| self.may_join(at.protocol)).and_then(|at| Run::begin(bytes, &at, state));
        let Some(write) = self.deliveries.begin(&mut self.receive, buffer, frame.clone()) else {
            self.counters.dropped(DropReason::DeliveryFull);
            return Ok(());
        };
        self.receive.retain(buffer);
        match run {
            Some(run) => {
                self.open = Some(Open { run, write, first: frame, request, last: buffer, more: 0 });
                Ok(())
            }
            None => {
                self.deliveries.set_header(buffer, header_for(request));
                self.ring.write(&self.deliveries, write, 0)
            }
        }
    }

    const fn may_join(&self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::Tcp => self.join_tcp,
            Protocol::Udp => self.join_udp,
        }
    }

    /// Writes the open super-frame to the tap, while `buffer` is looked at.
    fn finish_in(&mut self, buffer: u16) -> io::Result<()> {
        if self.open.is_some() && !self.spreading.is_empty() {
            // The headers of its first frame are about to change.
            self.spread_pending(buffer)?;
        }
        self.finish()
    }

    /// Writes the open super-frame to the tap: nothing that came could be joined to it.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        let Some(current) = self.open.take() else { return Ok(()) };
        let home = current.write.buffer;
        let header = current.run.finish(self.receive.bytes_mut(home, current.first));
        self.deliveries.set_header(home, header);
        self.ring.write(&self.deliveries, current.write, current.more)
    }

    /// Gives a datagram to the shard that owns its lane, or to the control core.
    #[cold]
    fn hand_over(&mut self, buffer: u16, range: Range<usize>, lane: Lane, source: SocketAddr) {
        let datagram = self.receive.bytes(buffer, range);
        if lane == Lane::CONTROL {
            let report = Report::ControlDatagram { datagram: datagram.into(), source };
            if self.reports.try_send(report).is_err() {
                self.counters.dropped(DropReason::ReportFull);
            }
            return;
        }
        let owner = usize::from(lane.number()) % self.doors.len();
        if self.doors.get(owner).is_some_and(|door| door.inbox.put(datagram, source)) {
            self.counters.handed_over.add(1);
            self.wake_door(owner);
        } else {
            self.counters.dropped(DropReason::HandOverFull);
        }
    }

    /// Opens and delivers what other shards handed over.
    pub(super) fn take_inbox(&mut self) -> io::Result<()> {
        let doors = std::sync::Arc::clone(&self.doors);
        let Some(door) = doors.get(self.shard) else { return Ok(()) };
        // Before the first look: whoever puts something in later wakes us again.
        // A swap, not a store: it must not sink below the look at the queue.
        door.woken.swap(false, Ordering::AcqRel);
        for _ in 0..INBOX {
            self.inbox_waits = !self.handed.has_room();
            if self.inbox_waits {
                return Ok(());
            }
            let Some(mut handed) = door.inbox.take() else { return Ok(()) };
            match self.tables.open(&mut handed.datagram, handed.source) {
                Ok(Opened::Frame(frame)) => {
                    self.take_held(handed.datagram, Home::Inbox, frame)?;
                    continue;
                }
                Ok(Opened::Reassembled(bytes, frame)) => self.take_reassembled(bytes, frame)?,
                Ok(Opened::Fragment) => self.counters.fragments_received.add(1),
                Ok(Opened::KeepAlive) => {}
                // Never handed on twice: all shards agree on owners.
                Ok(Opened::Foreign(_)) => self.counters.dropped(DropReason::UnknownLane),
                Err(reason) => self.counters.dropped(reason),
            }
            door.inbox.give_back(handed.datagram);
        }
        // Others fill it as fast as it is emptied: after everything else comes the rest.
        self.wake_door(self.shard);
        Ok(())
    }

    /// Sends on and delivers a frame put together out of fragments.
    #[cold]
    fn take_reassembled(&mut self, bytes: Vec<u8>, frame: Frame) -> io::Result<()> {
        self.counters.fragments_received.add(1);
        self.counters.frames_reassembled.add(1);
        self.take_held(bytes, Home::Reassembly, frame)
    }

    /// Sends on and delivers the frame in `bytes`, which go back to where they belong.
    fn take_held(&mut self, bytes: Vec<u8>, home: Home, frame: Frame) -> io::Result<()> {
        let Frame { place, inner, course } = frame;
        let held = bytes.get(place.clone()).unwrap_or_default();
        match course {
            Course::Here if !inner.is_ethernet() => {
                self.on_echo(inner, &Bytes::Held(held))?;
                self.give_back(bytes, home);
                return Ok(());
            }
            Course::Here => {}
            Course::Relay(link) => {
                self.relay(link, inner, &Bytes::Held(held))?;
                self.give_back(bytes, home);
                return Ok(());
            }
            Course::Everywhere(spread) => self.spread(spread, inner, &Bytes::Held(held))?,
        }
        let request = inner.checksum();
        if request.is_some() && Transport::find(held).and_then(|at| at.checksum_request()) != request {
            self.counters.dropped(DropReason::BadOffload);
            self.give_back(bytes, home);
            return Ok(());
        }
        match self.handed.put(bytes, home, place, header_for(request)) {
            Ok(slot) => self.ring.write_handed(&self.handed, slot),
            Err(bytes) => {
                self.counters.dropped(DropReason::DeliveryFull);
                self.give_back(bytes, home);
                Ok(())
            }
        }
    }
}

fn header_for(request: Option<ChecksumRequest>) -> VnetHeader {
    request.map_or_else(VnetHeader::plain, |request| {
        VnetHeader::checksum(request.start.into(), request.field.offset())
    })
}
