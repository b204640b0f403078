//! The keeper: keeps this host's side of the network as the state says, while it changes under it.
//!
//! Containers of an engine that run again are attached again, those that are gone are forgotten;
//! bridge, ports, exposed addresses and firewall rules that somebody took or changed are put back.
//! One thread does what concerns the host, one thing after the other, and one what concerns
//! containers, so that nothing of the host waits for an engine; others only wait for news. What
//! news there is does not matter: each time the whole state is looked at, and once in
//! [`EVERYTHING_EVERY`] without any. One more gives routers that start the queues of the tap, and
//! makes a tap that was deleted again of those of a router that runs.

mod answers;
mod containers;
mod insides;
mod namespaces;
mod neighbourhood;
mod news;
mod routers;
mod watch;

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::attach::is_host_interface;
use crate::bridge::{self, BRIDGE};
use crate::detached;
use crate::error::Result;
use crate::exposed::{self, ExposedAddresses};
use crate::firewall::{Degraded, Firewall, Guard, other_bridges};
use crate::mtu::DEFAULT_MTU;
use crate::names;
use crate::netlink::{Link, Netlink};
use crate::policy::HostPolicy;
use crate::records::{self, Record, Records};
use crate::tap::TAP;
use containers::{Containers, Gate};
use insides::Insides;
use namespaces::Namespaces;
pub use neighbourhood::Elsewhere;
use news::{Inbox, Looks};
pub use news::{News, NewsReceiver, NewsSender, news};
pub use routers::{Devices, serve_routers};
pub use watch::watch;

/// How often everything is looked at without any news.
pub const EVERYTHING_EVERY: Duration = Duration::from_secs(30);
/// How often it is said that the thread for the host works.
const BEAT_EVERY: Duration = Duration::from_secs(2);
/// How often rules are put in place that are changed again at once, until the next news.
const APPLIED_MAX: usize = 5;
/// How long a keeper that was started for a router waits for it.
const ROUTER_WITHIN: Duration = Duration::from_secs(60);

/// What a keeper is started with.
#[derive(Debug, Clone)]
pub struct KeeperConfig {
    /// Where the state is.
    pub state_dir: PathBuf,
    /// Where the engine listens, as `DOCKER_HOST` is written.
    pub engine_host: String,
    /// What the rules need to know, until a router that is launched writes it down.
    pub policy: HostPolicy,
    /// It is started for a router that starts: until that one runs the host stays as it is.
    pub for_router: bool,
    /// What the router tells of the addresses of other hosts' containers.
    pub elsewhere: Elsewhere,
}

/// What was put right since the keeper started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Repairs {
    /// Times the bridge, tap, a port, their state or MTU, or an address of the host was put back.
    pub devices: u64,
    /// Times rules of the firewall or the guard were put back.
    pub rules: u64,
}

/// How the host stands, for those who ask.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings {
    /// What changes the firewall's tables; `None`: nothing is installed.
    pub firewall: Option<Firewall>,
    /// Frames the guard dropped since it was switched on; `None` where it is off.
    pub guard_dropped: Option<u64>,
    /// What works, but worse than it could.
    pub degraded: Vec<Degraded>,
    /// Containers of the engine that should be attached and cannot be, or are and have bad labels.
    pub containers: Vec<Degraded>,
    /// What was put right.
    pub repairs: Repairs,
    /// Attachments that somebody changed inside their containers.
    pub insides: Option<Degraded>,
    /// How many these are.
    pub changed: u64,
}

