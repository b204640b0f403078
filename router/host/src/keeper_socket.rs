//! What a router that starts and the keeper say to each other.
//!
//! The keeper opens the tap and hands its queues over, so that the router needs no privilege for
//! them. One connection for each start: the router asks for queues, and says then that it runs
//! or that it does not; a connection that ends without a word means the latter. One connection,
//! too, for a tap that was deleted under a router: it shows its queues, and the keeper makes a tap
//! of them again. Each message is one packet (`SOCK_SEQPACKET`) of JSON; descriptors travel with it.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg, sendmsg,
    socket_with,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::policy::HostPolicy;
use crate::tap::{Offloads, QUEUES_MAX, TapFeatures};

/// Name of the socket, in the directory of the control socket.
pub const SOCKET: &str = "keeper.sock";
/// Version of the messages: a keeper of another one is replaced.
pub const VERSION: u32 = 2;
/// Longest message, bytes.
const MESSAGE_MAX: usize = 4096;
/// Routers that wait to be heard.
#[cfg(feature = "engine")]
const WAITING: i32 = 4;

/// The queues that a router wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// One for each shard, 1 to [`QUEUES_MAX`].
    pub queues: usize,
    /// MTU of the network, bytes.
    pub mtu: u32,
    /// What the router takes from the tap.
    pub offloads: Offloads,
}

/// What a router says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Request {
    /// The first message: it starts.
    Queues { version: u32, wanted: Wanted },
    /// It forwards: the host is to be set up around it.
    Runs(HostPolicy),
    /// It could not start: what was made for it is to be taken back.
    Failed,
    /// The first message: it runs, and its tap was deleted. The queues come with this.
    Restore { version: u32, wanted: Wanted },
}

/// What the keeper says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Answer {
    /// The queues come with this.
    Queues(TapFeatures),
    /// The messages are of another version.
    Version(u32),
    /// Done.
    Done,
    /// It could not be done; why.
    Refused(String),
}

/// The queues of the tap.
#[derive(Debug)]
pub struct Queues {
    /// One descriptor for each, non-blocking.
    pub fds: Vec<OwnedFd>,
    /// What the tap does.
    pub features: TapFeatures,
}

/// Why there is no answer to be used.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// Nobody listens.
    #[error("no keeper runs")]
    Absent,
    /// It speaks another version.
    #[error("the keeper is of another version ({0}, this is {VERSION})")]
    Version(u32),
    /// It said no.
    #[error("{0}")]
    Refused(String),
    /// It is busy, or hangs.
    #[error("the keeper does not answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// The connection broke, or something else listens there.
    #[error("the keeper's socket: {0}")]
    Broken(#[from] io::Error),
}

/// The router's end.
#[derive(Debug)]
pub struct KeeperClient(OwnedFd);

