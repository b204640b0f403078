//! The public half of a host's identity.

use std::fmt;

/// Length of an identity key, bytes.
pub const IDENTITY_LEN: usize = 32;

/// An Ed25519 public key (RFC 8032): who a host is to its peers, whatever it
/// is called. Plain bytes here; signatures are verified elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdentityKey([u8; IDENTITY_LEN]);

impl IdentityKey {
    /// The key as a peer or the state wrote it. Whether it is one shows where
    /// its owner must sign.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; IDENTITY_LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes of the key.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; IDENTITY_LEN] {
        self.0
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
