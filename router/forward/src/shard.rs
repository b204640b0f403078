//! The loop of one shard.

mod echo;
mod moderation;
mod oversize;
mod per_second;
mod read;
mod receive;
mod relay;
#[cfg(test)]
mod tests;
mod timed;
mod transmit;

use crate::clock::boot_time;
use crate::command::{Command, CommandQueue, Report};
use crate::counters::{Counters, DropReason};
use crate::handover::Inbox;
use crate::io::address::{Family, RawAddress};
use crate::io::buffers::Buffers;
use crate::io::deliveries::{Deliveries, HandedDelivery, Home};
use crate::io::received::RECEIVE_OVERHEAD;
use crate::io::ring::{Completion, Operation, Ring};
use crate::io::sends::Sends;
use crate::storm::StormControl;
use crate::tables::Tables;
use moderation::{GATHERING, Moderation};
use per_second::PerSecond;
use receive::Open;
use relay::Spreading;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use timed::Timed;
use weave_wire::vnet::VNET_LEN;

/// Receive buffers of a shard: what the underlay may have waiting for it.
pub(crate) const RECEIVE_BUFFERS: u16 = 32;
/// Read buffers of a shard: what the tap may have waiting for it.
pub(crate) const READ_BUFFERS: u16 = 32;
/// Size of a buffer, bytes: 64 KiB, and what stands in front of them.
pub(crate) const BUFFER_LEN: usize = 65_536 + 256;
const _: () = assert!(BUFFER_LEN >= 65_536 + RECEIVE_OVERHEAD && BUFFER_LEN >= 65_536 + VNET_LEN);
/// Groups of provided buffers.
pub(crate) const RECEIVE_GROUP: u16 = 0;
pub(crate) const READ_GROUP: u16 = 1;
/// Errors in a row after which tap or socket count as broken.
const ERRORS_IN_A_ROW: u32 = 64;
/// Free send slots below which no further frame is taken from the tap: one
/// super-frame of segments of 350 bytes and more fills three slots and closes a fourth.
const SLOTS_FOR_A_FRAME: usize = 4;

/// What other shards use of a shard.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) commands: CommandQueue,
    pub(crate) inbox: Inbox,
    /// True while a wake-up for the inbox is under way.
    pub(crate) woken: AtomicBool,
    /// True when the shard is to end, however many commands wait.
    pub(crate) stopping: AtomicBool,
}

/// Everything a shard is made of.
pub(crate) struct Parts {
    pub(crate) ring: Ring,
    pub(crate) receive: Buffers,
    pub(crate) read: Buffers,
    pub(crate) sends: Sends,
    pub(crate) tables: Tables,
    pub(crate) storm: Arc<StormControl>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) doors: Arc<[Door]>,
    pub(crate) reports: async_channel::Sender<Report>,
    pub(crate) shard: usize,
    pub(crate) family: Family,
    pub(crate) segmentation: bool,
    pub(crate) join_udp: bool,
    pub(crate) join_tcp: bool,
    /// Clear network: checksums are completed before a frame leaves the host.
    pub(crate) complete_checksums: bool,
}

/// One shard at work.
pub(crate) struct Shard {
    // Dropped first: the kernel lets go of all memory below.
    ring: Ring,
    receive: Buffers,
    read: Buffers,
    sends: Sends,
    deliveries: Deliveries,
    /// The super-frame that is being put together, of what came in this turn.
    open: Option<Open>,
    handed: HandedDelivery,
    tables: Tables,
    storm: Arc<StormControl>,
    counters: Arc<Counters>,
    doors: Arc<[Door]>,
    reports: async_channel::Sender<Report>,
    shard: usize,
    family: Family,
    segmentation: bool,
    join_udp: bool,
    join_tcp: bool,
    complete_checksums: bool,
    /// Completions taken from the ring and not looked at yet.
    completions: VecDeque<Completion>,
    /// Frames read that wait for send slots: buffer and length.
    parked: VecDeque<(u16, usize)>,
    /// The slot being filled.
    batch: Option<u16>,
    /// True if no slot was free for a frame to be sent on, and none came back since.
    relay_full: bool,
    /// Frames for everybody that are still to be sent on.
    spreading: Spreading,
    /// What senders of packets too big were told lately.
    answers: PerSecond,
    /// Echoes taken lately.
    echoes: PerSecond,
    /// One segment of a super-frame that is to be cut into fragments.
    scratch: Vec<u8>,
    receive_armed: bool,
    read_armed: bool,
    /// The tap was deleted.
    tap_gone: bool,
    wake_armed: bool,
    /// The inbox holds more than there was room for.
    inbox_waits: bool,
    socket_drops: u32,
    /// Slots of probes of paths that are being sent, by their bits.
    probe_slots: u64,
    /// Those whose datagrams go out one by one, refused as segments of one.
    resent_slots: u64,
    /// Errors of tap and socket without a success in between.
    read_errors: u32,
    receive_errors: u32,
    /// The frame being timed, if one is.
    timed: Option<Timed>,
    moderation: Moderation,
}

