//! A peer that knows the password and says what it likes.
//!
//! It speaks by the router's own handshake, and by nothing of the router behind it.

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
use weave_crypto::{
    Established, Handshake, Identity, LinkChoice, LocalPeer, Password, PasswordOffer, Secrets, SendKey,
};
use weave_wire::inner::ChecksumRequest;
use weave_wire::link::handshake::{LENGTH_LEN, message_len};
use weave_wire::link::message::{Describe, Message};
use weave_wire::{
    DatagramKind, INNER_LEN, InnerHeader, Lane, OUTER_LEN, PeerName, SessionIndex, TAG_LEN, Uid,
};

use zerocopy::IntoBytes;

use crate::World;
use crate::world::{PASSWORD, stretched};

/// Time for the router to answer or close on a busy machine.
const WITHIN: Duration = Duration::from_secs(10);
/// What the insider calls its session.
const SESSION: SessionIndex = SessionIndex(0x1515_1515);

/// Stretching takes a while: once for all insiders of a test.
static STRETCHED: LazyLock<Password> = LazyLock::new(|| stretched(PASSWORD));

/// A link to a router that a test has in its hand.
pub struct Insider {
    pub(crate) stream: TcpStream,
    /// Its link.
    pub link: Box<Established>,
    pub(crate) uid: Uid,
    /// Its data lane.
    pub frames: Frames,
}

/// Sends datagrams over a link, sealed but of any content.
pub struct Frames {
    pub(crate) socket: UdpSocket,
    pub(crate) target: SocketAddr,
    key: SendKey,
    name: PeerName,
}

/// Runs of insiders so far, and one.
static RUNS: AtomicU64 = AtomicU64::new(1);

pub(crate) fn entropy(bytes: &mut [u8]) {
    use std::hash::{BuildHasher, Hasher};
    for chunk in bytes.chunks_mut(8) {
        // The standard library seeds its hashers from the kernel's random numbers.
        let number = std::collections::hash_map::RandomState::new().build_hasher().finish();
        chunk.copy_from_slice(&number.to_le_bytes()[..chunk.len()]);
    }
}

/// The identity of the insider with this name: a name keeps its key.
pub(crate) fn identity(name: PeerName) -> Identity {
    let mut seed = [0x15; 32];
    seed[..6].copy_from_slice(&name.to_bytes());
    Identity::from_seed(&seed)
}

impl Insider {
    /// Joins the router of host 0 from host 1 as `name`, each time as another run of it. Ids of
    /// runs are as small as can be: it is the side that begins re-keys.
    #[must_use]
    pub fn join(world: &World, name: PeerName) -> Self {
        Self::join_from(world, 1, 0, name)
    }

