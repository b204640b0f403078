//! Resumption: a link goes on over a new TCP connection.
//!
//! The loss of a TCP connection says nothing about the peer or the keys, so the
//! datagrams go on, and either side dials again. Three short messages prove that
//! both ends still hold the link; a fresh X25519 result gives the records new
//! keys. The keys of datagrams, their counters and windows stay as they are.
//!
//! The proofs are made with a key of the handshake that lives as long as the
//! link: a re-key that was broken off in the middle then cannot leave two sides
//! that no longer understand each other.

use crate::Entropy;
use crate::dh::Ephemeral;
use crate::entropy::draw;
use crate::hash::{HASH_LEN, MAC_LEN, expand, extract, mac, same};
use crate::key::{Key, Secret};
use crate::record::{RecordOpener, RecordSealer};
use crate::schedule::{ConnectionId, direction};
use sha2::{Digest, Sha512};
use std::fmt;
use weave_wire::link::ParseError;
use weave_wire::link::handshake::{LENGTH_LEN, Role};
use weave_wire::link::resume::{Accept, LinkId, Proof, Request};

/// A link was not resumed; what is left of it is as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResumeError {
    /// Bytes that are no message, or not the one that was due.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// Another link.
    #[error("the peer names another link")]
    OtherLink,
    /// Our own request came back to us.
    #[error("reflected: the peer sends back what this host sent")]
    Reflected,
    /// A proof is wrong.
    #[error("the peer does not hold the key of the link")]
    Forged,
    /// The peer counts fewer resumptions than it was asked to.
    #[error("the peer counts its resumptions backwards")]
    Stale,
    /// A key of low order.
    #[error("the peer sent an invalid key share")]
    BadShare,
}

/// What one side keeps of a link to resume it.
#[derive(Clone)]
pub struct Resumption {
    role: Role,
    link: LinkId,
    key: Secret<HASH_LEN>,
    count: u32,
}

/// A TCP connection on which a link goes on.
#[derive(Debug)]
pub struct Resumed {
    /// Seals our messages on it.
    pub sealer: RecordSealer,
    /// Opens the peer's.
    pub opener: RecordOpener,
    /// The connection, for [`crate::Rekey`].
    pub connection: ConnectionId,
    /// Number of the resumption, for [`Resumption::completed`].
    pub count: u32,
}

/// The side that dialled, waiting for the acceptance.
pub struct ResumeDial {
    link: Resumption,
    ephemeral: Ephemeral,
    count: u32,
    request: Vec<u8>,
}

/// The side that was dialled, waiting for the proof.
pub struct ResumeAnswer {
    resumed: Resumed,
    expected: [u8; MAC_LEN],
}

impl Resumption {
    pub(crate) const fn new(role: Role, link: LinkId, key: Secret<HASH_LEN>) -> Self {
        Self { role, link, key, count: 0 }
    }

    /// The public name of the link, the same on both sides.
    #[must_use]
    pub const fn link_id(&self) -> LinkId {
        self.link
    }

    /// Resumptions so far.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Notes a resumption that took the place of the connection before.
    pub fn completed(&mut self, count: u32) {
        self.count = self.count.max(count);
    }

    /// Begins as the side that dialled. Returns the first bytes to send.
    #[must_use]
    pub fn dial(&self, entropy: &mut dyn Entropy) -> (ResumeDial, Vec<u8>) {
        let (ephemeral, count) = (Ephemeral::new(entropy), self.count.saturating_add(1));
        let mut request = Request {
            link: self.link,
            role: self.role,
            count,
            nonce: draw(entropy),
            ephemeral: *ephemeral.public(),
            mac: [0; MAC_LEN],
        };
        request.mac = self.request_mac(message(&request.encode()));
        let framed = request.encode();
        let dial = ResumeDial { link: self.clone(), ephemeral, count, request: message(&framed).to_vec() };
        (dial, framed)
    }

