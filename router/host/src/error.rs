//! What can go wrong while the kernel's side of the network is set up.
//!
//! Every error says what was tried, on which object, why it failed and what
//! to do about it, on one line: the command line prints it as it is.

use std::fmt::{self, Display};
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A step that failed. [`Display`] gives step, object, cause and remedy on one line.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused a step.
    Kernel {
        /// What was tried, for example `create bridge`.
        step: &'static str,
        /// On which interface, namespace, address or file.
        object: String,
        /// Why the kernel refused.
        source: io::Error,
    },
    /// The kernel did not answer in time.
    TimedOut {
        /// What was tried.
        step: &'static str,
        /// On what.
        object: String,
        /// How long the answer was awaited.
        limit: Duration,
    },
    /// No network namespace belongs to what the user gave.
    NoNamespace {
        /// The container as the user gave it.
        spec: String,
        /// Why there is none.
        cause: String,
    },
    /// A container engine cannot be asked.
    Engine {
        /// Where it was looked for, as `DOCKER_HOST` is written.
        host: String,
        /// Why it cannot.
        cause: String,
    },
    /// An engine has no such container, or not one that can be attached.
    NoContainer {
        /// The container as the user gave it.
        name: String,
        /// Why there is none.
        cause: String,
    },
    /// The namespace is the caller's own: the host, not a container.
    OwnNamespace {
        /// The container as the user gave it.
        spec: String,
    },
    /// Something else holds the address.
    AddressInUse {
        /// The address.
        address: IpAddr,
        /// Who holds it: an interface, or a MAC that answered.
        holder: String,
    },
    /// Something else holds an address that a container had when it ran before.
    RememberedInUse {
        /// The address.
        cidr: IpNet,
        /// The container.
        container: String,
        /// Who holds it.
        holder: String,
    },
    /// An interface of that name exists but is not ours.
    NameTaken {
        /// The interface.
        interface: String,
        /// What it is instead.
        found: String,
    },
    /// Another router holds the queues of the tap.
    TapBusy {
        /// The tap.
        interface: String,
        /// Queues that others hold.
        queues: u32,
    },
    /// A value that cannot be used.
    Invalid {
        /// The value as given.
        value: String,
        /// What is wrong with it, and what is right.
        reason: String,
    },
    /// Something this needs is not there.
    Missing {
        /// What was tried.
        step: &'static str,
        /// What is missing.
        object: String,
        /// How to get it.
        remedy: String,
    },
    /// A file of the state directory cannot be used.
    State {
        /// What was tried.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        cause: String,
        /// What to do.
        remedy: String,
    },
    /// A failed step, and the clean-up after it failed too.
    NotUndone {
        /// The error that made the clean-up necessary.
        first: Box<Error>,
        /// The error of the clean-up.
        then: Box<Error>,
    },
}

impl Error {
    pub(crate) fn kernel(step: &'static str, object: impl Display, source: impl Into<io::Error>) -> Self {
        Self::Kernel { step, object: object.to_string(), source: source.into() }
    }

    pub(crate) fn invalid(value: impl Display, reason: impl Into<String>) -> Self {
        Self::Invalid { value: value.to_string(), reason: reason.into() }
    }

