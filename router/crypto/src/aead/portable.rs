//! AES-256-GCM of RustCrypto: hardware instructions where found, constant-time
//! software everywhere else.

use super::{Aead, Forged, NONCE_LEN};
use crate::Key;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use weave_wire::TAG_LEN;

/// The `aes-gcm` crate. Wipes its key schedule when dropped.
pub struct Portable(Aes256Gcm);

impl Aead for Portable {
    fn new(key: &Key) -> Self {
        Self(Aes256Gcm::new(key.as_bytes().into()))
    }

    fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], body: &mut [u8]) -> [u8; TAG_LEN] {
        match self.0.encrypt_inout_detached(&Nonce::from(*nonce), aad, body.into()) {
            Ok(tag) => tag.into(),
            // Only for a body over 64 GiB, and a datagram is no longer than 64 KiB.
            Err(_) => unreachable!("a body longer than AES-GCM allows"),
        }
    }

    fn open(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], body_and_tag: &mut [u8]) -> Result<(), Forged> {
        let (body, tag) = body_and_tag.split_last_chunk_mut::<TAG_LEN>().ok_or(Forged)?;
        self.0
            .decrypt_inout_detached(&Nonce::from(*nonce), aad, body.into(), &Tag::from(*tag))
            .map_err(|_| Forged)
    }
}
