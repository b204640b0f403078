//! The records of a TCP link: messages in, sealed bytes out, and back.
//!
//! A record is the length of its body (u16, the associated data), the sealed
//! body and the tag. Its nonce is its number under the key of its direction, so
//! that a record left out, repeated or moved breaks the link. The bodies are one
//! stream of messages (`weave_wire::link::message`).

use crate::Key;
use crate::aead::{Aead, Forged, NONCE_LEN, Portable};
#[cfg(any(debug_assertions, feature = "nonce-audit"))]
use crate::audit::Audit;
use std::fmt;
use std::ops::Range;
use weave_wire::TAG_LEN;
use weave_wire::link::ParseError;
use weave_wire::link::message::{self, HEADER_LEN};
use weave_wire::link::record::{LENGTH_LEN, MAX_BODY_LEN};

/// Records under one key, at most (SP 800-38D, 8.3). Keys change far earlier.
const MAX_RECORDS: u64 = 1 << 32;

/// The TCP connection is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A record was altered, left out, repeated or moved.
    #[error("a record of the TCP link was altered on its way")]
    Forged(#[from] Forged),
    /// A record with no body or one over 16 KiB.
    #[error("a record of {0} bytes on the TCP link, where 1 to {MAX_BODY_LEN} are allowed")]
    Length(usize),
    /// A message that breaks its format.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The record with the last re-key message went on after it.
    #[error("a record of the TCP link goes on after its key ended")]
    KeyEnded,
    /// All record numbers of the key are used.
    #[error("the key of the TCP link is used up")]
    Exhausted,
}

/// The record numbers of one key.
#[derive(Default)]
struct Numbers(u64);

impl Numbers {
    /// The next nonce: four zero bytes and the number.
    fn take(&mut self) -> Result<[u8; NONCE_LEN], RecordError> {
        if self.0 >= MAX_RECORDS {
            return Err(RecordError::Exhausted);
        }
        let mut nonce = [0; NONCE_LEN];
        nonce[4..].copy_from_slice(&self.0.to_be_bytes());
        self.0 += 1;
        Ok(nonce)
    }
}

/// Seals the messages of one direction.
pub struct RecordSealer {
    aead: Portable,
    numbers: Numbers,
    #[cfg(any(debug_assertions, feature = "nonce-audit"))]
    audit: Audit,
}

impl RecordSealer {
    pub(crate) fn new(key: &Key) -> Self {
        Self {
            aead: Portable::new(key),
            numbers: Numbers::default(),
            #[cfg(any(debug_assertions, feature = "nonce-audit"))]
            audit: Audit::of(key),
        }
    }

    /// Appends the records that carry `message` (with its header) to `out`.
    ///
    /// # Errors
    /// [`RecordError::Parse`] for a message over 1 MiB, and
    /// [`RecordError::Exhausted`] when the key is used up.
    pub fn seal(&mut self, message: &[u8], out: &mut Vec<u8>) -> Result<(), RecordError> {
        if message.len() > message::MAX_LEN {
            let (len, limit) = (message.len(), message::MAX_LEN);
            return Err(ParseError::TooLong { len, limit }.into());
        }
        for body in message.chunks(MAX_BODY_LEN) {
            let nonce = self.numbers.take()?;
            #[cfg(any(debug_assertions, feature = "nonce-audit"))]
            self.audit.record(&nonce);
            // At most 16 KiB.
            let length = (body.len() as u16).to_be_bytes();
            out.extend_from_slice(&length);
            let start = out.len();
            out.extend_from_slice(body);
            let tag = self.aead.seal(&nonce, &length, &mut out[start..]);
            out.extend_from_slice(&tag);
        }
        Ok(())
    }

    /// Goes on under a new key: after our last message of a re-key.
    pub fn switch_key(&mut self, key: &Key) {
        *self = Self::new(key);
    }
}

impl fmt::Debug for RecordSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordSealer").field("records", &self.numbers.0).finish_non_exhaustive()
    }
}

/// Opens the records of one direction. Holds at most one record and one message.
pub struct RecordOpener {
    aead: Portable,
    numbers: Numbers,
    /// The record that is being read.
    record: Vec<u8>,
    /// The part of it that is open and not yet in `message`.
    opened: Range<usize>,
    /// The message that is being read.
    message: Vec<u8>,
    failed: Option<RecordError>,
}

impl RecordOpener {
    pub(crate) fn new(key: &Key) -> Self {
        Self {
            aead: Portable::new(key),
            numbers: Numbers::default(),
            record: Vec::new(),
            opened: 0..0,
            message: Vec::new(),
            failed: None,
        }
    }

