//! The runtime of the control core: the only module that knows glommio.
//!
//! Tasks, timers, TCP, UDP and Unix sockets, channels. Everything runs on one
//! thread; a task gives way at its `await`s.

use futures_lite::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use glommio::{LocalExecutorBuilder, Placement, PoolPlacement};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, SockaddrStorage, bind, connect,
    getsockopt, recvmsg, setsockopt, socket, sockopt,
};
use nix::{setsockopt_impl, sockopt_impl};
use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

pub(crate) use async_channel::{Receiver, Sender, bounded};

/// Memory each executor registers with the kernel, bytes: control traffic is small.
const IO_MEMORY: usize = 64 << 10;
/// Depth of its rings.
const RING_DEPTH: usize = 64;
/// Threads for calls that block: name look-ups, what HTTP shows, the password file.
const BLOCKING_THREADS: usize = 4;

/// How long TCP may wait for an acknowledgement (RFC 5482).
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(10);
/// Idle time after which TCP asks for a sign of life, seconds.
const TCP_KEEPALIVE: u32 = 5;
/// Distance of those that follow one that is not answered, seconds. Several must fit before
/// [`TCP_USER_TIMEOUT`]: the kernel ends the connection at the first that is due after it, so
/// with one alone a single lost segment would do.
const TCP_KEEPALIVE_AGAIN: u32 = 1;
/// Longest wait before something is sent again, milliseconds: what was said while a way was closed
/// arrives so soon after it opens, and not after as long as it was closed. As short as the kernel lets it be.
const TCP_AGAIN_MAX_MS: u32 = 1000;
/// `linux/tcp.h`, from Linux 6.15.
const TCP_RTO_MAX_MS: libc::c_int = 44;

sockopt_impl!(
    /// Longest wait of TCP before something is sent again, milliseconds.
    TcpRtoMax,
    SetOnly,
    libc::IPPROTO_TCP,
    TCP_RTO_MAX_MS,
    u32
);

/// Time tasks have to end with the runtime.
const TASKS_END_WITHIN: Duration = Duration::from_secs(1);

/// What tells the tasks of this thread's runtime to end, and that they have.
struct Tasks {
    /// Closed when they are to end.
    ended: Receiver<()>,
    /// Each task keeps one: closed when all have ended.
    running: Sender<()>,
}

thread_local! {
    static TASKS: RefCell<Option<Tasks>> = const { RefCell::new(None) };
}

/// Runs `main` and everything it spawns on this thread until `main` ends; then
/// everything it spawned ends, with the sockets that it holds: a runtime can
/// follow another on one port.
pub(crate) fn run<T: 'static>(main: impl Future<Output = T> + 'static) -> io::Result<T> {
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .name("weave-control")
        .io_memory(IO_MEMORY)
        .ring_depth(RING_DEPTH)
        .blocking_thread_pool_placement(PoolPlacement::Unbound(BLOCKING_THREADS))
        .make()
        .map_err(|error| io::Error::other(error.to_string()))?;
    Ok(executor.run(async move {
        let ((end, ended), (running, finished)) = (bounded(1), bounded::<()>(1));
        TASKS.with_borrow_mut(|tasks| *tasks = Some(Tasks { ended, running }));
        let result = main.await;
        // Nothing is sent on either: they are closed.
        TASKS.with_borrow_mut(Option::take);
        drop::<Sender<()>>(end);
        if timeout(TASKS_END_WITHIN, finished.recv()).await.is_none() {
            tracing::warn!("a task of the control core does not end");
        }
        result
    }))
}

/// Starts a task; it ends with its future, or with the runtime.
pub(crate) fn spawn(task: impl Future<Output = ()> + 'static) {
    let Some((ended, running)) =
        TASKS.with_borrow(|tasks| tasks.as_ref().map(|tasks| (tasks.ended.clone(), tasks.running.clone())))
    else {
        return;
    };
    let task = async move {
        let end = async {
            let _ = ended.recv().await;
        };
        futures_lite::future::or(task, end).await;
        drop(running);
    };
    glommio::spawn_local(task).detach();
}

/// Waits.
pub(crate) async fn sleep(time: Duration) {
    glommio::timer::sleep(time).await;
}

/// Lets other tasks of this thread go on.
pub(crate) async fn yield_now() {
    futures_lite::future::yield_now().await;
}

/// What `future` gives, or `None` if it took longer than `limit`.
pub(crate) async fn timeout<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    futures_lite::future::or(async { Some(future.await) }, async {
        sleep(limit).await;
        None
    })
    .await
}

/// Runs a call that blocks on another thread.
pub(crate) async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    glommio::executor().spawn_blocking(call).await
}

