//! Waiting for a change of an interface instead of asking again and again.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use super::{Link, Netlink};
use crate::error::{Error, Result};
use crate::sys;

/// Bit of `RTNLGRP_LINK` in the group mask of a netlink address.
const LINK_GROUP: u32 = 1;

/// Hears of every change of an interface in the namespace it was opened in.
pub struct LinkWatch(Socket);

impl LinkWatch {
    /// Starts to listen, in the namespace of the calling thread. Open it before
    /// looking at the state that is waited for: no change is missed then.
    ///
    /// # Errors
    /// When no socket can be made.
    pub fn open() -> Result<Self> {
        let failed = |error| Error::kernel("watch", "interfaces", error);
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed)?;
        socket.bind(&SocketAddr::new(0, LINK_GROUP)).map_err(failed)?;
        Ok(Self(socket))
    }

    /// Listens for changes of addresses, too.
    ///
    /// # Errors
    /// When the kernel refuses.
    #[cfg(feature = "engine")]
    pub fn with_addresses(self) -> Result<Self> {
        for group in [libc::RTNLGRP_IPV4_IFADDR, libc::RTNLGRP_IPV6_IFADDR] {
            let joined = self.0.add_membership(group);
            joined.map_err(|error| Error::kernel("watch", "addresses", error))?;
        }
        Ok(self)
    }

    /// Waits for a change; `false` when none came until `deadline`.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn wait(&self, deadline: Instant) -> Result<bool> {
        let failed = |error| Error::kernel("watch", "interfaces", error);
        // SAFETY: the descriptor belongs to `self.0`, which outlives the borrow.
        let fd = unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) };
        if !sys::wait_readable(fd, deadline).map_err(failed)? {
            return Ok(false);
        }
        // What changed does not matter, the caller looks for itself: take all
        // news off the queue. ENOBUFS says that some were lost; also a change.
        loop {
            let mut nothing: &mut [u8] = &mut [];
            match self.0.recv(&mut nothing, libc::MSG_DONTWAIT | libc::MSG_TRUNC) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(failed(error)),
            }
        }
    }
}

/// Waits until the interface `name` of the calling thread's namespace runs:
/// until frames sent through it now leave.
///
/// # Errors
/// [`Error::TimedOut`] when it does not within `limit`; when there is no such interface.
pub fn await_running(netlink: &mut Netlink, watch: &LinkWatch, name: &str, limit: Duration) -> Result<Link> {
    let deadline = Instant::now() + limit;
    loop {
        let link = netlink.expect_link(name)?;
        if link.running {
            return Ok(link);
        }
        if !watch.wait(deadline)? {
            return Err(Error::TimedOut { step: "await carrier of", object: name.to_owned(), limit });
        }
    }
}
