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

/// Places in a share (M3, M4) of an encrypted network, behind the length field.
mod share {
    use std::ops::Range;

    pub const POINT: Range<usize> = 1..33;
    pub const EPHEMERAL: Range<usize> = 33..65;
    pub const IDENTITY: Range<usize> = 65..97;
    pub const NAME: Range<usize> = 97..103;
    pub const UID: Range<usize> = 103..111;
    pub const FEATURES: Range<usize> = 119..127;
    pub const VERSION: Range<usize> = 127..128;
}

/// The failure of the initiator when its M4 has `bytes` at `place`, and of the
/// responder when its M3 has; neither may say anything after it.
fn with_share(place: std::ops::Range<usize>, bytes: &[u8]) -> [Failure; 2] {
    let (a, b) = (Side::new(1, encrypted(7)), Side::new(2, encrypted(7)));
    let mut failures = Vec::new();
    for number in [4, 3] {
        let mut spoken_after = 0;
        let failed = run_with(&a, &b, PasswordOffer::default(), |n, mut message| {
            if n == number {
                message[LENGTH_LEN..][place.clone()].copy_from_slice(bytes);
            }
            spoken_after += usize::from(n > number);
            message
        })
        .unwrap_err();
        assert_eq!(spoken_after, 0, "something was sent after a bad share");
        failures.push(if number == 4 { failed.initiator.cause } else { failed.responder.cause });
    }
    failures.try_into().unwrap()
}

#[test]
fn a_neutral_or_non_canonical_point_is_refused_before_any_output() {
    let mut minus_one = [0xff; 32];
    (minus_one[0], minus_one[31]) = (0xec, 0x7f);
    for point in [[0; 32], minus_one, [0xff; 32]] {
        assert_eq!(with_share(share::POINT, &point), [Failure::BadShare, Failure::BadShare]);
    }
}

#[test]
fn an_ephemeral_key_of_low_order_is_refused_before_any_output() {
    let mut one = [0; 32];
    one[0] = 1;
    for key in [[0; 32], one] {
        assert_eq!(with_share(share::EPHEMERAL, &key), [Failure::BadShare, Failure::BadShare]);
    }
}

#[test]
fn a_version_or_features_other_than_negotiated_are_refused() {
    let negotiation = [Failure::Negotiation, Failure::Negotiation];
    assert_eq!(with_share(share::VERSION, &[2]), negotiation);
    assert_eq!(with_share(share::FEATURES, &[0xff; 8]), negotiation);
}

#[test]
fn a_hello_of_ours_sent_back_is_refused() {
    let (mut initiator, m1) = Side::new(1, encrypted(7)).initiate(PasswordOffer::default());
    let mut m2 = m1[LENGTH_LEN..].to_vec();
    assert!(initiator.on_message(&m2).is_err(), "as it was");
    let (mut initiator, m1) = Side::new(1, encrypted(7)).initiate(PasswordOffer::default());
    m2.clear();
    m2.extend_from_slice(&m1[LENGTH_LEN..]);
    m2[0] = 2;
    assert_eq!(initiator.on_message(&m2).unwrap_err().cause, Failure::Reflected);
}

/// The failure when M4 is M3 sent back, as a mirror would that changes `places`.
fn mirrored(places: &[std::ops::Range<usize>]) -> Failure {
    let (a, b) = (Side::new(1, encrypted(7)), Side::new(2, encrypted(7)));
    let mut m3 = Vec::new();
    let failed = run_with(&a, &b, PasswordOffer::default(), |n, message| {
        if n == 3 {
            m3 = message.clone();
        }
        if n != 4 {
            return message;
        }
        let mut mirror = m3.clone();
        mirror[LENGTH_LEN] = 4;
        for place in places {
            let place = LENGTH_LEN + place.start..LENGTH_LEN + place.end;
            mirror[place.clone()].copy_from_slice(&message[place]);
        }
        mirror
    });
    failed.unwrap_err().initiator.cause
}

