//! Containers of the engine: attached again when they run again, forgotten when they are gone.
//!
//! Each look has two parts: what the engine says is asked without the lock on the state, since it
//! may take long to answer, and what follows from it is done with the lock, where it is seen
//! again what may have changed meanwhile.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use weave_wire::MacAddr;

use super::answers::{Answers, Found, is_still_in, namespace_of};
use super::news::{Inbox, Looks};
use super::{EVERYTHING_EVERY, Elsewhere, KeeperConfig, News};
use crate::attach::{AttachOptions, PROBE_WAIT, attached, probe_on};
use crate::bridge::BRIDGE;
use crate::detached;
use crate::engine::{
    CIDR_LABEL, ContainerId, Engine, EngineContainer, Listed, NAMES_LABEL, fault_of_names, place,
};
use crate::error::{Error, Result};
use crate::firewall::Degraded;
use crate::names::DnsSettings;
use crate::namespace::{Namespace, NamespaceId, NamespaceSpec};
use crate::netlink::Netlink;
use crate::records::{self, Known, Record, Records, other_engine};

/// How long the lock is held for containers that are to be attached: others wait for it, firewall
/// rules among them.
const HELD_MAX: Duration = Duration::from_millis(500);
/// Pause before the rest: whoever waits for the lock tries it every 10 ms.
const REST_AFTER: Duration = PROBE_WAIT;
/// How long the addresses of a container that has ended are kept from those whose labels name them and
/// that were refused while it ran: it may only be restarted.
const KEPT_FOR_RESTART: Duration = Duration::from_secs(3);
/// How often it is looked meanwhile.
const LOOKED_AGAIN: Duration = Duration::from_millis(500);
/// When containers that could not be attached are tried again without any news: an address may have come
/// free on another host. At the soonest so many times as late as trying takes.
const TRIED_AGAIN: Duration = Duration::from_secs(2);
const TRIED_REST: u32 = 20;
/// Containers that are not attached and are named in the status, at most.
const NAMED: usize = 8;
/// Containers that the engine is asked for at once.
const ASKED_AT_ONCE: usize = 16;
/// How often engines that are not followed are asked for containers of theirs that have ended, and how
/// often one that gives no answer.
const OTHERS_ASKED: Duration = EVERYTHING_EVERY;
const OTHERS_TRIED: Duration = Duration::from_secs(600);
/// Questions that the engine leaves without an answer before no more are asked.
const UNANSWERED_MAX: usize = 3;

/// Whether anything may be changed still.
#[derive(Debug, Default)]
pub(super) struct Gate {
    is_closed: Mutex<bool>,
}

impl Gate {
    /// Waits until a change that has begun is done; from then on none begins.
    pub(super) fn close(&self) {
        *self.is_closed.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// For the time of a change; `None`: it is closed.
    fn enter(&self) -> Option<MutexGuard<'_, bool>> {
        Some(self.is_closed.lock().unwrap_or_else(PoisonError::into_inner)).filter(|is_closed| !**is_closed)
    }
}

/// What is known of the engine's containers.
pub(super) struct Containers {
    state_dir: PathBuf,
    engine_host: String,
    gate: Arc<Gate>,
    elsewhere: Elsewhere,
    /// Kept while it answers.
    engine: Option<Engine>,
    /// Containers that it had in its list and that may be remembered.
    seen: HashSet<ContainerId>,
    /// Where it is, as it is remembered of its containers.
    place: String,
    /// The first process of attached containers: while that lives in the namespace that was attached,
    /// the engine is not asked.
    processes: HashMap<ContainerId, u32>,
    /// Since when it is known that remembered containers have ended.
    ended: HashMap<ContainerId, Instant>,
    /// A container waits for addresses of one that may only be restarted.
    waits: bool,
    /// A container could not be attached at the last look.
    has_failed: bool,
    /// What could not be done, so that it is said once.
    failures: BTreeMap<ContainerId, String>,
    /// Labels of attached containers that name what is no name here.
    bad_labels: BTreeMap<ContainerId, String>,
    /// Containers of engines that are not followed.
    others: BTreeMap<ContainerId, String>,
    /// When each of those is asked next at the soonest.
    others_next: HashMap<String, Instant>,
    /// Why nothing could be done the last time.
    error: Option<String>,
}

