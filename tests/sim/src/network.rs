//! The underlay: which datagrams and segments pass between machines, and when.

use crate::random::Random;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Port that every host listens on.
pub const PORT: u16 = 6783;
/// What a clogged way holds before it drops, bytes.
const BACKLOG: u64 = 64 << 10;

/// A machine, numbered from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct HostId(pub u16);

impl HostId {
    /// The place of its machine in lists.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(self) -> SocketAddr {
        let [high, low] = self.0.to_be_bytes();
        SocketAddr::new(Ipv4Addr::new(10, 1, high, low).into(), PORT)
    }

    /// The machine with this address, if it is one of ours.
    #[must_use]
    pub fn of(address: SocketAddr) -> Option<Self> {
        let IpAddr::V4(ip) = address.ip() else { return None };
        let [10, 1, high, low] = ip.octets() else { return None };
        (address.port() == PORT).then(|| Self(u16::from_be_bytes([high, low])))
    }
}

/// How a way in one direction differs from a good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trouble {
    /// Datagrams lost of a thousand; segments of TCP come a retransmission later.
    pub loss: u16,
    /// Datagrams that come twice, of a thousand.
    pub duplicates: u16,
    /// Longest additional delay, drawn anew for each datagram: later ones overtake.
    pub jitter: Duration,
    /// Bytes a second that pass; all, if `None`.
    pub rate: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Way {
    /// How many faults cut it at the moment.
    cuts: u16,
    trouble: Trouble,
    /// The clogged way is busy until then.
    busy: Duration,
}

/// The underlay.
#[derive(Debug)]
pub struct Network {
    random: Random,
    latency: (Duration, Duration),
    machines: Vec<bool>,
    /// Ways that are not as good as the others.
    ways: BTreeMap<(HostId, HostId), Way>,
    /// Trouble of all other ways.
    pub everywhere: Trouble,
    seed: u64,
}

impl Network {
    /// A network in which one way takes a fixed time from `latency`.
    #[must_use]
    pub fn new(mut random: Random, latency: (Duration, Duration)) -> Self {
        let seed = random.next_u64();
        let (machines, ways) = (Vec::new(), BTreeMap::new());
        Self { random, latency, machines, ways, everywhere: Trouble::default(), seed }
    }

    /// A machine is switched on or off.
    pub fn set_machine(&mut self, host: HostId, on: bool) {
        if self.machines.len() <= host.index() {
            self.machines.resize(host.index() + 1, false);
        }
        if let Some(machine) = self.machines.get_mut(host.index()) {
            *machine = on;
        }
    }

    /// True if the machine is on.
    #[must_use]
    pub fn is_on(&self, host: HostId) -> bool {
        self.machines.get(host.index()).copied().unwrap_or(false)
    }

    /// One more fault cuts the way.
    pub fn cut(&mut self, from: HostId, to: HostId) {
        self.way(from, to).cuts += 1;
    }

    /// One fault less cuts the way.
    pub fn heal(&mut self, from: HostId, to: HostId) {
        let way = self.way(from, to);
        way.cuts = way.cuts.saturating_sub(1);
    }

    /// The way is in this trouble from now on.
    pub fn set_trouble(&mut self, from: HostId, to: HostId, trouble: Trouble) {
        self.way(from, to).trouble = trouble;
    }

    /// Every way is good again.
    pub fn heal_all(&mut self) {
        self.ways.clear();
        self.everywhere = Trouble::default();
    }

    /// True if anything passes this way, now.
    #[must_use]
    pub fn passes(&self, from: HostId, to: HostId) -> bool {
        let cuts = self.ways.get(&(from, to)).map_or(0, |way| way.cuts);
        cuts == 0 && self.is_on(from) && self.is_on(to)
    }

    /// True if it passes both ways.
    #[must_use]
    pub fn connects(&self, a: HostId, b: HostId) -> bool {
        self.passes(a, b) && self.passes(b, a)
    }

    /// Time a segment takes now.
    pub fn latency(&mut self, from: HostId, to: HostId) -> Duration {
        let trouble = self.trouble(from, to);
        self.base(from, to) + self.random.time(Duration::ZERO, trouble.jitter)
    }

