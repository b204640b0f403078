//! What runs beside the router, keeper and DNS: how they stand, looked at from time to time. They
//! outlive routers, and after an upgrade go on as what they were started as.

use super::core::Event;
use crate::config::Config;
use crate::rt;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use weave_api::Software;
use weave_api::keeper::{self, Keeper, KeeperStatus};
use weave_api::names::SidecarStatus;
use weave_api::sidecar;
use weave_api::status::Degraded;

/// How often it is looked without being asked to.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Time between two looks, however often one is asked for.
const LOOKS_APART: Duration = Duration::from_millis(200);
/// Time the DNS has to tell of itself.
const DNS_WITHIN: Duration = Duration::from_millis(200);
/// How long a keeper shows no sign of work before it is said that it hangs.
const SILENT_AFTER: Duration = Duration::from_secs(10);
/// Looks since the one that saw its last sign: a single one may be the first after the host slept. With
/// two, a look every [`LOOK_EVERY`], it is said 16 s after the sign at most.
const SILENT_LOOKS: u32 = 2;
/// What starts a keeper, and puts keeper and DNS of another version right.
const RENEW: &str = "`weave keeper --renew` starts it anew, and traffic does not stop for it";

/// The state that says that it hangs.
const HANGS: &str = "keeper_hangs";

/// One look at both.
#[derive(Debug)]
struct Look {
    keeper: io::Result<Keeper>,
    dns: io::Result<SidecarStatus>,
}

impl Look {
    /// Takes [`DNS_WITHIN`] at most.
    fn take(run_dir: &Path) -> Self {
        Self { keeper: keeper::look(run_dir), dns: sidecar::status(run_dir, DNS_WITHIN) }
    }
}

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Seen {
    /// `None`: not yet to be told.
    keeper: Option<Keeper>,
    /// Since when it shows no sign of work.
    hangs: Option<Instant>,
    /// The program of the DNS that listens, if it ever answered.
    dns: Option<Software>,
    /// What the DNS told; `None` where it did not answer.
    dns_told: Option<SidecarStatus>,
}

/// The last sign of work of a keeper.
#[derive(Debug, Clone, Copy)]
struct Beat {
    /// Its process, and what it said.
    of: (u32, u64),
    at: Instant,
    /// Looks since then.
    looks: u32,
}

/// What is believed of look after look: of a busy host, and of daemons that just start, not all.
#[derive(Debug, Default)]
struct Watched {
    seen: Seen,
    /// The keeper told nothing the last time.
    is_silent: bool,
    beat: Option<Beat>,
}

impl Watched {
    /// Since when the keeper shows no sign of work, if that is long ago. Takes the sign out of the look,
    /// which else would differ from each before.
    fn hangs(&mut self, look: &mut Look, now: Instant) -> Option<Instant> {
        let Ok(Keeper::Tells(status)) = &mut look.keeper else {
            self.beat = self.beat.filter(|_| look.keeper.is_err());
            return self.seen.hangs.filter(|_| look.keeper.is_err());
        };
        let of = (status.pid, status.beat.take()?);
        let beat = match self.beat.filter(|beat| beat.of == of) {
            Some(beat) => Beat { looks: beat.looks + 1, ..beat },
            None => Beat { of, at: now, looks: 0 },
        };
        self.beat = Some(beat);
        let is_long = now.duration_since(beat.at) >= SILENT_AFTER && beat.looks >= SILENT_LOOKS;
        is_long.then_some(beat.at)
    }

    /// What could not be seen is as it was; a keeper that just starts has a time to tell of itself.
    fn take(&mut self, mut look: Look, now: Instant) {
        self.seen.hangs = self.hangs(&mut look, now);
        let was_silent = std::mem::replace(&mut self.is_silent, matches!(look.keeper, Ok(Keeper::Silent)));
        match look.keeper {
            Ok(Keeper::Silent) if !was_silent => {}
            Ok(keeper) => self.seen.keeper = Some(keeper),
            Err(error) => tracing::debug!("looking at the keeper: {error}"),
        }
        self.seen.dns_told = look.dns.as_ref().ok().cloned();
        match look.dns {
            Ok(dns) => {
                let unknown = || Software { version: "unknown".into(), executable: String::new() };
                self.seen.dns = Some(dns.software.unwrap_or_else(unknown));
            }
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                self.seen.dns = None;
            }
            Err(error) => tracing::debug!("looking at the DNS: {error}"),
        }
    }
}

