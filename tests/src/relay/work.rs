//! The thread of a relay.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::ledger::{Counts, Kind, Ledger, Removal};
use super::{Clog, Faults, Tally, count, harm};
use crate::random::Random;
use crate::raw::{OFFLOAD, ROOM, RawSocket, udp_at};

/// Old frames kept to be sent again.
const KEPT: usize = 4096;
/// Longest delay of a frame that is to arrive out of order.
const DELAY_MS: u64 = 30;
/// How long the thread sleeps when nothing happens.
const IDLE: u16 = 5;
/// Frames taken from one side before it is the other's turn.
const TURN: usize = 256;
/// Length of UDP and Ethernet headers, bytes.
const UDP_HEADER: usize = 8;
const ETHERNET: usize = 14;

/// A delayed frame: when it is due, its number, where to.
type Late = Reverse<(Instant, u64, usize, Box<[u8]>)>;

/// What the relay does with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// TCP, ARP: what a network may lose, but does not forge.
    Other,
    /// UDP, whose header is there.
    Udp(usize, Kind),
}

pub(super) struct Work {
    sides: [RawSocket; 2],
    random: Random,
    kept: Vec<(usize, Box<[u8]>)>,
    /// By the time they are due; a number keeps those of one time in order.
    late: BinaryHeap<Late>,
    number: u64,
    /// When what was let into each direction has left it.
    busy_until: [Instant; 2],
    tally: Arc<Tally>,
    /// Absent where nobody asks for an account: then every datagram takes every fault.
    ledger: Option<Ledger>,
    counts: Arc<Counts>,
}

impl Work {
    pub(super) fn new(
        sides: [RawSocket; 2],
        random: Random,
        ledger: Option<Ledger>,
        tally: &Arc<Tally>,
        counts: &Arc<Counts>,
    ) -> Self {
        Self {
            sides,
            random,
            kept: Vec::new(),
            late: BinaryHeap::new(),
            number: 0,
            busy_until: [Instant::now(); 2],
            tally: Arc::clone(tally),
            ledger,
            counts: Arc::clone(counts),
        }
    }

    /// Frames that the kernel could not keep for the relay.
    pub(super) fn missed(&self) -> u32 {
        self.sides.iter().map(RawSocket::lost).sum()
    }

    pub(super) fn turn(&mut self, faults: &Faults, faulty: bool) {
        let mut ready = [false; 2];
        {
            let [a, b] = &self.sides;
            let mut fds =
                [PollFd::new(a.as_fd(), PollFlags::POLLIN), PollFd::new(b.as_fd(), PollFlags::POLLIN)];
            let wait = if self.late.is_empty() { IDLE } else { 1 };
            let _ = poll(&mut fds, PollTimeout::from(wait));
            for (ready, fd) in ready.iter_mut().zip(&fds) {
                *ready = fd.any().unwrap_or(false);
            }
        }
        let mut room = [0; ROOM];
        for from in [0, 1] {
            for _ in 0..TURN {
                if !ready[from] {
                    break;
                }
                let Some(frame) = self.sides[from].receive(&mut room) else { break };
                self.pass(1 - from, frame, faults, faulty);
            }
        }
        let now = Instant::now();
        while self.late.peek().is_some_and(|Reverse((due, ..))| *due <= now) {
            if let Some(Reverse((_, _, to, frame))) = self.late.pop() {
                self.send(to, &frame);
            }
        }
    }

    fn send(&self, to: usize, frame: &[u8]) {
        if !self.sides[to].send(frame) {
            self.counts.refuse();
        }
    }

    fn class(&self, frame: &[u8]) -> Class {
        let Some(at) = udp_at(frame) else { return Class::Other };
        let payload = frame.get(at + UDP_HEADER..).unwrap_or_default();
        Class::Udp(at, self.ledger.as_ref().map_or(Kind::Whole, |ledger| ledger.kind(payload)))
    }

    fn pass(&mut self, to: usize, frame: &mut [u8], faults: &Faults, faulty: bool) {
        let class = self.class(frame);
        if let Class::Udp(at, _) = class {
            if faults.one_port.is_some_and(|port| harm::rename(frame, at, port)) {
                count(&self.tally.renamed);
            }
            count(&self.tally.udp);
        }
        let fate = if faulty { self.fate(to, frame, class, faults) } else { Ok(Instant::now()) };
        // Before the trouble there are frames of other lengths: ARP, for one.
        if faulty && let (Class::Udp(_, kind), Some(ledger)) = (class, &mut self.ledger) {
            ledger.came(kind, fate.err(), &self.counts);
        }
        match fate {
            Err(_) => count(&self.tally.lost),
            Ok(_) if !faulty => self.send(to, frame),
            Ok(due) => self.harm(to, frame, class, faults, due),
        }
    }