    /// Takes bytes off the front of `bytes`, which came from the socket, until a
    /// message is whole, and returns that with its header. `None`: all bytes are
    /// taken and more are needed. The loop of a driver is
    /// `while let Some(message) = opener.read(&mut bytes)? { .. }`; it may call
    /// [`RecordOpener::switch_key`] inside.
    ///
    /// # Errors
    /// [`RecordError`]: nothing more can be read from this connection.
    pub fn read(&mut self, bytes: &mut &[u8]) -> Result<Option<Vec<u8>>, RecordError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let result = self.advance(bytes);
        self.failed = result.as_ref().err().copied();
        result
    }

    fn advance(&mut self, bytes: &mut &[u8]) -> Result<Option<Vec<u8>>, RecordError> {
        loop {
            if let Some(message) = self.take_message()? {
                return Ok(Some(message));
            }
            if !self.take_record(bytes)? {
                return Ok(None);
            }
        }
    }

    /// Moves opened bytes into the message; returns it when it is whole.
    fn take_message(&mut self) -> Result<Option<Vec<u8>>, RecordError> {
        loop {
            let wanted = match self.message.first_chunk::<HEADER_LEN>() {
                None => HEADER_LEN,
                Some(header) => message::message_len(*header)?,
            };
            if wanted == self.message.len() && wanted >= HEADER_LEN {
                return Ok(Some(std::mem::take(&mut self.message)));
            }
            let missing = wanted - self.message.len();
            let end = self.opened.end.min(self.opened.start + missing);
            let part = self.record.get(self.opened.start..end).unwrap_or_default();
            if part.is_empty() {
                return Ok(None);
            }
            self.message.extend_from_slice(part);
            self.opened.start = end;
        }
    }

    /// Reads and opens the next record; false if `bytes` ended before it did.
    fn take_record(&mut self, bytes: &mut &[u8]) -> Result<bool, RecordError> {
        if self.opened.end > 0 {
            self.record.clear();
            self.opened = 0..0;
        }
        let Some(length) = self.fill(bytes, LENGTH_LEN) else { return Ok(false) };
        let Some(length) = length.first_chunk().copied() else { return Ok(false) };
        let len = usize::from(u16::from_be_bytes(length));
        if !(1..=MAX_BODY_LEN).contains(&len) {
            return Err(RecordError::Length(len));
        }
        if self.fill(bytes, LENGTH_LEN + len + TAG_LEN).is_none() {
            return Ok(false);
        }
        let nonce = self.numbers.take()?;
        self.aead.open(&nonce, &length, &mut self.record[LENGTH_LEN..])?;
        self.opened = LENGTH_LEN..LENGTH_LEN + len;
        Ok(true)
    }

    /// The record, once it has `len` bytes.
    fn fill(&mut self, bytes: &mut &[u8], len: usize) -> Option<&[u8]> {
        let missing = len.saturating_sub(self.record.len());
        let (part, rest) = bytes.split_at(missing.min(bytes.len()));
        self.record.extend_from_slice(part);
        *bytes = rest;
        (self.record.len() >= len).then_some(&self.record)
    }

    /// Goes on under a new key: after the peer's last message of a re-key.
    ///
    /// # Errors
    /// [`RecordError::KeyEnded`] if the record that held the message held more.
    pub fn switch_key(&mut self, key: &Key) -> Result<(), RecordError> {
        if !self.opened.is_empty() || !self.message.is_empty() {
            self.failed = Some(RecordError::KeyEnded);
            return Err(RecordError::KeyEnded);
        }
        self.aead = Portable::new(key);
        self.numbers = Numbers::default();
        Ok(())
    }
}

