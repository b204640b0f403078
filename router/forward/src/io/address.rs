//! Socket addresses in the form the kernel takes.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Family of the router's UDP sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4 only: the host has no IPv6.
    V4,
    /// Both, IPv4 as mapped addresses.
    Dual,
}

/// A socket address as bytes of `sockaddr_in` or `sockaddr_in6`.
#[derive(Clone, Copy)]
pub struct RawAddress {
    bytes: [u8; size_of::<libc::sockaddr_in6>()],
    len: u8,
}

/// Room the kernel is given for a source address, bytes.
pub const RAW_ADDRESS_LEN: usize = size_of::<libc::sockaddr_in6>();

impl RawAddress {
    /// `address` for a socket of `family`; `None` if such a socket cannot reach it.
    #[must_use]
    pub fn new(address: SocketAddr, family: Family) -> Option<Self> {
        let mut bytes = [0; RAW_ADDRESS_LEN];
        let (v6, scope) = match (address, family) {
            (SocketAddr::V4(v4), Family::V4) => {
                // struct sockaddr_in: family, port, address, 8 bytes of zero.
                bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
                bytes[2..4].copy_from_slice(&v4.port().to_be_bytes());
                bytes[4..8].copy_from_slice(&v4.ip().octets());
                return Some(Self { bytes, len: size_of::<libc::sockaddr_in>() as u8 });
            }
            (SocketAddr::V6(_), Family::V4) => return None,
            (SocketAddr::V4(v4), Family::Dual) => (v4.ip().to_ipv6_mapped(), 0),
            (SocketAddr::V6(v6), Family::Dual) => (*v6.ip(), v6.scope_id()),
        };
        // struct sockaddr_in6: family, port, flow information, address, scope.
        bytes[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
        bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        bytes[8..24].copy_from_slice(&v6.octets());
        bytes[24..28].copy_from_slice(&scope.to_ne_bytes());
        Some(Self { bytes, len: RAW_ADDRESS_LEN as u8 })
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        u16::from_be_bytes([self.bytes[2], self.bytes[3]])
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Reads an address the kernel wrote; mapped IPv4 addresses come out as IPv4.
#[must_use]
pub fn parse(bytes: &[u8]) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes(*bytes.first_chunk()?));
    let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
    if family == libc::AF_INET {
        let octets: [u8; 4] = *bytes.get(4..)?.first_chunk()?;
        return Some(SocketAddr::V4(SocketAddrV4::new(octets.into(), port)));
    }
    if family != libc::AF_INET6 {
        return None;
    }
    let octets: [u8; 16] = *bytes.get(8..)?.first_chunk()?;
    let scope = u32::from_ne_bytes(*bytes.get(24..)?.first_chunk()?);
    match IpAddr::V6(Ipv6Addr::from(octets)).to_canonical() {
        IpAddr::V4(v4) => Some(SocketAddr::V4(SocketAddrV4::new(v4, port))),
        IpAddr::V6(v6) => Some(SocketAddr::V6(SocketAddrV6::new(v6, port, 0, scope))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_survive_their_raw_form() {
        for text in ["192.0.2.7:6783", "[2001:db8::1]:6783", "[fe80::1%3]:9"] {
            let address: SocketAddr = text.parse().unwrap();
            let raw = RawAddress::new(address, Family::Dual).unwrap();
            assert_eq!(parse(raw.as_bytes()), Some(address));
        }
        let v4: SocketAddr = "192.0.2.7:6783".parse().unwrap();
        assert_eq!(parse(RawAddress::new(v4, Family::V4).unwrap().as_bytes()), Some(v4));
        assert!(RawAddress::new("[::1]:1".parse().unwrap(), Family::V4).is_none());
    }

    #[test]
    fn any_bytes_are_an_address_or_none() {
        for len in 0..RAW_ADDRESS_LEN {
            let mut bytes = vec![0; len];
            for family in [libc::AF_INET, libc::AF_INET6, 0] {
                if let Some(field) = bytes.get_mut(..2) {
                    field.copy_from_slice(&(family as u16).to_ne_bytes());
                }
                let _ = parse(&bytes);
            }
        }
    }
}
