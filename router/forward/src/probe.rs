//! What this kernel can do, seen before anything is built on it.

use io_uring::{IoUring, Probe, opcode};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};
use std::io;

/// Parts of the fast path that older kernels, or a switch, may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// Many frames by one read of the tap (Linux 6.7). Else one by one.
    pub read_multishot: bool,
    /// A wait for several completions that ends early (Linux 6.12). Else a shard wakes for each.
    pub gathering: bool,
    /// `UDP_SEGMENT`: many datagrams by one send. Else one by one.
    pub segmentation: bool,
    /// `UDP_GRO`: many datagrams by one receive. Else one by one.
    pub merging: bool,
}

/// The kernel lacks what the router cannot do without.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// `io_uring` is switched off or kept from us.
    #[error(
        "io_uring may not be used here ({0}): set sysctl kernel.io_uring_disabled=0, and in a container allow \
         the io_uring system calls (Docker: --security-opt seccomp=unconfined or a profile that has them)"
    )]
    Forbidden(io::Error),
    /// The kernel is too old.
    #[error("this kernel's io_uring lacks what the router needs ({0}): Linux 6.1 or newer is needed")]
    TooOld(io::Error),
    /// Locked memory is limited.
    #[error(
        "the kernel gives no memory for io_uring ({0}): raise the limit of locked memory (`ulimit -l \
         unlimited`; systemd: LimitMEMLOCK=infinity; Docker: --ulimit memlock=-1)"
    )]
    NoMemory(io::Error),
}

/// Looks at the kernel. Features named in `absent` (`io-uring`, `buffer-ring`,
/// `multishot-receive`, `multishot-read`, `min-wait`, `udp-segment`, `udp-gro`) count as
/// missing: tests force every fall-back so.
///
/// # Errors
/// [`ProbeError`] with the remedy, where there is no fall-back.
pub fn probe(absent: &[&str]) -> Result<Features, ProbeError> {
    let missing = |name: &str| absent.contains(&name);
    if missing("io-uring") {
        return Err(ProbeError::Forbidden(io::Error::from_raw_os_error(libc::EPERM)));
    }
    let ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .build(8)
        .map_err(|error| match error.raw_os_error() {
            Some(libc::ENOMEM) => ProbeError::NoMemory(error),
            Some(libc::EINVAL) => ProbeError::TooOld(error),
            _ => ProbeError::Forbidden(error),
        })?;
    let mut operations = Probe::new();
    ring.submitter().register_probe(&mut operations).map_err(ProbeError::TooOld)?;
    if missing("buffer-ring")
        || missing("multishot-receive")
        || !operations.is_supported(opcode::RecvMsgMulti::CODE)
        || !operations.is_supported(opcode::SendMsg::CODE)
    {
        return Err(ProbeError::TooOld(io::ErrorKind::Unsupported.into()));
    }
    let udp = |name: &str, set: &dyn Fn(&std::os::fd::OwnedFd) -> nix::Result<()>| {
        !missing(name)
            && socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
                .and_then(|fd| set(&fd))
                .is_ok()
    };
    Ok(Features {
        read_multishot: !missing("multishot-read") && operations.is_supported(opcode::ReadMulti::CODE),
        gathering: !missing("min-wait") && ring.params().is_feature_min_timeout(),
        segmentation: udp("udp-segment", &|fd| setsockopt(fd, sockopt::UdpGsoSegment, &1200)),
        merging: udp("udp-gro", &|fd| setsockopt(fd, sockopt::UdpGroSegment, &true)),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_feature_forced_absent_is_absent() {
        let all = probe(&[]).unwrap();
        let none = probe(&["multishot-read", "min-wait", "udp-segment", "udp-gro"]).unwrap();
        let nothing =
            Features { read_multishot: false, gathering: false, segmentation: false, merging: false };
        assert_eq!(none, nothing);
        assert!(all.segmentation && all.merging);
    }

    #[test]
    fn without_io_uring_the_error_names_the_remedy() {
        let error = probe(&["io-uring"]).unwrap_err().to_string();
        assert!(error.contains("io_uring_disabled") && error.contains("seccomp"), "{error}");
    }
}
