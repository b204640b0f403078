//! The data plane: where a host's shards send a frame, and whence they take it.
//!
//! Follows `RouteTable` of `weave-forward` (`router/forward/src/tables/routes.rs`),
//! with the routes that the control core hands to the shards.

use crate::tcp::ConnectionId;
use std::collections::BTreeMap;
use weave_wire::{InnerHeader, PeerName};

/// A link, as shards know it: the connection whose handshake made it.
pub type Session = ConnectionId;

/// A frame between two hosts.
#[derive(Debug, Clone, Copy)]
pub struct Frame {
    /// Which one.
    pub number: u64,
    /// Its inner header.
    pub header: InnerHeader,
    /// Links crossed, counted by the simulator.
    pub crossed: u8,
}

/// The routes to and from one peer, as the shards take them.
#[derive(Debug, Clone)]
pub struct ShardRoute {
    /// Where frames for it go.
    pub next: Session,
    /// Links that its frames for us or others may come by.
    pub unicast_from: Vec<Session>,
    /// Links that its frames for everybody may come by.
    pub broadcast_from: Vec<Session>,
    /// Where those go on to.
    pub broadcast_to: Vec<Session>,
}

/// What the shards of a host know of routes.
#[derive(Debug, Default)]
pub struct RouteTable {
    /// By peer.
    pub peers: BTreeMap<PeerName, ShardRoute>,
    /// Where our own frames for everybody go.
    pub broadcast: Vec<Session>,
    /// Links to one peer of which the second follows the first.
    pub followed: Vec<(Session, Session)>,
}

/// Where a received frame goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Course {
    /// To the tap.
    pub here: bool,
    /// On by these links.
    pub on: Vec<Session>,
}

/// Why a frame was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Drop {
    /// It is our own.
    Loop,
    /// It may not have come that way.
    SourcePeer,
    /// There is no way on.
    NoRoute,
    /// It crossed too many links.
    HopLimit,
}

impl RouteTable {
    fn same_peer(&self, a: Session, b: Session) -> bool {
        a == b || self.followed.iter().any(|&pair| pair == (a, b) || pair == (b, a))
    }

    /// Where a frame with `header` goes that came by `link` from `neighbour` to the
    /// host `ours`.
    ///
    /// # Errors
    /// Why it goes nowhere.
    pub fn course(
        &self,
        ours: PeerName,
        link: Session,
        neighbour: PeerName,
        header: &InnerHeader,
    ) -> Result<Course, Drop> {
        let source = header.source().ok_or(Drop::SourcePeer)?;
        if header.hop_limit() == 0 {
            return Err(Drop::HopLimit);
        }
        if source == ours {
            return Err(Drop::Loop);
        }
        let from = self.peers.get(&source);
        match header.destination() {
            Some(destination) => {
                let may_come = from.is_some_and(|route| route.unicast_from.contains(&link));
                if source != neighbour && !may_come {
                    return Err(Drop::SourcePeer);
                }
                if destination == ours {
                    return Ok(Course { here: true, on: Vec::new() });
                }
                match self.peers.get(&destination) {
                    Some(route) if !self.same_peer(route.next, link) => {
                        Ok(Course { here: false, on: vec![route.next] })
                    }
                    Some(_) | None => Err(Drop::NoRoute),
                }
            }
            None => match from {
                Some(route) if route.broadcast_from.contains(&link) => {
                    let on =
                        route.broadcast_to.iter().copied().filter(|to| !self.same_peer(*to, link)).collect();
                    Ok(Course { here: true, on })
                }
                None if source == neighbour => Ok(Course { here: true, on: Vec::new() }),
                Some(_) | None => Err(Drop::SourcePeer),
            },
        }
    }
}
