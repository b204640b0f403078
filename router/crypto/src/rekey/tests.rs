//! What the exhaustive search does not look at: time, and messages out of place.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

use super::*;
use crate::key::Secret;
use crate::limits::REKEY_AFTER;
use crate::schedule::Handover;
use weave_wire::PeerName;
use weave_wire::link::handshake::{Mode, Role};

/// A public key as good as any: the base point.
const BASE_POINT: [u8; 32] = {
    let mut point = [0; 32];
    point[0] = 9;
    point
};

const fn second(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn entropy(seed: u8) -> impl FnMut(&mut [u8]) {
    let mut next = seed;
    move |bytes: &mut [u8]| {
        for byte in bytes {
            next = next.wrapping_mul(5).wrapping_add(31);
            *byte = next;
        }
    }
}

/// The side with UID `ours`, whose peer has `theirs`; the smaller offers.
fn side(ours: u64, theirs: u64, role: Role) -> Rekey {
    let peer = PeerInfo {
        name: PeerName::new([2; 6]).unwrap(),
        uid: Uid(theirs),
        identity: crate::IdentityKey::from_bytes([0; 32]),
        session: SessionIndex(theirs),
        mode: Mode::Encrypted,
        version: 1,
        features: 0,
        shards: 1,
        lanes: 1,
        mtu: 1376,
        trusted_subnet: false,
    };
    let keys = Handover::new(&[1; 64], &[], &Secret([2; 32])).link_keys(role);
    let first = ConnectionId::FIRST;
    Rekey::new(Uid(ours), SessionIndex(ours), &peer, keys, first, RekeyPolicy::default(), second(0))
}

fn offerer() -> Rekey {
    side(1, 2, Role::Responder)
}

fn answerer() -> Rekey {
    side(2, 1, Role::Initiator)
}

fn offer_in(actions: &[RekeyAction]) -> RekeyShare {
    let offers = actions.iter().find_map(|action| match action {
        RekeyAction::Send(Message::RekeyOffer(share)) => Some(*share),
        _ => None,
    });
    offers.unwrap()
}

fn installs_in(actions: &[RekeyAction]) -> SessionIndex {
    let sessions = actions.iter().find_map(|action| match action {
        RekeyAction::InstallReceive { session, .. } => Some(*session),
        _ => None,
    });
    sessions.unwrap()
}

/// Both sides, re-keyed at `at` with nothing in the way.
fn rekeyed(at: Duration) -> (Rekey, Rekey) {
    let (mut a, mut b) = (offerer(), answerer());
    let offer = offer_in(&a.on_tick(&mut entropy(1), at));
    let session = installs_in(&b.on_offer(offer, &mut entropy(2), at).unwrap());
    let actions = b.on_receive_installed(session);
    let Some(RekeyAction::Send(Message::RekeyAnswer(answer))) = actions.first() else { panic!("no answer") };
    let session = installs_in(&a.on_answer(*answer, at).unwrap());
    a.on_receive_installed(session);
    b.on_confirm(1, at).unwrap();
    assert_eq!((a.epoch(), b.epoch()), (1, 1));
    (a, b)
}

#[test]
fn a_rekey_is_due_after_two_minutes_or_on_request_after_ten_seconds() {
    let mut a = offerer();
    assert_eq!(a.poll_timeout(), Some(REKEY_AFTER));
    assert!(a.on_tick(&mut entropy(1), second(119)).is_empty());
    a.request();
    assert_eq!(a.poll_timeout(), Some(second(10)));
    let mut b = answerer();
    b.request();
    assert_eq!(b.poll_timeout(), None, "the larger UID never begins");
}

#[test]
fn a_test_never_rekeys_more_often_than_every_100_ms() {
    assert_eq!(RekeyPolicy::every(second(0)).after, Duration::from_millis(100));
}

#[test]
fn the_epoch_before_is_accepted_for_ten_seconds_after_the_peer_left_it() {
    let (mut a, mut b) = rekeyed(second(120));
    assert_eq!(b.poll_timeout(), Some(second(130)), "the answerer knows by the confirmation");
    assert_eq!(a.poll_timeout(), Some(KEY_LIFETIME), "the offerer has not seen the peer yet");
    a.on_lane_seen(Lane::CONTROL, 1, second(121));
    assert_eq!(a.poll_timeout(), Some(second(131)));
    assert!(a.on_tick(&mut entropy(1), second(130)).is_empty());
    let dropped = a.on_tick(&mut entropy(1), second(131));
    assert!(matches!(dropped[..], [RekeyAction::DropReceive(SessionIndex(1))]), "{dropped:?}");
    let dropped = b.on_tick(&mut entropy(1), second(130));
    assert!(matches!(dropped[..], [RekeyAction::DropReceive(SessionIndex(2))]), "{dropped:?}");
}

#[test]
fn the_epoch_before_ends_with_its_lifetime_whatever_the_peer_does() {
    let (mut a, _) = rekeyed(second(175));
    a.on_lane_seen(Lane::CONTROL, 1, second(176));
    assert_eq!(a.poll_timeout(), Some(KEY_LIFETIME));
    assert_eq!(a.on_tick(&mut entropy(1), KEY_LIFETIME).len(), 1);
}

#[test]
fn a_link_that_could_not_rekey_ends_after_180_seconds() {
    let mut a = offerer();
    a.on_disconnected();
    assert!(a.on_tick(&mut entropy(1), second(179)).is_empty());
    assert!(!a.is_expired(second(179)));
    assert!(a.is_expired(second(180)));
    let (a, b) = rekeyed(second(150));
    assert!(!a.is_expired(second(180)) && !b.is_expired(second(329)) && a.is_expired(second(330)));
}

#[test]
fn an_answerer_holds_an_offer_while_a_lane_of_the_epoch_before_is_busy() {
    let (_, mut b) = rekeyed(second(120));
    let lane = Lane::data(9).unwrap();
    b.on_lane_seen(lane, 0, second(121));
    b.on_lane_seen(Lane::CONTROL, 1, second(121));
    let offer = RekeyShare { epoch: 2, ephemeral: BASE_POINT, session: SessionIndex(77) };
    assert!(b.on_offer(offer, &mut entropy(3), second(121)).unwrap().is_empty());
    assert_eq!(b.poll_timeout(), Some(second(122)), "the lane is silent from then on");
    let actions = b.on_tick(&mut entropy(3), second(122));
    assert!(matches!(actions[..], [RekeyAction::DropReceive(_), RekeyAction::InstallReceive { .. }]));
}

#[test]
fn messages_out_of_place_are_refused() {
    let share = RekeyShare { epoch: 1, ephemeral: BASE_POINT, session: SessionIndex(5) };
    let (mut a, mut b) = (offerer(), answerer());
    assert!(a.on_offer(share, &mut entropy(1), second(1)).is_err(), "the smaller UID offers");
    assert!(a.on_answer(share, second(1)).is_err(), "no offer was made");
    assert!(a.on_confirm(1, second(1)).is_err(), "the smaller UID confirms");
    assert!(b.on_answer(share, second(1)).is_err(), "the larger UID answers");
    assert!(b.on_confirm(0, second(1)).is_err(), "epoch 0 is never confirmed");
    assert!(b.on_confirm(1, second(1)).is_err(), "nothing was answered");
    let skipped = RekeyShare { epoch: 2, ..share };
    assert!(b.on_offer(skipped, &mut entropy(1), second(1)).is_err(), "epochs come one by one");
    assert!(b.on_offer(share, &mut entropy(1), second(1)).is_ok());
    assert!(b.on_offer(share, &mut entropy(1), second(1)).is_err(), "twice on one connection");
    let (_, mut b) = rekeyed(second(120));
    assert!(b.on_confirm(1, second(120)).is_err(), "twice on one connection");
}

#[test]
fn a_share_of_low_order_or_our_own_is_refused() {
    let mut b = answerer();
    let low = RekeyShare { epoch: 1, ephemeral: [0; 32], session: SessionIndex(5) };
    assert_eq!(b.on_offer(low, &mut entropy(1), second(1)).unwrap_err(), RekeyError::BadShare);
    let mut a = offerer();
    let offer = offer_in(&a.on_tick(&mut entropy(1), second(120)));
    assert_eq!(a.on_answer(offer, second(120)).unwrap_err(), RekeyError::BadShare);
}

#[test]
fn the_keys_of_an_epoch_depend_on_the_shares_their_secret_and_the_epoch_before() {
    let keys = |offer: RekeyShare, answer: RekeyShare, root: u8, shared: u8| {
        let keys = Handover::new(&[root; 64], &[], &Secret([2; 32])).link_keys(Role::Initiator);
        let next = keys.next(&Secret([shared; 32]), &transcript(&offer, &answer));
        *next.udp_key(Role::Initiator, Lane::CONTROL).as_bytes()
    };
    let share = |byte: u8| RekeyShare { epoch: 1, ephemeral: [byte; 32], session: SessionIndex(1) };
    let base = keys(share(1), share(2), 1, 3);
    assert_ne!(base, keys(share(2), share(1), 1, 3));
    assert_ne!(base, keys(share(1), share(3), 1, 3));
    assert_ne!(base, keys(share(1), share(2), 2, 3));
    assert_ne!(base, keys(share(1), share(2), 1, 4));
    let other_index = RekeyShare { session: SessionIndex(2), ..share(1) };
    assert_ne!(base, keys(other_index, share(2), 1, 3));
}
