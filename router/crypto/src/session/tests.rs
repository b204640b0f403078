//! Datagrams that open, and those that must not.
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

fn authenticated(send: &mut SendKey, body: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0xee; OUTER_LEN];
    datagram.extend_from_slice(body);
    datagram.extend([0; TAG_LEN]);
    send.authenticate(&mut datagram).unwrap();
    datagram
}

fn accept(receive: &mut ReceiveKey, datagram: &[u8]) -> Result<Vec<u8>, OpenError> {
    let mut datagram = datagram.to_vec();
    let header = *OuterHeader::split(&datagram).unwrap().0;
    receive.accept_authenticated(header, &mut datagram).map(|body| body.to_vec())
}

#[test]
fn an_authenticated_datagram_shows_its_body_and_passes_once() {
    let (mut send, mut receive) = pair();
    for body in [&b"frame"[..], b""] {
        let datagram = authenticated(&mut send, body);
        assert_eq!(datagram[OUTER_LEN..OUTER_LEN + body.len()], *body);
        assert_eq!(OuterHeader::split(&datagram).unwrap().0.kind(), Some(DatagramKind::Authenticated));
        assert_eq!(accept(&mut receive, &datagram).unwrap(), body);
        assert_eq!(accept(&mut receive, &datagram), Err(ReplayError::Replayed.into()));
    }
    assert_eq!(send.counter(), 2);
}

#[test]
fn any_altered_bit_of_an_authenticated_datagram_is_refused_and_changes_nothing() {
    let (mut send, mut receive) = pair();
    let datagram = authenticated(&mut send, b"frame");
    for bit in 0..datagram.len() * 8 {
        let mut bad = datagram.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(accept(&mut receive, &bad).is_err(), "bit {bit}");
        assert!(!receive.seen());
    }
    for len in OUTER_LEN..datagram.len() {
        assert!(accept(&mut receive, &datagram[..len]).is_err(), "{len} bytes");
    }
    assert!(accept(&mut receive, &datagram).is_ok());
}

#[test]
fn the_header_in_the_buffer_is_the_one_that_is_authenticated() {
    let (mut send, mut receive) = pair();
    let mut datagram = authenticated(&mut send, b"frame");
    for header in [
        OuterHeader::new(DatagramKind::Authenticated, lane(), SessionIndex(9), 0),
        OuterHeader::new(DatagramKind::Authenticated, Lane::CONTROL, SESSION, 0),
        OuterHeader::new(DatagramKind::Authenticated, lane(), SESSION, 1),
        OuterHeader::new(DatagramKind::Sealed, lane(), SESSION, 0),
    ] {
        assert_eq!(receive.accept_authenticated(header, &mut datagram), Err(OpenError::Forged(Forged)));
    }
    assert_eq!(accept(&mut receive, &datagram).unwrap(), b"frame");
}

#[test]
fn no_kind_of_datagram_passes_as_another() {
    let kinds = [DatagramKind::Sealed, DatagramKind::Clear, DatagramKind::Authenticated];
    for made in kinds {
        for claimed in kinds {
            let (mut send, mut receive) = pair();
            let mut datagram = vec![0; OUTER_LEN + 40 + TAG_LEN];
            match made {
                DatagramKind::Authenticated => send.authenticate(&mut datagram).unwrap(),
                DatagramKind::Clear => send.frame_clear(&mut datagram).unwrap(),
                DatagramKind::Sealed | DatagramKind::KeepAlive | DatagramKind::Control => {
                    send.seal(made, &mut datagram).unwrap()
                }
            }
            datagram[0] = claimed.to_wire();
            let header = *OuterHeader::split(&datagram).unwrap().0;
            let result = match claimed {
                DatagramKind::Authenticated => receive.accept_authenticated(header, &mut datagram),
                // Whether a clear one is what it claims cannot be told: the mode of the session decides.
                DatagramKind::Clear => continue,
                DatagramKind::Sealed | DatagramKind::KeepAlive | DatagramKind::Control => {
                    receive.open(header, &mut datagram)
                }
            };
            assert_eq!(result.is_ok(), made == claimed, "{made:?} as {claimed:?}");
        }
    }
}

#[test]
fn the_makers_agree_on_tags_over_associated_data_alone() {
    let key = fresh_key();
    let (nonce, data) = ([7; 12], [0x55; 77]);
    let tags = [
        crate::Ring::new(&key).seal(&nonce, &data, &mut []),
        Portable::new(&key).seal(&nonce, &data, &mut []),
    ];
    assert_eq!(tags[0], tags[1]);
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
