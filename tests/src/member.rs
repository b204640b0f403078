//! A member of the mesh that breaks its rules: it has a link that lives, hears what others tell,
//! and tells what it likes of anybody.
//!
//! Beside the test's own doing it answers heartbeats, so that its link counts as one that passes
//! data, and pulls whatever is announced to it. It answers nobody's pulls.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use weave_crypto::{Established, Identity, ReceiveKey, RecordOpener, RecordSealer, SendKey};
use weave_wire::link::gossip::{
    AnnouncedLink, BUCKETS, Digest, Gossip, HostPart, PartId, PartKey, SignedPart, Version,
};
use weave_wire::link::heartbeat::ControlMessage;
use weave_wire::link::message::Message;
use weave_wire::{DatagramKind, Lane, OUTER_LEN, OuterHeader, PeerName, TAG_LEN, Uid};

use crate::insider::{Frames, Insider, identity};
use crate::world::LINK_WITHIN;
use crate::{World, wait_until};

/// How often its threads look whether they are to end.
const END_CHECK: Duration = Duration::from_millis(100);
/// Longest time for a router to take what it is told: it reads as much as it likes.
const TAKES: Duration = Duration::from_secs(60);
/// Texts of one part that are remembered, from the first.
const TEXTS: usize = 16;
/// Parts that are remembered: those of honest hosts are few.
const PARTS: usize = 1_024;

/// What was heard: texts of each part, in the order in which they came.
type Heard = Arc<Mutex<BTreeMap<PartKey, Vec<SignedPart>>>>;

/// A member and its link to one router.
pub struct Member {
    /// Its name.
    pub name: PeerName,
    /// Its run.
    pub uid: Uid,
    /// Signs what it says.
    pub identity: Identity,
    /// The router it is linked to.
    pub router: PeerName,
    /// Its data lane.
    pub frames: Frames,
    voice: Voice,
    heard: Heard,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// What goes out over TCP, from the test and from the thread that listens.
#[derive(Clone)]
struct Voice(Arc<Mutex<(TcpStream, RecordSealer)>>);

impl Voice {
    /// False if the connection takes no more.
    fn say(&self, message: &Message) -> bool {
        let mut voice = self.0.lock().unwrap();
        let (stream, sealer) = &mut *voice;
        let mut sealed = Vec::new();
        sealer.seal(&message.encode(), &mut sealed).unwrap();
        stream.write_all(&sealed).is_ok()
    }
}

impl Member {
    /// Joins from host `from`, where no router runs, to the router of host `to`, and waits until
    /// that finds the link established.
    #[track_caller]
    pub fn join(world: &World, from: usize, to: usize, name: PeerName) -> Self {
        let mut insider = Insider::join_from(world, from, to, name);
        insider.describe();
        let Insider { stream, link, uid, frames } = insider;
        stream.set_write_timeout(Some(TAKES)).unwrap();
        let Established { peer, keys, sealer, opener, .. } = *link;
        let voice = Voice(Arc::new(Mutex::new((stream.try_clone().unwrap(), sealer))));
        let (over, heard) = (Arc::<AtomicBool>::default(), Heard::default());
        let control = (keys.receive_key(Lane::CONTROL), keys.send_key(peer.session, Lane::CONTROL));
        let threads = vec![
            answer_heartbeats(&frames, control, Arc::clone(&over)),
            listen(stream, opener, voice.clone(), &heard, &over),
        ];
        // Hashes of nothing: the answer is a digest of everything.
        assert!(voice.say(&Message::Gossip(Gossip::Summary(Box::new([0; BUCKETS])))));
        let (identity, router) = (identity(name), peer.name);
        let member = Self { name, uid, identity, router, frames, voice, heard, over, threads };
        wait_until(
            LINK_WITHIN,
            || format!("the member has no link; {}", world.connections(&[to])),
            || is_linked(world, to, name),
        );
        member
    }

    /// Says something; false if the connection takes no more.
    pub fn say(&self, gossip: Gossip) -> bool {
        self.voice.say(&Message::Gossip(gossip))
    }

    /// Tells a part, whoever signed it; false if the connection takes no more.
    pub fn tell(&self, part: &SignedPart) -> bool {
        self.say(Gossip::Part(Box::new(part.clone())))
    }

    /// A part in the name of `owner`, signed with this member's own key.
    #[must_use]
    pub fn sign(&self, owner: PeerName, part: PartId, version: u64, content: Vec<u8>) -> SignedPart {
        let mut signed = SignedPart {
            owner,
            identity: self.identity.public(),
            uid: self.uid,
            part,
            version,
            content,
            signature: [0; 64],
        };
        signed.signature = self.identity.sign_part(&signed.signed_bytes());
        signed
    }

    /// Tells of itself that it has these links beside the one to its router.
    pub fn announce(&self, version: u64, others: &[PeerName]) -> bool {
        let links = others.iter().chain([&self.router]).copied().collect::<Vec<_>>();
        self.tell(&self.sign(self.name, PartId::HOST, version, host(&links, Vec::new())))
    }

    /// All texts of the parts of `owner` heard so far, the oldest of each part first.
    #[must_use]
    pub fn heard(&self, owner: PeerName) -> Vec<SignedPart> {
        let heard = self.heard.lock().unwrap();
        heard.iter().filter(|(key, _)| key.owner == owner).flat_map(|(_, texts)| texts.clone()).collect()
    }

