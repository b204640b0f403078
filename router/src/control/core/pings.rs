//! Round trips to peers that clients asked for.

use super::*;
use weave_api::request::{Hop, PING_LIMIT, Pinged};
use weave_wire::link::handshake::features::ECHOES;
use weave_wire::{INNER_LEN, OUTER_LEN, TAG_LEN};

/// Pings under way, at most.
const PINGS: usize = 64;
/// Length of an Ethernet header without tag: what stands in front of a packet.
const ETHERNET: u16 = 14;

/// Pings under way, by number.
#[derive(Default)]
pub(super) struct Pings {
    waiting: BTreeMap<u64, Waiting>,
    last: u64,
}

struct Waiting {
    peer: PeerName,
    until: Duration,
    pinged: Pinged,
    answer: Answer,
}

impl Pings {
    /// When one is given up.
    pub(super) fn deadline(&self) -> Option<Duration> {
        // All wait equally long, and numbers rise.
        self.waiting.values().next().map(|waiting| waiting.until)
    }
}

impl Core {
    /// Sends an echo to `peer`, to be answered with the answer.
    pub(super) fn ping(&mut self, peer: PeerName, size: u16, answer: Answer) {
        match self.begin_ping(peer, size) {
            Ok(pinged) => {
                self.pings.last += 1;
                let number = self.pings.last;
                let waiting = Waiting { peer, until: self.now() + PING_LIMIT, pinged, answer };
                self.pings.waiting.insert(number, waiting);
                // Each on another lane than the one before.
                #[expect(clippy::cast_possible_truncation, reason = "less than the shards, which are few")]
                let shard = (number % self.group.shards() as u64) as usize;
                let len = size.saturating_add(ETHERNET);
                self.command(shard, Command::Echo { peer, number, len });
            }
            Err(problem) => answer.give(Err(problem)),
        }
    }

    fn begin_ping(&self, peer: PeerName, size: u16) -> Result<Pinged, Problem> {
        let what = "cannot ping the peer";
        let refuse = |code, why: String, remedy: &str| Err(Problem::new(code, what, why, remedy));
        if self.pings.waiting.len() >= PINGS {
            return refuse(Code::Busy, format!("{PINGS} others are waited for"), "wait two seconds");
        }
        if size > self.config.mtu {
            let why = format!("{size} bytes are more than the MTU of the network, {}", self.config.mtu);
            return refuse(Code::TooLarge, why, "choose a smaller size");
        }
        let way = self.mesh.way_to(peer);
        let Some((first, _)) = way.first() else {
            return refuse(Code::Failed, format!("no way leads to {peer}"), "see `weave status peers`");
        };
        if let Some((without, _)) = way.iter().find(|(peer, _)| !self.has_echoes(*peer)) {
            let why =
                format!("{without}({}) runs a version without echoes", status::nickname_of(self, *without));
            return refuse(Code::Version, why, "upgrade it: it carries frames of containers all the same");
        }
        let link = self.links.values().find(|link| link.peer.name == *first && link.carries());
        let Some(link) = link else {
            return refuse(Code::Failed, format!("the link to {first} is gone"), "try again");
        };
        let tag = if link.mode() == weave_forward::Mode::Clear { 0 } else { TAG_LEN };
        let around = u16::try_from(OUTER_LEN + INNER_LEN + tag).unwrap_or(u16::MAX).saturating_add(ETHERNET);
        let usable = link.path.as_ref().map_or(u16::MAX, weave_mesh::PathMtu::usable);
        let path = way.iter().map(|(peer, unencrypted)| Hop {
            peer: *peer,
            nickname: status::nickname_of(self, *peer),
            encrypted: !unencrypted,
        });
        let path_mtu = usable.saturating_sub(around).min(self.config.mtu);
        Ok(Pinged { round_trip_ns: None, path: path.collect(), path_mtu })
    }

    /// Whether a peer answers echoes and relays them, as it told by the handshake of a link or, where
    /// there is none, to the mesh.
    fn has_echoes(&self, peer: PeerName) -> bool {
        let linked = self.links.values().find(|link| link.peer.name == peer && link.is_established());
        let told = || self.mesh.peer(peer).map(|view| view.features).unwrap_or_default();
        linked.map_or_else(told, |link| link.peer.features) & ECHOES != 0
    }

    /// An echo came back.
    pub(super) fn on_echo(&mut self, peer: PeerName, number: u64, round_trip: Duration) {
        let Some(waiting) = self.pings.waiting.get(&number).filter(|waiting| waiting.peer == peer) else {
            return;
        };
        let round_trip_ns = u64::try_from(round_trip.as_nanos()).ok();
        let pinged = Pinged { round_trip_ns, ..waiting.pinged.clone() };
        if let Some(waiting) = self.pings.waiting.remove(&number) {
            waiting.answer.give(Ok(Reply::Pinged(pinged)));
        }
    }

    /// Gives up what was waited for long enough.
    pub(super) fn expire_pings(&mut self, now: Duration) {
        while let Some(first) = self.pings.waiting.first_entry().filter(|first| first.get().until <= now) {
            let Waiting { pinged, answer, .. } = first.remove();
            answer.give(Ok(Reply::Pinged(pinged)));
        }
    }
}
