//! Re-keying: how a link comes to the keys of its next epoch without losing a
//! datagram.
//!
//! The side with the smaller UID (the offerer) starts. Three messages on the TCP
//! link do it, and no side sends under keys before the other can receive:
//!
//! ```text
//! offerer                            answerer
//!         --- Offer (X25519, index) -->   installs receiving keys, waits for it
//!         <-- Answer (X25519, index) --
//! installs receiving keys, waits,
//! sends under the new keys
//!         --- Confirm ---------------->   sends under the new keys
//! ```
//!
//! The keys of TCP change as well, each direction after its own last message:
//! the answerer's after the Answer, the offerer's after the Confirm.
//!
//! A TCP connection may break anywhere, and its messages are lost then. When the
//! link is resumed, an offerer without an answer makes a new offer, which takes
//! the place of the old; one that has switched repeats its Confirm until it saw
//! the peer send under the new keys.
//!
//! A state machine without I/O and clock. Time is a [`Duration`] since any fixed
//! moment. A driver
//! 1. hands in what happened, by the `on_` methods,
//! 2. carries out the returned [`RekeyAction`]s in their order,
//! 3. calls [`Rekey::on_tick`] at [`Rekey::poll_timeout`],
//! 4. takes the link down when [`Rekey::is_expired`].

mod action;
mod epoch;
mod lanes;
#[cfg(test)]
mod model;
mod policy;
#[cfg(test)]
mod tests;

pub use action::{RekeyAction, RekeyError};
pub use policy::RekeyPolicy;

use crate::Entropy;
use crate::PeerInfo;
use crate::dh::Ephemeral;
use crate::entropy::draw;
use crate::hash::HASH_LEN;
use crate::limits::KEY_LIFETIME;
use crate::schedule::{ConnectionId, LinkKeys};
use epoch::{Epoch, Previous};
use lanes::LanesSeen;
use sha2::{Digest, Sha512};
use std::fmt;
use std::time::Duration;
use weave_wire::link::message::{Message, RekeyShare};
use weave_wire::{Lane, SessionIndex, Uid};

#[cfg_attr(test, derive(Clone))]
enum Phase {
    Idle,
    /// Offerer: the answer is due.
    Offered(Box<Ephemeral>, RekeyShare),
    /// Offerer: answered; our receiving keys are on their way into the shards.
    Answered(Box<Epoch>),
    /// Answerer: an offer came while datagrams of the epoch before may be about.
    Held(RekeyShare),
    /// Answerer: our receiving keys are on their way into the shards.
    Installing(Box<Epoch>, RekeyShare),
    /// Answerer: the confirmation is due.
    Answering(Box<Epoch>),
}

/// The re-keying of one link, on one side.
#[cfg_attr(test, derive(Clone))]
pub struct Rekey {
    policy: RekeyPolicy,
    /// True for the side with the smaller UID.
    offerer: bool,
    current: Epoch,
    previous: Option<Previous>,
    phase: Phase,
    /// The TCP connection, while there is one.
    connection: Option<ConnectionId>,
    /// Offerer: the peer was not yet seen to send in the current epoch.
    unproven: bool,
    /// Answerer: the last epoch offered, and confirmed, on this connection.
    offered: Option<u32>,
    confirmed: Option<u32>,
    /// A lane has used many of the numbers of its key.
    requested: bool,
}

impl Rekey {
    /// A link fresh from its handshake. `ours` is this host's UID, `session` our
    /// name of the session of epoch 0.
    #[must_use]
    pub fn new(
        ours: Uid,
        session: SessionIndex,
        peer: &PeerInfo,
        keys: LinkKeys,
        connection: ConnectionId,
        policy: RekeyPolicy,
        now: Duration,
    ) -> Self {
        let current =
            Epoch { keys, receive: session, send: peer.session, born: now, seen: LanesSeen::default() };
        Self {
            policy,
            offerer: ours < peer.uid,
            current,
            previous: None,
            phase: Phase::Idle,
            connection: Some(connection),
            unproven: false,
            offered: None,
            confirmed: None,
            requested: false,
        }
    }

    /// The epoch we send in.
    #[must_use]
    pub const fn epoch(&self) -> u32 {
        self.current.keys.epoch()
    }

    /// When that epoch began here.
    #[must_use]
    pub const fn since(&self) -> Duration {
        self.current.born
    }

    /// Keys of the epoch we send in.
    #[must_use]
    pub const fn keys(&self) -> &LinkKeys {
        &self.current.keys
    }

