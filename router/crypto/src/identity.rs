//! The identity of a host: an Ed25519 key (RFC 8032) made once with its state.

use crate::key::Secret;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use std::fmt;
use weave_wire::link::handshake::{Role, SIGNATURE_LEN};

pub use weave_wire::{IDENTITY_LEN, IdentityKey};

/// What the signature of a part covers before the part: no signature of a
/// handshake is one of a part.
const PART_LABEL: &[u8] = b"weave 1 signature part";

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
        IdentityKey::from_bytes(self.0.verifying_key().to_bytes())
    }

    pub(crate) fn duplicate(&self) -> Self {
        Self(self.0.clone())
    }

    pub(crate) fn sign(&self, role: Role, transcript: &[u8]) -> [u8; SIGNATURE_LEN] {
        self.0.sign(&signed(role, transcript)).to_bytes()
    }

    /// Signs a part of this host's state
    /// ([`weave_wire::link::gossip::SignedPart::signed_bytes`]).
    #[must_use]
    pub fn sign_part(&self, bytes: &[u8]) -> [u8; SIGNATURE_LEN] {
        self.0.sign(&[PART_LABEL, bytes].concat()).to_bytes()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.public())
    }
}

/// True if the owner of `key` signed `transcript` in `role`.
pub(crate) fn verify(
    key: &IdentityKey,
    role: Role,
    transcript: &[u8],
    signature: &[u8; SIGNATURE_LEN],
) -> bool {
    verify_strictly(key, &signed(role, transcript), signature)
}

/// True if the owner of `key` signed these bytes of a part of its state
/// ([`weave_wire::link::gossip::SignedPart::signed_bytes`]).
#[must_use]
pub fn verify_part(key: &IdentityKey, bytes: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
    verify_strictly(key, &[PART_LABEL, bytes].concat(), signature)
}

/// Keys and signatures with more than one reading (small order, unreduced) fail.
fn verify_strictly(key: &IdentityKey, message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
    let signature = Signature::from_bytes(signature);
    VerifyingKey::from_bytes(&key.to_bytes()).is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
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
        assert!(verify(&ours.public(), Role::Initiator, b"t", &signature));
        assert!(!verify(&ours.public(), Role::Responder, b"t", &signature));
        assert!(!verify(&ours.public(), Role::Initiator, b"u", &signature));
        assert!(!verify(&other.public(), Role::Initiator, b"t", &signature));
        signature[63] ^= 1;
        assert!(!verify(&ours.public(), Role::Initiator, b"t", &signature));
    }

    #[test]
    fn a_key_of_small_order_signs_nothing() {
        // The neutral point, for which the signature (R = neutral, s = 0) holds
        // for any message under the bare equation.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        assert!(!verify(&IdentityKey::from_bytes(neutral), Role::Initiator, b"t", &signature));
    }

    #[test]
    fn a_signature_of_a_part_holds_for_nothing_else() {
        let (ours, other) = (Identity::from_seed(&[1; 32]), Identity::from_seed(&[2; 32]));
        let signature = ours.sign_part(b"p");
        assert!(verify_part(&ours.public(), b"p", &signature));
        assert!(!verify_part(&ours.public(), b"q", &signature));
        assert!(!verify_part(&other.public(), b"p", &signature));
        assert!(!verify(&ours.public(), Role::Initiator, b"p", &signature));
        assert!(!verify_part(&ours.public(), b"p", &ours.sign(Role::Initiator, b"p")));
    }
}