/// Whether there is something to keep without a router: containers that may run again or are
/// guarded, those that are detached as long as they run, exposed addresses, and the DNS.
#[must_use]
pub fn has_work(state_dir: &Path) -> bool {
    let exposed = exposed::read_all(state_dir).map_or(true, |all| !all.is_empty());
    let dns = names::DnsSettings::read(state_dir).map_or(true, |dns| dns.is_some_and(|dns| dns.enabled));
    let guard = HostPolicy::read(state_dir).map_or(true, |policy| policy.is_some_and(|policy| policy.guard));
    let attached = records::read_all(state_dir)
        .map_or(true, |(all, _)| all.iter().any(|one| guard || one.is_of_engine()));
    let detached = detached::read_all(state_dir).map_or(true, |all| !all.is_empty());
    exposed || dns || attached || detached
}

/// Keeps until told to stop; `attachments_changed` is called after each change of an attachment
/// or of a name, `found` whenever it is found that the host stands otherwise than before, `beat` every
/// few seconds while it works, with how the host stands.
/// What cannot be done now is logged and tried again.
///
/// # Errors
/// When the thread for containers cannot be made.
pub fn run(
    config: KeeperConfig,
    devices: Devices,
    news: NewsReceiver,
    attachments_changed: impl Fn() + Send + Sync + 'static,
    found: impl Fn(&Findings),
    beat: impl Fn(&Findings),
) -> Result<()> {
    let NewsReceiver { host: news, containers: of_containers } = news;
    if config.for_router && !await_router(&config.state_dir, &news) {
        return Ok(());
    }
    let telling = Arc::new(Telling {
        state_dir: config.state_dir.clone(),
        names: Mutex::default(),
        attachments_changed,
    });
    let gate = Arc::new(Gate::default());
    let containers = Containers::new(&config, Arc::clone(&gate));
    let lacking: Arc<Mutex<Vec<Degraded>>> = Arc::default();
    let (told, known) = (Arc::clone(&telling), Arc::clone(&lacking));
    let to_host = Arc::clone(&news);
    containers.keep_on(Arc::clone(&of_containers), move |changed, now| {
        if changed {
            told.tell(true);
        }
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != now {
            *known = now;
            // It is told with the next look.
            to_host.tell(News::Links);
        }
    })?;
    let mut keeper = Keeper {
        config,
        devices,
        attached: HashSet::new(),
        namespaces: Namespaces::default(),
        insides: Insides::default(),
        of_containers,
        rules: None,
        is_unused: false,
        bridges: Vec::new(),
        found: Findings::default(),
        guard: None,
        repairs: Repairs::default(),
    };
    let mut looks = Looks::of_host(Instant::now());
    let mut due = Looks::HOST.to_vec();
    loop {
        if due.contains(&News::Links) {
            keeper.report("interfaces", |keeper| keeper.keep_interfaces());
        }
        if due.contains(&News::Links) || due.contains(&News::Addresses) {
            keeper.report("neighbours", |keeper| keeper.keep_neighbours());
        }
        keeper.report("containers", |keeper| keeper.insides.take_turn(&keeper.config.state_dir));
        let mut now = keeper.found.clone();
        let may_be_used = keeper.is_unused && due.contains(&News::Links);
        let has_bridges = || !due.is_empty() && keeper.bridges != other_bridges();
        if due.contains(&News::Firewall) || may_be_used || has_bridges() {
            let begin = Instant::now();
            now = keeper.keep_firewall();
            looks.firewall_took(Instant::now(), begin.elapsed());
        }
        now.containers.clone_from(&lacking.lock().unwrap_or_else(PoisonError::into_inner));
        now.repairs = keeper.repairs;
        now.repairs.devices += keeper.devices.taps_restored();
        (now.changed, now.insides) = keeper.insides.told();
        if keeper.found != now {
            found(&now);
            keeper.found = now;
        }
        // Names go with their containers.
        if !due.is_empty() {
            telling.tell(false);
        }
        loop {
            beat(&keeper.found);
            let came = news.take_together(looks.next().min(Instant::now() + BEAT_EVERY));
            if came.contains(&News::Stop) {
                // What is being done is done; nothing more is begun.
                gate.close();
                return Ok(());
            }
            due = looks.due(Instant::now(), &came);
            if !due.is_empty() || keeper.insides.has_work() {
                break;
            }
        }
    }
}

