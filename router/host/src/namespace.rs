//! Network namespaces: finding, entering, making and removing them.
//!
//! A [`Namespace`] is an open descriptor, so it stays the same namespace
//! whatever becomes of the process, name or path it was found by.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::sys;

/// Where iproute2 keeps named namespaces.
pub const NAMED_DIR: &str = "/run/netns";

/// Longest name of a named namespace, bytes (it is a file name).
pub const NAME_MAX: usize = 255;

const OWN_PATH: &str = "/proc/thread-self/ns/net";

/// How the user names the namespace of a container.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NamespaceSpec {
    /// `pid:N`: the namespace of a process.
    Pid(u32),
    /// `netns:NAME`: a namespace of `ip netns`.
    Named(String),
    /// A path that starts with `/`.
    Path(PathBuf),
}

impl FromStr for NamespaceSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(pid) = text.strip_prefix("pid:") {
            return match pid.parse::<u32>() {
                Ok(pid) if pid > 0 && pid <= i32::MAX as u32 => Ok(Self::Pid(pid)),
                Ok(_) | Err(_) => Err(Error::invalid(text, "not a process: write pid:N, N from 1")),
            };
        }
        if let Some(name) = text.strip_prefix("netns:") {
            check_name(name)?;
            return Ok(Self::Named(name.to_owned()));
        }
        if text.starts_with('/') && !text.contains('\0') {
            return Ok(Self::Path(PathBuf::from(text)));
        }
        Err(Error::invalid(text, "not a network namespace: write pid:N, netns:NAME or a path"))
    }
}

impl fmt::Display for NamespaceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pid(pid) => write!(f, "pid:{pid}"),
            Self::Named(name) => write!(f, "netns:{name}"),
            Self::Path(path) => write!(f, "{}", path.display()),
        }
    }
}

fn check_name(name: &str) -> Result<()> {
    let plain = !name.is_empty() && name.len() <= NAME_MAX && name != "." && name != "..";
    if plain && !name.contains(['/', '\0']) {
        Ok(())
    } else {
        Err(Error::invalid(
            format!("netns:{name}"),
            "not the name of a namespace: a file name without `/` is needed",
        ))
    }
}

/// Which namespace it is: equal for two descriptors of the same one, as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NamespaceId {
    /// Device of the kernel's namespace file system.
    pub device: u64,
    /// Inode in it.
    pub inode: u64,
}

impl NamespaceId {
    /// Of no namespace: that of a container whose number was given to another one since.
    pub const GONE: Self = Self { device: 0, inode: 0 };
}

/// An open network namespace.
#[derive(Debug)]
pub struct Namespace {
    fd: OwnedFd,
    id: NamespaceId,
    label: String,
}

