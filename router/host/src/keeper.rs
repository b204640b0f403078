//! The keeper: keeps this host's side of the network as the state says, while it changes under it.
//!
//! Containers of an engine that run again are attached again, those that are gone are forgotten;
//! bridge, ports, exposed addresses and firewall rules that somebody took or changed are put back.
//! One thread does all of it, one thing after the other; three others only wait for news. What
//! news there is does not matter: each time the whole state is looked at, and once in
//! [`EVERYTHING_EVERY`] without any. A fifth thread gives routers that start the queues of the
//! tap, so that none waits for an engine.

mod containers;
mod routers;
mod watch;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::attach::is_host_interface;
use crate::bridge::{self, BRIDGE};
use crate::error::Result;
use crate::exposed::{self, ExposedAddresses};
use crate::firewall::{Degraded, Firewall, Guard};
use crate::mtu::DEFAULT_MTU;
use crate::names;
use crate::netlink::{Link, Netlink};
use crate::policy::HostPolicy;
use crate::records::{self, Records};
use crate::tap::TAP;
use containers::Containers;
pub use routers::serve_routers;
pub use watch::watch;

/// How often everything is looked at without any news.
pub const EVERYTHING_EVERY: Duration = Duration::from_secs(30);
/// News that comes within this time is looked at together: an engine tells many things of one
/// container, and a flush takes many rules.
const TOGETHER: Duration = Duration::from_millis(50);

/// When containers are looked at once more after news of them: Podman tells of a start before its
/// list does.
const ENGINE_SETTLES: Duration = Duration::from_millis(500);

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
}

/// Something may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// A container started, ended or is gone; or the engine came back.
    Engine,
    /// An interface changed.
    Links,
    /// The firewall's tables changed.
    Firewall,
    /// A router runs that was given its queues.
    Router,
    /// One did not start.
    NoRouter,
    /// The keeper is to end.
    Stop,
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
}

/// Whether there is something to keep without a router: containers that may run again or are
/// guarded, exposed addresses, and the DNS.
#[must_use]
pub fn has_work(state_dir: &Path) -> bool {
    let exposed = exposed::read_all(state_dir).map_or(true, |all| !all.is_empty());
    let dns = names::DnsSettings::read(state_dir).map_or(true, |dns| dns.is_some_and(|dns| dns.enabled));
    let guard = HostPolicy::read(state_dir).map_or(true, |policy| policy.is_some_and(|policy| policy.guard));
    let attached = records::read_all(state_dir)
        .map_or(true, |(all, _)| all.iter().any(|one| guard || one.is_of_engine()));
    exposed || dns || attached
}

/// Keeps until told to stop; `attachments_changed` is called after each change of an attachment
/// or of a name, `found` whenever it is found that the host stands otherwise than before.
/// What cannot be done now is logged and tried again.
pub fn run(
    config: KeeperConfig,
    news: &Receiver<News>,
    attachments_changed: impl Fn(),
    found: impl Fn(&Findings),
) {
    if config.for_router && !await_router(&config.state_dir, news) {
        return;
    }
    let mut keeper = Keeper {
        containers: Containers::new(config.state_dir.clone(), config.engine_host.clone()),
        config,
        rules: None,
        names: None,
        found: Findings::default(),
        engine_error: None,
        guard: None,
    };
    let mut looks = Looks::new(Instant::now());
    let mut due = EVERYTHING.to_vec();
    loop {
        if due.contains(&News::Links) {
            keeper.report("interfaces", |keeper| keeper.keep_interfaces());
        }
        if due.contains(&News::Firewall) {
            let now = keeper.keep_firewall();
            if keeper.found != now {
                found(&now);
                keeper.found = now;
            }
        }
        let mut changed = false;
        if due.contains(&News::Engine) {
            match keeper.containers.keep() {
                Ok(attached) => {
                    keeper.engine_error = None;
                    changed = attached;
                }
                Err(error) => keeper.say_once(error.to_string()),
            }
        }
        // Names go with their containers.
        if keeper.names_changed() || changed {
            attachments_changed();
        }
        let came = next(news, looks.next());
        if came.contains(&News::Stop) {
            return;
        }
        due = looks.due(Instant::now(), &came);
    }
}

/// All that is looked at.
const EVERYTHING: [News; 3] = [News::Engine, News::Links, News::Firewall];

/// When something is looked at without news of it: however much other news there is.
struct Looks {
    everything_at: Instant,
    /// When containers are looked at once more.
    settled_at: Option<Instant>,
}

