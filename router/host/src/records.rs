//! Attachments as they are remembered: one file each, and the operations that
//! keep files and kernel in step.
//!
//! A file is written before the interface it speaks of is made or changed, and says so as long as
//! that is done ([`Record::pending`]): what a command that was killed left is finished by the keeper,
//! and there is never an interface that nobody knows of.

mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use weave_wire::MacAddr;

use crate::address::check_cidrs;
use crate::attach::{AttachOptions, Attachment, Detached, attach_and, attached, choose_mtu, detach};
use crate::bridge::{BRIDGE, mtu_of, random_mac};
use crate::detached::{DetachedRun, DetachedRuns};
use crate::error::{Error, Result};
use crate::firewall::{Guard, GuardedPort};
use crate::names::ContainerNames;
use crate::namespace::{Namespace, NamespaceId};
use crate::netlink::Netlink;
use crate::policy::HostPolicy;
use crate::store::{Aside, StateDir, StateLock};
use record::file_name;
pub(crate) use record::has_interface;
pub use record::{CONTAINER_MAX, DIRECTORY, Known, Record, other_engine, read_all};

/// The records of this host, locked against other commands.
#[derive(Debug)]
pub struct Records {
    directory: StateDir,
    _lock: StateLock,
    records: Vec<Record>,
    /// Containers that have no interface since [`Self::prune`].
    ended: BTreeSet<String>,
    detached: DetachedRuns,
    aside: Vec<Aside>,
    /// Containers send from their own addresses only.
    guarded: bool,
}

impl Records {
    /// Reads and locks the records in a state directory, making it if need be.
    ///
    /// # Errors
    /// [`Error::State`].
    pub fn open(state_dir: &Path) -> Result<Self> {
        let state = StateDir::create(state_dir)?;
        let lock = state.lock()?;
        // Made with the first file: who only looks changes nothing.
        let directory = StateDir::existing(state_dir.join(DIRECTORY));
        let (policy, damaged) = HostPolicy::read_own(&state)?;
        let (records, mut aside) = directory.read_all_own::<Record>()?;
        aside.extend(damaged);
        let (detached, damaged) = DetachedRuns::read_own(state_dir)?;
        aside.extend(damaged);
        // The keeper has no user to tell.
        aside.iter().for_each(Aside::warn);
        let guarded = policy.is_some_and(|policy| policy.guard);
        Ok(Self { directory, _lock: lock, records, ended: BTreeSet::new(), detached, aside, guarded })
    }

    /// All records.
    #[must_use]
    pub fn all(&self) -> &[Record] {
        &self.records
    }

    /// Damaged files that were set aside: to be told to the user.
    #[must_use]
    pub fn set_aside(&self) -> &[Aside] {
        &self.aside
    }

    /// Forgets attachments whose interface is gone: their containers have ended. Those of an
    /// engine's containers are kept: they may run again; and those of namespaces that seem to live on,
    /// or to be made again since the host was started anew: the keeper knows whether they do.
    ///
    /// # Errors
    /// When the kernel or the file system refuses.
    pub fn prune(&mut self, host: &mut Netlink) -> Result<()> {
        self.ended.clear();
        let mut kept = Vec::with_capacity(self.records.len());
        for record in std::mem::take(&mut self.records) {
            // One by one: a list taken while interfaces come and go may lack some.
            if has_interface(host, &record)? {
                kept.push(record);
            } else if record.is_of_engine() || record.open().or_else(|| record.come_back()).is_some() {
                self.ended.insert(record.container.clone());
                kept.push(record);
            } else {
                self.directory.remove(&record.file_name())?;
            }
        }
        self.records = kept;
        Ok(())
    }

