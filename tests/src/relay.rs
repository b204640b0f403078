//! A network between the two hosts that a test has in its hand.
//!
//! ```text
//! host 0 ── mesh0 ═══ side0 (relay) side1 ═══ mesh0 ── host 1
//! ```
//!
//! The relay is a thread in a namespace of its own that passes frames from one side to the other,
//! and may lose, double, delay, damage and repeat them, or change where they seem to come from.
//! Routers that dial [`Relay::HOST0`] have no other way to each other.

mod harm;
mod ledger;
mod work;

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use weave_host::address::cidr;
use weave_host::ethtool::{self, GRO, GRO_UDP_FORWARDING, GSO, TSO4, TSO6, USO};
use weave_host::netlink::VethEnd;
use weave_host::{Namespace, Netlink};

use crate::World;
use crate::random::Random;
use crate::raw::RawSocket;
pub use ledger::Counts;
use ledger::Ledger;
use work::Work;

/// Name of the device of each host towards the first relay.
pub const DEVICE: &str = "mesh0";

/// What happens to UDP frames, in 1,000; TCP is lost, doubled and delayed only: damage would be
/// found by its checksum. What is no number happens to all frames.
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
    /// Nothing passes towards this end.
    pub blocked: [bool; 2],
    /// Each direction carries no more than this.
    pub clog: Option<Clog>,
    /// Longest IP packet that passes, bytes; nobody is told.
    pub mtu: Option<usize>,
}

/// A narrow place.
#[derive(Debug, Clone, Copy)]
pub struct Clog {
    /// What it carries.
    pub bytes_per_second: u64,
    /// Bytes that wait before it; what comes beside them does not pass.
    pub backlog: usize,
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
    faults: Arc<Mutex<Faults>>,
    tally: Arc<Tally>,
    counts: Arc<Counts>,
    middle: Namespace,
    thread: Option<JoinHandle<()>>,
}

/// The ends of a relay.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    /// Its number in the world: of its subnet, and of its device on both hosts.
    pub number: u8,
    /// The hosts that it joins.
    pub hosts: [usize; 2],
}

impl Ends {
    /// The address of end `end`, 0 or 1.
    #[must_use]
    pub fn address(self, end: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 98, self.number, 1 + end as u8)
    }

    /// The device of both hosts.
    #[must_use]
    pub fn device(self) -> String {
        format!("mesh{}", self.number)
    }
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
        let ends = Ends { number: 0, hosts: [0, 1] };
        Self::start(world, ends, faults, random, gro, None)
    }

    /// Joins two hosts of `world` and keeps account of what becomes of frames, which have these
    /// lengths and no others. Chance does nothing to what is not a whole frame.
    #[must_use]
    pub fn accounting(world: &World, ends: Ends, random: Random, frames: &[usize]) -> Self {
        Self::start(world, ends, Faults::default(), random, false, Some(Ledger::new(frames)))
    }

    fn start(
        world: &World,
        ends: Ends,
        faults: Faults,
        random: Random,
        gro: bool,
        ledger: Option<Ledger>,
    ) -> Self {
        let middle = Namespace::create("relay").unwrap();
        for end in [0, 1] {
            join(world, &middle, ends, end, gro);
        }
        let sides = middle.run(|| [RawSocket::open("side0"), RawSocket::open("side1")]).unwrap();
        let (over, faulty) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (tally, counts) = (Arc::<Tally>::default(), Arc::<Counts>::default());
        let faults = Arc::new(Mutex::new(faults));
        let mut work = Work::new(sides, random, ledger, &tally, &counts);
        let (end, broken, trouble) = (Arc::clone(&over), Arc::clone(&faulty), Arc::clone(&faults));
        let thread = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                let faults = *trouble.lock().unwrap();
                work.turn(&faults, broken.load(Ordering::Relaxed));
            }
            assert_eq!(work.missed(), 0, "the relay itself was too slow");
        });
        Self { over, faulty, faults, tally, counts, middle, thread: Some(thread) }
    }

    /// Changes the trouble and begins it.
    pub fn set_faults(&self, faults: Faults) {
        *self.faults.lock().unwrap() = faults;
        self.set_faulty(true);
    }

    /// What became of frames so far.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
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

/// Connects the host of one end.
fn join(world: &World, middle: &Namespace, ends: Ends, end: usize, gro: bool) {
    let (side, device) = (format!("side{end}"), ends.device());
    let host = world.host(ends.hosts[end]).namespace();
    let mut netlink = Netlink::in_namespace(middle).unwrap();
    let there = VethEnd { namespace: Some(host), ..VethEnd::new(&device) };
    netlink.create_veth(VethEnd::new(&side), there, 1500).unwrap();
    let link = netlink.expect_link(&side).unwrap();
    middle.run(|| plain(&side, false)).unwrap();
    netlink.set_up(&link).unwrap();
    host.run(|| plain(&device, gro)).unwrap();
    let mut netlink = Netlink::in_namespace(host).unwrap();
    let link = netlink.expect_link(&device).unwrap();
    netlink.add_address(link.index, cidr(ends.address(end).into(), 24).unwrap()).unwrap();
    netlink.set_up(&link).unwrap();
}

/// One datagram a frame, as a network card would put it on the wire.
fn plain(device: &str, gro: bool) {
    let off =
        [(TSO4, false), (TSO6, false), (USO, false), (GSO, false), (GRO, gro), (GRO_UDP_FORWARDING, gro)];
    ethtool::set_features(device, &off).unwrap();
}
