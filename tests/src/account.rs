//! An account of frames: each that was sent is delivered, or somebody counted that it was not.
//!
//! The unit is a frame of a container as it crosses a link, so datagrams of the containers that are
//! one frame each. Nothing else may be under way: containers without IPv6 that know each other's
//! MAC. What is counted twice is taken once: devices, not the backlog of the processors that they
//! lose to; the router's `socket_full`, not the kernel's number of the same socket.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::read_to_string;
use std::process::Command;

use serde_json::Value;
use weave_host::tap::TAP;
use weave_perf::lab::UNDERLAY;
use weave_perf::traffic::udp::Delivery;

use crate::World;
use crate::relay::Relay;
use crate::world::INTERFACE;

/// Reasons that are no drops of frames: reports of a shard to its control core.
const NOT_FRAMES: [&str; 1] = ["report_full"];

/// Every place where a frame may have gone, and how many did.
#[derive(Debug, Clone, Default)]
pub struct Account {
    gone: BTreeMap<String, u64>,
    /// Frames that the relays added.
    copies: u64,
    /// Of what is counted as gone: what may have been no frame, or a fragment.
    unclear: u64,
}

impl Account {
    /// As it stands now.
    #[must_use]
    pub fn read(world: &World, relays: &[Relay]) -> Self {
        let mut account = Self::default();
        for index in world.indices() {
            account.add_router(world, index);
            let host = world.on_host(index, Drops::read);
            account.add_kernel(&format!("kernel of host {index}"), &host);
            for container in world.containers_of(index) {
                account.add_kernel(
                    &format!("kernel of container {index}"),
                    &container.run(Drops::read).unwrap(),
                );
            }
        }
        for (number, relay) in relays.iter().enumerate() {
            for (what, count) in relay.counts().removed() {
                account.add(format!("relay {number}: {what}"), count);
            }
            account.copies += relay.counts().copies();
            account.add(format!("relay {number}: its devices"), relay.dropped());
            account.unclear += relay.dropped() + relay.counts().unclear();
        }
        account
    }

    fn add(&mut self, place: String, count: u64) {
        *self.gone.entry(place).or_default() += count;
    }

    fn add_router(&mut self, world: &World, index: usize) {
        let status = world.status(index);
        let drops = status.shards.iter().flat_map(|shard| &shard.drops);
        for (reason, count) in drops.filter(|(reason, _)| !NOT_FRAMES.contains(&reason.as_str())) {
            self.add(format!("router {index}: {reason}"), *count);
        }
        // Where a damaged frame goes that looks like one of the control lane.
        let what = "heartbeats_dropped";
        self.add(format!("router {index}: {what}"), status.counters[what]);
    }

    fn add_kernel(&mut self, place: &str, drops: &Drops) {
        for (what, count) in &drops.0 {
            self.add(format!("{place}: {what}"), *count);
            if is_underlay(what) {
                self.unclear += count;
            }
        }
    }

    /// What was added since `before`, without what stayed as it was.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let grown = |(place, now): (&String, &u64)| {
            let new = now - before.gone.get(place).copied().unwrap_or(0);
            (new > 0).then(|| (place.clone(), new))
        };
        Self {
            gone: self.gone.iter().filter_map(grown).collect(),
            copies: self.copies - before.copies,
            unclear: self.unclear - before.unclear,
        }
    }

    /// How many went where the name of the place ends so.
    #[must_use]
    pub fn gone(&self, end: &str) -> u64 {
        self.gone.iter().filter(|(place, _)| place.ends_with(end)).map(|(_, count)| count).sum()
    }

    /// Both sides of the account.
    #[must_use]
    pub fn balance(&self, deliveries: &[Delivery]) -> Balance {
        let sent: u64 = deliveries.iter().map(|delivery| delivery.sent).sum();
        let delivered: u64 = deliveries.iter().map(|delivery| delivery.delivered).sum();
        Balance { sent, delivered, account: self.clone() }
    }
}

/// Keep-alives and probes that sockets may have had no room for, in the time of a test, at most:
/// each shard sends one a second to each peer.
const KEEP_ALIVES: u64 = 32;

/// What was sent, and what became of it.
#[derive(Debug)]
pub struct Balance {
    sent: u64,
    delivered: u64,
    account: Account,
}

