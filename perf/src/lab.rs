//! Hosts and containers as network namespaces of this machine.
//!
//! ```text
//! container ── (attached by `weave attach`) ── host 1 ── eth0 ═══ eth0 ── host 2 ── container
//! ```
//!
//! Two hosts are joined by one veth pair, more by a switch (a bridge in a namespace of its own).
//! Hosts may also be on several segments with a router between them, or behind address
//! translation ([`LabOptions::places`]):
//!
//! ```text
//! host 1 ── eth0 ═══ segment 0 ═╗
//! host 2 ── eth0 ═══ segment 1 ═╬═ router (an MTU for each path, or none: Lab::set_way)
//!        └─ eth1 ═══════════════╣
//! host 3 ── eth0 ── translator ═╝ segment 2
//! ```
//!
//! At run time paths between hosts are cut and healed ([`Lab::cut`]), addresses change
//! ([`Lab::change_address`]) and hosts move to other segments ([`Lab::move_to`]).
//!
//! Every host has addresses of both families on the underlay ([`Host::v4`], [`Host::v6`]) and its
//! own run and state directories, so that a router in it is like one on another machine. Nothing
//! of a lab has a name on the machine (unless asked for with [`LabOptions::named`]), so labs run
//! side by side, also inside a user namespace.
//!
//! Dropping a [`Lab`] kills every process in it and removes it. A program that may end in another
//! way (signal, panic that aborts) calls [`cleanup`] on that way.

mod cuts;
mod error;
mod host;
mod layout;
mod memory;
mod nat;
mod process;
mod registry;
mod roaming;
mod segments;
mod sysfs;
#[cfg(test)]
mod tests;
mod tool;
mod underlay;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::id;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use weave_host::{Namespace, NamespaceId, Netlink, named};

use cuts::Cut;
pub use cuts::Traffic;
pub use error::{Error, Result};
pub use host::Host;
pub use layout::{NAT_FORGETS, Nat, Place, SEGMENTS_MAX, v4, v6};
use memory::MemoryLimit;
pub use memory::{LIMIT_VARIABLE, MemoryUse};
pub use process::Process;
pub use registry::cleanup;
use segments::Segments;
pub use segments::Way;
pub use underlay::{UNDERLAY, Underlay};

/// Most hosts of a lab: their numbers are the last byte of their IPv4 addresses.
pub const HOSTS_MAX: usize = 250;

/// How to build a [`Lab`].
#[derive(Debug, Clone)]
pub struct LabOptions {
    /// Number of hosts, 1 to [`HOSTS_MAX`].
    pub hosts: usize,
    /// The network between them.
    pub underlay: Underlay,
    /// Where each of them is, from the first; the others are on segment 0.
    pub places: Vec<Place>,
    /// Give hosts and containers names in /run/netns, so that `ip netns` and `weave attach
    /// netns:NAME` know them. Needs a writable /run.
    pub named: bool,
    /// Variables of all commands in the hosts.
    pub variables: &'static [(&'static str, &'static str)],
}

impl Default for LabOptions {
    fn default() -> Self {
        Self { hosts: 2, underlay: Underlay::default(), places: Vec::new(), named: false, variables: &[] }
    }
}

/// Simulated hosts on this machine.
#[derive(Debug)]
pub struct Lab {
    name: String,
    directory: PathBuf,
    named: bool,
    hosts: Vec<Host>,
    segments: Option<Segments>,
    /// Holds the translators of hosts.
    _translators: Vec<Namespace>,
    cuts: Mutex<BTreeSet<Cut>>,
    /// Holds the namespaces of containers: were one freed before this lab is removed, its number
    /// might be that of another lab's by the time the processes in it are killed.
    held: Mutex<Vec<Namespace>>,
}

/// A container: a namespace, nothing else.
#[derive(Debug)]
pub struct Container {
    namespace: Namespace,
    spec: String,
}

impl Container {
    /// A namespace that something else made, for example an engine; `spec` is how `weave attach`
    /// names it.
    #[must_use]
    pub fn of(namespace: Namespace, spec: String) -> Self {
        Self { namespace, spec }
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// How `weave attach` names it: `netns:NAME`, or the path of a descriptor of this process.
    #[must_use]
    pub fn spec(&self) -> &str {
        &self.spec
    }

    /// Runs `work` on a thread inside.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        Ok(self.namespace.run(work)?)
    }
}

