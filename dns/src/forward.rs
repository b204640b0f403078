//! Names outside the domain: the host's resolvers are asked, and their answers remembered.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hickory_server::net::runtime::TokioRuntimeProvider;
use hickory_server::net::{DnsError, NetError};
use hickory_server::proto::op::{LowerQuery, ResponseCode};
use hickory_server::proto::rr::{LowerName, RecordType};
use hickory_server::resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_server::resolver::{Resolver, TokioResolver};
use hickory_server::server::Request;

use weave_lookup::{ResolvConf, SERVERS_MAX};

use crate::answer::{Answer, DATAGRAM_MAX};
use crate::counters::count;
use crate::server::Server;

/// Questions that wait for resolvers, at most.
const IN_FLIGHT_MAX: usize = 512;
/// Answers remembered, at most.
const CACHE_MAX: usize = 10_000;
/// How long one is remembered at most.
const CACHE_TIME: Duration = Duration::from_secs(300);
/// Time a resolver has for an answer.
const SERVER_WITHIN: Duration = Duration::from_secs(2);
/// Time all of them have: shorter than those who ask wait.
const ANSWER_WITHIN: Duration = Duration::from_millis(4500);
/// How often it is looked whether others are named.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longest file that names them, bytes.
const FILE_MAX: u64 = 64 << 10;
const DNS_PORT: u16 = 53;

/// Which file was read: when it was changed, its number and length.
type Version = (i64, i64, u64, u64);

/// The way to the resolvers.
#[derive(Debug)]
pub(crate) struct Forwarder {
    resolv_conf: PathBuf,
    cache: bool,
    state: RefCell<State>,
    in_flight: Cell<usize>,
}

#[derive(Debug, Default)]
struct State {
    resolver: Option<TokioResolver>,
    servers: Vec<IpAddr>,
    read: Option<Version>,
    /// Where we are asked ourselves.
    ours: Vec<SocketAddr>,
    looked: Option<Instant>,
    /// What they answered.
    remembered: HashMap<Key, Remembered>,
}

/// What was asked.
type Key = (LowerName, RecordType);

#[derive(Debug)]
struct Remembered {
    answer: Answer,
    at: Instant,
    lasts: Duration,
}

impl Remembered {
    /// The answer with what is left of its time; `None`: it is over.
    fn now(&self) -> Option<Answer> {
        let age = self.at.elapsed();
        if age >= self.lasts {
            return None;
        }
        let seconds = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
        let mut answer = self.answer.clone();
        for record in answer.records.iter_mut().chain(&mut answer.soa) {
            record.ttl = record.ttl.saturating_sub(seconds);
        }
        Some(answer)
    }
}

impl Forwarder {
    pub(crate) fn new(resolv_conf: PathBuf, cache: bool) -> Self {
        Self { resolv_conf, cache, state: RefCell::default(), in_flight: Cell::new(0) }
    }

    /// Whom it asks, where we are asked at `ours`.
    pub(crate) fn servers(&self, ours: &[SocketAddr]) -> Vec<SocketAddr> {
        self.look(ours);
        self.state.borrow().servers.iter().map(|ip| SocketAddr::new(*ip, DNS_PORT)).collect()
    }

    /// The resolver; `None` without a server.
    fn resolver(&self, ours: &[SocketAddr]) -> Option<TokioResolver> {
        if self.state.borrow().looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
            self.look(ours);
        }
        self.state.borrow().resolver.clone()
    }

    /// Reads the file again if it is another one, or if we are asked elsewhere.
    fn look(&self, ours: &[SocketAddr]) {
        let mut state = self.state.borrow_mut();
        state.looked = Some(Instant::now());
        let version = fs::metadata(&self.resolv_conf)
            .ok()
            .map(|file| (file.mtime(), file.mtime_nsec(), file.ino(), file.len()));
        if version == state.read && ours == state.ours {
            return;
        }
        state.read = version;
        ours.clone_into(&mut state.ours);
        let text =
            version.filter(|(.., len)| *len <= FILE_MAX).and_then(|_| fs::read(&self.resolv_conf).ok());
        let servers = servers(&String::from_utf8_lossy(&text.unwrap_or_default()), ours);
        if servers != state.servers || state.resolver.is_none() {
            tracing::info!(?servers, "resolvers of other names");
            state.resolver = self.build(&servers);
            state.servers = servers;
            state.remembered.clear();
        }
    }

    /// What the resolvers answered to the same question, if that still holds.
    pub(crate) fn remembered(&self, query: &LowerQuery) -> Option<Answer> {
        let state = self.state.borrow();
        state.remembered.get(&(query.name().clone(), query.query_type()))?.now()
    }

    fn remember(&self, query: &LowerQuery, answer: &Answer) {
        let records = answer.records.iter().chain(&answer.soa);
        let lasts = records.map(|record| record.ttl).min().unwrap_or(0);
        let is_answer = matches!(answer.code, ResponseCode::NoError | ResponseCode::NXDomain);
        if !self.cache || !is_answer || lasts == 0 {
            return;
        }
        let mut state = self.state.borrow_mut();
        if state.remembered.len() >= CACHE_MAX {
            state.remembered.retain(|_, remembered| remembered.at.elapsed() < remembered.lasts);
        }
        if state.remembered.len() < CACHE_MAX {
            let lasts = Duration::from_secs(lasts.into()).min(CACHE_TIME);
            let new = Remembered { answer: answer.clone(), at: Instant::now(), lasts };
            state.remembered.insert((query.name().clone(), query.query_type()), new);
        }
    }

    fn build(&self, servers: &[IpAddr]) -> Option<TokioResolver> {
        if servers.is_empty() {
            return None;
        }
        let servers = servers.iter().map(|ip| NameServerConfig::udp_and_tcp(*ip)).collect();
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options: &mut ResolverOpts = builder.options_mut();
        options.timeout = SERVER_WITHIN;
        options.attempts = 1;
        // Ours is asked first, and needs no task.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.preserve_intermediates = true;
        options.max_active_requests = IN_FLIGHT_MAX;
        options.edns_payload_len = DATAGRAM_MAX;
        builder
            .build()
            .inspect_err(|error| tracing::warn!("names outside the domain are not looked up: {error}"))
            .ok()
    }
}