impl fmt::Debug for RecordOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordOpener").field("records", &self.numbers.0).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicU64, Ordering};
    use weave_wire::link::message::Message;

    /// A key of its own for each test, as the nonce audit demands.
    fn fresh_key() -> Key {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut bytes = [0x77; 32];
        bytes[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        Key::from_bytes(bytes)
    }

    fn pair() -> (RecordSealer, RecordOpener) {
        let key = fresh_key();
        (RecordSealer::new(&key), RecordOpener::new(&key))
    }

    /// A message of `len` fields' bytes, of a kind nobody knows.
    fn message(len: usize) -> Vec<u8> {
        let mut message = vec![0x7f, 0x01];
        message.extend(u32::try_from(len).unwrap().to_be_bytes());
        message.extend((0..len).map(|n| n as u8));
        message
    }

    fn sealed(sealer: &mut RecordSealer, message: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        sealer.seal(message, &mut out).unwrap();
        out
    }

    #[test]
    fn a_message_of_a_mebibyte_passes_and_a_longer_one_does_not() {
        let (mut sealer, mut opener) = pair();
        let longest = message(message::MAX_LEN - HEADER_LEN);
        let bytes = sealed(&mut sealer, &longest);
        assert_eq!(opener.read(&mut &bytes[..]).unwrap(), Some(longest));
        assert!(sealer.seal(&message(message::MAX_LEN), &mut Vec::new()).is_err());
    }

    #[test]
    fn an_announced_length_over_the_limit_ends_the_link_before_its_bytes_come() {
        let (mut sealer, mut opener) = pair();
        let mut out = Vec::new();
        // The sealer of a hostile member: a header alone.
        sealer.seal(&[0x7f, 1, 0xff, 0xff, 0xff, 0xff], &mut out).unwrap();
        assert!(matches!(opener.read(&mut &out[..]), Err(RecordError::Parse(_))));
        assert!(opener.read(&mut &[][..]).is_err(), "an error is final");
    }

    /// Opener and two records of one sealer.
    fn two_records() -> (RecordOpener, Vec<u8>, Vec<u8>) {
        let (mut sealer, opener) = pair();
        let (first, second) = (sealed(&mut sealer, &message(3)), sealed(&mut sealer, &message(4)));
        (opener, first, second)
    }

    #[test]
    fn a_record_altered_in_one_bit_is_refused() {
        for bit in 0..8 * (LENGTH_LEN + HEADER_LEN + 3 + TAG_LEN) {
            let (mut opener, mut first, second) = two_records();
            first[bit / 8] ^= 1 << (bit % 8);
            let bytes = [first, second].concat();
            // A longer length waits for more, and then fails.
            let filler = vec![0; MAX_BODY_LEN + TAG_LEN];
            let read = opener.read(&mut &bytes[..]).and_then(|read| match read {
                None => opener.read(&mut &filler[..]),
                some => Ok(some),
            });
            assert!(read.is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_record_repeated_left_out_or_moved_is_refused() {
        let (mut opener, first, second) = two_records();
        assert!(opener.read(&mut &first[..]).unwrap().is_some());
        assert!(opener.read(&mut &first[..]).is_err());
        let (mut opener, _, second_only) = two_records();
        assert!(opener.read(&mut &second_only[..]).is_err());
        let (mut opener, first, _) = two_records();
        assert!(opener.read(&mut &[second, first].concat()[..]).is_err());
    }

    #[test]
    fn a_record_with_no_body_or_too_long_a_one_is_refused() {
        for length in [0, MAX_BODY_LEN as u16 + 1, u16::MAX] {
            let (_, mut opener) = pair();
            let read = opener.read(&mut &length.to_be_bytes()[..]);
            assert_eq!(read, Err(RecordError::Length(length.into())));
        }
    }

    #[test]
    fn a_key_ends_with_a_record() {
        let (mut sealer, mut opener) = pair();
        let (old, next) = (message(5), fresh_key());
        let mut out = Vec::new();
        sealer.seal(&old, &mut out).unwrap();
        sealer.switch_key(&next);
        sealer.seal(&message(6), &mut out).unwrap();
        let mut bytes = &out[..];
        assert_eq!(opener.read(&mut bytes).unwrap(), Some(old.clone()));
        opener.switch_key(&next).unwrap();
        assert_eq!(opener.read(&mut bytes).unwrap(), Some(message(6)));

        // Two messages in one record: the second was not sealed under the new key.
        let (mut sealer, mut opener) = pair();
        let bytes = sealed(&mut sealer, &[old, message(7)].concat());
        assert!(opener.read(&mut &bytes[..]).unwrap().is_some());
        assert_eq!(opener.switch_key(&next), Err(RecordError::KeyEnded));
        assert!(opener.read(&mut &[][..]).is_err());
    }

    #[test]
    fn typed_messages_pass() {
        let (mut sealer, mut opener) = pair();
        let bytes = sealed(&mut sealer, &Message::Ping(7).encode());
        let read = opener.read(&mut &bytes[..]).unwrap().unwrap();
        assert_eq!(Message::parse(&read), Ok(Some(Message::Ping(7))));
    }

    proptest! {
        #[test]
        fn messages_arrive_whole_and_in_order_however_tcp_cuts(
            lens in prop::collection::vec(prop_oneof![0_usize..40, 16_000_usize..50_000], 1..6),
            cuts in prop::collection::vec(1_usize..20_000, 1..20),
        ) {
            let (mut sealer, mut opener) = pair();
            let mut stream = Vec::new();
            for len in &lens {
                sealer.seal(&message(*len), &mut stream).unwrap();
            }
            let (mut rest, mut read) = (&stream[..], Vec::new());
            for cut in cuts.iter().cycle() {
                let (mut chunk, tail) = rest.split_at((*cut).min(rest.len()));
                rest = tail;
                while let Some(message) = opener.read(&mut chunk).unwrap() {
                    read.push(message.len() - HEADER_LEN);
                }
                prop_assert!(chunk.is_empty());
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(read, lens);
        }

        #[test]
        fn any_bytes_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let (_, mut opener) = pair();
            let mut rest = &bytes[..];
            prop_assert!(!matches!(opener.read(&mut rest), Ok(Some(_))));
        }
    }
}