impl Shard {
    pub(crate) fn new(parts: Parts) -> Self {
        let deliveries = Deliveries::new(parts.receive.count());
        Self {
            ring: parts.ring,
            receive: parts.receive,
            read: parts.read,
            sends: parts.sends,
            deliveries,
            open: None,
            handed: HandedDelivery::new(),
            tables: parts.tables,
            storm: parts.storm,
            counters: parts.counters,
            doors: parts.doors,
            reports: parts.reports,
            shard: parts.shard,
            family: parts.family,
            segmentation: parts.segmentation,
            join_udp: parts.join_udp,
            join_tcp: parts.join_tcp,
            complete_checksums: parts.complete_checksums,
            completions: VecDeque::with_capacity(crate::io::ring::COMPLETIONS as usize),
            parked: VecDeque::with_capacity(usize::from(READ_BUFFERS)),
            batch: None,
            relay_full: false,
            spreading: Spreading::new(),
            answers: PerSecond::default(),
            echoes: PerSecond::default(),
            scratch: Vec::new(),
            receive_armed: false,
            read_armed: false,
            tap_gone: false,
            wake_armed: false,
            inbox_waits: false,
            socket_drops: 0,
            probe_slots: 0,
            resent_slots: 0,
            read_errors: 0,
            receive_errors: 0,
            timed: None,
            moderation: Moderation::default(),
        }
    }

    /// Runs until told to stop.
    ///
    /// # Errors
    /// What the shard cannot go on after: the ring failed, or the tap cannot be read.
    pub(crate) fn run(mut self) -> io::Result<()> {
        self.ring.enable()?;
        while !self.is_stopping() {
            self.arm()?;
            if !self.completions.is_empty() {
                // Taken while room was made: what is armed may hang on them.
                self.ring.submit()?;
            } else if self.moderation.gathers() && self.ring.can_gather() {
                self.counters.gathering_waits.add(1);
                self.ring.gather(GATHERING)?;
            } else {
                self.ring.wait()?;
            }
            self.counters.turns.add(1);
            let now = boot_time();
            self.tables.begin_turn(now);
            self.take_completions();
            self.moderation.turn(now, !self.completions.is_empty());
            while let Some(completion) = self.completions.pop_front() {
                self.handle(completion)?;
            }
            self.finish()?;
            self.retry_parked()?;
            self.flush()?;
            self.time_turn();
            self.send_reports();
            self.note_losses();
        }
        Ok(())
    }

    fn is_stopping(&self) -> bool {
        self.doors.get(self.shard).is_none_or(|door| door.stopping.load(Ordering::Acquire))
    }

    /// Starts again what ended, where buffers allow it.
    fn arm(&mut self) -> io::Result<()> {
        if !self.receive_armed && self.receive.any_with_kernel() {
            self.ring.arm_receive(RECEIVE_GROUP)?;
            self.receive_armed = true;
        }
        if !self.read_armed && !self.tap_gone && self.read.any_with_kernel() {
            #[expect(clippy::cast_possible_truncation, reason = "64 KiB and a little")]
            let len = self.read.size() as u32;
            self.ring.arm_read(READ_GROUP, len)?;
            self.read_armed = true;
        }
        if !self.wake_armed {
            self.ring.arm_wake()?;
            self.wake_armed = true;
        }
        Ok(())
    }

    fn take_completions(&mut self) {
        self.completions.extend(self.ring.completions());
    }

    fn handle(&mut self, completion: Completion) -> io::Result<()> {
        match completion.operation {
            Operation::Receive => self.on_receive(completion),
            Operation::Read => self.on_read(completion),
            Operation::Send(slot) => self.on_sent(slot, completion.result),
            Operation::Write(buffer, more) => {
                self.on_written(completion.result);
                self.receive.release_chain(buffer, more);
                Ok(())
            }
            Operation::WriteHanded(slot) => {
                self.on_written(completion.result);
                if let Some((bytes, home)) = self.handed.complete(slot) {
                    self.give_back(bytes, home);
                }
                if self.inbox_waits { self.take_inbox() } else { Ok(()) }
            }
            Operation::Wake => {
                self.wake_armed = false;
                self.run_commands()?;
                self.take_inbox()
            }
        }
    }

    fn on_written(&self, result: i32) {
        if result < 0 {
            self.counters.dropped(DropReason::TapError);
        } else {
            self.counters.tap_writes.add(1);
        }
    }

