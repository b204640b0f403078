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