    /// Attaches, as [`attach`](fn@attach) does, and remembers it. MAC and addresses
    /// remembered for a container of an engine that ran before are used again.
    ///
    /// # Errors
    /// [`Error::AddressInUse`] also when another container of this host has an
    /// address, [`Error::RememberedInUse`] for one that is remembered and not among `cidrs`; otherwise
    /// as [`attach`](fn@attach). Nothing has changed then.
    pub fn attach(
        &mut self,
        host: &mut Netlink,
        container: &str,
        namespace: &Namespace,
        cidrs: &[IpNet],
        options: &AttachOptions,
    ) -> Result<Attachment> {
        self.attach_known(host, container, namespace, cidrs, options, None)
    }

    /// The same, and remembers what is `known` of a container of an engine.
    ///
    /// # Errors
    /// As [`Self::attach`].
    pub fn attach_known(
        &mut self,
        host: &mut Netlink,
        container: &str,
        namespace: &Namespace,
        cidrs: &[IpNet],
        options: &AttachOptions,
        known: Option<Known>,
    ) -> Result<Attachment> {
        if container.len() > CONTAINER_MAX {
            return Err(Error::invalid(
                "the name of the container",
                format!("longer than {CONTAINER_MAX} bytes"),
            ));
        }
        namespace.refuse_own()?;
        let typed = check_cidrs(cidrs)?;
        self.prune(host)?;
        let id = namespace.id();
        let present = attached(host, namespace)?;
        if present.is_none() {
            self.disown(container, id)?;
        }
        let container = &self.remembered_as(container, id);
        let before = self.find(container, id).cloned();
        let again = before.as_ref().filter(|record| record.is_of_engine() && present.is_none());
        let remembered = again.map_or(&[][..], |record| &record.cidrs);
        let cidrs: Vec<IpNet> = remembered.iter().chain(&typed).copied().collect();
        let cidrs = check_cidrs(&cidrs)?;
        let refused = |error| if_remembered(error, &cidrs, &typed, container);
        self.refuse_duplicates(container, id, &cidrs).map_err(refused)?;
        if options.probe.is_some() {
            let held = present.as_ref().map_or(&[][..], |present| &present.cidrs);
            let new: Vec<IpAddr> =
                cidrs.iter().filter(|cidr| !held.contains(cidr)).map(IpNet::addr).collect();
            host.refuse_own(&new, None).map_err(refused)?;
        }
        let new = |mac, cidrs| Record {
            container: container.into(),
            namespace: id,
            mac,
            cidrs,
            mtu: None,
            forced: false,
            pending: None,
            boot: None,
            names: ContainerNames::default(),
            engine: None,
        };
        let mut record = match (&before, &present) {
            (Some(record), Some(_)) => Record { namespace: id, ..record.clone() },
            (Some(record), None) if record.is_of_engine() => {
                let mac = if self.is_used(record.mac, container) { random_mac()? } else { record.mac };
                Record { namespace: id, mac, ..record.clone() }
            }
            // The interface is there: take up what of it nobody remembers.
            (None, Some(present)) => {
                let own = present.cidrs.iter().filter(|cidr| !self.is_shared(container, id, cidr));
                new(present.mac, own.copied().collect())
            }
            // Left over from another namespace of this number.
            (_, None) => new(options.mac.map_or_else(random_mac, Ok)?, Vec::new()),
        };
        if let Some(known) = known {
            record.names.refresh(known.called);
            record.engine = Some(known.engine);
        }
        record.forced |= options.probe.is_none();
        record.boot = record::boot();
        let bridge_mtu = mtu_of(host.link(BRIDGE)?.as_ref());
        // Somebody may have changed that of the container's end.
        let old_mtu = present.as_ref().map(|present| record.mtu.unwrap_or(present.mtu));
        record.mtu = Some(choose_mtu(options, old_mtu, bridge_mtu));
        for cidr in &cidrs {
            if !record.cidrs.contains(cidr) {
                record.cidrs.push(*cidr);
            }
        }
        let is_there = |cidr| present.as_ref().is_some_and(|present| present.cidrs.contains(cidr));
        let is_done = before.as_ref() == Some(&record) && cidrs.iter().all(is_there);
        // What an earlier command was to take goes still.
        let leaving: Vec<IpNet> = record.pending.take().unwrap_or_default();
        let leaving: Vec<IpNet> = leaving.into_iter().filter(|cidr| !record.cidrs.contains(cidr)).collect();
        if !is_done {
            self.put(Record { pending: Some(leaving.clone()), ..record.clone() })?;
        }
        let was_ended = self.ended.remove(container);
        let options = AttachOptions { mac: Some(record.mac), mtu: record.mtu, ..options.clone() };
        let mac = record.mac;
        let pending = (!leaving.is_empty()).then_some(leaving);
        let attached = self.renew_guard().and_then(|()| {
            // Rules come before the interface: it never sends without them.
            attach_and(host, namespace, &cidrs, &options, |attachment| {
                self.put(Record { mac: attachment.mac, pending, ..record })?;
                if attachment.mac != mac {
                    self.renew_guard()?;
                }
                self.detached.remove(container)
            })
        });
        match attached {
            Ok(attachment) => Ok(attachment),
            Err(error) => {
                let undone = match before {
                    Some(before) => self.put(before),
                    None => self.forget(container, id),
                };
                if was_ended {
                    self.ended.insert(container.to_owned());
                }
                let unguarded = self.renew_guard();
                Err(refused(error).after_undo(undone.and(unguarded)))
            }
        }
    }

