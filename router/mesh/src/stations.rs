//! The table of stations: which MAC is at which peer.

use hashbrown::HashMap;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;
use weave_wire::{MacAddr, PeerName};

/// Stations in all, at most.
pub const STATIONS: usize = 16_384;
/// Stations of one peer, at most.
pub const STATIONS_PER_PEER: usize = 4_096;
/// A station that sent nothing for this long is forgotten.
pub const IDLE_LIMIT: Duration = Duration::from_secs(600);
/// Moves of one station within [`FLAP_WINDOW`] before it is held.
const FLAP_MOVES: usize = 5;
const FLAP_WINDOW: Duration = Duration::from_secs(10);
/// How long a station that moves too often stays where it is.
const FLAP_HOLD: Duration = Duration::from_secs(2);

/// What became of a report that a station was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Known there.
    Known,
    /// New there or moved there: tell all shards.
    Changed,
    /// New there or moved there, and this station had to go.
    Replaced(MacAddr),
    /// It moves too often (`mac_flap`): it stays at this peer for now.
    Held(PeerName),
    /// It is attached on this host (`mac_conflict`).
    Attached,
}

#[derive(Debug)]
struct Station {
    peer: PeerName,
    seen: Duration,
    moves: VecDeque<Duration>,
    held_until: Duration,
}

/// All stations at other peers, and those attached here.
#[derive(Debug, Default)]
pub struct Stations {
    learned: HashMap<MacAddr, Station>,
    /// The stations of each peer, the one silent longest first.
    by_peer: HashMap<PeerName, BTreeSet<(Duration, MacAddr)>>,
    attached: BTreeSet<MacAddr>,
}

impl Stations {
    /// A frame of `mac` came from `peer`.
    pub fn seen(&mut self, mac: MacAddr, peer: PeerName, now: Duration) -> Seen {
        if self.attached.contains(&mac) {
            return Seen::Attached;
        }
        let Some(station) = self.learned.get_mut(&mac) else {
            let replaced = self.make_room(peer);
            let station = Station { peer, seen: now, moves: VecDeque::new(), held_until: Duration::ZERO };
            self.learned.insert(mac, station);
            self.by_peer.entry(peer).or_default().insert((now, mac));
            return replaced.map_or(Seen::Changed, Seen::Replaced);
        };
        let (old_peer, old_seen) = (station.peer, station.seen);
        if old_peer != peer {
            if now < station.held_until {
                return Seen::Held(old_peer);
            }
            station.moves.retain(|at| now.saturating_sub(*at) < FLAP_WINDOW);
            if station.moves.len() >= FLAP_MOVES {
                station.moves.clear();
                station.held_until = now.saturating_add(FLAP_HOLD);
                return Seen::Held(old_peer);
            }
            station.moves.push_back(now);
            station.peer = peer;
        }
        station.seen = now;
        if let Some(order) = self.by_peer.get_mut(&old_peer) {
            order.remove(&(old_seen, mac));
        }
        let replaced = if old_peer == peer { None } else { self.make_room_of(peer) };
        self.by_peer.entry(peer).or_default().insert((now, mac));
        match replaced {
            Some(replaced) => Seen::Replaced(replaced),
            None if old_peer == peer => Seen::Known,
            None => Seen::Changed,
        }
    }

    /// Removes the station of `peer` silent longest, if it has as many as it may.
    fn make_room_of(&mut self, peer: PeerName) -> Option<MacAddr> {
        let stations = self.by_peer.get_mut(&peer).filter(|stations| stations.len() >= STATIONS_PER_PEER)?;
        let (_, mac) = stations.pop_first()?;
        self.learned.remove(&mac);
        Some(mac)
    }

    /// Removes the station of `peer` silent longest, if there is no room.
    fn make_room(&mut self, peer: PeerName) -> Option<MacAddr> {
        let own = self.by_peer.get(&peer).map_or(0, BTreeSet::len);
        if own < STATIONS_PER_PEER && self.learned.len() < STATIONS {
            return None;
        }
        // A peer without stations of its own takes the place of the peer with most.
        let victim = if own > 0 {
            peer
        } else {
            self.by_peer.iter().max_by_key(|(_, stations)| stations.len()).map(|(name, _)| *name)?
        };
        let (_, mac) = self.by_peer.get_mut(&victim)?.pop_first()?;
        self.learned.remove(&mac);
        Some(mac)
    }

    /// Forgets where a station was learned: it is attached somewhere else now.
    pub fn forget(&mut self, mac: MacAddr) {
        if let Some(station) = self.learned.remove(&mac)
            && let Some(order) = self.by_peer.get_mut(&station.peer)
        {
            order.remove(&(station.seen, mac));
        }
    }

    /// Forgets stations that were silent too long; returns them.
    pub fn expire(&mut self, now: Duration) -> Vec<MacAddr> {
        let mut gone = Vec::new();
        for stations in self.by_peer.values_mut() {
            while let Some(&(seen, mac)) = stations.first()
                && now.saturating_sub(seen) >= IDLE_LIMIT
            {
                stations.pop_first();
                self.learned.remove(&mac);
                gone.push(mac);
            }
        }
        self.by_peer.retain(|_, stations| !stations.is_empty());
        gone
    }

