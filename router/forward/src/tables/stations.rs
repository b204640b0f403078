//! Which station is at which peer.

use crate::command::MacChange;
use crate::counters::DropReason;
use hashbrown::HashMap;
use std::time::Duration;
use weave_wire::{MacAddr, PeerName};

/// Stations of one shard's table, at most.
pub const MAX_MACS: usize = 16_384;
/// A station that goes on sending is reported again after this time.
const MAC_REFRESH: Duration = Duration::from_secs(60);

#[derive(Clone, Copy)]
struct Station {
    peer: PeerName,
    reported: Duration,
    attached: bool,
}

/// What came of a frame's source address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Learned {
    /// Nothing new.
    Known,
    /// The control core is to hear of it.
    Report,
    /// The table is full.
    Refused,
}

/// The table.
#[derive(Default)]
pub struct Stations {
    macs: HashMap<MacAddr, Station>,
    /// Attached on this host, in order.
    local: Vec<MacAddr>,
    /// Learned last, in this second.
    last: Option<(MacAddr, PeerName)>,
}

impl Stations {
    /// The peer at which `mac` is, as far as known.
    #[must_use]
    #[inline]
    pub fn peer(&self, mac: MacAddr) -> Option<PeerName> {
        self.macs.get(&mac).map(|station| station.peer)
    }

    /// Applies changes of the control core's table.
    pub fn change(&mut self, changes: &[MacChange], now: Duration) {
        self.last = None;
        for &MacChange { mac, peer, attached } in changes {
            let Some(peer) = peer else {
                self.macs.remove(&mac);
                continue;
            };
            let full = self.macs.len() >= MAX_MACS && !self.macs.contains_key(&mac);
            if full && !(attached && self.evict()) {
                continue;
            }
            self.macs.insert(mac, Station { peer, reported: now, attached });
        }
    }

    /// Makes room for an attached station; false if there are no others.
    fn evict(&mut self) -> bool {
        let learned = self.macs.iter().find(|(_, station)| !station.attached).map(|(mac, _)| *mac);
        learned.is_some_and(|mac| self.macs.remove(&mac).is_some())
    }

    /// Replaces the stations attached on this host.
    pub fn set_local(&mut self, macs: &[MacAddr]) {
        self.last = None;
        self.local.clear();
        self.local.extend_from_slice(macs);
        self.local.sort_unstable();
    }

    /// True if `mac` is attached on this host.
    #[must_use]
    pub fn is_local(&self, mac: MacAddr) -> bool {
        self.local.binary_search(&mac).is_ok()
    }

    /// Takes note that `mac` is at `peer`.
    ///
    /// # Errors
    /// Why a frame with this source is dropped: [`DropReason::Loop`] for a station
    /// of this host, [`DropReason::MacConflict`] for one attached at another peer.
    #[inline]
    pub fn learn(&mut self, mac: MacAddr, peer: PeerName, now: Duration) -> Result<Learned, DropReason> {
        if self.last == Some((mac, peer)) { Ok(Learned::Known) } else { self.look_up(mac, peer, now) }
    }

    fn look_up(&mut self, mac: MacAddr, peer: PeerName, now: Duration) -> Result<Learned, DropReason> {
        if self.is_local(mac) {
            return Err(DropReason::Loop);
        }
        if !mac.is_station() {
            return Ok(Learned::Known);
        }
        let room = self.macs.len() < MAX_MACS;
        let learned = match self.macs.get_mut(&mac) {
            Some(known) if known.peer == peer => {
                let due = now.saturating_sub(known.reported) >= MAC_REFRESH;
                if due {
                    known.reported = now;
                }
                if due { Learned::Report } else { Learned::Known }
            }
            Some(known) if known.attached => return Err(DropReason::MacConflict),
            Some(known) => {
                *known = Station { peer, reported: now, attached: false };
                Learned::Report
            }
            None if room => {
                self.macs.insert(mac, Station { peer, reported: now, attached: false });
                Learned::Report
            }
            None => return Ok(Learned::Refused),
        };
        self.last = Some((mac, peer));
        Ok(learned)
    }