    /// The same from one host to another.
    #[must_use]
    pub fn join_from(world: &World, from: usize, to: usize, name: PeerName) -> Self {
        let target = SocketAddr::new(world.underlay(to), world.status(to).port);
        let deadline = Instant::now() + WITHIN;
        loop {
            // A host that comes often has to wait.
            if let Some(joined) = Self::try_join(world, from, name, target) {
                return joined;
            }
            assert!(Instant::now() < deadline, "the insider does not get in; {}", world.log(to));
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn try_join(world: &World, from: usize, name: PeerName, target: SocketAddr) -> Option<Self> {
        let (stream, socket) = world.on_host(from, || {
            let stream = TcpStream::connect_timeout(&target, WITHIN).unwrap();
            (stream, UdpSocket::bind((world.underlay(from), 0)).unwrap())
        });
        Self::greet(stream, socket, name, target)
    }

    /// Joins by a connection that was just made, with a socket for datagrams; `None`: it is closed.
    pub(crate) fn greet(
        mut stream: TcpStream,
        socket: UdpSocket,
        name: PeerName,
        target: SocketAddr,
    ) -> Option<Self> {
        let uid = Uid(RUNS.fetch_add(1, Ordering::Relaxed));
        let local = Arc::new(LocalPeer {
            name,
            uid,
            identity: identity(name),
            secrets: Secrets::Encrypted { current: STRETCHED.clone(), previous: None },
            shards: 1,
            lanes: 1,
            mtu: 1376,
            features: 0,
            versions: weave_wire::link::handshake::Versions::OURS,
        });
        stream.set_read_timeout(Some(WITHIN)).unwrap();
        stream.set_write_timeout(Some(WITHIN)).unwrap();
        let choice = LinkChoice { session: SESSION, trusted_subnet: false };
        let (mut handshake, first) =
            Handshake::initiate(local, choice, PasswordOffer::default(), &mut entropy);
        stream.write_all(&first).ok()?;
        loop {
            let mut field = [0; LENGTH_LEN];
            stream.read_exact(&mut field).ok()?;
            let mut message = vec![0; message_len(field).unwrap()];
            stream.read_exact(&mut message).ok()?;
            let step = handshake.on_message(&message).unwrap();
            stream.write_all(&step.send).ok()?;
            if let Some(link) = step.established {
                let key = link.keys.send_key(link.peer.session, Lane::data(0).unwrap());
                let frames = Frames { socket, target, key, name };
                return Some(Self { stream, link, uid, frames });
            }
        }
    }

    /// Describes itself as a router does first.
    pub fn describe(&mut self) {
        let port = self.frames.socket.local_addr().unwrap().port();
        let describe = Describe { nickname: "insider".parse().unwrap(), port, observed: None };
        assert!(self.say(&Message::Describe(describe).encode()));
    }

    /// Sends the bytes of a message, sealed; false if the connection does not take it any more.
    pub fn say(&mut self, message: &[u8]) -> bool {
        let mut sealed = Vec::new();
        self.link.sealer.seal(message, &mut sealed).unwrap();
        self.shout(&sealed)
    }

    /// Sends bytes that nobody sealed; false if the connection does not take them any more.
    pub fn shout(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// True if the router closes the connection before `limit` is over. What it says until then is
    /// read and forgotten.
    pub fn is_closed_within(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut buffer = [0; 16 * 1024];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.stream.set_read_timeout(Some(left)).unwrap();
            match self.stream.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == ErrorKind::ConnectionReset,
            }
        }
    }
}

impl Frames {
    /// Sends a sealed frame that claims to come from `source`; `None`: from itself.
    pub fn send(&mut self, source: Option<PeerName>, frame: &[u8]) {
        self.send_behind(&InnerHeader::new(source.unwrap_or(self.name), None, None), frame);
    }

    /// Sends a sealed frame, or what is none, behind this inner header.
    pub fn send_behind(&mut self, inner: &InnerHeader, frame: &[u8]) {
        let datagram = self.sealed(inner, frame);
        self.socket.send_to(&datagram, self.target).unwrap();
    }

    /// Sends frames of equal length by one call (`UDP_SEGMENT`), so that they arrive together.
    /// Each has the same request to complete a checksum, or none.
    pub fn send_train(&mut self, request: Option<ChecksumRequest>, frames: &[Vec<u8>]) {
        let inner = InnerHeader::new(self.name, None, request);
        let datagrams: Vec<_> = frames.iter().map(|frame| self.sealed(&inner, frame)).collect();
        let segment = datagrams.first().map_or(0, Vec::len) as u16;
        let pieces: Vec<_> = datagrams.iter().map(|datagram| IoSlice::new(datagram)).collect();
        let target = SockaddrStorage::from(self.target);
        let control = [ControlMessage::UdpGsoSegments(&segment)];
        sendmsg(self.socket.as_raw_fd(), &pieces, &control, MsgFlags::empty(), Some(&target)).unwrap();
    }

    fn sealed(&mut self, inner: &InnerHeader, frame: &[u8]) -> Vec<u8> {
        let mut datagram = vec![0; OUTER_LEN + INNER_LEN];
        datagram[OUTER_LEN..].copy_from_slice(inner.as_bytes());
        datagram.extend_from_slice(frame);
        datagram.resize(datagram.len() + TAG_LEN, 0);
        self.key.seal(DatagramKind::Sealed, &mut datagram).unwrap();
        datagram
    }
}