#[test]
fn a_share_of_ours_sent_back_is_refused_even_in_part() {
    use share::{EPHEMERAL, IDENTITY, NAME, POINT, UID};
    assert_eq!(mirrored(&[]), Failure::Reflected);
    assert_eq!(mirrored(&[POINT, IDENTITY, NAME, UID]), Failure::Reflected, "our ephemeral key");
    assert_eq!(mirrored(&[EPHEMERAL, IDENTITY, NAME, UID]), Failure::Reflected, "our point");
    assert_eq!(mirrored(&[POINT, EPHEMERAL]), Failure::Ourselves);
    assert_eq!(mirrored(&[POINT, EPHEMERAL, IDENTITY, NAME]), Failure::SameUid(weave_wire::Uid(1)));
    assert_eq!(mirrored(&[POINT, EPHEMERAL, NAME, UID]), Failure::SameIdentity);
    let name = Side::new(1, clear()).local.name;
    assert_eq!(mirrored(&[POINT, EPHEMERAL, IDENTITY, UID]), Failure::SameName(name));
}

#[test]
fn a_host_that_dials_itself_is_told() {
    let side = Side::new(1, encrypted(7));
    let failed = run(&side, &side).unwrap_err();
    assert_eq!(failed.responder.cause, Failure::Ourselves);
    assert!(!failed.responder.counts_as_guess());
}

#[test]
fn two_hosts_of_one_name_are_told() {
    let a = Side::new(1, encrypted(7));
    let b = Side::with(2, encrypted(7), |local| local.name = a.local.name);
    let failed = run(&a, &b).unwrap_err();
    assert_eq!(failed.responder.cause, Failure::SameName(a.local.name));
    let text = failed.responder.to_string();
    assert!(text.contains("same name") && text.contains("02:00:00:00:00:01"), "{text}");
}

#[test]
fn a_peer_of_no_common_version_is_told_which_ones_there_are() {
    let (a, b) = (Side::new(1, encrypted(7)), Side::new(2, encrypted(7)));
    let failed = run_with(&a, &b, PasswordOffer::default(), |n, mut message| {
        if n == 1 {
            // Versions 2 to 3, at their place behind kind, magic and mode.
            message[LENGTH_LEN + 7..LENGTH_LEN + 9].copy_from_slice(&[2, 3]);
        }
        message
    })
    .unwrap_err();
    assert_eq!(failed.responder.to_string(), "incompatible version 2..3, we speak 1..1");
    assert!(!failed.responder.reply.is_empty(), "the peer is told our versions too");
}

#[test]
fn a_signature_by_another_identity_is_refused_though_the_password_is_right() {
    // The responder shows the public key of host 3 and signs with its own.
    let a = Side::new(1, encrypted(7));
    let b = Side::new(2, encrypted(7));
    let other = Side::new(3, encrypted(7)).local.identity.public().to_bytes();
    // On the way it would break the MAC; so the MAC must be the first to say no.
    let failed = run_with(&a, &b, PasswordOffer::default(), |n, mut message| {
        if n == 4 {
            message[LENGTH_LEN..][share::IDENTITY].copy_from_slice(&other);
        }
        message
    })
    .unwrap_err();
    assert_eq!(failed.responder.cause, Failure::WrongPassword);
    // The signature alone altered: the MAC holds, and the signature says no.
    for number in [5, 6] {
        let failed = run_with(&a, &b, PasswordOffer::default(), |n, mut message| {
            if n == number {
                message[LENGTH_LEN + 40] ^= 1;
            }
            message
        })
        .unwrap_err();
        let cause = if number == 5 { failed.responder.cause } else { failed.initiator.cause };
        assert_eq!(cause, Failure::BadSignature);
    }
}

