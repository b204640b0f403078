//! Where frames go, and whence they may come.

use crate::output::LinkNumber;
use crate::paths::{Links, Paths, Quality, UNREACHABLE, qualities, shortest};
use crate::topology::Topology;
use std::collections::BTreeMap;
use std::time::Duration;
use weave_wire::PeerName;

/// How long frames are still accepted on former paths; up to [`FORMER_STEP`] longer,
/// so that those that end one after the other end together.
pub const FORMER_PATHS: Duration = Duration::from_secs(2);

/// The ends of former paths are multiples of this.
const FORMER_STEP: Duration = Duration::from_millis(250);

/// All routes of this host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Routes {
    /// Every reachable peer but us, by name.
    pub peers: Vec<PeerRoute>,
    /// Where our own broadcasts go.
    pub broadcast: Vec<LinkNumber>,
    /// Our own frames may take no unencrypted link.
    pub sealed_only: bool,
}

/// The routes to and from one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRoute {
    /// The peer.
    pub peer: PeerName,
    /// Where frames for it go.
    pub next: LinkNumber,
    /// Where those go that may take no unencrypted link on the whole way.
    pub next_sealed: Option<LinkNumber>,
    /// Its own frames are such.
    pub sealed_only: bool,
    /// Links on the way of our frames.
    pub hops: u8,
    /// Cost of that way.
    pub cost: u32,
    /// True if any link of the way is unencrypted.
    pub unencrypted: bool,
    /// Links on a shortest path from it to us, now or within [`FORMER_PATHS`].
    pub unicast_from: Vec<LinkNumber>,
    /// Our parent in its tree, and the one before if that was within [`FORMER_PATHS`]. Not more
    /// of them: what comes from two parents goes on twice, at every host on the way.
    pub broadcast_from: Vec<LinkNumber>,
    /// Our children in its tree.
    pub broadcast_to: Vec<LinkNumber>,
}

impl Routes {
    /// The routes to and from `peer`, if it can be reached.
    #[must_use]
    pub fn peer(&self, peer: PeerName) -> Option<&PeerRoute> {
        let at = self.peers.binary_search_by_key(&peer, |route| route.peer).ok()?;
        self.peers.get(at)
    }
}

/// Computes the routes of `ourselves`; `newest`: the newest link to each neighbour,
/// `is_sealed_only`: whose frames may take no unencrypted link. Returns with them how many links
/// were looked at, which is what it cost.
///
/// Shortest paths are searched from us and from each neighbour, not from all
/// nodes. The search from us looks at every link of the graph once; those from
/// the neighbours end when nothing can improve any more. With degree *d*, *N*
/// peers and *E* links: O(d·N) where nearly all are linked to all (d·N is about
/// E), at most O(d·E·log N) else; twice that where somebody is `is_sealed_only`.
pub(crate) fn compute(
    graph: &Topology,
    ourselves: PeerName,
    newest: &BTreeMap<PeerName, LinkNumber>,
    is_sealed_only: impl Fn(PeerName) -> bool,
) -> (Routes, usize) {
    let Some(us) = graph.node(ourselves) else { return (Routes::default(), 0) };
    let any = Ways::search(graph, Links::Any, us, newest);
    let sealed_only: Vec<bool> =
        (0..graph.len()).map(|node| graph.name(node).is_some_and(&is_sealed_only)).collect();
    let is_sealed_only = |node: usize| sealed_only.get(node).copied().unwrap_or_default();
    let needed = sealed_only.contains(&true);
    let sealed = needed.then(|| Ways::search(graph, Links::Sealed, us, newest));
    let looked = any.looked() + sealed.as_ref().map_or(0, Ways::looked);
    let sealed = sealed.as_ref().unwrap_or(&any);
    let ways = |node: usize| if is_sealed_only(node) { sealed } else { &any };
    let mut peers = Vec::with_capacity(any.paths.reached);
    for node in (0..graph.len()).filter(|node| *node != us) {
        let (Some(peer), Some(next)) = (graph.name(node), any.next(graph, node, newest)) else { continue };
        let (own, theirs) = (ways(us), ways(node));
        let quality = own.qualities.get(node).copied().unwrap_or_default();
        peers.push(PeerRoute {
            peer,
            next,
            next_sealed: sealed.next(graph, node, newest),
            sealed_only: is_sealed_only(node),
            hops: quality.hops,
            cost: own.paths.cost_of(node),
            unencrypted: quality.unencrypted,
            unicast_from: theirs.shortest_by(node),
            broadcast_from: theirs.next(graph, node, newest).into_iter().collect(),
            broadcast_to: theirs.children(us, node),
        });
    }
    peers.sort_unstable_by_key(|route| route.peer);
    (Routes { peers, broadcast: ways(us).children(us, us), sealed_only: is_sealed_only(us) }, looked)
}

