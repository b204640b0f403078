//! The password of a network, stretched once at launch.

use crate::key::Secret;
use argon2::{Algorithm, Argon2, Block, Params, Version};
use std::fmt;
use weave_wire::link::handshake::Mode;
use zeroize::Zeroize;

/// Memory to stretch a password, KiB: 64 MiB. With the passes and lanes below
/// it is the second recommendation of RFC 9106, section 4.
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;
const LANES: u32 = 4;
/// The password is the only secret and the same on all hosts, so there is no
/// salt that both ends could know before they meet.
const SALT: &[u8] = b"weave 1 password";

/// How dear a guess of a password is. All hosts of a network have to agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Effort {
    /// The second recommendation of RFC 9106, section 4: 64 MiB, three passes.
    #[default]
    Full,
    /// Next to none, for tests that launch a hundred routers a minute.
    None,
}

impl Effort {
    fn params(self) -> Result<Params, argon2::Error> {
        let (memory, passes) = match self {
            Self::Full => (MEMORY_KIB, PASSES),
            Self::None => (8 * LANES, 1),
        };
        Params::new(memory, passes, LANES, Some(32))
    }
}

/// A password could not be stretched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot stretch the password with {MEMORY_KIB} KiB of memory: {cause}")]
pub struct StretchError {
    cause: String,
}

/// A password, stretched: makes a thief of a memory image or of a recorded guess
/// pay for each try. Wiped when dropped.
#[derive(Clone)]
pub struct Password(Secret<32>);

impl Password {
    /// Stretches `password` by Argon2id (RFC 9106). Takes, with full effort, 64 MiB
    /// and some tenths of a second: once at launch, on a helper thread, never per
    /// connection. The memory is wiped and given back.
    ///
    /// # Errors
    /// [`StretchError`] if the memory cannot be had, or the password is longer
    /// than 4 GiB.
    pub fn stretch(password: &[u8], effort: Effort) -> Result<Self, StretchError> {
        let params = effort.params().map_err(error)?;
        let count = params.block_count();
        let mut memory: Vec<Block> = Vec::new();
        memory.try_reserve_exact(count).map_err(error)?;
        memory.resize(count, Block::new());
        let mut stretched = Secret::zeroed();
        let done = Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into_with_memory(
            password,
            SALT,
            &mut stretched.0,
            &mut memory,
        );
        for block in &mut memory {
            block.as_mut().zeroize();
        }
        done.map_err(error)?;
        Ok(Self(stretched))
    }

    /// A password stretched before: for tests, which need no delay.
    #[must_use]
    pub const fn from_stretched(bytes: [u8; 32]) -> Self {
        Self(Secret(bytes))
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0.0
    }
}

fn error(cause: impl fmt::Display) -> StretchError {
    StretchError { cause: cause.to_string() }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// What a host and its network share.
#[derive(Debug, Clone)]
pub enum Secrets {
    /// Nothing: a clear network.
    Clear,
    /// A password, and perhaps the one before it while hosts change over.
    Encrypted {
        /// The password of the network.
        current: Password,
        /// The password before, still accepted.
        previous: Option<Password>,
    },
}

impl Secrets {
    /// The mode these secrets stand for.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        match self {
            Self::Clear => Mode::Clear,
            Self::Encrypted { .. } => Mode::Encrypted,
        }
    }

    /// Number of passwords: 0 to 2.
    #[must_use]
    pub const fn count(&self) -> u8 {
        match self {
            Self::Clear => 0,
            Self::Encrypted { previous: None, .. } => 1,
            Self::Encrypted { previous: Some(_), .. } => 2,
        }
    }

    /// The password of `slot`, taken modulo the count; `None` in a clear network.
    pub(crate) fn password(&self, slot: u8) -> Option<&Password> {
        match self {
            Self::Clear => None,
            Self::Encrypted { current, previous } => match previous {
                Some(previous) if !slot.is_multiple_of(2) => Some(previous),
                Some(_) | None => Some(current),
            },
        }
    }
}

/// Which passwords a dial tries. One exchange is one guess, so hosts that have
/// two passwords each try the pairs in turn, dial by dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PasswordOffer {
    /// Slot of our password.
    pub ours: u8,
    /// Slot of the responder's; it takes it modulo its count.
    pub theirs: u8,
}

impl PasswordOffer {
    /// The offer of dial number `attempt` since a link was last up: the current
    /// passwords first, then ours against their previous, and so on.
    #[must_use]
    pub fn nth(attempt: u32, secrets: &Secrets) -> Self {
        let ours = u32::from(secrets.count().max(1));
        // Both remainders are 0 or 1.
        Self { ours: (attempt % ours) as u8, theirs: (attempt / ours % 2) as u8 }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::collections::HashSet;

    /// Our own vector; a second implementation can check its parameters by it.
    #[test]
    fn stretching_is_as_documented() {
        let stretched = Password::stretch(b"correct horse battery staple", Effort::Full).unwrap();
        let expected = include_str!("../tests/vectors/password.hex").trim();
        assert_eq!(hex::encode(stretched.as_bytes()), expected);
        let cheap = Password::stretch(b"correct horse battery staple", Effort::None).unwrap();
        assert_ne!(cheap.as_bytes(), stretched.as_bytes());
    }

    #[test]
    fn four_dials_try_every_pair_of_two_passwords() {
        let password = |byte| Password::from_stretched([byte; 32]);
        let two = Secrets::Encrypted { current: password(1), previous: Some(password(2)) };
        let pairs: HashSet<_> =
            (0..4).map(|n| PasswordOffer::nth(n, &two)).map(|o| (o.ours, o.theirs)).collect();
        assert_eq!(pairs.len(), 4);
        assert_eq!(PasswordOffer::nth(0, &two), PasswordOffer { ours: 0, theirs: 0 });
        let one = Secrets::Encrypted { current: password(1), previous: None };
        assert_eq!(PasswordOffer::nth(1, &one), PasswordOffer { ours: 0, theirs: 1 });
        assert_eq!(two.password(1).unwrap().as_bytes()[0], 2);
        assert_eq!(one.password(1).unwrap().as_bytes()[0], 1);
    }
}
