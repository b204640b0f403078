//! Which peers to dial, and when.

use crate::backoff::Backoff;
use hashbrown::{HashMap, HashSet};
use std::collections::BTreeMap;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::ops::Bound;
use std::time::Duration;
use weave_wire::PeerName;

/// Dials under way, at most.
pub const DIALS: usize = 20;
/// Targets, at most.
pub const TARGETS: usize = 512;
/// Recent peers, at most.
pub const RECENT: usize = 512;
/// Addresses of peers learned from others that are dialled, at most, and those of
/// each. Peers beyond that have their turn when others failed [`GIVES_WAY`] times.
pub const DISCOVERED: usize = 1_024;
const DISCOVERED_ADDRESSES: usize = 8;
const GIVES_WAY: u32 = 3;
/// Longest wait between dials of a peer that is reached over others: a direct link
/// replaces the relay that soon.
const DISCOVERED_WAIT: Duration = Duration::from_secs(10);
/// Dials of one address that others told of are at least this far apart, whatever
/// they tell: nobody else's host is to be flooded by what members gossip.
const DISCOVERED_APART: Duration = Duration::from_secs(1);
/// The larger name of two waits this much longer, so that they do not dial at once.
const YIELD: Duration = Duration::from_millis(500);
/// Recent peers that never answered are forgotten after this time.
const RECENT_KEPT: Duration = Duration::from_secs(600);

/// An entry of the dialler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DialId(u64);

/// Why an address is dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The user named it.
    Target,
    /// There was a link to it.
    Recent,
    /// Others told that a peer is there.
    Discovered(PeerName),
}

/// How an entry stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stand {
    /// To be dialled then.
    Waiting(Duration),
    /// Being dialled since then.
    Dialling(Duration),
    /// Linked, by the link of this number.
    Linked(u64),
}

/// Something to dial. `T` is how targets are written.
#[derive(Debug, Clone)]
pub struct Entry<T> {
    id: DialId,
    /// What to dial.
    pub target: T,
    /// Why.
    pub origin: Origin,
    /// How it stands.
    pub stand: Stand,
    /// Why the last dial failed.
    pub reason: Option<String>,
    /// True if that reason is not cured by time alone.
    pub refused: bool,
    /// Failures since the last link.
    pub failures: u32,
    /// The address the target had when it was dialled last.
    pub address: Option<SocketAddr>,
    since: Duration,
    backoff: Backoff,
}

/// All that is to be dialled.
#[derive(Debug)]
pub struct Dialler<T> {
    /// By rising id.
    entries: Vec<Entry<T>>,
    /// Addresses that others told of, dialled within [`DISCOVERED_APART`].
    dialled: HashMap<T, Duration>,
    next_id: u64,
    /// The last peer learned from others whose turn it was.
    last_turn: Option<PeerName>,
}

impl<T> Default for Dialler<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), dialled: HashMap::new(), next_id: 0, last_turn: None }
    }
}

impl<T: Clone + Eq + Hash> Dialler<T> {
    /// Everything known, targets in the order they were given.
    #[must_use]
    pub fn entries(&self) -> &[Entry<T>] {
        &self.entries
    }

    /// The targets.
    pub fn targets(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().filter(|entry| entry.origin == Origin::Target).map(|entry| &entry.target)
    }

    /// Adds targets, to be dialled at once, also those that were waiting. False
    /// if there are too many; then nothing changed.
    #[must_use]
    pub fn add_targets(&mut self, targets: &[T], now: Duration) -> bool {
        let new = targets.iter().filter(|target| !self.targets().any(|known| known == *target)).count();
        if self.targets().count() + new > TARGETS {
            return false;
        }
        for target in targets {
            match self.entries.iter_mut().find(|entry| entry.target == *target) {
                Some(entry) => {
                    entry.origin = Origin::Target;
                    if let Stand::Waiting(at) = &mut entry.stand {
                        *at = now;
                        entry.backoff = Backoff::new(now);
                    }
                }
                None => self.insert(target.clone(), Origin::Target, now),
            }
        }
        true
    }