impl Namespace {
    /// Opens the namespace that `spec` names.
    ///
    /// # Errors
    /// [`Error::NoNamespace`] when there is no such process, name or path, or
    /// when it is not a network namespace.
    pub fn open(spec: &NamespaceSpec) -> Result<Self> {
        match spec {
            NamespaceSpec::Pid(pid) => Self::of_process(*pid),
            NamespaceSpec::Named(name) => Self::of_path(&Path::new(NAMED_DIR).join(name), spec.to_string()),
            NamespaceSpec::Path(path) => Self::of_path(path, spec.to_string()),
        }
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// When /proc is not mounted.
    pub fn own() -> Result<Self> {
        let file = File::open(OWN_PATH).map_err(|error| Error::kernel("open namespace", OWN_PATH, error))?;
        Self::from_fd(file.into(), "this namespace".to_owned())
    }

    /// Takes a descriptor of a network namespace, for example one that was received.
    ///
    /// # Errors
    /// [`Error::NoNamespace`] when it is a descriptor of something else.
    pub fn from_fd(fd: OwnedFd, label: String) -> Result<Self> {
        match sys::namespace_type(fd.as_fd()) {
            Ok(libc::CLONE_NEWNET) => {}
            Ok(_) | Err(_) => {
                return Err(Error::NoNamespace {
                    spec: label,
                    cause: "is not a network namespace".to_owned(),
                });
            }
        }
        let file = File::from(fd);
        let metadata = file.metadata().map_err(|error| Error::kernel("stat namespace", &label, error))?;
        let id = NamespaceId { device: metadata.dev(), inode: metadata.ino() };
        Ok(Self { fd: file.into(), id, label })
    }

    fn of_process(pid: u32) -> Result<Self> {
        let label = NamespaceSpec::Pid(pid).to_string();
        let gone = |cause: &str| Error::NoNamespace { spec: label.clone(), cause: cause.into() };
        let pidfd = sys::pidfd_open(pid).map_err(|error| match error.raw_os_error() {
            Some(libc::ESRCH | libc::EINVAL) => gone("no such process"),
            _ => Error::kernel("open process", &label, error),
        })?;
        let path = format!("/proc/{pid}/ns/net");
        let file = File::open(&path).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT | libc::ESRCH) => gone("the process has ended"),
            _ => Error::kernel("open namespace", &path, error),
        })?;
        // The number may have gone to another process between the two calls: as
        // long as the pinned one lives it cannot have.
        sys::pidfd_signal(pidfd.as_fd(), 0).map_err(|_| gone("the process has ended"))?;
        Self::from_fd(file.into(), label)
    }

    fn of_path(path: &Path, label: String) -> Result<Self> {
        // O_NONBLOCK and O_NOCTTY: a pipe or terminal named by mistake must not hang us.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
            .map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => {
                Error::NoNamespace { spec: label.clone(), cause: "does not exist".to_owned() }
            }
            _ => Error::kernel("open namespace", path.display(), error),
        })?;
        Self::from_fd(file.into(), label)
    }

    /// Makes a namespace without a name; it lives while this value, a process
    /// or an interface path of it does. Its loopback interface is down.
    ///
    /// # Errors
    /// When the caller lacks CAP_SYS_ADMIN or the kernel's limit of namespaces is reached.
    pub fn create(label: impl Into<String>) -> Result<Self> {
        let label = label.into();
        in_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|error| Error::kernel("create namespace", &label, error))?;
            Self::own()
        })
        .map(|namespace| Self { label: label.clone(), ..namespace })
    }

    /// The same under another label.
    #[must_use]
    pub fn labelled(self, label: &str) -> Self {
        Self { label: label.to_owned(), ..self }
    }

    /// What to call this namespace in messages: what the user gave.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Which namespace this is.
    #[must_use]
    pub fn id(&self) -> NamespaceId {
        self.id
    }

    /// A number that the kernel gives no other namespace until it is started anew (`SO_NETNS_COOKIE`,
    /// socket(7), from Linux 5.14).
    ///
    /// # Errors
    /// When the namespace cannot be entered, or the kernel does not tell.
    pub fn cookie(&self) -> Result<u64> {
        let told = |error| Error::kernel("ask for the cookie of", &self.label, error);
        self.run(|| {
            let socket = UnixDatagram::unbound()?;
            sys::netns_cookie(socket.as_fd())
        })?
        .map_err(told)
    }

    /// A path other processes can open while this value lives.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd()))
    }

    /// A second handle of the same namespace.
    ///
    /// # Errors
    /// When no more files can be opened.
    pub fn try_clone(&self) -> Result<Self> {
        let fd = self.fd.try_clone().map_err(|error| Error::kernel("copy namespace", &self.label, error))?;
        Ok(Self { fd, id: self.id, label: self.label.clone() })
    }

    /// Refuses the namespace of the calling thread: a container in it is the host itself.
    ///
    /// # Errors
    /// [`Error::OwnNamespace`].
    pub fn refuse_own(&self) -> Result<()> {
        if Self::own()?.id == self.id {
            Err(Error::OwnNamespace { spec: self.label.clone() })
        } else {
            Ok(())
        }
    }

    /// Runs `work` on a fresh thread inside the namespace and waits for it. A
    /// panic in `work` goes on in the caller.
    ///
    /// # Errors
    /// When the thread cannot be made or may not enter the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        in_thread(|| {
            setns(&self.fd, CloneFlags::CLONE_NEWNET)
                .map_err(|error| Error::kernel("enter namespace", &self.label, error))?;
            Ok(work())
        })
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A thread of its own, since the namespace of a thread cannot be given back with certainty.
pub(crate) fn in_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let worker = thread::Builder::new()
            .name("in-namespace".to_owned())
            .spawn_scoped(scope, work)
            .map_err(|error| Error::kernel("start", "a thread", error))?;
        worker.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn specs_are_read_as_the_user_writes_them() {
        assert_eq!("pid:12".parse::<NamespaceSpec>().unwrap(), NamespaceSpec::Pid(12));
        assert_eq!("netns:blue".parse::<NamespaceSpec>().unwrap(), NamespaceSpec::Named("blue".into()));
        let path = "/proc/7/ns/net";
        assert_eq!(path.parse::<NamespaceSpec>().unwrap().to_string(), path);
    }

    #[test]
    fn specs_that_name_nothing_are_refused() {
        for text in [
            "",
            "pid:",
            "pid:0",
            "pid:-1",
            "pid:1x",
            "pid:4294967296",
            "netns:",
            "netns:a/b",
            "netns:..",
            "netns:.",
            "blue",
            "relative/path",
            "netns:a\0b",
            "/a\0b",
        ] {
            let error = text.parse::<NamespaceSpec>().unwrap_err();
            assert!(matches!(error, Error::Invalid { .. }), "{text:?}: {error}");
        }
    }

    #[test]
    fn what_is_not_a_network_namespace_is_refused() {
        for path in ["/proc/self/ns/mnt", "/dev/null", "/etc/passwd", "/nonexistent", "/"] {
            let error = Namespace::open(&NamespaceSpec::Path(path.into())).unwrap_err();
            assert!(matches!(error, Error::NoNamespace { .. }), "{path}: {error}");
        }
    }

    #[test]
    fn the_own_namespace_is_known_by_any_path() {
        let own = Namespace::own().unwrap();
        let by_pid = Namespace::open(&NamespaceSpec::Pid(std::process::id())).unwrap();
        assert_eq!(own.id(), by_pid.id());
        assert!(matches!(by_pid.refuse_own(), Err(Error::OwnNamespace { .. })));
    }

    #[test]
    fn a_process_that_does_not_exist_has_no_namespace() {
        let error = Namespace::open(&NamespaceSpec::Pid(i32::MAX as u32)).unwrap_err();
        assert!(error.to_string().contains("no such process"), "{error}");
    }
}
