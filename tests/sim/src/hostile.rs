//! A member that knows the password and wants to do harm.
//!
//! It makes links like any other host, forwards frames, and sends over its links
//! whatever may confuse others. Honest hosts must keep their bounds and the truth.

use crate::identity::{Key, peer_name};
use crate::random::Random;
use std::collections::VecDeque;
use weave_mesh::Signer;
use weave_wire::link::gossip::{
    AnnouncedLink, Digest, Gossip, HostPart, MAX_CONTENT_LEN, MAX_ENTRIES, NameEntry, NamesPart, PartId,
    PartKey, SignedPart, Version,
};
use weave_wire::link::message::Message;
use weave_wire::{Nickname, PeerName, Uid};

/// First byte of the names of invented peers.
pub const INVENTED: u8 = 0x66;
/// Messages overheard, at most.
const OVERHEARD: usize = 64;
/// Peers invented that nobody can reach, at most.
const UNREACHABLE: u64 = 6_000;
/// Peers invented that seem to be behind the host, at most.
const REACHABLE: u64 = 64;
/// Tricks.
const TRICKS: usize = 12;

/// What it knows.
#[derive(Debug)]
pub struct Hostile {
    name: PeerName,
    key: Key,
    may_squat: bool,
    random: Random,
    overheard: VecDeque<Vec<u8>>,
    invented: u64,
    version: u64,
}

impl Hostile {
    /// The member with this name and key. `may_squat`: it offers its own key for the
    /// names of others.
    #[must_use]
    pub fn new(name: PeerName, key: Key, may_squat: bool, random: Random) -> Self {
        Self { name, key, may_squat, random, overheard: VecDeque::new(), invented: 0, version: 1 << 40 }
    }

    pub(crate) fn overhear(&mut self, bytes: &[u8]) {
        if self.overheard.len() == OVERHEARD {
            self.overheard.pop_front();
        }
        self.overheard.push_back(bytes.to_vec());
    }

    /// Messages, each with a number that says over which link.
    pub(crate) fn trick(&mut self, uid: Uid, neighbours: &[PeerName]) -> Vec<(usize, Vec<u8>)> {
        let messages = match self.random.below(TRICKS) {
            0 => self.replayed(),
            1 => self.mutated(),
            2 => self.forged(false),
            3 => self.forged(self.may_squat),
            4 => self.at_the_limit(uid),
            5 => self.invented(),
            6 => self.invented_behind_us(uid, neighbours),
            7 => self.requests(),
            8 => self.digests(),
            9 => self.many_parts(uid),
            10 => self.many_names(uid),
            _ => self.rubbish(),
        };
        let all = self.random.chance(500);
        let way = self.random.below(usize::MAX);
        let numbered = messages.into_iter().enumerate();
        numbered.map(|(at, bytes)| (if all { at + way } else { way }, bytes)).collect()
    }

    fn signed(
        &self,
        owner: PeerName,
        key: Key,
        uid: Uid,
        part: PartId,
        version: u64,
        content: Vec<u8>,
    ) -> Vec<u8> {
        let identity = key.identity();
        let mut part = SignedPart { owner, identity, uid, part, version, content, signature: [0; 64] };
        part.signature = key.sign(&part.signed_bytes());
        encode(part)
    }

    fn overheard_part(&mut self) -> Option<SignedPart> {
        let start = self.random.below(self.overheard.len());
        let parts = self.overheard.iter().cycle().skip(start).take(self.overheard.len());
        parts.filter_map(|bytes| Message::parse(bytes).ok().flatten()).find_map(|message| {
            let Message::Gossip(Gossip::Part(part)) = message else { return None };
            Some(*part)
        })
    }

    /// What others said, again.
    fn replayed(&mut self) -> Vec<Vec<u8>> {
        self.overheard.iter().cloned().collect()
    }

