//! What peers tell each other of all peers.
//!
//! A peer's state is a set of [`SignedPart`]s, each with its own version.
//! Changes travel as [`Digest`]s, whoever lacks a part pulls it; a
//! [`Gossip::Summary`] finds what was missed. [`content`] is what the parts say.

pub mod content;
mod part;
mod summary;

pub use content::{
    AnnouncedLink, HostPart, NameEntry, NamesPart, StationAddress, StationEntry, StationsPart,
};
pub use part::{Digest, MAX_CONTENT_LEN, PartId, PartKey, SignedPart, Version};
pub use summary::{BUCKETS, Summary, bucket_of};

use super::ParseError;
use super::field::{Fields, fixed, once, put, required};

/// Largest number of digests, or of parts pulled, in one message.
pub const MAX_ENTRIES: usize = 4_096;

/// A message of gossip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gossip {
    /// Hashes of all that the sender announces; where one differs from the
    /// receiver's, the receiver answers with its digests of that bucket.
    Summary(Box<[u64; BUCKETS]>),
    /// What the sender has; at most [`MAX_ENTRIES`].
    Digests(Vec<Digest>),
    /// What the sender wants; at most [`MAX_ENTRIES`].
    Pull(Vec<PartKey>),
    /// A part.
    Part(Box<SignedPart>),
}

mod tag {
    pub const HASHES: u16 = 1;
    pub const ENTRIES: u16 = 1;
    pub const OWNER: u16 = 1;
    pub const IDENTITY: u16 = 2;
    pub const UID: u16 = 3;
    pub const PART: u16 = 4;
    pub const VERSION: u16 = 5;
    pub const CONTENT: u16 = 6;
    pub const SIGNATURE: u16 = 7;
}

/// Appends the fields of a message.
pub(super) fn encode(gossip: &Gossip, out: &mut Vec<u8>) {
    match gossip {
        Gossip::Summary(hashes) => {
            let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.to_be_bytes()).collect();
            put(out, tag::HASHES, &bytes);
        }
        Gossip::Digests(digests) => {
            let bytes: Vec<u8> = digests.iter().take(MAX_ENTRIES).flat_map(Digest::encode).collect();
            put(out, tag::ENTRIES, &bytes);
        }
        Gossip::Pull(keys) => {
            let bytes: Vec<u8> = keys.iter().take(MAX_ENTRIES).flat_map(PartKey::encode).collect();
            put(out, tag::ENTRIES, &bytes);
        }
        Gossip::Part(part) => {
            put(out, tag::OWNER, &part.owner.to_bytes());
            put(out, tag::IDENTITY, &part.identity.to_bytes());
            put(out, tag::UID, &part.uid.0.to_be_bytes());
            put(out, tag::PART, &part.part.0.to_be_bytes());
            put(out, tag::VERSION, &part.version.to_be_bytes());
            put(out, tag::CONTENT, &part.content);
            put(out, tag::SIGNATURE, &part.signature);
        }
    }
}

/// The value of the one field of a message that has but one.
fn sole<'a>(fields: &'a [u8], wanted: u16, what: &'static str) -> Result<&'a [u8], ParseError> {
    let mut slot = None;
    for field in Fields::new(fields) {
        let (tag, value) = field?;
        if tag == wanted {
            once(&mut slot, value, what)?;
        }
    }
    required(slot, what)
}

/// A value that is a sequence of entries of `N` bytes.
fn entries<'a, const N: usize>(
    value: &'a [u8],
    limit: usize,
    what: &'static str,
) -> Result<&'a [[u8; N]], ParseError> {
    let (entries, rest) = value.as_chunks::<N>();
    if !rest.is_empty() {
        return Err(ParseError::Invalid { what });
    }
    if entries.len() > limit {
        return Err(ParseError::TooLong { len: value.len(), limit: limit * N });
    }
    Ok(entries)
}

pub(super) fn parse_summary(fields: &[u8]) -> Result<Gossip, ParseError> {
    let what = "hashes";
    let value = sole(fields, tag::HASHES, what)?;
    let chunks = entries::<8>(value, BUCKETS, what)?;
    let hashes: Vec<u64> = chunks.iter().map(|chunk| u64::from_be_bytes(*chunk)).collect();
    let hashes = hashes.try_into().map_err(|_| ParseError::Invalid { what })?;
    Ok(Gossip::Summary(hashes))
}

pub(super) fn parse_digests(fields: &[u8]) -> Result<Gossip, ParseError> {
    let what = "digests";
    let value = sole(fields, tag::ENTRIES, what)?;
    let digests = entries(value, MAX_ENTRIES, what)?.iter().map(Digest::parse);
    Ok(Gossip::Digests(digests.collect::<Result<_, _>>()?))
}

pub(super) fn parse_pull(fields: &[u8]) -> Result<Gossip, ParseError> {
    let what = "keys of parts";
    let value = sole(fields, tag::ENTRIES, what)?;
    let keys = entries(value, MAX_ENTRIES, what)?.iter().map(PartKey::parse);
    Ok(Gossip::Pull(keys.collect::<Result<_, _>>()?))
}