impl KeeperClient {
    /// Connects to the keeper whose socket is in `directory`.
    ///
    /// # Errors
    /// [`KeeperError::Absent`], [`KeeperError::Broken`].
    pub fn connect(directory: &Path) -> Result<Self, KeeperError> {
        let socket = new_socket()?;
        let address = SocketAddrUnix::new(directory.join(SOCKET)).map_err(io::Error::from)?;
        match connect(&socket, &address) {
            Ok(()) => {}
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::CONNREFUSED) => {
                return Err(KeeperError::Absent);
            }
            Err(error) => return Err(io::Error::from(error).into()),
        }
        check_peer(socket.as_fd())?;
        Ok(Self(socket))
    }

    /// Asks for queues.
    ///
    /// # Errors
    /// [`KeeperError`]; then nothing was changed, or it is taken back.
    pub fn queues(&self, wanted: Wanted, limit: Duration) -> Result<Queues, KeeperError> {
        send(self.0.as_fd(), &Request::Queues { version: VERSION, wanted }, &[])?;
        let (answer, fds) = self.answer(limit)?;
        match answer {
            Answer::Queues(features) if fds.len() == wanted.queues => Ok(Queues { fds, features }),
            Answer::Queues(_) | Answer::Done => Err(unexpected().into()),
            Answer::Version(version) => Err(KeeperError::Version(version)),
            Answer::Refused(why) => Err(KeeperError::Refused(why)),
        }
    }

    /// Says that the router runs, and waits until the host is set up around it.
    ///
    /// # Errors
    /// [`KeeperError`]: what of it could not be done.
    pub fn runs(self, policy: HostPolicy, limit: Duration) -> Result<(), KeeperError> {
        self.end(&Request::Runs(policy), limit)
    }

    /// Says that the router could not start, and waits until the host is as it was.
    ///
    /// # Errors
    /// [`KeeperError`]: what of it could not be done.
    pub fn failed(self, limit: Duration) -> Result<(), KeeperError> {
        self.end(&Request::Failed, limit)
    }

    /// Has a tap made again that was deleted under a router that runs.
    ///
    /// # Errors
    /// [`KeeperError`]; then it is asked again.
    pub fn restore(
        self,
        wanted: Wanted,
        queues: &[BorrowedFd<'_>],
        limit: Duration,
    ) -> Result<(), KeeperError> {
        send(self.0.as_fd(), &Request::Restore { version: VERSION, wanted }, queues)?;
        self.ended(limit)
    }

    fn end(self, request: &Request, limit: Duration) -> Result<(), KeeperError> {
        send(self.0.as_fd(), request, &[])?;
        self.ended(limit)
    }

    /// The last answer.
    fn ended(self, limit: Duration) -> Result<(), KeeperError> {
        match self.answer(limit)?.0 {
            Answer::Done => Ok(()),
            Answer::Refused(why) => Err(KeeperError::Refused(why)),
            Answer::Version(version) => Err(KeeperError::Version(version)),
            Answer::Queues(_) => Err(unexpected().into()),
        }
    }

    fn answer(&self, limit: Duration) -> Result<(Answer, Vec<OwnedFd>), KeeperError> {
        match receive(self.0.as_fd(), limit) {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(io::Error::from(io::ErrorKind::ConnectionReset).into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(KeeperError::Silent(limit)),
            Err(error) => Err(error.into()),
        }
    }
}

fn unexpected() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not the answer to what was asked")
}

/// The keeper's end.
#[cfg(feature = "engine")]
#[derive(Debug)]
pub struct KeeperListener(OwnedFd);

#[cfg(feature = "engine")]
impl KeeperListener {
    /// Listens in `directory`, which only root may enter, in place of a keeper that is gone.
    ///
    /// # Errors
    /// The kernel's.
    pub fn bind(directory: &Path) -> io::Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let path = directory.join(SOCKET);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let socket = new_socket()?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(&path)?)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        rustix::net::listen(&socket, WAITING)?;
        Ok(Self(socket))
    }

    /// The next router that may ask.
    pub(crate) fn accept(&self) -> io::Result<OwnedFd> {
        let socket = rustix::net::accept_with(&self.0, SocketFlags::CLOEXEC)?;
        check_peer(socket.as_fd())?;
        Ok(socket)
    }
}

fn new_socket() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Both ends run as root, or as the user of this process.
fn check_peer(socket: BorrowedFd<'_>) -> io::Result<()> {
    let uid = socket_peercred(socket)?.uid;
    if uid.is_root() || uid == rustix::process::geteuid() {
        return Ok(());
    }
    Err(io::ErrorKind::PermissionDenied.into())
}

/// Sends one message; the other end is not waited for.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    message: &impl Serialize,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(QUEUES_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one message"));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(socket, &[IoSlice::new(&text)], &mut control, flags)?;
    Ok(())
}