    /// What others said, with some bits changed.
    fn mutated(&mut self) -> Vec<Vec<u8>> {
        let Some(mut bytes) =
            self.random.pick(&Vec::from_iter(&self.overheard)).map(|bytes| (*bytes).clone())
        else {
            return Vec::new();
        };
        for _ in 0..self.random.within(1, 4) {
            let at = self.random.below(bytes.len());
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << self.random.below(8);
            }
        }
        vec![bytes]
    }

    /// Another's record with other content: under its key, or under ours.
    fn forged(&mut self, under_our_key: bool) -> Vec<Vec<u8>> {
        let Some(mut part) = self.overheard_part() else { return Vec::new() };
        if part.owner == self.name {
            return Vec::new();
        }
        let versions =
            [part.version.saturating_add(1), part.version.saturating_add(1 << 33), u64::MAX - 1, u64::MAX];
        part.version = self.random.pick(&versions).copied().unwrap_or(part.version);
        if part.part == PartId::HOST {
            let farewell = self.random.chance(500);
            part.content = host("forged", Vec::new(), farewell);
        } else {
            part.content.clear();
        }
        if under_our_key {
            part.identity = self.key.identity();
            part.signature = self.key.sign(&part.signed_bytes());
        }
        vec![encode(part)]
    }

    /// Our own record with the largest versions there are.
    fn at_the_limit(&mut self, uid: Uid) -> Vec<Vec<u8>> {
        let names = PartId::names(63);
        [u64::MAX, u64::MAX - 1]
            .map(|version| self.signed(self.name, self.key, uid, names, version, Vec::new()))
            .into()
    }

    /// Peers that do not exist, in quantity.
    fn invented(&mut self) -> Vec<Vec<u8>> {
        let many = self.random.within(50, 400) as u64;
        let last = (self.invented + many).min(UNREACHABLE);
        let parts = (self.invented..last).map(|number| {
            let (name, key) = (peer_name(INVENTED, number), Key::new(number << 20));
            self.signed(name, key, Uid(number), PartId::HOST, 1, host("invented", Vec::new(), false))
        });
        let parts = parts.collect();
        self.invented = last;
        parts
    }

    /// Peers that do not exist, and seem to be behind us.
    fn invented_behind_us(&mut self, uid: Uid, neighbours: &[PeerName]) -> Vec<Vec<u8>> {
        self.version += 1;
        let invented = (0..REACHABLE).map(|number| peer_name(INVENTED, 1 << 32 | number));
        let ours: Vec<_> = neighbours.iter().copied().chain(invented.clone()).map(link).collect();
        let own =
            self.signed(self.name, self.key, uid, PartId::HOST, self.version, host("hostile", ours, false));
        let others = invented.enumerate().map(|(number, name)| {
            let key = Key::new(number as u64 | 1 << 50);
            let content = host("invented", vec![link(self.name)], false);
            self.signed(name, key, Uid(7), PartId::HOST, self.version, content)
        });
        std::iter::once(own).chain(others).collect()
    }

    fn requests(&mut self) -> Vec<Vec<u8>> {
        let Some(part) = self.overheard_part() else { return Vec::new() };
        let many = Gossip::Pull(vec![part.key(); MAX_ENTRIES]);
        vec![Message::Gossip(many).encode(); 4]
    }

    /// Versions of others' parts that do not exist.
    fn digests(&mut self) -> Vec<Vec<u8>> {
        let Some(part) = self.overheard_part() else { return Vec::new() };
        let digests = (0..MAX_ENTRIES as u64).map(|n| {
            let part_id = PartId(u16::try_from(n % 512).unwrap_or(0));
            let key = PartKey { owner: part.owner, part: if n == 0 { part.part } else { part_id } };
            let version = part.version.saturating_add(1 << (n % 64));
            Digest { key, version: Version { version, uid: part.uid } }
        });
        vec![Message::Gossip(Gossip::Digests(digests.collect())).encode()]
    }

    /// More parts than a peer may have.
    fn many_parts(&mut self, uid: Uid) -> Vec<Vec<u8>> {
        let part = |n: u16| self.signed(self.name, self.key, uid, PartId(0x4100 + n), 9 << 32, vec![1; 64]);
        (0..200).map(part).collect()
    }

    /// As many names as fit.
    fn many_names(&mut self, uid: Uid) -> Vec<Vec<u8>> {
        self.version += 1;
        (0..4_u16)
            .map(|part| {
                let entries = (0..u16::MAX)
                    .filter_map(|n| {
                        let [high, low] = n.to_be_bytes();
                        let name = format!("hostile-{part}-{}", n / 2).parse().ok()?;
                        Some(NameEntry { name, address: [10, 66, high, low].into(), container: [6; 6] })
                    })
                    .take(MAX_CONTENT_LEN / 40);
                let content = NamesPart { entries: entries.collect() }.encode();
                self.signed(self.name, self.key, uid, PartId::names(part), self.version, content)
            })
            .collect()
    }

    /// What is no message, or one that says nothing.
    fn rubbish(&mut self) -> Vec<Vec<u8>> {
        let len = self.random.within(0, 40);
        let mut bytes: Vec<u8> = (0..len).map(|_| self.random.next_u64().to_le_bytes()[0]).collect();
        if let Some(header) = bytes.first_chunk_mut::<6>() {
            let kind = u8::try_from(self.random.within(1, 14)).unwrap_or(1);
            *header = [0, kind, 0, 0, 0, u8::try_from(len.saturating_sub(6)).unwrap_or(0)];
        }
        vec![bytes]
    }
}

fn link(peer: PeerName) -> AnnouncedLink {
    AnnouncedLink { peer, unencrypted: false, outbound: false, cost: 1 }
}

fn host(nickname: &str, links: Vec<AnnouncedLink>, farewell: bool) -> Vec<u8> {
    let nickname = Nickname::from_host_name(nickname);
    HostPart { nickname, port: 1, addresses: Vec::new(), links, farewell, sealed_only: false, features: 0 }
        .encode()
}

fn encode(part: SignedPart) -> Vec<u8> {
    Message::Gossip(Gossip::Part(Box::new(part))).encode()
}
