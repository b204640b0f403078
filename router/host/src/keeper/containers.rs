//! Containers of the engine: attached again when they run again, forgotten when they are gone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use ipnet::IpNet;

use crate::attach::{AttachOptions, PROBE_WAIT};
use crate::engine::{ContainerId, Engine, Listed};
use crate::error::{Error, Result};
use crate::netlink::Netlink;
use crate::records::{Record, Records};

/// The label that attaches a container without a command: addresses separated by blanks or commas.
pub const CIDR_LABEL: &str = "weave.cidr";

/// What is known of the engine's containers.
pub(super) struct Containers {
    state_dir: PathBuf,
    engine_host: String,
    /// Kept while it answers.
    engine: Option<Engine>,
    /// Containers attached by their label, with the first process each had then: what a user
    /// detached stays so until the container runs anew.
    labelled: HashMap<ContainerId, u32>,
    /// Containers that it had in its list and that may be remembered.
    seen: HashSet<ContainerId>,
    /// What could not be done, so that it is said once.
    failures: BTreeMap<ContainerId, String>,
}

impl Containers {
    pub(super) fn new(state_dir: PathBuf, engine_host: String) -> Self {
        Self {
            state_dir,
            engine_host,
            engine: None,
            labelled: HashMap::new(),
            seen: HashSet::new(),
            failures: BTreeMap::new(),
        }
    }

    /// Brings records and interfaces in step with the engine. True if an attachment changed.
    pub(super) fn keep(&mut self) -> Result<bool> {
        let engine = match self.engine.take() {
            Some(engine) => engine,
            None => Engine::new(&self.engine_host)?,
        };
        let changed = self.keep_those_of(&engine)?;
        self.engine = Some(engine);
        Ok(changed)
    }

    fn keep_those_of(&mut self, engine: &Engine) -> Result<bool> {
        let listed: HashMap<ContainerId, Listed> =
            engine.list()?.into_iter().map(|one| (one.id.clone(), one)).collect();
        let mut host = Netlink::open()?;
        let mut records = Records::open(&self.state_dir)?;
        records.prune(&mut host)?;
        let mut changed = detach_exited(engine, &mut host, &mut records, &listed)?;
        changed |= forget_gone(engine, &mut host, &mut records, &listed, &self.seen)?;
        self.seen.retain(|id| records.all().iter().any(|record| record.container == id.as_str()));
        self.seen.extend(listed.keys().cloned());
        changed |= rename(engine, &mut records, &listed)?;
        let known: Vec<Record> = records.all().iter().filter(|one| one.is_of_engine()).cloned().collect();
        let ended: Vec<Record> = known.iter().filter(|record| records.has_ended(record)).cloned().collect();
        for record in &ended {
            let Ok(id) = record.container.parse::<ContainerId>() else { continue };
            if listed.get(&id).is_some_and(|one| one.running) {
                changed |= self.attach(engine, &mut host, &mut records, &id, &record.cidrs);
            }
        }
        let unknown = listed.values().filter(|one| one.running);
        for one in unknown.filter(|one| known.iter().all(|record| record.container != one.id.as_str())) {
            if let Some(cidrs) = one.labels.get(CIDR_LABEL).and_then(|text| self.labelled_with(one, text)) {
                changed |= self.attach_labelled(engine, &mut host, &mut records, &one.id, &cidrs);
            }
        }
        self.labelled.retain(|id, _| listed.contains_key(id));
        self.failures.retain(|id, _| listed.contains_key(id));
        Ok(changed)
    }

    /// The addresses a label names; `None` if they are none, which is said once.
    fn labelled_with(&mut self, one: &Listed, text: &str) -> Option<Vec<IpNet>> {
        let words = text.split([' ', ',']).filter(|word| !word.is_empty());
        let words = words.map(|word| word.strip_prefix("ip:").unwrap_or(word).parse());
        match words.collect::<std::result::Result<Vec<IpNet>, _>>() {
            Ok(cidrs) if !cidrs.is_empty() => Some(cidrs),
            Ok(_) | Err(_) => {
                self.say(&one.id, format!("its label {CIDR_LABEL} names no addresses: {text:.80?}"));
                None
            }
        }
    }