/// A container that runs and is not attached.
struct ToAttach {
    id: ContainerId,
    /// The addresses of its label, if it is not remembered.
    labelled: Option<Vec<IpNet>>,
    /// Those that the network is asked for.
    asked: Vec<IpAddr>,
}

/// What one is to have.
struct Wanted<'a> {
    cidrs: &'a [IpNet],
    /// As in [`AttachOptions`].
    probe: Option<Duration>,
    /// Who has addresses, of those that the network was asked for.
    holders: &'a HashMap<IpAddr, MacAddr>,
}

fn id_of(record: &Record) -> Option<ContainerId> {
    record.container.parse().ok()
}

/// Whether it is called otherwise than is remembered.
fn is_renamed(record: &Record, listed: &Listed) -> bool {
    listed.name.is_some() && listed.name != record.names.engine
}

impl Containers {
    pub(super) fn new(config: &KeeperConfig, gate: Arc<Gate>) -> Self {
        Self {
            state_dir: config.state_dir.clone(),
            engine_host: config.engine_host.clone(),
            gate,
            elsewhere: config.elsewhere.clone(),
            engine: None,
            seen: HashSet::new(),
            place: String::new(),
            processes: HashMap::new(),
            ended: HashMap::new(),
            waits: false,
            has_failed: false,
            failures: BTreeMap::new(),
            bad_labels: BTreeMap::new(),
            others: BTreeMap::new(),
            others_next: HashMap::new(),
            error: None,
        }
    }

    /// Keeps on a thread of its own, which ends with the process or with the last who tells news;
    /// calls `done` after each look, with true if an attachment changed, and what containers lack.
    pub(super) fn keep_on(
        mut self,
        news: Arc<Inbox>,
        done: impl Fn(bool, Vec<Degraded>) + Send + 'static,
    ) -> Result<()> {
        const NAME: &str = "keeper-containers";
        let keep = move || {
            let mut looks = Looks::of_containers(Instant::now());
            loop {
                let begin = Instant::now();
                let changed = self.look();
                let lacking = [
                    named("not_attached", &self.failures),
                    named("bad_label", &self.bad_labels),
                    named("other_engine", &self.others),
                ];
                done(changed, lacking.into_iter().flatten().collect());
                let now = Instant::now();
                if self.waits {
                    looks.look_again(now + LOOKED_AGAIN);
                } else if self.has_failed {
                    looks.look_again(now + TRIED_AGAIN.max(begin.elapsed() * TRIED_REST));
                }
                loop {
                    let came = news.take_together(looks.next());
                    if came.contains(&News::Stop) {
                        return;
                    }
                    if looks.due(Instant::now(), &came).contains(&News::Engine) {
                        break;
                    }
                }
            }
        };
        let thread = thread::Builder::new().name(NAME.to_owned()).spawn(keep);
        thread.map(drop).map_err(|error| Error::kernel("start thread", NAME, error))
    }

    /// Brings records and interfaces in step with the engine; true if an attachment changed. What
    /// keeps it from that is logged, unless that is known: an engine that is not there is asked often.
    fn look(&mut self) -> bool {
        let mut changed = false;
        (self.waits, self.has_failed) = (false, false);
        match self.try_look(&mut changed) {
            Ok(()) => self.error = None,
            Err(error) => {
                let error = error.to_string();
                if self.error.as_ref() != Some(&error) {
                    tracing::info!("looking after containers: {error}");
                    self.error = Some(error);
                }
            }
        }
        changed
    }

    fn try_look(&mut self, changed: &mut bool) -> Result<()> {
        let engine = match self.engine.take() {
            Some(engine) => engine,
            None => Engine::new(&self.engine_host)?,
        };
        self.place = place(&self.engine_host);
        let mut host = Netlink::open()?;
        let answers = self.ask(&engine, &mut host)?;
        self.engine = Some(engine);
        let mut to_attach: VecDeque<ToAttach> = self.settle(&answers, &mut host, changed)?.into();
        let mut rest = Duration::ZERO;
        while !to_attach.is_empty() {
            let begin = Instant::now();
            let holders = holders(&mut host, &to_attach).unwrap_or_else(|error| {
                tracing::debug!("asking the network for all at once: {error}");
                // Each asks for itself, then.
                to_attach.iter_mut().for_each(|one| one.asked.clear());
                HashMap::new()
            });
            thread::sleep(rest.saturating_sub(begin.elapsed()));
            rest = REST_AFTER;
            self.attach_some(&answers, &mut host, &mut to_attach, &holders, changed)?;
        }
        self.processes.retain(|id, _| answers.listed.contains_key(id));
        self.failures.retain(|id, _| answers.runs(id));
        self.check_labels(&answers)
    }

