//! Many peers of one router, each from an address of its own: they answer heartbeats, tell of
//! themselves once, and listen to nothing.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::time::TimeVal;
use weave_crypto::{ReceiveKey, SendKey};
use weave_wire::link::gossip::{Gossip, PartId, SignedPart};
use weave_wire::link::message::Message;
use weave_wire::{Lane, PeerName};

use crate::hostile::connect_from;
use crate::insider::{Insider, identity};
use crate::member::{answer, host, send_control};
use crate::{World, guesser, wait_until};

/// The network that peers of a crowd are on.
const NETWORK: &str = "198.18.0.0/16";
/// Peers that join at once.
const AT_ONCE: usize = 16;
/// A router lets so many strangers in and no more: the others come again.
const AGAIN: Duration = Duration::from_millis(100);
/// Time for all to have joined.
const JOIN_WITHIN: Duration = Duration::from_secs(60);
/// How often is looked for heartbeats.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// One of them.
struct Peer {
    insider: Insider,
    opens: ReceiveKey,
    seals: SendKey,
}

/// Peers that stay until this is dropped.
pub struct Crowd {
    over: Arc<AtomicBool>,
    answers: Option<JoinHandle<()>>,
}

impl Crowd {
    /// Has `count` peers join the router of host `to` from host `from`, where none runs, and waits
    /// until that finds all links established.
    #[track_caller]
    #[must_use]
    pub fn join(world: &World, from: usize, to: usize, count: usize) -> Self {
        guesser::place(world, from, to, NETWORK);
        let target = SocketAddr::new(world.underlay(to), world.status(to).port);
        let (over, peers) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<Peer>>>::default());
        let answers = {
            let (over, peers) = (Arc::clone(&over), Arc::clone(&peers));
            std::thread::spawn(move || answer_all(&peers, target, &over))
        };
        let crowd = Self { over, answers: Some(answers) };
        let (next, deadline) = (AtomicUsize::new(0), Instant::now() + JOIN_WITHIN);
        let join_some = || loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            let peer = loop {
                if let Some(peer) = join_one(number, target) {
                    break peer;
                }
                assert!(Instant::now() < deadline, "peer {number} does not get in; {}", world.log(to));
                std::thread::sleep(AGAIN);
            };
            peers.lock().unwrap().push(peer);
        };
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| world.on_host(from, join_some));
            }
        });
        let established = || {
            let state = weave_api::status::ConnectionState::Established;
            world.status(to).connections.iter().filter(|link| link.state == state).count()
        };
        wait_until(JOIN_WITHIN, || format!("{} of {count} links", established()), || established() >= count);
        crowd
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(answers) = self.answers.take() {
            let _ = answers.join();
        }
    }
}

fn join_one(number: usize, target: SocketAddr) -> Option<Peer> {
    let [_, _, high, low] = u32::try_from(number + 1).unwrap().to_be_bytes();
    let (source, name) =
        (Ipv4Addr::new(198, 18, high, low), PeerName::new([2, 0xcc, 0, 0, high, low]).unwrap());
    let stream = connect_from(source, target, TimeVal::new(5, 0))?;
    let socket = UdpSocket::bind((source, 0)).unwrap();
    let mut insider = Insider::greet(stream, socket, name, target)?;
    insider.describe();
    let keys = &insider.link.keys;
    let (opens, seals) =
        (keys.receive_key(Lane::CONTROL), keys.send_key(insider.link.peer.session, Lane::CONTROL));
    let identity = identity(name);
    let mut part = SignedPart {
        owner: name,
        identity: identity.public(),
        uid: insider.uid,
        part: PartId::HOST,
        version: 1,
        content: host(&[insider.link.peer.name], Vec::new()),
        signature: [0; 64],
    };
    part.signature = identity.sign_part(&part.signed_bytes());
    assert!(insider.say(&Message::Gossip(Gossip::Part(Box::new(part))).encode()));
    insider.stream.set_nonblocking(true).unwrap();
    insider.frames.socket.set_nonblocking(true).unwrap();
    Some(Peer { insider, opens, seals })
}

/// Answers heartbeats of all peers, and takes what comes over TCP off the router, until told to end.
fn answer_all(peers: &Mutex<Vec<Peer>>, target: SocketAddr, over: &AtomicBool) {
    let (mut datagram, mut bytes) = ([0; 2_048], vec![0; 64 << 10]);
    while !over.load(Ordering::Relaxed) {
        for Peer { insider, opens, seals } in peers.lock().unwrap().iter_mut() {
            while let Ok((len, _)) = insider.frames.socket.recv_from(&mut datagram) {
                if let Some(answer) = answer(opens, &mut datagram[..len]) {
                    send_control(&insider.frames.socket, target, seals, &answer);
                }
            }
            while insider.stream.read(&mut bytes).is_ok_and(|len| len > 0) {}
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