    fn attach_labelled(
        &mut self,
        engine: &Engine,
        host: &mut Netlink,
        records: &mut Records,
        id: &ContainerId,
        cidrs: &[IpNet],
    ) -> bool {
        let Some(pid) = engine.find(id.as_str()).ok().and_then(|container| container.pid) else {
            return false;
        };
        if self.labelled.get(id) == Some(&pid) {
            return false;
        }
        let attached = self.attach(engine, host, records, id, cidrs);
        if attached {
            self.labelled.insert(id.clone(), pid);
        }
        attached
    }

    /// Attaches; what keeps it from that is said once.
    fn attach(
        &mut self,
        engine: &Engine,
        host: &mut Netlink,
        records: &mut Records,
        id: &ContainerId,
        cidrs: &[IpNet],
    ) -> bool {
        let options = AttachOptions { mac: None, mtu: None, probe: Some(PROBE_WAIT) };
        let attached = engine.find(id.as_str()).and_then(|container| {
            let namespace = engine.namespace(&container)?;
            records.attach(host, id.as_str(), &namespace, cidrs, &options)?;
            records.change_names(id.as_str(), |names| names.refresh(container.called()))
        });
        match attached {
            Ok(_) => {
                self.failures.remove(id);
                tracing::info!(container = id.short(), "attached");
                true
            }
            Err(error) => {
                self.say(id, format!("cannot be attached: {error}"));
                false
            }
        }
    }

    fn say(&mut self, id: &ContainerId, what: String) {
        if self.failures.get(id) != Some(&what) {
            tracing::warn!(container = id.short(), "{what}");
            self.failures.insert(id.clone(), what);
        }
    }
}

/// Takes note of new names of containers.
fn rename(engine: &Engine, records: &mut Records, listed: &HashMap<ContainerId, Listed>) -> Result<bool> {
    let is_new = |record: &&Record| {
        let listed = record.container.parse().ok().and_then(|id: ContainerId| listed.get(&id));
        listed.is_some_and(|one| one.name.is_some() && one.name != record.names.engine)
    };
    let renamed: Vec<Record> = records.all().iter().filter(is_new).cloned().collect();
    let mut changed = false;
    for record in renamed {
        // One that is gone by now is no failure.
        if let Ok(container) = engine.find(&record.container) {
            changed |= records.change_names(&record.container, |names| names.refresh(container.called()))?;
        }
    }
    Ok(changed)
}

/// Takes the interfaces of containers that have ended: with the last of them the kernel takes a
/// namespace away when it has time, which may be seconds later, and until then names would stay.
fn detach_exited(
    engine: &Engine,
    host: &mut Netlink,
    records: &mut Records,
    listed: &HashMap<ContainerId, Listed>,
) -> Result<bool> {
    let mut changed = false;
    for record in records.all().iter().filter(|record| !records.has_ended(record)) {
        let Ok(id) = record.container.parse::<ContainerId>() else { continue };
        // The list of Podman is late: one that was started again says so itself.
        let has_exited = listed.get(&id).is_some_and(|one| one.exited)
            && engine.find(id.as_str()).is_ok_and(|container| container.pid.is_none());
        if let Some(link) = host.link(&record.host_interface())?.filter(|_| has_exited) {
            host.delete_link(&link)?;
            changed = true;
        }
    }
    if changed {
        records.prune(host)?;
    }
    Ok(changed)
}

/// Forgets containers that the engine does not know any more. One that it never had in its list is
/// of another engine for all that is known, and forgotten when it has ended.
fn forget_gone(
    engine: &Engine,
    host: &mut Netlink,
    records: &mut Records,
    listed: &HashMap<ContainerId, Listed>,
    seen: &HashSet<ContainerId>,
) -> Result<bool> {
    let is_gone = |record: &&Record| {
        let Ok(id) = record.container.parse::<ContainerId>() else { return false };
        !listed.contains_key(&id)
            && (records.has_ended(record) || seen.contains(&id))
            // The list may be older than the record.
            && matches!(engine.find(id.as_str()), Err(Error::NoContainer { .. }))
    };
    let gone: Vec<Record> = records.all().iter().filter(is_gone).cloned().collect();
    for record in &gone {
        // Its namespace may linger.
        if let Some(link) = host.link(&record.host_interface())?.filter(|_| !records.has_ended(record)) {
            host.delete_link(&link)?;
        }
        records.forget_ended(record)?;
    }
    Ok(!gone.is_empty())
}
