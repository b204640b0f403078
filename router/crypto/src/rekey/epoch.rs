//! The epoch in use and the one before it.

use super::RekeyAction;
use super::lanes::LanesSeen;
use crate::LinkKeys;
use crate::limits::KEY_LIFETIME;
use std::time::Duration;
use weave_wire::SessionIndex;

/// The keys in use, one epoch.
#[cfg_attr(test, derive(Clone))]
pub(super) struct Epoch {
    pub(super) keys: LinkKeys,
    /// Our name of the session.
    pub(super) receive: SessionIndex,
    /// The peer's name of the session.
    pub(super) send: SessionIndex,
    pub(super) born: Duration,
    pub(super) seen: LanesSeen,
}

/// The epoch before: accepted for a while, never sent under.
#[cfg_attr(test, derive(Clone))]
pub(super) struct Previous {
    pub(super) epoch: u32,
    pub(super) receive: SessionIndex,
    pub(super) born: Duration,
    pub(super) seen: LanesSeen,
    /// When the peer began to leave the epoch, as far as we know: its lanes follow
    /// at once, each as its shard gets to it.
    pub(super) left: Option<Duration>,
}

impl Epoch {
    pub(super) fn new(keys: LinkKeys, receive: SessionIndex, send: SessionIndex, now: Duration) -> Self {
        Self { keys, receive, send, born: now, seen: LanesSeen::default() }
    }

    pub(super) fn install(&self) -> RekeyAction {
        RekeyAction::InstallReceive { session: self.receive, keys: self.keys.clone() }
    }
}

impl Previous {
    /// When it is accepted no more, if the peer is given `drain` to leave it.
    pub(super) fn ends_at(&self, drain: Duration) -> Duration {
        let expiry = self.born.saturating_add(KEY_LIFETIME);
        self.left.map_or(expiry, |left| left.saturating_add(drain).min(expiry))
    }
}
