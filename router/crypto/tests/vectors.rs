//! The protocol as a whole against our own vectors, so that no change of a label
//! or a byte order goes unseen, and a second implementation can be checked.
//! `docs/wire.md` says how each value is made.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::wildcard_enum_match_arm)]

use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use weave_crypto::{
    DataAead, Established, Handshake, Identity, LinkChoice, LocalPeer, Password, PasswordOffer, Rekey,
    RekeyAction, RekeyPolicy, Secrets,
};
use weave_wire::link::handshake::{LENGTH_LEN, Role};
use weave_wire::link::message::Message;
use weave_wire::{DatagramKind, Lane, OUTER_LEN, PeerName, SessionIndex, TAG_LEN, Uid};

/// What a side draws, in this order: byte n of a run of `len` is `start` + n.
struct Counting(u8);

impl weave_crypto::Entropy for Counting {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = self.0;
            self.0 = self.0.wrapping_add(1);
        }
    }
}

const PASSWORD: [u8; 32] = [0x70; 32];

fn local(number: u8) -> Arc<LocalPeer> {
    Arc::new(LocalPeer {
        name: PeerName::new([2, 0, 0, 0, 0, number]).unwrap(),
        uid: Uid(0x1000 * u64::from(number)),
        identity: Identity::from_seed(&[0xa0 + number; 32]),
        secrets: Secrets::Encrypted { current: Password::from_stretched(PASSWORD), previous: None },
        shards: number,
        lanes: number,
        mtu: 1376,
        features: 0,
        versions: weave_wire::link::handshake::Versions::OURS,
    })
}

fn choice(number: u8) -> LinkChoice {
    LinkChoice { session: SessionIndex(0xc0de_0000 + u64::from(number)), trusted_subnet: false }
}

fn udp_keys(link: &weave_crypto::LinkKeys) -> Value {
    let key = |sender, lane: Lane| hex::encode(link.udp_key(sender, lane).as_bytes());
    let lane = Lane::data(3).unwrap();
    json!({
        "initiator lane 3": key(Role::Initiator, lane),
        "responder lane 3": key(Role::Responder, lane),
        "initiator lane 255": key(Role::Initiator, Lane::CONTROL),
        "responder lane 255": key(Role::Responder, Lane::CONTROL),
    })
}

fn sealed(sealer: &mut weave_crypto::RecordSealer, message: &Message) -> String {
    let mut bytes = Vec::new();
    sealer.seal(&message.encode(), &mut bytes).unwrap();
    hex::encode(bytes)
}

/// The handshake of host 2, which dials, and host 1.
fn handshake() -> (Value, Box<Established>, Box<Established>) {
    let offer = PasswordOffer::default();
    let (mut initiator, m1) = Handshake::initiate(local(2), choice(2), offer, &mut Counting(0x20));
    let mut responder = Handshake::respond(local(1), choice(1), &mut Counting(0x90));
    let mut messages = vec![m1];
    let (mut ours, mut theirs) = (None, None);
    while theirs.is_none() || ours.is_none() {
        let to_responder = messages.len() % 2 == 1;
        let side = if to_responder { &mut responder } else { &mut initiator };
        let step = side.on_message(&messages.last().unwrap()[LENGTH_LEN..]).unwrap();
        if to_responder {
            theirs = theirs.or(step.established);
        } else {
            ours = ours.or(step.established);
        }
        if !step.send.is_empty() {
            messages.push(step.send);
        }
    }
    let hex: Vec<_> = messages.iter().map(hex::encode).collect();
    (json!(hex), ours.unwrap(), theirs.unwrap())
}

fn datagram(link: &Established) -> String {
    let mut send = link.keys.send_key::<DataAead>(link.peer.session, Lane::data(3).unwrap());
    let mut datagram = vec![0; OUTER_LEN];
    datagram.extend_from_slice(b"the body of a datagram");
    datagram.extend([0; TAG_LEN]);
    send.seal(DatagramKind::Sealed, &mut datagram).unwrap();
    hex::encode(datagram)
}

