//! Which peers to dial, and when.

use crate::backoff::Backoff;
use hashbrown::{HashMap, HashSet};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::ops::Bound;
use std::time::Duration;
use weave_wire::PeerName;

/// Dials under way, at most.
pub const DIALS: usize = 20;
/// Those of peers that others told of: as many as cannot be reached leave room for what the user named
/// and for where links were.
const DISCOVERED_DIALS: usize = 12;
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
/// Dials of one address that others told of are at least this far apart, whatever ports and peers
/// they tell of there: nobody else's host is to be flooded by what members gossip.
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

/// How a link ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It had passed data.
    Established,
    /// The peer said that it has its limit of links, before any data passed.
    Full,
    /// Before it passed data, for any other reason.
    Early,
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
    /// The peer has its limit of links, as it said last: no fault of what is between.
    pub full: bool,
    /// Failures since the last link.
    pub failures: u32,
    /// The address the target had when it was dialled last.
    pub address: Option<SocketAddr>,
    /// Where others told that it is.
    host: Option<IpAddr>,
    /// Since when there is to be a link: since it was named or told of, or its link was lost.
    pub since: Duration,
    backoff: Backoff,
}

/// All that is to be dialled.
#[derive(Debug)]
pub struct Dialler<T> {
    /// By rising id.
    entries: Vec<Entry<T>>,
    /// Addresses that others told of, dialled within [`DISCOVERED_APART`].
    dialled: HashMap<IpAddr, Duration>,
    /// Dials under way whose targets were forgotten.
    forgotten: BTreeSet<DialId>,
    next_id: u64,
    /// The last peer learned from others whose turn it was.
    last_turn: Option<PeerName>,
}

/// What was known of targets that are forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forgotten {
    /// Addresses that were found for them.
    pub addresses: Vec<SocketAddr>,
    /// Numbers of the links to them.
    pub links: Vec<u64>,
}

impl<T> Default for Dialler<T> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            dialled: HashMap::new(),
            forgotten: BTreeSet::new(),
            next_id: 0,
            last_turn: None,
        }
    }
}

impl<T> Entry<T> {
    fn is_discovered(&self) -> bool {
        matches!(self.origin, Origin::Discovered(_))
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
                None => {
                    self.insert(target.clone(), Origin::Target, now);
                }
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
        self.forget_but(|entry| entry.origin != Origin::Target || targets.contains(&entry.target));
        self.add_targets(targets, now)
    }

    /// Not to be dialled again when their links are lost, nor are recent peers at the addresses
    /// that were found for these targets.
    pub fn forget(&mut self, targets: &[T]) -> Forgotten {
        let is_one = |entry: &Entry<T>| targets.contains(&entry.target);
        let forgotten = || self.entries.iter().filter(|entry| is_one(entry));
        let addresses: Vec<_> = forgotten().filter_map(|entry| entry.address).collect();
        let links = forgotten().filter_map(|entry| match entry.stand {
            Stand::Linked(link) => Some(link),
            Stand::Waiting(_) | Stand::Dialling(_) => None,
        });
        let links = links.collect();
        let is_there = |entry: &Entry<T>| entry.address.is_some_and(|at| addresses.contains(&at));
        let goes = |entry: &Entry<T>| is_one(entry) || (entry.origin == Origin::Recent && is_there(entry));
        self.forget_but(|entry| !goes(entry));
        Forgotten { addresses, links }
    }

    /// A peer there was a link to lately.
    pub fn add_recent(&mut self, target: T, now: Duration) {
        let recent = self.entries.iter().filter(|entry| entry.origin == Origin::Recent).count();
        if recent < RECENT && !self.entries.iter().any(|entry| entry.target == target) {
            self.insert(target, Origin::Recent, now);
        }
    }