    /// Gives memory of a frame back to whom it belongs.
    fn give_back(&mut self, bytes: Vec<u8>, home: Home) {
        match home {
            Home::Inbox => {
                if let Some(door) = self.doors.get(self.shard) {
                    door.inbox.give_back(bytes);
                }
            }
            Home::Reassembly => self.tables.reassembly.give_back(bytes),
        }
    }

    fn run_commands(&mut self) -> io::Result<()> {
        let doors = Arc::clone(&self.doors);
        let Some(door) = doors.get(self.shard) else { return Ok(()) };
        self.note_fill();
        while let Some(command) = door.commands.pop() {
            self.run_command(command)?;
        }
        Ok(())
    }

    fn run_command(&mut self, command: Command) -> io::Result<()> {
        match command {
            Command::SetLink { link, address, counters } => {
                if let Some(raw) = RawAddress::new(address, self.family) {
                    self.tables.set_link(link, raw, counters);
                    self.tables.set_source(link, address.ip());
                }
            }
            Command::SetPathMtu { link, datagram, advise } => self.tables.set_path(link, datagram, advise),
            Command::Probe { link, first, lens } => {
                for (number, len) in (first..).zip(lens) {
                    self.probe(link, number, len)?;
                }
            }
            Command::Echo { peer, number, len } => self.ask_for_echo(peer, number, len)?,
            Command::DropLink(link) => self.tables.drop_link(link),
            Command::InstallReceive(session) => self.tables.install_receive(*session),
            Command::DropReceive(index) => self.tables.drop_receive(index),
            Command::SetSend(session) => {
                // What was built under the old key goes out before the new one is used.
                self.flush()?;
                let link = session.link;
                if self.tables.set_send(&session) {
                    self.keep_alive(link, false)?;
                }
            }
            Command::SetRoutes(routes) => self.tables.set_routes(routes),
            Command::ChangeMacs(changes) => self.tables.change_macs(&changes),
            Command::SetLocalMacs(macs) => self.tables.set_local_macs(&macs),
            Command::KeepAlive { link, own_port } => self.keep_alive(link, own_port)?,
            Command::Seal(link) => self.tables.seal(link),
            Command::ReadTap => self.tap_gone = false,
            Command::SetOnePort { link, one_port } => {
                self.flush()?;
                self.tables.set_one_port(link, one_port);
            }
        }
        Ok(())
    }

    fn send_reports(&mut self) {
        let mut reports = std::mem::take(&mut self.tables.reports);
        for report in reports.drain(..) {
            let Err(lost) = self.reports.try_send(report) else { continue };
            match lost.into_inner() {
                // Said once only, and few: kept until there is room.
                once @ (Report::ReceiveInstalled { .. }
                | Report::TapGone
                | Report::KeyWearsOut(_)
                | Report::SegmentationRefused(_)
                | Report::SegmentationRetried(_)) => self.tables.reports.push(once),
                // Else the station would stay here, where the control core's limits and
                // its forgetting do not reach it. Its next frame is reported again.
                Report::MacSeen { mac, .. } => {
                    self.counters.dropped(DropReason::ReportFull);
                    self.tables.forget(mac);
                }
                Report::LaneSeen { .. }
                | Report::ProbeSeen { .. }
                | Report::EchoSeen { .. }
                | Report::ControlDatagram { .. }
                | Report::Ended { .. } => {
                    self.counters.dropped(DropReason::ReportFull);
                }
            }
        }
        // The same memory again.
        reports.append(&mut self.tables.reports);
        self.tables.reports = reports;
        let refused = std::mem::take(&mut self.tables.macs_refused);
        if refused > 0 {
            self.counters.mac_table_full.add(refused);
        }
    }

    fn note_losses(&mut self) {
        let (timed_out, displaced) = self.tables.reassembly.take_given_up();
        if timed_out + displaced > 0 {
            self.counters.dropped_many(DropReason::FragmentTimeout, timed_out);
            self.counters.dropped_many(DropReason::FragmentLimit, displaced);
        }
        let overflows = self.ring.take_overflows();
        if overflows > 0 {
            self.counters.completion_overflow.add(overflows.into());
        }
    }

    /// Makes what was pushed happen, and takes what the kernel finished at once.
    fn make_room(&mut self) -> io::Result<()> {
        self.flush()?;
        self.ring.submit()?;
        self.completions.extend(self.ring.completions());
        // Sends free their slots at once; the rest keeps its order.
        for _ in 0..self.completions.len() {
            let Some(completion) = self.completions.pop_front() else { break };
            if let Operation::Send(slot) = completion.operation {
                self.on_sent(slot, completion.result)?;
            } else {
                self.completions.push_back(completion);
            }
        }
        Ok(())
    }

    fn wake_door(&self, shard: usize) {
        if let Some(door) = self.doors.get(shard)
            && !door.woken.swap(true, Ordering::AcqRel)
        {
            door.commands.notify();
        }
    }
}