fn session(actions: &[RekeyAction]) -> SessionIndex {
    actions
        .iter()
        .find_map(|action| match action {
            RekeyAction::InstallReceive { session, .. } => Some(*session),
            _ => None,
        })
        .unwrap()
}

/// Messages and keys of the first re-key; host 1 has the smaller UID and offers.
fn rekey(initiator: &Established, responder: &Established) -> Value {
    let (policy, zero, due) = (RekeyPolicy::default(), Duration::ZERO, Duration::from_secs(120));
    let new = |uid, number, link: &Established| {
        let (keys, own) = (link.keys.clone(), choice(number).session);
        Rekey::new(Uid(uid), own, &link.peer, keys, link.connection, policy, zero)
    };
    let (mut offerer, mut answerer) = (new(0x1000, 1, responder), new(0x2000, 2, initiator));
    let (mut messages, mut tcp) = (Vec::new(), Vec::new());
    let mut note = |actions: &[RekeyAction]| {
        let mut sent = None;
        for action in actions {
            match action {
                RekeyAction::Send(message) => {
                    messages.push(hex::encode(message.encode()));
                    sent = Some(message.clone());
                }
                RekeyAction::SwitchTcpSend(key) => tcp.push(hex::encode(key.as_bytes())),
                _ => {}
            }
        }
        sent
    };
    let actions = offerer.on_tick(&mut Counting(0x30), due);
    let Some(Message::RekeyOffer(offer)) = note(&actions) else { panic!("no offer") };
    let actions = answerer.on_offer(offer, &mut Counting(0x60), due).unwrap();
    let actions = answerer.on_receive_installed(session(&actions));
    let Some(Message::RekeyAnswer(answer)) = note(&actions) else { panic!("no answer") };
    let actions = offerer.on_answer(answer, due).unwrap();
    let actions = offerer.on_receive_installed(session(&actions));
    let Some(Message::RekeyConfirm { epoch }) = note(&actions) else { panic!("no confirmation") };
    answerer.on_confirm(epoch, due).unwrap();
    assert_eq!(udp_keys(offerer.keys()), udp_keys(answerer.keys()));
    json!({
        "messages": messages,
        "tcp key initiator": tcp[0],
        "tcp key responder": tcp[1],
        "udp keys of epoch 1": udp_keys(offerer.keys()),
    })
}

/// Host 1, the responder of the handshake, dials.
fn resume(initiator: &Established, responder: &Established) -> Value {
    let (dial, request) = responder.resumption.dial(&mut Counting(0x40));
    let (answer, accept) = initiator.resumption.answer(&request[LENGTH_LEN..], &mut Counting(0xd0)).unwrap();
    let (proof, mut by_responder) = dial.on_accept(&accept[LENGTH_LEN..]).unwrap();
    let mut by_initiator = answer.on_proof(&proof[LENGTH_LEN..]).unwrap();
    json!({
        "messages": [hex::encode(request), hex::encode(accept), hex::encode(proof)],
        "first record of the initiator": sealed(&mut by_initiator.sealer, &Message::Ping(3)),
        "first record of the responder": sealed(&mut by_responder.sealer, &Message::Pong(3)),
    })
}

#[test]
fn the_protocol_makes_the_bytes_of_the_vectors() {
    let (messages, mut initiator, mut responder) = handshake();
    let made = json!({
        "handshake messages": messages,
        "link id": hex::encode(initiator.resumption.link_id().0),
        "udp keys of epoch 0": udp_keys(&initiator.keys),
        "first datagram of the initiator on lane 3": datagram(&initiator),
        "first record of the initiator": sealed(&mut initiator.sealer, &Message::Ping(1)),
        "first record of the responder": sealed(&mut responder.sealer, &Message::Pong(1)),
        "rekey": rekey(&initiator, &responder),
        "resumption": resume(&initiator, &responder),
    });
    let kept: Value = serde_json::from_str(include_str!("vectors/protocol.json")).unwrap();
    assert_eq!(made, kept["made"], "{}", serde_json::to_string_pretty(&made).unwrap());
}
