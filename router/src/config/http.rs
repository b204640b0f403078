//! Where the router is looked at over HTTP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use weave_wire::HostName;

/// Where that is unless told otherwise.
pub const DEFAULT_STATUS_ADDR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 6782);
/// Most names it answers to beside its own.
pub const MAX_STATUS_HOSTS: usize = 16;

/// Metrics, report and status page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// Where it listens; never port 0.
    pub address: SocketAddr,
    /// Names that clients may call it by, beside addresses, `localhost`, host name and nickname;
    /// at most [`MAX_STATUS_HOSTS`].
    pub names: Vec<HostName>,
}

/// A text that is no address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an address and a port, like 127.0.0.1:6782, [::1]:6782 or :6782")]
pub struct ParseStatusAddrError {
    text: String,
}

/// Reads `ADDRESS:PORT`, or `:PORT` for every address.
///
/// # Errors
/// [`ParseStatusAddrError`] for anything else, also for port 0.
pub fn parse_status_addr(text: &str) -> Result<SocketAddr, ParseStatusAddrError> {
    let digits = |port: &&str| port.bytes().all(|byte| byte.is_ascii_digit());
    let everywhere = text.strip_prefix(':').filter(digits).and_then(|port| port.parse().ok());
    let everywhere = everywhere.map(|port| SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port));
    everywhere
        .or_else(|| text.parse().ok())
        .filter(|address| address.port() != 0)
        .ok_or_else(|| ParseStatusAddrError { text: text.chars().take(80).collect() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_of_both_families_are_read() {
        for (text, expected) in [
            ("127.0.0.1:6782", "127.0.0.1:6782"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("[fd00::1]:6782", "[fd00::1]:6782"),
            (":6782", "[::]:6782"),
        ] {
            assert_eq!(parse_status_addr(text).unwrap(), expected.parse().unwrap());
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", ":", ":+1", ":0", "6782", "host:6782", "127.0.0.1", "127.0.0.1:0", "::1:6782x"] {
            assert!(parse_status_addr(text).is_err(), "{text}");
        }
    }
}