    /// When a frame leaves, or why it does not.
    fn fate(&mut self, to: usize, frame: &[u8], class: Class, faults: &Faults) -> Result<Instant, Removal> {
        if faults.blocked[to] {
            return Err(Removal::Blocked);
        }
        if faults.mtu.is_some_and(|mtu| frame.len() > OFFLOAD + ETHERNET + mtu) {
            return Err(Removal::TooBig);
        }
        if takes_chances(class) && self.random.chance(faults.lose) {
            return Err(Removal::Lost);
        }
        self.admit(to, frame.len() - OFFLOAD, faults)
    }

    /// Lets so many bytes into a direction; when they have left it.
    fn admit(&mut self, to: usize, len: usize, faults: &Faults) -> Result<Instant, Removal> {
        let now = Instant::now();
        let Some(Clog { bytes_per_second, backlog }) = faults.clog else { return Ok(now) };
        let time = |bytes: usize| Duration::from_secs_f64(bytes as f64 / bytes_per_second as f64);
        let begin = self.busy_until[to].max(now);
        if begin - now > time(backlog) {
            return Err(Removal::Clogged);
        }
        self.busy_until[to] = begin + time(len);
        Ok(self.busy_until[to])
    }

    /// Passes a frame on at `due` with what chance does to it.
    fn harm(&mut self, to: usize, frame: &mut [u8], class: Class, faults: &Faults, due: Instant) {
        let forged = match class {
            Class::Udp(at, Kind::Whole) => Some(at),
            Class::Udp(_, Kind::Control | Kind::Part(_)) | Class::Other => None,
        };
        if forged.is_some() {
            self.keep(to, frame);
        }
        self.number += 1;
        let mut len = frame.len();
        if let Some(at) = forged
            && self.random.chance(faults.damage)
        {
            count(&self.tally.damaged);
            len = harm::damage(frame, at + UDP_HEADER, &mut self.random);
        }
        let frame = &frame[..len];
        if takes_chances(class) && self.random.chance(faults.delay) {
            count(&self.tally.delayed);
            let delay = Duration::from_micros(self.random.below(DELAY_MS * 1000));
            self.emit(to, frame, due + delay);
        } else {
            self.emit(to, frame, due);
        }
        if takes_chances(class) && self.random.chance(faults.double) {
            count(&self.tally.doubled);
            self.copy(to, frame, class, faults);
        }
        if forged.is_some() && self.random.chance(faults.repeat) && !self.kept.is_empty() {
            count(&self.tally.repeated);
            let place = self.random.below(self.kept.len() as u64) as usize;
            let (to, frame) = self.kept[place].clone();
            self.copy(to, &frame, class, faults);
        }
    }

    fn keep(&mut self, to: usize, frame: &[u8]) {
        let copy = (to, Box::from(frame));
        if self.kept.len() < KEPT {
            self.kept.push(copy);
        } else {
            let place = self.number as usize % KEPT;
            self.kept[place] = copy;
        }
    }

    fn emit(&mut self, to: usize, frame: &[u8], due: Instant) {
        if due <= Instant::now() {
            self.send(to, frame);
        } else {
            self.late.push(Reverse((due, self.number, to, frame.into())));
        }
    }

    /// Sends a frame once more.
    fn copy(&mut self, to: usize, frame: &[u8], class: Class, faults: &Faults) {
        if matches!(class, Class::Udp(..)) {
            self.counts.add_copy();
        }
        match self.admit(to, frame.len() - OFFLOAD, faults) {
            Ok(due) => self.emit(to, frame, due),
            Err(removal) if matches!(class, Class::Udp(..)) => Ledger::copy_removed(removal, &self.counts),
            Err(_) => {}
        }
    }
}

/// Whether a frame may be lost, delayed or doubled by chance. Not so what is no frame or a part of
/// one: of that the routers' counters tell too little for an exact account.
fn takes_chances(class: Class) -> bool {
    matches!(class, Class::Other | Class::Udp(_, Kind::Whole))
}
