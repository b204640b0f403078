//! Attachments of namespaces that no engine tells of: made again where somebody deleted an interface
//! and the namespace lives on, forgotten where it does not.

use std::collections::HashMap;
use std::path::Path;

use crate::error::Result;
use crate::namespace::Namespace;
use crate::netlink::{Link, Netlink};
use crate::records::{self, Record, Records};

/// An attachment that was seen: by the index of the host's end, and the namespace's cookie. Names of
/// interfaces and numbers of namespaces are used again, these are not.
type Seen = (u32, u64);
/// No interface has this index.
const NOT_SEEN: u32 = 0;

/// Those of this host, by the name of the host's end.
#[derive(Debug, Default)]
pub(super) struct Namespaces(HashMap<String, Seen>);

impl Namespaces {
    /// Makes again what was deleted since the last look; how many.
    ///
    /// # Errors
    /// When the kernel refuses or the state cannot be read; what one attachment lacks is logged.
    pub(super) fn keep(&mut self, state_dir: &Path, host: &mut Netlink, links: &[Link]) -> Result<u64> {
        let (mut gone, mut pending) = (Vec::new(), Vec::new());
        let before = std::mem::take(&mut self.0);
        let (all, _damaged) = records::read_all(state_dir)?;
        for record in all.into_iter().filter(|record| !record.is_of_engine()) {
            let name = record.host_interface();
            let known = before.get(&name).copied();
            match links.iter().find(|link| link.name == name) {
                Some(link) => {
                    let cookie = known.filter(|(index, _)| *index == link.index).map(|(_, cookie)| cookie);
                    let cookie = cookie.or_else(|| record.open()?.cookie().ok());
                    self.0.extend(cookie.map(|cookie| (name, (link.index, cookie))));
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
                // The interface went with its namespace, or nobody saw it.
                records.forget_ended(&record)?;
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
            self.0.extend(cookie.map(|cookie| (record.host_interface(), (NOT_SEEN, cookie))));
        }
        Ok(repairs)
    }
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
