//! A socket for whole frames of one interface (packet(7)).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::Instant;

use nix::sys::socket::{MsgFlags, recv, send};

use crate::error::{Error, Result};
use crate::namespace::Namespace;
use crate::sys;

/// `ETH_P_ALL`: frames of every type, in both directions.
const EVERY_TYPE: u16 = 3;

/// Longest frame that is read whole; longer ones are cut, and none that matters is longer.
const FRAME_MAX: usize = 256;

pub(crate) struct PacketSocket {
    /// There until the drop.
    fd: Option<OwnedFd>,
    interface: String,
}

impl PacketSocket {
    /// Opens the interface with this index inside `namespace`.
    pub(crate) fn open(namespace: &Namespace, interface: &str, index: u32) -> Result<Self> {
        let fd = namespace
            .run(|| sys::packet_socket(index, EVERY_TYPE))?
            .map_err(|error| Error::kernel("open frames of", interface, error))?;
        Ok(Self { fd: Some(fd), interface: interface.to_owned() })
    }

    fn fd(&self) -> io::Result<BorrowedFd<'_>> {
        self.fd.as_ref().map(OwnedFd::as_fd).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Sends a frame, Ethernet header first.
    pub(crate) fn send(&self, frame: &[u8]) -> Result<()> {
        self.fd()
            .and_then(|fd| Ok(send(fd.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT)?))
            .map(drop)
            .map_err(|error| Error::kernel("send a frame through", &self.interface, error))
    }

    /// The next frame, or `None` when none has come until `deadline`.
    pub(crate) fn receive(&self, deadline: Instant) -> Result<Option<Vec<u8>>> {
        let failed = |error: io::Error| Error::kernel("receive a frame from", &self.interface, error);
        let fd = self.fd().map_err(failed)?;
        let mut frame = vec![0; FRAME_MAX];
        // The clock decides also when frames come faster than they are read.
        while Instant::now() < deadline && sys::wait_readable(fd, deadline).map_err(failed)? {
            match recv(fd.as_raw_fd(), &mut frame, MsgFlags::MSG_DONTWAIT) {
                Ok(len) => {
                    frame.truncate(len);
                    return Ok(Some(frame));
                }
                Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(failed(error.into())),
            }
        }
        Ok(None)
    }
}

impl Drop for PacketSocket {
    /// The kernel closes such a socket once no processor handles a frame for it any more
    /// (`packet_release`, `synchronize_net`), which takes it 15 ms and more. Nothing of ours hangs on that.
    fn drop(&mut self) {
        if let Some(fd) = self.fd.take() {
            // Without a thread it is closed here, with the closure.
            let _ = thread::Builder::new().name("close".to_owned()).spawn(move || drop(fd));
        }
    }
}
