//! A stranger who guesses the password of a network, from addresses of its own.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use nix::sys::time::TimeVal;
use weave_crypto::{Handshake, LinkChoice, LocalPeer, Password, PasswordOffer, Secrets};
use weave_wire::link::handshake::{LENGTH_LEN, Versions, message_len};
use weave_wire::{PeerName, SessionIndex, Uid};

use crate::World;
use crate::hostile::connect_from;
use crate::insider::{entropy, identity};
use crate::world::stretched;

/// Longest a router keeps a connection whose password is wrong, and more.
const WITHIN: Duration = Duration::from_secs(15);

/// Stretching takes a while: all guess the same.
static WRONG: LazyLock<Password> = LazyLock::new(|| stretched("not the password"));

/// What became of a guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guess {
    /// The router spoke, and did not let us in.
    Wrong,
    /// The router closed the connection before it said anything.
    Refused,
}

/// Gives host `host` all addresses of a network, and host `victim` the way there.
pub fn place(world: &World, host: usize, victim: usize, network: &str) {
    world.tool(host, &format!("ip route add local {network} dev lo"));
    world.tool(victim, &format!("ip route add {network} via {}", world.underlay(host)));
}

/// Guesses once from `source`, in whose namespace the caller is, and stays until the router closes
/// the connection.
///
/// # Panics
/// When the router cannot be reached, lets the guesser in or never closes.
#[must_use]
pub fn guess(source: Ipv4Addr, victim: SocketAddr) -> Guess {
    let mut stream = connect_from(source, victim, TimeVal::new(15, 0)).expect("the router listens");
    stream.set_read_timeout(Some(WITHIN)).unwrap();
    let name = PeerName::new([2, 0x66, 0, 0, 0, 1]).unwrap();
    let local = Arc::new(LocalPeer {
        name,
        uid: Uid(1),
        identity: identity(name),
        secrets: Secrets::Encrypted { current: WRONG.clone(), previous: None },
        shards: 1,
        lanes: 1,
        mtu: 1376,
        features: 0,
        versions: Versions::OURS,
    });
    let choice = LinkChoice { session: SessionIndex(0x6666), trusted_subnet: false };
    let (mut handshake, first) = Handshake::initiate(local, choice, PasswordOffer::default(), &mut entropy);
    // Whether it is refused shows by what comes back.
    let _ = stream.write_all(&first);
    let mut answer = Guess::Refused;
    while let Some(message) = read(&mut stream) {
        answer = Guess::Wrong;
        let reply = match handshake.on_message(&message) {
            Ok(step) => {
                assert!(step.established.is_none(), "the guess was right");
                step.send
            }
            Err(error) => error.reply,
        };
        let _ = stream.write_all(&reply);
    }
    answer
}

/// The next message, until the router closes.
fn read(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut take = |bytes: &mut [u8]| match stream.read_exact(bytes) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("the router never closes"),
        read => read.ok(),
    };
    let mut field = [0; LENGTH_LEN];
    take(&mut field)?;
    let mut message = vec![0; message_len(field).unwrap()];
    take(&mut message)?;
    Some(message)
}
