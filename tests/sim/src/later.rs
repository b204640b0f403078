//! A host of a later version: what it says more, the present version must skip.

use crate::identity::Key;
use weave_mesh::Signer;
use weave_wire::Uid;
use weave_wire::link::gossip::{
    Digest, Gossip, HostPart, NamesPart, PartId, PartKey, SignedPart, StationsPart, Version,
};
use weave_wire::link::message::{HEADER_LEN, Message};
use weave_wire::{IdentityKey, PeerName};

/// A part that the present version does not know.
const UNKNOWN_PART: PartId = PartId(0x4001);
/// A field of a message or part that it does not know.
const UNKNOWN_FIELD: [u8; 10] = [0x7f, 0, 0, 0, 0, 4, b'l', b'a', b't', b'e'];
/// A kind of message that it does not know.
const UNKNOWN_KIND: [u8; 10] = [0x70, 0, 0, 0, 0, 4, b'l', b'a', b't', b'e'];

/// The later version.
#[derive(Debug)]
pub struct Later {
    name: PeerName,
    key: Key,
    identity: IdentityKey,
    uid: Uid,
}

impl Later {
    /// Of the host with this name and key.
    #[must_use]
    pub fn new(name: PeerName, key: Key) -> Self {
        Self { name, key, identity: key.identity(), uid: Uid(0) }
    }

    /// Answers requests for the part that the present version does not know.
    pub(crate) fn answer(&mut self, gossip: &Gossip) -> Option<Gossip> {
        let unknown = PartKey { owner: self.name, part: UNKNOWN_PART };
        let Gossip::Pull(keys) = gossip else { return None };
        keys.contains(&unknown).then(|| {
            let part = SignedPart {
                owner: self.name,
                identity: self.identity,
                uid: self.uid,
                part: UNKNOWN_PART,
                version: 1 << 32,
                content: b"of a later version".to_vec(),
                signature: [0; 64],
            };
            Gossip::Part(Box::new(self.signed(part)))
        })
    }

    fn signed(&self, mut part: SignedPart) -> SignedPart {
        part.signature = self.key.sign(&part.signed_bytes());
        part
    }

    /// The message with what the present version does not know in it.
    pub(crate) fn encode(&mut self, message: &Message) -> Vec<u8> {
        let Message::Gossip(gossip) = message else { return with_field(message) };
        let gossip = match gossip {
            Gossip::Part(part) if part.owner == self.name => Gossip::Part(Box::new(self.grown(part))),
            Gossip::Digests(digests) => Gossip::Digests(self.with_unknown_part(digests)),
            Gossip::Part(_) | Gossip::Pull(_) | Gossip::Summary(_) => gossip.clone(),
        };
        with_field(&Message::Gossip(gossip))
    }

    /// Digests, with that of the part the present version does not know beside our own.
    fn with_unknown_part(&mut self, digests: &[Digest]) -> Vec<Digest> {
        let mut digests = digests.to_vec();
        if let Some(own) = digests.iter().find(|digest| digest.key.owner == self.name) {
            self.uid = own.version.uid;
            let key = PartKey { owner: self.name, part: UNKNOWN_PART };
            digests.push(Digest { key, version: Version { version: 1 << 32, uid: self.uid } });
        }
        digests
    }

    /// A message of an unknown kind, after the first.
    pub(crate) fn also(message: &Message) -> Option<Vec<u8>> {
        matches!(message, Message::Describe(_)).then(|| UNKNOWN_KIND.to_vec())
    }

    /// The part with a field that the present version does not know.
    fn grown(&self, part: &SignedPart) -> SignedPart {
        let mut grown = part.clone();
        if grown.content.len() + UNKNOWN_FIELD.len() <= weave_wire::link::gossip::MAX_CONTENT_LEN {
            grown.content.extend_from_slice(&UNKNOWN_FIELD);
        }
        debug_assert!(is_readable(&grown));
        self.signed(grown)
    }
}

fn is_readable(part: &SignedPart) -> bool {
    match part.part {
        PartId::HOST => HostPart::parse(&part.content).is_ok(),
        id if id.is_names() => NamesPart::parse(&part.content).is_ok(),
        id if id.is_stations() => StationsPart::parse(&part.content).is_ok(),
        _ => true,
    }
}

/// An encoded message with a field more.
fn with_field(message: &Message) -> Vec<u8> {
    let mut bytes = message.encode();
    bytes.extend_from_slice(&UNKNOWN_FIELD);
    let len = u32::try_from(bytes.len() - HEADER_LEN).unwrap_or(u32::MAX);
    bytes[2..HEADER_LEN].copy_from_slice(&len.to_be_bytes());
    bytes
}