impl Lab {
    /// Builds hosts and the network between them; everything is up when this returns.
    ///
    /// # Errors
    /// When the options are out of range, the caller lacks the rights, or the kernel refuses.
    /// Nothing is left then.
    pub fn new(options: &LabOptions) -> Result<Self> {
        if !(1..=HOSTS_MAX).contains(&options.hosts) {
            return Err(Error::Hosts { given: options.hosts });
        }
        let (name, directory) = own_directory()?;
        let mut lab = Self {
            name,
            directory,
            named: options.named,
            hosts: Vec::new(),
            segments: None,
            _translators: Vec::new(),
            cuts: Mutex::default(),
            held: Mutex::default(),
        };
        for number in 1..=options.hosts {
            let namespace = lab.namespace(&format!("host{number}"))?;
            let directory = lab.directory.join(format!("host{number}"));
            let place = options.places.get(number - 1).cloned().unwrap_or_default();
            let memory = MemoryLimit::from_environment(&format!("{}-host{number}", lab.name))?;
            lab.hosts.push(Host::new(number, namespace, directory, place, memory, options.variables)?);
        }
        let between = underlay::connect(&lab.hosts, &options.underlay)?;
        for namespace in between.segments.iter().map(Segments::namespace).chain(&between.translators) {
            registry::add_namespace(&lab.directory, namespace.id());
        }
        (lab.segments, lab._translators) = (between.segments, between.translators);
        Ok(lab)
    }

    /// Two hosts with everything else as usual.
    ///
    /// # Errors
    /// As [`Lab::new`].
    pub fn pair() -> Result<Self> {
        Self::new(&LabOptions::default())
    }

    /// The hosts, in order.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Host number `index`, counted from 0.
    ///
    /// # Panics
    /// When there are not that many: a mistake of the program.
    #[must_use]
    pub fn host(&self, index: usize) -> &Host {
        &self.hosts[index]
    }

    /// Its name: also that of its directory, and of the control groups that go when it does.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A directory of this lab that goes when it does.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes a container; `label` is for messages, and with [`LabOptions::named`] the last part of
    /// its name.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn container(&self, label: &str) -> Result<Container> {
        let namespace = self.namespace(label)?;
        self.held.lock().unwrap_or_else(PoisonError::into_inner).push(namespace.try_clone()?);
        let spec = if self.named {
            format!("netns:{}", self.full_name(label))
        } else {
            namespace.path().display().to_string()
        };
        Ok(Container { namespace, spec })
    }

    /// Makes a namespace of this lab, its loopback interface up.
    fn namespace(&self, label: &str) -> Result<Namespace> {
        let namespace = if self.named {
            let name = self.full_name(label);
            registry::add_name(&name);
            named::create(&name)?
        } else {
            Namespace::create(label)?
        };
        registry::add_namespace(&self.directory, namespace.id());
        Netlink::in_namespace(&namespace)?.set_loopback_up()?;
        Ok(namespace)
    }

    fn full_name(&self, label: &str) -> String {
        format!("{}-{label}", self.name)
    }

    /// Kills every process in hosts and containers of this lab, and waits until they are gone.
    pub fn kill_all(&self) {
        registry::kill(&registry::namespaces_of(&self.directory));
    }

    /// Numbers of the processes that run in a host or container of this lab now.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        registry::processes(&registry::namespaces_of(&self.directory))
    }

    /// Which namespaces belong to this lab.
    #[must_use]
    pub fn namespaces(&self) -> Vec<NamespaceId> {
        registry::namespaces_of(&self.directory)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        registry::remove(&self.directory, &self.name);
    }
}

/// A fresh directory, whose name is that of the lab.
fn own_directory() -> Result<(String, PathBuf)> {
    static MADE: AtomicU32 = AtomicU32::new(0);
    loop {
        let name = format!("weave-lab-{}-{}", id(), MADE.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(&name);
        match registry::make_lab(&directory) {
            Ok(()) => return Ok((name, directory)),
            // Left behind by a process of this number that was killed.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::file("make", directory, error)),
        }
    }
}

/// How long a killed process may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(5);
