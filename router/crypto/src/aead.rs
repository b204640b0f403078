//! AES-256-GCM (NIST SP 800-38D) behind one trait, by several makers.
//!
//! All of them make the same bytes; a test holds them against each other and
//! against published vectors. Which one carries the data path ([`DataAead`]) is
//! a matter of speed alone. The records of the TCP link use [`Portable`].

mod portable;
mod ring;
#[cfg(test)]
mod tests;
mod wiped;

pub use portable::Portable;
pub use ring::Ring;

use crate::Key;

/// Length of a nonce, bytes.
pub const NONCE_LEN: usize = 12;

/// The AEAD of the datagram path. (AWS-LC was no faster end to end: sixteen rounds on two Xeon
/// cores went both ways.)
pub type DataAead = Ring;

/// The tag does not belong to the data under this key and nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the data was not sealed under this key")]
pub struct Forged;

/// AES-256-GCM with a 96-bit nonce and a 128-bit tag, in place.
///
/// The nonce is the caller's duty: [`crate::SendKey`] and the record layer are
/// the only callers, and both count.
pub trait Aead: Send {
    /// Expands `key` for use.
    fn new(key: &Key) -> Self
    where
        Self: Sized;

    /// Encrypts `body` in place and returns the tag over it and `aad`.
    fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], body: &mut [u8]) -> [u8; weave_wire::TAG_LEN];

    /// Decrypts in place what [`Aead::seal`] made, its tag at the end.
    ///
    /// # Errors
    /// [`Forged`] if the tag is wrong or missing. The content of the buffer is
    /// then unspecified (some makers decrypt before they compare) and must not
    /// be read.
    fn open(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], body_and_tag: &mut [u8]) -> Result<(), Forged>;
}