/// Waits until a router runs. False when the keeper is to end: when it is told to, or when no
/// router runs and there is nothing to keep without one.
fn await_router(state_dir: &Path, news: &Inbox) -> bool {
    let deadline = Instant::now() + ROUTER_WITHIN;
    loop {
        let came = news.take(deadline);
        if came.contains(&News::Stop) {
            return false;
        }
        if came.contains(&News::Router) {
            return true;
        }
        if came.is_empty() || came.contains(&News::NoRouter) {
            return has_work(state_dir);
        }
    }
}

/// Tells of changed attachments and names, to whoever is to know.
struct Telling<F> {
    state_dir: PathBuf,
    /// The names of this host as they were when they were told last.
    names: Mutex<Option<names::Own>>,
    attachments_changed: F,
}

impl<F: Fn()> Telling<F> {
    /// Tells if this host has other names, networks or addresses than at the last call, or
    /// something else has `changed`.
    fn tell(&self, changed: bool) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let other = match names::own(&self.state_dir) {
            Ok(own) => {
                let other = names.as_ref() != Some(&own);
                *names = Some(own);
                other
            }
            Err(error) => {
                tracing::warn!("reading the names of this host: {error}");
                false
            }
        };
        if other || changed {
            (self.attachments_changed)();
        }
    }
}

struct Keeper {
    config: KeeperConfig,
    devices: Devices,
    /// The hosts' ends of attachments the last time.
    attached: HashSet<String>,
    namespaces: Namespaces,
    insides: Insides,
    of_containers: Arc<Inbox>,
    /// The rules as they were when they were put in place last, and what they lack.
    rules: Option<(String, Vec<Degraded>)>,
    /// There is nothing that rules are for, and there are none.
    is_unused: bool,
    /// Bridges of engines that they are for.
    bridges: Vec<String>,
    /// How the host stood the last time.
    found: Findings,
    /// The guard that was put in place last, and as the kernel had it then.
    guard: Option<(Guard, Option<String>)>,
    repairs: Repairs,
}

impl Keeper {
    fn report(&mut self, what: &str, keep: impl FnOnce(&mut Self) -> Result<()>) {
        if let Err(error) = keep(self) {
            tracing::warn!("keeping the {what}: {error}");
        }
    }

    /// Rules and guard. What they lack is logged once.
    fn keep_firewall(&mut self) -> Findings {
        let bridges = other_bridges();
        if self.bridges != bridges {
            // Rules for other bridges are no repair.
            self.rules = None;
            self.bridges = bridges;
        }
        let firewall = Firewall::find();
        let rules = match firewall {
            Some(firewall) => self.keep_rules(firewall).unwrap_or_else(|e| vec![Degraded::no_firewall(&e)]),
            None => {
                self.rules = None;
                vec![Degraded::no_program()]
            }
        };
        let (guard_dropped, guard) = match self.keep_guard() {
            Ok(dropped) => (dropped, None),
            Err(error) => (None, Some(Degraded::no_guard(&error))),
        };
        let degraded: Vec<Degraded> = rules.into_iter().chain(guard).collect();
        for state in degraded.iter().filter(|state| !self.found.degraded.contains(state)) {
            tracing::warn!("{state}");
        }
        for state in self.found.degraded.iter().filter(|state| !degraded.contains(state)) {
            tracing::info!("{} is over", state.name);
        }
        Findings { firewall, guard_dropped, degraded, repairs: self.repairs, ..Findings::default() }
    }