    /// Waits until it heard part 0 of `owner`, and returns the newest text.
    #[track_caller]
    pub fn wait_heard(&self, owner: PeerName) -> SignedPart {
        let newest = || self.heard(owner).into_iter().rfind(|text| text.part == PartId::HOST);
        wait_until(LINK_WITHIN, || format!("nothing is heard of {owner}"), || newest().is_some());
        newest().unwrap()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// True if the router of host `at` has an established link to the peer `name`.
#[must_use]
pub fn is_linked(world: &World, at: usize, name: PeerName) -> bool {
    let established = weave_api::status::ConnectionState::Established;
    world.status(at).connections.iter().any(|link| link.peer == Some(name) && link.state == established)
}

/// Part 0 of a host with these links and addresses.
#[must_use]
pub fn host(links: &[PeerName], addresses: Vec<SocketAddr>) -> Vec<u8> {
    let link = |peer: &PeerName| AnnouncedLink { peer: *peer, unencrypted: false, outbound: true, cost: 1 };
    let links = links.iter().map(link).collect();
    let nickname = "invented".parse().unwrap();
    HostPart { nickname, port: 6783, addresses, links, sealed_only: false, farewell: false, features: 0 }
        .encode()
}

/// A digest of something that need not exist.
#[must_use]
pub fn digest(owner: PeerName, part: PartId, version: u64) -> Digest {
    Digest { key: PartKey { owner, part }, version: Version { version, uid: Uid(u64::MAX) } }
}

/// Answers heartbeats and challenges of the router until told to end.
fn answer_heartbeats(
    frames: &Frames,
    (mut opens, mut seals): (ReceiveKey, SendKey),
    over: Arc<AtomicBool>,
) -> JoinHandle<()> {
    let (socket, target) = (frames.socket.try_clone().unwrap(), frames.target);
    socket.set_read_timeout(Some(END_CHECK)).unwrap();
    std::thread::spawn(move || {
        let mut datagram = [0; 2_048];
        while !over.load(Ordering::Relaxed) {
            let Ok((len, _)) = socket.recv_from(&mut datagram) else { continue };
            if let Some(answer) = answer(&mut opens, &mut datagram[..len]) {
                send_control(&socket, target, &mut seals, &answer);
            }
        }
    })
}

pub(crate) fn answer(key: &mut ReceiveKey, datagram: &mut [u8]) -> Option<ControlMessage> {
    let header = *OuterHeader::split(datagram)?.0;
    if header.kind() != Some(DatagramKind::Control) {
        return None;
    }
    match ControlMessage::parse(key.open(header, datagram).ok()?)? {
        ControlMessage::Heartbeat(beat) => Some(ControlMessage::HeartbeatAck(beat)),
        ControlMessage::Challenge(challenge) => Some(ControlMessage::ChallengeAck(challenge)),
        ControlMessage::HeartbeatAck(_)
        | ControlMessage::ChallengeAck(_)
        | ControlMessage::PathAck { .. } => None,
    }
}

pub(crate) fn send_control(
    socket: &UdpSocket,
    target: SocketAddr,
    key: &mut SendKey,
    message: &ControlMessage,
) {
    let body = message.encode();
    let mut datagram = vec![0; OUTER_LEN + body.len() + TAG_LEN];
    datagram[OUTER_LEN..OUTER_LEN + body.len()].copy_from_slice(&body);
    key.seal(DatagramKind::Control, &mut datagram).unwrap();
    let _ = socket.send_to(&datagram, target);
}

/// Reads what the router tells until told to end; pulls what it announces.
fn listen(
    mut stream: TcpStream,
    mut opener: RecordOpener,
    voice: Voice,
    heard: &Heard,
    over: &Arc<AtomicBool>,
) -> JoinHandle<()> {
    let (heard, over) = (Arc::clone(heard), Arc::clone(over));
    stream.set_read_timeout(Some(END_CHECK)).unwrap();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while !over.load(Ordering::Relaxed) {
            let mut bytes = match stream.read(&mut buffer) {
                Ok(0) => return,
                Ok(len) => &buffer[..len],
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    continue;
                }
                Err(_) => return,
            };
            while let Ok(Some(message)) = opener.read(&mut bytes) {
                if let Ok(Some(Message::Gossip(gossip))) = Message::parse(&message) {
                    hear(gossip, &heard, &voice);
                }
            }
        }
    })
}

fn hear(gossip: Gossip, heard: &Heard, voice: &Voice) {
    match gossip {
        Gossip::Digests(digests) => {
            let known = heard.lock().unwrap();
            let wanted = digests.into_iter().filter(|digest| {
                known.get(&digest.key).map_or(known.len() < PARTS, |texts| texts.len() < TEXTS)
            });
            let keys: Vec<_> = wanted.map(|digest| digest.key).collect();
            drop(known);
            if !keys.is_empty() {
                voice.say(&Message::Gossip(Gossip::Pull(keys)));
            }
        }
        Gossip::Part(part) => heard.lock().unwrap().entry(part.key()).or_default().push(*part),
        Gossip::Summary(_) | Gossip::Pull(_) => {}
    }
}