#[test]
fn messages_recorded_from_one_handshake_are_no_use_in_another() {
    let (a, b) = (Side::new(1, encrypted(7)), Side::new(2, encrypted(7)));
    let mut recorded = vec![Vec::new(); 7];
    let _ = run_with(&a, &b, PasswordOffer::default(), |n, message| {
        recorded[n] = message.clone();
        message
    });
    // One side is replaced by its recording.
    for numbers in [[1, 3, 5], [2, 4, 6]] {
        let result = run_with(&a, &b, PasswordOffer::default(), |n, message| {
            if numbers.contains(&n) { recorded[n].clone() } else { message }
        });
        assert!(result.is_err(), "{numbers:?}");
    }
    // One message is.
    for number in 1..=6 {
        let result = run_with(&a, &b, PasswordOffer::default(), |n, message| {
            if n == number { recorded[n].clone() } else { message }
        });
        assert!(result.is_err(), "{number}");
    }
}

#[test]
fn messages_out_of_order_end_the_handshake() {
    let (a, b) = (Side::new(1, encrypted(7)), Side::new(2, encrypted(7)));
    let mut recorded = vec![Vec::new(); 7];
    let _ = run_with(&a, &b, PasswordOffer::default(), |n, message| {
        recorded[n] = message.clone();
        message
    });
    for message in &recorded[2..] {
        let failure = b.respond().on_message(&message[LENGTH_LEN..]).unwrap_err();
        assert!(matches!(failure.cause, Failure::Parse(_)), "{failure}");
    }
    let mut responder = b.respond();
    responder.on_message(&recorded[1][LENGTH_LEN..]).unwrap();
    responder.on_message(&recorded[1][LENGTH_LEN..]).unwrap_err();
    let after = responder.on_message(&recorded[3][LENGTH_LEN..]).unwrap_err();
    assert_eq!(after.cause, Failure::Over, "an error is final");
}

#[test]
fn two_handshakes_at_once_between_two_hosts_share_nothing() {
    // Crossed: each message of one handshake is delivered to the other.
    let (a, b) = (Side::new(1, encrypted(7)), Side::new(2, encrypted(7)));
    let (mut a1, m1) = a.initiate(PasswordOffer::default());
    let (mut a2, n1) = a.initiate(PasswordOffer::default());
    let (mut b1, mut b2) = (b.respond(), b.respond());
    let m2 = b1.on_message(&m1[LENGTH_LEN..]).unwrap().send;
    let n2 = b2.on_message(&n1[LENGTH_LEN..]).unwrap().send;
    let m3 = a1.on_message(&n2[LENGTH_LEN..]).unwrap().send;
    let n3 = a2.on_message(&m2[LENGTH_LEN..]).unwrap().send;
    let m4 = b1.on_message(&m3[LENGTH_LEN..]).unwrap().send;
    let n4 = b2.on_message(&n3[LENGTH_LEN..]).unwrap().send;
    let m5 = a1.on_message(&m4[LENGTH_LEN..]).unwrap().send;
    let n5 = a2.on_message(&n4[LENGTH_LEN..]).unwrap().send;
    for (responder, m5) in [(b1, m5), (b2, n5)] {
        let mut responder = responder;
        assert_eq!(responder.on_message(&m5[LENGTH_LEN..]).unwrap_err().cause, Failure::WrongPassword);
    }
}

#[test]
fn no_secret_shows_in_debug_output() {
    let (a, b) = (Side::new(1, encrypted(0xab)), Side::new(2, encrypted(0xab)));
    let (link, _) = run(&a, &b).unwrap();
    let key = link.keys.udp_key(link.keys.role(), Lane::CONTROL);
    for text in [format!("{:?}", a.local), format!("{link:?}"), format!("{key:?}")] {
        let secret = hex::encode(key.as_bytes());
        assert!(!text.contains("171, 171") && !text.contains("abab") && !text.contains(&secret), "{text}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 64, ..Default::default() })]

    #[test]
    fn garbage_in_place_of_any_message_ends_the_handshake_without_panic(
        number in 1_usize..=6, kind in 0_u8..8, rest in proptest::collection::vec(proptest::num::u8::ANY, 0..512),
    ) {
        let (a, b) = (Side::new(1, encrypted(7)), Side::new(2, encrypted(7)));
        let result = run_with(&a, &b, PasswordOffer::default(), |n, message| {
            if n == number { [&[0, 0, kind], &rest[..]].concat() } else { message }
        });
        assert!(result.is_err());
    }
}
