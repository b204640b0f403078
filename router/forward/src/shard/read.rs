//! What the tap delivers, and where it goes.

use super::{ERRORS_IN_A_ROW, SLOTS_FOR_A_FRAME, Shard};
use crate::command::Report;
use crate::counters::DropReason;
use crate::io::ring::Completion;
use crate::io::sends::Origin;
use crate::segment::cut::{Outgoing, classify};
use crate::tables::Destination;
use std::io;
use weave_wire::MacAddr;
use weave_wire::packet::EthernetHeader;
use weave_wire::vnet::{VNET_LEN, VnetHeader};

/// Segments of a super-frame for everybody, at most: those of 64 KiB in datagrams of 512 bytes, and
/// as many as the kernel lets a program hand over at once (`UDP_MAX_SEGMENTS`).
const FLOODED_SEGMENTS_MAX: usize = 128;

impl Shard {
    pub(super) fn on_read(&mut self, completion: Completion) -> io::Result<()> {
        if !completion.more() {
            self.read_armed = false;
        }
        let Some(buffer) = completion.buffer() else {
            return match -completion.result {
                libc::ENOBUFS => {
                    self.counters.buffers_exhausted.add(1);
                    Ok(())
                }
                errno => self.on_read_error(errno),
            };
        };
        self.read.take(buffer);
        let len = match usize::try_from(completion.result) {
            Ok(len) => len,
            Err(_) => {
                self.read.release(buffer);
                return self.on_read_error(-completion.result);
            }
        };
        self.read_errors = 0;
        self.counters.tap_reads.add(1);
        self.time_read(buffer);
        self.parked.push_back((buffer, len));
        if self.parked.len() == 1 {
            self.send_parked()?;
        }
        Ok(())
    }

    /// A frame the tap could not express is an error of that frame; many in a row end the router.
    /// A queue whose tap was deleted can become one of another tap.
    fn on_read_error(&mut self, errno: i32) -> io::Result<()> {
        match errno {
            libc::EAGAIN | libc::EINTR => return Ok(()),
            // `tun_chr_read_iter`, drivers/net/tun.c: the queue belongs to no device.
            libc::EBADFD => {
                if !std::mem::replace(&mut self.tap_gone, true) {
                    self.tables.reports.push(Report::TapGone);
                }
                return Ok(());
            }
            _ => {}
        }
        self.counters.dropped(DropReason::TapError);
        self.read_errors += 1;
        let broken = matches!(errno, libc::EBADF | libc::ENODEV | libc::EFAULT);
        if broken || self.read_errors >= ERRORS_IN_A_ROW { Err(unreadable(errno)) } else { Ok(()) }
    }

    /// Frames left over from a time without slots.
    pub(super) fn retry_parked(&mut self) -> io::Result<()> {
        if self.parked.is_empty() { Ok(()) } else { self.send_parked() }
    }

    /// Sends frames in their order while there are slots. What stays parked
    /// keeps its buffers, so that the tap's own queue fills: back-pressure.
    fn send_parked(&mut self) -> io::Result<()> {
        while let Some(&(buffer, len)) = self.parked.front() {
            if self.sends.available(Origin::Tap) < SLOTS_FOR_A_FRAME {
                self.make_room()?;
                if self.sends.available(Origin::Tap) < SLOTS_FOR_A_FRAME {
                    self.counters.back_pressure.add(1);
                    return Ok(());
                }
            }
            self.parked.pop_front();
            self.transmit(buffer, len)?;
            self.time_done(buffer);
            self.read.release(buffer);
        }
        Ok(())
    }

    /// Sends one frame or super-frame, or counts why not.
    fn transmit(&mut self, buffer: u16, len: usize) -> io::Result<()> {
        let (ethernet, outgoing) = match self.examine(buffer, len) {
            Ok(examined) => examined,
            Err((reason, frames)) => return self.refuse(reason, frames),
        };
        match self.tables.destination(ethernet.destination()) {
            None => self.refuse(DropReason::NoRoute, outgoing.frames()),
            Some(Destination::Peer(peer, link)) => self.send(buffer, len, outgoing, Some(peer), link),
            Some(Destination::All) => self.flood(buffer, len, ethernet.source(), outgoing),
            Some(Destination::Here) => self.refuse(DropReason::Local, outgoing.frames()),
        }
    }

    /// Reads what the tap delivered; or says why it is dropped, and how many frames that are.
    #[inline]
    fn examine(
        &mut self,
        buffer: u16,
        len: usize,
    ) -> Result<(EthernetHeader, Outgoing), (DropReason, usize)> {
        let read = VnetHeader::split(self.read.bytes_mut(buffer, 0..len));
        let (vnet, frame) = read.ok_or((DropReason::FrameTooShort, 1))?;
        let (&ethernet, _) = EthernetHeader::split(frame).ok_or((DropReason::FrameTooShort, 1))?;
        let outgoing = classify(&vnet, frame, self.complete_checksums).map_err(|reason| (reason, 1))?;
        let longest = match outgoing {
            Outgoing::Whole(_) => len - VNET_LEN,
            Outgoing::Super(plan) => plan.segment_len(0),
        };
        if longest > self.tables.max_frame() {
            return Err((DropReason::FrameTooLong, outgoing.frames()));
        }
        Ok((ethernet, outgoing))
    }

    /// Counts `frames` that go nowhere.
    #[cold]
    pub(super) fn refuse(&self, reason: DropReason, frames: usize) -> io::Result<()> {
        self.counters.dropped_many(reason, frames as u64);
        Ok(())
    }

    /// Sends a frame or super-frame of the station `source` to everybody, if there were not
    /// too many.
    fn flood(&mut self, buffer: u16, len: usize, source: MacAddr, outgoing: Outgoing) -> io::Result<()> {
        let frames = outgoing.frames();
        // Each of its segments goes to each link before the shard does anything else.
        if frames > FLOODED_SEGMENTS_MAX {
            return self.refuse(DropReason::StormSource, frames);
        }
        let attached = self.tables.is_attached(source);
        if let Err(reason) = self.storm.admit_station(source, attached, frames, self.tables.now) {
            return self.refuse(reason, frames);
        }
        for place in 0..self.tables.broadcast().len() {
            let Some(&link) = self.tables.broadcast().get(place) else { break };
            if self.sends.available(Origin::Tap) < SLOTS_FOR_A_FRAME {
                self.make_room()?;
            }
            self.send(buffer, len, outgoing, None, link)?;
        }
        Ok(())
    }
}

fn unreadable(errno: i32) -> io::Error {
    let cause = io::Error::from_raw_os_error(errno);
    io::Error::new(cause.kind(), format!("the tap cannot be read ({cause}): launch the router again"))
}
