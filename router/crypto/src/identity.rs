//! The identity of a host: an Ed25519 key (RFC 8032) made once with its state.

use crate::key::Secret;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use std::fmt;
use weave_wire::link::handshake::{Role, SIGNATURE_LEN};

/// Length of an identity's seed and of its public key, bytes.
pub const IDENTITY_LEN: usize = 32;

/// The private half: signs what the host says. Wiped when dropped.
pub struct Identity(SigningKey);

impl Identity {
    /// The identity with this seed, which the state keeps. The caller wipes its copy.
    #[must_use]
    pub fn from_seed(seed: &[u8; IDENTITY_LEN]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> IdentityKey {
        IdentityKey(self.0.verifying_key().to_bytes())
    }

    pub(crate) fn sign(&self, role: Role, transcript: &[u8]) -> [u8; SIGNATURE_LEN] {
        self.0.sign(&signed(role, transcript)).to_bytes()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.public())
    }
}

/// The public half: who a host is to its peers, whatever it is called.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdentityKey([u8; IDENTITY_LEN]);

impl IdentityKey {
    /// The key as a peer or the state wrote it. Whether it is one shows in the
    /// handshake, where its owner must sign.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; IDENTITY_LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes of the key.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; IDENTITY_LEN] {
        self.0
    }

    /// True if the owner of this key signed `transcript` in `role`. Keys and
    /// signatures with more than one reading (small order, unreduced) fail.
    pub(crate) fn verify(&self, role: Role, transcript: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
        let signature = Signature::from_bytes(signature);
        VerifyingKey::from_bytes(&self.0)
            .is_ok_and(|key| key.verify_strict(&signed(role, transcript), &signature).is_ok())
    }
}

impl fmt::Display for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a signature covers: the use and role, then the hash of the transcript.
fn signed(role: Role, transcript: &[u8]) -> Vec<u8> {
    let label: &[u8] = match role {
        Role::Initiator => b"weave 1 signature initiator",
        Role::Responder => b"weave 1 signature responder",
    };
    [label, transcript].concat()
}

/// A fresh seed for an identity.
#[must_use]
pub fn new_seed(entropy: &mut dyn crate::Entropy) -> [u8; IDENTITY_LEN] {
    let secret: Secret<IDENTITY_LEN> = crate::entropy::draw_secret(entropy);
    secret.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_one_key_role_and_transcript() {
        let (ours, other) = (Identity::from_seed(&[1; 32]), Identity::from_seed(&[2; 32]));
        let mut signature = ours.sign(Role::Initiator, b"t");
        assert!(ours.public().verify(Role::Initiator, b"t", &signature));
        assert!(!ours.public().verify(Role::Responder, b"t", &signature));
        assert!(!ours.public().verify(Role::Initiator, b"u", &signature));
        assert!(!other.public().verify(Role::Initiator, b"t", &signature));
        signature[63] ^= 1;
        assert!(!ours.public().verify(Role::Initiator, b"t", &signature));
    }

    #[test]
    fn a_key_of_small_order_signs_nothing() {
        // The neutral point, for which the signature (R = neutral, s = 0) holds
        // for any message under the bare equation.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        assert!(!IdentityKey::from_bytes(neutral).verify(Role::Initiator, b"t", &signature));
    }
}
