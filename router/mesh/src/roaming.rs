//! Where datagrams of one link go, and how that follows a peer that moves.
//!
//! A peer's address moves when an authenticated datagram of the control lane,
//! newer than all before, comes from elsewhere. The new place is challenged
//! first with random bytes that only the peer can read and must send back from
//! there; the old place is challenged too. An answer through the old place keeps
//! the link there: whoever merely copies datagrams faster than the network
//! carries them cannot draw a link to himself while the old path lives.

use std::net::SocketAddr;
use std::time::Duration;

/// Moves of one link are at least this far apart.
pub const MOVE_INTERVAL: Duration = Duration::from_secs(1);
/// How long the old place has to answer once the new one did.
pub const OLD_PATH_WAIT: Duration = Duration::from_millis(500);
/// A challenge without an answer is forgotten after this time.
pub const CHALLENGE_LIMIT: Duration = Duration::from_secs(3);

/// A challenge to be sealed and sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Challenge {
    /// Where to.
    pub address: SocketAddr,
    /// What must come back.
    pub nonce: u64,
}

/// A place that is being looked into.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    new: Challenge,
    old: Challenge,
    since: Duration,
    /// When the new place answered.
    answered: Option<Duration>,
}

/// The address of one link.
#[derive(Debug, Clone)]
pub struct Roaming {
    current: SocketAddr,
    /// True once the peer answered from there.
    proven: bool,
    newest: Option<(u32, u32)>,
    candidate: Option<Candidate>,
    moved: Option<Duration>,
}

impl Roaming {
    /// A link to `address`, where the peer says that it listens.
    #[must_use]
    pub const fn new(address: SocketAddr) -> Self {
        Self { current: address, proven: false, newest: None, candidate: None, moved: None }
    }

