//! Two connections to one peer: which one stays.
//!
//! Both sides may dial at once, and each then sees two handshakes (or two
//! resumptions) finish, in either order. Both must keep the same one without
//! asking each other.

use weave_wire::Uid;

/// Who dialled a connection, as one side sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialler {
    /// We did.
    Us,
    /// The peer did.
    Peer,
}

/// What to do with a connection that has just been authenticated, while there is
/// another to the same peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crossing {
    /// The new one takes the place of the old.
    Replace,
    /// The new one is closed.
    KeepOld,
}

/// Decides between two connections to the same run of the same peer: the dial of
/// the smaller UID stays. Of two dials of the same side the newer stays, for that
/// side dials again only when its old connection is lost.
///
/// A peer with a new UID is another run: its connection always replaces those of
/// the run before, and this function is not asked.
#[must_use]
pub fn which_survives(ours: Uid, peer: Uid, old: Dialler, new: Dialler) -> Crossing {
    let smaller = if ours < peer { Dialler::Us } else { Dialler::Peer };
    if old == new || new == smaller { Crossing::Replace } else { Crossing::KeepOld }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// Two connections between two sides, numbered by who dialled: 0 is the side
    /// with the smaller UID. Messages go to and fro, the dialler begins.
    #[derive(Clone, PartialEq, Eq, Hash)]
    struct World {
        sent: [u8; 2],
        delivered: [u8; 2],
        /// Whether each side has closed, or seen closed, each connection.
        closed: [[bool; 2]; 2],
        /// The connection each side takes for its link.
        link: [Option<usize>; 2],
    }

    /// After how many messages each side takes a connection for good.
    #[derive(Clone, Copy)]
    struct Protocol {
        dialler: u8,
        answerer: u8,
    }

    const HANDSHAKE: Protocol = Protocol { dialler: 6, answerer: 5 };
    const RESUMPTION: Protocol = Protocol { dialler: 2, answerer: 3 };

    fn dialler(side: usize, connection: usize) -> Dialler {
        if side == connection { Dialler::Us } else { Dialler::Peer }
    }

    impl World {
        /// The worlds after each event that can come next: a message arrives, or
        /// the end of a connection that the other side closed, behind the last
        /// message.
        fn successors(&self, protocol: Protocol) -> Vec<Self> {
            let mut worlds = Vec::new();
            for connection in [0, 1] {
                let in_flight = self.sent[connection] > self.delivered[connection];
                let to =
                    if self.delivered[connection].is_multiple_of(2) { 1 - connection } else { connection };
                if in_flight && !self.closed[to][connection] {
                    let mut next = self.clone();
                    next.deliver(to, connection, protocol);
                    worlds.push(next);
                }
                for side in [0, 1] {
                    let behind_a_message = in_flight && side == to;
                    let ended = self.closed[1 - side][connection] && !self.closed[side][connection];
                    if ended && !behind_a_message {
                        let mut next = self.clone();
                        next.close(side, connection);
                        worlds.push(next);
                    }
                }
            }
            worlds
        }

        fn deliver(&mut self, side: usize, connection: usize, protocol: Protocol) {
            self.delivered[connection] += 1;
            let number = self.delivered[connection];
            let completes = if side == connection { protocol.dialler } else { protocol.answerer };
            if number == completes {
                if let Some(old) = self.link[side] {
                    let (ours, peer) = (Uid(side as u64), Uid(1 - side as u64));
                    match which_survives(ours, peer, dialler(side, old), dialler(side, connection)) {
                        Crossing::KeepOld => return self.close(side, connection),
                        Crossing::Replace => self.close(side, old),
                    }
                }
                self.link[side] = Some(connection);
            }
            if number < protocol.dialler.max(protocol.answerer) {
                self.sent[connection] = number + 1;
            }
        }

        fn close(&mut self, side: usize, connection: usize) {
            self.closed[side][connection] = true;
            if self.link[side] == Some(connection) {
                self.link[side] = None;
            }
        }
    }

    #[test]
    fn two_dials_at_once_end_with_one_link_in_every_interleaving() {
        for protocol in [HANDSHAKE, RESUMPTION] {
            let start = World { sent: [1; 2], delivered: [0; 2], closed: [[false; 2]; 2], link: [None; 2] };
            let (mut seen, mut open, mut ends) = (HashSet::from([start.clone()]), vec![start], 0);
            while let Some(world) = open.pop() {
                let next = world.successors(protocol);
                if next.is_empty() {
                    assert_eq!(world.link, [Some(0); 2], "the dial of the smaller UID stays");
                    ends += 1;
                }
                open.extend(next.into_iter().filter(|world| seen.insert(world.clone())));
            }
            assert!(ends > 0 && seen.len() > 15, "{} states", seen.len());
        }
    }

    #[test]
    fn of_two_dials_of_one_side_the_newer_stays() {
        for side in [Dialler::Us, Dialler::Peer] {
            assert_eq!(which_survives(Uid(1), Uid(2), side, side), Crossing::Replace);
            assert_eq!(which_survives(Uid(2), Uid(1), side, side), Crossing::Replace);
        }
    }
}
