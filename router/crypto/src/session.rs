//! The keys of datagrams: one per direction, lane and epoch.
//!
//! A [`SendKey`] lives in the shard that sends on its lane and nowhere else, so
//! its counter can neither be shared nor repeated. A [`ReceiveKey`] with its
//! replay window lives in the one shard that owns the lane at the receiver.

#[cfg(test)]
mod tests;

#[cfg(any(debug_assertions, feature = "nonce-audit"))]
use crate::audit::Audit;
use crate::limits::KEY_DATAGRAMS;
use crate::replay::{ReplayError, ReplayWindow};
use crate::{Aead, DataAead, Forged, Key};
use std::fmt;
use weave_wire::{DatagramKind, Lane, OUTER_LEN, OuterHeader, SessionIndex, TAG_LEN};
use zerocopy::IntoBytes;

/// All numbers of a key are used: the link goes on with a new key or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key has sealed {KEY_DATAGRAMS} datagrams and may seal no more")]
pub struct KeyExhausted;

/// Why a datagram was not opened. Nothing of it may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Shorter than header and tag.
    #[error("the datagram is too short")]
    TooShort,
    /// Its number was refused before it was opened.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// Not sealed under this key.
    #[error(transparent)]
    Forged(#[from] Forged),
}

/// The numbers of one key in their order, each once.
#[derive(Debug)]
struct Counter(u32);

impl Counter {
    fn take(&mut self) -> Result<u32, KeyExhausted> {
        let number = self.0;
        if number >= KEY_DATAGRAMS {
            return Err(KeyExhausted);
        }
        self.0 = number + 1;
        Ok(number)
    }
}

/// Eight zero bytes and the counter.
fn nonce(counter: u32) -> [u8; 12] {
    let [a, b, c, d] = counter.to_be_bytes();
    [0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]
}

/// Seals the datagrams of one lane in one epoch.
pub struct SendKey<A: Aead = DataAead> {
    aead: A,
    session: SessionIndex,
    lane: Lane,
    counter: Counter,
    #[cfg(any(debug_assertions, feature = "nonce-audit"))]
    audit: Audit,
}

impl<A: Aead> SendKey<A> {
    /// A fresh key for `lane` of the session its receiver calls `session`.
    #[must_use]
    pub fn new(key: &Key, session: SessionIndex, lane: Lane) -> Self {
        Self {
            aead: A::new(key),
            session,
            lane,
            counter: Counter(0),
            #[cfg(any(debug_assertions, feature = "nonce-audit"))]
            audit: Audit::of(key),
        }
    }

    /// Seals a datagram in place: `datagram` is room for the outer header
    /// ([`OUTER_LEN`]), the body, and room for the tag ([`TAG_LEN`]). The header
    /// is written and counts as associated data.
    ///
    /// # Errors
    /// [`KeyExhausted`] after 2^28 datagrams; the buffer is untouched.
    ///
    /// # Panics
    /// If `datagram` has no room for header and tag: a fault of the caller.
    #[inline]
    pub fn seal(&mut self, kind: DatagramKind, datagram: &mut [u8]) -> Result<(), KeyExhausted> {
        assert!(datagram.len() >= OUTER_LEN + TAG_LEN, "a datagram without room for header and tag");
        let counter = self.counter.take()?;
        let nonce = nonce(counter);
        #[cfg(any(debug_assertions, feature = "nonce-audit"))]
        self.audit.record(&nonce);
        let header = OuterHeader::new(kind, self.lane, self.session, counter);
        let (head, rest) = datagram.split_at_mut(OUTER_LEN);
        head.copy_from_slice(header.as_bytes());
        let (body, tag) = rest.split_at_mut(rest.len() - TAG_LEN);
        tag.copy_from_slice(&self.aead.seal(&nonce, head, body));
        Ok(())
    }

    /// Finishes a datagram of a trusted subnet: `datagram` is room for the outer header
    /// ([`OUTER_LEN`]), the body, and room for the tag ([`TAG_LEN`]). The header is
    /// written; the tag covers it and the body, which stays in clear (AES-GMAC: all of
    /// it is associated data, nothing is encrypted).
    ///
    /// # Errors
    /// [`KeyExhausted`] after 2^28 datagrams; the buffer is untouched.
    ///
    /// # Panics
    /// If `datagram` has no room for header and tag: a fault of the caller.
    #[inline]
    pub fn authenticate(&mut self, datagram: &mut [u8]) -> Result<(), KeyExhausted> {
        assert!(datagram.len() >= OUTER_LEN + TAG_LEN, "a datagram without room for header and tag");
        let counter = self.counter.take()?;
        let nonce = nonce(counter);
        #[cfg(any(debug_assertions, feature = "nonce-audit"))]
        self.audit.record(&nonce);
        let header = OuterHeader::new(DatagramKind::Authenticated, self.lane, self.session, counter);
        datagram[..OUTER_LEN].copy_from_slice(header.as_bytes());
        let (covered, tag) = datagram.split_at_mut(datagram.len() - TAG_LEN);
        tag.copy_from_slice(&self.aead.seal(&nonce, covered, &mut []));
        Ok(())
    }