    /// Exactly these targets from now on; links to others stay. False if there
    /// are too many; then nothing changed.
    #[must_use]
    pub fn replace_targets(&mut self, targets: &[T], now: Duration) -> bool {
        if targets.len() > TARGETS {
            return false;
        }
        self.entries.retain(|entry| entry.origin != Origin::Target || targets.contains(&entry.target));
        self.add_targets(targets, now)
    }

    /// Not to be dialled again when their links are lost.
    pub fn forget(&mut self, targets: &[T]) {
        self.entries.retain(|entry| !targets.contains(&entry.target));
    }

    /// A peer there was a link to lately.
    pub fn add_recent(&mut self, target: T, now: Duration) {
        let recent = self.entries.iter().filter(|entry| entry.origin == Origin::Recent).count();
        if recent < RECENT && !self.entries.iter().any(|entry| entry.target == target) {
            self.insert(target, Origin::Recent, now);
        }
    }

    /// Exactly these peers are reached over others and have no link to `ourselves`:
    /// their addresses are dialled, besides targets and recent peers. What is not
    /// among them any more is linked, or gone.
    pub fn set_discovered(&mut self, peers: Vec<(PeerName, Vec<T>)>, ourselves: PeerName, now: Duration) {
        let mut wanted: BTreeMap<PeerName, Vec<T>> = peers.into_iter().collect();
        wanted.values_mut().for_each(|addresses| addresses.truncate(DISCOVERED_ADDRESSES));
        let crowded = wanted.values().map(Vec::len).sum::<usize>() > DISCOVERED;
        self.entries.retain(|entry| match (entry.origin, &entry.stand) {
            (Origin::Discovered(name), Stand::Waiting(_)) => {
                let gives_way = crowded && entry.failures >= GIVES_WAY;
                !gives_way && wanted.get(&name).is_some_and(|addresses| addresses.contains(&entry.target))
            }
            // A dial under way ends by itself; a link is why its peer is not wanted.
            (Origin::Discovered(_), Stand::Dialling(_)) => true,
            (Origin::Discovered(_), Stand::Linked(_)) => false,
            (Origin::Target | Origin::Recent, _) => true,
        });
        let is_discovered = |entry: &&Entry<T>| matches!(entry.origin, Origin::Discovered(_));
        let mut room = DISCOVERED.saturating_sub(self.entries.iter().filter(is_discovered).count());
        let mut known: HashSet<T> = self.entries.iter().map(|entry| entry.target.clone()).collect();
        for (name, addresses) in in_turn(&wanted, self.last_turn) {
            if room < addresses.len() {
                break;
            }
            let first = if *name < ourselves { now.saturating_add(YIELD) } else { now };
            for address in addresses {
                if known.insert(address.clone()) {
                    self.insert(address.clone(), Origin::Discovered(*name), first);
                    self.last_turn = Some(*name);
                    room -= 1;
                }
            }
        }
    }

    fn insert(&mut self, target: T, origin: Origin, now: Duration) {
        let id = DialId(self.next_id);
        self.next_id += 1;
        self.entries.push(Entry {
            id,
            target,
            origin,
            stand: Stand::Waiting(now),
            reason: None,
            refused: false,
            failures: 0,
            address: None,
            since: now,
            backoff: Backoff::new(now),
        });
    }

    fn entry_mut(&mut self, id: DialId) -> Option<&mut Entry<T>> {
        let at = self.entries.binary_search_by_key(&id, |entry| entry.id).ok()?;
        self.entries.get_mut(at)
    }

