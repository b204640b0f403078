//! The key schedule: every key of a link, from the result of its handshake.
//!
//! All derivation is HKDF over SHA-512. The schedule is a chain of roots, one an
//! epoch; a root gives the keys of its epoch, and with a fresh Diffie-Hellman
//! result the next root, after which it is wiped.

use crate::hash::{HASH_LEN, expand, extract};
use crate::key::Secret;
use crate::session::{ReceiveKey, SendKey};
use crate::{Aead, Key};
use std::fmt;
use weave_wire::link::handshake::Role;
use weave_wire::link::resume::LinkId;
use weave_wire::{Lane, SessionIndex};

/// What a handshake derives: used once, in this order, and gone.
pub(crate) struct Handover {
    prk: Secret<HASH_LEN>,
}

impl Handover {
    /// From the hash of the transcript, the key of the password exchange (empty
    /// in a clear network) and the X25519 result.
    pub(crate) fn new(transcript: &[u8; HASH_LEN], password_key: &[u8], shared: &Secret<32>) -> Self {
        Self { prk: extract(transcript, &[password_key, &shared.0]) }
    }

    /// Key of the confirmation MAC that `sender` makes.
    pub(crate) fn confirm_key(&self, sender: Role) -> Secret<HASH_LEN> {
        expand(&self.prk, &[b"weave 1 confirm", &[direction(sender)]])
    }

    /// Public name of the link.
    pub(crate) fn link_id(&self) -> LinkId {
        LinkId(expand(&self.prk, &[b"weave 1 link id"]).0)
    }

    /// Key of the proofs by which the link is resumed, as long as it lives.
    pub(crate) fn resume_key(&self) -> Secret<HASH_LEN> {
        expand(&self.prk, &[b"weave 1 resume"])
    }

    /// The keys of epoch 0, for the side in `role`.
    pub(crate) fn link_keys(&self, role: Role) -> LinkKeys {
        LinkKeys { root: expand(&self.prk, &[b"weave 1 root"]), epoch: 0, role }
    }
}

/// The byte that stands for the direction from `sender` to the other side.
pub(crate) const fn direction(sender: Role) -> u8 {
    match sender {
        Role::Initiator => 0,
        Role::Responder => 1,
    }
}

/// Tells the TCP connections of one link apart: zero for that of the handshake,
/// for others a hash of the exchange that resumed the link, hence unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId(pub(crate) [u8; 32]);

impl ConnectionId {
    pub(crate) const FIRST: Self = Self([0; 32]);
}

/// The keys of one epoch of a link. Wiped when dropped.
#[derive(Clone)]
pub struct LinkKeys {
    root: Secret<HASH_LEN>,
    epoch: u32,
    role: Role,
}

impl LinkKeys {
    /// The epoch: 0 after the handshake, one more with each re-key.
    #[must_use]
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Our role in the handshake that made the link, whoever dialled since.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Key of the datagrams that `sender` sends on `lane`.
    #[must_use]
    pub fn udp_key(&self, sender: Role, lane: Lane) -> Key {
        let derived: Secret<32> = expand(
            &self.root,
            &[b"weave 1 udp", &[direction(sender), lane.number()], &self.epoch.to_be_bytes()],
        );
        Key::from_bytes(derived.0)
    }

    /// Our key to send on `lane`, in the session the peer calls `session`.
    #[must_use]
    pub fn send_key<A: Aead>(&self, session: SessionIndex, lane: Lane) -> SendKey<A> {
        SendKey::new(&self.udp_key(self.role, lane), session, lane)
    }

    /// Our key to receive what the peer sends on `lane`.
    #[must_use]
    pub fn receive_key<A: Aead>(&self, lane: Lane) -> ReceiveKey<A> {
        ReceiveKey::new(&self.udp_key(self.role.other(), lane), lane)
    }

    /// Key of the records that `sender` sends on `connection`. A re-key may be
    /// finished on a later connection than it began on, and then a switch to the
    /// keys of its epoch may happen on both: the id keeps them apart.
    pub(crate) fn tcp_key(&self, sender: Role, connection: ConnectionId) -> Key {
        let derived: Secret<32> = expand(
            &self.root,
            &[b"weave 1 tcp", &[direction(sender)], &self.epoch.to_be_bytes(), &connection.0],
        );
        Key::from_bytes(derived.0)
    }

    /// The keys of the next epoch, from a fresh X25519 result and a hash of the
    /// messages that made it.
    pub(crate) fn next(&self, shared: &Secret<32>, transcript: &[u8; HASH_LEN]) -> Self {
        let epoch = self.epoch.wrapping_add(1);
        let prk = extract(&self.root.0, &[&shared.0]);
        let root = expand(&prk, &[b"weave 1 next root", &epoch.to_be_bytes(), transcript]);
        Self { root, epoch, role: self.role }
    }
}

impl fmt::Debug for LinkKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkKeys")
            .field("epoch", &self.epoch)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}
