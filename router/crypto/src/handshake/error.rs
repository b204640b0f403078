//! Why a handshake failed, in the words that `status connections` shows.

use weave_wire::link::ParseError;
use weave_wire::link::handshake::Versions;
use weave_wire::{PeerName, Uid};

/// A handshake is over without a link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct HandshakeError {
    /// Why.
    pub cause: Failure,
    /// Last bytes for the peer, so that it knows why too; empty where it is not
    /// to know.
    pub reply: Vec<u8>,
    /// See [`HandshakeError::counts_as_guess`].
    pub(super) guess: bool,
}

impl HandshakeError {
    /// True if the peer may have learned from this exchange whether a password
    /// it guessed is right: the caller limits how many of these it allows.
    #[must_use]
    pub const fn counts_as_guess(&self) -> bool {
        self.guess
    }
}

/// The cause of a failed handshake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The peer has no password.
    #[error("clear network: the peer has no password, this host has one")]
    ClearNetwork,
    /// The peer has one, we do not.
    #[error("encrypted network: the peer has a password, this host has none")]
    EncryptedNetwork,
    /// No common version.
    #[error("incompatible version {}..{}, we speak {}..{}", .theirs.min, .theirs.max, .ours.min, .ours.max)]
    Version {
        /// Versions of the peer.
        theirs: Versions,
        /// Versions of this code.
        ours: Versions,
    },
    /// The confirmation of the peer is wrong.
    #[error("wrong password, or the exchange was altered on its way")]
    WrongPassword,
    /// The peer went away instead of confirming.
    #[error("the peer closed the connection: wrong password, or it refuses this host")]
    Refused,
    /// The connection ended before passwords mattered.
    #[error("the connection ended in the middle of the handshake")]
    Interrupted,
    /// The peer sent our own values back.
    #[error("reflected: the peer sends back what this host sent")]
    Reflected,
    /// We dialled ourselves.
    #[error("the address leads back to this host")]
    Ourselves,
    /// A peer with our run id, but not ours in all.
    #[error("the peer claims our run id {0}")]
    SameUid(Uid),
    /// A peer with our identity key.
    #[error("the peer runs on a copy of this host's state: reset one of them")]
    SameIdentity,
    /// A peer with our name and another identity.
    #[error("same name: the peer is called {0} too, give one of them another name")]
    SameName(PeerName),
    /// A share that is no group element, or a key of low order.
    #[error("the peer sent an invalid key share")]
    BadShare,
    /// Version or features in the associated data are not those of the hellos.
    #[error("the negotiation was altered on its way")]
    Negotiation,
    /// The signature of the identity key is wrong.
    #[error("the peer does not hold the identity key it shows")]
    BadSignature,
    /// Bytes that are no message, or not the one that was due.
    #[error("{0}")]
    Parse(#[from] ParseError),
    /// The caller went on after the end.
    #[error("the handshake is over")]
    Over,
}
