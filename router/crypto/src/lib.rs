//! Keys of a link: how two routers agree on them, and what is sealed with them.
//!
//! No I/O, no clock, no source of randomness: bytes, time and entropy are
//! passed in, so that every run can be repeated. `docs/wire.md` describes the
//! formats and the key schedule for other implementations.

mod aead;
#[cfg(any(test, feature = "nonce-audit"))]
mod audit;
mod key;
pub mod limits;
mod replay;
mod session;

#[cfg(any(test, feature = "aws-lc"))]
pub use aead::AwsLc;
pub use aead::{Aead, DataAead, Forged, NONCE_LEN, Portable, Ring};
pub use key::{KEY_LEN, Key};
pub use limits::{KEY_DATAGRAMS, KEY_LIFETIME, REKEY_AFTER, REKEY_DATAGRAMS};
pub use replay::{REPLAY_WINDOW, ReplayError, ReplayWindow};
pub use session::{KeyExhausted, OpenError, ReceiveKey, SendKey};