    /// Where datagrams go.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.current
    }

    /// A heartbeat made the round trip by the current address.
    pub const fn on_round_trip(&mut self) {
        self.proven = true;
    }

    /// An authenticated datagram of the control lane, number `counter` of
    /// `epoch`, says that the peer is at `address`. Returns what to send: at
    /// most one challenge for each of the two places, less than three times
    /// what was received. `nonce` gives random numbers.
    pub fn on_datagram(
        &mut self,
        epoch: u32,
        counter: u32,
        address: SocketAddr,
        now: Duration,
        mut nonce: impl FnMut() -> u64,
    ) -> Vec<Challenge> {
        if self.newest.is_some_and(|newest| newest >= (epoch, counter)) {
            return Vec::new();
        }
        self.newest = Some((epoch, counter));
        let moved_lately = self.moved.is_some_and(|at| now.saturating_sub(at) < MOVE_INTERVAL);
        if address == self.current || moved_lately {
            return Vec::new();
        }
        if let Some(candidate) = &self.candidate
            && candidate.new.address == address
            && now.saturating_sub(candidate.since) < CHALLENGE_LIMIT
        {
            // Each datagram from there may be answered by one more: challenges get lost.
            return if candidate.answered.is_some() { Vec::new() } else { vec![candidate.new] };
        }
        let candidate = Candidate {
            new: Challenge { address, nonce: nonce() },
            old: Challenge { address: self.current, nonce: nonce() },
            since: now,
            answered: None,
        };
        self.candidate = Some(candidate);
        vec![candidate.new, candidate.old]
    }

    /// A challenge came back from `source`. True if the link moved there.
    #[must_use]
    pub fn on_answer(&mut self, nonce: u64, source: SocketAddr, now: Duration) -> bool {
        let Some(candidate) = &mut self.candidate else { return false };
        if nonce == candidate.old.nonce {
            // The old path lives: the link stays.
            if self.proven {
                self.candidate = None;
            }
            return false;
        }
        if nonce != candidate.new.nonce || source != candidate.new.address {
            return false;
        }
        candidate.answered.get_or_insert(now);
        self.poll(now)
    }

    /// What time alone decides. True if the link moved.
    #[must_use]
    pub fn poll(&mut self, now: Duration) -> bool {
        let Some(candidate) = self.candidate else { return false };
        let Some(answered) = candidate.answered else {
            if now.saturating_sub(candidate.since) >= CHALLENGE_LIMIT {
                self.candidate = None;
            }
            return false;
        };
        // An address that never worked has nothing to defend.
        if self.proven && now.saturating_sub(answered) < OLD_PATH_WAIT {
            return false;
        }
        self.current = candidate.new.address;
        self.proven = true;
        self.candidate = None;
        self.moved = Some(now);
        true
    }

    /// When [`Roaming::poll`] has something to decide.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let candidate = self.candidate?;
        Some(match candidate.answered {
            Some(answered) if self.proven => answered.saturating_add(OLD_PATH_WAIT),
            Some(answered) => answered,
            None => candidate.since.saturating_add(CHALLENGE_LIMIT),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 6783))
    }

    fn nonces(nonces: [u64; 2]) -> impl FnMut() -> u64 {
        let mut nonces = nonces.into_iter();
        move || nonces.next().unwrap()
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn proven() -> Roaming {
        let mut roaming = Roaming::new(at(1));
        roaming.on_round_trip();
        roaming
    }

    #[test]
    fn a_peer_that_moved_is_followed_when_it_answers_from_there_and_not_from_the_old_place() {
        let mut roaming = proven();
        let sent = roaming.on_datagram(0, 5, at(2), ms(0), nonces([7, 8]));
        assert_eq!(sent, [Challenge { address: at(2), nonce: 7 }, Challenge { address: at(1), nonce: 8 }]);
        assert!(!roaming.on_answer(7, at(2), ms(20)), "the old place has its time");
        assert_eq!(roaming.address(), at(1));
        assert_eq!(roaming.deadline(), Some(ms(520)));
        assert!(roaming.poll(ms(520)));
        assert_eq!(roaming.address(), at(2));
        assert_eq!(roaming.deadline(), None);
    }

    #[test]
    fn a_link_whose_old_path_lives_stays() {
        let mut roaming = proven();
        roaming.on_datagram(0, 5, at(2), ms(0), nonces([7, 8]));
        assert!(!roaming.on_answer(7, at(2), ms(10)));
        assert!(!roaming.on_answer(8, at(1), ms(30)));
        assert!(!roaming.poll(ms(10_000)));
        assert_eq!(roaming.address(), at(1));
    }

    #[test]
    fn an_address_that_never_worked_is_left_at_once() {
        let mut roaming = Roaming::new(at(1));
        roaming.on_datagram(0, 5, at(2), ms(0), nonces([7, 8]));
        assert!(roaming.on_answer(7, at(2), ms(10)));
    }

    #[test]
    fn a_copy_of_an_old_datagram_moves_nothing() {
        let mut roaming = proven();
        assert!(roaming.on_datagram(1, 5, at(1), ms(0), nonces([1, 2])).is_empty());
        assert!(roaming.on_datagram(1, 5, at(2), ms(0), nonces([1, 2])).is_empty());
        assert!(roaming.on_datagram(1, 4, at(2), ms(0), nonces([1, 2])).is_empty());
        assert!(roaming.on_datagram(0, 9, at(2), ms(0), nonces([1, 2])).is_empty());
        assert!(!roaming.on_datagram(2, 0, at(2), ms(0), nonces([1, 2])).is_empty());
    }

    #[test]
    fn an_answer_with_another_nonce_or_from_elsewhere_moves_nothing() {
        let mut roaming = proven();
        roaming.on_datagram(0, 5, at(2), ms(0), nonces([7, 8]));
        assert!(!roaming.on_answer(9, at(2), ms(1)));
        assert!(!roaming.on_answer(7, at(3), ms(1)));
        assert!(!roaming.poll(ms(2_000)));
        assert!(!roaming.poll(CHALLENGE_LIMIT));
        assert!(!roaming.on_answer(7, at(2), ms(4_000)), "too late");
        assert_eq!(roaming.address(), at(1));
    }

    #[test]
    fn a_link_moves_once_a_second_at_most() {
        let mut roaming = Roaming::new(at(1));
        roaming.on_datagram(0, 1, at(2), ms(0), nonces([1, 2]));
        assert!(roaming.on_answer(1, at(2), ms(0)));
        assert!(roaming.on_datagram(0, 2, at(3), ms(999), nonces([3, 4])).is_empty());
        assert!(!roaming.on_datagram(0, 3, at(3), ms(1_000), nonces([3, 4])).is_empty());
    }

    #[test]
    fn a_lost_challenge_is_sent_again_for_each_datagram_from_there() {
        let mut roaming = proven();
        roaming.on_datagram(0, 1, at(2), ms(0), nonces([1, 2]));
        let again = roaming.on_datagram(0, 2, at(2), ms(100), nonces([3, 4]));
        assert_eq!(again, [Challenge { address: at(2), nonce: 1 }]);
    }
}