impl Looks {
    /// After everything was looked at.
    fn new(now: Instant) -> Self {
        Self { everything_at: now + EVERYTHING_EVERY, settled_at: None }
    }

    /// The next one without any news.
    fn next(&self) -> Instant {
        self.settled_at.map_or(self.everything_at, |at| at.min(self.everything_at))
    }

    /// What is to be looked at after this news.
    fn due(&mut self, now: Instant, came: &[News]) -> Vec<News> {
        let mut due = came.to_vec();
        if came.contains(&News::Router) || now >= self.everything_at {
            self.everything_at = now + EVERYTHING_EVERY;
            due.extend(EVERYTHING);
        }
        if came.contains(&News::Engine) {
            self.settled_at = Some(now + ENGINE_SETTLES);
        } else if self.settled_at.is_some_and(|at| now >= at) {
            self.settled_at = None;
            due.push(News::Engine);
        }
        due
    }
}

/// Waits until a router runs. False when the keeper is to end: when it is told to, or when no
/// router runs and there is nothing to keep without one.
fn await_router(state_dir: &Path, news: &Receiver<News>) -> bool {
    let deadline = Instant::now() + ROUTER_WITHIN;
    loop {
        match news.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(News::Router) => return true,
            Ok(News::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
            Ok(News::NoRouter) | Err(RecvTimeoutError::Timeout) => return has_work(state_dir),
            Ok(News::Engine | News::Links | News::Firewall) => {}
        }
    }
}

/// The next news with all that comes together with it; none at the deadline.
fn next(news: &Receiver<News>, deadline: Instant) -> Vec<News> {
    let first = match news.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(first) => first,
        Err(RecvTimeoutError::Timeout) => return Vec::new(),
        Err(RecvTimeoutError::Disconnected) => News::Stop,
    };
    let mut all = vec![first];
    let until = Instant::now() + TOGETHER;
    while let Ok(more) = news.recv_timeout(until.saturating_duration_since(Instant::now())) {
        if !all.contains(&more) {
            all.push(more);
        }
    }
    all
}

struct Keeper {
    config: KeeperConfig,
    containers: Containers,
    /// The rules as they were when they were put in place last, and what they lack.
    rules: Option<(String, Vec<Degraded>)>,
    /// How the host stood the last time.
    found: Findings,
    /// The names of this host as they were when they were told last.
    names: Option<names::Own>,
    /// Why containers could not be looked after the last time.
    engine_error: Option<String>,
    /// The guard that was put in place last, and as the kernel had it then.
    guard: Option<(Guard, Option<String>)>,
}

impl Keeper {
    /// Whether this host has other names, networks or addresses than at the last call.
    fn names_changed(&mut self) -> bool {
        match names::own(&self.config.state_dir) {
            Ok(own) if self.names.as_ref() == Some(&own) => false,
            Ok(own) => {
                self.names = Some(own);
                true
            }
            Err(error) => {
                tracing::warn!("reading the names of this host: {error}");
                false
            }
        }
    }

    /// Logs what keeps it from looking after containers, unless that is known: an engine that is
    /// not there is asked often.
    fn say_once(&mut self, error: String) {
        if self.engine_error.as_ref() != Some(&error) {
            tracing::info!("looking after containers: {error}");
            self.engine_error = Some(error);
        }
    }

    fn report(&mut self, what: &str, keep: impl FnOnce(&mut Self) -> Result<()>) {
        if let Err(error) = keep(self) {
            tracing::warn!("keeping the {what}: {error}");
        }
    }

    /// Rules and guard. What they lack is logged once.
    fn keep_firewall(&mut self) -> Findings {
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
        Findings { firewall, guard_dropped, degraded }
    }

    /// Bridge, its ports, and the host's addresses on it.
    fn keep_interfaces(&mut self) -> Result<()> {
        let mut host = Netlink::open()?;
        let exposed = ExposedAddresses::open(&self.config.state_dir)?;
        let links = host.links()?;
        let ports: Vec<&Link> =
            links.iter().filter(|link| link.name == TAP || is_host_interface(&link.name)).collect();
        let bridge = links.iter().find(|link| link.name == BRIDGE);
        if bridge.is_none() && ports.is_empty() && exposed.all().is_empty() {
            return Ok(());
        }
        let mtu = bridge.or(ports.first().copied()).map_or(DEFAULT_MTU, |link| link.mtu);
        let is_new = bridge.is_none();
        let bridge = bridge::ensure(&mut host, mtu)?;
        if is_new {
            tracing::warn!("the bridge was gone: made again");
        }
        for port in ports {
            if port.controller != Some(bridge.index) {
                tracing::warn!(interface = port.name, "a port was taken from the bridge: put back");
                host.set_controller(port, bridge.index)?;
            }
            if !port.up {
                tracing::warn!(interface = port.name, "a port of the bridge was down: set up");
                host.set_up(port)?;
            }
        }
        exposed.restore_addresses(&mut host, &bridge)
    }