    /// True if the next segment is lost.
    pub fn loses(&mut self, from: HostId, to: HostId) -> bool {
        let trouble = self.trouble(from, to);
        self.random.chance(trouble.loss)
    }

    /// Bytes a second that pass, if that is limited.
    #[must_use]
    pub fn rate(&self, from: HostId, to: HostId) -> Option<u64> {
        self.trouble(from, to).rate
    }

    /// When the copies of a datagram of `len` bytes arrive that is sent at `now`.
    pub fn datagram(&mut self, from: HostId, to: HostId, len: usize, now: Duration) -> Vec<Duration> {
        let trouble = self.trouble(from, to);
        if !self.passes(from, to) || self.random.chance(trouble.loss) {
            return Vec::new();
        }
        let Some(sent) = self.leave(from, to, len, now) else { return Vec::new() };
        let copies = 1 + usize::from(self.random.chance(trouble.duplicates));
        (0..copies).map(|_| sent + self.latency(from, to)).collect()
    }

    /// When a datagram has left a way that may be clogged.
    fn leave(&mut self, from: HostId, to: HostId, len: usize, now: Duration) -> Option<Duration> {
        let Some(rate) = self.rate(from, to) else { return Some(now) };
        let way = self.way(from, to);
        let begin = way.busy.max(now);
        if begin.saturating_sub(now) > transmission(BACKLOG, rate) {
            return None;
        }
        way.busy = begin + transmission(len as u64, rate);
        Some(way.busy)
    }

    /// True if a segment passes the same queue as datagrams: returns when it has left.
    pub fn transmit(&mut self, from: HostId, to: HostId, len: usize, now: Duration) -> Duration {
        let Some(rate) = self.rate(from, to) else { return now };
        let way = self.way(from, to);
        way.busy = way.busy.max(now) + transmission(len as u64, rate);
        way.busy
    }

    fn trouble(&self, from: HostId, to: HostId) -> Trouble {
        match self.ways.get(&(from, to)) {
            Some(way) if way.trouble != Trouble::default() => way.trouble,
            Some(_) | None => self.everywhere,
        }
    }

    fn way(&mut self, from: HostId, to: HostId) -> &mut Way {
        self.ways.entry((from, to)).or_default()
    }

    /// The time this way always takes: the same each way.
    fn base(&self, a: HostId, b: HostId) -> Duration {
        let (low, high) = (a.min(b), a.max(b));
        let pair = u64::from(low.0) << 16 | u64::from(high.0);
        Random::new(self.seed ^ pair).time(self.latency.0, self.latency.1)
    }
}

/// Time that `len` bytes take at `rate` bytes a second.
fn transmission(len: u64, rate: u64) -> Duration {
    Duration::from_micros(len.saturating_mul(1_000_000) / rate.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Network {
        let millis = Duration::from_millis;
        let mut network = Network::new(Random::new(1), (millis(1), millis(9)));
        (0..2).for_each(|host| network.set_machine(HostId(host), true));
        network
    }

    #[test]
    fn a_cut_one_way_leaves_the_other_and_ends_with_its_last_fault() {
        let (mut network, a, b) = (network(), HostId(0), HostId(1));
        network.cut(a, b);
        network.cut(a, b);
        network.heal(a, b);
        assert!(!network.passes(a, b) && network.passes(b, a) && !network.connects(a, b));
        network.heal(a, b);
        assert!(network.connects(a, b));
        network.set_machine(b, false);
        assert!(!network.passes(b, a));
    }

    #[test]
    fn a_clogged_way_delays_and_then_drops() {
        let (mut network, a, b) = (network(), HostId(0), HostId(1));
        network.set_trouble(a, b, Trouble { rate: Some(10_000), ..Trouble::default() });
        let arrivals: Vec<_> =
            (0..100).map(|_| network.datagram(a, b, 1000, Duration::ZERO).first().copied()).collect();
        assert!(arrivals.iter().flatten().is_sorted());
        assert!((60..70).contains(&arrivals.iter().flatten().count()));
    }
}
