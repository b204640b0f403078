//! The keys of datagrams: one per direction, lane and epoch.
//!
//! A [`SendKey`] lives in the shard that sends on its lane and nowhere else, so
//! its counter can neither be shared nor repeated. A [`ReceiveKey`] with its
//! replay window lives in the one shard that owns the lane at the receiver.

#[cfg(any(test, feature = "nonce-audit"))]
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
    #[cfg(any(test, feature = "nonce-audit"))]
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
            #[cfg(any(test, feature = "nonce-audit"))]
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
        #[cfg(any(test, feature = "nonce-audit"))]
        self.audit.record(&nonce);
        let header = OuterHeader::new(kind, self.lane, self.session, counter);
        let (head, rest) = datagram.split_at_mut(OUTER_LEN);
        head.copy_from_slice(header.as_bytes());
        let (body, tag) = rest.split_at_mut(rest.len() - TAG_LEN);
        tag.copy_from_slice(&self.aead.seal(&nonce, head, body));
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

    /// Datagrams sealed or framed so far: 0 to 2^28.
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::Portable;
    use crate::replay::REPLAY_WINDOW;
    use std::sync::atomic::{AtomicU64, Ordering};

    const SESSION: SessionIndex = SessionIndex(0x0102_0304_0506_0708);

    fn lane() -> Lane {
        Lane::data(5).unwrap()
    }

    /// A key of its own for each use, as the nonce audit demands.
    fn fresh_key() -> Key {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut bytes = [0x11; 32];
        bytes[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        Key::from_bytes(bytes)
    }

    fn pair() -> (SendKey, ReceiveKey) {
        let key = fresh_key();
        (SendKey::new(&key, SESSION, lane()), ReceiveKey::new(&key, lane()))
    }

    fn sealed(send: &mut SendKey, body: &[u8]) -> Vec<u8> {
        let mut datagram = vec![0; OUTER_LEN];
        datagram.extend_from_slice(body);
        datagram.extend([0; TAG_LEN]);
        send.seal(DatagramKind::Sealed, &mut datagram).unwrap();
        datagram
    }

    fn open(receive: &mut ReceiveKey, datagram: &[u8]) -> Result<Vec<u8>, OpenError> {
        let mut datagram = datagram.to_vec();
        let header = *OuterHeader::split(&datagram).unwrap().0;
        receive.open(header, &mut datagram).map(|body| body.to_vec())
    }

    #[test]
    fn a_datagram_opens_once() {
        let (mut send, mut receive) = pair();
        let datagram = sealed(&mut send, b"frame");
        assert!(!receive.seen());
        assert_eq!(open(&mut receive, &datagram).unwrap(), b"frame");
        assert!(receive.seen());
        assert_eq!(open(&mut receive, &datagram), Err(ReplayError::Replayed.into()));
    }

    #[test]
    fn an_empty_body_passes() {
        let (mut send, mut receive) = pair();
        assert_eq!(open(&mut receive, &sealed(&mut send, b"")).unwrap(), b"");
    }

    #[test]
    fn datagrams_open_in_any_order_within_the_window() {
        let (mut send, mut receive) = pair();
        let mut datagrams: Vec<_> = (0..100_u8).map(|n| sealed(&mut send, &[n])).collect();
        datagrams.reverse();
        datagrams.swap(3, 90);
        for datagram in &datagrams {
            assert!(open(&mut receive, datagram).is_ok());
        }
    }

    #[test]
    fn a_datagram_from_before_the_window_is_refused() {
        let (mut send, mut receive) = pair();
        let first = sealed(&mut send, b"first");
        for _ in 1..REPLAY_WINDOW {
            sealed(&mut send, b"");
        }
        let last = sealed(&mut send, b"last");
        assert!(open(&mut receive, &last).is_ok());
        assert_eq!(open(&mut receive, &first), Err(ReplayError::TooOld.into()));
    }

    #[test]
    fn any_altered_bit_is_refused_and_changes_nothing() {
        let (mut send, mut receive) = pair();
        let datagram = sealed(&mut send, b"frame");
        for bit in 0..8 * datagram.len() {
            let mut altered = datagram.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&mut receive, &altered).is_err(), "bit {bit}");
            assert!(!receive.seen(), "bit {bit} moved the window");
        }
        assert!(open(&mut receive, &datagram).is_ok());
    }

    #[test]
    fn a_datagram_cut_short_is_refused() {
        let (mut send, mut receive) = pair();
        let datagram = sealed(&mut send, b"frame");
        for len in OUTER_LEN..datagram.len() {
            let error = open(&mut receive, &datagram[..len]).unwrap_err();
            let too_short = len < OUTER_LEN + TAG_LEN;
            assert_eq!(error, if too_short { OpenError::TooShort } else { Forged.into() }, "{len} bytes");
        }
    }

    #[test]
    fn a_datagram_of_another_lane_or_key_is_refused() {
        let (mut send, _) = pair();
        let (_, mut receive) = pair();
        assert_eq!(open(&mut receive, &sealed(&mut send, b"frame")), Err(Forged.into()));
    }

    #[test]
    fn a_header_that_is_not_the_one_sealed_is_refused() {
        // The caller's copy is what the window is asked about: it must be what
        // the tag covers, whatever the buffer says.
        let (mut send, mut receive) = pair();
        let mut datagram = sealed(&mut send, b"frame");
        let header = OuterHeader::new(DatagramKind::Sealed, lane(), SessionIndex(9), 0);
        assert_eq!(receive.open(header, &mut datagram).unwrap_err(), Forged.into());
    }

    #[test]
    fn a_key_ends_after_its_last_number() {
        let (mut send, mut receive) = pair();
        send.counter = Counter(KEY_DATAGRAMS - 1);
        let mut datagram = sealed(&mut send, b"last");
        assert!(open(&mut receive, &datagram).is_ok());
        let before = datagram.clone();
        assert_eq!(send.seal(DatagramKind::Sealed, &mut datagram), Err(KeyExhausted));
        assert_eq!(send.frame_clear(&mut datagram), Err(KeyExhausted));
        assert_eq!(datagram, before, "the buffer is untouched");
        assert_eq!(send.counter(), KEY_DATAGRAMS);
    }

    #[test]
    fn a_number_past_the_end_is_refused_unopened() {
        let (_, mut receive) = pair();
        let mut datagram = vec![0; OUTER_LEN + TAG_LEN];
        let header = OuterHeader::new(DatagramKind::Sealed, lane(), SESSION, KEY_DATAGRAMS);
        assert_eq!(receive.open(header, &mut datagram).unwrap_err(), ReplayError::Exhausted.into());
    }

    #[test]
    fn clear_datagrams_pass_once_and_only_as_such() {
        let (mut send, mut receive) = pair();
        let mut datagram = [vec![0; OUTER_LEN], b"frame".to_vec()].concat();
        send.frame_clear(&mut datagram).unwrap();
        let header = *OuterHeader::split(&datagram).unwrap().0;
        assert_eq!(header.kind(), Some(DatagramKind::Clear));
        assert_eq!(receive.accept_clear(header, &mut datagram).unwrap(), b"frame");
        assert!(receive.accept_clear(header, &mut datagram).is_err(), "twice");
        let other = OuterHeader::new(DatagramKind::Clear, Lane::CONTROL, SESSION, 9);
        assert!(receive.accept_clear(other, &mut datagram).is_err(), "another lane");
        let sealed = OuterHeader::new(DatagramKind::Sealed, lane(), SESSION, 9);
        assert!(receive.accept_clear(sealed, &mut datagram).is_err(), "another kind");
    }

    #[test]
    fn a_clear_datagram_never_opens() {
        let (mut send, mut receive) = pair();
        let mut datagram = vec![0; 80];
        send.frame_clear(&mut datagram).unwrap();
        assert_eq!(open(&mut receive, &datagram), Err(Forged.into()));
    }

    #[test]
    fn ten_million_seals_use_no_nonce_twice() {
        let key = fresh_key();
        // The audit, in this build, would panic.
        let mut send = SendKey::<NoAead>::new(&key, SESSION, lane());
        let mut datagram = [0; OUTER_LEN + TAG_LEN];
        for _ in 0..10_000_000 {
            send.seal(DatagramKind::KeepAlive, &mut datagram).unwrap();
        }
    }

    /// Seals nothing: the audit is what counts.
    struct NoAead;

    impl Aead for NoAead {
        fn new(_: &Key) -> Self {
            Self
        }

        fn seal(&self, _: &[u8; 12], _: &[u8], _: &mut [u8]) -> [u8; TAG_LEN] {
            [0; TAG_LEN]
        }

        fn open(&self, _: &[u8; 12], _: &[u8], _: &mut [u8]) -> Result<(), Forged> {
            Err(Forged)
        }
    }

    #[test]
    #[should_panic(expected = "used twice")]
    fn a_key_put_to_use_a_second_time_is_caught() {
        let key = fresh_key();
        let mut first = SendKey::<Portable>::new(&key, SESSION, lane());
        let mut second = SendKey::<Portable>::new(&key, SESSION, lane());
        let mut datagram = [0; OUTER_LEN + TAG_LEN];
        first.seal(DatagramKind::Sealed, &mut datagram).unwrap();
        second.seal(DatagramKind::Sealed, &mut datagram).unwrap();
    }
}
