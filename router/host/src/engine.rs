//! Container engines: Docker's API, which Podman speaks too.
//!
//! For the command line: every call blocks and has a time limit.

mod container;

pub(crate) use container::fault_of_names;
pub use container::{CIDR_LABEL, ContainerId, EngineContainer, Listed, NAMES_LABEL};

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error as ApiError;
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{
    EventsOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
};
use futures_lite::StreamExt;
use tokio::runtime::Runtime;

use crate::error::{Error, Result};
use crate::namespace::{Namespace, NamespaceSpec};

/// Time to look up the name of an engine's host.
const LOOKUP_WITHIN: Duration = Duration::from_secs(5);
/// Where the engine listens unless `DOCKER_HOST` says otherwise.
pub const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";
/// Time an engine has to answer.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// What is told of containers.
///
/// Podman is asked by its own names, but answers with Docker's.
const EVENTS: [&str; 6] = ["start", "die", "died", "destroy", "remove", "rename"];
/// Longest name of a container, bytes: more than any engine makes.
const NAME_MAX: usize = 255;

/// The engine of this host.
#[derive(Debug)]
pub struct Engine {
    docker: Docker,
    /// The version that both speak is known.
    negotiated: AtomicBool,
    runtime: Runtime,
    host: String,
}

impl Engine {
    /// Gets ready to ask the engine at `host`, as `DOCKER_HOST` is written: `unix://PATH` or
    /// `tcp://HOST:PORT`. Asks it nothing yet.
    ///
    /// # Errors
    /// [`Error::Engine`] for another form, for a host without an address, or when no runtime can be
    /// made.
    pub fn new(host: &str) -> Result<Self> {
        let failed = |cause: &dyn std::fmt::Display| engine_error(host, cause);
        let version = bollard::API_DEFAULT_VERSION;
        let seconds = ANSWER_WITHIN.as_secs();
        let docker = if host.starts_with("unix://") {
            Docker::connect_with_unix(host, seconds, version)
        } else if let Some(at) = host.strip_prefix("tcp://").or(host.strip_prefix("http://")) {
            let at = numeric(at).map_err(|error| failed(&error))?;
            Docker::connect_with_http(&format!("tcp://{at}"), seconds, version)
        } else {
            return Err(failed(&"not unix://PATH or tcp://HOST:PORT"));
        };
        let docker = docker.map_err(|error| failed(&error))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| failed(&error))?;
        Ok(Self { docker, negotiated: AtomicBool::new(false), runtime, host: host.to_owned() })
    }

    /// The container that `name` stands for: its id, the beginning of it, or its name.
    ///
    /// # Errors
    /// [`Error::NoContainer`] when there is none or several match, [`Error::Engine`] when the
    /// engine does not answer.
    pub fn find(&self, name: &str) -> Result<EngineContainer> {
        check_name(name)?;
        self.read(
            name,
            self.call(async |docker| docker.inspect_container(name, None::<InspectContainerOptions>).await),
        )
    }

    /// The containers with these ids, asked for all at once; in their order.
    #[must_use]
    pub fn find_all(&self, ids: &[&ContainerId]) -> Vec<Result<EngineContainer>> {
        self.runtime.block_on(async {
            let known = tokio::time::timeout(ANSWER_WITHIN, self.negotiate()).await;
            if let Err(error) = known.unwrap_or(Err(ApiError::RequestTimeoutError)) {
                return ids.iter().map(|_| Err(self.failed(&error))).collect();
            }
            let ask = |id: &&ContainerId| {
                let (docker, id) = (self.docker.clone(), id.to_string());
                tokio::spawn(async move {
                    let found = docker.inspect_container(&id, None::<InspectContainerOptions>);
                    let found = tokio::time::timeout(ANSWER_WITHIN, found).await;
                    found.unwrap_or(Err(ApiError::RequestTimeoutError))
                })
            };
            let asked: Vec<_> = ids.iter().map(ask).collect();
            let mut all = Vec::with_capacity(ids.len());
            for (id, found) in ids.iter().zip(asked) {
                let found = found.await.unwrap_or(Err(ApiError::RequestTimeoutError));
                all.push(self.read(id.as_str(), found));
            }
            all
        })
    }

    /// What the engine said of the container that `name` stands for.
    fn read(
        &self,
        name: &str,
        found: std::result::Result<ContainerInspectResponse, ApiError>,
    ) -> Result<EngineContainer> {
        match found {
            Ok(response) => EngineContainer::read(response).ok_or_else(|| self.nonsense()),
            Err(ApiError::DockerResponseServerError { status_code: 400 | 404 | 409, message }) => {
                Err(Error::NoContainer { name: name.to_owned(), cause: message })
            }
            // Which engine says it with which status differs.
            Err(ApiError::DockerResponseServerError { message, .. }) if names_several(&message) => {
                let cause = format!("more than one container is meant: {message}");
                Err(Error::NoContainer { name: name.to_owned(), cause })
            }
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// All containers, whether they run or not.
    ///
    /// # Errors
    /// [`Error::Engine`] when the engine does not answer.
    pub fn list(&self) -> Result<Vec<Listed>> {
        let options = ListContainersOptionsBuilder::new().all(true).build();
        let list = self.call(async |docker| docker.list_containers(Some(options)).await);
        let list = list.map_err(|error| self.failed(&error))?;
        Ok(list.into_iter().filter_map(Listed::read).collect())
    }

    /// Calls `changed` when a container starts, ends or is gone, and once in the beginning, until
    /// the engine ends the conversation. The only call without a time limit.
    ///
    /// # Errors
    /// [`Error::Engine`] why it ended.
    pub fn follow(&self, mut changed: impl FnMut()) -> Result<()> {
        let filters = HashMap::from([("type", vec!["container"]), ("event", EVENTS.to_vec())]);
        let options = EventsOptionsBuilder::new().filters(&filters).build();
        let followed = self.runtime.block_on(async {
            let known = tokio::time::timeout(ANSWER_WITHIN, self.negotiate()).await;
            known.unwrap_or(Err(ApiError::RequestTimeoutError))?;
            let mut events = self.docker.events(Some(options));
            changed();
            while let Some(event) = events.next().await {
                event?;
                changed();
            }
            Ok(())
        });
        followed.map_err(|error: ApiError| self.failed(&error))
    }

    /// The network namespace of a running container of this host.
    ///
    /// # Errors
    /// [`Error::NoContainer`] when it does not run or runs elsewhere, or as [`Namespace::open`].
    pub fn namespace(&self, container: &EngineContainer) -> Result<Namespace> {
        let refuse = |cause: &str| Error::NoContainer { name: container.name.clone(), cause: cause.into() };
        let pid = container.pid.ok_or_else(|| refuse("it is not running"))?;
        let namespace = Namespace::open(&NamespaceSpec::Pid(pid)).map_err(|error| {
            let absent = matches!(error, Error::NoNamespace { .. });
            if absent { refuse(NOT_SEEN) } else { error }
        })?;
        // The number may be another process's here if the engine is on another host.
        if !is_in_cgroup(pid, &container.id) && !is_sandbox(container, &namespace) {
            return Err(refuse("its engine is not on this host"));
        }
        Ok(namespace.labelled(&container.name))
    }

    fn call<T>(
        &self,
        ask: impl AsyncFnOnce(&Docker) -> std::result::Result<T, ApiError>,
    ) -> std::result::Result<T, ApiError> {
        self.runtime.block_on(async {
            let work = async {
                self.negotiate().await?;
                ask(&self.docker).await
            };
            tokio::time::timeout(ANSWER_WITHIN, work).await.unwrap_or(Err(ApiError::RequestTimeoutError))
        })
    }

    /// An older engine, or Podman, speaks an older version. Asked once: Podman takes half a second
    /// to tell.
    async fn negotiate(&self) -> std::result::Result<(), ApiError> {
        if !self.negotiated.load(Ordering::Relaxed) {
            // Clones share the version.
            self.docker.clone().negotiate_version().await?;
            self.negotiated.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    fn failed(&self, error: &ApiError) -> Error {
        // The client says that it could not connect; what it tells of why comes behind.
        let mut words = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            let cause_words = cause.to_string();
            if !words.contains(&cause_words) {
                words = format!("{words}: {cause_words}");
            }
            source = cause.source();
        }
        engine_error(&self.host, &words)
    }

    fn nonsense(&self) -> Error {
        engine_error(&self.host, &"its answer has no container id")
    }
}

/// `host` without the name and password of a user, which engines do not ask for: it is shown, logged and
/// remembered.
#[must_use]
pub fn without_user(host: &str) -> String {
    let Some((before, at)) = host.rsplit_once('@').filter(|_| !host.starts_with("unix://")) else {
        return host.to_owned();
    };
    before.split_once("://").map_or_else(|| at.to_owned(), |(scheme, _)| format!("{scheme}://{at}"))
}

/// Where the engine at `host` is, to be compared: the same place is written in several ways.
#[must_use]
pub fn place(host: &str) -> String {
    if let Some(path) = host.strip_prefix("unix://").map(Path::new) {
        // Often through links, which hold while the engine, and its socket with it, is not there.
        let directory = || Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
        let path = path.canonicalize().ok().or_else(directory).unwrap_or_else(|| path.to_owned());
        return format!("unix://{}", path.display());
    }
    let host = without_user(host.trim_end_matches('/'));
    host.strip_prefix("http://").map_or_else(|| host.clone(), |at| format!("tcp://{at}"))
}

/// What an engine says of the beginning of several ids: Docker's words, and Podman's.
fn names_several(message: &str) -> bool {
    ["Multiple IDs found", "more than one"].iter().any(|words| message.contains(words))
}

fn engine_error(host: &str, cause: &dyn std::fmt::Display) -> Error {
    Error::Engine { host: host.to_owned(), cause: cause.to_string() }
}

/// Whether this can be an id or name: names go into paths of requests, and nothing else may come
/// with them.
///
/// # Errors
/// [`Error::NoContainer`].
pub fn check_name(name: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if begins && name.len() <= NAME_MAX && name.bytes().all(plain) {
        return Ok(());
    }
    Err(Error::NoContainer {
        name: name.to_owned(),
        cause: "not an id or name: letters, digits, `_`, `.` and `-` only".into(),
    })
}

/// Why there is no process of a number that an engine tells.
const NOT_SEEN: &str = "its process is not seen here: its engine is on another host, or this runs in a container of \
                        its own; Docker: --pid host";

fn is_in_cgroup(pid: u32, id: &ContainerId) -> bool {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| groups.contains(id.as_str()))
}

fn is_sandbox(container: &EngineContainer, namespace: &Namespace) -> bool {
    let Some(path) = &container.sandbox else { return false };
    Namespace::open(&NamespaceSpec::Path(path.clone())).is_ok_and(|sandbox| sandbox.id() == namespace.id())
}

/// `HOST:PORT` with an address in place of a name, which the library would ask the C library for.
fn numeric(at: &str) -> io::Result<String> {
    let Some((name, port)) = at.trim_end_matches('/').rsplit_once(':') else { return Ok(at.to_owned()) };
    // IPv6 stands in brackets.
    if name.starts_with('[') || name.parse::<IpAddr>().is_ok() {
        return Ok(at.to_owned());
    }
    let found = weave_lookup::addresses(name, LOOKUP_WITHIN, 1)?;
    Ok(match found.first() {
        Some(IpAddr::V6(ip)) => format!("[{ip}]:{port}"),
        Some(IpAddr::V4(ip)) => format!("{ip}:{port}"),
        None => at.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_names_and_ids_are_asked_for() {
        for good in ["web", "0a1b", "a_b.c-d", &"f".repeat(64)] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "../x", "a/b", "a?b", "a b", "-x", "ä", "a%2f", &"f".repeat(256)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_engine_has_one_place_however_it_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let real = directory.path().canonicalize().unwrap().join("real");
        fs::create_dir(&real).unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let through = |path: &Path| place(&format!("unix://{}/docker.sock", path.display()));
        // Whether it is there or not.
        assert_eq!(through(&link), format!("unix://{}/docker.sock", real.display()));
        fs::write(real.join("podman.sock"), "").unwrap();
        std::os::unix::fs::symlink("podman.sock", real.join("docker.sock")).unwrap();
        assert_eq!(through(&link), format!("unix://{}/podman.sock", real.display()));
        assert_eq!(place("http://127.0.0.1:2375/"), place("tcp://127.0.0.1:2375"));
        assert_eq!(place("unix:///no/such/place.sock"), "unix:///no/such/place.sock");
        assert_eq!(place("http://me:secret@127.0.0.1:2375/"), "tcp://127.0.0.1:2375");
    }

    #[test]
    fn nothing_of_a_user_stays() {
        for (host, without) in [
            ("tcp://me:se@c/ret@192.0.2.1:2375", "tcp://192.0.2.1:2375"),
            ("me:secret@192.0.2.1:2375", "192.0.2.1:2375"),
            ("ssh://me@host", "ssh://host"),
            ("tcp://[::1]:2375", "tcp://[::1]:2375"),
            ("unix:///run/user@1000/docker.sock", "unix:///run/user@1000/docker.sock"),
        ] {
            assert_eq!(without_user(host), without);
        }
    }

    #[test]
    fn the_name_of_an_engine_becomes_an_address() {
        for at in ["127.0.0.1:2375", "[::1]:2375", "nonsense"] {
            assert_eq!(numeric(at).unwrap(), at);
        }
        let local = numeric("localhost:2375/").unwrap();
        assert!(["127.0.0.1:2375", "[::1]:2375"].contains(&local.as_str()), "{local}");
    }

    #[test]
    fn an_engine_that_is_not_there_is_named_with_its_address() {
        for host in ["unix:///nonexistent/docker.sock", "tcp://127.0.0.1:1", "ssh://elsewhere"] {
            let error = Engine::new(host).and_then(|engine| engine.find("web"));
            let error = error.unwrap_err().to_string();
            let cause = ["Socket not found", "Connection refused", "not unix://"];
            assert!(error.contains(host) && cause.iter().any(|cause| error.contains(cause)), "{error}");
        }
    }
}
