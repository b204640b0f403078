//! The router looked at over HTTP: metrics, report, events and the status page. Nothing can be
//! changed here.
//!
//! Clients are strangers: their number, their requests and the time each may take are limited,
//! and what they send is not logged.

mod answer;
mod body;
mod feed;
mod host;
mod look;
mod page;
mod patience;
mod stream;

use super::core::Event;
use crate::Config;
use crate::rt::{self, TcpListener, TcpStream};
use feed::Feed;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use look::Look;
use patience::Patience;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::convert::Infallible;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use weave_mesh::source_of;

/// Connections at once; more are closed at once.
const CONNECTIONS_MAX: usize = 128;
/// Of them, from one source: an IPv4 address, an IPv6 /64.
const SOURCE_MAX: usize = 32;
/// Of them, streams of events.
const STREAMS_MAX: usize = 16;
/// Whole reports being sent at once: they may be large.
const REPORTS_MAX: usize = 4;
/// Requests over one connection.
const REQUESTS_MAX: u32 = 1000;
/// Line and headers of a request, bytes.
const HEAD_MAX: usize = 8 << 10;
/// Headers of a request.
const HEADERS_MAX: usize = 64;
/// Time the control core has to answer.
const CORE_WITHIN: Duration = Duration::from_secs(2);
/// Wait after an error of `accept`.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What HTTP did so far.
#[derive(Debug, Default)]
struct HttpCounters {
    /// Connections closed because there were too many.
    refused: Cell<u64>,
    /// Connections closed because their source had too many.
    source_refused: Cell<u64>,
    /// Connections closed because the client was slow.
    timed_out: Cell<u64>,
    /// Connections closed because the client asked for nothing more.
    idle: Cell<u64>,
    /// Requests answered with what was asked for.
    answered: Cell<u64>,
    /// Requests answered with an error.
    failed: Cell<u64>,
}

/// The same with what is open, for metrics.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct HttpSample {
    pub(super) connections: usize,
    pub(super) streams: usize,
    pub(super) refused: u64,
    pub(super) source_refused: u64,
    pub(super) timed_out: u64,
    pub(super) idle: u64,
    pub(super) answered: u64,
    pub(super) failed: u64,
}

