//! What exists of all labs of this process, so that it can be removed on any way out.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use weave_host::{Namespace, NamespaceId, NamespaceSpec, PidFd, named};

use super::KILL_LIMIT;

/// Where control groups are.
const CONTROL_GROUPS: &str = "/sys/fs/cgroup";
/// Wait before a control group that is busy is tried again.
const GROUP_AGAIN: Duration = Duration::from_millis(5);
/// Rounds of looking for processes: each may have started others since.
const ROUNDS: usize = 16;

#[derive(Default)]
struct Registry {
    /// Namespaces of each lab, by the directory of the lab.
    labs: HashMap<PathBuf, Vec<NamespaceId>>,
    /// Names in /run/netns.
    names: Vec<String>,
    /// True once everything was removed for good: nothing new may be made.
    closed: bool,
}

static REGISTRY: LazyLock<Mutex<Registry>> = LazyLock::new(Mutex::default);

fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes the directory of a new lab. Making and noting are one step for whoever
/// cleans up at the same time.
///
/// # Errors
/// The kernel's; `Interrupted` after a [`cleanup`].
pub(super) fn make_lab(directory: &Path) -> io::Result<()> {
    let mut registry = registry();
    registry.make(directory)?;
    registry.labs.entry(directory.to_owned()).or_default();
    Ok(())
}

/// Makes a directory inside that of a lab.
///
/// # Errors
/// As [`make_lab`].
pub(super) fn make_directory(directory: &Path) -> io::Result<()> {
    registry().make(directory)
}

/// Starts something that [`cleanup`] has to see: either before it, or not at all.
///
/// # Errors
/// `Interrupted` after a [`cleanup`].
pub(super) fn unless_closed<T>(start: impl FnOnce() -> T) -> io::Result<T> {
    let registry = registry();
    if registry.closed {
        return Err(io::ErrorKind::Interrupted.into());
    }
    Ok(start())
}

impl Registry {
    fn make(&self, directory: &Path) -> io::Result<()> {
        if self.closed {
            return Err(io::ErrorKind::Interrupted.into());
        }
        fs::create_dir(directory)
    }
}

pub(super) fn add_namespace(directory: &Path, id: NamespaceId) {
    registry().labs.entry(directory.to_owned()).or_default().push(id);
}

pub(super) fn add_name(name: &str) {
    registry().names.push(name.to_owned());
}

pub(super) fn namespaces_of(directory: &Path) -> Vec<NamespaceId> {
    registry().labs.get(directory).cloned().unwrap_or_default()
}

/// Removes one lab.
pub(super) fn remove(directory: &Path, name: &str) {
    let (namespaces, names) = {
        let mut registry = registry();
        let namespaces = registry.labs.remove(directory).unwrap_or_default();
        let prefix = format!("{name}-");
        let (mine, others) = std::mem::take(&mut registry.names)
            .into_iter()
            .partition(|name: &String| name.starts_with(&prefix));
        registry.names = others;
        (namespaces, mine)
    };
    kill(&namespaces);
    remove_traces(directory, &names);
}

/// Kills every process in the labs of this process and removes their files and names; the
/// namespaces go with the process, and no lab can be made any more. For a way out that drops nothing: a signal handler's thread, a
/// panic hook where panics abort. Calling it twice does no harm.
pub fn cleanup() {
    let Registry { labs, names, .. } =
        std::mem::replace(&mut *registry(), Registry { closed: true, ..Registry::default() });
    let namespaces: Vec<NamespaceId> = labs.values().flatten().copied().collect();
    kill(&namespaces);
    for directory in labs.keys() {
        remove_traces(directory, &[]);
    }
    remove_traces(Path::new(""), &names);
}

fn remove_traces(directory: &Path, names: &[String]) {
    for name in names {
        // Nobody is there to be told, and the rest must still go.
        let _ = named::remove(name);
    }
    let Some(lab) = directory.file_name() else { return };
    remove_groups(Path::new(CONTROL_GROUPS), lab);
    // A thread of this process may be writing a file there: then the directory
    // is not empty when its turn comes, and once more will do.
    for _ in 0..ROUNDS {
        match fs::remove_dir_all(directory) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            _ => return,
        }
    }
}

/// Removes the control groups called like a lab, in every hierarchy: what engines in it made for
/// their containers.
fn remove_groups(root: &Path, lab: &OsStr) {
    let deadline = Instant::now() + KILL_LIMIT;
    remove_group(&root.join(lab), deadline);
    for hierarchy in fs::read_dir(root).into_iter().flatten().flatten() {
        remove_group(&hierarchy.path().join(lab), deadline);
    }
}

fn remove_group(group: &Path, deadline: Instant) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_group(&entry.path(), deadline);
        }
    }
    // Its files are the kernel's and go along. Containers die with the first process of their
    // host, but not before it: until then their group is busy, and nothing tells when it is not.
    while fs::remove_dir(group).is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy)
        && Instant::now() < deadline
    {
        std::thread::sleep(GROUP_AGAIN);
    }
}

/// Kills every process in one of the namespaces and waits until all are gone.
pub(super) fn kill(namespaces: &[NamespaceId]) {
    for _ in 0..ROUNDS {
        let found = processes(namespaces);
        if found.is_empty() || !kill_these(&found, namespaces) {
            return;
        }
    }
}

/// Kills those of `pids` that are in one of the namespaces; whether any was there to be killed.
fn kill_these(pids: &[u32], namespaces: &[NamespaceId]) -> bool {
    let deadline = Instant::now() + KILL_LIMIT;
    let mut killed = Vec::new();
    for pid in pids {
        // First the descriptor, then the question whether it is the right process.
        let Ok(Some(process)) = PidFd::open(*pid) else { continue };
        if process.is_alive() && is_inside(*pid, namespaces) && process.signal(Signal::SIGKILL).is_ok() {
            killed.push(process);
        }
    }
    for process in &killed {
        let _ = process.wait_end(deadline);
    }
    !killed.is_empty()
}

/// Numbers of all processes in one of the namespaces.
pub(super) fn processes(namespaces: &[NamespaceId]) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| is_inside(*pid, namespaces))
        .collect()
}

fn is_inside(pid: u32, namespaces: &[NamespaceId]) -> bool {
    Namespace::open(&NamespaceSpec::Pid(pid)).is_ok_and(|namespace| namespaces.contains(&namespace.id()))
}
