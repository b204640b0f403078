//! The handshake: six messages in which two routers prove to each other that
//! they know the password of the network and hold their identity keys, and
//! agree on the keys of a link.
//!
//! A state machine without I/O. The driver of a connection
//! 1. makes one by [`Handshake::initiate`] (and sends what it returns) or
//!    [`Handshake::respond`],
//! 2. reads a length field and a message (`weave_wire::link::handshake`), hands
//!    it to [`Handshake::on_message`], sends [`Step::send`], until
//!    [`Step::established`] holds a link,
//! 3. on an error sends its `reply`, waits a moment, closes; if the connection
//!    ends first, asks [`Handshake::interrupted`] for the error.
//!
//! In a clear network the same messages run without the password exchange: the
//! confirmation then proves the identity key and keeps passers-by out of TCP,
//! nothing more.

mod error;

pub use error::{Failure, HandshakeError};

use crate::cpace;
use crate::dh::Ephemeral;
use crate::entropy::{draw, draw_secret};
use crate::hash::{HASH_LEN, mac, same};
use crate::key::Secret;
use crate::password::PasswordOffer;
use crate::peer::{LinkChoice, LocalPeer, PeerInfo};
use crate::record::{RecordOpener, RecordSealer};
use crate::resume::Resumption;
use crate::schedule::{ConnectionId, Handover, LinkKeys};
use crate::{Entropy, IdentityKey};
use sha2::{Digest, Sha512};
use std::sync::Arc;
use weave_wire::link::handshake::{AssociatedData, Confirm, Hello, LENGTH_LEN, Mode, Role, Share};

/// A handshake in progress.
pub struct Handshake {
    role: Role,
    local: Arc<LocalPeer>,
    choice: LinkChoice,
    /// Slot of the password this side uses.
    slot: u8,
    nonce: [u8; 32],
    ephemeral: Option<Ephemeral>,
    scalar: Secret<32>,
    transcript: Transcript,
    state: State,
}

enum State {
    /// The peer's hello is due.
    Hello,
    /// Its share is due.
    Share(Box<Shares>),
    /// Its confirmation is due.
    Confirm(Box<Pending>),
    Over,
}

/// Both hellos are known, our share is made.
struct Shares {
    mode: Mode,
    exchange: Option<cpace::Exchange>,
    data: AssociatedData,
    message: Vec<u8>,
}

/// Both shares are known, and so are the keys; the peer has yet to prove it.
struct Pending {
    peer: PeerInfo,
    handover: Handover,
}

/// What to do after a message.
#[derive(Debug, Default)]
pub struct Step {
    /// Bytes for the peer, in order; may be empty.
    pub send: Vec<u8>,
    /// The link, at the end.
    pub established: Option<Box<Established>>,
}

/// A link: both sides know the password and are who they say.
#[derive(Debug)]
pub struct Established {
    /// The peer.
    pub peer: PeerInfo,
    /// Keys of epoch 0.
    pub keys: LinkKeys,
    /// Seals our messages on this TCP connection.
    pub sealer: RecordSealer,
    /// Opens the peer's.
    pub opener: RecordOpener,
    /// How the link goes on over another TCP connection.
    pub resumption: Resumption,
    /// This connection, for [`crate::Rekey`].
    pub connection: ConnectionId,
}

/// The hash of all bytes exchanged so far, length fields included.
struct Transcript(Sha512);

impl Transcript {
    fn new() -> Self {
        Self(Sha512::new_with_prefix(b"weave 1 transcript"))
    }

    fn sent(&mut self, framed: &[u8]) {
        self.0.update(framed);
    }

    fn received(&mut self, message: &[u8]) {
        // A message is at most 512 bytes: its parser saw to it.
        self.0.update((message.len() as u16).to_be_bytes());
        self.0.update(message);
    }

    fn hash(&self) -> [u8; HASH_LEN] {
        self.0.clone().finalize().into()
    }
}

impl Handshake {
    /// Begins as the side that dialled, with the passwords of `offer`. Returns
    /// the first bytes to send.
    #[must_use]
    pub fn initiate(
        local: Arc<LocalPeer>,
        choice: LinkChoice,
        offer: PasswordOffer,
        entropy: &mut dyn Entropy,
    ) -> (Self, Vec<u8>) {
        let mut this = Self::new(Role::Initiator, local, choice, offer.ours, entropy);
        let hello = this.hello(offer.theirs);
        this.transcript.sent(&hello);
        (this, hello)
    }

    /// Begins as the side that was dialled.
    #[must_use]
    pub fn respond(local: Arc<LocalPeer>, choice: LinkChoice, entropy: &mut dyn Entropy) -> Self {
        Self::new(Role::Responder, local, choice, 0, entropy)
    }

