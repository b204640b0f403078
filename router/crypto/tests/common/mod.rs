//! Two sides of a handshake and the wire between them.
#![allow(dead_code, reason = "each test program uses its part")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use weave_crypto::{
    Entropy, Established, Handshake, HandshakeError, Identity, LinkChoice, LocalPeer, Password,
    PasswordOffer, Secrets, Step,
};
use weave_wire::link::handshake::LENGTH_LEN;
use weave_wire::{PeerName, SessionIndex, Uid};

/// Random bytes that can be had again (SplitMix64): fit for tests only.
pub struct Seeded(pub u64);

impl Entropy for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            *byte = (z ^ (z >> 31)) as u8;
        }
    }
}

/// Fresh entropy at each call, the same in each run.
pub fn entropy() -> Seeded {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    Seeded(NEXT.fetch_add(1, Ordering::Relaxed) << 32)
}

pub fn encrypted(password: u8) -> Secrets {
    Secrets::Encrypted { current: Password::from_stretched([password; 32]), previous: None }
}

pub fn clear() -> Secrets {
    Secrets::Clear
}

/// A host.
#[derive(Clone)]
pub struct Side {
    pub local: Arc<LocalPeer>,
    pub choice: LinkChoice,
}

impl Side {
    /// Host `number`; its UID is its number.
    pub fn new(number: u8, secrets: Secrets) -> Self {
        Self::with(number, secrets, |_| {})
    }

    pub fn with(number: u8, secrets: Secrets, change: impl FnOnce(&mut LocalPeer)) -> Self {
        let mut local = LocalPeer {
            name: PeerName::new([2, 0, 0, 0, 0, number]).unwrap(),
            uid: Uid(number.into()),
            identity: Identity::from_seed(&[number; 32]),
            secrets,
            shards: 2,
            lanes: 2,
            mtu: 1376,
            features: 0,
            versions: weave_wire::link::handshake::Versions::OURS,
        };
        change(&mut local);
        let session = SessionIndex(0x5e55_0000 + u64::from(number));
        Self { local: Arc::new(local), choice: LinkChoice { session, trusted_subnet: false } }
    }

    pub fn initiate(&self, offer: PasswordOffer) -> (Handshake, Vec<u8>) {
        Handshake::initiate(self.local.clone(), self.choice, offer, &mut entropy())
    }

    pub fn respond(&self) -> Handshake {
        Handshake::respond(self.local.clone(), self.choice, &mut entropy())
    }
}

/// How a handshake failed on each side.
#[derive(Debug)]
pub struct BothFailed {
    pub initiator: HandshakeError,
    pub responder: HandshakeError,
}

pub type Links = (Box<Established>, Box<Established>);

pub fn run(a: &Side, b: &Side) -> Result<Links, BothFailed> {
    run_with(a, b, PasswordOffer::default(), |_, message| message)
}

/// Runs a handshake; `wire` may alter each framed message, numbered from 1.
pub fn run_with(
    a: &Side,
    b: &Side,
    offer: PasswordOffer,
    mut wire: impl FnMut(usize, Vec<u8>) -> Vec<u8>,
) -> Result<Links, BothFailed> {
    let (mut initiator, first) = a.initiate(offer);
    let mut responder = b.respond();
    let mut links = (None, None);
    let mut errors = (None, None);
    let mut in_flight = first;
    for number in 1..=6 {
        let message = wire(number, in_flight);
        let from_initiator = number % 2 == 1;
        let receiver = if from_initiator { &mut responder } else { &mut initiator };
        let Step { send, established } = match receiver.on_message(&message[LENGTH_LEN..]) {
            Ok(step) => step,
            Err(error) => {
                let slot = if from_initiator { &mut errors.1 } else { &mut errors.0 };
                let reply = error.reply.clone();
                slot.get_or_insert(error);
                if reply.is_empty() {
                    break;
                }
                Step { send: reply, established: None }
            }
        };
        if established.is_some() {
            let slot = if from_initiator { &mut links.1 } else { &mut links.0 };
            *slot = established;
        }
        in_flight = send;
        if in_flight.is_empty() {
            break;
        }
    }
    match links {
        (Some(a), Some(b)) => Ok((a, b)),
        _ => Err(BothFailed {
            initiator: errors.0.unwrap_or_else(|| initiator.interrupted()),
            responder: errors.1.unwrap_or_else(|| responder.interrupted()),
        }),
    }
}