/// True if datagrams to `address` would leave by the interface `name`: if the
/// source address that the kernel chooses for them is one of that interface's.
/// An address without a route leads nowhere.
pub(crate) fn leads_through(name: &str, address: SocketAddr) -> io::Result<bool> {
    let any: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
    let probe = std::net::UdpSocket::bind(SocketAddr::new(any, 0))?;
    // Sends nothing.
    if probe.connect(address).is_err() {
        return Ok(false);
    }
    let source = SockaddrStorage::from(SocketAddr::new(probe.local_addr()?.ip(), 0));
    let is_source = |at: &SockaddrStorage| match (at.as_sockaddr_in(), at.as_sockaddr_in6()) {
        (Some(at), _) => source.as_sockaddr_in().is_some_and(|source| source.ip() == at.ip()),
        (None, Some(at)) => source.as_sockaddr_in6().is_some_and(|source| source.ip() == at.ip()),
        (None, None) => false,
    };
    let mut interfaces = nix::ifaddrs::getifaddrs()?;
    Ok(interfaces.any(|one| one.interface_name == name && one.address.as_ref().is_some_and(is_source)))
}

/// A listening TCP socket.
pub(crate) struct TcpListener(glommio::net::TcpListener);

impl TcpListener {
    /// Takes over a socket that was bound elsewhere.
    pub(crate) fn new(socket: std::net::TcpListener) -> Self {
        // SAFETY: the descriptor is open and given away by `into_raw_fd`: the
        // new owner is the only one.
        Self(unsafe { glommio::net::TcpListener::from_raw_fd(socket.into_raw_fd()) })
    }

    /// The next connection and where it comes from.
    pub(crate) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            let stream = self.0.accept().await?;
            // A connection that was reset while it waited has no peer any more: no
            // reason to keep those behind it waiting.
            let Ok(peer) = stream.peer_addr() else { continue };
            return Ok((TcpStream::new(stream), SocketAddr::new(peer.ip().to_canonical(), peer.port())));
        }
    }
}

/// A TCP connection.
pub(crate) struct TcpStream(glommio::net::TcpStream);

impl TcpStream {
    fn new(stream: glommio::net::TcpStream) -> Self {
        // SAFETY: the descriptor is open as long as `stream` is, and the borrow
        // ends before that.
        let fd = unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) };
        #[expect(clippy::cast_possible_truncation, reason = "10,000 milliseconds")]
        let limit = TCP_USER_TIMEOUT.as_millis() as u32;
        let options = setsockopt(&fd, sockopt::TcpNoDelay, &true)
            .and_then(|()| setsockopt(&fd, sockopt::KeepAlive, &true))
            .and_then(|()| setsockopt(&fd, sockopt::TcpKeepIdle, &TCP_KEEPALIVE))
            .and_then(|()| setsockopt(&fd, sockopt::TcpKeepInterval, &TCP_KEEPALIVE_AGAIN))
            .and_then(|()| setsockopt(&fd, sockopt::TcpUserTimeout, &limit));
        if let Err(error) = options {
            tracing::warn!("options of a TCP connection: {error}");
        }
        // An older kernel does not know it: there what was lost comes later.
        let _ = setsockopt(&fd, TcpRtoMax, &TCP_AGAIN_MAX_MS);
        Self(stream)
    }

    /// True if both ends have the same address: the other end is on this host.
    pub(crate) fn leads_back(&self) -> io::Result<bool> {
        Ok(self.0.local_addr()?.ip() == self.0.peer_addr()?.ip())
    }

    /// Dials `address`, from `source` if one is given.
    ///
    /// glommio cannot bind before it connects, nor wait for a descriptor of
    /// somebody else; so the connection is made by the kernel in the background
    /// and asked for at growing intervals.
    pub(crate) async fn connect(address: SocketAddr, source: Option<IpAddr>) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket(family, SockType::Stream, flags, None)?;
        if let Some(source) = source.filter(|source| source.is_ipv4() == address.is_ipv4()) {
            bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(source, 0)))?;
        }
        match connect(fd.as_raw_fd(), &SockaddrStorage::from(address)) {
            Ok(()) => {}
            Err(nix::errno::Errno::EINPROGRESS) => wait_connected(&fd).await?,
            Err(error) => return Err(error.into()),
        }
        // SAFETY: as in `TcpListener::new`.
        Ok(Self::new(unsafe { glommio::net::TcpStream::from_raw_fd(fd.into_raw_fd()) }))
    }
}

async fn wait_connected(fd: &OwnedFd) -> io::Result<()> {
    let mut pause = Duration::from_micros(500);
    loop {
        sleep(pause).await;
        let error = getsockopt(fd, sockopt::SocketError)?;
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        match nix::sys::socket::getpeername::<SockaddrStorage>(fd.as_raw_fd()) {
            Ok(_) => return Ok(()),
            Err(nix::errno::Errno::ENOTCONN) => pause = (pause * 2).min(Duration::from_millis(20)),
            Err(error) => return Err(error.into()),
        }
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}

/// What one receive brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Datagrams {
    /// Length of all together, bytes.
    pub(crate) len: usize,
    /// Length of each but the last, which may be shorter, bytes.
    pub(crate) each: usize,
    /// Where they come from.
    pub(crate) source: SocketAddr,
}

