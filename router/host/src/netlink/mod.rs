//! Blocking rtnetlink: one socket in one namespace, every call with a time limit.

mod address;
mod link;
mod neighbour;
#[cfg(feature = "engine")]
mod other_end;
mod route;
mod socket;
mod watch;

use std::fmt::Display;
use std::future::Future;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use futures_lite::{Stream, StreamExt};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_proto::Connection;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, Socket};

use crate::error::{Error, Result};
use crate::failpoint::before_step;
use crate::namespace::Namespace;
use crate::sys;
use socket::DirectSocket;

pub use address::InterfaceAddress;
pub use link::{INTERFACE_NAME_MAX, LEARNED_MAX, Link, VethEnd};
pub use neighbour::Neighbours;
#[cfg(feature = "engine")]
pub(crate) use other_end::OtherEnds;
pub(crate) use route::InterfaceRoute;
pub use watch::{LinkWatch, await_running};

/// How long the kernel may take for one request. Requests take microseconds,
/// but wait for the lock of the whole network configuration: while a thousand
/// namespaces are torn down that has been seen to take seconds.
pub const CALL_LIMIT: Duration = Duration::from_secs(10);

/// A connection to the network configuration of one namespace.
pub struct Netlink {
    connection: Connection<RouteNetlinkMessage, DirectSocket>,
    handle: rtnetlink::Handle,
}

impl Netlink {
    /// Opens the namespace of the calling thread.
    ///
    /// # Errors
    /// When no socket can be made.
    pub fn open() -> Result<Self> {
        Ok(Self::over(open_socket()?))
    }

    /// Opens `namespace`: the socket is made inside and used from here.
    ///
    /// # Errors
    /// When the namespace cannot be entered or no socket can be made.
    pub fn in_namespace(namespace: &Namespace) -> Result<Self> {
        Ok(Self::over(namespace.run(open_socket)??))
    }

    fn over(socket: Socket) -> Self {
        let (connection, handle, _unsolicited) = rtnetlink::from_socket(DirectSocket(socket));
        Self { connection, handle }
    }

    /// Runs one request to its end, or until [`CALL_LIMIT`] has passed.
    fn call<T>(
        &mut self,
        step: &'static str,
        object: impl Display,
        request: impl Future<Output = Result<T, rtnetlink::Error>>,
    ) -> Result<T> {
        if !matches!(step, "list" | "look up") {
            before_step(step).map_err(|error| Error::kernel(step, &object, error))?;
        }
        self.call_within(CALL_LIMIT, step, object, request)
    }

    fn call_within<T>(
        &mut self,
        limit: Duration,
        step: &'static str,
        object: impl Display,
        request: impl Future<Output = Result<T, rtnetlink::Error>>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        let progress = Arc::new(Progress(AtomicBool::new(false)));
        let waker = Waker::from(Arc::clone(&progress));
        let mut context = Context::from_waker(&waker);
        let mut request = pin!(request);
        loop {
            if let Poll::Ready(result) = request.as_mut().poll(&mut context) {
                return result.map_err(|error| Error::kernel(step, &object, to_io(error)));
            }
            if Pin::new(&mut self.connection).poll(&mut context).is_ready() {
                let unread = std::io::Error::other("the kernel's answer could not be read");
                return Err(Error::kernel(step, &object, unread));
            }
            if progress.0.swap(false, Ordering::Relaxed) {
                continue;
            }
            let fd = self.connection.socket_mut().socket_ref().as_raw_fd();
            // SAFETY: the descriptor belongs to `self.connection`, which is borrowed
            // for the whole call and does not close it.
            let fd = unsafe { BorrowedFd::borrow_raw(fd) };
            match sys::wait_readable(fd, deadline) {
                Ok(true) => {}
                Ok(false) => {
                    let object = object.to_string();
                    return Err(Error::TimedOut { step, object, limit });
                }
                Err(error) => return Err(Error::kernel(step, &object, error)),
            }
        }
    }
}

/// Remembers that some part of a request can go on.
struct Progress(AtomicBool);

impl Wake for Progress {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn open_socket() -> Result<Socket> {
    Socket::new(NETLINK_ROUTE).map_err(|error| Error::kernel("open", "a netlink socket", error))
}

fn to_io(error: rtnetlink::Error) -> std::io::Error {
    if let rtnetlink::Error::NetlinkError(message) = &error {
        return message.to_io();
    }
    std::io::Error::other(error.to_string())
}

/// Everything a dump returns.
async fn collect<T>(
    stream: impl Stream<Item = Result<T, rtnetlink::Error>>,
) -> Result<Vec<T>, rtnetlink::Error> {
    let mut stream = pin!(stream);
    let mut items = Vec::new();
    while let Some(item) = stream.try_next().await? {
        items.push(item);
    }
    Ok(items)
}

/// Whether an error says that the object does not exist.
pub(crate) fn is_absent(error: &Error) -> bool {
    matches!(error.os_error(), Some(libc::ENODEV | libc::ENOENT | libc::ESRCH | libc::EADDRNOTAVAIL))
}

/// Whether an error says that the object exists already.
pub(crate) fn is_present(error: &Error) -> bool {
    error.os_error() == Some(libc::EEXIST)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_request_that_is_never_answered_ends_in_time_and_others_go_on() {
        let mut netlink = Netlink::open().unwrap();
        let limit = Duration::from_millis(50);
        let start = Instant::now();
        let never = std::future::pending::<Result<(), rtnetlink::Error>>();
        let error = netlink.call_within(limit, "ask", "nobody", never).unwrap_err();
        assert!(matches!(error, Error::TimedOut { .. }), "{error}");
        assert!(start.elapsed() >= limit && start.elapsed() < limit * 20);
        assert!(netlink.link("lo").unwrap().is_some());
    }

    #[test]
    fn an_interface_that_is_not_there_is_no_error() {
        let mut netlink = Netlink::open().unwrap();
        for name in ["weave-none", "", "a-name-that-is-too-long"] {
            assert_eq!(netlink.link(name).unwrap(), None, "{name}");
        }
        let error = netlink.expect_link("weave-none").unwrap_err();
        assert_eq!(error.os_error(), Some(libc::ENODEV));
    }
}
