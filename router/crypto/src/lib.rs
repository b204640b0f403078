//! Keys of a link: how two routers agree on them, and what is sealed with them.
//!
//! No I/O, no clock, no source of randomness: bytes, time and entropy are
//! passed in, so that every run can be repeated. `docs/wire.md` describes the
//! formats and the key schedule for other implementations.
//!
//! The life of a link:
//! 1. [`Handshake`] turns a TCP connection into an [`Established`] link, or says
//!    in a [`HandshakeError`] why not. [`which_survives`] chooses where both
//!    sides dialled.
//! 2. [`RecordSealer`] and [`RecordOpener`] carry messages over the connection.
//! 3. [`LinkKeys`] gives the shards a [`SendKey`] and [`ReceiveKey`] for each lane.
//! 4. [`Rekey`] replaces them every two minutes.
//! 5. [`Resumption`] moves the link to another TCP connection when one is lost.
//!
//! Secrets are wiped when dropped and print nothing of themselves.
#![deny(unsafe_code)]

mod aead;
#[cfg(any(debug_assertions, feature = "nonce-audit"))]
mod audit;
mod cpace;
mod crossing;
mod dh;
mod entropy;
mod handshake;
mod hash;
mod identity;
mod key;
pub mod limits;
mod password;
mod peer;
mod record;
mod rekey;
mod replay;
mod resume;
mod schedule;
mod session;

pub use aead::{Aead, DataAead, Forged, NONCE_LEN, Portable, Ring};
pub use crossing::{Crossing, Dialler, which_survives};
pub use entropy::Entropy;
pub use handshake::{Established, Failure, Handshake, HandshakeError, Step};
pub use identity::{IDENTITY_LEN, Identity, IdentityKey, new_seed, verify_part};
pub use key::{KEY_LEN, Key};
pub use limits::{KEY_DATAGRAMS, KEY_LIFETIME, REKEY_AFTER, REKEY_DATAGRAMS};
pub use password::{Effort, Password, PasswordOffer, Secrets, StretchError};
pub use peer::{LinkChoice, LocalPeer, PeerInfo};
pub use record::{RecordError, RecordOpener, RecordSealer};
pub use rekey::{Rekey, RekeyAction, RekeyError, RekeyPolicy};
pub use replay::{REPLAY_WINDOW, ReplayError, ReplayWindow};
pub use resume::{ResumeAnswer, ResumeDial, ResumeError, Resumed, Resumption};
pub use schedule::{ConnectionId, LinkKeys};
pub use session::{KeyExhausted, OpenError, ReceiveKey, SendKey};
