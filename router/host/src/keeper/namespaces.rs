//! Attachments of namespaces that no engine tells of: made again where somebody deleted an interface
//! and the namespace lives on, or where the host was started anew and somebody makes a namespace of
//! that name at each start; forgotten where it does not.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Elsewhere;
use crate::error::Result;
use crate::namespace::Namespace;
use crate::netlink::{Link, Netlink};
use crate::records::{self, Record, Records};

/// An attachment that was seen: by the index of the host's end, and the namespace's cookie. Names of
/// interfaces and numbers of namespaces are used again, these are not.
type Seen = (u32, u64);
/// No interface has this index.
const NOT_SEEN: u32 = 0;

/// How long one with a name is remembered that went under this keeper's eyes: a host that is shut down
/// takes such namespaces away before the keeper, and has them again at its next start.
const GONE_KEPT: Duration = Duration::from_secs(120);

/// Those of this host, by the name of the host's end.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    seen: HashMap<String, Seen>,
    /// Since when those with a name are gone.
    gone: HashMap<String, Instant>,
}

impl Namespaces {
    /// Makes again what was deleted since the last look; how many.
    ///
    /// # Errors
    /// When the kernel refuses or the state cannot be read; what one attachment lacks is logged.
    pub(super) fn keep(
        &mut self,
        state_dir: &Path,
        elsewhere: &Elsewhere,
        host: &mut Netlink,
        links: &[Link],
    ) -> Result<u64> {
        let (mut gone, mut pending) = (Vec::new(), Vec::new());
        let before = std::mem::take(&mut self.seen);
        let (all, _damaged) = records::read_all(state_dir)?;
        for record in all.into_iter().filter(|record| !record.is_of_engine()) {
            let name = record.host_interface();
            let known = before.get(&name).copied();
            match links.iter().find(|link| link.name == name) {
                Some(link) => {
                    self.gone.remove(&name);
                    let cookie = known.filter(|(index, _)| *index == link.index).map(|(_, cookie)| cookie);
                    let cookie = cookie.or_else(|| record.open()?.cookie().ok());
                    self.seen.extend(cookie.map(|cookie| (name, (link.index, cookie))));
                    if record.pending.is_some() {
                        pending.push(record);
                    }
                }
                None => gone.push((record, known.map(|(_, cookie)| cookie))),
            }
        }
        if gone.is_empty() && pending.is_empty() {
            return Ok(0);
        }
        let mut records = Records::open(state_dir)?;
        for record in pending {
            // Else whoever was at it is done.
            if !records.all().contains(&record) {
                continue;
            }
            let Some(namespace) = record.open() else { continue };
            if let Err(error) = records.finish(host, &record, &namespace) {
                tracing::warn!(container = record.container, "a command was killed over it: {error}");
            }
        }
        let mut repairs = 0;
        for (record, cookie) in gone {
            // It may have been detached since, or is just being attached.
            if !records.all().contains(&record) || records::has_interface(host, &record)? {
                continue;
            }
            let is_same = |namespace: &Namespace| {
                cookie.is_some() && namespace.cookie().ok() == cookie && !record.cidrs.is_empty()
            };
            let Some(namespace) = record.open().filter(is_same) else {
                match record.come_back() {
                    Some(namespace) => attach_after_boot(&mut records, elsewhere, host, &record, &namespace)?,
                    None if cookie.is_some() && record.is_named() && !self.is_gone_for_long(&record) => {
                        self.seen.extend(cookie.map(|cookie| (record.host_interface(), (NOT_SEEN, cookie))));
                    }
                    // The interface went with its namespace, or nobody saw it.
                    None => records.forget_ended(&record)?,
                }
                continue;
            };
            match attach_again(&mut records, host, &record, &namespace) {
                Ok(()) => {
                    tracing::warn!(container = record.container, "its interface was deleted: made again");
                    repairs += 1;
                }
                Err(error) => {
                    tracing::warn!(container = record.container, "its interface was deleted: {error}");
                }
            }
            // Should it be gone by now, or not be there yet, the next look tries it again.
            self.seen.extend(cookie.map(|cookie| (record.host_interface(), (NOT_SEEN, cookie))));
        }
        self.gone.retain(|name, _| self.seen.contains_key(name));
        Ok(repairs)
    }

    fn is_gone_for_long(&mut self, record: &Record) -> bool {
        let since = self.gone.entry(record.host_interface()).or_insert_with(Instant::now);
        since.elapsed() >= GONE_KEPT
    }
}

/// Attaches a namespace that was made again since the host was started anew; where that fails the next
/// look tries it again.
fn attach_after_boot(
    records: &mut Records,
    elsewhere: &Elsewhere,
    host: &mut Netlink,
    record: &Record,
    namespace: &Namespace,
) -> Result<()> {
    let free = if record.forced { Ok(()) } else { elsewhere.refuse_attached(&record.cidrs) };
    let attached = free
        .and_then(|()| records.attach(host, &record.container, namespace, &record.cidrs, &record.options()));
    if let Err(error) = attached {
        tracing::warn!(
            container = record.container,
            "not attached again since the host was started: {error}"
        );
        return Ok(());
    }
    tracing::info!(container = record.container, "attached again since the host was started");
    // It is remembered by its new number.
    if namespace.id() != record.namespace {
        records.forget_ended(record)?;
    }
    records.change_names(&record.container, |names| names.clone_from(&record.names)).map(drop)
}

fn attach_again(
    records: &mut Records,
    host: &mut Netlink,
    record: &Record,
    namespace: &Namespace,
) -> Result<()> {
    records.attach(host, &record.container, namespace, &record.cidrs, &record.options())?;
    records.change_names(&record.container, |names| names.clone_from(&record.names)).map(drop)
}