    fn new(
        role: Role,
        local: Arc<LocalPeer>,
        choice: LinkChoice,
        slot: u8,
        entropy: &mut dyn Entropy,
    ) -> Self {
        Self {
            role,
            local,
            choice,
            slot,
            nonce: draw(entropy),
            ephemeral: Some(Ephemeral::new(entropy)),
            scalar: draw_secret(entropy),
            transcript: Transcript::new(),
            state: State::Hello,
        }
    }

    /// Takes the next message of the peer, without its length field.
    ///
    /// # Errors
    /// [`HandshakeError`]: the handshake is over, without a link.
    pub fn on_message(&mut self, message: &[u8]) -> Result<Step, HandshakeError> {
        let guess = self.guess_at_stake();
        let result = match std::mem::replace(&mut self.state, State::Over) {
            State::Hello => self.on_hello(message),
            State::Share(shares) => self.on_share(*shares, message),
            State::Confirm(pending) => self.on_confirm(&pending, message),
            State::Over => Err(Failure::Over.into()),
        };
        result.map_err(|Failed { cause, reply }| HandshakeError { cause, reply, guess })
    }

    /// The error of a connection that ended, or took too long, now.
    #[must_use]
    pub fn interrupted(&self) -> HandshakeError {
        let cause = match (&self.state, self.role) {
            (State::Confirm(_), Role::Initiator) => Failure::Refused,
            (State::Confirm(_), Role::Responder) => Failure::WrongPassword,
            (State::Over, _) => Failure::Over,
            (State::Hello | State::Share(_), _) => Failure::Interrupted,
        };
        HandshakeError { cause, reply: Vec::new(), guess: self.guess_at_stake() }
    }

    /// True while the peer has what it needs to check a guess, or is about to
    /// get it, and has not shown that it knew the password.
    fn guess_at_stake(&self) -> bool {
        matches!(self.state, State::Confirm(_)) && self.local.secrets.mode() == Mode::Encrypted
    }

    fn hello(&self, password_slot: u8) -> Vec<u8> {
        let hello = Hello {
            mode: self.local.secrets.mode(),
            versions: self.local.versions,
            password_slot,
            features: self.local.features,
            nonce: self.nonce,
        };
        hello.encode(self.role)
    }

    /// M1 or M2.
    fn on_hello(&mut self, message: &[u8]) -> Result<Step, Failed> {
        let theirs = Hello::parse(self.role.other(), message)?;
        self.transcript.received(message);
        let mut send = Vec::new();
        if self.role == Role::Responder {
            self.slot = theirs.password_slot;
            send = self.hello(0);
            self.transcript.sent(&send);
        }
        match (self.local.secrets.mode(), theirs.mode) {
            (Mode::Clear, Mode::Clear) | (Mode::Encrypted, Mode::Encrypted) => {}
            (Mode::Encrypted, Mode::Clear) => {
                return Err(Failed { cause: Failure::ClearNetwork, reply: send });
            }
            (Mode::Clear, Mode::Encrypted) => {
                return Err(Failed { cause: Failure::EncryptedNetwork, reply: send });
            }
        }
        let Some(version) = self.local.versions.common(theirs.versions) else {
            let cause = Failure::Version { theirs: theirs.versions, ours: self.local.versions };
            return Err(Failed { cause, reply: send });
        };
        if theirs.nonce == self.nonce {
            return Err(Failure::Reflected.into());
        }
        let shares = self.make_share(&theirs, version)?;
        if self.role == Role::Initiator {
            self.transcript.sent(&shares.message);
            send.extend_from_slice(&shares.message);
        }
        self.state = State::Share(Box::new(shares));
        Ok(Step { send, established: None })
    }

    fn make_share(&self, theirs: &Hello, version: u8) -> Result<Shares, Failed> {
        let session = match self.role {
            Role::Initiator => [self.nonce, theirs.nonce],
            Role::Responder => [theirs.nonce, self.nonce],
        };
        let exchange = self.local.secrets.password(self.slot).map(|password| {
            let channel = [b"weave ".as_slice(), &[version], b" initiator responder"].concat();
            cpace::Exchange::new(
                self.role,
                password.as_bytes(),
                &channel,
                session.as_flattened(),
                &self.scalar,
            )
        });
        let ephemeral = self.ephemeral.as_ref().ok_or(Failure::Over)?;
        let data = AssociatedData {
            ephemeral: *ephemeral.public(),
            identity: self.local.identity.public().to_bytes(),
            name: self.local.name,
            uid: self.local.uid,
            session: self.choice.session,
            features: self.local.features & theirs.features,
            version,
            shards: self.local.shards,
            lanes: self.local.lanes,
            trusted_subnet: self.choice.trusted_subnet,
            mtu: self.local.mtu,
        };
        let message = Share::encode(self.role, exchange.as_ref().map(cpace::Exchange::share), &data);
        Ok(Shares { mode: theirs.mode, exchange, data, message })
    }