    /// The rules for what containers of this host may send; `None` where they may send anything.
    /// Those that do not run have none since [`Self::prune`].
    #[must_use]
    pub fn guard(&self) -> Option<Guard> {
        // Containers that share a namespace share a port, and may send with the addresses of each.
        let mut ports = BTreeMap::new();
        for record in self.records.iter().filter(|record| !self.has_ended(record)) {
            let interface = record.host_interface();
            let new = || GuardedPort { interface: interface.clone(), mac: record.mac, addresses: Vec::new() };
            let port: &mut GuardedPort = ports.entry(interface.clone()).or_insert_with(new);
            port.addresses.extend(record.cidrs.iter().map(IpNet::addr));
        }
        self.guarded.then(|| Guard::new(&ports.into_values().collect::<Vec<_>>()))
    }

    /// Guards what is attached, or takes the guard of an earlier launch away.
    ///
    /// # Errors
    /// What the kernel or the firewall refuses.
    pub fn set_guard(&mut self, host: &mut Netlink) -> Result<()> {
        self.prune(host)?;
        self.guard().map_or_else(Guard::remove, |guard| guard.apply())
    }

    /// Puts the rules of [`Self::guard`] in step with the records.
    fn renew_guard(&self) -> Result<()> {
        self.guard().map_or(Ok(()), |guard| guard.apply())
    }

    /// Detaches, as [`detach`] does, and remembers what is left; of a container that has nothing left
    /// its run, if it is one of `runs`, so that its label does not attach it again.
    ///
    /// # Errors
    /// As [`detach`].
    pub fn detach(
        &mut self,
        host: &mut Netlink,
        container: &str,
        namespace: &Namespace,
        cidrs: &[IpNet],
        runs: &[DetachedRun],
    ) -> Result<Detached> {
        self.prune(host)?;
        let id = namespace.id();
        // It may have been attached by another name, or share the namespace with others.
        let name = file_name(container, id);
        let is_there = |record: &&Record| {
            record.file_name() == name || record.namespace == id && !self.has_ended(record)
        };
        let before: Vec<Record> = self.records.iter().filter(is_there).cloned().collect();
        let names: Vec<String> = before.iter().map(Record::file_name).collect();
        // Also what a command that was killed was to take.
        let mut leaving = cidrs.to_vec();
        leaving.extend(before.iter().flat_map(|record| self.leaving(record)));
        let detached = self
            .begin_detach(&before, cidrs, runs)
            .and_then(|()| detach(host, namespace, &leaving))
            .map_err(|error| error.after_undo(self.undo_detach(&before)))?;
        for name in names {
            let record = self.records.iter().find(|record| record.file_name() == name);
            let Some(record) = record.cloned() else { continue };
            // What is not there just now, as right after a start, comes back.
            let left = Record { pending: None, ..record.clone() };
            if left.cidrs.is_empty() {
                if let Some(run) = runs.iter().find(|run| run.container == left.container) {
                    self.detached.put(run.clone())?;
                }
                self.forget(&left.container, id)?;
            } else if left != record {
                self.put(left)?;
            }
        }
        self.renew_guard()?;
        Ok(detached)
    }