    /// Exactly these peers are reached over others and have no link to `ourselves`:
    /// their addresses, each with what to dial, are dialled, besides targets and recent peers. What
    /// is not among them any more is linked, or gone.
    pub fn set_discovered(
        &mut self,
        peers: Vec<(PeerName, Vec<(IpAddr, T)>)>,
        ourselves: PeerName,
        now: Duration,
    ) {
        let mut wanted: BTreeMap<PeerName, Vec<(IpAddr, T)>> = peers.into_iter().collect();
        wanted.values_mut().for_each(|addresses| addresses.truncate(DISCOVERED_ADDRESSES));
        let crowded = wanted.values().map(Vec::len).sum::<usize>() > DISCOVERED;
        self.entries.retain(|entry| match (entry.origin, &entry.stand) {
            (Origin::Discovered(name), Stand::Waiting(_)) => {
                let gives_way = crowded && entry.failures >= GIVES_WAY;
                let is_it = |(_, target): &(IpAddr, T)| *target == entry.target;
                !gives_way && wanted.get(&name).is_some_and(|addresses| addresses.iter().any(is_it))
            }
            // A dial under way ends by itself. A link is why its peer is not wanted: until it passes
            // data it may end, and how often that was so counts.
            (Origin::Discovered(_), Stand::Dialling(_) | Stand::Linked(_))
            | (Origin::Target | Origin::Recent, _) => true,
        });
        let is_discovered = |entry: &&Entry<T>| matches!(entry.origin, Origin::Discovered(_));
        let mut room = DISCOVERED.saturating_sub(self.entries.iter().filter(is_discovered).count());
        let mut known: HashSet<T> = self.entries.iter().map(|entry| entry.target.clone()).collect();
        for (name, addresses) in in_turn(&wanted, self.last_turn) {
            if room < addresses.len() {
                break;
            }
            let first = if *name < ourselves { now.saturating_add(YIELD) } else { now };
            for (host, target) in addresses {
                if known.insert(target.clone()) {
                    let entry = self.insert(target.clone(), Origin::Discovered(*name), first);
                    entry.host = Some(*host);
                    self.last_turn = Some(*name);
                    room -= 1;
                }
            }
        }
    }

    fn insert(&mut self, target: T, origin: Origin, now: Duration) -> &mut Entry<T> {
        let id = DialId(self.next_id);
        self.next_id += 1;
        self.entries.push_mut(Entry {
            id,
            target,
            origin,
            stand: Stand::Waiting(now),
            reason: None,
            refused: false,
            full: false,
            failures: 0,
            address: None,
            host: None,
            since: now,
            backoff: Backoff::new(now),
        })
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
        let (mut under_way, mut discovered) = self.under_way();
        // What the user named and where links were come first, then who never failed, then who waits
        // longest.
        let waiting = self.entries.iter_mut().filter_map(|entry| match entry.stand {
            Stand::Waiting(at) if at <= now => Some((entry.is_discovered(), at, entry)),
            Stand::Waiting(_) | Stand::Dialling(_) | Stand::Linked(_) => None,
        });
        let mut waiting: Vec<_> = waiting.collect();
        waiting.sort_by_key(|(is_discovered, at, entry)| {
            (*is_discovered, *is_discovered && entry.failures > 0, *at, entry.id)
        });
        let mut due = Vec::new();
        for (is_discovered, _, entry) in waiting {
            if under_way >= DIALS || is_discovered && discovered >= DISCOVERED_DIALS {
                break;
            }
            if let Some(host) = entry.host.filter(|_| is_discovered) {
                if let Some(last) = self.dialled.get(&host) {
                    entry.stand = Stand::Waiting(last.saturating_add(DISCOVERED_APART));
                    continue;
                }
                self.dialled.insert(host, now);
                discovered += 1;
            }
            under_way += 1;
            entry.stand = Stand::Dialling(now);
            due.push((entry.id, entry.target.clone(), entry.failures));
        }
        due
    }