    /// Says of attached containers' labels, once each, what gives no name.
    fn check_labels(&mut self, answers: &Answers) -> Result<()> {
        let before = std::mem::take(&mut self.bad_labels);
        let is_labelled = |one: &&Listed| one.running && one.labels.contains_key(NAMES_LABEL);
        let mut labelled = answers.listed.values().filter(is_labelled).peekable();
        if labelled.peek().is_none() {
            return Ok(());
        }
        let domain = DnsSettings::read(&self.state_dir)?.unwrap_or_default().domain;
        let attached: HashSet<ContainerId> =
            records::read_all(&self.state_dir)?.0.iter().filter_map(id_of).collect();
        for one in labelled.filter(|one| attached.contains(&one.id)) {
            let fault = one.labels.get(NAMES_LABEL).and_then(|label| fault_of_names(label, &domain));
            let Some(fault) = fault else { continue };
            if before.get(&one.id) != Some(&fault) {
                tracing::warn!(container = one.id.short(), "{fault}");
            }
            self.bad_labels.insert(one.id.clone(), fault);
        }
        Ok(())
    }

    /// Asks the engine for all that may matter; nothing is changed, and no lock is held.
    fn ask(&mut self, engine: &Engine, host: &mut Netlink) -> Result<Answers> {
        let listed: HashMap<ContainerId, Listed> =
            engine.list()?.into_iter().map(|one| (one.id.clone(), one)).collect();
        let detached = detached::read_all(&self.state_dir)?;
        let mut answers = Answers { listed, namespaces: HashMap::new(), detached, found: HashMap::new() };
        let mut asked = Vec::new();
        let mut of_others: BTreeMap<String, Vec<ContainerId>> = BTreeMap::new();
        let remembered = records::read_all(&self.state_dir)?.0;
        let mut namespaces: HashMap<NamespaceId, usize> = HashMap::new();
        for record in &remembered {
            *namespaces.entry(record.namespace).or_default() += 1;
        }
        for record in remembered {
            let Some(id) = id_of(&record) else { continue };
            let is_there = records::has_interface(host, &record)?;
            let matters = match answers.listed.get(&id) {
                Some(one) if is_renamed(&record, one) => true,
                Some(one) if is_there => {
                    // Those that share a namespace are known before one of them ends.
                    let is_shared = namespaces.get(&record.namespace).is_some_and(|count| *count > 1);
                    let is_known = || self.is_known_in(&id, record.namespace);
                    one.exited || one.running && (is_shared || record.pending.is_some() || !is_known())
                }
                Some(one) => one.running,
                // Of another engine, for all that is known, unless it had it.
                None => !is_there && !self.is_of_other(&record) || self.seen.contains(&id),
            };
            if matters {
                asked.push(id.clone());
            } else if !is_there
                && !answers.listed.contains_key(&id)
                && let Some(engine) = record.engine
            {
                of_others.entry(engine).or_default().push(id.clone());
            }
            answers.namespaces.insert(id, record.namespace);
        }
        let labelled = answers.listed.values().filter(|one| one.running);
        let labelled = labelled.filter(|one| one.labels.contains_key(CIDR_LABEL)).map(|one| one.id.clone());
        let detached = answers.detached.iter().filter_map(|run| run.container.parse().ok());
        let unremembered: HashSet<ContainerId> =
            labelled.chain(detached).filter(|id| !answers.namespaces.contains_key(id)).collect();
        asked.extend(unremembered);
        let mut unanswered = 0;
        let found = asked.chunks(ASKED_AT_ONCE).flat_map(|some| {
            let ids: Vec<&ContainerId> = some.iter().collect();
            some.iter().cloned().zip(engine.find_all(&ids))
        });
        for (id, found) in found {
            let found = found.map(|container| Found { namespace: engine.namespace(&container), container });
            match found {
                Err(error @ Error::Engine { .. }) if unanswered >= UNANSWERED_MAX => return Err(error),
                Err(Error::Engine { .. }) => unanswered += 1,
                Ok(_) | Err(_) => {}
            }
            let in_its_own = found.as_ref().ok().filter(|found| {
                let namespace = found.namespace.as_ref().map(Namespace::id).ok();
                namespace.is_some() && namespace == answers.namespaces.get(&id).copied()
            });
            match in_its_own.and_then(|found| found.container.pid) {
                Some(pid) => self.processes.insert(id.clone(), pid),
                None => self.processes.remove(&id),
            };
            answers.found.insert(id, found);
        }
        for (place, ids) in of_others {
            let gone = self.gone_from(&place, &ids);
            answers.found.extend(gone.into_iter().map(|(id, error)| (id, Err(error))));
        }
        Ok(answers)
    }