    /// Says what is to go before it goes, so that it goes also if this is all that is done; while the
    /// record is there nobody asks the label.
    fn begin_detach(&mut self, records: &[Record], cidrs: &[IpNet], runs: &[DetachedRun]) -> Result<()> {
        for record in records {
            let (leaving, left): (Vec<IpNet>, Vec<IpNet>) =
                record.cidrs.iter().copied().partition(|cidr| cidrs.contains(cidr));
            if leaving.is_empty() {
                continue;
            }
            if let Some(run) = runs.iter().find(|run| run.container == record.container && left.is_empty()) {
                self.detached.put(run.clone())?;
            }
            let before = record.pending.iter().flatten().copied();
            let pending = Some(before.chain(leaving).collect());
            self.put(Record { cidrs: left, pending, ..record.clone() })?;
        }
        Ok(())
    }

    fn undo_detach(&mut self, before: &[Record]) -> Result<()> {
        for record in before {
            if self.records.contains(record) {
                continue;
            }
            self.detached.remove(&record.container)?;
            self.put(record.clone())?;
        }
        Ok(())
    }

    /// Finishes what a command that was killed began with an attachment.
    ///
    /// # Errors
    /// As [`detach`](fn@detach) and [`Self::attach`]; it is pending still.
    pub fn finish(&mut self, host: &mut Netlink, record: &Record, namespace: &Namespace) -> Result<()> {
        let leaving = self.leaving(record);
        if !leaving.is_empty() {
            detach(host, namespace, &leaving)?;
        }
        if record.cidrs.is_empty() {
            return self.forget_ended(record);
        }
        self.put(Record { pending: Some(Vec::new()), ..record.clone() })?;
        self.attach(host, &record.container, namespace, &record.cidrs, &record.options()).map(drop)
    }

    /// What a command that was killed was to take from a container, but for what others in its
    /// namespace have.
    fn leaving(&self, record: &Record) -> Vec<IpNet> {
        let held = |cidr: &&IpNet| {
            let mut all = self.records.iter().filter(|one| one.namespace == record.namespace);
            all.any(|one| one.cidrs.contains(cidr))
        };
        record.pending.iter().flatten().filter(|cidr| !held(cidr)).copied().collect()
    }

    /// A container of an engine has ended, and others go on in its namespace: takes the addresses away
    /// that none of them has, and remembers its own.
    ///
    /// # Errors
    /// As [`detach`].
    #[cfg(feature = "engine")]
    pub(crate) fn leave(&mut self, host: &mut Netlink, record: &Record, namespace: &Namespace) -> Result<()> {
        let is_its_own = |cidr: &&IpNet| !self.is_shared(&record.container, record.namespace, cidr);
        let own: Vec<IpNet> = record.cidrs.iter().filter(is_its_own).copied().collect();
        if !own.is_empty() {
            detach(host, namespace, &own)?;
        }
        self.put(Record { namespace: NamespaceId::GONE, ..record.clone() })?;
        self.ended.insert(record.container.clone());
        self.renew_guard()
    }