    /// Forgets where a station is, unless the control core said it.
    pub fn forget(&mut self, mac: MacAddr) {
        if self.macs.get(&mac).is_some_and(|station| !station.attached) {
            self.macs.remove(&mac);
        }
        self.last = None;
    }

    /// Looks at the age of the station learned last again.
    pub const fn second_passed(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn name(number: u8) -> PeerName {
        PeerName::new([2, 0, 0, 0, 0, number]).unwrap()
    }

    fn mac(number: u32) -> MacAddr {
        let [a, b, c, d] = number.to_be_bytes();
        MacAddr([2, 7, a, b, c, d])
    }

    fn change(number: u32, peer: Option<u8>, attached: bool) -> MacChange {
        MacChange { mac: mac(number), peer: peer.map(name), attached }
    }

    const NOW: Duration = Duration::from_secs(100);

    #[test]
    fn the_last_speaker_has_a_learned_station() {
        let mut stations = Stations::default();
        for (peer, expected) in [(1, Learned::Report), (1, Learned::Known), (2, Learned::Report)] {
            assert_eq!(stations.learn(mac(1), name(peer), NOW), Ok(expected));
            assert_eq!(stations.peer(mac(1)), Some(name(peer)));
        }
        stations.second_passed();
        assert_eq!(stations.learn(mac(1), name(2), NOW + MAC_REFRESH), Ok(Learned::Report));
    }

    #[test]
    fn an_attached_station_is_moved_by_the_control_core_only() {
        let mut stations = Stations::default();
        assert_eq!(stations.learn(mac(1), name(1), NOW), Ok(Learned::Report));
        stations.change(&[change(1, Some(2), true)], NOW);
        assert_eq!(stations.learn(mac(1), name(1), NOW), Err(DropReason::MacConflict));
        assert_eq!(stations.learn(mac(1), name(2), NOW), Ok(Learned::Known));
        assert_eq!(stations.learn(mac(1), name(1), NOW), Err(DropReason::MacConflict));
        // A report about it that was lost changes nothing either.
        stations.forget(mac(1));
        assert_eq!(stations.peer(mac(1)), Some(name(2)));
        stations.change(&[change(1, Some(3), false)], NOW);
        assert_eq!(stations.learn(mac(1), name(1), NOW), Ok(Learned::Report));
        stations.change(&[change(1, None, false)], NOW);
        assert_eq!(stations.peer(mac(1)), None);
    }

    #[test]
    fn an_attached_station_finds_room_in_a_full_table() {
        let mut stations = Stations::default();
        let full: Vec<_> = (0..MAX_MACS as u32).map(|number| change(number, Some(1), false)).collect();
        stations.change(&full, NOW);
        let (learned, attached) = (MAX_MACS as u32 + 1, MAX_MACS as u32 + 2);
        stations.change(&[change(learned, Some(1), false), change(attached, Some(2), true)], NOW);
        assert_eq!(stations.learn(mac(learned), name(1), NOW), Ok(Learned::Refused));
        assert_eq!((stations.peer(mac(learned)), stations.peer(mac(attached))), (None, Some(name(2))));
        assert_eq!(stations.macs.len(), MAX_MACS);
        // Attached ones do not push each other out.
        let attached: Vec<_> = (0..MAX_MACS as u32).map(|number| change(number, Some(1), true)).collect();
        stations.change(&attached, NOW);
        stations.change(&[change(learned, Some(1), true)], NOW);
        assert_eq!((stations.peer(mac(learned)), stations.macs.len()), (None, MAX_MACS));
    }

    #[test]
    fn a_station_of_ours_is_not_learned() {
        let mut stations = Stations::default();
        stations.set_local(&[mac(5), mac(1), mac(3)]);
        assert_eq!(stations.learn(mac(3), name(1), NOW), Err(DropReason::Loop));
        assert_eq!(stations.learn(mac(2), name(1), NOW), Ok(Learned::Report));
        assert_eq!(stations.learn(MacAddr([1; 6]), name(1), NOW), Ok(Learned::Known));
        assert_eq!(stations.peer(MacAddr([1; 6])), None);
    }
}
