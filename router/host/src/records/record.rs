//! What is remembered of an attachment, and its file.

use std::path::Path;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use weave_wire::MacAddr;

use crate::attach::{AttachOptions, PROBE_WAIT, host_interface};
use crate::error::Result;
use crate::names::ContainerNames;
use crate::namespace::{Namespace, NamespaceId, NamespaceSpec};
use crate::netlink::Netlink;
use crate::store::{StateDir, StateFile, Stored};

/// Directory of these files in the state directory.
pub const DIRECTORY: &str = "attachments";

/// Longest name of a container, bytes.
pub const CONTAINER_MAX: usize = 4096;

/// A remembered attachment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The engine's id of the container, or its namespace as the user gave it.
    pub container: String,
    /// Its namespace when it was attached last. Numbers are used again after a
    /// namespace is gone; [`NamespaceId::GONE`] when that was seen.
    pub namespace: NamespaceId,
    /// MAC of its interface.
    pub mac: MacAddr,
    /// Its addresses in the order of attachment.
    pub cidrs: Vec<IpNet>,
    /// MTU of the host's end, bytes; `None`: it was attached by a program that did not remember it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The user wants its addresses although somebody else may have them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forced: bool,
    /// A command is changing it, or was killed over that: addresses that are to go. Those of `cidrs`
    /// may not be there yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<Vec<IpNet>>,
    /// Which start of the host it was attached in; `None`: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// What it is called.
    #[serde(default, skip_serializing_if = "ContainerNames::is_empty")]
    pub names: ContainerNames,
    /// Where the engine is that has this container; `None`: it is of none, or was attached by a program
    /// that did not remember it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
}

/// What is known of an engine's container that is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// What it is called.
    pub called: ContainerNames,
    /// Where its engine is.
    pub engine: String,
}

impl StateFile for Record {
    const KIND: &'static str = "attachment";
    const VERSION: u32 = 1;
}

impl Record {
    /// Name of the host's end of the attachment.
    #[must_use]
    pub fn host_interface(&self) -> String {
        host_interface(self.namespace)
    }

    /// True for a container of an engine: it may run again, and is then found by its id.
    #[must_use]
    pub fn is_of_engine(&self) -> bool {
        is_engine_id(&self.container)
    }

    /// The namespace it speaks of, if it is named so and there is one of this number: another one may
    /// have it by now. `None` for a container of an engine.
    #[must_use]
    pub fn open(&self) -> Option<Namespace> {
        let spec: NamespaceSpec = self.container.parse().ok()?;
        Namespace::open(&spec).ok().filter(|namespace| namespace.id() == self.namespace)
    }

    /// True for a namespace that has a name: another one may get it.
    pub(crate) fn is_named(&self) -> bool {
        matches!(self.container.parse(), Ok(NamespaceSpec::Named(_)))
    }

    /// The namespace of that name, where the host was started anew since it was attached: who makes it
    /// at each start means the same one. Numbers of processes and paths through them mean nothing then.
    pub(crate) fn come_back(&self) -> Option<Namespace> {
        let spec: NamespaceSpec = self.container.parse().ok()?;
        let is_of_earlier = self.boot.is_some() && self.boot != boot();
        if is_of_earlier && self.is_named() { Namespace::open(&spec).ok() } else { None }
    }

    /// To have it again as it is remembered.
    pub(crate) fn options(&self) -> AttachOptions {
        let probe = (!self.forced).then_some(PROBE_WAIT);
        AttachOptions { mac: Some(self.mac), mtu: self.mtu, probe }
    }

    pub(super) fn file_name(&self) -> String {
        file_name(&self.container, self.namespace)
    }
}

/// What is wrong with a container of an engine while the keeper follows another one.
#[must_use]
pub fn other_engine(engine: &str, followed: &str) -> String {
    format!(
        "is of the engine at {engine}, and the keeper follows {followed}: when it runs again it is not attached; \
         `DOCKER_HOST={engine} weave keeper --renew` has that one followed"
    )
}

/// What tells one start of the host from another (random(4)).
pub(super) fn boot() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}

/// All records, read without the lock: for those who only look, as the router
/// does. Damaged files are left where they are and named in the second place.
///
/// # Errors
/// When the directory cannot be read or a file was written by a newer version.
pub fn read_all(state_dir: &Path) -> Result<(Vec<Record>, Vec<String>)> {
    let directory = StateDir::existing(state_dir.join(DIRECTORY));
    let mut records = Vec::new();
    let mut damaged = Vec::new();
    for name in directory.names()? {
        match directory.read::<Record>(&name)? {
            Stored::Content(record) => records.push(record),
            Stored::Absent => {}
            Stored::Damaged(cause) => {
                damaged.push(format!("{}: {cause}", directory.path().join(&name).display()));
            }
        }
    }
    Ok((records, damaged))
}

/// Whether the host's end of an attachment is there.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn has_interface(host: &mut Netlink, record: &Record) -> Result<bool> {
    Ok(host.link(&record.host_interface())?.is_some_and(|link| link.kind == "veth"))
}

/// An engine's container has its id, whatever namespace it has; others their namespace.
pub(super) fn file_name(container: &str, id: NamespaceId) -> String {
    if is_engine_id(container) { format!("{container}.json") } else { format!("{}.json", host_interface(id)) }
}

/// 64 hexadecimal digits, as engines number containers.
pub(super) fn is_engine_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}
