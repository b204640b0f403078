//! A network between the two hosts that a test has in its hand.
//!
//! ```text
//! host 0 ── mesh0 ═══ side0 (relay) side1 ═══ mesh0 ── host 1
//! ```
//!
//! The relay is a thread in a namespace of its own that passes frames from one side to the other,
//! and may lose, double, delay, damage and repeat them, or change where they seem to come from.
//! Routers that dial [`Relay::HOST0`] have no other way to each other.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use weave_host::address::cidr;
use weave_host::ethtool::{self, GRO, GRO_UDP_FORWARDING, GSO, TSO4, TSO6, USO};
use weave_host::netlink::VethEnd;
use weave_host::{Namespace, Netlink};

use crate::World;
use crate::random::Random;
use crate::raw::{NEEDS_CSUM, ROOM, RawSocket, udp_at};

/// Name of the device of each host towards the relay.
pub const DEVICE: &str = "mesh0";
/// Old frames kept to be sent again.
const KEPT: usize = 4096;
/// Longest delay of a frame that is to arrive out of order.
const DELAY_MS: u64 = 30;
/// How long the thread sleeps when nothing happens.
const IDLE: u16 = 5;

/// What happens to UDP frames, in 1,000; TCP is lost, doubled and delayed only: damage would be
/// found by its checksum.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Not passed on.
    pub lose: u64,
    /// Passed on twice.
    pub double: u64,
    /// Passed on up to 30 ms late.
    pub delay: u64,
    /// Passed on with one to three bytes changed, or cut short.
    pub damage: u64,
    /// Followed by a frame of up to 4,096 frames ago.
    pub repeat: u64,
    /// Every data datagram seems to come from the mesh port, whatever its lane.
    pub one_port: Option<u16>,
}