impl Balance {
    /// Frames too few in the account; negative: too many.
    fn missing(&self) -> i64 {
        let gone: u64 = self.account.gone.values().sum();
        (self.sent + self.account.copies) as i64 - (self.delivered + gone) as i64
    }

    /// True if nothing is missing, nothing is too much. Where the kernel dropped what may have been
    /// no frame, so much may be missing; of what sockets had no room for a few were keep-alives.
    #[must_use]
    pub fn holds(&self) -> bool {
        let keep_alives = if self.account.gone(": socket_full") > 0 { KEEP_ALIVES } else { 0 };
        let missing = self.missing();
        missing.unsigned_abs() <= self.account.unclear
            || (missing < 0 && missing.unsigned_abs() <= keep_alives)
    }
}

impl Balance {
    /// True if both sides are equal and nothing is unclear: of each frame it is known where it went.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.missing() == 0 && self.account.unclear == 0
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>9}  sent by containers", self.sent)?;
        writeln!(f, "{:>9}  added by relays", self.account.copies)?;
        writeln!(f, "{:>9}  delivered to containers", self.delivered)?;
        for (place, count) in &self.account.gone {
            writeln!(f, "{count:>9}  {place}")?;
        }
        writeln!(f, "{:>9}  missing ({} of the drops are unclear)", self.missing(), self.account.unclear)
    }
}

/// What the kernel dropped in one namespace, on devices that frames or their datagrams pass.
#[derive(Debug)]
struct Drops(Vec<(String, u64)>);

impl Drops {
    /// In that of the calling thread.
    fn read() -> Self {
        let mut found = devices();
        found.extend(queues());
        // In hosts these are the routers' own, which they count themselves.
        if found.iter().any(|(what, _)| what.starts_with(INTERFACE)) {
            found.extend(sockets());
        }
        Self(found)
    }
}

/// Which drops of a device are of frames and counted nowhere else: what a shard cannot write to the
/// tap it counts itself.
fn counted(device: &str) -> &'static [(&'static str, usize)] {
    const RECEIVED: (&str, usize) = ("received", 3);
    const SENT: (&str, usize) = ("sent", 11);
    if device == TAP || device.starts_with("vethw") {
        &[SENT]
    } else if device == INTERFACE || is_underlay(device) {
        &[RECEIVED, SENT]
    } else {
        &[]
    }
}

/// Devices, or drops of them, that links go by: of what crosses them not all is frames.
fn is_underlay(device: &str) -> bool {
    device.starts_with("mesh") || device.starts_with(UNDERLAY)
}

fn devices() -> Vec<(String, u64)> {
    let text = read_to_string("/proc/thread-self/net/dev").unwrap();
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let of_device = |(device, numbers): (&str, &str)| {
        let (device, numbers): (_, Vec<&str>) = (device.trim(), numbers.split_whitespace().collect());
        let number = |column: usize| numbers[column].parse().unwrap();
        counted(device).iter().map(|(what, column)| (format!("{device} {what}"), number(*column))).collect()
    };
    lines.map(of_device).collect::<Vec<Vec<_>>>().concat()
}

/// Drops of the queueing disciplines in front of the same devices.
fn queues() -> Vec<(String, u64)> {
    let output = Command::new("tc").args(["-s", "-j", "qdisc", "show"]).output().unwrap();
    let queues: Value = serde_json::from_slice(&output.stdout).unwrap();
    let queues = queues.as_array().unwrap().iter();
    let of = |queue: &Value| Some((queue["dev"].as_str()?.to_owned(), queue["drops"].as_u64()?));
    let found = queues.filter_map(of).filter(|(device, _)| !counted(device).is_empty());
    found.map(|(device, drops)| (format!("{device} queue"), drops)).collect()
}

/// Datagrams that UDP sockets had no room for.
fn sockets() -> Vec<(String, u64)> {
    let text = read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("Udp:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let pairs = names.split_whitespace().zip(values.split_whitespace());
    let wanted = pairs.filter(|(name, _)| ["RcvbufErrors", "InCsumErrors"].contains(name));
    wanted.map(|(name, value)| (format!("sockets {name}"), value.parse().unwrap())).collect()
}