impl Seen {
    /// What of it makes the router work worse than it could, by name and reason.
    fn states(&self, ours: &Software) -> Vec<(String, String)> {
        let other = |what: &str, difference: String| {
            format!("{what} runs {difference}: {RENEW}; or restart the router, if it is the older one")
        };
        let mut states = Vec::new();
        match &self.keeper {
            None => {}
            Some(Keeper::Absent) => states.push((
                "no_keeper".into(),
                format!(
                    "no keeper runs: containers that start again are not attached, rules that are flushed stay \
                     away: {RENEW}"
                ),
            )),
            Some(Keeper::Silent) => {
                let difference = format!("a version before {}, the router's", ours.version);
                states.push(("keeper_version".into(), other("the keeper", difference)));
            }
            Some(Keeper::Tells(status)) => {
                if let Some(difference) = status.software.difference(ours) {
                    states.push(("keeper_version".into(), other("the keeper", difference)));
                }
                let own = status.degraded.iter().map(|state| (state.name.clone(), state.reason.clone()));
                states.extend(own);
            }
        }
        if self.hangs.is_some() {
            states.push((
                HANGS.into(),
                format!(
                    "the keeper does not answer: it hangs, or was stopped. Containers that start again are not \
                     attached, rules that are flushed stay away: {RENEW}"
                ),
            ));
        }
        if let Some(difference) = self.dns.as_ref().and_then(|dns| dns.difference(ours)) {
            states.push(("dns_version".into(), other("the DNS", difference)));
        }
        states
    }
}

/// The same as the core keeps it.
#[derive(Debug)]
pub(super) struct Beside {
    pub(super) ours: Software,
    seen: Seen,
    /// Each with when it began.
    states: Vec<(String, String, Duration)>,
}

impl Default for Beside {
    fn default() -> Self {
        Self { ours: Software::ours(), seen: Seen::default(), states: Vec::new() }
    }
}

impl Beside {
    /// Takes in what was seen `now`; what was not there before is logged.
    pub(super) fn take(&mut self, seen: Seen, now: Duration) {
        let begun =
            |name: &str| self.states.iter().find(|(known, ..)| known == name).map(|(.., since)| *since);
        let states = seen.states(&self.ours).into_iter().map(|(name, reason)| {
            let since = begun(&name).unwrap_or_else(|| {
                tracing::warn!("{name}: {reason}");
                let hangs = seen.hangs.filter(|_| name == HANGS);
                now.saturating_sub(hangs.map_or(Duration::ZERO, |since| since.elapsed()))
            });
            (name, reason, since)
        });
        self.states = states.collect();
        self.seen = seen;
    }

    /// The keeper, if one runs and tells of itself.
    pub(super) fn keeper(&self) -> Option<&KeeperStatus> {
        match self.seen.keeper.as_ref()? {
            Keeper::Tells(status) => Some(status),
            Keeper::Absent | Keeper::Silent => None,
        }
    }

    /// The program of the DNS, if one runs.
    pub(super) fn dns(&self) -> Option<&Software> {
        self.seen.dns.as_ref()
    }

    /// What the DNS told, if it answered when it was asked last.
    pub(super) fn dns_told(&self) -> Option<&SidecarStatus> {
        self.seen.dns_told.as_ref()
    }

    /// What they make worse.
    pub(super) fn degraded(&self, now: Duration) -> impl Iterator<Item = Degraded> {
        self.states.iter().map(move |(name, reason, since)| Degraded {
            name: name.clone(),
            reason: reason.clone(),
            since_s: now.saturating_sub(*since).as_secs(),
        })
    }
}