/// The shortest ways over some of the links.
struct Ways {
    paths: Paths,
    qualities: Vec<Quality>,
    /// Nodes of ways looked at for them.
    compared: usize,
    /// By name.
    neighbours: Vec<Neighbour>,
}

struct Neighbour {
    name: PeerName,
    node: usize,
    link: LinkNumber,
    cost: u32,
    paths: Paths,
}

impl Ways {
    fn search(graph: &Topology, links: Links, us: usize, newest: &BTreeMap<PeerName, LinkNumber>) -> Self {
        let paths = shortest(graph, links, us, None);
        let edges = graph.edges(us).iter().filter(|edge| links.may_use(edge));
        let mut neighbours: Vec<Neighbour> = edges
            .filter_map(|edge| {
                let name = graph.name(edge.to)?;
                let link = *newest.get(&name)?;
                let paths = shortest(graph, links, edge.to, Some(paths.reached));
                Some(Neighbour { name, node: edge.to, link, cost: u32::from(edge.cost), paths })
            })
            .collect();
        neighbours.sort_unstable_by_key(|neighbour| neighbour.name);
        let (qualities, compared) = qualities(graph, links, us, &paths);
        Self { paths, qualities, compared, neighbours }
    }

    /// Links looked at: those of the ways from us twice, for what they are like, and nodes of ways.
    fn looked(&self) -> usize {
        2 * self.paths.looked + self.compared + self.neighbours.iter().map(|n| n.paths.looked).sum::<usize>()
    }

    /// The link on the way to `node`.
    fn next(
        &self,
        graph: &Topology,
        node: usize,
        newest: &BTreeMap<PeerName, LinkNumber>,
    ) -> Option<LinkNumber> {
        let first = self.paths.first_of(node).filter(|_| self.paths.cost_of(node) != UNREACHABLE)?;
        newest.get(&graph.name(first)?).copied()
    }

    /// Links on a shortest path from `node` to us.
    fn shortest_by(&self, node: usize) -> Vec<LinkNumber> {
        let cost = self.paths.cost_of(node);
        let is_shortest = |n: &&Neighbour| n.paths.cost_of(node).saturating_add(n.cost) == cost;
        if cost == UNREACHABLE {
            return Vec::new();
        }
        self.neighbours.iter().filter(is_shortest).map(|n| n.link).collect()
    }

    /// Links to our children in the tree of `node`; we are `us`.
    fn children(&self, us: usize, node: usize) -> Vec<LinkNumber> {
        let is_child = |n: &&Neighbour| n.node != node && n.paths.first_of(node) == Some(us);
        let is_ours = |n: &&Neighbour| n.paths.first_of(us) == Some(us);
        let of_us = node == us;
        let links = self.neighbours.iter().filter(|n| if of_us { is_ours(n) } else { is_child(n) });
        links.map(|n| n.link).collect()
    }
}

/// The first multiple of `step` that is not before `at`.
fn rounded_up(at: Duration, step: Duration) -> Duration {
    let steps = at.as_micros().div_ceil(step.as_micros().max(1));
    u32::try_from(steps).map_or(at, |steps| step.saturating_mul(steps))
}

