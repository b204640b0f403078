//! Which names a client may call this host by.
//!
//! A page of somebody else, open in a browser on this host, can have its own name resolve to this
//! host's address and then read what it finds there (DNS rebinding). The browser sends that name
//! as `Host`: only names that nobody else can own are answered to.

use crate::config::Config;
use std::net::{IpAddr, Ipv6Addr};

/// The names of this host: host name, nickname and those the operator listed.
pub(super) fn names(config: &Config) -> Vec<String> {
    let listed = config.http.iter().flat_map(|http| &http.names).map(ToString::to_string);
    let own = [
        "localhost".to_owned(),
        rustix::system::uname().nodename().to_string_lossy().into_owned(),
        config.nickname.to_string(),
    ];
    own.into_iter().chain(listed).collect()
}

/// True if `authority` (a `Host` header) is an address or one of `names`.
pub(super) fn is_ours(authority: &str, names: &[String]) -> bool {
    let is_port = |text: &str| text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    if let Some((address, rest)) = authority.strip_prefix('[').and_then(|text| text.split_once(']')) {
        let port = rest.strip_prefix(':').unwrap_or(rest);
        return address.parse::<Ipv6Addr>().is_ok() && is_port(port);
    }
    let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
    let name = host.strip_suffix('.').unwrap_or(host);
    is_port(port)
        && (host.parse::<IpAddr>().is_ok() || names.iter().any(|own| own.eq_ignore_ascii_case(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_own_names_are_ours() {
        let names = ["localhost".to_owned(), "Host1".to_owned(), "host1.example.com".to_owned()];
        for ours in [
            "127.0.0.1",
            "127.0.0.1:6782",
            "[::1]:6782",
            "[fd00::2]",
            "localhost",
            "LOCALHOST:1",
            "host1:6782",
            "host1.example.com.",
        ] {
            assert!(is_ours(ours, &names), "{ours}");
        }
    }

    #[test]
    fn nothing_else_is() {
        let names = ["localhost".to_owned(), "host1".to_owned()];
        for other in [
            "",
            "evil.example",
            "host1.evil.example",
            "localhost.evil.example:6782",
            "127.0.0.1.evil.example",
            "127.0.0.1:6782@evil.example",
            "localhost:evil",
            "localhost:6782:1",
            "[::1]evil.example",
            "[host1]",
            "::1",
            "127.1",
            "0x7f000001",
            "..",
            "host1..",
        ] {
            assert!(!is_ours(other, &names), "{other}");
        }
    }
}
