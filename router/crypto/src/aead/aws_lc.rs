//! AES-256-GCM of AWS-LC: the fastest in a loop over warm data.

use super::{Aead, Forged, NONCE_LEN};
use crate::Key;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use weave_wire::TAG_LEN;

/// The `aws-lc-rs` crate. Wipes its key schedule when dropped.
pub struct AwsLc(LessSafeKey);

impl Aead for AwsLc {
    fn new(key: &Key) -> Self {
        match UnboundKey::new(&AES_256_GCM, key.as_bytes()) {
            Ok(key) => Self(LessSafeKey::new(key)),
            // Only for a key of another length, and the type fixes the length.
            Err(_) => unreachable!("a 256-bit key refused"),
        }
    }

    fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], body: &mut [u8]) -> [u8; TAG_LEN] {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let mut bytes = [0; TAG_LEN];
        match self.0.seal_in_place_separate_tag(nonce, Aad::from(aad), body) {
            Ok(tag) => bytes.copy_from_slice(tag.as_ref()),
            // Only for a body over 64 GiB, and a datagram is no longer than 64 KiB.
            Err(_) => unreachable!("a body longer than AES-GCM allows"),
        }
        bytes
    }

    fn open(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], body_and_tag: &mut [u8]) -> Result<(), Forged> {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        self.0.open_in_place(nonce, Aad::from(aad), body_and_tag).map(|_| ()).map_err(|_| Forged)
    }
}
