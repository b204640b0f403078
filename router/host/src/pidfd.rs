//! Processes that cannot be mistaken for another one (pidfd_open(2)).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use nix::sys::signal::Signal;

use crate::error::{Error, Result};
use crate::sys;

/// A process, held by descriptor: when it has ended and its number belongs to
/// another one, this still means the first.
#[derive(Debug)]
pub struct PidFd {
    fd: OwnedFd,
    pid: u32,
}

impl PidFd {
    /// Takes hold of the process with this number; `None` when there is none.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open(pid: u32) -> Result<Option<Self>> {
        match sys::pidfd_open(pid) {
            Ok(fd) => Ok(Some(Self { fd, pid })),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EINVAL)) => Ok(None),
            Err(error) => Err(Error::kernel("open process", pid, error)),
        }
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it still runs. A process that has ended and was not waited for does not.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        matches!(sys::wait_readable(self.fd.as_fd(), Instant::now()), Ok(false))
    }

    /// Sends it a signal; a process that has ended is no error.
    ///
    /// # Errors
    /// When the caller may not.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        match sys::pidfd_signal(self.fd.as_fd(), signal as libc::c_int) {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                Err(Error::kernel("send a signal to process", self.pid, error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Waits until it has ended; `false` when it still runs at `deadline`.
    ///
    /// # Errors
    /// When poll(2) fails.
    pub fn wait_end(&self, deadline: Instant) -> Result<bool> {
        sys::wait_readable(self.fd.as_fd(), deadline)
            .map_err(|error: io::Error| Error::kernel("await process", self.pid, error))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use std::process::Command;
    use std::time::Duration;

    #[test]
    fn a_process_is_signalled_and_its_end_awaited() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = PidFd::open(child.id()).unwrap().unwrap();
        assert!(process.is_alive());
        assert!(!process.wait_end(Instant::now() + Duration::from_millis(5)).unwrap());
        process.signal(Signal::SIGKILL).unwrap();
        assert!(process.wait_end(Instant::now() + Duration::from_secs(5)).unwrap());
        assert!(!process.is_alive());
        child.wait().unwrap();
        process.signal(Signal::SIGKILL).unwrap();
    }

    #[test]
    fn a_number_without_process_opens_nothing() {
        assert!(PidFd::open(0).unwrap().is_none());
        assert!(PidFd::open(u32::MAX).unwrap().is_none());
    }
}