    /// Those of an engine that is not followed which it does not know any more. It is asked now and then.
    fn gone_from(&mut self, place: &str, ids: &[ContainerId]) -> Vec<(ContainerId, Error)> {
        let now = Instant::now();
        self.others_next.retain(|_, next| *next > now);
        if self.others_next.contains_key(place) {
            return Vec::new();
        }
        let ids: Vec<&ContainerId> = ids.iter().take(ASKED_AT_ONCE).collect();
        let found = Engine::new(place).map_or_else(|_| Vec::new(), |engine| engine.find_all(&ids));
        let answers = !found.iter().any(|found| matches!(found, Err(Error::Engine { .. })));
        let pause = if answers { OTHERS_ASKED } else { OTHERS_TRIED };
        self.others_next.insert(place.to_owned(), Instant::now() + pause);
        let gone = |(id, found): (&ContainerId, Result<EngineContainer>)| match found {
            Err(error @ Error::NoContainer { .. }) => Some((id.clone(), error)),
            Ok(_) | Err(_) => None,
        };
        ids.into_iter().zip(found).filter_map(gone).collect()
    }

    /// Whether it was attached by another engine: what this one does not know of it means nothing.
    fn is_of_other(&self, record: &Record) -> bool {
        record.engine.as_ref().is_some_and(|engine| *engine != self.place)
    }

    /// Whether the first process of a container is known, and lives in this namespace.
    fn is_known_in(&self, id: &ContainerId, namespace: NamespaceId) -> bool {
        self.processes.get(id).is_some_and(|pid| namespace_of(*pid) == Some(namespace))
    }

    /// Does what follows from the answers, but for containers that are to be attached: those.
    fn settle(&mut self, answers: &Answers, host: &mut Netlink, changed: &mut bool) -> Result<Vec<ToAttach>> {
        let gate = Arc::clone(&self.gate);
        let Some(_open) = gate.enter() else { return Ok(Vec::new()) };
        let mut records = Records::open(&self.state_dir)?;
        records.prune(host)?;
        *changed |= self.detach_exited(host, &mut records, answers)?;
        *changed |= self.forget_gone(host, &mut records, answers)?;
        *changed |= self.finish_pending(host, &mut records, answers)?;
        *changed |= rename(&mut records, answers)?;
        self.take_note_of_engines(&mut records, answers)?;
        forget_detached(&mut records, answers)?;
        let known: HashMap<ContainerId, bool> =
            records.all().iter().filter_map(|one| Some((id_of(one)?, records.has_ended(one)))).collect();
        self.ended.retain(|id, _| known.get(id) == Some(&true));
        for (id, _) in known.iter().filter(|(_, has_ended)| **has_ended) {
            self.ended.entry(id.clone()).or_insert_with(Instant::now);
        }
        self.seen.retain(|id| known.contains_key(id));
        self.seen.extend(answers.listed.keys().cloned());
        let mut to_attach = Vec::new();
        for record in records.all().iter().filter(|record| records.has_ended(record)) {
            let Some(id) = id_of(record).filter(|id| answers.runs(id)) else { continue };
            let asked = record.cidrs.iter().filter(|_| !record.forced).map(IpNet::addr).collect();
            to_attach.push(ToAttach { id, labelled: None, asked });
        }
        let is_new = |id: &ContainerId| !known.contains_key(id) && !is_detached(&records, id);
        for one in answers.listed.values().filter(|one| one.running && is_new(&one.id)) {
            let cidrs = self.labelled_with(one, answers);
            to_attach.extend(cidrs.map(|cidrs| ToAttach {
                id: one.id.clone(),
                asked: cidrs.iter().map(IpNet::addr).collect(),
                labelled: Some(cidrs),
            }));
        }
        Ok(to_attach)
    }

