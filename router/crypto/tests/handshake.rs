//! Two routers meet: what works, and what must not.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Side, clear, encrypted, run, run_with};
use weave_crypto::{DataAead, Failure, Password, PasswordOffer, Secrets};
use weave_wire::link::handshake::LENGTH_LEN;
use weave_wire::link::message::Message;
use weave_wire::{DatagramKind, Lane, OUTER_LEN, OuterHeader, TAG_LEN};

#[test]
fn two_sides_with_one_password_get_the_same_keys() {
    for secrets in [encrypted(7), clear()] {
        let (a, b) = (Side::new(1, secrets.clone()), Side::new(2, secrets));
        let (mut ours, mut theirs) = run(&a, &b).unwrap();
        assert_eq!((ours.peer.name, theirs.peer.name), (b.local.name, a.local.name));
        assert_eq!(ours.peer.identity, b.local.identity.public());
        assert_eq!(theirs.peer.session, a.choice.session);
        assert_eq!(ours.resumption.link_id(), theirs.resumption.link_id());

        let lane = Lane::data(3).unwrap();
        let mut send = ours.keys.send_key::<DataAead>(ours.peer.session, lane);
        let mut receive = theirs.keys.receive_key::<DataAead>(lane);
        let mut datagram = [5; OUTER_LEN + 40 + TAG_LEN];
        send.seal(DatagramKind::Sealed, &mut datagram).unwrap();
        let header = *OuterHeader::split(&datagram).unwrap().0;
        assert_eq!(header.session(), b.choice.session);
        assert_eq!(receive.open(header, &mut datagram).unwrap(), [5; 40]);

        let mut bytes = Vec::new();
        theirs.sealer.seal(&Message::Ping(9).encode(), &mut bytes).unwrap();
        let read = ours.opener.read(&mut &bytes[..]).unwrap().unwrap();
        assert_eq!(Message::parse(&read), Ok(Some(Message::Ping(9))));
    }
}

#[test]
fn a_wrong_password_is_known_to_both_sides_and_counts_as_a_guess() {
    let (a, b) = (Side::new(1, encrypted(7)), Side::new(2, encrypted(8)));
    let failure = run(&a, &b).unwrap_err();
    // The responder sees it, says nothing, and the initiator draws its conclusion.
    assert_eq!(failure.responder.cause, Failure::WrongPassword);
    assert!(failure.responder.counts_as_guess() && failure.responder.reply.is_empty());
    assert_eq!(failure.initiator.cause, Failure::Refused);
    assert!(failure.initiator.counts_as_guess());
}

#[test]
fn clear_and_encrypted_hosts_part_and_each_knows_why() {
    let failure = run(&Side::new(1, clear()), &Side::new(2, encrypted(7))).unwrap_err();
    assert_eq!(failure.initiator.cause, Failure::EncryptedNetwork);
    assert_eq!(failure.responder.cause, Failure::ClearNetwork);
    let failure = run(&Side::new(1, encrypted(7)), &Side::new(2, clear())).unwrap_err();
    assert_eq!(failure.initiator.cause, Failure::ClearNetwork);
    assert_eq!(failure.responder.cause, Failure::EncryptedNetwork);
    assert!(!failure.initiator.counts_as_guess() && !failure.responder.counts_as_guess());
}

#[test]
fn hosts_that_change_their_password_meet_within_four_dials() {
    let both = |current, previous| Secrets::Encrypted {
        current: Password::from_stretched([current; 32]),
        previous: Some(Password::from_stretched([previous; 32])),
    };
    for (a, b) in [
        (both(2, 1), encrypted(1)),
        (encrypted(1), both(2, 1)),
        (both(2, 1), both(2, 1)),
        (both(2, 1), both(3, 2)),
        (both(3, 2), both(2, 1)),
    ] {
        let met = (0..4).any(|attempt| {
            let offer = PasswordOffer::nth(attempt, &a);
            run_with(&Side::new(1, a.clone()), &Side::new(2, b.clone()), offer, |_, m| m).is_ok()
        });
        assert!(met, "{a:?} {b:?}");
    }
}

#[test]
fn any_bit_altered_in_any_message_ends_the_handshake() {
    for secrets in [encrypted(7), clear()] {
        let (a, b) = (Side::new(1, secrets.clone()), Side::new(2, secrets));
        for number in 1..=6 {
            let mut len = 0;
            let _ = run_with(&a, &b, PasswordOffer::default(), |n, message| {
                if n == number {
                    len = message.len();
                }
                message
            });
            // Each byte of the message behind the length field, one bit of it.
            for at in LENGTH_LEN..len {
                let result = run_with(&a, &b, PasswordOffer::default(), |n, mut message| {
                    if n == number {
                        message[at] ^= 1 << (at % 8);
                    }
                    message
                });
                assert!(result.is_err(), "message {number}, byte {at}");
            }
        }
    }
}

#[test]
fn messages_cut_short_end_the_handshake() {
    let (a, b) = (Side::new(1, encrypted(7)), Side::new(2, encrypted(7)));
    for number in 1..=6 {
        for cut in [1, 2, 20, 48] {
            let result = run_with(&a, &b, PasswordOffer::default(), |n, mut message| {
                if n == number {
                    message.truncate((message.len() - cut).max(LENGTH_LEN));
                }
                message
            });
            assert!(result.is_err(), "message {number} less {cut} bytes");
        }
    }
}

#[test]
fn bytes_of_a_later_version_at_the_end_of_a_message_are_bound_and_ignored() {
    let (a, b) = (Side::new(1, encrypted(7)), Side::new(2, encrypted(7)));
    // Added by the sender it would be in both transcripts; added on the way it is
    // in one, and the confirmation fails.
    for number in 1..=4 {
        let result = run_with(&a, &b, PasswordOffer::default(), |n, mut message| {
            if n == number {
                message.push(1);
            }
            message
        });
        assert!(result.is_err(), "message {number}");
    }
}