/// Paths that were valid a moment ago: frames on them are under way.
#[derive(Debug, Default)]
pub(crate) struct FormerPaths {
    current: Routes,
    /// Links on shortest paths from peers to us, and how long they count as such.
    unicast: BTreeMap<(PeerName, LinkNumber), Duration>,
    /// Our last parent in the tree of each peer, and how long it counts as one.
    parents: BTreeMap<PeerName, (LinkNumber, Duration)>,
    /// When the first of them ends.
    next_end: Option<Duration>,
}

impl FormerPaths {
    /// These are the paths from now on.
    pub(crate) fn replace(&mut self, new: Routes, now: Duration) {
        let until = rounded_up(now.saturating_add(FORMER_PATHS), FORMER_STEP);
        let without = |old: &[LinkNumber], new: Option<&Vec<LinkNumber>>| {
            let gone = old.iter().copied().filter(|link| new.is_none_or(|new| !new.contains(link)));
            gone.collect::<Vec<_>>()
        };
        for old in &self.current.peers {
            let route = new.peer(old.peer);
            let unicast = without(&old.unicast_from, route.map(|route| &route.unicast_from));
            self.unicast.extend(unicast.into_iter().map(|link| ((old.peer, link), until)));
            let parents = without(&old.broadcast_from, route.map(|route| &route.broadcast_from));
            self.parents.extend(parents.into_iter().map(|link| (old.peer, (link, until))));
        }
        self.current = new;
        self.expire(now);
    }

    /// Forgets what is no longer accepted.
    pub(crate) fn expire(&mut self, now: Duration) {
        self.unicast.retain(|_, until| *until > now);
        self.parents.retain(|_, (_, until)| *until > now);
        let ends = self.unicast.values().chain(self.parents.values().map(|(_, until)| until));
        self.next_end = ends.min().copied();
    }

    /// When something is no longer accepted.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.next_end
    }

    /// The current routes, former paths among those accepted.
    pub(crate) fn routes(&self) -> Routes {
        let mut routes = self.current.clone();
        for (peer, link) in self.unicast.keys() {
            accept(&mut routes, *peer, *link, |route| &mut route.unicast_from);
        }
        for (peer, (link, _)) in &self.parents {
            accept(&mut routes, *peer, *link, |route| &mut route.broadcast_from);
        }
        routes
    }
}

/// Adds a link to those by which frames of `peer` may come, if it can be reached at all.
fn accept(
    routes: &mut Routes,
    peer: PeerName,
    link: LinkNumber,
    of: impl Fn(&mut PeerRoute) -> &mut Vec<LinkNumber>,
) {
    let Ok(at) = routes.peers.binary_search_by_key(&peer, |route| route.peer) else { return };
    let Some(links) = routes.peers.get_mut(at).map(of) else { return };
    if !links.contains(&link) {
        links.push(link);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::topology::tests::peer;

    #[test]
    fn only_the_last_of_former_parents_is_accepted() {
        let by = |link| {
            let route = PeerRoute {
                peer: peer(1),
                next: LinkNumber(link),
                next_sealed: None,
                sealed_only: false,
                hops: 2,
                cost: 2,
                unencrypted: false,
                unicast_from: vec![LinkNumber(link)],
                broadcast_from: vec![LinkNumber(link)],
                broadcast_to: Vec::new(),
            };
            Routes { peers: vec![route], ..Routes::default() }
        };
        let mut paths = FormerPaths::default();
        for link in [1, 2, 3] {
            paths.replace(by(link), Duration::ZERO);
        }
        let routes = paths.routes();
        let route = routes.peer(peer(1)).unwrap();
        assert_eq!(route.broadcast_from, [3, 2].map(LinkNumber));
        assert_eq!(route.unicast_from, [3, 1, 2].map(LinkNumber));
        paths.expire(paths.deadline().unwrap());
        assert_eq!(paths.routes(), by(3));
        assert_eq!(paths.deadline(), None);
    }
}