/// Looks until the runtime ends, at once when it is asked to; what is seen anew becomes an event.
pub(super) async fn watch(config: Arc<Config>, asked: rt::Receiver<()>, events: rt::Sender<Event>) {
    let mut watched = Watched::default();
    loop {
        let config = Arc::clone(&config);
        let before = watched.seen.clone();
        let look = rt::blocking(move || Look::take(&config.run_dir)).await;
        watched.take(look, Instant::now());
        if watched.seen != before && events.send(Event::Beside(Box::new(watched.seen.clone()))).await.is_err()
        {
            return;
        }
        rt::sleep(LOOKS_APART).await;
        if let Some(Err(_)) = rt::timeout(LOOK_EVERY, asked.recv()).await {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use weave_api::keeper::KeeperDegraded;

    fn names(beside: &Beside) -> Vec<&str> {
        beside.states.iter().map(|(name, ..)| name.as_str()).collect()
    }

    #[test]
    fn other_versions_are_named_with_the_remedy_and_last_from_when_they_were_seen() {
        let mut beside = Beside::default();
        let told = |software: &Software, degraded| KeeperStatus {
            pid: 1,
            software: software.clone(),
            degraded,
            ..KeeperStatus::default()
        };
        let ours = beside.ours.clone();
        let older = Software { version: "0.0.1".into(), ..ours.clone() };
        let no_rules = KeeperDegraded { name: "no_firewall".into(), reason: "none".into() };
        let both = Seen {
            keeper: Some(Keeper::Tells(told(&older, vec![no_rules]))),
            dns: Some(older.clone()),
            ..Seen::default()
        };
        beside.take(both, Duration::from_secs(10));
        assert_eq!(names(&beside), ["keeper_version", "no_firewall", "dns_version"]);
        let states: Vec<Degraded> = beside.degraded(Duration::from_secs(15)).collect();
        assert!(states.iter().all(|state| state.since_s == 5));
        for state in [&states[0], &states[2]] {
            assert!(state.reason.contains("0.0.1"), "{state:?}");
            assert!(
                state.reason.contains("--renew") && state.reason.contains("restart the router"),
                "{state:?}"
            );
        }
        let renewed = Seen {
            keeper: Some(Keeper::Tells(told(&ours, Vec::new()))),
            dns: Some(older),
            ..Seen::default()
        };
        beside.take(renewed, Duration::from_secs(20));
        assert_eq!(names(&beside), ["dns_version"]);
        assert_eq!(beside.degraded(Duration::from_secs(30)).next().map(|state| state.since_s), Some(20));
        for (keeper, name) in [(Keeper::Absent, "no_keeper"), (Keeper::Silent, "keeper_version")] {
            beside.take(Seen { keeper: Some(keeper), ..Seen::default() }, Duration::from_secs(40));
            assert_eq!(names(&beside), [name]);
        }
    }

    #[test]
    fn what_cannot_be_seen_once_is_as_it_was() {
        let ours = Software::ours();
        let tells = || Keeper::Tells(KeeperStatus { pid: 1, software: ours.clone(), ..Default::default() });
        let told = || -> SidecarStatus {
            let text = r#"{"pid":1,"domain":"weave.local","ttl_s":1,"listening":[],"upstream":[],"names":2,"entries":3}"#;
            SidecarStatus { software: Some(ours.clone()), ..serde_json::from_str(text).unwrap() }
        };
        let failed = || io::Error::from_raw_os_error(libc::EMFILE);
        let now = Instant::now();
        let mut watched = Watched::default();
        watched.take(Look { keeper: Err(failed()), dns: Err(failed()) }, now);
        watched.take(Look { keeper: Ok(Keeper::Silent), dns: Err(ErrorKind::NotFound.into()) }, now);
        assert_eq!(watched.seen, Seen::default());
        watched.take(Look { keeper: Ok(tells()), dns: Ok(told()) }, now);
        let both = Seen { keeper: Some(tells()), dns: Some(ours.clone()), ..Seen::default() };
        assert_eq!(watched.seen, Seen { dns_told: Some(told()), ..both.clone() });
        for (keeper, silence) in
            [(Ok(Keeper::Silent), ErrorKind::WouldBlock), (Err(failed()), ErrorKind::TimedOut)]
        {
            watched.take(Look { keeper, dns: Err(silence.into()) }, now);
            assert_eq!(watched.seen, both);
        }
        for _ in 0..2 {
            watched.take(
                Look { keeper: Ok(Keeper::Silent), dns: Err(ErrorKind::ConnectionRefused.into()) },
                now,
            );
        }
        assert_eq!(watched.seen, Seen { keeper: Some(Keeper::Silent), ..Seen::default() });
        watched.take(Look { keeper: Ok(Keeper::Absent), dns: Ok(told()) }, now);
        assert_eq!(watched.seen.keeper, Some(Keeper::Absent));
        assert_eq!((watched.seen.dns, watched.seen.dns_told), (Some(ours.clone()), Some(told())));
    }

    #[test]
    fn a_keeper_that_shows_no_sign_of_work_hangs_until_it_shows_one() {
        let begin = Instant::now();
        let mut watched = Watched::default();
        let mut look = |second, pid, beat: Option<u64>| {
            let status = KeeperStatus { pid, beat, ..Default::default() };
            let look = Look { keeper: Ok(Keeper::Tells(status)), dns: Err(ErrorKind::NotFound.into()) };
            let now = begin + Duration::from_secs(second);
            watched.take(look, now);
            watched.seen.clone()
        };
        let first = look(0, 1, Some(1));
        // Many looks in a short time say nothing, nor does a long time with few of them.
        for second in [1, 2, 3, 4, 5, 9] {
            assert_eq!(look(second, 1, Some(1)), first);
        }
        let hangs = look(10, 1, Some(1));
        assert_eq!(hangs.hangs, Some(begin));
        let reason = &hangs.states(&Software::ours()).pop().unwrap().1;
        assert!(reason.contains("keeper --renew"), "{reason}");
        assert_eq!(look(15, 1, Some(1)), hangs);
        assert_eq!(look(16, 1, Some(2)), first);
        assert_eq!(look(1000, 1, Some(2)), first, "this host slept");
        assert_eq!(look(1001, 1, Some(3)), first);
        assert_eq!(look(1006, 1, Some(3)), first);
        assert_eq!(look(1011, 1, Some(3)).hangs, Some(begin + Duration::from_secs(1001)));
        assert_eq!(look(1012, 2, Some(3)).hangs, None, "another one");
        // One of an earlier version gives no sign.
        for second in [1030, 1040, 1050, 1060] {
            assert_eq!(look(second, 3, None).hangs, None);
        }
    }
}