    /// Begins as the side that was dialled, with the first message of the peer,
    /// which named this link. Returns the bytes to send. The connection before
    /// stays in use until the proof came.
    ///
    /// # Errors
    /// [`ResumeError`]: close the connection.
    pub fn answer(
        &self,
        request_message: &[u8],
        entropy: &mut dyn Entropy,
    ) -> Result<(ResumeAnswer, Vec<u8>), ResumeError> {
        let request = Request::parse(request_message)?;
        if request.link != self.link {
            return Err(ResumeError::OtherLink);
        }
        if !same(&self.request_mac(request_message), &request.mac) {
            return Err(ResumeError::Forged);
        }
        if request.role == self.role {
            return Err(ResumeError::Reflected);
        }
        let ephemeral = Ephemeral::new(entropy);
        // Either side may have finished a resumption that the other never saw.
        let count = request.count.max(self.count.saturating_add(1));
        let mut accept =
            Accept { count, nonce: draw(entropy), ephemeral: *ephemeral.public(), mac: [0; MAC_LEN] };
        accept.mac = self.accept_mac(request_message, message(&accept.encode()));
        let framed = accept.encode();
        let accept_message = message(&framed);
        let resumed = self.finish(ephemeral, &request.ephemeral, count, request_message, accept_message)?;
        let expected = self.proof_mac(request_message, accept_message);
        Ok((ResumeAnswer { resumed, expected }, framed))
    }

    fn request_mac(&self, request: &[u8]) -> [u8; MAC_LEN] {
        let covered = request.get(..Request::COVERED).unwrap_or_default();
        mac(&self.key, &[b"weave 1 resume request", covered])
    }

    fn accept_mac(&self, request: &[u8], accept: &[u8]) -> [u8; MAC_LEN] {
        let covered = accept.get(..Accept::COVERED).unwrap_or_default();
        mac(&self.key, &[b"weave 1 resume accept", &transcript(request, &[]), covered])
    }

    fn proof_mac(&self, request: &[u8], accept: &[u8]) -> [u8; MAC_LEN] {
        mac(&self.key, &[b"weave 1 resume proof", &transcript(request, accept)])
    }

    fn finish(
        &self,
        ephemeral: Ephemeral,
        theirs: &[u8; 32],
        count: u32,
        request: &[u8],
        accept: &[u8],
    ) -> Result<Resumed, ResumeError> {
        let shared = ephemeral.agree(theirs).map_err(|_| ResumeError::BadShare)?;
        let transcript = transcript(request, accept);
        let prk = extract(&self.key.0, &[&shared.0]);
        let key = |sender: Role| -> Key {
            let label = b"weave 1 resumed tcp";
            let derived: Secret<32> = expand(&prk, &[label, &[direction(sender)], &transcript]);
            Key::from_bytes(derived.0)
        };
        let id: Secret<32> = expand(&prk, &[b"weave 1 connection", &transcript]);
        Ok(Resumed {
            sealer: RecordSealer::new(&key(self.role)),
            opener: RecordOpener::new(&key(self.role.other())),
            connection: ConnectionId(id.0),
            count,
        })
    }
}

impl fmt::Debug for Resumption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resumption")
            .field("link", &self.link)
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

impl ResumeDial {
    /// Takes the peer's acceptance. Returns the last bytes to send, and the
    /// connection, which is good from now on.
    ///
    /// # Errors
    /// [`ResumeError`]: close the connection.
    pub fn on_accept(self, accept_message: &[u8]) -> Result<(Vec<u8>, Resumed), ResumeError> {
        let accept = Accept::parse(accept_message)?;
        let Self { link, ephemeral, count, request } = self;
        if !same(&link.accept_mac(&request, accept_message), &accept.mac) {
            return Err(ResumeError::Forged);
        }
        if accept.count < count {
            return Err(ResumeError::Stale);
        }
        let resumed = link.finish(ephemeral, &accept.ephemeral, accept.count, &request, accept_message)?;
        let proof = Proof { mac: link.proof_mac(&request, accept_message) };
        Ok((proof.encode(), resumed))
    }
}

impl ResumeAnswer {
    /// Takes the peer's proof. Returns the connection, which is good from now on.
    ///
    /// # Errors
    /// [`ResumeError`]: close the connection.
    pub fn on_proof(self, proof_message: &[u8]) -> Result<Resumed, ResumeError> {
        let proof = Proof::parse(proof_message)?;
        if same(&self.expected, &proof.mac) { Ok(self.resumed) } else { Err(ResumeError::Forged) }
    }
}

/// The hash of both messages, each with its length in front.
fn transcript(request: &[u8], accept: &[u8]) -> [u8; HASH_LEN] {
    let mut hash = Sha512::new_with_prefix(b"weave 1 resume");
    for message in [request, accept] {
        // A message is at most 512 bytes: its parser saw to it.
        hash.update((message.len() as u16).to_be_bytes());
        hash.update(message);
    }
    hash.finalize().into()
}

/// A message of ours without its length field.
fn message(framed: &[u8]) -> &[u8] {
    framed.get(LENGTH_LEN..).unwrap_or_default()
}