pub(super) fn parse_part(fields: &[u8]) -> Result<Gossip, ParseError> {
    let content = sole(fields, tag::CONTENT, "content")?;
    if content.len() > MAX_CONTENT_LEN {
        return Err(ParseError::TooLong { len: content.len(), limit: MAX_CONTENT_LEN });
    }
    let number = |tag, what| fixed(sole(fields, tag, what)?, what);
    let two = |tag, what| fixed(sole(fields, tag, what)?, what);
    Ok(Gossip::Part(Box::new(SignedPart {
        owner: part::peer_name(fixed(sole(fields, tag::OWNER, "owner")?, "owner")?, "owner")?,
        identity: crate::IdentityKey::from_bytes(fixed(
            sole(fields, tag::IDENTITY, "identity")?,
            "identity",
        )?),
        uid: crate::Uid(u64::from_be_bytes(number(tag::UID, "UID")?)),
        part: PartId(u16::from_be_bytes(two(tag::PART, "part number")?)),
        version: u64::from_be_bytes(number(tag::VERSION, "version")?),
        content: content.to_vec(),
        signature: fixed(sole(fields, tag::SIGNATURE, "signature")?, "signature")?,
    })))
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{IdentityKey, PeerName, Uid};
    use proptest::prelude::*;

    pub(crate) fn peers() -> impl Strategy<Value = PeerName> {
        any::<[u8; 6]>().prop_filter_map("zero", PeerName::new)
    }

    fn keys() -> impl Strategy<Value = PartKey> {
        (peers(), any::<u16>()).prop_map(|(owner, part)| PartKey { owner, part: PartId(part) })
    }

    fn parts() -> impl Strategy<Value = SignedPart> {
        let content = prop::collection::vec(any::<u8>(), 0..100);
        (keys(), any::<([u8; 32], u64, u64, [u8; 32])>(), content).prop_map(|(key, numbers, content)| {
            let (identity, uid, version, half) = numbers;
            SignedPart {
                owner: key.owner,
                identity: IdentityKey::from_bytes(identity),
                uid: Uid(uid),
                part: key.part,
                version,
                content,
                signature: [half, half].as_flattened().try_into().unwrap(),
            }
        })
    }

    /// Any message of gossip.
    pub(crate) fn gossip() -> impl Strategy<Value = Gossip> {
        let digests = (keys(), any::<(u64, u64)>())
            .prop_map(|(key, (version, uid))| Digest { key, version: Version { version, uid: Uid(uid) } });
        prop_oneof![
            any::<[u64; 4]>().prop_map(|some| {
                Gossip::Summary(Box::new(std::array::from_fn(|at| some[at % 4].wrapping_mul(at as u64))))
            }),
            prop::collection::vec(digests, 0..20).prop_map(Gossip::Digests),
            prop::collection::vec(keys(), 0..20).prop_map(Gossip::Pull),
            parts().prop_map(|part| Gossip::Part(Box::new(part))),
        ]
    }

    #[test]
    fn too_many_entries_and_half_entries_are_refused() {
        let fields = |len: usize| {
            let mut fields = Vec::new();
            put(&mut fields, tag::ENTRIES, &vec![1; len]);
            fields
        };
        assert!(parse_digests(&fields(MAX_ENTRIES * Digest::LEN)).is_ok());
        assert!(parse_digests(&fields((MAX_ENTRIES + 1) * Digest::LEN)).is_err());
        assert!(parse_digests(&fields(Digest::LEN + 1)).is_err());
        assert!(parse_pull(&fields(MAX_ENTRIES * PartKey::LEN)).is_ok());
        assert!(parse_pull(&fields((MAX_ENTRIES + 1) * PartKey::LEN)).is_err());
        assert!(parse_pull(&fields(PartKey::LEN - 1)).is_err());
    }

    #[test]
    fn a_summary_has_a_hash_for_each_bucket() {
        for (len, good) in [(0, false), (63 * 8, false), (64 * 8, true), (65 * 8, false)] {
            let mut fields = Vec::new();
            put(&mut fields, tag::HASHES, &vec![0; len]);
            assert_eq!(parse_summary(&fields).is_ok(), good, "{len}");
        }
    }

    #[test]
    fn a_part_over_the_limit_is_refused() {
        let part = |len| SignedPart {
            owner: PeerName::new([1; 6]).unwrap(),
            identity: IdentityKey::from_bytes([0; 32]),
            uid: Uid(1),
            part: PartId::HOST,
            version: 1,
            content: vec![0; len],
            signature: [0; 64],
        };
        for (len, good) in [(MAX_CONTENT_LEN, true), (MAX_CONTENT_LEN + 1, false)] {
            let mut fields = Vec::new();
            encode(&Gossip::Part(Box::new(part(len))), &mut fields);
            assert_eq!(parse_part(&fields).is_ok(), good, "{len}");
        }
    }
}
