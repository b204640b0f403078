//! All shards of a router: their start, their commands, their end.

use crate::command::{Command, CommandQueue, REPORT_QUEUE, Report};
use crate::counters::Counters;
use crate::handover::Inbox;
use crate::io::address::Family;
use crate::io::buffers::Buffers;
use crate::io::ring::{COMPLETIONS, Ring};
use crate::io::sends::Sends;
use crate::io::socket::SocketSet;
use crate::probe::Features;
use crate::shard::{
    BUFFER_LEN, Door, Parts, READ_BUFFERS, READ_GROUP, RECEIVE_BUFFERS, RECEIVE_GROUP, Shard,
};
use crate::storm::StormControl;
use crate::tables::Tables;
use crate::{ControlSockets, MAX_SHARDS};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use weave_wire::PeerName;

/// How a router forwards.
#[derive(Debug)]
pub struct GroupConfig {
    /// This host's name, the source of its frames.
    pub own_name: PeerName,
    /// MTU of the network, bytes.
    pub mtu: usize,
    /// The sockets, for as many shards as there are tap queues.
    pub sockets: SocketSet,
    /// One tap queue a shard; their number is the number of shards.
    pub taps: Vec<OwnedFd>,
    /// What the kernel can do and no switch turned off.
    pub features: Features,
    /// Join TCP segments to super-frames for the tap.
    pub join_tcp: bool,
    /// Join UDP datagrams to super-frames for the tap.
    pub join_udp: bool,
    /// The network is clear: checksums are completed before frames leave.
    pub clear: bool,
    /// Cores to pin shards to, in turn; none: the scheduler chooses.
    pub cores: Vec<usize>,
    /// Entries of each completion queue, if not the usual number (tests).
    pub completions: Option<u32>,
}

/// A shard could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No tap queue, or more than there are lanes.
    #[error("{0} shards: 1 to {MAX_SHARDS} are possible")]
    Count(usize),
    /// Ring, buffers or thread.
    #[error("{step} of shard {shard} failed: {cause}")]
    Shard {
        /// What was tried.
        step: &'static str,
        /// For which shard.
        shard: usize,
        /// The kernel's answer.
        cause: io::Error,
    },
}

/// Shards with all they need, before their threads start: what is left needs no
/// privilege.
pub struct Prepared {
    shards: Vec<Shard>,
    cores: Vec<usize>,
    reporter: async_channel::Sender<Report>,
    group: Group,
    control: ControlSockets,
}

/// The shards at work.
#[derive(Debug)]
pub struct Group {
    doors: Arc<[Door]>,
    counters: Vec<Arc<Counters>>,
    reports: async_channel::Receiver<Report>,
    threads: Vec<JoinHandle<()>>,
    family: Family,
    port: u16,
    large_buffers: bool,
}

impl Prepared {
    /// Starts one thread for each shard.
    ///
    /// # Errors
    /// [`StartError::Shard`]; nothing goes on running.
    pub fn start(self) -> Result<(Group, ControlSockets), StartError> {
        let Self { shards, cores, reporter, mut group, control } = self;
        for (shard, built) in shards.into_iter().enumerate() {
            let core = cores.get(shard % cores.len().max(1)).copied();
            let reporter = reporter.clone();
            let thread = std::thread::Builder::new()
                .name(format!("weave-shard-{shard}"))
                .spawn(move || run(built, shard, core, &reporter))
                .map_err(|cause| StartError::Shard { step: "the thread", shard, cause });
            match thread {
                Ok(thread) => group.threads.push(thread),
                Err(error) => {
                    group.stop();
                    return Err(error);
                }
            }
        }
        Ok((group, control))
    }
}