    /// The firewall's rules: put in place again if they are not as they were; what they lack.
    fn keep_rules(&mut self, firewall: Firewall) -> Result<Vec<Degraded>> {
        let now = firewall.snapshot()?;
        if let Some((_, lack)) = self.rules.as_mut().filter(|(rules, _)| *rules == now) {
            // What was in the way of taking them may be gone.
            if lack.extract_if(.., |state| state.name == Degraded::OTHER_RULES).count() > 0 {
                lack.extend(firewall.take_others());
            }
            return Ok(lack.clone());
        }
        let exposed = ExposedAddresses::open(&self.config.state_dir)?;
        let known = HostPolicy::read(&self.config.state_dir)?;
        let before = self.rules.take().map(|(rules, _)| rules);
        let mut lack = Vec::new();
        let apply = || {
            lack = exposed.apply(known.as_ref().unwrap_or(&self.config.policy))?;
            Ok(())
        };
        let there = put_back(&firewall, before, &now, apply, || firewall.snapshot())?;
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
            let there = put_back(&"the guard", known, &now, || guard.apply(), Guard::snapshot)?;
            there.map(|there| (guard, there))
        };
        Ok(Some(Guard::dropped()?.unwrap_or_default()))
    }
}

/// Puts rules in place of those that are there `now`, until they are as they were `before`, or the
/// same twice: somebody may flush them between the two steps. `None` if that never comes.
fn put_back<T: Clone + PartialEq>(
    what: &impl Display,
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
                tracing::warn!(by = %what, "rules of ours were gone or changed: put back");
            }
            return Ok(Some(new));
        }
        last = Some(new);
    }
    tracing::warn!(by = %what, "rules of ours change as soon as they are put in place");
    Ok(None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// What is looked at in a minute of news that comes every `every`.
    fn in_a_minute(every: Duration, news: &[News]) -> Vec<(Duration, Vec<News>)> {
        let begin = Instant::now();
        let mut looks = Looks::new(begin);
        let mut now = begin;
        let mut comes = begin + every;
        let mut all = Vec::new();
        while now < begin + Duration::from_secs(60) {
            now = looks.next().min(comes);
            let came = if now == comes { news } else { &[] };
            if now == comes {
                comes += every;
            }
            all.push((now - begin, looks.due(now, came)));
        }
        all
    }

    #[test]
    fn everything_is_looked_at_every_half_minute_with_any_news() {
        for every in [Duration::from_millis(100), Duration::from_secs(7), Duration::from_secs(100)] {
            for news in EVERYTHING {
                let looks = in_a_minute(every, &[news]);
                for what in EVERYTHING {
                    let times = looks.iter().filter(|(_, due)| due.contains(&what)).map(|(at, _)| *at);
                    let times: Vec<Duration> = times.collect();
                    let gaps = std::iter::once(Duration::ZERO).chain(times.iter().copied()).zip(&times);
                    for (before, after) in gaps {
                        assert!(*after - before <= EVERYTHING_EVERY, "{what:?} at {before:?} and {after:?}");
                    }
                    assert!(*times.last().unwrap() >= EVERYTHING_EVERY, "{news:?} every {every:?}: {what:?}");
                }
            }
        }
    }

    #[test]
    fn containers_are_looked_at_once_more_after_news_of_them_whatever_other_news_there_is() {
        let begin = Instant::now();
        let after = |ms| begin + Duration::from_millis(ms);
        let mut looks = Looks::new(begin);
        assert_eq!(looks.due(begin, &[News::Engine]), [News::Engine]);
        for ms in [100, 200, 300, 400] {
            assert_eq!(looks.due(after(ms), &[News::Links]), [News::Links]);
            assert_eq!(looks.next(), after(500));
        }
        assert_eq!(looks.due(after(510), &[News::Links]), [News::Links, News::Engine]);
        assert_eq!(looks.due(after(610), &[News::Firewall]), [News::Firewall]);
        assert_eq!(looks.next(), begin + EVERYTHING_EVERY);
        // News of containers together with a look at everything is no reason to leave it out.
        looks.due(after(700), &[News::Router, News::Engine]);
        assert_eq!(looks.next(), after(1200));
    }
}
