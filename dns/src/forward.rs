//! Names outside the domain: the host's resolvers are asked, and their answers remembered.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hickory_server::proto::op::{LowerQuery, Query, ResponseCode};
use hickory_server::server::Request;
use tokio::sync::OnceCell;
use weave_api::names::DNS_PORT;

use weave_lookup::{ResolvConf, SERVERS_MAX, Servers};

use crate::answer::Answer;
use crate::counters::{add, count};
use crate::remembered::{Key, RememberedAnswers};
use crate::server::Server;

/// Questions that wait for resolvers, at most.
const IN_FLIGHT_MAX: usize = 512;
/// Those of one source, which is no address of this host.
const PER_SOURCE_MAX: usize = 64;
/// Time all resolvers have together: shorter than those who ask wait.
const ANSWER_WITHIN: Duration = Duration::from_millis(4500);
/// How often it is looked whether others are named.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longest file that names them, bytes.
const FILE_MAX: u64 = 64 << 10;

/// Which file was read: when it was changed, its number and length.
type Version = (i64, i64, u64, u64);

/// The way to the resolvers.
#[derive(Debug)]
pub(crate) struct Forwarder {
    resolv_conf: PathBuf,
    cache: bool,
    state: RefCell<State>,
    /// What the resolvers are being asked. Who asks the same meanwhile has the same answer: one more
    /// question on its way would be one more that a forged answer may fit (CVE-2020-25686).
    asked: RefCell<HashMap<Key, Rc<OnceCell<Answer>>>>,
    /// Questions that wait, by source.
    waiting: RefCell<HashMap<IpAddr, usize>>,
}

#[derive(Debug, Default)]
struct State {
    servers: Vec<IpAddr>,
    /// The same, with what is known of them.
    resolvers: Option<Rc<Servers>>,
    read: Option<Version>,
    /// Where we are asked ourselves.
    ours: Vec<SocketAddr>,
    looked: Option<Instant>,
    /// What they answered.
    remembered: RememberedAnswers,
}

impl Forwarder {
    pub(crate) fn new(resolv_conf: PathBuf, cache: bool) -> Self {
        Self {
            resolv_conf,
            cache,
            state: RefCell::default(),
            asked: RefCell::default(),
            waiting: RefCell::default(),
        }
    }

    /// Whom it asks, where we are asked at `ours`.
    pub(crate) fn servers(&self, ours: &[SocketAddr]) -> Vec<SocketAddr> {
        self.look(ours);
        self.state.borrow().servers.iter().map(|ip| SocketAddr::new(*ip, DNS_PORT)).collect()
    }

    /// The resolvers, if there are any.
    fn resolvers(&self, ours: &[SocketAddr]) -> Option<Rc<Servers>> {
        if self.state.borrow().looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
            self.look(ours);
        }
        self.state.borrow().resolvers.clone()
    }

    /// False for those that the file named before.
    fn is_asking(&self, resolvers: &Rc<Servers>) -> bool {
        self.state.borrow().resolvers.as_ref().is_some_and(|now| Rc::ptr_eq(now, resolvers))
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
        if servers != state.servers {
            tracing::info!(?servers, "resolvers of other names");
            let addresses = servers.iter().map(|ip| SocketAddr::new(*ip, DNS_PORT));
            state.resolvers = (!servers.is_empty()).then(|| Rc::new(Servers::new(addresses)));
            state.servers = servers;
            state.remembered.clear();
        }
    }

    /// What the resolvers answered to the same question, if that still holds.
    pub(crate) fn remembered(&self, query: &LowerQuery) -> Option<Answer> {
        self.state.borrow_mut().remembered.get(&key(query), Instant::now())
    }

    /// Keeps what they answered; returns how many answers went for it that still held.
    fn remember(&self, query: &LowerQuery, answer: &Answer) -> u64 {
        if !self.cache {
            return 0;
        }
        self.state.borrow_mut().remembered.keep(key(query), answer, Instant::now())
    }

    /// A place among the questions that wait; `None` when too many do.
    fn place(&self, source: IpAddr, share: usize) -> Option<Place<'_>> {
        let mut waiting = self.waiting.borrow_mut();
        let own = waiting.get(&source).copied().unwrap_or_default();
        if own >= share || waiting.values().sum::<usize>() >= IN_FLIGHT_MAX {
            return None;
        }
        waiting.insert(source, own + 1);
        Some(Place { waiting: &self.waiting, source })
    }
}

fn key(query: &LowerQuery) -> Key {
    (query.name().clone(), query.query_type())
}

/// The resolvers that a file names, without ourselves.
fn servers(text: &str, ours: &[SocketAddr]) -> Vec<IpAddr> {
    let named = ResolvConf::parse(text).servers.into_iter();
    named.filter(|ip| !ours.contains(&SocketAddr::new(*ip, DNS_PORT))).take(SERVERS_MAX).collect()
}

/// A question's place while it waits.
struct Place<'a> {
    waiting: &'a RefCell<HashMap<IpAddr, usize>>,
    source: IpAddr,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.waiting.borrow_mut();
        match waiting.get_mut(&self.source) {
            Some(own) if *own > 1 => *own -= 1,
            _ => {
                waiting.remove(&self.source);
            }
        }
    }
}

/// Takes part in the asking of one question.
struct Asking<'a> {
    forwarder: &'a Forwarder,
    key: Key,
    answer: Rc<OnceCell<Answer>>,
}

