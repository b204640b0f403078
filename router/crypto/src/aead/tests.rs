//! All makers of AES-256-GCM against published vectors and against each other.
#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;
use serde::Deserialize;
use weave_wire::TAG_LEN;

#[derive(Deserialize)]
struct Vectors {
    tests: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    id: u32,
    #[serde(with = "hex")]
    key: [u8; 32],
    #[serde(with = "hex")]
    nonce: [u8; NONCE_LEN],
    #[serde(with = "hex")]
    aad: Vec<u8>,
    #[serde(with = "hex")]
    plain: Vec<u8>,
    #[serde(with = "hex")]
    sealed: Vec<u8>,
    valid: bool,
}

fn seal<A: Aead>(aead: &A, nonce: &[u8; NONCE_LEN], aad: &[u8], plain: &[u8]) -> Vec<u8> {
    let mut body = plain.to_vec();
    let tag = aead.seal(nonce, aad, &mut body);
    body.extend(tag);
    body
}

fn open<A: Aead>(aead: &A, nonce: &[u8; NONCE_LEN], aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Forged> {
    let mut body = sealed.to_vec();
    aead.open(nonce, aad, &mut body)?;
    body.truncate(sealed.len() - TAG_LEN);
    Ok(body)
}

fn check<A: Aead>(file: &str) {
    let vectors: Vectors = serde_json::from_str(file).unwrap();
    assert!(vectors.tests.len() > 40);
    for vector in vectors.tests {
        let Vector { id, key, nonce, aad, plain, sealed, valid } = vector;
        let aead = A::new(&Key::from_bytes(key));
        let opened = open(&aead, &nonce, &aad, &sealed);
        if valid {
            assert_eq!(opened, Ok(plain.clone()), "test {id}");
            assert_eq!(seal(&aead, &nonce, &aad, &plain), sealed, "test {id}");
        } else {
            assert_eq!(opened, Err(Forged), "test {id}");
        }
    }
}

#[test]
fn every_maker_agrees_with_nist() {
    let file = include_str!("../../tests/vectors/aes_gcm_nist.json");
    check::<Ring>(file);
    check::<Portable>(file);
}

#[test]
fn every_maker_agrees_with_wycheproof() {
    let file = include_str!("../../tests/vectors/aes_gcm_wycheproof.json");
    check::<Ring>(file);
    check::<Portable>(file);
}

/// Seals by `A`, and opens and refuses by `B`.
fn cross<A: Aead, B: Aead>(key: [u8; 32], nonce: [u8; NONCE_LEN], aad: &[u8], plain: &[u8], flip: usize) {
    let (a, b) = (A::new(&Key::from_bytes(key)), B::new(&Key::from_bytes(key)));
    let mut sealed = seal(&a, &nonce, aad, plain);
    assert_eq!(open(&b, &nonce, aad, &sealed), Ok(plain.to_vec()));
    let bit = flip % (8 * sealed.len());
    sealed[bit / 8] ^= 1 << (bit % 8);
    assert_eq!(open(&b, &nonce, aad, &sealed), Err(Forged));
}

proptest! {
    #[test]
    fn what_one_maker_seals_every_other_opens(
        key: [u8; 32], nonce: [u8; NONCE_LEN], aad in prop::collection::vec(any::<u8>(), 0..40),
        plain in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..80),
            prop::collection::vec(any::<u8>(), 1300..1500),
        ],
        flip: usize,
    ) {
        cross::<Ring, Portable>(key, nonce, &aad, &plain, flip);
        cross::<Portable, Ring>(key, nonce, &aad, &plain, flip);
    }

    #[test]
    fn less_than_a_tag_is_refused(short in prop::collection::vec(any::<u8>(), 0..TAG_LEN)) {
        let key = Key::from_bytes([3; 32]);
        for refused in [
            open(&Ring::new(&key), &[0; NONCE_LEN], b"", &short),
            open(&Portable::new(&key), &[0; NONCE_LEN], b"", &short),
        ] {
            prop_assert_eq!(refused, Err(Forged));
        }
    }
}
