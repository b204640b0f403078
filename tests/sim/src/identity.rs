//! Who a simulated host is.

use weave_mesh::Signer;
use weave_wire::{IdentityKey, PeerName, Uid};

/// A signer that costs next to nothing: a keyed hash. It keeps no secret, but
/// only hostile hosts forge, and those on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    number: u64,
    /// Takes every signature for good: a defect to be found.
    credulous: bool,
}

impl Key {
    /// Key number `number`.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self { number, credulous: false }
    }

    /// The same key in the hands of a host that checks no signature.
    #[must_use]
    pub const fn credulous(self) -> Self {
        Self { credulous: true, ..self }
    }
}

fn keyed_hash(key: &IdentityKey, bytes: &[u8]) -> [u8; 64] {
    let start = key.to_bytes().iter().fold(7_u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(*b)));
    let hash = bytes.chunks(8).fold(start, |hash, chunk| {
        let word = chunk.iter().fold(chunk.len() as u64, |word, byte| word << 8 | u64::from(*byte));
        (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
    });
    let mut signature = [0; 64];
    signature[..8].copy_from_slice(&hash.to_le_bytes());
    signature
}

impl Signer for Key {
    fn identity(&self) -> IdentityKey {
        let mut bytes = [1; 32];
        bytes[..8].copy_from_slice(&self.number.to_le_bytes());
        IdentityKey::from_bytes(bytes)
    }

    fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        keyed_hash(&self.identity(), bytes)
    }

    fn verify(&self, key: &IdentityKey, bytes: &[u8], signature: &[u8; 64]) -> bool {
        self.credulous || keyed_hash(key, bytes) == *signature
    }
}

/// What a handshake tells of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Who {
    /// Its name.
    pub name: PeerName,
    /// Its run.
    pub uid: Uid,
    /// Its key.
    pub identity: IdentityKey,
}

/// The name made of six bytes that begin with `kind`, which is not 0.
///
/// # Panics
/// If `kind` is 0.
#[must_use]
pub fn peer_name(kind: u8, number: u64) -> PeerName {
    let [.., a, b, c, d, e] = number.to_be_bytes();
    match PeerName::new([kind, a, b, c, d, e]) {
        Some(name) => name,
        None => unreachable!("the kind of a name is not 0"),
    }
}
