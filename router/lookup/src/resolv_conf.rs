//! resolv.conf(5): whom to ask, and how short names are completed.

use std::net::IpAddr;

/// Servers that are asked, at most.
pub const SERVERS_MAX: usize = 8;
/// Domains of the search list, at most.
const SEARCH_MAX: usize = 8;
/// `ndots` is that much at most, as with glibc.
const NDOTS_MAX: usize = 15;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvConf {
    /// Servers, each once, in their order; those with a scope are left out.
    pub servers: Vec<IpAddr>,
    /// Domains that short names are tried in; the last such line holds.
    pub search: Vec<String>,
    /// A name with so many dots is tried as it is first.
    pub ndots: usize,
}

impl Default for ResolvConf {
    fn default() -> Self {
        Self { servers: Vec::new(), search: Vec::new(), ndots: 1 }
    }
}

impl ResolvConf {
    /// Reads the text of the file; what cannot be read is passed over.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut read = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let server = words.next().and_then(|word| word.parse().ok());
                    read.servers.extend(server.filter(|server| !read.servers.contains(server)));
                }
                Some("search" | "domain") => {
                    read.search = words.take(SEARCH_MAX).map(str::to_owned).collect();
                }
                Some("options") => {
                    let ndots =
                        words.filter_map(|word| word.strip_prefix("ndots:")?.parse().ok()).next_back();
                    read.ndots = ndots.unwrap_or(read.ndots).min(NDOTS_MAX);
                }
                Some(_) | None => {}
            }
        }
        read
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_the_file_says_is_read_and_the_rest_passed_over() {
        let text = "# comment\nnameserver 127.0.0.53\nsearch a b\nnameserver\t192.0.2.1 \nnameserver 2001:db8::1\n\
            nameserver 192.0.2.1\nnameserver fe80::1%eth0\nnameserver\nnameservers 192.0.2.9\n\
            options edns0 trust-ad ndots:2\nsearch lan example.org\noptions ndots:many\n";
        let expected = ResolvConf {
            servers: ["127.0.0.53", "192.0.2.1", "2001:db8::1"].map(|ip| ip.parse().unwrap()).into(),
            search: vec!["lan".into(), "example.org".into()],
            ndots: 2,
        };
        assert_eq!(ResolvConf::parse(text), expected);
    }
}