fn count(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

/// A number of places, taken one by one.
#[derive(Debug)]
struct Places {
    all: usize,
    free: Rc<Cell<usize>>,
}

/// A place; free again when it is dropped.
#[derive(Debug)]
struct Place(Rc<Cell<usize>>);

impl Places {
    fn new(places: usize) -> Self {
        Self { all: places, free: Rc::new(Cell::new(places)) }
    }

    fn take(&self) -> Option<Place> {
        self.free.set(self.free.get().checked_sub(1)?);
        Some(Place(Rc::clone(&self.free)))
    }

    fn used(&self) -> usize {
        self.all - self.free.get()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

/// How many places each source has taken; as many sources as there are connections, at most.
#[derive(Debug, Default)]
struct Sources(Rc<RefCell<HashMap<IpAddr, usize>>>);

/// A place of a source; free again when it is dropped.
#[derive(Debug)]
struct SourcePlace(Rc<RefCell<HashMap<IpAddr, usize>>>, IpAddr);

impl Sources {
    fn take(&self, address: IpAddr) -> Option<SourcePlace> {
        let source = source_of(address);
        let mut taken = self.0.borrow_mut();
        let places = taken.entry(source).or_default();
        if *places >= SOURCE_MAX {
            return None;
        }
        *places += 1;
        Some(SourcePlace(Rc::clone(&self.0), source))
    }
}

impl Drop for SourcePlace {
    fn drop(&mut self) {
        let mut taken = self.0.borrow_mut();
        if let Entry::Occupied(mut places) = taken.entry(self.1) {
            *places.get_mut() -= 1;
            if *places.get() == 0 {
                places.remove();
            }
        }
    }
}

/// What all connections share.
struct Site {
    core: Rc<Look>,
    /// Names that a client may call this host by.
    names: Vec<String>,
    /// Where the DNS of this host is asked, and whether there is one.
    config: Arc<Config>,
    connections: Places,
    reports: Places,
    streams: Places,
    feed: Rc<Feed>,
    counters: HttpCounters,
}

impl Site {
    fn sample(&self) -> HttpSample {
        HttpSample {
            connections: self.connections.used(),
            streams: self.streams.used(),
            refused: self.counters.refused.get(),
            source_refused: self.counters.source_refused.get(),
            timed_out: self.counters.timed_out.get(),
            idle: self.counters.idle.get(),
            answered: self.counters.answered.get(),
            failed: self.counters.failed.get(),
        }
    }
}

/// Serves clients until the runtime ends.
pub(super) async fn serve(listener: TcpListener, config: Arc<Config>, events: rt::Sender<Event>) {
    let core = Rc::new(Look::new(events));
    let site = Rc::new(Site {
        feed: Rc::new(Feed::new(Rc::clone(&core))),
        core,
        names: host::names(&config),
        config,
        connections: Places::new(CONNECTIONS_MAX),
        reports: Places::new(REPORTS_MAX),
        streams: Places::new(STREAMS_MAX),
        counters: HttpCounters::default(),
    });
    let sources = Sources::default();
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                let Some(of_source) = sources.take(address.ip()) else {
                    count(&site.counters.source_refused);
                    continue;
                };
                let Some(place) = site.connections.take() else {
                    count(&site.counters.refused);
                    continue;
                };
                let site = Rc::clone(&site);
                rt::spawn(async move {
                    talk(stream, site).await;
                    drop((place, of_source));
                });
            }
            Err(error) => {
                tracing::debug!("accepting an HTTP connection: {error}");
                rt::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Answers one client until it goes, errs, is too slow or idle for long.
async fn talk(stream: TcpStream, site: Rc<Site>) {
    let patience = Rc::new(Patience::new());
    let left = Cell::new(REQUESTS_MAX);
    let service = service_fn(|request| {
        patience.begin();
        left.set(left.get().saturating_sub(1));
        let (site, patience, last) = (Rc::clone(&site), Rc::clone(&patience), left.get() == 0);
        async move { Ok::<_, Infallible>(answer::answer(&site, &request, patience, last).await) }
    });
    let connection = http1::Builder::new()
        .header_read_timeout(None)
        .max_buf_size(HEAD_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(stream::Stream::new(stream, Rc::clone(&patience)), service);
    let served = async {
        if let Err(error) = connection.await {
            tracing::debug!("an HTTP client: {error}");
        }
        false
    };
    let late = async {
        loop {
            let left = patience.left();
            if left.is_zero() {
                return true;
            }
            rt::sleep(left).await;
        }
    };
    if futures_lite::future::or(served, late).await {
        count(if patience.is_idle() { &site.counters.idle } else { &site.counters.timed_out });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn there_are_so_many_places_and_each_comes_back() {
        let places = Places::new(2);
        let (first, _second) = (places.take().unwrap(), places.take().unwrap());
        assert!(places.take().is_none());
        drop(first);
        assert!(places.take().is_some());
    }

    #[test]
    fn no_source_has_all_places_and_each_comes_back() {
        let sources = Sources::default();
        let address = |text: &str| text.parse().unwrap();
        let mut places: Vec<_> =
            (0..SOURCE_MAX).map(|_| sources.take(address("192.0.2.1")).unwrap()).collect();
        assert!(sources.take(address("192.0.2.1")).is_none());
        places.push(sources.take(address("192.0.2.2")).unwrap());
        places.truncate(SOURCE_MAX - 1);
        assert!(sources.take(address("192.0.2.1")).is_some());
        // Somebody with a network of addresses is one source.
        let _places: Vec<_> = (0..SOURCE_MAX)
            .map(|number| sources.take(address(&format!("2001:db8::{number:x}"))).unwrap())
            .collect();
        assert!(sources.take(address("2001:db8::ffff")).is_none());
        assert!(sources.take(address("2001:db8:0:1::1")).is_some());
        drop(places);
        assert_eq!(sources.0.borrow().len(), 1, "who has no connection is forgotten");
    }
}
