//! Ephemeral X25519 (RFC 7748), with the checks that it leaves to its user.

use crate::Entropy;
use crate::entropy::draw_secret;
use crate::key::Secret;
use x25519_dalek::{PublicKey, StaticSecret};

/// The peer's public key is not canonical or of low order: the shared secret
/// would not depend on our key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadPublicKey;

/// One side's key of one exchange; used once and wiped.
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Ephemeral {
    secret: StaticSecret,
    public: [u8; 32],
}

impl Ephemeral {
    pub(crate) fn new(entropy: &mut dyn Entropy) -> Self {
        Self::from_secret(&draw_secret(entropy))
    }

    fn from_secret(secret: &Secret<32>) -> Self {
        let secret = StaticSecret::from(secret.0);
        let public = PublicKey::from(&secret).to_bytes();
        Self { secret, public }
    }

    pub(crate) const fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// The secret shared with the owner of `peer`.
    pub(crate) fn agree(self, peer: &[u8; 32]) -> Result<Secret<32>, BadPublicKey> {
        if !is_canonical(peer) {
            return Err(BadPublicKey);
        }
        let shared = self.secret.diffie_hellman(&PublicKey::from(*peer));
        if !shared.was_contributory() {
            return Err(BadPublicKey);
        }
        Ok(Secret(shared.to_bytes()))
    }
}

/// True if the bytes are a number below 2^255 - 19. X25519 takes others too and
/// reduces them, so that one key would have two spellings in a transcript.
fn is_canonical(public: &[u8; 32]) -> bool {
    let [first, middle @ .., last] = public;
    *last < 0x7f || (*last == 0x7f && !(*first >= 0xed && middle.iter().all(|&byte| byte == 0xff)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn bytes(text: &str) -> [u8; 32] {
        hex::decode(text).unwrap().try_into().unwrap()
    }

    fn ephemeral(text: &str) -> Ephemeral {
        Ephemeral::from_secret(&Secret(bytes(text)))
    }

    /// RFC 7748, section 6.1.
    #[test]
    fn two_sides_agree_on_the_secret_of_the_rfc() {
        let a = ephemeral("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
        let b = ephemeral("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
        let (public_a, public_b) = (*a.public(), *b.public());
        assert_eq!(public_a, bytes("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"));
        assert_eq!(public_b, bytes("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"));
        let shared = bytes("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
        assert_eq!(a.agree(&public_b).unwrap().0, shared);
        assert_eq!(b.agree(&public_a).unwrap().0, shared);
    }

    /// RFC 7748, section 5.2: the function applied to its own results.
    #[test]
    fn a_thousand_rounds_end_where_the_rfc_says() {
        let (mut scalar, mut point) = ([0; 32], [0; 32]);
        scalar[0] = 9;
        point[0] = 9;
        for round in 1..=1000 {
            let next = x25519_dalek::x25519(scalar, point);
            (scalar, point) = (next, scalar);
            if round == 1 {
                let expected = "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079";
                assert_eq!(hex::encode(scalar), expected);
            }
        }
        let expected = "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51";
        assert_eq!(hex::encode(scalar), expected);
    }

    /// All points of low order with a canonical encoding (Bernstein, "Curve25519:
    /// does the curve have any low order points", cr.yp.to/ecdh.html).
    const LOW_ORDER: [&str; 5] = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];

    #[test]
    fn points_of_low_order_are_refused() {
        for point in LOW_ORDER {
            assert!(ephemeral(&"42".repeat(32)).agree(&bytes(point)).is_err(), "{point}");
        }
    }

    #[test]
    fn encodings_that_are_not_reduced_are_refused() {
        let mut point = [0xff; 32];
        for (first, last, canonical) in [
            (0xec, 0x7f, true),
            (0xed, 0x7f, false),
            (0xff, 0x7f, false),
            (9, 0x80, false),
            (0xff, 0x7e, true),
        ] {
            (point[0], point[31]) = (first, last);
            assert_eq!(is_canonical(&point), canonical, "{first:x} {last:x}");
        }
        // An unreduced spelling of the point 2 (2^255 - 19 + 2), which is not of low order.
        (point[0], point[31]) = (0xef, 0x7f);
        assert!(ephemeral(&"42".repeat(32)).agree(&point).is_err());
    }

    #[derive(serde::Deserialize)]
    struct Vectors {
        tests: Vec<Vector>,
    }

    #[derive(serde::Deserialize)]
    struct Vector {
        id: u32,
        private: String,
        public: String,
        shared: String,
        refused: bool,
    }

    #[test]
    fn wycheproof_agrees_and_its_bad_points_are_refused() {
        let file = include_str!("../tests/vectors/x25519_wycheproof.json");
        let vectors: Vectors = serde_json::from_str(file).unwrap();
        for vector in vectors.tests {
            let agreed = ephemeral(&vector.private).agree(&bytes(&vector.public));
            match agreed {
                Ok(shared) => {
                    assert!(!vector.refused, "test {}", vector.id);
                    assert_eq!(hex::encode(shared.0), vector.shared, "test {}", vector.id);
                }
                Err(BadPublicKey) => assert!(vector.refused, "test {}", vector.id),
            }
        }
    }
}
