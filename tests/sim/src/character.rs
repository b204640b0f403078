//! Whether a host keeps to the rules, and how it does not.

use crate::frames::{Course, Drop, RouteTable, Session};
use crate::hostile::Hostile;
use crate::identity::Key;
use crate::later::Later;
use std::collections::BTreeSet;
use weave_wire::link::gossip::{Gossip, HostPart, PartId, PartKey};
use weave_wire::link::message::Message;
use weave_wire::{InnerHeader, PeerName};

/// A defect that an invariant must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// Does not hear that a peer leaves for good.
    IgnoresFarewells,
    /// Relays without counting links.
    CountsNoHops,
    /// Checks no signature.
    ChecksNoSignature,
    /// Takes frames for everybody from anywhere, and sends them on to all.
    Floods,
    /// Hears of no news.
    IgnoresDigests,
    /// Keeps names that their owner withdrew.
    KeepsNames,
    /// Sends its frames by any link.
    Detours,
}

/// The character of a host.
#[derive(Debug, Default)]
pub enum Character {
    /// As it should be.
    #[default]
    Honest,
    /// Of a later version.
    Later(Later),
    /// A member that wants to do harm.
    Hostile(Box<Hostile>),
    /// With defects.
    Broken {
        /// Which.
        defects: Vec<Defect>,
        /// Parts of names heard.
        heard: BTreeSet<PartKey>,
    },
}

impl Character {
    /// A host with these defects.
    #[must_use]
    pub fn broken(defects: &[Defect]) -> Self {
        Self::Broken { defects: defects.to_vec(), heard: BTreeSet::new() }
    }

    /// True for a host with this defect.
    #[must_use]
    pub fn has(&self, defect: Defect) -> bool {
        matches!(self, Self::Broken { defects, .. } if defects.contains(&defect))
    }

    /// True for a member that wants to do harm.
    #[must_use]
    pub const fn is_hostile(&self) -> bool {
        matches!(self, Self::Hostile(_))
    }

    /// The host's key, as it uses it.
    #[must_use]
    pub fn key(&self, key: Key) -> Key {
        if self.has(Defect::ChecksNoSignature) { key.credulous() } else { key }
    }

    /// Takes note of what comes.
    pub fn overhear(&mut self, bytes: &[u8]) {
        if let Self::Hostile(hostile) = self {
            hostile.overhear(bytes);
        }
    }

    /// What it answers by itself.
    pub fn answer(&mut self, gossip: &Gossip) -> Option<Gossip> {
        match self {
            Self::Later(later) => later.answer(gossip),
            Self::Honest | Self::Hostile(_) | Self::Broken { .. } => None,
        }
    }

    /// False for gossip that its mesh never hears of.
    pub fn hears(&mut self, gossip: &Gossip) -> bool {
        if self.has(Defect::IgnoresDigests) && matches!(gossip, Gossip::Digests(_)) {
            return false;
        }
        let Gossip::Part(part) = gossip else { return true };
        let is_farewell =
            || part.part == PartId::HOST && HostPart::parse(&part.content).is_ok_and(|host| host.farewell);
        if self.has(Defect::IgnoresFarewells) && is_farewell() {
            return false;
        }
        if let Self::Broken { defects, heard } = self
            && defects.contains(&Defect::KeepsNames)
            && part.part.is_names()
        {
            return heard.insert(part.key());
        }
        true
    }

    /// A message as it goes out.
    pub fn encode(&mut self, message: &Message) -> Vec<u8> {
        match self {
            Self::Later(later) => later.encode(message),
            Self::Honest | Self::Hostile(_) | Self::Broken { .. } => message.encode(),
        }
    }

    /// What it sends after a message.
    #[must_use]
    pub fn also(&self, message: &Message) -> Option<Vec<u8>> {
        matches!(self, Self::Later(_)).then(|| Later::also(message)).flatten()
    }

    /// Where a received frame goes.
    ///
    /// # Errors
    /// Why it goes nowhere.
    pub fn course(
        &self,
        table: &RouteTable,
        ours: PeerName,
        link: Session,
        neighbour: PeerName,
        header: &InnerHeader,
    ) -> Result<Course, Drop> {
        if self.has(Defect::Floods) && header.destination().is_none() {
            let on = table.peers.values().map(|route| route.next).filter(|next| *next != link);
            let on: BTreeSet<_> = on.collect();
            return Ok(Course { here: true, on: on.into_iter().collect() });
        }
        table.course(ours, link, neighbour, header)
    }

    /// The header with which a frame is sent on.
    #[must_use]
    pub fn relayed(&self, header: InnerHeader) -> Option<InnerHeader> {
        if self.has(Defect::CountsNoHops) { Some(header) } else { header.relayed() }
    }

    /// By which link a frame of its own goes for which `next` is right.
    #[must_use]
    pub fn first_link(&self, table: &RouteTable, next: Session) -> Session {
        if self.has(Defect::Detours) {
            let other = table.peers.values().map(|route| route.next).find(|other| *other != next);
            return other.unwrap_or(next);
        }
        next
    }
}