    /// Dials under way: all, and those of peers that others told of.
    fn under_way(&self) -> (usize, usize) {
        let dialling = self.entries.iter().filter(|entry| matches!(entry.stand, Stand::Dialling(_)));
        dialling.fold((0, 0), |(all, discovered), entry| {
            (all + 1, discovered + usize::from(entry.is_discovered()))
        })
    }

    /// A dial ended: true if its target was forgotten while it was under way.
    pub fn was_forgotten(&mut self, id: DialId) -> bool {
        self.forgotten.remove(&id)
    }

    /// Keeps entries for which `stays` holds; dials of the others that are under way are remembered,
    /// each until it ends.
    fn forget_but(&mut self, stays: impl Fn(&Entry<T>) -> bool) {
        let (kept, gone) = std::mem::take(&mut self.entries).into_iter().partition(stays);
        self.entries = kept;
        let gone: Vec<Entry<T>> = gone;
        let is_dialled = |entry: &&Entry<T>| matches!(entry.stand, Stand::Dialling(_));
        self.forgotten.extend(gone.iter().filter(is_dialled).map(|entry| entry.id));
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
            entry.full = false;
            let mut wait = entry.backoff.fail(refused, now, jitter);
            if entry.is_discovered() {
                wait = wait.min(discovered_wait(jitter));
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

    /// Link number `link` passes data: why there was none before is of no interest any more, nor
    /// what others told of the peer.
    pub fn established(&mut self, link: u64) {
        self.entries.retain(|entry| !(entry.is_discovered() && entry.stand == Stand::Linked(link)));
        for entry in self.entries.iter_mut().filter(|entry| entry.stand == Stand::Linked(link)) {
            entry.reason = None;
            entry.failures = 0;
            entry.refused = false;
            entry.full = false;
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

    /// Link number `link` is lost, and why: dial again, at once if it had passed data, else with
    /// growing waits: the peer may have refused us. `jitter`: see [`Backoff::fail`].
    pub fn lost(&mut self, link: u64, reason: &str, ended: Ended, now: Duration, jitter: f64) {
        for entry in &mut self.entries {
            if entry.stand == Stand::Linked(link) {
                let wait = match ended {
                    Ended::Established => {
                        entry.backoff = Backoff::new(now);
                        Duration::ZERO
                    }
                    Ended::Full | Ended::Early => {
                        entry.failures += 1;
                        entry.backoff.ended(now, jitter)
                    }
                };
                // Who has its limit of links is asked rarely: each time costs both ends a handshake.
                let is_short = entry.is_discovered() && ended == Ended::Early;
                let wait = if is_short { wait.min(discovered_wait(jitter)) } else { wait };
                entry.stand = Stand::Waiting(now.saturating_add(wait));
                // One that never passed data was none, but a recent peer is still there.
                if ended == Ended::Established || entry.origin == Origin::Recent {
                    entry.since = now;
                }
                entry.full = ended == Ended::Full;
                entry.reason = Some(reason.to_owned());
            }
        }
    }

    /// When something is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let (under_way, discovered) = self.under_way();
        let has_room = |entry: &&Entry<T>| {
            under_way < DIALS && (discovered < DISCOVERED_DIALS || !entry.is_discovered())
        };
        let waiting = self.entries.iter().filter(has_room).filter_map(|entry| match entry.stand {
            Stand::Waiting(at) => Some(at),
            Stand::Dialling(_) | Stand::Linked(_) => None,
        });
        waiting.min()
    }
}

/// The longest wait before a peer that others told of is dialled again.
fn discovered_wait(jitter: f64) -> Duration {
    DISCOVERED_WAIT.mul_f64(1.0 - 0.25 * jitter.clamp(0.0, 1.0))
}

/// All peers, those behind `last` first.
fn in_turn<T>(
    peers: &BTreeMap<PeerName, T>,
    last: Option<PeerName>,
) -> impl Iterator<Item = (&PeerName, &T)> {
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
mod tests;