    /// Replaces the stations attached on this host; returns those that had been
    /// learned elsewhere and are forgotten there.
    pub fn set_attached(&mut self, macs: impl IntoIterator<Item = MacAddr>) -> Vec<MacAddr> {
        self.attached = macs.into_iter().collect();
        let gone: Vec<_> =
            self.attached.iter().copied().filter(|mac| self.learned.contains_key(mac)).collect();
        for mac in &gone {
            if let Some(station) = self.learned.remove(mac)
                && let Some(order) = self.by_peer.get_mut(&station.peer)
            {
                order.remove(&(station.seen, *mac));
            }
        }
        gone
    }

    /// The stations attached on this host.
    pub fn attached(&self) -> impl Iterator<Item = MacAddr> + '_ {
        self.attached.iter().copied()
    }

    /// The stations learned: MAC, peer, time seen last.
    pub fn learned(&self) -> impl Iterator<Item = (MacAddr, PeerName, Duration)> + '_ {
        self.learned.iter().map(|(mac, station)| (*mac, station.peer, station.seen))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn mac(n: u32) -> MacAddr {
        let [a, b, c, d] = n.to_be_bytes();
        MacAddr([2, 0, a, b, c, d])
    }

    fn peer(n: u8) -> PeerName {
        PeerName::new([2, 0, 0, 0, 0, n]).unwrap()
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_station_moves_to_the_peer_it_speaks_from() {
        let mut stations = Stations::default();
        assert_eq!(stations.seen(mac(1), peer(1), at(0)), Seen::Changed);
        assert_eq!(stations.seen(mac(1), peer(1), at(1)), Seen::Known);
        assert_eq!(stations.seen(mac(1), peer(2), at(2)), Seen::Changed);
        assert_eq!(stations.learned().next(), Some((mac(1), peer(2), at(2))));
    }

    #[test]
    fn a_station_seen_at_two_places_at_once_is_held_and_released() {
        let mut stations = Stations::default();
        stations.seen(mac(1), peer(1), at(0));
        let outcomes: Vec<_> =
            (1..=8).map(|i| stations.seen(mac(1), peer(1 + (i % 2) as u8), at(i * 10))).collect();
        assert!(outcomes.contains(&Seen::Held(peer(2))) || outcomes.contains(&Seen::Held(peer(1))));
        let here = stations.learned().next().unwrap().1;
        let there = if here == peer(1) { peer(2) } else { peer(1) };
        assert_eq!(stations.seen(mac(1), there, at(100)), Seen::Held(here));
        assert_eq!(stations.seen(mac(1), there, at(3000)), Seen::Changed);
    }

    #[test]
    fn a_peer_that_takes_over_stations_of_others_has_no_more_than_it_may() {
        let mut stations = Stations::default();
        let per_peer = u32::try_from(STATIONS_PER_PEER).unwrap();
        for n in 0..3 * per_peer {
            stations.seen(mac(n), peer(1 + (n / per_peer) as u8), at(u64::from(n)));
        }
        for n in 0..3 * per_peer {
            let seen = stations.seen(mac(n), peer(9), at(20_000 + u64::from(n)));
            let replaced = n.checked_sub(per_peer).map_or(Seen::Changed, |first| Seen::Replaced(mac(first)));
            assert_eq!(seen, replaced);
        }
        assert_eq!(stations.learned().filter(|(_, at, _)| *at == peer(9)).count(), STATIONS_PER_PEER);
        assert_eq!(stations.learned().count(), STATIONS_PER_PEER);
    }

    #[test]
    fn a_flood_of_stations_costs_only_the_peer_it_comes_from() {
        let mut stations = Stations::default();
        stations.seen(mac(u32::MAX), peer(9), at(0));
        for n in 0..100_000 {
            stations.seen(mac(n), peer(1), at(u64::from(n)));
        }
        assert_eq!(stations.learned().filter(|(_, at, _)| *at == peer(1)).count(), STATIONS_PER_PEER);
        assert!(stations.learned().any(|(station, _, _)| station == mac(u32::MAX)));
        for n in 0..10u8 {
            for station in 0..5_000 {
                stations.seen(mac(u32::from(n) << 24 | station), peer(20 + n), at(200_000));
            }
        }
        assert!(stations.learned().count() <= STATIONS);
    }

    #[test]
    fn silent_stations_are_forgotten_and_attached_ones_belong_here() {
        let mut stations = Stations::default();
        stations.seen(mac(1), peer(1), at(0));
        stations.seen(mac(2), peer(1), at(500_000));
        assert_eq!(stations.expire(at(600_000)), [mac(1)]);
        assert_eq!(stations.set_attached([mac(2)]), [mac(2)]);
        assert_eq!(stations.seen(mac(2), peer(1), at(600_001)), Seen::Attached);
        assert_eq!(stations.learned().count(), 0);
    }
}
