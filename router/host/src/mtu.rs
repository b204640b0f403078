//! The MTU of the network.

use crate::error::{Error, Result};

/// Default MTU of container interfaces, bytes: with every header of ours it
/// fits an underlay of 1500 over IPv4 and IPv6.
pub const DEFAULT_MTU: u32 = 1376;

/// Smallest MTU, bytes: what every IPv4 host must be able to take (RFC 1122).
pub const MTU_MIN: u32 = 576;

/// Largest MTU, bytes: what the kernel lets a tap have (64 KiB less one and an Ethernet header).
pub const MTU_MAX: u32 = 65_521;

/// Smallest MTU IPv6 works with, bytes (RFC 8200, section 5).
pub const IPV6_MTU_MIN: u32 = 1280;

/// What one send of the router carries, bytes: a UDP datagram over IPv4, before it is cut.
const SEND_MAX: u32 = 65_507;
/// Segments of one send (`UDP_MAX_SEGMENTS` before Linux 6.9).
const SEGMENTS_MAX: u32 = 64;
/// What a frame gets around it: an Ethernet header, two of ours and a tag.
const AROUND: u32 = 14 + 16 + 16 + 16;
/// Headers of IPv4 and TCP with timestamps.
const TCP_HEADERS: u32 = 52;
/// What the kernel keeps free of a super-frame for headers (`MAX_TCP_HEADER` and one), at most.
const TCP_RESERVED: u32 = 321;

/// The kernel's own limit (`GSO_LEGACY_MAX_SIZE`).
const GSO_MAX: u32 = 65_536;

/// Longest super-frame of TCP that a container with this MTU is to make, bytes: as many segments as go
/// out in one send. With the kernel's own limit, 64 KiB, each leaves a few for a second send.
#[must_use]
pub(crate) fn gso_max_size(mtu: u32) -> u32 {
    let segments = (SEND_MAX / (mtu + AROUND)).clamp(1, SEGMENTS_MAX);
    (segments * (mtu - TCP_HEADERS.min(mtu)) + TCP_RESERVED).min(GSO_MAX)
}

/// Refuses an MTU no interface of ours could have.
///
/// # Errors
/// [`Error::Invalid`].
pub fn check_mtu(mtu: u32) -> Result<()> {
    if (MTU_MIN..=MTU_MAX).contains(&mtu) {
        Ok(())
    } else {
        Err(Error::invalid(format!("MTU {mtu}"), format!("out of range: give {MTU_MIN} to {MTU_MAX}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_super_frame_fills_one_send_and_no_more() {
        assert_eq!(gso_max_size(DEFAULT_MTU), 45 * 1324 + 321);
        // IPv6, and a kernel that keeps less free.
        for (headers, kept) in [(72, TCP_RESERVED), (TCP_HEADERS, 193)] {
            assert_eq!((gso_max_size(DEFAULT_MTU) - kept) / (DEFAULT_MTU - headers), 45);
        }
        for mtu in MTU_MIN..=MTU_MAX {
            let size = gso_max_size(mtu);
            assert!(size <= 65_536 && size > mtu, "MTU {mtu}: {size}");
            // With timestamps and without.
            for headers in [TCP_HEADERS, TCP_HEADERS - 12] {
                let segments = (size - TCP_RESERVED) / (mtu - headers);
                let sent = segments.max(1) * (mtu + AROUND);
                assert!(sent <= SEND_MAX.max(mtu + AROUND), "MTU {mtu}: {segments} segments");
            }
        }
    }
}