    /// Takes the interfaces of containers that have ended, or run in another namespace by now: with
    /// the last process the kernel takes a namespace away when it has time, which may be seconds
    /// later, or never while somebody holds it, and until then names would stay.
    fn detach_exited(&self, host: &mut Netlink, records: &mut Records, answers: &Answers) -> Result<bool> {
        let mut changed = false;
        for record in records.all().to_vec() {
            if records.has_ended(&record) {
                continue;
            }
            let has_gone =
                |id: &ContainerId| answers.has_exited(id) || answers.has_left(id, record.namespace);
            let Some(id) = id_of(&record).filter(has_gone) else { continue };
            // It may have been started and attached since.
            if answers.namespaces.get(&id) == Some(&record.namespace) {
                changed |= self.take_interface(host, records, answers, &record)?;
            }
        }
        if changed {
            records.prune(host)?;
        }
        Ok(changed)
    }

    /// Forgets containers that their engine does not know any more. One that was never in the list is
    /// forgotten when it has ended.
    fn forget_gone(&self, host: &mut Netlink, records: &mut Records, answers: &Answers) -> Result<bool> {
        let is_gone = |record: &&Record| {
            id_of(record).is_some_and(|id| {
                answers.is_unknown(&id) && (records.has_ended(record) || self.seen.contains(&id))
            })
        };
        let gone: Vec<Record> = records.all().iter().filter(is_gone).cloned().collect();
        for record in &gone {
            if !records.has_ended(record) {
                // Its namespace may linger.
                self.take_interface(host, records, answers, record)?;
            }
            records.forget_ended(record)?;
        }
        Ok(!gone.is_empty())
    }

    /// Finishes what commands that were killed began: none is at it, since the lock is held.
    fn finish_pending(
        &mut self,
        host: &mut Netlink,
        records: &mut Records,
        answers: &Answers,
    ) -> Result<bool> {
        let mut changed = false;
        let pending = records.all().iter().filter(|record| record.pending.is_some());
        for record in pending.cloned().collect::<Vec<_>>() {
            let Some(id) = id_of(&record) else { continue };
            if records.has_ended(&record) {
                if record.cidrs.is_empty() {
                    records.forget_ended(&record)?;
                    changed = true;
                }
                continue;
            }
            let Some(Ok(found)) = answers.found.get(&id) else { continue };
            let Ok(namespace) = &found.namespace else { continue };
            if namespace.id() != record.namespace {
                continue;
            }
            match records.finish(host, &record, namespace) {
                Ok(()) => changed = true,
                Err(error) => self.say(&id, format!("a command was killed over it: {error}")),
            }
        }
        Ok(changed)
    }

    /// Containers that this engine has are its own, wherever it was asked for them; those of others are
    /// told.
    fn take_note_of_engines(&mut self, records: &mut Records, answers: &Answers) -> Result<()> {
        let before = std::mem::take(&mut self.others);
        for record in records.all().to_vec() {
            let Some(id) = id_of(&record) else { continue };
            if answers.listed.contains_key(&id) {
                records.set_engine(&record.container, &self.place)?;
                continue;
            }
            let Some(engine) = record.engine.as_ref().filter(|_| self.is_of_other(&record)) else { continue };
            let fault = other_engine(engine, &self.place);
            if before.get(&id) != Some(&fault) {
                tracing::warn!(container = id.short(), "{fault}");
            }
            self.others.insert(id, fault);
        }
        Ok(())
    }

    /// Takes the interface of a container that is gone; where others that run share its namespace,
    /// its addresses only. Whether there was one.
    fn take_interface(
        &self,
        host: &mut Netlink,
        records: &mut Records,
        answers: &Answers,
        record: &Record,
    ) -> Result<bool> {
        if let Some(shared) = self.shared_namespace(records, answers, record) {
            return records.leave(host, record, &shared).map(|()| true);
        }
        records.take_interface(host, record)
    }

