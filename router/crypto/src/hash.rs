//! HMAC and HKDF (RFC 2104, RFC 5869) over SHA-512: the only hash of the protocol.

use crate::key::Secret;
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha512;
use subtle::ConstantTimeEq;

/// Length of a SHA-512 hash, bytes.
pub(crate) const HASH_LEN: usize = 64;
/// Length of a MAC on the wire: a truncated HMAC, bytes.
pub(crate) const MAC_LEN: usize = 32;

/// HKDF-Extract.
pub(crate) fn extract(salt: &[u8], material: &[&[u8]]) -> Secret<HASH_LEN> {
    let mut mac = keyed(salt);
    for part in material {
        mac.update(part);
    }
    Secret(mac.finalize().into_bytes().into())
}

/// HKDF-Expand with the concatenation of `info`.
pub(crate) fn expand<const N: usize>(key: &Secret<HASH_LEN>, info: &[&[u8]]) -> Secret<N> {
    const { assert!(N <= HASH_LEN) };
    let mut out = Secret::zeroed();
    let expanded = Hkdf::<Sha512>::from_prk(&key.0).map(|hkdf| hkdf.expand_multi_info(info, &mut out.0));
    // A key of 64 bytes and an output of at most 64 are within every limit.
    debug_assert!(matches!(expanded, Ok(Ok(()))));
    out
}

/// The first 32 bytes of HMAC over the concatenation of `parts`.
pub(crate) fn mac(key: &Secret<HASH_LEN>, parts: &[&[u8]]) -> [u8; MAC_LEN] {
    let mut mac = keyed(&key.0);
    for part in parts {
        mac.update(part);
    }
    let full: [u8; HASH_LEN] = mac.finalize().into_bytes().into();
    let mut short = [0; MAC_LEN];
    short.copy_from_slice(&full[..MAC_LEN]);
    short
}

/// Compares in constant time.
pub(crate) fn same(a: &[u8; MAC_LEN], b: &[u8; MAC_LEN]) -> bool {
    a.ct_eq(b).into()
}

fn keyed(key: &[u8]) -> Hmac<Sha512> {
    match Hmac::new_from_slice(key) {
        Ok(mac) => mac,
        Err(_) => unreachable!("HMAC takes keys of any length"),
    }
}