impl<'a> Asking<'a> {
    fn join(forwarder: &'a Forwarder, query: &LowerQuery) -> Self {
        let key = key(query);
        let answer = Rc::clone(forwarder.asked.borrow_mut().entry(key.clone()).or_default());
        Self { forwarder, key, answer }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut asked = self.forwarder.asked.borrow_mut();
        let is_same = asked.get(&self.key).is_some_and(|answer| Rc::ptr_eq(answer, &self.answer));
        // One of ours, one of the list.
        let is_last = Rc::strong_count(&self.answer) <= 2;
        if is_same && (self.answer.initialized() || is_last) {
            asked.remove(&self.key);
        }
    }
}

impl Server {
    /// The message that answers a request for a name outside the domain.
    pub(crate) async fn forward(&self, request: &Request) -> Vec<u8> {
        count(&self.counters.forwarded);
        let answer = self.ask_once(request).await;
        if answer.code == ResponseCode::ServFail {
            count(&self.counters.forward_failed);
        }
        self.encode(request, &answer)
    }

    /// The resolvers' answer, for all who ask the same at once.
    async fn ask_once(&self, request: &Request) -> Answer {
        let failed = Answer::code(ResponseCode::ServFail);
        let Some(query) = request.queries.queries().first() else { return failed };
        let source = request.src().ip().to_canonical();
        let share = if self.access.borrow().is_host(source) { IN_FLIGHT_MAX } else { PER_SOURCE_MAX };
        let Some(_place) = self.forwarder.place(source, share) else {
            count(&self.counters.forward_full);
            return failed;
        };
        let asking = Asking::join(&self.forwarder, query);
        // Should the first who asked go away, the next one asks.
        asking.answer.get_or_init(|| self.ask_resolvers(query)).await.clone()
    }

    async fn ask_resolvers(&self, asked: &LowerQuery) -> Answer {
        let failed = Answer::code(ResponseCode::ServFail);
        let Some(resolvers) = self.forwarder.resolvers(&self.listening()) else { return failed };
        let mut name = asked.original().name().clone();
        name.set_fqdn(true);
        match resolvers.ask(&Query::query(name, asked.query_type()), ANSWER_WITHIN).await {
            Ok(reply) => {
                let soa = reply.soa.into_iter().collect();
                let answer = Answer { code: reply.code, authoritative: false, records: reply.records, soa };
                if self.forwarder.is_asking(&resolvers) {
                    let forgotten = self.forwarder.remember(asked, &answer);
                    add(&self.counters.forgotten, forgotten);
                }
                answer
            }
            Err(error) => {
                tracing::debug!("asking for another name: {error}");
                failed
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use hickory_server::net::xfer::Protocol;
    use hickory_server::proto::op::{Message, MessageType, OpCode};
    use hickory_server::proto::rr::{Name, RecordType};
    use tokio::task::{JoinHandle, spawn_local};

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

    /// A server whose one resolver never answers.
    fn server_of_silence() -> (Rc<Server>, std::net::UdpSocket) {
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = Rc::new(crate::answer::tests::server());
        server.forwarder.servers(&[]);
        server.forwarder.state.borrow_mut().resolvers =
            Some(Rc::new(Servers::new([silent.local_addr().unwrap()])));
        (server, silent)
    }

    fn question(name: &str, source: &str) -> Request {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        Request::from_bytes(message.to_vec().unwrap(), source.parse().unwrap(), Protocol::Udp).unwrap()
    }

    /// Asks in the background; who asked goes away with the task.
    fn ask(server: &Rc<Server>, name: &str, source: &str) -> JoinHandle<Vec<u8>> {
        let (server, request) = (Rc::clone(server), question(name, source));
        spawn_local(async move { server.forward(&request).await })
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, test);
    }

    #[test]
    fn one_source_leaves_places_to_others() {
        let (server, _silent) = server_of_silence();
        run(async {
            let (full, share) = (&server.counters.forward_full, PER_SOURCE_MAX as u64);
            let all_asked = async |number| {
                while server.counters.forwarded.get() < number {
                    tokio::task::yield_now().await;
                }
            };
            let many = |source| (0..IN_FLIGHT_MAX).map(move |n| (format!("n{n}.test."), source));
            let mut asking: Vec<_> =
                many("10.2.1.9:4000").map(|(name, source)| ask(&server, &name, source)).collect();
            all_asked(512).await;
            assert_eq!(full.get(), 512 - share);
            asking.push(ask(&server, "other.test.", "10.2.1.10:4000"));
            all_asked(513).await;
            assert_eq!(full.get(), 512 - share, "another one has a place");
            // At an address of this host one may ask for many: all that is left.
            asking.extend(many("127.0.0.1:4000").map(|(name, source)| ask(&server, &name, source)));
            all_asked(1025).await;
            assert_eq!(full.get(), 512 - share + share + 1);
            asking.iter().for_each(JoinHandle::abort);
            for one in asking {
                let _ = one.await;
            }
        });
        assert!(server.forwarder.waiting.borrow().is_empty(), "places are given back");
        assert!(server.forwarder.asked.borrow().is_empty());
    }

    #[test]
    fn equal_questions_are_one_and_outlive_who_asked_first() {
        let (server, silent) = server_of_silence();
        silent.set_nonblocking(true).unwrap();
        let asked = || silent.recv(&mut [0; 512]).is_ok();
        run(async {
            let first = ask(&server, "a.test.", "10.2.1.9:4000");
            let second = ask(&server, "A.Test.", "10.2.1.10:4000");
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(asked() && !asked());
            first.abort();
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(asked() && !asked(), "the second one asks in its place");
            second.abort();
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(server.forwarder.asked.borrow().is_empty());
        });
    }
}