    /// What the user can do, if anything is known to help.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::Kernel { step, source, .. } => kernel_remedy(step, source).map(str::to_owned),
            Self::TimedOut { .. } => Some("look for a stuck task in the kernel log".to_owned()),
            Self::NoNamespace { .. } => {
                Some("name a running container: pid:N, netns:NAME or a path".to_owned())
            }
            Self::Engine { .. } => Some(
                "start it, or say by DOCKER_HOST where it listens, or name a namespace: pid:N, netns:NAME or a path"
                    .to_owned(),
            ),
            Self::NoContainer { .. } => Some("see `docker ps` for those that run".to_owned()),
            Self::OwnNamespace { .. } => Some("use `weave expose` to put the host on the network".to_owned()),
            Self::AddressInUse { .. } => Some("choose another address".to_owned()),
            Self::RememberedInUse { cidr, container, .. } => {
                Some(format!("`weave detach {cidr} {container}` has it forgotten"))
            }
            Self::NameTaken { interface, .. } => Some(format!("remove or rename {interface}")),
            Self::TapBusy { .. } => {
                Some("stop the other router (`weave stop`) or run `weave reset`".to_owned())
            }
            Self::Invalid { .. } => None,
            Self::Missing { remedy, .. } | Self::State { remedy, .. } => Some(remedy.clone()),
            Self::NotUndone { .. } => Some("run `weave reset`".to_owned()),
        }
    }

    /// The error number of the kernel, where it was the kernel that refused.
    #[must_use]
    pub fn os_error(&self) -> Option<i32> {
        match self {
            Self::Kernel { source, .. } => source.raw_os_error(),
            Self::NotUndone { first, .. } => first.os_error(),
            Self::TimedOut { .. }
            | Self::NoNamespace { .. }
            | Self::OwnNamespace { .. }
            | Self::Engine { .. }
            | Self::NoContainer { .. }
            | Self::AddressInUse { .. }
            | Self::RememberedInUse { .. }
            | Self::NameTaken { .. }
            | Self::TapBusy { .. }
            | Self::Invalid { .. }
            | Self::Missing { .. }
            | Self::State { .. } => None,
        }
    }

    /// Adds the outcome of undoing: nothing when that worked.
    pub(crate) fn after_undo(self, undone: Result<()>) -> Self {
        match undone {
            Ok(()) => self,
            Err(then) => Self::NotUndone { first: Box::new(self), then: Box::new(then) },
        }
    }

    fn fmt_cause(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel { step, object, source } => write!(f, "{step} {object}: {source}"),
            Self::TimedOut { step, object, limit } => {
                write!(f, "{step} {object}: no answer within {} ms", limit.as_millis())
            }
            Self::NoNamespace { spec, cause } => write!(f, "{spec}: {cause}"),
            Self::Engine { host, cause } => write!(f, "the container engine at {host}: {}", one_line(cause)),
            Self::NoContainer { name, cause } => write!(f, "{name}: {}", one_line(cause)),
            Self::OwnNamespace { spec } => {
                write!(f, "{spec}: runs in the network namespace of this host")
            }
            Self::AddressInUse { address, holder } => {
                write!(f, "address {address} is in use by {holder}")
            }
            Self::RememberedInUse { cidr, container: _, holder } => {
                write!(f, "address {}, which it had when it ran before, is in use by {holder}", cidr.addr())
            }
            Self::NameTaken { interface, found } => {
                write!(f, "interface {interface} exists and is {found}")
            }
            Self::TapBusy { interface, queues } => {
                write!(f, "tap {interface} is in use: another router holds {queues} of its queues")
            }
            Self::Invalid { value, reason } => write!(f, "{value}: {reason}"),
            Self::Missing { step, object, .. } => write!(f, "{step}: {object}"),
            Self::State { step, path, cause, .. } => {
                write!(f, "{step} {}: {cause}", path.display())
            }
            Self::NotUndone { first, then } => {
                first.fmt_cause(f)?;
                f.write_str("; undoing failed too: ")?;
                then.fmt_cause(f)
            }
        }
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_cause(f)?;
        match self.remedy() {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Kernel { source, .. } => Some(source),
            Self::NotUndone { first, .. } => Some(first.as_ref()),
            Self::TimedOut { .. }
            | Self::NoNamespace { .. }
            | Self::OwnNamespace { .. }
            | Self::Engine { .. }
            | Self::NoContainer { .. }
            | Self::AddressInUse { .. }
            | Self::RememberedInUse { .. }
            | Self::NameTaken { .. }
            | Self::TapBusy { .. }
            | Self::Invalid { .. }
            | Self::Missing { .. }
            | Self::State { .. } => None,
        }
    }
}

/// What an engine says may have several lines and anything in them.
fn one_line(text: &str) -> String {
    let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    printable.collect::<String>().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn kernel_remedy(step: &str, source: &io::Error) -> Option<&'static str> {
    match source.raw_os_error()? {
        // That of a process of others; a name is opened by its path.
        libc::EPERM | libc::EACCES if step == "open namespace" => {
            Some("run as root (needs CAP_SYS_PTRACE; Docker: --cap-add SYS_PTRACE)")
        }
        libc::EPERM | libc::EACCES if step.contains("namespace") || step.contains("mount") => {
            Some("run as root (needs CAP_SYS_ADMIN; Docker: --cap-add SYS_ADMIN)")
        }
        libc::EPERM | libc::EACCES => Some("run as root (needs CAP_NET_ADMIN)"),
        libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT => {
            Some("this kernel lacks the feature: load its module or use a newer kernel")
        }
        libc::EMFILE | libc::ENFILE => Some("raise the limit of open files (ulimit -n)"),
        libc::ENOSPC | libc::ENOMEM | libc::ENOBUFS => {
            Some("free memory, or raise the limit the kernel ran into")
        }
        libc::EROFS => Some(
            "make /proc/sys and /run writable for this process; Docker: --security-opt systempaths=unconfined",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_step_object_cause_and_remedy_on_one_line() {
        let error = Error::kernel("create bridge", "weave", io::Error::from_raw_os_error(libc::EPERM));
        let text = error.to_string();
        assert!(text.starts_with("create bridge weave: Operation not permitted"), "{text}");
        assert!(text.ends_with("run as root (needs CAP_NET_ADMIN)"), "{text}");
        assert!(!text.contains('\n'));
    }

    #[test]
    fn a_step_that_is_not_permitted_names_the_capability_that_it_needs() {
        for (step, capability) in
            [("open namespace", "SYS_PTRACE"), ("enter namespace", "SYS_ADMIN"), ("set up", "NET_ADMIN")]
        {
            let error = Error::kernel(step, "pid:12", io::Error::from_raw_os_error(libc::EACCES)).to_string();
            let named = ["SYS_PTRACE", "SYS_ADMIN", "NET_ADMIN"].iter().filter(|name| error.contains(**name));
            assert_eq!(named.collect::<Vec<_>>(), [&capability], "{error}");
        }
    }

    #[test]
    fn a_failed_undo_keeps_the_first_cause() {
        let first = Error::kernel("set up", "ethwe", io::Error::from_raw_os_error(libc::EBUSY));
        let then = Error::kernel("delete", "ethwe", io::Error::from_raw_os_error(libc::EPERM));
        let error = first.after_undo(Err(then));
        assert_eq!(error.os_error(), Some(libc::EBUSY));
        assert!(error.to_string().contains("undoing failed too"));
    }
}