    /// What to dial now, with the number of failures before; counted as being
    /// dialled from now on.
    pub fn due(&mut self, now: Duration) -> Vec<(DialId, T, u32)> {
        self.entries.retain(|entry| {
            entry.origin != Origin::Recent
                || !matches!(entry.stand, Stand::Waiting(_))
                || now.saturating_sub(entry.since) < RECENT_KEPT
        });
        self.dialled.retain(|_, at| now.saturating_sub(*at) < DISCOVERED_APART);
        let under_way = self.entries.iter().filter(|entry| matches!(entry.stand, Stand::Dialling(_))).count();
        let mut due = Vec::new();
        for entry in &mut self.entries {
            if under_way + due.len() >= DIALS {
                break;
            }
            if matches!(entry.stand, Stand::Waiting(at) if at <= now) {
                if matches!(entry.origin, Origin::Discovered(_)) {
                    if let Some(last) = self.dialled.get(&entry.target) {
                        entry.stand = Stand::Waiting(last.saturating_add(DISCOVERED_APART));
                        continue;
                    }
                    self.dialled.insert(entry.target.clone(), now);
                }
                entry.stand = Stand::Dialling(now);
                due.push((entry.id, entry.target.clone(), entry.failures));
            }
        }
        due
    }

    /// The target was found to have this address.
    pub fn resolved(&mut self, id: DialId, address: SocketAddr) {
        if let Some(entry) = self.entry_mut(id) {
            entry.address = Some(address);
        }
    }

    /// A dial failed, and why; `refused`: for a reason that time alone does not
    /// cure. `jitter`: see [`Backoff::fail`].
    pub fn failed(&mut self, id: DialId, reason: String, refused: bool, now: Duration, jitter: f64) {
        if let Some(entry) = self.entry_mut(id)
            && matches!(entry.stand, Stand::Dialling(_))
        {
            entry.failures += 1;
            entry.reason = Some(reason);
            entry.refused = refused;
            let mut wait = entry.backoff.fail(refused, now, jitter);
            if matches!(entry.origin, Origin::Discovered(_)) {
                let longest = DISCOVERED_WAIT.mul_f64(1.0 - 0.25 * jitter.clamp(0.0, 1.0));
                wait = wait.min(longest);
            }
            entry.stand = Stand::Waiting(now.saturating_add(wait));
        }
    }

    /// Link number `link` is there: entry `id`, if it was dialled for one, and
    /// all entries with the address `address` need no dial.
    pub fn linked(&mut self, link: u64, id: Option<DialId>, address: SocketAddr) {
        for entry in &mut self.entries {
            if Some(entry.id) == id
                || (entry.address == Some(address) && !matches!(entry.stand, Stand::Linked(_)))
            {
                entry.stand = Stand::Linked(link);
            }
        }
    }

    /// Link number `link` passes data: why there was none before is of no interest any more.
    pub fn established(&mut self, link: u64) {
        for entry in self.entries.iter_mut().filter(|entry| entry.stand == Stand::Linked(link)) {
            entry.reason = None;
            entry.failures = 0;
            entry.refused = false;
        }
    }

    /// What link number `link` was dialled for, if anything.
    #[must_use]
    pub fn of_link(&self, link: u64) -> Option<&Entry<T>> {
        self.entries.iter().find(|entry| entry.stand == Stand::Linked(link))
    }

    /// Another link took the place of link `old`.
    pub fn relinked(&mut self, old: u64, new: u64) {
        for entry in &mut self.entries {
            if entry.stand == Stand::Linked(old) {
                entry.stand = Stand::Linked(new);
            }
        }
    }

    /// Link number `link` is lost, and why: dial again, at once if it had been
    /// `established`, else with growing waits: the peer may have refused us.
    /// `jitter`: see [`Backoff::fail`].
    pub fn lost(&mut self, link: u64, reason: &str, established: bool, now: Duration, jitter: f64) {
        for entry in &mut self.entries {
            if entry.stand == Stand::Linked(link) {
                let wait = if established {
                    entry.backoff = Backoff::new(now);
                    Duration::ZERO
                } else {
                    entry.failures += 1;
                    entry.backoff.ended(now, jitter)
                };
                entry.stand = Stand::Waiting(now.saturating_add(wait));
                entry.since = now;
                entry.reason = Some(reason.to_owned());
            }
        }
    }

