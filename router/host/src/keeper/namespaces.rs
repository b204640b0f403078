//! Attachments of namespaces that no engine tells of: made again where somebody deleted an interface
//! and the namespace lives on. Their records go with the interface otherwise, see [`Records::prune`].

use std::collections::HashMap;
use std::path::Path;

use crate::attach::{AttachOptions, PROBE_WAIT};
use crate::error::Result;
use crate::namespace::{Namespace, NamespaceSpec};
use crate::netlink::{Link, Netlink};
use crate::records::{self, Record, Records};

/// An attachment that was seen: by the index of the host's end, and the namespace's cookie. Names of
/// interfaces and numbers of namespaces are used again, these are not.
type Seen = (u32, u64);

/// Those of this host, by the name of the host's end.
#[derive(Debug, Default)]
pub(super) struct Namespaces(HashMap<String, Seen>);

impl Namespaces {
    /// Makes again what was deleted since the last look; how many.
    ///
    /// # Errors
    /// When the kernel refuses or the state cannot be read; what one attachment lacks is logged.
    pub(super) fn keep(&mut self, state_dir: &Path, host: &mut Netlink, links: &[Link]) -> Result<u64> {
        let mut gone = Vec::new();
        let before = std::mem::take(&mut self.0);
        let (all, _damaged) = records::read_all(state_dir)?;
        for record in all.into_iter().filter(|record| !record.is_of_engine()) {
            let name = record.host_interface();
            let known = before.get(&name).copied();
            match links.iter().find(|link| link.name == name) {
                Some(link) => {
                    let cookie = known.filter(|(index, _)| *index == link.index).map(|(_, cookie)| cookie);
                    let cookie = cookie.or_else(|| open(&record).map(|(_, cookie)| cookie));
                    self.0.extend(cookie.map(|cookie| (name, (link.index, cookie))));
                }
                None => gone.extend(known.map(|(_, cookie)| (record, cookie))),
            }
        }
        let mut repairs = 0;
        for (record, cookie) in gone {
            // An interface that went with its namespace is no loss.
            let same = open(&record).filter(|(_, now)| *now == cookie);
            let Some((namespace, _)) = same else { continue };
            match attach_again(state_dir, host, &record, &namespace) {
                Ok(false) => {}
                Ok(true) => {
                    tracing::warn!(container = record.container, "its interface was deleted: made again");
                    repairs += 1;
                    let name = record.host_interface();
                    let link = host.link(&name)?;
                    self.0.extend(link.map(|link| (name, (link.index, cookie))));
                }
                Err(error) => {
                    tracing::warn!(container = record.container, "its interface was deleted: {error}");
                }
            }
        }
        Ok(repairs)
    }
}

/// The namespace that is remembered, with its cookie, if it is there.
fn open(record: &Record) -> Option<(Namespace, u64)> {
    let spec: NamespaceSpec = record.container.parse().ok()?;
    let namespace = Namespace::open(&spec).ok().filter(|namespace| namespace.id() == record.namespace)?;
    let cookie = namespace.cookie().ok()?;
    Some((namespace, cookie))
}

/// False if it was detached, or attached, since it was looked for.
fn attach_again(
    state_dir: &Path,
    host: &mut Netlink,
    record: &Record,
    namespace: &Namespace,
) -> Result<bool> {
    let mut records = Records::open(state_dir)?;
    if !records.all().contains(record) || records::has_interface(host, record)? {
        return Ok(false);
    }
    let probe = (!record.forced).then_some(PROBE_WAIT);
    let options = AttachOptions { mac: Some(record.mac), mtu: record.mtu, probe };
    records.attach(host, &record.container, namespace, &record.cidrs, &options)?;
    records.change_names(&record.container, |names| names.clone_from(&record.names))?;
    Ok(true)
}