    /// True if the keys we send under are too old: the link must go down.
    #[must_use]
    pub fn is_expired(&self, now: Duration) -> bool {
        now >= self.expires()
    }

    /// When they are.
    #[must_use]
    pub const fn expires(&self) -> Duration {
        self.current.born.saturating_add(KEY_LIFETIME)
    }

    /// Asks for new keys as soon as may be: a lane of either side has passed
    /// [`crate::REKEY_DATAGRAMS`]. Nothing comes of it on the answerer's side; the
    /// offerer sees the numbers of the peer's lanes too.
    pub const fn request(&mut self) {
        self.requested = true;
    }

    /// An Offer came.
    ///
    /// # Errors
    /// [`RekeyError`] if it is not due.
    pub fn on_offer(
        &mut self,
        offer: RekeyShare,
        entropy: &mut dyn Entropy,
        now: Duration,
    ) -> Result<Vec<RekeyAction>, RekeyError> {
        let due = !self.offerer && self.connection.is_some() && self.is_next(offer.epoch);
        if !due || self.offered == Some(offer.epoch) {
            return Err(RekeyError::Unexpected("offer"));
        }
        self.offered = Some(offer.epoch);
        let mut actions = Vec::new();
        self.abandon(&mut actions);
        self.phase = Phase::Held(offer);
        self.take_up_offer(&mut actions, entropy, now)?;
        Ok(actions)
    }

    /// An Answer came.
    ///
    /// # Errors
    /// [`RekeyError`] if it is not due.
    pub fn on_answer(&mut self, answer: RekeyShare, now: Duration) -> Result<Vec<RekeyAction>, RekeyError> {
        let unexpected = RekeyError::Unexpected("answer");
        let connection = self.connection.ok_or(unexpected)?;
        if !self.is_next(answer.epoch) {
            return Err(unexpected);
        }
        if !matches!(self.phase, Phase::Offered(..)) {
            return Err(unexpected);
        }
        let Phase::Offered(ephemeral, offer) = std::mem::replace(&mut self.phase, Phase::Idle) else {
            return Err(unexpected);
        };
        let keys = self.next_keys(*ephemeral, &offer, &answer, &answer)?;
        let peer_key = keys.tcp_key(keys.role().other(), connection);
        let next = Epoch::new(keys, offer.session, answer.session, now);
        let actions = vec![RekeyAction::SwitchTcpReceive(peer_key), next.install()];
        self.phase = Phase::Answered(Box::new(next));
        Ok(actions)
    }

    /// A Confirm came.
    ///
    /// # Errors
    /// [`RekeyError`] if it is not due.
    pub fn on_confirm(&mut self, epoch: u32, now: Duration) -> Result<Vec<RekeyAction>, RekeyError> {
        let unexpected = RekeyError::Unexpected("confirmation");
        let connection = self.connection.ok_or(unexpected)?;
        if self.offerer || self.confirmed == Some(epoch) {
            return Err(unexpected);
        }
        let awaited = matches!(&self.phase, Phase::Answering(next) if next.keys.epoch() == epoch);
        // After a resumption it is repeated, though we may have switched before.
        let repeated = matches!(self.phase, Phase::Idle) && epoch > 0 && epoch == self.epoch();
        if !awaited && !repeated {
            return Err(unexpected);
        }
        let mut actions = Vec::new();
        if let Phase::Answering(next) = std::mem::replace(&mut self.phase, Phase::Idle) {
            actions.push(self.switch(*next, Some(now)));
        }
        self.confirmed = Some(epoch);
        let keys = &self.current.keys;
        actions.push(RekeyAction::SwitchTcpReceive(keys.tcp_key(keys.role().other(), connection)));
        Ok(actions)
    }

