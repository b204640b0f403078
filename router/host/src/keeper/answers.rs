//! What an engine says of containers, asked before the lock on the state is taken.

use std::collections::HashMap;

use crate::detached::DetachedRun;
use crate::engine::{ContainerId, EngineContainer, Listed};
use crate::error::{Error, Result};
use crate::namespace::{Namespace, NamespaceId, NamespaceSpec};

/// What the engine says.
pub(super) struct Answers {
    pub(super) listed: HashMap<ContainerId, Listed>,
    /// The namespace that each remembered container had when it was asked.
    pub(super) namespaces: HashMap<ContainerId, NamespaceId>,
    /// What users had detached before it was asked.
    pub(super) detached: Vec<DetachedRun>,
    /// Of containers that it was asked for.
    pub(super) found: HashMap<ContainerId, Result<Found>>,
}

/// A container as the engine tells it.
pub(super) struct Found {
    pub(super) container: EngineContainer,
    /// Its namespace, if it runs and has one that can be attached.
    pub(super) namespace: Result<Namespace>,
}

impl Answers {
    /// It was listed as one that has ended, and says so itself: the list of Podman is late.
    pub(super) fn has_exited(&self, id: &ContainerId) -> bool {
        let says_so = |found: &Result<Found>| found.as_ref().is_ok_and(|one| one.container.pid.is_none());
        self.listed.get(id).is_some_and(|one| one.exited) && self.found.get(id).is_some_and(says_so)
    }

    /// It knows nothing of it. An id is of one container for ever.
    pub(super) fn is_unknown(&self, id: &ContainerId) -> bool {
        !self.listed.contains_key(id) && matches!(self.found.get(id), Some(Err(Error::NoContainer { .. })))
    }

    /// It runs in another namespace than this one, which lingers.
    pub(super) fn has_left(&self, id: &ContainerId, namespace: NamespaceId) -> bool {
        let Some(Ok(found)) = self.found.get(id).filter(|_| self.runs(id)) else { return false };
        let now = found.namespace.as_ref().ok().filter(|now| now.id() != namespace);
        now.is_some_and(|now| is_still_in(&found.container, now))
    }

    /// The container has ended since the user detached it, and may run anew. What was detached while
    /// the engine was asked is not meant by its answer.
    pub(super) fn is_over(&self, run: &DetachedRun) -> bool {
        let Ok(id) = run.container.parse() else { return true };
        let runs_anew =
            |found: &Result<Found>| found.as_ref().is_ok_and(|one| one.container.started != run.started);
        let has_ended = self.found.get(&id).is_some_and(runs_anew) || self.has_exited(&id);
        (has_ended || self.is_unknown(&id)) && self.detached.contains(run)
    }

    pub(super) fn runs(&self, id: &ContainerId) -> bool {
        self.listed.get(id).is_some_and(|one| one.running)
    }
}

/// Whether the first process of a container lives and has this namespace.
pub(super) fn is_still_in(container: &EngineContainer, namespace: &Namespace) -> bool {
    container.pid.and_then(namespace_of) == Some(namespace.id())
}

pub(super) fn namespace_of(pid: u32) -> Option<NamespaceId> {
    Namespace::open(&NamespaceSpec::Pid(pid)).ok().map(|namespace| namespace.id())
}