fn receive_now(socket: RawFd, buffer: &mut [u8]) -> io::Result<Datagrams> {
    let mut told = nix::cmsg_space!(i32, u32);
    let mut place = [io::IoSliceMut::new(buffer)];
    let received = recvmsg::<SockaddrStorage>(socket, &mut place, Some(&mut told), MsgFlags::MSG_DONTWAIT)?;
    let len = received.bytes;
    let each = received.cmsgs()?.find_map(|told| {
        let ControlMessageOwned::UdpGroSegments(each) = told else { return None };
        usize::try_from(each).ok()
    });
    let source = received.address.and_then(|source| {
        let v4 = source.as_sockaddr_in().map(|at| SocketAddr::from((at.ip(), at.port())));
        v4.or_else(|| source.as_sockaddr_in6().map(|at| SocketAddr::from((at.ip(), at.port()))))
    });
    let source = source.ok_or(io::ErrorKind::InvalidData)?;
    let each = each.filter(|each| *each > 0).unwrap_or(len.max(1));
    Ok(Datagrams { len, each, source: SocketAddr::new(source.ip().to_canonical(), source.port()) })
}

/// A UDP socket to receive from.
pub(crate) struct UdpReceiver(glommio::net::UdpSocket);

impl UdpReceiver {
    /// Takes over a bound socket.
    pub(crate) fn new(socket: std::net::UdpSocket) -> Self {
        // SAFETY: as in `TcpListener::new`.
        Self(unsafe { glommio::net::UdpSocket::from_raw_fd(socket.into_raw_fd()) })
    }

    /// The next datagrams of one source and one length, one behind the other (`UDP_GRO` of udp(7)), cut
    /// to `buffer`.
    pub(crate) async fn receive(&self, buffer: &mut [u8]) -> io::Result<Datagrams> {
        loop {
            match receive_now(self.0.as_raw_fd(), buffer) {
                // glommio knows nothing of the length of each, and waits only.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.0.peek_from(&mut [0]).await?;
                }
                result => return result,
            }
        }
    }
}

/// A listening Unix socket.
///
/// glommio shows neither the credentials of a client nor the descriptor to ask
/// for them; so a thread accepts, and hands over those that may come in.
pub(crate) struct UnixListener(Receiver<std::os::unix::net::UnixStream>);

impl UnixListener {
    /// Binds `path`, in place of a socket that nobody listens on any more, for
    /// clients that run as this user, as root or as `other`, whose group may use the
    /// socket then. `waiting` of them wait at most.
    pub(crate) fn bind(path: &Path, waiting: usize, other: Option<u32>) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let listener = std::os::unix::net::UnixListener::bind(path)?;
        if other.is_some() {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        }
        let (sender, receiver) = bounded(waiting);
        std::thread::Builder::new().name("weave-clients".into()).spawn(move || {
            for stream in listener.incoming() {
                match stream.and_then(|stream| check_client(stream, other)) {
                    Ok(stream) => {
                        // With no place left the client is closed, by the drop.
                        if let Err(error) = sender.try_send(stream)
                            && error.is_closed()
                        {
                            return;
                        }
                    }
                    Err(error) => {
                        tracing::debug!("accepting a client: {error}");
                        std::thread::sleep(Duration::from_millis(10));
                    }
                }
            }
        })?;
        Ok(Self(receiver))
    }

    /// The next client.
    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        let stream = self.0.recv().await.map_err(io::Error::other)?;
        // SAFETY: as in `TcpListener::new`.
        Ok(UnixStream(unsafe { glommio::net::UnixStream::from_raw_fd(stream.into_raw_fd()) }))
    }
}

fn check_client(
    stream: std::os::unix::net::UnixStream,
    other: Option<u32>,
) -> io::Result<std::os::unix::net::UnixStream> {
    let uid = getsockopt(&stream, sockopt::PeerCredentials)?.uid();
    if uid == 0 || uid == nix::unistd::geteuid().as_raw() || Some(uid) == other {
        return Ok(stream);
    }
    Err(io::ErrorKind::PermissionDenied.into())
}

/// A connection over a Unix socket.
pub(crate) struct UnixStream(glommio::net::UnixStream);

impl UnixStream {
    /// Reads what is there; 0 at the end.
    pub(crate) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).await
    }

    /// Writes all of `bytes`.
    pub(crate) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn datagrams_that_the_kernel_joined_come_with_the_length_of_each() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        setsockopt(&socket, sockopt::UdpGroSegment, &true).unwrap();
        let to = socket.local_addr().unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let source = sender.local_addr().unwrap();
        let came = run(async move {
            let receiver = UdpReceiver::new(socket);
            let mut buffer = [0; 1000];
            // One alone: whoever waits for it is woken.
            spawn(async move {
                sender.send_to(&[1; 5], to).unwrap();
                setsockopt(&sender, sockopt::UdpGsoSegment, &72).unwrap();
                sender.send_to(&[2; 3 * 72 + 10], to).unwrap();
            });
            let mut came = Vec::new();
            for _ in 0..2 {
                let next = timeout(Duration::from_secs(10), receiver.receive(&mut buffer)).await;
                came.push(next.unwrap().unwrap());
            }
            came
        });
        let expected = [(5, 5), (3 * 72 + 10, 72)].map(|(len, each)| Datagrams { len, each, source });
        assert_eq!(came.unwrap(), expected);
    }
}