    /// Bridge, its ports, the host's addresses on it, and the MTU of the host's ends of attachments.
    fn keep_interfaces(&mut self) -> Result<()> {
        let mut host = Netlink::open()?;
        let links = host.links()?;
        // Before anybody forgets those that have no interface.
        match self.namespaces.keep(&self.config.state_dir, &self.config.elsewhere, &mut host, &links) {
            Ok(repairs) => self.repairs.devices += repairs,
            Err(error) => tracing::warn!("keeping attachments of namespaces: {error}"),
        }
        let exposed = ExposedAddresses::open(&self.config.state_dir)?;
        let devices = self.devices.clone();
        let mut known_mtu = devices.mtu();
        // Again: no command is at it now.
        let links = host.links()?;
        let ports: Vec<&Link> =
            links.iter().filter(|link| link.name == TAP || is_host_interface(&link.name)).collect();
        self.find_gone(&ports);
        let pairs: Vec<&Link> = ports.iter().filter(|port| port.kind == "veth").copied().collect();
        self.insides.note(&pairs);
        let bridge = links.iter().find(|link| link.name == BRIDGE);
        if bridge.is_none() && ports.is_empty() && exposed.all().is_empty() {
            return Ok(());
        }
        let tap = ports.iter().find(|port| port.name == TAP);
        let wanted = tap.map(|tap| *known_mtu.get_or_insert(tap.mtu));
        let of_port = || ports.first().map(|port| port.mtu);
        let found = bridge::mtu_of(bridge).or_else(of_port).unwrap_or(DEFAULT_MTU);
        let before = bridge.map(|bridge| (bridge.mtu, bridge.up));
        let mtu = wanted.unwrap_or(found);
        let bridge = bridge::ensure(&mut host, mtu)?;
        let repairs = &mut self.repairs.devices;
        match before {
            None => {
                *repairs += 1;
                tracing::warn!("the bridge was gone: made again");
            }
            Some((had, up)) if had != mtu || !up => {
                *repairs += 1;
                tracing::warn!(mtu, had, up, "the bridge had another MTU or was down: put right");
            }
            Some(_) => {}
        }
        for port in ports {
            if port.name == TAP && port.mtu != mtu {
                tracing::warn!(mtu, had = port.mtu, "the tap had another MTU: put right");
                host.set_mtu(port, mtu)?;
                *repairs += 1;
            }
            if port.controller != Some(bridge.index) {
                tracing::warn!(interface = port.name, "a port was taken from the bridge: put back");
                host.set_controller(port, bridge.index)?;
                *repairs += 1;
            }
            if !port.up {
                tracing::warn!(interface = port.name, "a port of the bridge was down: set up");
                host.set_up(port)?;
                *repairs += 1;
            }
        }
        *repairs += exposed.restore_addresses(&mut host, &bridge)? as u64;
        // The lock that `exposed` holds is that of the attachments.
        *repairs += keep_pairs(&mut host, &links, &records::read_all(&self.config.state_dir)?.0)?;
        Ok(())
    }

    /// Where the host is exposed: at which stations the addresses are that are attached anywhere.
    fn keep_neighbours(&self) -> Result<()> {
        let exposed = exposed::read_all(&self.config.state_dir)?;
        let mut host = Netlink::open()?;
        let Some(bridge) = host.link(BRIDGE)? else { return Ok(()) };
        let (mut attached, _) = records::read_all(&self.config.state_dir)?;
        // What a container that has ended left may be another's since.
        attached.retain(crate::names::is_here);
        let wanted = self.config.elsewhere.neighbours(&exposed, &attached, bridge.mac);
        neighbourhood::keep(&mut host, bridge.index, &wanted)
    }

    /// An attachment whose host's end is gone was deleted, or its container has ended: which of them
    /// is for the thread of the containers to find out.
    fn find_gone(&mut self, ports: &[&Link]) {
        let now: HashSet<String> = ports.iter().map(|port| port.name.clone()).collect();
        if !self.attached.is_subset(&now) {
            self.of_containers.tell(News::Engine);
        }
        self.attached = now;
    }

