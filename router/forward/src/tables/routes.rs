//! Where received frames go on to, and whether they may have come that way.

use crate::command::{LinkId, PeerRoute, Routes};
use crate::counters::DropReason;
use hashbrown::HashMap;
use std::sync::Arc;
use weave_wire::PeerName;

/// How a frame came, and what its inner header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// The link it came by.
    pub link: LinkId,
    /// The peer at the other end of that link.
    pub neighbour: PeerName,
    /// The peer whose station sent it.
    pub source: PeerName,
    /// The peer it is for; `None`: everybody.
    pub destination: Option<PeerName>,
}

/// Where a received frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// To the tap.
    Here,
    /// On by this link.
    Relay(LinkId),
    /// To the tap, and on by the links of a [`Spread`].
    Everywhere(Spread),
}

/// How a frame for everybody is sent on. Good until the routes change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spread {
    /// Place of the source's route.
    source: usize,
    /// The link the frame came by.
    came_by: LinkId,
}

/// The routes, and what was decided last.
pub struct RouteTable {
    own_name: PeerName,
    routes: Arc<Routes>,
    places: HashMap<PeerName, usize>,
    last: Option<(Arrival, Course)>,
}

impl RouteTable {
    /// No routes, on the host `own_name`.
    #[must_use]
    pub fn new(own_name: PeerName) -> Self {
        Self { own_name, routes: Arc::default(), places: HashMap::new(), last: None }
    }

    /// This host's name.
    #[must_use]
    pub const fn own_name(&self) -> PeerName {
        self.own_name
    }

    /// Replaces all routes.
    pub fn replace(&mut self, routes: Arc<Routes>) {
        self.last = None;
        self.places.clear();
        self.places.extend(routes.peers.iter().enumerate().map(|(place, route)| (route.peer, place)));
        self.routes = routes;
    }

    fn route(&self, peer: PeerName) -> Option<(usize, &PeerRoute)> {
        let place = *self.places.get(&peer)?;
        Some((place, self.routes.peers.get(place)?))
    }

    /// The link on the way to `peer` for this host's own frames.
    #[must_use]
    pub fn next(&self, peer: PeerName) -> Option<LinkId> {
        self.next_of(peer, self.routes.sealed_only)
    }

    fn next_of(&self, peer: PeerName, sealed_only: bool) -> Option<LinkId> {
        let (_, route) = self.route(peer)?;
        if sealed_only { route.next_sealed } else { Some(route.next) }
    }

    /// Links that this host's frames for everybody take.
    #[must_use]
    pub fn broadcast(&self) -> &[LinkId] {
        &self.routes.broadcast
    }

    /// Link number `number` of `spread`; the outer `None` after the last one, the
    /// inner one for a link to the peer it came from.
    #[must_use]
    pub fn spread_to(&self, spread: Spread, number: usize) -> Option<Option<LinkId>> {
        let &link = self.routes.peers.get(spread.source)?.broadcast_to.get(number)?;
        Some((!self.routes.same_peer(link, spread.came_by)).then_some(link))
    }

    /// Where a frame goes that came as `arrival` says.
    ///
    /// # Errors
    /// Why it goes nowhere: [`DropReason::Loop`], [`DropReason::SourcePeer`] or
    /// [`DropReason::NoRoute`].
    #[inline]
    pub fn course(&mut self, arrival: Arrival) -> Result<Course, DropReason> {
        if let Some((last, course)) = self.last
            && last == arrival
        {
            return Ok(course);
        }
        let course = self.decide(arrival)?;
        self.last = Some((arrival, course));
        Ok(course)
    }

