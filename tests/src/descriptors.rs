//! Descriptors of another process (pidfd_getfd(2)): to change a router's sockets behind its back.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::sys::socket::{SockType, getsockopt, sockopt};

/// Copies of all UDP sockets of process `pid`.
///
/// # Panics
/// When the process is gone or the caller may not.
#[must_use]
pub fn udp_sockets(pid: u32) -> Vec<OwnedFd> {
    let pid = libc::pid_t::try_from(pid).unwrap();
    // SAFETY: pidfd_open(2) takes two integers and touches no memory of ours.
    let process = owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) });
    let mut sockets = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
        let is_socket =
            fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"));
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<libc::c_int>().ok())
        else {
            continue;
        };
        if !is_socket {
            continue;
        }
        // SAFETY: pidfd_getfd(2) takes three integers and touches no memory of ours.
        let copy = owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) });
        let is_udp = getsockopt(&copy, sockopt::SockType) == Ok(SockType::Datagram)
            && nix::sys::socket::getsockname::<nix::sys::socket::SockaddrStorage>(copy.as_raw_fd())
                .is_ok_and(|address| {
                    address.as_sockaddr_in().is_some() || address.as_sockaddr_in6().is_some()
                });
        if is_udp {
            sockets.push(copy);
        }
    }
    sockets
}

fn owned(result: libc::c_long) -> OwnedFd {
    assert!(result >= 0, "a descriptor of another process: {}", io::Error::last_os_error());
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(result as libc::c_int) }
}

/// Sends IPv4 datagrams without checksums, or with again. The kernel refuses segmented sends
/// (`UDP_SEGMENT`) without checksums with EINVAL, as it does on routes that cannot segment.
///
/// # Panics
/// When the socket refuses.
pub fn refuse_segmentation(socket: &OwnedFd, refuse: bool) {
    let value = libc::c_int::from(refuse);
    // SAFETY: the pointer and the length describe `value`, which lives through the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NO_CHECK,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    assert!(result == 0, "SO_NO_CHECK: {}", io::Error::last_os_error());
}