impl Group {
    /// Makes a ring and its memory for each tap queue.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn prepare(config: GroupConfig) -> Result<Prepared, StartError> {
        let shards = config.taps.len();
        if !(1..=MAX_SHARDS).contains(&shards) {
            return Err(StartError::Count(shards));
        }
        let door = |shard: usize| -> Result<Door, StartError> {
            let commands = CommandQueue::new().map_err(|cause| StartError::Shard {
                step: "the eventfd",
                shard,
                cause,
            })?;
            Ok(Door {
                commands,
                inbox: Inbox::new(),
                woken: AtomicBool::new(false),
                stopping: AtomicBool::new(false),
            })
        };
        let doors: Arc<[Door]> = (0..shards).map(door).collect::<Result<Vec<_>, _>>()?.into();
        let (reporter, reports) = async_channel::bounded(REPORT_QUEUE);
        let counters: Vec<Arc<Counters>> = (0..shards).map(|_| Arc::default()).collect();
        let storm = Arc::default();
        let built: Vec<Shard> = (0..shards)
            .map(|shard| build(&config, shard, &doors, &storm, &counters, &reporter))
            .collect::<Result<_, _>>()?;
        let group = Self {
            doors,
            counters,
            reports,
            threads: Vec::with_capacity(shards),
            family: config.sockets.family,
            port: config.sockets.port,
            large_buffers: config.sockets.large_buffers,
        };
        Ok(Prepared { shards: built, cores: config.cores, reporter, group, control: config.sockets.control })
    }

    /// Number of shards.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.doors.len()
    }

    /// The mesh port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// True if addresses of both families can be reached.
    #[must_use]
    pub fn reaches_ipv6(&self) -> bool {
        self.family == Family::Dual
    }

    /// True if the kernel gave socket buffers as large as asked for.
    #[must_use]
    pub const fn large_buffers(&self) -> bool {
        self.large_buffers
    }

    /// What the shards report.
    #[must_use]
    pub fn reports(&self) -> async_channel::Receiver<Report> {
        self.reports.clone()
    }

    /// The counters of every shard.
    #[must_use]
    pub fn counters(&self) -> &[Arc<Counters>] {
        &self.counters
    }

    /// Sends a command to one shard.
    ///
    /// # Errors
    /// Gives the command back if the shard is too far behind, or not there.
    pub fn send(&self, shard: usize, command: Command) -> Result<(), Command> {
        match self.doors.get(shard) {
            Some(door) => door.commands.push(command),
            None => Err(command),
        }
    }

    /// Sends a command to one shard, which reads it with the next one or when it is woken.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_quietly(&self, shard: usize, command: Command) -> Result<(), Command> {
        match self.doors.get(shard) {
            Some(door) => door.commands.push_quietly(command),
            None => Err(command),
        }
    }

    /// Wakes every shard.
    pub fn wake(&self) {
        for door in self.doors.iter() {
            door.commands.notify();
        }
    }

    /// Ends all shards and waits for them.
    pub fn stop(&mut self) {
        self.reports.close();
        for door in self.doors.iter() {
            door.stopping.store(true, Ordering::Release);
            door.commands.notify();
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a shard ended in a panic");
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) fn build(
    config: &GroupConfig,
    shard: usize,
    doors: &Arc<[Door]>,
    storm: &Arc<StormControl>,
    counters: &[Arc<Counters>],
    reports: &async_channel::Sender<Report>,
) -> Result<Shard, StartError> {
    let failed = |step: &'static str| move |cause: io::Error| StartError::Shard { step, shard, cause };
    let missing = || StartError::Count(shard);
    let ring = Ring::new(config.completions.unwrap_or(COMPLETIONS), config.features)
        .map_err(failed("io_uring_setup"))?;
    let tap = config.taps.get(shard).ok_or_else(missing)?;
    let receive_socket = config.sockets.receive.get(shard).ok_or_else(missing)?;
    let send_socket = config.sockets.send.get(shard).ok_or_else(missing)?;
    let door = doors.get(shard).ok_or_else(missing)?;
    ring.register(tap.as_fd(), receive_socket.as_fd(), send_socket.as_fd(), door.commands.wake_fd())
        .map_err(failed("registering files"))?;
    let receive = Buffers::new(RECEIVE_GROUP, RECEIVE_BUFFERS, BUFFER_LEN)
        .map_err(failed("mapping receive buffers"))?;
    let read = Buffers::new(READ_GROUP, READ_BUFFERS, BUFFER_LEN).map_err(failed("mapping read buffers"))?;
    ring.provide(&receive).map_err(failed("registering receive buffers"))?;
    ring.provide(&read).map_err(failed("registering read buffers"))?;
    Ok(Shard::new(Parts {
        ring,
        receive,
        read,
        sends: Sends::new().map_err(failed("mapping send buffers"))?,
        tables: Tables::new(config.own_name, shard, config.taps.len(), config.mtu),
        storm: Arc::clone(storm),
        counters: Arc::clone(counters.get(shard).ok_or_else(missing)?),
        doors: Arc::clone(doors),
        reports: reports.clone(),
        shard,
        family: config.sockets.family,
        segmentation: config.features.segmentation,
        join_udp: config.join_udp,
        join_tcp: config.join_tcp,
        complete_checksums: config.clear,
    }))
}

fn run(built: Shard, shard: usize, core: Option<usize>, reports: &async_channel::Sender<Report>) {
    if let Some(core) = core {
        let mut set = CpuSet::new();
        let pinned = set.set(core).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
        if let Err(error) = pinned {
            tracing::warn!(shard, core, "pinning a shard: {error}");
        }
    }
    // The control core ends the router then: no session outlives state it lost.
    // (Release builds abort at once.)
    let error = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| built.run())) {
        Ok(result) => result.err().map(|error| error.to_string()),
        Err(_) => Some("it panicked, which is a fault of this program".into()),
    };
    // However much waits to be read, this has to be learned. Once nobody reads any more
    // (`Group::stop`) the queue is closed.
    let failed = error.is_some();
    if reports.send_blocking(Report::Ended { shard, error }).is_err() && failed {
        tracing::error!(shard, "nobody learns that a shard ended");
    }
}