    /// When something is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let waiting = self.entries.iter().filter_map(|entry| match entry.stand {
            Stand::Waiting(at) => Some(at),
            Stand::Dialling(_) | Stand::Linked(_) => None,
        });
        let under_way = self.entries.iter().filter(|entry| matches!(entry.stand, Stand::Dialling(_))).count();
        if under_way >= DIALS { None } else { waiting.min() }
    }
}

/// All peers, those behind `last` first.
fn in_turn<T>(
    peers: &BTreeMap<PeerName, Vec<T>>,
    last: Option<PeerName>,
) -> impl Iterator<Item = (&PeerName, &Vec<T>)> {
    let behind = last.map_or(Bound::Unbounded, Bound::Excluded);
    let before = last.map(|last| peers.range(..=last)).into_iter().flatten();
    peers.range((behind, Bound::Unbounded)).chain(before)
}

/// True for addresses told by others that may be dialled: those of one host
/// elsewhere.
#[must_use]
pub fn may_dial(address: SocketAddr) -> bool {
    let elsewhere = match address.ip().to_canonical() {
        IpAddr::V4(ip) => {
            !(ip.is_loopback()
                || ip.is_multicast()
                || ip.is_unspecified()
                || ip.is_broadcast()
                || ip.octets()[0] == 0)
        }
        IpAddr::V6(ip) => {
            // A link-local address means nothing without its interface.
            !(ip.is_loopback() || ip.is_multicast() || ip.is_unspecified() || ip.is_unicast_link_local())
        }
    };
    elsewhere && address.port() != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_tell_brings_one_dial_a_second_to_an_address() {
        let mut dialler = Dialler::default();
        let mut now = Duration::ZERO;
        let (ours, peer) = (PeerName::new([2; 6]), PeerName::new([3; 6]));
        let (Some(ours), Some(peer)) = (ours, peer) else { panic!("names") };
        let mut dials = 0;
        while now < seconds(10) {
            dialler.set_discovered(vec![(peer, vec![address(9)])], ours, now);
            for (id, ..) in dialler.due(now) {
                dials += 1;
                dialler.failed(id, "refused".into(), false, now, 0.0);
            }
            // It goes and comes again in every other round.
            dialler.set_discovered(Vec::new(), ours, now);
            now += Duration::from_millis(20);
        }
        assert!((9..=10).contains(&dials), "{dials}");
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 6783))
    }

    #[test]
    fn a_target_is_dialled_at_once_and_again_after_a_failure() {
        let mut dialler = Dialler::default();
        assert!(dialler.add_targets(&["a"], seconds(0)));
        let due = dialler.due(seconds(0));
        assert_eq!(due.len(), 1);
        assert!(dialler.due(seconds(0)).is_empty(), "one dial at a time");
        dialler.failed(due[0].0, "no route".into(), false, seconds(1), 0.0);
        assert!(dialler.due(seconds(1)).is_empty());
        assert_eq!(dialler.deadline(), Some(Duration::from_millis(1200)));
        assert_eq!(dialler.due(seconds(2))[0].2, 1);
    }

    #[test]
    fn a_linked_target_is_dialled_again_only_when_its_link_is_lost() {
        let mut dialler = Dialler::default();
        assert!(dialler.add_targets(&["a"], seconds(0)));
        let id = dialler.due(seconds(0))[0].0;
        dialler.linked(7, Some(id), address(1));
        assert!(dialler.due(seconds(100)).is_empty());
        dialler.relinked(7, 8);
        dialler.lost(7, "old", true, seconds(100), 0.0);
        assert!(dialler.due(seconds(100)).is_empty());
        dialler.lost(8, "gone", true, seconds(101), 0.0);
        assert_eq!(dialler.due(seconds(101)).len(), 1);
    }

    #[test]
    fn a_forgotten_target_is_not_dialled_again() {
        let mut dialler = Dialler::default();
        assert!(dialler.add_targets(&["a", "b"], seconds(0)));
        let id = dialler.due(seconds(0))[0].0;
        dialler.linked(1, Some(id), address(1));
        dialler.forget(&["a"]);
        dialler.lost(1, "gone", true, seconds(1), 0.0);
        assert_eq!(dialler.targets().collect::<Vec<_>>(), [&"b"]);
        assert!(dialler.due(seconds(1)).is_empty());
    }

    #[test]
    fn an_inbound_link_spares_the_dial_to_the_same_address() {
        let mut dialler = Dialler::default();
        assert!(dialler.add_targets(&["a"], seconds(0)));
        let id = dialler.due(seconds(0))[0].0;
        dialler.resolved(id, address(1));
        dialler.failed(id, "refused".into(), false, seconds(0), 0.0);
        dialler.linked(3, None, address(1));
        assert!(dialler.due(seconds(60)).is_empty());
    }

    #[test]
    fn why_a_link_was_lost_is_known_until_the_next_one_passes_data() {
        let mut dialler = Dialler::default();
        assert!(dialler.add_targets(&["a"], seconds(0)));
        let id = dialler.due(seconds(0))[0].0;
        dialler.linked(1, Some(id), address(1));
        dialler.lost(1, "UDP does not pass", true, seconds(15), 0.0);
        let id = dialler.due(seconds(15))[0].0;
        dialler.linked(2, Some(id), address(1));
        let reason = |dialler: &Dialler<_>| dialler.of_link(2).and_then(|entry| entry.reason.clone());
        assert_eq!(reason(&dialler).as_deref(), Some("UDP does not pass"));
        dialler.established(2);
        assert_eq!(reason(&dialler), None);
    }

    #[test]
    fn a_peer_that_ends_each_link_at_once_is_not_dialled_without_pause() {
        let mut dialler = Dialler::default();
        assert!(dialler.add_targets(&["a"], seconds(0)));
        let mut dials = 0;
        for millis in 0..60_000 {
            let now = Duration::from_millis(millis);
            for (id, ..) in dialler.due(now) {
                dials += 1;
                dialler.linked(dials, Some(id), address(1));
                dialler.lost(dials, "refused", false, now, 0.0);
            }
        }
        assert!(dials < 30, "{dials}");
    }

    #[test]
    fn a_recent_peer_that_stays_away_is_forgotten_and_a_target_is_not() {
        let mut dialler = Dialler::default();
        dialler.add_recent("old", seconds(0));
        assert!(dialler.add_targets(&["t"], seconds(0)));
        let mut now = seconds(0);
        while now < seconds(1200) {
            for (id, _, _) in dialler.due(now) {
                dialler.failed(id, "no answer".into(), false, now, 0.0);
            }
            now += seconds(1);
        }
        assert_eq!(dialler.entries().len(), 1);
        assert_eq!(dialler.entries()[0].target, "t");
    }

    fn name(last: u8) -> PeerName {
        PeerName::new([2, 0, 0, 0, 0, last]).unwrap_or_else(|| unreachable!("not zero"))
    }

    #[test]
    fn a_discovered_peer_is_dialled_until_it_is_linked_or_gone() {
        let mut dialler = Dialler::default();
        dialler.set_discovered(vec![(name(9), vec!["a"]), (name(1), vec!["b"])], name(5), seconds(0));
        let due = dialler.due(seconds(0));
        assert_eq!(due.iter().map(|due| due.1).collect::<Vec<_>>(), ["a"], "the smaller name dials first");
        assert_eq!(dialler.due(YIELD).len(), 1);
        dialler.linked(7, Some(due[0].0), address(1));
        dialler.set_discovered(vec![], name(5), seconds(1));
        dialler.lost(7, "gone", true, seconds(2), 0.0);
        assert_eq!(dialler.entries().len(), 1, "only the dial under way is left");
        assert!(dialler.due(seconds(100)).is_empty());
    }

    #[test]
    fn a_discovered_peer_that_does_not_answer_is_dialled_every_ten_seconds_for_ever() {
        let mut dialler = Dialler::default();
        dialler.set_discovered(vec![(name(9), vec!["a"])], name(5), seconds(0));
        let mut dials = Vec::new();
        for second in 0..3_600 {
            for (id, ..) in dialler.due(seconds(second)) {
                dials.push(second);
                dialler.failed(id, "no answer".into(), true, seconds(second), 0.0);
            }
        }
        assert!(dials.windows(2).all(|two| two[1] - two[0] <= 11), "{dials:?}");
        assert!(dials.len() > 300);
    }

    #[test]
    fn each_of_more_peers_than_are_dialled_at_a_time_has_its_turn() {
        let peer = |n: u16| {
            let [high, low] = n.to_be_bytes();
            PeerName::new([2, 0, 0, 1, high, low]).unwrap_or_else(|| unreachable!("not zero"))
        };
        let peers: Vec<_> = (0..4_096_u16).map(|n| (peer(n), vec![(n, 1), (n, 2)])).collect();
        let mut dialler = Dialler::default();
        let mut dialled = std::collections::BTreeSet::new();
        let mut now = seconds(0);
        while now < seconds(120) {
            dialler.set_discovered(peers.clone(), name(5), now);
            assert!(dialler.entries().len() <= DISCOVERED);
            loop {
                let due = dialler.due(now);
                for (id, (peer, _), _) in &due {
                    dialled.insert(*peer);
                    dialler.failed(*id, "no answer".into(), false, now, 0.5);
                }
                if due.is_empty() {
                    break;
                }
            }
            now += seconds(1);
        }
        assert_eq!(dialled.len(), 4_096);
    }

    #[test]
    fn a_target_is_not_a_second_time_an_entry_when_it_is_discovered() {
        let mut dialler = Dialler::default();
        assert!(dialler.add_targets(&["a"], seconds(0)));
        dialler.set_discovered(vec![(name(9), vec!["a"])], name(5), seconds(0));
        assert_eq!(dialler.entries().len(), 1);
        dialler.set_discovered(vec![], name(5), seconds(1));
        assert_eq!(dialler.targets().count(), 1);
    }

    #[test]
    fn only_addresses_of_hosts_elsewhere_may_be_dialled() {
        for (text, may) in [
            ("10.0.0.1:6783", true),
            ("[fd00::1]:6783", true),
            ("127.0.0.1:6783", false),
            ("[::ffff:127.0.0.1]:6783", false),
            ("0.0.0.0:6783", false),
            ("0.1.2.3:6783", false),
            ("224.0.0.1:6783", false),
            ("255.255.255.255:6783", false),
            ("[::1]:6783", false),
            ("[ff02::1]:6783", false),
            ("[fe80::1]:6783", false),
            ("10.0.0.1:0", false),
        ] {
            assert_eq!(may_dial(text.parse().unwrap_or_else(|_| unreachable!("{text}"))), may, "{text}");
        }
    }

    #[test]
    fn limits_hold() {
        let mut dialler = Dialler::default();
        let many: Vec<usize> = (0..=TARGETS).collect();
        assert!(!dialler.add_targets(&many, seconds(0)));
        assert!(dialler.entries().is_empty());
        assert!(dialler.add_targets(&many[..TARGETS], seconds(0)));
        assert_eq!(dialler.due(seconds(0)).len(), DIALS);
        assert_eq!(dialler.deadline(), None);
        for recent in 0..2 * RECENT {
            dialler.add_recent(10_000 + recent, seconds(0));
        }
        assert!(dialler.entries().len() <= TARGETS + RECENT);
    }
}