/// What the relay did.
#[derive(Debug, Default)]
pub struct Tally {
    /// UDP frames that came.
    pub udp: AtomicU64,
    /// Frames not passed on.
    pub lost: AtomicU64,
    /// Frames passed on twice.
    pub doubled: AtomicU64,
    /// Frames delayed.
    pub delayed: AtomicU64,
    /// Frames damaged.
    pub damaged: AtomicU64,
    /// Old frames sent again.
    pub repeated: AtomicU64,
    /// Frames whose port was changed.
    pub renamed: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The relay at work; dropping it ends it.
#[derive(Debug)]
pub struct Relay {
    over: Arc<AtomicBool>,
    faulty: Arc<AtomicBool>,
    tally: Arc<Tally>,
    middle: Namespace,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Host 0 behind the relay.
    pub const HOST0: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 1);
    /// Host 1 behind the relay.
    pub const HOST1: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 2);

    /// Joins the hosts of `world` and passes everything on as it comes until told to be
    /// [faulty](Self::set_faulty). With `gro` the hosts join what they receive.
    #[must_use]
    pub fn between(world: &World, faults: Faults, random: Random, gro: bool) -> Self {
        let middle = Namespace::create("relay").unwrap();
        for (index, address) in [Self::HOST0, Self::HOST1].into_iter().enumerate() {
            let side = format!("side{index}");
            let host = world.host(index).namespace();
            let mut netlink = Netlink::in_namespace(&middle).unwrap();
            let there = VethEnd { namespace: Some(host), ..VethEnd::new(DEVICE) };
            netlink.create_veth(VethEnd::new(&side), there, 1500).unwrap();
            let link = netlink.expect_link(&side).unwrap();
            middle.run(|| plain(&side, false)).unwrap();
            netlink.set_up(&link).unwrap();
            host.run(|| plain(DEVICE, gro)).unwrap();
            let mut netlink = Netlink::in_namespace(host).unwrap();
            let link = netlink.expect_link(DEVICE).unwrap();
            netlink.add_address(link.index, cidr(address.into(), 24).unwrap()).unwrap();
            netlink.set_up(&link).unwrap();
        }
        let sides = middle.run(|| [RawSocket::open("side0"), RawSocket::open("side1")]).unwrap();
        let (over, faulty, tally) =
            (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default(), Arc::<Tally>::default());
        let mut work = Work {
            sides,
            faults,
            random,
            kept: Vec::new(),
            late: BinaryHeap::new(),
            number: 0,
            tally: Arc::clone(&tally),
        };
        let (end, broken) = (Arc::clone(&over), Arc::clone(&faulty));
        let thread = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                work.turn(broken.load(Ordering::Relaxed));
            }
            assert_eq!(
                work.sides.iter().map(RawSocket::lost).sum::<u32>(),
                0,
                "the relay itself was too slow"
            );
        });
        Self { over, faulty, tally, middle, thread: Some(thread) }
    }

    /// Begins or ends the trouble.
    pub fn set_faulty(&self, faulty: bool) {
        self.faulty.store(faulty, Ordering::Relaxed);
    }

    /// What happened so far.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Frames that the devices of the relay dropped since it began: a veth holds 256 until the
    /// kernel of the receiving host is scheduled to take them, and no router can help that.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        let ip = || Command::new("ip").args(["-j", "-s", "link"]).output().unwrap();
        let output = self.middle.run(ip).unwrap();
        let links: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let of = |link: &serde_json::Value| link["stats64"]["tx"]["dropped"].as_u64().unwrap();
        links.as_array().unwrap().iter().map(of).sum()
    }

    /// Ends the relay and the test too if it could not keep up.
    pub fn finish(mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One datagram a frame, as a network card would put it on the wire.
fn plain(device: &str, gro: bool) {
    let off =
        [(TSO4, false), (TSO6, false), (USO, false), (GSO, false), (GRO, gro), (GRO_UDP_FORWARDING, gro)];
    ethtool::set_features(device, &off).unwrap();
}

/// A delayed frame: when it is due, its number, where to.
type Late = Reverse<(Instant, u64, usize, Box<[u8]>)>;

struct Work {
    sides: [RawSocket; 2],
    faults: Faults,
    random: Random,
    kept: Vec<(usize, Box<[u8]>)>,
    /// By the time they are due; a number keeps those of one time in order.
    late: BinaryHeap<Late>,
    number: u64,
    tally: Arc<Tally>,
}

impl Work {
    fn turn(&mut self, faulty: bool) {
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
            for _ in 0..256 {
                if !ready[from] {
                    break;
                }
                let Some(frame) = self.sides[from].receive(&mut room) else { break };
                self.pass(1 - from, frame, faulty);
            }
        }
        let now = Instant::now();
        while self.late.peek().is_some_and(|Reverse((due, ..))| *due <= now) {
            if let Some(Reverse((_, _, to, frame))) = self.late.pop() {
                self.sides[to].send(&frame);
            }
        }
    }

    fn pass(&mut self, to: usize, frame: &mut [u8], faulty: bool) {
        let udp = udp_at(frame);
        if let (Some(at), Some(port)) = (udp, self.faults.one_port) {
            self.rename(frame, at, port);
        }
        if udp.is_some() {
            count(&self.tally.udp);
        }
        if !faulty {
            self.sides[to].send(frame);
            return;
        }
        if self.random.chance(self.faults.lose) {
            return count(&self.tally.lost);
        }
        if udp.is_some() {
            let copy = (to, Box::from(&*frame));
            if self.kept.len() < KEPT {
                self.kept.push(copy);
            } else {
                let place = self.number as usize % KEPT;
                self.kept[place] = copy;
            }
        }
        self.number += 1;
        let mut len = frame.len();
        if let Some(at) = udp
            && self.random.chance(self.faults.damage)
        {
            count(&self.tally.damaged);
            len = self.damage(frame, at + 8);
        }
        let frame = &frame[..len];
        if self.random.chance(self.faults.delay) {
            count(&self.tally.delayed);
            let due = Instant::now() + Duration::from_micros(self.random.below(DELAY_MS * 1000));
            self.late.push(Reverse((due, self.number, to, frame.into())));
        } else {
            self.sides[to].send(frame);
        }
        if self.random.chance(self.faults.double) {
            count(&self.tally.doubled);
            self.sides[to].send(frame);
        }
        if self.random.chance(self.faults.repeat) && !self.kept.is_empty() {
            count(&self.tally.repeated);
            let place = self.random.below(self.kept.len() as u64) as usize;
            let (to, frame) = &self.kept[place];
            self.sides[*to].send(frame);
        }
    }

    /// Changes bytes of the payload, or takes some off its end; returns the new length. The checksum
    /// stays open or is made to be none, so that the kernel lets the damage through.
    fn damage(&mut self, frame: &mut [u8], payload: usize) -> usize {
        let len = frame.len() - payload;
        if len == 0 {
            return frame.len();
        }
        if frame[0] & NEEDS_CSUM == 0 {
            frame[payload - 2..payload].fill(0);
        }
        for _ in 0..1 + self.random.below(3) {
            let at = payload + self.random.below(len as u64) as usize;
            frame[at] ^= 1 + self.random.below(255) as u8;
        }
        if !self.random.chance(200) {
            return frame.len();
        }
        // Cut short, with lengths that say so.
        let cut = self.random.below(len as u64) as usize;
        let udp = payload - 8;
        let field = |frame: &mut [u8], at: usize| {
            let value = u16::from_be_bytes([frame[at], frame[at + 1]]).saturating_sub(cut as u16);
            frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
        };
        field(frame, udp + 4);
        let ip = crate::raw::OFFLOAD + 14;
        field(frame, ip + 2);
        frame[ip + 10..ip + 12].fill(0);
        let sum = crate::checksums::sum(&[&frame[ip..udp]]);
        frame[ip + 10..ip + 12].copy_from_slice(&(!sum).to_be_bytes());
        frame[payload - 2..payload].fill(0);
        frame[0] &= !NEEDS_CSUM;
        frame.len() - cut
    }

    /// Lets a data datagram come from `port`. An open checksum holds no port; a complete one is
    /// corrected (RFC 1624).
    fn rename(&self, frame: &mut [u8], at: usize, port: u16) {
        let lane = frame.get(at + 8 + 1).copied();
        let old = u16::from_be_bytes([frame[at], frame[at + 1]]);
        if lane == Some(255) || old == port {
            return;
        }
        count(&self.tally.renamed);
        frame[at..at + 2].copy_from_slice(&port.to_be_bytes());
        if frame[0] & NEEDS_CSUM == 0 {
            let sum = u16::from_be_bytes([frame[at + 6], frame[at + 7]]);
            let mut new = u32::from(!sum) + u32::from(!old) + u32::from(port);
            new = (new & 0xffff) + (new >> 16);
            new = (new & 0xffff) + (new >> 16);
            frame[at + 6..at + 8].copy_from_slice(&(!(new as u16)).to_be_bytes());
        }
    }
}
