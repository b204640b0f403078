//! CPace, a balanced password-authenticated key exchange
//! (draft-irtf-cfrg-cpace-21), suite CPACE-RISTR255-SHA512, initiator-responder.
//!
//! Who does not know the password learns nothing of it from an exchange but
//! whether one guess was right. Key confirmation is the handshake's.

use crate::key::Secret;
use curve25519_dalek::ristretto::{CompressedRistretto, RistrettoPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::IsIdentity;
use sha2::{Digest, Sha512};
use weave_wire::link::handshake::Role;
use zeroize::{Zeroize, Zeroizing};

/// Length of an encoded share, bytes.
pub(crate) const SHARE_LEN: usize = 32;

const DSI: &[u8] = b"CPaceRistretto255";
const DSI_ISK: &[u8] = b"CPaceRistretto255_ISK";
/// Input block size of SHA-512, bytes.
const BLOCK_LEN: usize = 128;

/// The peer's share is no element of the group, or its neutral one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadShare;

/// One side of an exchange, its share drawn.
pub(crate) struct Exchange {
    role: Role,
    session: Vec<u8>,
    scalar: Scalar,
    share: [u8; SHARE_LEN],
}

impl Exchange {
    /// Begins an exchange with `password` (PRS) on `channel` (CI) in `session`
    /// (sid); `random` makes the secret scalar.
    pub(crate) fn new(
        role: Role,
        password: &[u8],
        channel: &[u8],
        session: &[u8],
        random: &Secret<32>,
    ) -> Self {
        let mut bytes = Zeroizing::new(random.0);
        // The draft's sampling: the bits above the size of the group are cleared.
        bytes[31] &= 0x0f;
        let scalar = Scalar::from_bytes_mod_order(*bytes);
        let mut generator = generator(password, channel, session);
        let share = (generator * scalar).compress().to_bytes();
        generator.zeroize();
        Self { role, session: session.to_vec(), scalar, share }
    }

    /// The share for the peer.
    pub(crate) const fn share(&self) -> &[u8; SHARE_LEN] {
        &self.share
    }

    /// The intermediate session key, from the peer's share and the associated
    /// data of both sides.
    pub(crate) fn finish(
        &self,
        own_data: &[u8],
        peer_share: &[u8; SHARE_LEN],
        peer_data: &[u8],
    ) -> Result<Secret<64>, BadShare> {
        let point = multiply_checked(&self.scalar, peer_share)?;
        let (own, peer) = ((&self.share, own_data), (peer_share, peer_data));
        let (a, b) = match self.role {
            Role::Initiator => (own, peer),
            Role::Responder => (peer, own),
        };
        let mut input = Zeroizing::new(Vec::with_capacity(1024));
        concatenate(&mut input, &[DSI_ISK, &self.session, &point[..], a.0, a.1, b.0, b.1]);
        Ok(Secret(Sha512::digest(&input).into()))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.scalar.zeroize();
    }
}

/// `scalar_mult_vfy` of the draft: refuses what is no canonical encoding of an
/// element, and the neutral element.
fn multiply_checked(scalar: &Scalar, share: &[u8; SHARE_LEN]) -> Result<Zeroizing<[u8; 32]>, BadShare> {
    let mut element = CompressedRistretto(*share).decompress().ok_or(BadShare)?;
    element *= scalar;
    if element.is_identity() {
        return Err(BadShare);
    }
    let encoded = Zeroizing::new(element.compress().to_bytes());
    element.zeroize();
    Ok(encoded)
}

/// The generator that the password, channel and session determine.
fn generator(password: &[u8], channel: &[u8], session: &[u8]) -> RistrettoPoint {
    let input = Zeroizing::new(generator_string(password, channel, session));
    let mut hash: [u8; 64] = Sha512::digest(&*input).into();
    let point = RistrettoPoint::from_uniform_bytes(&hash);
    hash.zeroize();
    point
}

/// The zeros after the password fill the first block of the hash, so that the
/// time to hash does not depend on the length of a short password.
fn generator_string(password: &[u8], channel: &[u8], session: &[u8]) -> Vec<u8> {
    let used = 1 + encoded_len(password.len()) + encoded_len(DSI.len());
    let padding = [0; BLOCK_LEN];
    let padding = &padding[..BLOCK_LEN.saturating_sub(used)];
    let mut out = Vec::with_capacity(2 * BLOCK_LEN + password.len() + channel.len() + session.len());
    concatenate(&mut out, &[DSI, password, padding, channel, session]);
    out
}

/// Length of a string with its length in front.
fn encoded_len(len: usize) -> usize {
    let mut bytes = len + 1;
    let mut rest = len >> 7;
    while rest > 0 {
        bytes += 1;
        rest >>= 7;
    }
    bytes
}

/// `lv_cat` of the draft: each part with its length (LEB128) in front.
fn concatenate(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        let mut len = part.len();
        while len >= 0x80 {
            out.push(len as u8 | 0x80);
            len >>= 7;
        }
        out.push(len as u8);
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use hex::decode;

    /// Appendix B.3 of the draft: ristretto255 and SHA-512.
    const CHANNEL: &str = "0b415f696e69746961746f720b425f726573706f6e646572";
    const SESSION: &str = "7e4b4791d6a8ef019b936c79fb7f2c57";
    const SCALAR_A: &str = "da3d23700a9e5699258aef94dc060dfda5ebb61f02a5ea77fad53f4ff0976d08";
    const SCALAR_B: &str = "d2316b454718c35362d83d69df6320f38578ed5984651435e2949762d900b80d";
    const SHARE_A: &str = "d6bac480f2c386c394efc7c47adb9925dcd2630b64f240c50f8d0eec482b9157";
    const SHARE_B: &str = "3ea7e0b19560d7c0b0f5734f63b955286dfa8232b5ebe63324e2d9e7433f7258";
    const POINT: &str = "80b69a8a76457ab6a4d7f887a4bf6b55a2f80ac19c333f917a05fc9887c8b40f";
    const KEY: &str = "b69effbf61b51d56401c0f65601abe428de8206feaaf0e32198896dcae7b35cd\
                       2b38950a39dfd5d4a79164614c2984f7daa460b588c1e80c3fa2068af7900447";

    fn bytes<const N: usize>(text: &str) -> [u8; N] {
        decode(text).unwrap().try_into().unwrap()
    }

    fn exchange(role: Role, scalar: &str) -> Exchange {
        let (channel, session) = (decode(CHANNEL).unwrap(), decode(SESSION).unwrap());
        Exchange::new(role, b"Password", &channel, &session, &Secret(bytes(scalar)))
    }

    #[test]
    fn strings_are_encoded_as_in_the_draft() {
        let mut out = Vec::new();
        concatenate(&mut out, &[b"1234", b"5", b"", b"678"]);
        assert_eq!(hex::encode(out), "043132333401350003363738");
        let mut out = Vec::new();
        concatenate(&mut out, &[&[7; 128]]);
        assert_eq!(out[..3], [0x80, 0x01, 7]);
        assert_eq!(out.len(), encoded_len(128));
    }

    #[test]
    fn the_generator_is_that_of_the_draft() {
        let (channel, session) = (decode(CHANNEL).unwrap(), decode(SESSION).unwrap());
        let text = generator_string(b"Password", &channel, &session);
        assert_eq!(text.len(), 170);
        assert!(hex::encode(&text).starts_with("11435061636552697374726574746f3235350850617373776f726464"));
        let generator = generator(b"Password", &channel, &session).compress();
        let expected = "222b6b195fe84b1652badb6f6a3ae3d24341e7306967f0b8115b40d5698c7e56";
        assert_eq!(hex::encode(generator.as_bytes()), expected);
    }

    #[test]
    fn shares_and_key_are_those_of_the_draft() {
        let (a, b) = (exchange(Role::Initiator, SCALAR_A), exchange(Role::Responder, SCALAR_B));
        assert_eq!(hex::encode(a.share()), SHARE_A);
        assert_eq!(hex::encode(b.share()), SHARE_B);
        let point = multiply_checked(&a.scalar, b.share()).unwrap();
        assert_eq!(hex::encode(point.as_slice()), POINT);
        let (share_a, share_b) = (*a.share(), *b.share());
        let key_a = a.finish(b"ADa", &share_b, b"ADb").unwrap();
        let key_b = b.finish(b"ADb", &share_a, b"ADa").unwrap();
        assert_eq!(hex::encode(key_a.0), KEY);
        assert_eq!(hex::encode(key_b.0), KEY);
    }

    #[test]
    fn multiplication_is_that_of_the_draft() {
        let scalar = bytes("7cd0e075fa7955ba52c02759a6c90dbbfc10e6d40aea8d283e407d88cf538a05");
        let scalar = Scalar::from_bytes_mod_order(scalar);
        let good = bytes("2c3c6b8c4f3800e7aef6864025b4ed79bd599117e427c41bd47d93d654b4a51c");
        let expected = "7c13645fe790a468f62c39beb7388e541d8405d1ade69d1778c5fe3e7f6b600e";
        assert_eq!(hex::encode(multiply_checked(&scalar, &good).unwrap().as_slice()), expected);
    }

    #[test]
    fn an_invalid_encoding_and_the_neutral_element_are_refused() {
        let invalid = bytes("2b3c6b8c4f3800e7aef6864025b4ed79bd599117e427c41bd47d93d654b4a51c");
        // 2^255 - 19: another spelling of the neutral element, zero.
        let unreduced = bytes("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f");
        for share in [invalid, [0; 32], unreduced, [0xff; 32]] {
            let side = exchange(Role::Initiator, SCALAR_A);
            assert!(side.finish(b"", &share, b"").is_err(), "{share:x?}");
        }
    }

    #[test]
    fn another_password_channel_session_or_data_makes_another_key() {
        let key = |password: &[u8], channel: &[u8], session: &[u8], data: &[u8]| {
            let random = [Secret([1; 32]), Secret([2; 32])];
            let a = Exchange::new(Role::Initiator, b"p", b"c", b"s", &random[0]);
            let b = Exchange::new(Role::Responder, password, channel, session, &random[1]);
            let share = *a.share();
            let theirs = a.finish(b"A", b.share(), b"B").unwrap();
            theirs.0 == b.finish(data, &share, b"A").unwrap().0
        };
        assert!(key(b"p", b"c", b"s", b"B"));
        assert!(!key(b"q", b"c", b"s", b"B"));
        assert!(!key(b"p", b"d", b"s", b"B"));
        assert!(!key(b"p", b"c", b"t", b"B"));
        assert!(!key(b"p", b"c", b"s", b"C"));
    }
}