    /// M3 or M4.
    fn on_share(&mut self, shares: Shares, message: &[u8]) -> Result<Step, Failed> {
        let theirs = Share::parse(self.role.other(), shares.mode, message)?;
        self.check_claims(&shares, &theirs)?;
        self.transcript.received(message);
        if self.role == Role::Responder {
            self.transcript.sent(&shares.message);
        }
        let password_key = match (&shares.exchange, &theirs.point) {
            (Some(exchange), Some(point)) => Some(
                exchange.finish(own_data(&shares), point, theirs.raw_data).map_err(|_| Failure::BadShare)?,
            ),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return Err(Failure::BadShare.into()),
        };
        let ephemeral = self.ephemeral.take().ok_or(Failure::Over)?;
        let shared = ephemeral.agree(&theirs.data.ephemeral).map_err(|_| Failure::BadShare)?;
        let password_key: &[u8] = password_key.as_ref().map_or(&[], |key| &key.0);
        let handover = Handover::new(&self.transcript.hash(), password_key, &shared);
        let data = theirs.data;
        let peer = PeerInfo {
            name: data.name,
            uid: data.uid,
            identity: IdentityKey::from_bytes(data.identity),
            session: data.session,
            mode: shares.mode,
            version: data.version,
            features: data.features,
            shards: data.shards,
            lanes: data.lanes,
            mtu: data.mtu,
            trusted_subnet: data.trusted_subnet && shares.data.trusted_subnet,
        };
        let send = match self.role {
            Role::Initiator => self.confirm(&handover),
            Role::Responder => shares.message,
        };
        self.state = State::Confirm(Box::new(Pending { peer, handover }));
        Ok(Step { send, established: None })
    }

    /// Nothing here is proved yet; but an exchange with ourselves, or with a
    /// mirror, must end before it proves something.
    fn check_claims(&self, ours: &Shares, theirs: &Share<'_>) -> Result<(), Failure> {
        let (own, data) = (&ours.data, &theirs.data);
        let own_point = ours.exchange.as_ref().map(cpace::Exchange::share);
        if data.ephemeral == own.ephemeral
            || own_point.is_some_and(|point| theirs.point.as_ref() == Some(point))
        {
            return Err(Failure::Reflected);
        }
        let same_identity = data.identity == own.identity;
        let same_name = data.name == own.name;
        if data.uid == own.uid {
            let ourselves = same_identity && same_name;
            return Err(if ourselves { Failure::Ourselves } else { Failure::SameUid(data.uid) });
        }
        if same_identity {
            return Err(Failure::SameIdentity);
        }
        if same_name {
            return Err(Failure::SameName(data.name));
        }
        if (data.version, data.features) != (own.version, own.features) {
            return Err(Failure::Negotiation);
        }
        Ok(())
    }

    /// Our M5 or M6.
    fn confirm(&mut self, handover: &Handover) -> Vec<u8> {
        let transcript = self.transcript.hash();
        let confirm = Confirm {
            mac: mac(&handover.confirm_key(self.role), &[&transcript]),
            signature: self.local.identity.sign(self.role, &transcript),
        };
        let message = confirm.encode(self.role);
        self.transcript.sent(&message);
        message
    }

    /// M5 or M6.
    fn on_confirm(&mut self, pending: &Pending, message: &[u8]) -> Result<Step, Failed> {
        let Pending { peer, handover } = pending;
        let theirs = Confirm::parse(self.role.other(), message)?;
        let transcript = self.transcript.hash();
        let expected = mac(&handover.confirm_key(self.role.other()), &[&transcript]);
        if !same(&expected, &theirs.mac) {
            return Err(Failure::WrongPassword.into());
        }
        if !crate::identity::verify(&peer.identity, self.role.other(), &transcript, &theirs.signature) {
            return Err(Failure::BadSignature.into());
        }
        self.transcript.received(message);
        let send = match self.role {
            Role::Initiator => Vec::new(),
            Role::Responder => self.confirm(handover),
        };
        let keys = handover.link_keys(self.role);
        let connection = ConnectionId::FIRST;
        let established = Established {
            peer: *peer,
            sealer: RecordSealer::new(&keys.tcp_key(self.role, connection)),
            opener: RecordOpener::new(&keys.tcp_key(self.role.other(), connection)),
            connection,
            resumption: Resumption::new(self.role, handover.link_id(), handover.resume_key()),
            keys,
        };
        Ok(Step { send, established: Some(Box::new(established)) })
    }
}

/// The associated data of our share, as sent: what follows the point.
fn own_data(shares: &Shares) -> &[u8] {
    let point = if shares.exchange.is_some() { cpace::SHARE_LEN } else { 0 };
    shares.message.get(LENGTH_LEN + 1 + point..).unwrap_or_default()
}

/// A cause, and the last bytes for the peer.
struct Failed {
    cause: Failure,
    reply: Vec<u8>,
}

impl<E: Into<Failure>> From<E> for Failed {
    fn from(cause: E) -> Self {
        Self { cause: cause.into(), reply: Vec::new() }
    }
}