    /// The namespace of a container, where another one runs in it that is attached, too
    /// (`docker run --net container:…`).
    fn shared_namespace(&self, records: &Records, answers: &Answers, record: &Record) -> Option<Namespace> {
        let others = records.all().iter();
        let others =
            others.filter(|other| other.namespace == record.namespace && other.container != record.container);
        others.filter_map(id_of).filter(|id| answers.runs(id)).find_map(|id| {
            let namespace = Namespace::open(&NamespaceSpec::Pid(*self.processes.get(&id)?)).ok()?;
            (namespace.id() == record.namespace).then_some(namespace)
        })
    }

    /// Attaches as many as there is time for.
    fn attach_some(
        &mut self,
        answers: &Answers,
        host: &mut Netlink,
        rest: &mut VecDeque<ToAttach>,
        holders: &HashMap<IpAddr, MacAddr>,
        changed: &mut bool,
    ) -> Result<()> {
        let gate = Arc::clone(&self.gate);
        let Some(_open) = gate.enter() else {
            rest.clear();
            return Ok(());
        };
        let mut records = Records::open(&self.state_dir)?;
        records.prune(host)?;
        let begin = Instant::now();
        while begin.elapsed() < HELD_MAX
            && let Some(ToAttach { id, labelled, asked }) = rest.pop_front()
        {
            let record = records.all().iter().find(|record| record.container == id.as_str());
            let (cidrs, forced) = match (record, labelled) {
                (Some(record), _) if records.has_ended(record) => (record.cidrs.clone(), record.forced),
                (None, Some(labelled))
                    if self.failures.contains_key(&id) && self.are_kept(&records, &labelled) =>
                {
                    self.waits = true;
                    continue;
                }
                (None, Some(labelled)) if !is_detached(&records, &id) => (labelled, false),
                // Attached or detached since.
                (Some(_) | None, _) => continue,
            };
            // Of one that was not asked for there will be news.
            if let Some(found) = answers.found.get(&id) {
                let is_asked = cidrs.iter().all(|cidr| asked.contains(&cidr.addr()));
                let wait = if is_asked { Duration::ZERO } else { PROBE_WAIT };
                let wanted = Wanted { cidrs: &cidrs, probe: (!forced).then_some(wait), holders };
                *changed |= self.attach(found, host, &mut records, &id, &wanted);
            }
        }
        Ok(())
    }

    /// Whether one of these addresses is that of a container which has just ended.
    fn are_kept(&self, records: &Records, cidrs: &[IpNet]) -> bool {
        let of_ended = records.all().iter().filter(|record| {
            let since = id_of(record).and_then(|id| self.ended.get(&id));
            // Of one that was not known to have ended a moment ago there is no time yet.
            records.has_ended(record) && since.is_none_or(|since| since.elapsed() < KEPT_FOR_RESTART)
        });
        let mut addresses = of_ended.flat_map(|record| &record.cidrs).map(IpNet::addr);
        addresses.any(|kept| cidrs.iter().any(|cidr| cidr.addr() == kept))
    }

    /// The addresses that the label of a container names; of those that are none, it is said once.
    fn labelled_with(&mut self, one: &Listed, answers: &Answers) -> Option<Vec<IpNet>> {
        let text = one.labels.get(CIDR_LABEL)?;
        let words = text.split([' ', ',']).filter(|word| !word.is_empty());
        let words = words.map(|word| word.strip_prefix("ip:").unwrap_or(word).parse());
        let cidrs = match words.collect::<std::result::Result<Vec<IpNet>, _>>() {
            Ok(cidrs) if !cidrs.is_empty() => cidrs,
            Ok(_) | Err(_) => {
                self.say(&one.id, format!("its label {CIDR_LABEL} names no addresses: {text:.80?}"));
                return None;
            }
        };
        answers.found.get(&one.id)?.as_ref().ok()?.container.pid.map(|_| cidrs)
    }