    /// A container of an engine that does not run gets exactly these addresses, in this order, when
    /// it runs again. Returns those it would have got; `None`: it runs, or nothing is remembered.
    ///
    /// # Errors
    /// [`Error::AddressInUse`] when another container of this host has an address, whether this one
    /// is remembered or not; when the kernel or the file system refuses. Nothing has changed then.
    pub fn remember(
        &mut self,
        host: &mut Netlink,
        container: &str,
        cidrs: &[IpNet],
    ) -> Result<Option<Vec<IpNet>>> {
        let cidrs = check_cidrs(cidrs)?;
        self.prune(host)?;
        self.refuse_duplicates(container, NamespaceId::GONE, &cidrs)?;
        let ended =
            self.records.iter().find(|record| record.container == container && self.has_ended(record));
        let Some(record) = ended.cloned() else { return Ok(None) };
        self.put(Record { cidrs, ..record.clone() })?;
        Ok(Some(record.cidrs))
    }

    /// Refuses addresses that a container of this host has or, if asked for with `own`, one of the
    /// host's own interfaces: for a container that is still to be made.
    ///
    /// # Errors
    /// [`Error::AddressInUse`]; when the kernel or the file system refuses.
    pub fn refuse_taken(&mut self, host: &mut Netlink, cidrs: &[IpNet], own: bool) -> Result<()> {
        let cidrs = check_cidrs(cidrs)?;
        self.prune(host)?;
        self.refuse_duplicates("", NamespaceId::GONE, &cidrs)?;
        let addresses: Vec<IpAddr> = cidrs.iter().filter(|_| own).map(IpNet::addr).collect();
        host.refuse_own(&addresses, None)
    }

