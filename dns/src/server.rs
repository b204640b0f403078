//! What all parts share.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Instant;

use tokio::task::JoinHandle;
use weave_api::Software;
use weave_api::names::SidecarStatus;

use crate::SidecarConfig;
use crate::access::Access;
use crate::counters::Counters;
use crate::forward::Forwarder;
use crate::zone::Zone;

/// The sidecar.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) zone: RefCell<Zone>,
    pub(crate) access: RefCell<Access>,
    pub(crate) forwarder: Forwarder,
    pub(crate) counters: Counters,
    pub(crate) ttl_s: u32,
    /// As it was at the start: the file may be replaced.
    software: Software,
    pub(crate) run_dir: PathBuf,
    pub(crate) engine_bridge: String,
    pub(crate) listen: Option<IpAddr>,
    pub(crate) port: u16,
    /// Addresses of this host on the network.
    pub(crate) exposed: RefCell<Vec<IpAddr>>,
    /// Where we bound sockets ourselves.
    pub(crate) bound: RefCell<BTreeSet<SocketAddr>>,
    /// Where it is asked, and the tasks that do it.
    pub(crate) sockets: RefCell<HashMap<SocketAddr, [JoinHandle<()>; 2]>>,
    /// Where it cannot be asked, and why.
    pub(crate) not_listening: RefCell<Vec<String>>,
    /// When the router was lost, or that it was never there; `None` while it tells of changes.
    pub(crate) router_lost: Cell<Option<Instant>>,
    /// How many connections to a router there were: what is to be done later is for one of them.
    pub(crate) router_connections: Cell<u64>,
}

impl Server {
    pub(crate) fn new(config: &SidecarConfig) -> Self {
        Self {
            zone: RefCell::new(Zone::new(config.domain.clone())),
            access: RefCell::default(),
            forwarder: Forwarder::new(config.resolv_conf.clone(), config.cache),
            counters: Counters::default(),
            ttl_s: config.ttl_s,
            software: Software::ours(),
            run_dir: config.run_dir.clone(),
            engine_bridge: config.engine_bridge.clone(),
            listen: config.listen,
            port: config.port,
            exposed: RefCell::default(),
            bound: RefCell::default(),
            sockets: RefCell::default(),
            not_listening: RefCell::default(),
            router_lost: Cell::new(Some(Instant::now())),
            router_connections: Cell::new(0),
        }
    }

    /// Where it is asked.
    pub(crate) fn listening(&self) -> Vec<SocketAddr> {
        let mut listening: Vec<SocketAddr> = self.sockets.borrow().keys().copied().collect();
        listening.sort_unstable();
        listening
    }

    pub(crate) fn status(&self) -> SidecarStatus {
        let zone = self.zone.borrow();
        let (names, entries) = zone.size();
        SidecarStatus {
            pid: std::process::id(),
            software: Some(self.software.clone()),
            domain: zone.domain().clone(),
            ttl_s: self.ttl_s,
            listening: self.listening(),
            not_listening: self.not_listening.borrow().clone(),
            upstream: self.forwarder.servers(&self.listening()),
            names,
            entries,
            router_lost_s: self.router_lost.get().map(|since| since.elapsed().as_secs()),
            counters: self.counters.all(),
        }
    }
}