    /// Attaches; what keeps it from that is said once.
    fn attach(
        &mut self,
        found: &Result<Found>,
        host: &mut Netlink,
        records: &mut Records,
        id: &ContainerId,
        wanted: &Wanted<'_>,
    ) -> bool {
        let options = AttachOptions { mac: None, mtu: None, probe: wanted.probe };
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                self.say(id, format!("cannot be attached: {error}"));
                return false;
            }
        };
        let attached = match &found.namespace {
            // It has ended since: there will be news of it.
            Ok(namespace) if !is_still_in(&found.container, namespace) => return false,
            Ok(namespace) => {
                let known = Known { called: found.container.called(), engine: self.place.clone() };
                let free = self.refuse_taken(host, namespace, wanted);
                free.and_then(|()| {
                    records.attach_known(host, id.as_str(), namespace, wanted.cidrs, &options, Some(known))
                })
                .map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        match attached {
            Ok(_) => {
                self.failures.remove(id);
                tracing::info!(container = id.short(), "attached");
                true
            }
            Err(error) => {
                self.has_failed = true;
                self.say(id, format!("cannot be attached: {error}"));
                false
            }
        }
    }

    /// Refuses addresses that a container of another host has, or a station that answered for one, unless
    /// that is what is attached in this namespace already.
    fn refuse_taken(&self, host: &mut Netlink, namespace: &Namespace, wanted: &Wanted<'_>) -> Result<()> {
        let &Wanted { cidrs, probe, holders } = wanted;
        if probe.is_none() {
            return Ok(());
        }
        self.elsewhere.refuse_attached(cidrs)?;
        let held = cidrs.iter().filter_map(|cidr| Some((cidr.addr(), *holders.get(&cidr.addr())?)));
        let held: Vec<(IpAddr, MacAddr)> = held.collect();
        if held.is_empty() {
            return Ok(());
        }
        // As the kernel has it: the record of it may be damaged.
        let own = attached(host, namespace)?.map(|attachment| attachment.mac);
        held.into_iter().find(|(_, mac)| Some(*mac) != own).map_or(Ok(()), |(address, mac)| {
            Err(Error::AddressInUse { address, holder: format!("station {mac}") })
        })
    }

    fn say(&mut self, id: &ContainerId, what: String) {
        if self.failures.get(id) != Some(&what) {
            tracing::warn!(container = id.short(), "{what}");
            self.failures.insert(id.clone(), what);
        }
    }
}

/// Who has addresses of these on the network: all are asked for at once, since nobody answers for those
/// that are free, and each would be waited for.
fn holders(host: &mut Netlink, all: &VecDeque<ToAttach>) -> Result<HashMap<IpAddr, MacAddr>> {
    let addresses: Vec<IpAddr> = all.iter().flat_map(|one| one.asked.iter().copied()).collect();
    // Without a bridge there is nobody on the network.
    let Some(bridge) = host.link(BRIDGE)? else { return Ok(HashMap::new()) };
    let holders = probe_on(BRIDGE, &bridge, &addresses, PROBE_WAIT)?;
    Ok(holders.into_iter().map(|holder| (holder.address, holder.mac)).collect())
}

/// A state of containers, and why each is in it.
fn named(name: &'static str, whys: &BTreeMap<ContainerId, String>) -> Option<Degraded> {
    let named: Vec<String> =
        whys.iter().take(NAMED).map(|(id, why)| format!("container {} {why}", id.short())).collect();
    let more = match whys.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let reason = format!("{}{more}", named.join("; "));
    (!whys.is_empty()).then_some(Degraded { name, reason })
}

/// Whether the user detached it in this run.
fn is_detached(records: &Records, id: &ContainerId) -> bool {
    records.detached_runs().iter().any(|run| run.container == id.as_str())
}

/// Forgets what was detached in a run that is over, or is attached.
fn forget_detached(records: &mut Records, answers: &Answers) -> Result<()> {
    for run in records.detached_runs().to_vec() {
        let is_attached = records.all().iter().any(|record| record.container == run.container);
        if is_attached || answers.is_over(&run) {
            records.forget_detached(&run.container)?;
        }
    }
    Ok(())
}

/// Takes note of new names of containers.
fn rename(records: &mut Records, answers: &Answers) -> Result<bool> {
    let mut changed = false;
    for record in records.all().to_vec() {
        let Some(id) = id_of(&record) else { continue };
        let is_new = answers.listed.get(&id).is_some_and(|one| is_renamed(&record, one));
        if let Some(Ok(found)) = answers.found.get(&id).filter(|_| is_new) {
            let called = found.container.called();
            changed |= records.change_names(&record.container, |names| names.refresh(called))?;
        }
    }
    Ok(changed)
}