    /// Takes the interface of a container that has ended: with its last process the kernel takes a
    /// namespace away when it has time, which may be seconds later. False if there is none.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn take_interface(&self, host: &mut Netlink, record: &Record) -> Result<bool> {
        let Some(link) = host.link(&record.host_interface())? else { return Ok(false) };
        host.delete_link(&link).map(|()| true)
    }

    /// Changes what a container is called. False if it is not attached.
    ///
    /// # Errors
    /// [`Error::State`].
    pub fn change_names(
        &mut self,
        container: &str,
        change: impl FnOnce(&mut ContainerNames),
    ) -> Result<bool> {
        let Some(record) = self.records.iter().find(|record| record.container == container) else {
            return Ok(false);
        };
        let mut new = record.clone();
        change(&mut new.names);
        if new != *record {
            self.put(new)?;
        }
        Ok(true)
    }

    /// Remembers that the engine there has this container. False if it is not attached.
    ///
    /// # Errors
    /// [`Error::State`].
    pub fn set_engine(&mut self, container: &str, engine: &str) -> Result<bool> {
        let Some(record) = self.records.iter().find(|record| record.container == container) else {
            return Ok(false);
        };
        if record.engine.as_deref() != Some(engine) {
            self.put(Record { engine: Some(engine.to_owned()), ..record.clone() })?;
        }
        Ok(true)
    }

    /// Containers that the user detached and that are not to be attached by their label, with the
    /// run of each.
    #[must_use]
    pub fn detached_runs(&self) -> &[DetachedRun] {
        self.detached.all()
    }

    /// Forgets that a container was detached: it does not run any more, or anew.
    ///
    /// # Errors
    /// [`Error::State`].
    pub fn forget_detached(&mut self, container: &str) -> Result<()> {
        self.detached.remove(container)
    }

    fn refuse_duplicates(&self, container: &str, id: NamespaceId, cidrs: &[IpNet]) -> Result<()> {
        let name = file_name(container, id);
        // What others in its namespace have it has, too.
        let is_other = |record: &&Record| record.file_name() != name && record.namespace != id;
        let others = self.records.iter().filter(is_other);
        // One that does not run has no addresses.
        for record in others.filter(|record| !self.ended.contains(&record.container)) {
            let taken =
                cidrs.iter().find(|cidr| record.cidrs.iter().any(|other| other.addr() == cidr.addr()));
            if let Some(cidr) = taken {
                return Err(Error::AddressInUse {
                    address: cidr.addr(),
                    holder: format!("container {} of this host", record.container),
                });
            }
        }
        Ok(())
    }

    /// What a container is remembered as that may have been named by its namespace: as the one container of
    /// an engine that is attached there.
    fn remembered_as(&self, container: &str, id: NamespaceId) -> String {
        let is_there = |record: &&Record| record.is_of_engine() && record.namespace == id;
        let mut there = self.records.iter().filter(is_there).filter(|record| !self.has_ended(record));
        match (there.next(), there.next()) {
            (Some(record), None)
                if self.find(container, id).is_none() && !record::is_engine_id(container) =>
            {
                record.container.clone()
            }
            _ => container.to_owned(),
        }
    }

    /// Whether another container has an interface of this MAC: those that share a namespace have one
    /// together, and may part.
    fn is_used(&self, mac: MacAddr, container: &str) -> bool {
        let mut attached = self.records.iter().filter(|record| !self.has_ended(record));
        attached.any(|record| record.mac == mac && record.container != container)
    }

    /// Whether an address is remembered of another container in that namespace.
    #[must_use]
    pub fn is_shared(&self, container: &str, id: NamespaceId, cidr: &IpNet) -> bool {
        let mut others = self.records.iter();
        others.any(|one| one.namespace == id && one.container != container && one.cidrs.contains(cidr))
    }

    /// What is remembered of a container.
    #[must_use]
    pub fn find(&self, container: &str, id: NamespaceId) -> Option<&Record> {
        let name = file_name(container, id);
        self.records.iter().find(|record| record.file_name() == name)
    }

    /// Containers that had a namespace of this number have ended, since it has no interface: the
    /// one that is to be attached there must not be taken for them.
    fn disown(&mut self, container: &str, id: NamespaceId) -> Result<()> {
        let is_other = |record: &&Record| record.namespace == id && record.container != container;
        for record in self.records.iter().filter(is_other).cloned().collect::<Vec<_>>() {
            self.put(Record { namespace: NamespaceId::GONE, ..record })?;
        }
        Ok(())
    }

    fn put(&mut self, record: Record) -> Result<()> {
        let name = record.file_name();
        self.directory = StateDir::create(self.directory.path())?;
        self.directory.write(&name, &record)?;
        self.records.retain(|other| other.file_name() != name);
        self.records.push(record);
        Ok(())
    }

    fn forget(&mut self, container: &str, id: NamespaceId) -> Result<()> {
        let name = file_name(container, id);
        self.directory.remove(&name)?;
        self.records.retain(|record| record.file_name() != name);
        Ok(())
    }

    /// True for a container that had no interface when [`Self::prune`] looked.
    #[must_use]
    pub fn has_ended(&self, record: &Record) -> bool {
        self.ended.contains(&record.container)
    }

    /// Forgets a container that is gone for good.
    ///
    /// # Errors
    /// [`Error::State`]; what the firewall refuses.
    pub fn forget_ended(&mut self, record: &Record) -> Result<()> {
        self.forget(&record.container, record.namespace)?;
        self.renew_guard()
    }
}

/// An address in use that nobody named: it is remembered of the container.
fn if_remembered(error: Error, cidrs: &[IpNet], typed: &[IpNet], container: &str) -> Error {
    let Error::AddressInUse { address, holder } = error else { return error };
    let of = |cidrs: &[IpNet]| cidrs.iter().copied().find(|cidr| cidr.addr() == address);
    match of(cidrs).filter(|_| of(typed).is_none()) {
        Some(cidr) => Error::RememberedInUse { cidr, container: container.to_owned(), holder },
        None => Error::AddressInUse { address, holder },
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        // A command that failed leaves no trace; a directory with files stays.
        if self.records.is_empty() {
            let _ = std::fs::remove_dir(self.directory.path());
        }
        self.detached.tidy();
    }
}
