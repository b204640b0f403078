//! A socket for whole frames of one interface (packet(7)).

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
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
    fd: OwnedFd,
    interface: String,
}

impl PacketSocket {
    /// Opens the interface with this index inside `namespace`.
    pub(crate) fn open(namespace: &Namespace, interface: &str, index: u32) -> Result<Self> {
        let fd = namespace
            .run(|| sys::packet_socket(index, EVERY_TYPE))?
            .map_err(|error| Error::kernel("open frames of", interface, error))?;
        Ok(Self { fd, interface: interface.to_owned() })
    }

    /// Sends a frame, Ethernet header first.
    pub(crate) fn send(&self, frame: &[u8]) -> Result<()> {
        send(self.fd.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT)
            .map(drop)
            .map_err(|error| Error::kernel("send a frame through", &self.interface, error))
    }

    /// The next frame, or `None` when none has come until `deadline`.
    pub(crate) fn receive(&self, deadline: Instant) -> Result<Option<Vec<u8>>> {
        let failed = |error: io::Error| Error::kernel("receive a frame from", &self.interface, error);
        let mut frame = vec![0; FRAME_MAX];
        // The clock decides also when frames come faster than they are read.
        while Instant::now() < deadline && sys::wait_readable(self.fd.as_fd(), deadline).map_err(failed)? {
            match recv(self.fd.as_raw_fd(), &mut frame, MsgFlags::MSG_DONTWAIT) {
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