    /// All shards accept datagrams of `session`.
    pub fn on_receive_installed(&mut self, session: SessionIndex) -> Vec<RekeyAction> {
        let mut actions = Vec::new();
        let awaited = matches!(
            &self.phase,
            Phase::Answered(next) | Phase::Installing(next, _) if next.receive == session
        );
        if !awaited {
            // A session that was given up meanwhile.
            return actions;
        }
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Answered(next) => {
                actions.push(self.switch(*next, None));
                self.unproven = true;
                self.confirm(&mut actions);
            }
            Phase::Installing(next, answer) => {
                // Without a connection the phase was left when that broke.
                if let Some(connection) = self.connection {
                    let own_key = next.keys.tcp_key(next.keys.role(), connection);
                    actions.push(RekeyAction::Send(Message::RekeyAnswer(answer)));
                    actions.push(RekeyAction::SwitchTcpSend(own_key));
                    self.phase = Phase::Answering(next);
                }
            }
            Phase::Idle | Phase::Offered(..) | Phase::Held(_) | Phase::Answering(_) => {}
        }
        actions
    }

    /// A datagram of the peer was accepted on `lane` (the control lane counts too)
    /// in `epoch`, at `now` or up to a tenth of a second before. The first on each lane of an epoch is worth
    /// telling at once, others at leisure.
    pub fn on_lane_seen(&mut self, lane: Lane, epoch: u32, now: Duration) {
        if epoch == self.epoch() {
            self.current.seen.mark(lane, now);
            if self.unproven {
                self.unproven = false;
                if let Some(previous) = &mut self.previous {
                    previous.left = Some(now);
                }
            }
            return;
        }
        match &mut self.phase {
            Phase::Answering(next) if next.keys.epoch() == epoch => next.seen.mark(lane, now),
            Phase::Answering(_)
            | Phase::Idle
            | Phase::Offered(..)
            | Phase::Answered(_)
            | Phase::Held(_)
            | Phase::Installing(..) => {
                if let Some(previous) = self.previous.as_mut().filter(|p| p.epoch == epoch) {
                    previous.seen.mark(lane, now);
                }
            }
        }
    }

    /// The TCP connection is gone.
    pub fn on_disconnected(&mut self) -> Vec<RekeyAction> {
        let mut actions = Vec::new();
        self.connection = None;
        self.offered = None;
        self.confirmed = None;
        match self.phase {
            // No answer can come any more, and none can be sent.
            Phase::Offered(..) | Phase::Held(_) | Phase::Installing(..) => self.abandon(&mut actions),
            // The answer may have come through: the next message will tell.
            Phase::Idle | Phase::Answered(_) | Phase::Answering(_) => {}
        }
        actions
    }

    /// The link goes on over another connection.
    pub fn on_resumed(
        &mut self,
        connection: ConnectionId,
        entropy: &mut dyn Entropy,
        now: Duration,
    ) -> Vec<RekeyAction> {
        let mut actions = self.on_disconnected();
        self.connection = Some(connection);
        if self.unproven {
            self.confirm(&mut actions);
        }
        actions.extend(self.on_tick(entropy, now));
        actions
    }

    /// Does what is due by `now`.
    pub fn on_tick(&mut self, entropy: &mut dyn Entropy, now: Duration) -> Vec<RekeyAction> {
        let mut actions = Vec::new();
        if self.previous.as_ref().is_some_and(|previous| previous.ends_at(self.policy.drain) <= now) {
            self.drop_previous(&mut actions);
        }
        // The share was checked when it came in; a bad one never gets here.
        if self.take_up_offer(&mut actions, entropy, now).is_err() {
            self.phase = Phase::Idle;
        }
        if self.begins_at().is_some_and(|at| at <= now) {
            self.drop_previous(&mut actions);
            let ephemeral = Ephemeral::new(entropy);
            let offer = RekeyShare {
                epoch: self.epoch().saturating_add(1),
                ephemeral: *ephemeral.public(),
                session: SessionIndex(u64::from_be_bytes(draw(entropy))),
            };
            actions.push(RekeyAction::Send(Message::RekeyOffer(offer)));
            self.phase = Phase::Offered(Box::new(ephemeral), offer);
        }
        actions
    }

    /// The time by which [`Rekey::on_tick`] has something to do; it may change
    /// with every event.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        let held = matches!(self.phase, Phase::Held(_)).then(|| self.settled_at());
        let drop = self.previous.as_ref().map(|previous| previous.ends_at(self.policy.drain));
        [held, drop, self.begins_at()].into_iter().flatten().min()
    }

    /// Offerer: when the next re-key begins, if nothing else happens.
    fn begins_at(&self) -> Option<Duration> {
        let ready = self.offerer
            && self.connection.is_some()
            && !self.unproven
            && matches!(self.phase, Phase::Idle)
            && self.epoch() < u32::MAX;
        let wait =
            if self.requested { self.policy.spacing } else { self.policy.after.max(self.policy.spacing) };
        ready.then(|| self.current.born.saturating_add(wait).max(self.settled_at()))
    }

    /// When nothing of the epoch before can be on its way to us any more: each
    /// lane that used it was seen in the current one, or has been silent for a
    /// while since the peer left it.
    fn settled_at(&self) -> Duration {
        self.previous.as_ref().map_or(Duration::ZERO, |previous| {
            let left = previous.left.unwrap_or(self.current.born);
            previous.seen.settled_at(&self.current.seen, left, self.policy.idle)
        })
    }

    fn is_next(&self, epoch: u32) -> bool {
        self.epoch().checked_add(1) == Some(epoch)
    }

    /// Answerer: takes up a held offer, if it is time.
    fn take_up_offer(
        &mut self,
        actions: &mut Vec<RekeyAction>,
        entropy: &mut dyn Entropy,
        now: Duration,
    ) -> Result<(), RekeyError> {
        let Phase::Held(offer) = self.phase else { return Ok(()) };
        if self.settled_at() > now {
            return Ok(());
        }
        self.phase = Phase::Idle;
        let ephemeral = Ephemeral::new(entropy);
        let answer = RekeyShare {
            epoch: offer.epoch,
            ephemeral: *ephemeral.public(),
            session: SessionIndex(u64::from_be_bytes(draw(entropy))),
        };
        let keys = self.next_keys(ephemeral, &offer, &answer, &offer)?;
        self.drop_previous(actions);
        let next = Epoch::new(keys, answer.session, offer.session, now);
        actions.push(next.install());
        self.phase = Phase::Installing(Box::new(next), answer);
        Ok(())
    }

    /// The keys of the next epoch, with `theirs` being the peer's of both shares.
    fn next_keys(
        &self,
        ephemeral: Ephemeral,
        offer: &RekeyShare,
        answer: &RekeyShare,
        theirs: &RekeyShare,
    ) -> Result<LinkKeys, RekeyError> {
        if offer.ephemeral == answer.ephemeral {
            return Err(RekeyError::BadShare);
        }
        let shared = ephemeral.agree(&theirs.ephemeral).map_err(|_| RekeyError::BadShare)?;
        Ok(self.current.keys.next(&shared, &transcript(offer, answer)))
    }

    /// Makes `next` the epoch we send in.
    fn switch(&mut self, next: Epoch, left: Option<Duration>) -> RekeyAction {
        let action = RekeyAction::SwitchSend { session: next.send, keys: next.keys.clone() };
        let old = std::mem::replace(&mut self.current, next);
        self.previous = Some(Previous {
            epoch: old.keys.epoch(),
            receive: old.receive,
            born: old.born,
            seen: old.seen,
            left,
        });
        self.requested = false;
        action
    }

    /// Offerer: sends the Confirm of the current epoch, if there is a connection.
    fn confirm(&self, actions: &mut Vec<RekeyAction>) {
        if let Some(connection) = self.connection {
            let keys = &self.current.keys;
            actions.push(RekeyAction::Send(Message::RekeyConfirm { epoch: keys.epoch() }));
            actions.push(RekeyAction::SwitchTcpSend(keys.tcp_key(keys.role(), connection)));
        }
    }

    /// Gives up a re-key that is not finished.
    fn abandon(&mut self, actions: &mut Vec<RekeyAction>) {
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Idle | Phase::Offered(..) | Phase::Held(_) => {}
            Phase::Answered(next) | Phase::Installing(next, _) | Phase::Answering(next) => {
                actions.push(RekeyAction::DropReceive(next.receive));
            }
        }
    }

    fn drop_previous(&mut self, actions: &mut Vec<RekeyAction>) {
        if let Some(previous) = self.previous.take() {
            actions.push(RekeyAction::DropReceive(previous.receive));
        }
    }
}

impl fmt::Debug for Rekey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = match self.phase {
            Phase::Idle => "idle",
            Phase::Offered(..) => "offered",
            Phase::Answered(_) => "answered",
            Phase::Held(_) => "held",
            Phase::Installing(..) => "installing",
            Phase::Answering(_) => "answering",
        };
        f.debug_struct("Rekey")
            .field("offerer", &self.offerer)
            .field("epoch", &self.epoch())
            .field("previous", &self.previous.as_ref().map(|previous| previous.epoch))
            .field("phase", &phase)
            .field("unproven", &self.unproven)
            .finish_non_exhaustive()
    }
}

/// What binds the keys of an epoch to the messages that made them.
fn transcript(offer: &RekeyShare, answer: &RekeyShare) -> [u8; HASH_LEN] {
    let mut hash = Sha512::new_with_prefix(b"weave 1 rekey");
    for share in [offer, answer] {
        hash.update(share.epoch.to_be_bytes());
        hash.update(share.ephemeral);
        hash.update(share.session.0.to_be_bytes());
    }
    hash.finalize().into()
}
