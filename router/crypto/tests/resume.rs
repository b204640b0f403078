//! A link goes on over another TCP connection: what works, and what must not.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Links, Seeded, Side, encrypted, entropy, run};
use weave_crypto::{ResumeError, Resumed, Resumption};
use weave_wire::link::handshake::LENGTH_LEN;
use weave_wire::link::message::Message;
use weave_wire::link::resume::Opening;

fn links() -> Links {
    run(&Side::new(1, encrypted(7)), &Side::new(2, encrypted(7))).unwrap()
}

/// Resumes; `wire` may alter each framed message, numbered from 1.
fn resume(
    dialler: &Resumption,
    answerer: &Resumption,
    mut wire: impl FnMut(usize, Vec<u8>) -> Vec<u8>,
) -> Result<(Resumed, Resumed), ResumeError> {
    let (dial, request) = dialler.dial(&mut entropy());
    let request = wire(1, request);
    let (answer, accept) = answerer.answer(&request[LENGTH_LEN..], &mut entropy())?;
    let (proof, ours) = dial.on_accept(&wire(2, accept)[LENGTH_LEN..])?;
    let theirs = answer.on_proof(&wire(3, proof)[LENGTH_LEN..])?;
    Ok((ours, theirs))
}

fn pass(from: &mut Resumed, to: &mut Resumed) {
    let mut bytes = Vec::new();
    from.sealer.seal(&Message::Ping(3).encode(), &mut bytes).unwrap();
    let read = to.opener.read(&mut &bytes[..]).unwrap().unwrap();
    assert_eq!(Message::parse(&read), Ok(Some(Message::Ping(3))));
}

#[test]
fn either_side_resumes_and_the_records_have_new_keys_each_time() {
    let (mut a, mut b) = links();
    for round in 1..=4 {
        let a_dials = round % 2 == 0;
        let (dialler, answerer) =
            if a_dials { (&a.resumption, &b.resumption) } else { (&b.resumption, &a.resumption) };
        let (mut ours, mut theirs) = resume(dialler, answerer, |_, m| m).unwrap();
        assert_eq!((ours.count, theirs.count), (round, round));
        assert_eq!(ours.connection, theirs.connection);
        assert_ne!(ours.connection, a.connection);
        // The nonce audit sees to it that no key comes twice.
        pass(&mut ours, &mut theirs);
        pass(&mut theirs, &mut ours);
        a.resumption.completed(round);
        b.resumption.completed(round);
    }
}

#[test]
fn a_resumption_that_one_side_never_saw_does_not_keep_later_ones_out() {
    let (mut a, b) = links();
    for lost in 1..=3 {
        a.resumption.completed(lost);
    }
    let (ours, theirs) = resume(&b.resumption, &a.resumption, |_, m| m).unwrap();
    assert_eq!((ours.count, theirs.count), (4, 4));
}

#[test]
fn any_bit_altered_in_any_message_ends_the_resumption() {
    let (a, b) = links();
    for number in 1..=3 {
        let mut len = 0;
        let note = |n: usize, m: Vec<u8>| {
            if n == number {
                len = m.len();
            }
            m
        };
        resume(&a.resumption, &b.resumption, note).unwrap();
        for at in LENGTH_LEN..len {
            let result = resume(&a.resumption, &b.resumption, |n, mut message| {
                if n == number {
                    message[at] ^= 1 << (at % 8);
                }
                message
            });
            assert!(result.is_err(), "message {number}, byte {at}");
        }
    }
}

#[test]
fn an_altered_request_or_acceptance_is_refused_before_any_output() {
    let (a, b) = links();
    let (_, request) = a.resumption.dial(&mut entropy());
    for at in LENGTH_LEN + 17..request.len() {
        let mut altered = request.clone();
        altered[at] ^= 1;
        let refused = b.resumption.answer(&altered[LENGTH_LEN..], &mut entropy());
        assert!(refused.is_err(), "request, byte {at}");
    }
    let (_, accept) = b.resumption.answer(&request[LENGTH_LEN..], &mut entropy()).unwrap();
    for at in LENGTH_LEN + 1..accept.len() {
        let (dial, request) = a.resumption.dial(&mut Seeded(5));
        let (_, mut altered) = b.resumption.answer(&request[LENGTH_LEN..], &mut Seeded(6)).unwrap();
        altered[at] ^= 1;
        assert!(dial.on_accept(&altered[LENGTH_LEN..]).is_err(), "acceptance, byte {at}");
    }
}

#[test]
fn a_recorded_request_is_answered_but_proves_nothing() {
    let (a, b) = links();
    let (dial, request) = a.resumption.dial(&mut entropy());
    let (first, accept) = b.resumption.answer(&request[LENGTH_LEN..], &mut entropy()).unwrap();
    let (proof, _) = dial.on_accept(&accept[LENGTH_LEN..]).unwrap();
    assert!(first.on_proof(&proof[LENGTH_LEN..]).is_ok());
    // The same request and proof again: the new acceptance has another nonce.
    let (second, _) = b.resumption.answer(&request[LENGTH_LEN..], &mut entropy()).unwrap();
    assert_eq!(second.on_proof(&proof[LENGTH_LEN..]).unwrap_err(), ResumeError::Forged);
}

#[test]
fn a_request_sent_back_to_its_sender_is_refused() {
    let (a, _) = links();
    let (_, request) = a.resumption.dial(&mut entropy());
    let result = a.resumption.answer(&request[LENGTH_LEN..], &mut entropy());
    assert_eq!(result.err(), Some(ResumeError::Reflected));
}

#[test]
fn another_link_is_refused() {
    let ((a, _), (_, other)) = (links(), links());
    let (_, request) = a.resumption.dial(&mut entropy());
    assert_eq!(Opening::of(&request[LENGTH_LEN..]), Opening::Resume(a.resumption.link_id()));
    let result = other.resumption.answer(&request[LENGTH_LEN..], &mut entropy());
    assert_eq!(result.err(), Some(ResumeError::OtherLink));
}