/// The resolvers that a file names, without ourselves.
fn servers(text: &str, ours: &[SocketAddr]) -> Vec<IpAddr> {
    let named = ResolvConf::parse(text).servers.into_iter();
    named.filter(|ip| !ours.contains(&SocketAddr::new(*ip, DNS_PORT))).take(SERVERS_MAX).collect()
}

/// Counts a question while it waits.
struct Waiting<'a>(&'a Cell<usize>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl Server {
    /// The message that answers a request for a name outside the domain.
    pub(crate) async fn forward(&self, request: &Request) -> Vec<u8> {
        count(&self.counters.forwarded);
        let answer = self.ask_resolvers(request).await;
        if answer.code == ResponseCode::ServFail {
            count(&self.counters.forward_failed);
        }
        if let Some(query) = request.queries.queries().first() {
            self.forwarder.remember(query, &answer);
        }
        self.encode(request, &answer)
    }

    async fn ask_resolvers(&self, request: &Request) -> Answer {
        let failed = Answer::code(ResponseCode::ServFail);
        let Some(query) = request.queries.queries().first() else { return failed };
        if self.forwarder.in_flight.get() >= IN_FLIGHT_MAX {
            count(&self.counters.forward_full);
            return failed;
        }
        let Some(resolver) = self.forwarder.resolver(&self.listening()) else { return failed };
        self.forwarder.in_flight.set(self.forwarder.in_flight.get() + 1);
        let _waiting = Waiting(&self.forwarder.in_flight);
        let mut name = query.original().name().clone();
        name.set_fqdn(true);
        match tokio::time::timeout(ANSWER_WITHIN, resolver.lookup(name, query.query_type())).await {
            Ok(Ok(lookup)) => Answer { records: lookup.answers().to_vec(), ..Answer::default() },
            Ok(Err(NetError::Dns(DnsError::NoRecordsFound(none)))) => {
                let negative_ttl = none.negative_ttl.unwrap_or(0);
                let soa = none.soa.map(|soa| {
                    let mut soa = soa.into_record_of_rdata();
                    soa.ttl = negative_ttl;
                    soa
                });
                Answer { code: none.response_code, soa: soa.into_iter().collect(), ..Answer::default() }
            }
            Ok(Err(NetError::Dns(DnsError::ResponseCode(code)))) => Answer::code(code),
            Ok(Err(error)) => {
                tracing::debug!("asking for another name: {error}");
                failed
            }
            Err(_) => failed,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_hosts_resolvers_are_read_without_ourselves() {
        let text = "nameserver 127.0.0.53\nnameserver 192.0.2.1\nnameserver 172.17.0.1\n";
        let ours: SocketAddr = "172.17.0.1:53".parse().unwrap();
        let expected: [IpAddr; 2] = ["127.0.0.53".parse().unwrap(), "192.0.2.1".parse().unwrap()];
        assert_eq!(servers(text, &[ours]), expected);
    }

    #[test]
    fn the_file_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("resolv.conf");
        let forwarder = Forwarder::new(file.clone(), true);
        assert_eq!(forwarder.servers(&[]), []);
        for server in ["192.0.2.1:53", "192.0.2.2:53"] {
            let server: SocketAddr = server.parse().unwrap();
            fs::write(&file, format!("nameserver {}\n# {server}\n", server.ip())).unwrap();
            assert_eq!(forwarder.servers(&[]), [server]);
        }
    }
}