    /// Writes the outer header of a datagram of a clear network and counts it.
    /// `datagram` is room for the header and the body; there is no tag.
    ///
    /// # Errors
    /// [`KeyExhausted`] after 2^28 datagrams; the buffer is untouched.
    ///
    /// # Panics
    /// If `datagram` has no room for the header: a fault of the caller.
    #[inline]
    pub fn frame_clear(&mut self, datagram: &mut [u8]) -> Result<(), KeyExhausted> {
        assert!(datagram.len() >= OUTER_LEN, "a datagram without room for its header");
        let counter = self.counter.take()?;
        let header = OuterHeader::new(DatagramKind::Clear, self.lane, self.session, counter);
        datagram[..OUTER_LEN].copy_from_slice(header.as_bytes());
        Ok(())
    }

    /// Datagrams sealed, authenticated or framed so far: 0 to 2^28.
    #[must_use]
    pub const fn counter(&self) -> u32 {
        self.counter.0
    }
}

impl<A: Aead> fmt::Debug for SendKey<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendKey")
            .field("session", &self.session)
            .field("lane", &self.lane)
            .field("counter", &self.counter.0)
            .finish_non_exhaustive()
    }
}

/// Opens the datagrams of one lane in one epoch, each number once.
pub struct ReceiveKey<A: Aead = DataAead> {
    aead: A,
    lane: Lane,
    window: ReplayWindow,
}

impl<A: Aead> ReceiveKey<A> {
    /// A fresh key for `lane`.
    #[must_use]
    pub fn new(key: &Key, lane: Lane) -> Self {
        Self { aead: A::new(key), lane, window: ReplayWindow::new() }
    }

    /// Opens a datagram in place and returns its body, without header and tag.
    /// `header` is its outer header, by which the caller found this key.
    ///
    /// The order is length, window, tag, window: a forged datagram moves
    /// nothing, a replayed one costs no decryption.
    ///
    /// # Errors
    /// [`OpenError`]; the window is as before, and the buffer must not be read.
    #[inline]
    pub fn open<'a>(
        &mut self,
        header: OuterHeader,
        datagram: &'a mut [u8],
    ) -> Result<&'a mut [u8], OpenError> {
        if datagram.len() < OUTER_LEN + TAG_LEN {
            return Err(OpenError::TooShort);
        }
        let counter = header.counter();
        self.window.peek(counter)?;
        let sealed = &mut datagram[OUTER_LEN..];
        // The copy is authenticated, not the bytes in the buffer: what was
        // checked above is what the tag covers.
        self.aead.open(&nonce(counter), header.as_bytes(), sealed)?;
        self.window.commit(counter);
        let len = sealed.len() - TAG_LEN;
        Ok(&mut sealed[..len])
    }

    /// Takes a datagram of a trusted subnet and returns its body, which was in clear.
    /// `header` is its outer header, by which the caller found this key. The order is
    /// that of [`open`](Self::open).
    ///
    /// # Errors
    /// [`OpenError`]; the window is as before, and the buffer must not be used. A
    /// datagram of another kind counts as forged.
    #[inline]
    pub fn accept_authenticated<'a>(
        &mut self,
        header: OuterHeader,
        datagram: &'a mut [u8],
    ) -> Result<&'a mut [u8], OpenError> {
        if datagram.len() < OUTER_LEN + TAG_LEN {
            return Err(OpenError::TooShort);
        }
        let counter = header.counter();
        self.window.peek(counter)?;
        let (covered, tag) = datagram.split_at_mut(datagram.len() - TAG_LEN);
        // The tag covers the bytes in the buffer: they must be those that were looked at.
        if header.kind() != Some(DatagramKind::Authenticated) || !covered.starts_with(header.as_bytes()) {
            return Err(OpenError::Forged(Forged));
        }
        self.aead.open(&nonce(counter), covered, tag)?;
        self.window.commit(counter);
        Ok(&mut covered[OUTER_LEN..])
    }

    /// Takes a datagram of a clear network and returns its body. Only the
    /// window stands between it and a liar.
    ///
    /// # Errors
    /// [`OpenError`] if it is too short, is no clear datagram of this lane, or
    /// its number was refused.
    #[inline]
    pub fn accept_clear<'a>(
        &mut self,
        header: OuterHeader,
        datagram: &'a mut [u8],
    ) -> Result<&'a mut [u8], OpenError> {
        if datagram.len() < OUTER_LEN {
            return Err(OpenError::TooShort);
        }
        if header.kind() != Some(DatagramKind::Clear) || header.lane() != Some(self.lane) {
            return Err(OpenError::Forged(Forged));
        }
        self.window.peek(header.counter())?;
        self.window.commit(header.counter());
        Ok(&mut datagram[OUTER_LEN..])
    }

    /// True once a datagram was accepted.
    #[must_use]
    pub const fn seen(&self) -> bool {
        self.window.is_used()
    }
}

impl<A: Aead> fmt::Debug for ReceiveKey<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiveKey")
            .field("lane", &self.lane)
            .field("seen", &self.seen())
            .finish_non_exhaustive()
    }
}