    /// The firewall's rules: put in place again if they are not as they were; what they lack.
    fn keep_rules(&mut self, firewall: Firewall) -> Result<Vec<Degraded>> {
        if let Some((rules, lack)) = &mut self.rules
            && *rules == firewall.snapshot()?
        {
            // What was in the way of taking them may be gone.
            if lack.extract_if(.., |state| state.name == Degraded::OTHER_RULES).count() > 0 {
                lack.extend(firewall.take_others());
            }
            return Ok(lack.clone());
        }
        let exposed = ExposedAddresses::open(&self.config.state_dir)?;
        self.is_unused = !exposed.is_used(&mut Netlink::open()?)?;
        if self.is_unused {
            self.rules = None;
            return Ok(Vec::new());
        }
        // A command may have changed them while it had the lock: that is nobody's meddling.
        let now = firewall.snapshot()?;
        let known = HostPolicy::read(&self.config.state_dir)?;
        let before = self.rules.take().map(|(rules, _)| rules);
        let mut lack = Vec::new();
        let apply = || {
            lack = exposed.apply(known.as_ref().unwrap_or(&self.config.policy))?;
            Ok(())
        };
        let there =
            put_back(&firewall, &mut self.repairs.rules, before, &now, apply, || firewall.snapshot())?;
        self.rules = there.map(|there| (there, lack.clone()));
        Ok(lack)
    }

    /// The guard of the containers: put in place again if it is not as it was. What it dropped;
    /// `None` where it is off.
    fn keep_guard(&mut self) -> Result<Option<u64>> {
        let mut records = Records::open(&self.config.state_dir)?;
        records.prune(&mut Netlink::open()?)?;
        let Some(guard) = records.guard() else {
            self.guard = None;
            return Ok(None);
        };
        let now = Guard::snapshot()?;
        let known = self.guard.take().filter(|(last, _)| *last == guard).map(|(_, then)| then);
        self.guard = if known.as_ref() == Some(&now) {
            Some((guard, now))
        } else {
            let repairs = &mut self.repairs.rules;
            let there = put_back(&"the guard", repairs, known, &now, || guard.apply(), Guard::snapshot)?;
            there.map(|there| (guard, there))
        };
        Ok(Some(Guard::dropped()?.unwrap_or_default()))
    }
}

/// Gives the host's ends of attachments the MTU they were attached with; how many had another.
fn keep_pairs(host: &mut Netlink, links: &[Link], attached: &[Record]) -> Result<u64> {
    let wanted: HashMap<String, u32> =
        attached.iter().filter_map(|record| Some((record.host_interface(), record.mtu?))).collect();
    let mut repairs = 0;
    for pair in links.iter().filter(|link| link.kind == "veth") {
        let Some(mtu) = wanted.get(&pair.name).copied().filter(|mtu| *mtu != pair.mtu) else { continue };
        tracing::warn!(interface = pair.name, mtu, had = pair.mtu, "a pair had another MTU: put right");
        host.set_mtu(pair, mtu)?;
        repairs += 1;
    }
    Ok(repairs)
}

/// Puts rules in place of those that are there `now`, until they are as they were `before`, or the
/// same twice: somebody may flush them between the two steps. `None` if that never comes.
fn put_back<T: Clone + PartialEq>(
    what: &impl Display,
    repairs: &mut u64,
    before: Option<T>,
    now: &T,
    mut apply: impl FnMut() -> Result<()>,
    snapshot: impl Fn() -> Result<T>,
) -> Result<Option<T>> {
    let mut last = before.clone();
    for _ in 0..APPLIED_MAX {
        apply()?;
        let new = snapshot()?;
        if last.as_ref() == Some(&new) {
            if before.is_some() && new != *now {
                *repairs += 1;
                tracing::warn!(by = %what, "rules of ours were gone or changed: put back");
            }
            return Ok(Some(new));
        }
        last = Some(new);
    }
    tracing::warn!(by = %what, "rules of ours change as soon as they are put in place");
    Ok(None)
}
