//! Addresses of hosts, by /etc/hosts and the servers of /etc/resolv.conf.
//!
//! Not by `getaddrinfo`: that loads modules of the C library while it runs, which a self-contained
//! executable has not, and has no time limit.

mod exchange;
mod reply;
mod resolv_conf;
mod servers;

use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use futures_lite::future::zip;
use hickory_server::proto::op::Query;
use hickory_server::proto::rr::{Name, RecordType};

pub use reply::Reply;
pub use resolv_conf::{ResolvConf, SERVERS_MAX};
pub use servers::Servers;

const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// How much of such a file is read, bytes.
const FILE_MAX: u64 = 1 << 20;
const DNS_PORT: u16 = 53;
/// Any port: nothing is sent.
const DISCARD: u16 = 9;

/// Looks up the addresses of `name`, `most` of them at most, and blocks for `within` at most. Those
/// with a route come first, and of them IPv6 (RFC 6724).
///
/// # Errors
/// What the servers said, that there are none, or that the time is up.
pub fn addresses(name: &str, within: Duration, most: usize) -> io::Result<Vec<IpAddr>> {
    let mut found = listed(&read(Path::new(HOSTS)), name);
    if found.is_empty() {
        found = ask(&ResolvConf::parse(&read(Path::new(RESOLV_CONF))), name, within)?;
    }
    found.sort_by_key(|ip| (!has_route(*ip), ip.is_ipv4()));
    found.truncate(most);
    Ok(found)
}

/// The text of a file as far as it can be read.
fn read(path: &Path) -> String {
    let mut text = Vec::new();
    let _ = File::open(path).and_then(|file| file.take(FILE_MAX).read_to_end(&mut text));
    String::from_utf8_lossy(&text).into_owned()
}

/// Addresses of a name in the text of a hosts(5) file.
fn listed(hosts: &str, name: &str) -> Vec<IpAddr> {
    let name = name.trim_end_matches('.');
    let mut found = Vec::new();
    for line in hosts.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(ip) = words.next().and_then(|word| word.parse().ok()) else { continue };
        if words.any(|word| word.trim_end_matches('.').eq_ignore_ascii_case(name)) && !found.contains(&ip) {
            found.push(ip);
        }
    }
    found
}

fn ask(conf: &ResolvConf, name: &str, within: Duration) -> io::Result<Vec<IpAddr>> {
    if conf.servers.is_empty() {
        let text = format!("{name} is not in {HOSTS}, and {RESOLV_CONF} names no server to ask");
        return Err(io::Error::new(io::ErrorKind::NotFound, text));
    }
    let late = || io::Error::new(io::ErrorKind::TimedOut, "the name server does not answer");
    let names = candidates(conf, name)?;
    let servers = conf.servers.iter().take(SERVERS_MAX).map(|ip| SocketAddr::new(*ip, DNS_PORT));
    let servers = Servers::new(servers);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async {
        tokio::time::timeout(within, look_up(&servers, &names, within)).await.unwrap_or_else(|_| Err(late()))
    });
    // What still waits must not hold the thread.
    runtime.shutdown_background();
    answer
}

/// The whole names that a name may be short for, in the order in which they are tried.
fn candidates(conf: &ResolvConf, name: &str) -> io::Result<Vec<Name>> {
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
    let name = Name::from_str_relaxed(name).map_err(invalid)?;
    if name.is_fqdn() {
        return Ok(vec![name]);
    }
    let dots = name.iter().count().saturating_sub(1);
    let domains = conf.search.iter().filter_map(|domain| Name::from_str_relaxed(domain).ok());
    let mut names: Vec<Name> =
        domains.filter_map(|domain| name.clone().append_domain(&domain).ok()).collect();
    let at = if dots >= conf.ndots { 0 } else { names.len() };
    names.insert(at, name.append_domain(&Name::root()).map_err(invalid)?);
    Ok(names)
}

/// The addresses of the first of these names that has any.
async fn look_up(servers: &Servers, names: &[Name], within: Duration) -> io::Result<Vec<IpAddr>> {
    let until = Instant::now() + within;
    let mut failure = None;
    for name in names {
        let [v4, v6] = [RecordType::A, RecordType::AAAA].map(|kind| Query::query(name.clone(), kind));
        let left = until.saturating_duration_since(Instant::now());
        let (v4, v6) = zip(servers.ask(&v4, left), servers.ask(&v6, left)).await;
        let mut found = Vec::new();
        for reply in [v4, v6] {
            match reply {
                Ok(reply) => found.extend(reply.records.iter().filter_map(|record| record.data.ip_addr())),
                Err(error) => failure = Some(error),
            }
        }
        if !found.is_empty() {
            return Ok(found);
        }
    }
    let unknown = || io::Error::new(io::ErrorKind::NotFound, "the name server knows no address of it");
    Err(failure.unwrap_or_else(unknown))
}

/// Whether the kernel knows where an address is.
fn has_route(ip: IpAddr) -> bool {
    let any: IpAddr = if ip.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    UdpSocket::bind(SocketAddr::new(any, 0))
        .and_then(|socket| socket.connect(SocketAddr::new(ip, DISCARD)))
        .is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_hosts_file_is_read_as_the_libraries_do() {
        let text = "127.0.0.1 localhost # red\n::1\tlocalhost ip6-localhost\n\n# 192.0.2.9 blue\nnonsense blue\n\
            192.0.2.1 other Blue.example. blue\n192.0.2.1 blue\n";
        let of = |name| listed(text, name).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(of("localhost"), ["127.0.0.1", "::1"]);
        assert_eq!(of("BLUE"), ["192.0.2.1"]);
        assert_eq!(of("blue.example"), ["192.0.2.1"]);
        assert!(of("red").is_empty() && of("blu").is_empty());
    }

    #[test]
    fn whether_there_is_a_route_is_seen() {
        assert!(has_route([127, 0, 0, 1].into()));
        assert!(!has_route("255.255.255.255".parse().unwrap()));
    }

    #[test]
    fn without_a_server_the_error_names_both_files() {
        let error = ask(&ResolvConf::default(), "blue", Duration::from_secs(1)).unwrap_err().to_string();
        assert!(error.contains("/etc/hosts") && error.contains("/etc/resolv.conf"), "{error}");
    }

    #[test]
    fn short_names_are_completed_as_the_libraries_do() {
        let conf =
            |ndots| ResolvConf { search: vec!["lan".into(), "b.test".into()], ndots, ..Default::default() };
        let of = |ndots, name: &str| {
            candidates(&conf(ndots), name).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(of(1, "blue"), ["blue.lan.", "blue.b.test.", "blue."]);
        assert_eq!(of(1, "a.blue"), ["a.blue.", "a.blue.lan.", "a.blue.b.test."]);
        assert_eq!(of(2, "a.blue"), ["a.blue.lan.", "a.blue.b.test.", "a.blue."]);
        assert_eq!(of(2, "blue."), ["blue."]);
        assert!(candidates(&conf(1), &"a".repeat(64)).is_err());
    }

    #[test]
    fn a_silent_server_costs_no_more_than_the_time_given() {
        let silent = UdpSocket::bind("127.0.0.71:53");
        let conf = ResolvConf { servers: vec![[127, 0, 0, 71].into()], ..ResolvConf::default() };
        let start = Instant::now();
        let error = ask(&conf, "blue.example", Duration::from_millis(300)).unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        assert!(silent.is_err() || error.kind() == io::ErrorKind::TimedOut, "{error}");
    }
}