/// The next message with its descriptors; `None` when the other end is gone.
pub(crate) fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
    limit: Duration,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    // No limit at all is what 0 would mean.
    set_socket_timeout(socket, Timeout::Recv, Some(limit.max(Duration::from_millis(1))))?;
    let mut text = [0; MESSAGE_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(QUEUES_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut places = [IoSliceMut::new(&mut text)];
        match recvmsg(socket, &mut places, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message that is too long"));
    }
    let message = serde_json::from_slice(text.get(..received.bytes).unwrap_or_default())?;
    Ok(Some((message, fds)))
}

#[cfg(all(test, feature = "engine"))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::{Read, Write};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);
    const WANTED: Wanted = Wanted { queues: 2, mtu: 1376, offloads: Offloads { tso: true, uso: false } };

    fn listener() -> (tempfile::TempDir, KeeperListener) {
        let directory = tempfile::tempdir().unwrap();
        let listener = KeeperListener::bind(directory.path()).unwrap();
        (directory, listener)
    }

    #[test]
    fn queues_come_with_the_answer_and_work() {
        let (directory, listener) = listener();
        let features = TapFeatures { checksum: true, tso: true, uso: false };
        let client = KeeperClient::connect(directory.path()).unwrap();
        let router = listener.accept().unwrap();
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| client.queues(WANTED, LIMIT));
            let (request, _) = receive::<Request>(router.as_fd(), LIMIT).unwrap().unwrap();
            assert_eq!(request, Request::Queues { version: VERSION, wanted: WANTED });
            let pipes = [(); 2].map(|()| std::io::pipe().unwrap());
            let ends = [pipes[0].1.as_fd(), pipes[1].1.as_fd()];
            send(router.as_fd(), &Answer::Queues(features), &ends).unwrap();
            let mut queues = asked.join().unwrap().unwrap();
            assert_eq!(queues.features, features);
            let mut second = std::fs::File::from(queues.fds.remove(1));
            second.write_all(b"frame").unwrap();
            let mut frame = [0; 5];
            (&pipes[1].0).read_exact(&mut frame).unwrap();
            assert_eq!(&frame, b"frame");
        });
    }

    #[test]
    fn only_root_reaches_the_socket() {
        let (directory, _listener) = listener();
        let mode = std::fs::metadata(directory.path().join(SOCKET)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_keeper_that_is_gone_is_absent_and_its_place_is_taken_again() {
        let (directory, listener) = listener();
        drop(listener);
        assert!(matches!(KeeperClient::connect(directory.path()), Err(KeeperError::Absent)));
        let _listener = KeeperListener::bind(directory.path()).unwrap();
        KeeperClient::connect(directory.path()).unwrap();
        let empty = tempfile::tempdir().unwrap();
        assert!(matches!(KeeperClient::connect(empty.path()), Err(KeeperError::Absent)));
    }

    #[test]
    fn a_silent_keeper_one_of_another_version_and_one_that_ends_are_told_apart() {
        let (directory, listener) = listener();
        let client = KeeperClient::connect(directory.path()).unwrap();
        let silent = client.queues(WANTED, Duration::from_millis(20)).unwrap_err();
        assert!(matches!(silent, KeeperError::Silent(_)), "{silent}");
        let router = listener.accept().unwrap();
        for (answer, words) in
            [(Answer::Version(7), "another version (7"), (Answer::Refused("it is busy".into()), "it is busy")]
        {
            send(router.as_fd(), &answer, &[]).unwrap();
            assert!(client.queues(WANTED, LIMIT).unwrap_err().to_string().contains(words));
        }
        // Queues that were promised and did not come.
        let features = TapFeatures { checksum: true, tso: true, uso: true };
        send(router.as_fd(), &Answer::Queues(features), &[]).unwrap();
        assert!(matches!(client.queues(WANTED, LIMIT), Err(KeeperError::Broken(_))));
        drop(router);
        assert!(matches!(client.queues(WANTED, LIMIT), Err(KeeperError::Broken(_))));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let (directory, listener) = listener();
        let client = KeeperClient::connect(directory.path()).unwrap();
        let router = listener.accept().unwrap();
        for text in [&b"{"[..], b"[]", br#"{"queues":{"version":1}}"#, &[b' '; MESSAGE_MAX + 1]] {
            rustix::net::send(&client.0, text, SendFlags::NOSIGNAL).unwrap();
            assert!(receive::<Request>(router.as_fd(), LIMIT).is_err(), "{text:.20?}");
        }
    }
}