    fn decide(&self, arrival: Arrival) -> Result<Course, DropReason> {
        let Arrival { link, neighbour, source, destination } = arrival;
        if source == self.own_name {
            return Err(DropReason::Loop);
        }
        let from = self.route(source);
        let is_neighbour = source == neighbour;
        match destination {
            Some(destination) => {
                let may_come = from.is_some_and(|(_, route)| route.unicast_from.contains(&link));
                if !is_neighbour && !may_come {
                    return Err(DropReason::SourcePeer);
                }
                if destination == self.own_name {
                    return Ok(Course::Here);
                }
                // Of a neighbour there is no route to yet it is not known.
                let sealed_only = from.is_none_or(|(_, route)| route.sealed_only);
                match self.next_of(destination, sealed_only) {
                    Some(next) if !self.routes.same_peer(next, link) => Ok(Course::Relay(next)),
                    Some(_) | None => Err(DropReason::NoRoute),
                }
            }
            None => match from {
                Some((place, route)) if route.broadcast_from.contains(&link) => {
                    let spread = Spread { source: place, came_by: link };
                    let goes_on = route.broadcast_to.iter().any(|&to| !self.routes.same_peer(to, link));
                    Ok(if goes_on { Course::Everywhere(spread) } else { Course::Here })
                }
                // Its link is there before the first routes that know of it.
                None if is_neighbour => Ok(Course::Here),
                Some(_) | None => Err(DropReason::SourcePeer),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn name(number: u8) -> PeerName {
        PeerName::new([2, 0, 0, 0, 0, number]).unwrap()
    }

    const LEFT: LinkId = LinkId(2);
    const RIGHT: LinkId = LinkId(3);

    /// We are 1. Neighbours are 2 (left) and 3 (right); 4 is behind 3, 5 behind both.
    fn table() -> RouteTable {
        let route = |number, next, unicast: &[LinkId], from: LinkId, to: &[LinkId]| PeerRoute {
            peer: name(number),
            next,
            next_sealed: None,
            sealed_only: false,
            unicast_from: unicast.to_vec(),
            broadcast_from: vec![from],
            broadcast_to: to.to_vec(),
        };
        let peers = vec![
            route(2, LEFT, &[LEFT], LEFT, &[RIGHT]),
            route(3, RIGHT, &[RIGHT], RIGHT, &[LEFT, RIGHT]),
            route(4, RIGHT, &[RIGHT], RIGHT, &[LEFT]),
            route(5, LEFT, &[LEFT, RIGHT], RIGHT, &[]),
        ];
        let mut table = RouteTable::new(name(1));
        table.replace(Arc::new(Routes { peers, broadcast: vec![LEFT, RIGHT], ..Routes::default() }));
        table
    }

    /// Asks for a frame of `source` that came from the neighbour `by`.
    fn ask(
        table: &mut RouteTable,
        by: u8,
        source: u8,
        destination: Option<u8>,
    ) -> Result<Course, DropReason> {
        let link = LinkId(by.into());
        let arrival =
            Arrival { link, neighbour: name(by), source: name(source), destination: destination.map(name) };
        let first = table.course(arrival);
        assert_eq!(table.course(arrival), first, "asked again");
        first
    }

    #[test]
    fn frames_for_us_come_from_the_neighbour_or_by_a_link_on_the_way_to_their_source() {
        let mut table = table();
        for (by, source) in [(2, 2), (3, 3), (3, 4), (2, 5), (3, 5), (9, 9)] {
            assert_eq!(ask(&mut table, by, source, Some(1)), Ok(Course::Here), "{source} by {by}");
        }
        for (by, source) in [(2, 3), (3, 2), (2, 4), (2, 9), (9, 2)] {
            assert_eq!(ask(&mut table, by, source, Some(1)), Err(DropReason::SourcePeer), "{source} by {by}");
        }
    }

    #[test]
    fn frames_of_ours_do_not_come_back() {
        for destination in [Some(1), Some(4), None] {
            assert_eq!(ask(&mut table(), 2, 1, destination), Err(DropReason::Loop));
        }
    }

    #[test]
    fn frames_for_others_go_on_but_never_back() {
        let mut table = table();
        assert_eq!(ask(&mut table, 2, 2, Some(4)), Ok(Course::Relay(RIGHT)));
        assert_eq!(ask(&mut table, 3, 4, Some(2)), Ok(Course::Relay(LEFT)));
        assert_eq!(ask(&mut table, 3, 3, Some(4)), Err(DropReason::NoRoute));
        assert_eq!(ask(&mut table, 2, 2, Some(9)), Err(DropReason::NoRoute));
        assert_eq!(ask(&mut table, 2, 4, Some(3)), Err(DropReason::SourcePeer));
    }

    #[test]
    fn frames_for_everybody_come_by_one_link_only_and_go_on_by_the_others() {
        let mut table = table();
        let Ok(Course::Everywhere(spread)) = ask(&mut table, 3, 3, None) else { panic!("not sent on") };
        let to: Vec<_> = (0..9).map_while(|number| table.spread_to(spread, number)).collect();
        assert_eq!(to, [Some(LEFT), None]);
        assert!(matches!(ask(&mut table, 3, 4, None), Ok(Course::Everywhere(_))));
        assert_eq!(ask(&mut table, 3, 5, None), Ok(Course::Here));
        // Not our parent in the tree of the source; unknown peers, but for the neighbour itself.
        for (by, source) in [(2, 4), (2, 5), (2, 3), (2, 9)] {
            assert_eq!(ask(&mut table, by, source, None), Err(DropReason::SourcePeer), "{source} by {by}");
        }
        assert_eq!(ask(&mut table, 9, 9, None), Ok(Course::Here));
    }

    #[test]
    fn a_neighbour_with_a_route_broadcasts_by_the_link_of_its_tree_only() {
        let mut table = table();
        let arrival = Arrival { link: LEFT, neighbour: name(5), source: name(5), destination: None };
        assert_eq!(table.course(arrival), Err(DropReason::SourcePeer));
        assert_eq!(table.course(Arrival { link: RIGHT, ..arrival }), Ok(Course::Here));
    }

    #[test]
    fn frames_that_may_take_no_unencrypted_link_go_another_way_or_none() {
        let mut table = table();
        let mut routes = Routes::clone(&table.routes);
        // The link to 3 is unencrypted; 2 wants none of that, and 5 is behind 2 as well.
        routes.peers[0].sealed_only = true;
        routes.peers[3].next = RIGHT;
        routes.peers[3].next_sealed = Some(LEFT);
        table.replace(Arc::new(routes.clone()));
        assert_eq!(ask(&mut table, 2, 2, Some(4)), Err(DropReason::NoRoute));
        assert_eq!(ask(&mut table, 2, 5, Some(4)), Ok(Course::Relay(RIGHT)), "others may");
        assert_eq!(ask(&mut table, 9, 9, Some(4)), Err(DropReason::NoRoute), "what it asks for is not known");
        assert_eq!(ask(&mut table, 9, 9, Some(5)), Ok(Course::Relay(LEFT)));
        assert_eq!((table.next(name(5)), table.next(name(4))), (Some(RIGHT), Some(RIGHT)));
        routes.sealed_only = true;
        table.replace(Arc::new(routes));
        assert_eq!((table.next(name(5)), table.next(name(4))), (Some(LEFT), None));
    }

    #[test]
    fn what_was_decided_is_forgotten_with_the_routes() {
        let mut table = table();
        assert_eq!(ask(&mut table, 2, 2, Some(4)), Ok(Course::Relay(RIGHT)));
        table.replace(Arc::default());
        assert_eq!(ask(&mut table, 2, 2, Some(4)), Err(DropReason::NoRoute));
        assert_eq!((table.next(name(4)), table.broadcast()), (None, &[][..]));
    }

    #[test]
    fn what_came_by_one_of_two_links_to_a_peer_goes_back_by_neither() {
        const RIGHT_TOO: LinkId = LinkId(7);
        let mut table = table();
        let mut routes = (*table.routes).clone();
        // 3, at the right, sends for everybody over its older link: on to the left alone.
        routes.followed = vec![(RIGHT_TOO, RIGHT)];
        routes.peers[1].broadcast_from.push(RIGHT_TOO);
        routes.peers[1].unicast_from.push(RIGHT_TOO);
        table.replace(Arc::new(routes.clone()));
        let arrival = Arrival { link: RIGHT_TOO, neighbour: name(3), source: name(3), destination: None };
        let Ok(Course::Everywhere(spread)) = table.course(arrival) else { panic!() };
        let sent = (0..2).map(|number| table.spread_to(spread, number).unwrap());
        assert_eq!(sent.collect::<Vec<_>>(), [Some(LEFT), None]);
        // And nowhere, where only the way back is left.
        routes.peers[1].broadcast_to = vec![RIGHT];
        table.replace(Arc::new(routes));
        assert_eq!(table.course(arrival), Ok(Course::Here));
        // For 4, which is behind 3: not back either.
        let arrival = Arrival { destination: Some(name(4)), ..arrival };
        assert_eq!(table.course(arrival), Err(DropReason::NoRoute));
    }
}
