//! Where frames go, and whence they may come.

use crate::output::LinkNumber;
use crate::paths::{Paths, UNREACHABLE, qualities, shortest};
use crate::topology::Topology;
use std::collections::BTreeMap;
use std::time::Duration;
use weave_wire::PeerName;

/// How long frames are still accepted on former paths.
pub const FORMER_PATHS: Duration = Duration::from_secs(2);

/// All routes of this host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Routes {
    /// Every reachable peer but us, by name.
    pub peers: Vec<PeerRoute>,
    /// Where our own broadcasts go.
    pub broadcast: Vec<LinkNumber>,
}

/// The routes to and from one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRoute {
    /// The peer.
    pub peer: PeerName,
    /// Where frames for it go.
    pub next: LinkNumber,
    /// Links on the way.
    pub hops: u8,
    /// Cost of the way.
    pub cost: u32,
    /// True if any link of the way is unencrypted.
    pub unencrypted: bool,
    /// Links on a shortest path from it to us, now or within [`FORMER_PATHS`].
    pub unicast_from: Vec<LinkNumber>,
    /// Our parent in its tree, now or within [`FORMER_PATHS`].
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

/// Computes the routes of `ourselves`; `links`: the newest link to each neighbour.
///
/// Shortest paths are searched from us and from each neighbour, not from all
/// nodes. The search from us looks at every link of the graph once; those from
/// the neighbours end when nothing can improve any more. With degree *d*, *N*
/// peers and *E* links: O(d·N) where nearly all are linked to all (d·N is about
/// E), at most O(d·E·log N) else.
pub(crate) fn compute(
    graph: &Topology,
    ourselves: PeerName,
    links: &BTreeMap<PeerName, LinkNumber>,
) -> Routes {
    let Some(us) = graph.node(ourselves) else { return Routes::default() };
    let paths = shortest(graph, us, None);
    let mut neighbours: Vec<Neighbour> = graph
        .edges(us)
        .iter()
        .filter_map(|edge| {
            let name = graph.name(edge.to)?;
            let link = *links.get(&name)?;
            let paths = shortest(graph, edge.to, Some(paths.reached));
            Some(Neighbour { name, node: edge.to, link, cost: u32::from(edge.cost), paths })
        })
        .collect();
    neighbours.sort_unstable_by_key(|neighbour| neighbour.name);
    let qualities = qualities(graph, us, &paths);
    let mut peers = Vec::with_capacity(paths.reached);
    for node in (0..graph.len()).filter(|node| *node != us) {
        let cost = paths.cost_of(node);
        let (Some(peer), Some(first)) = (graph.name(node), paths.first_of(node)) else { continue };
        let Some(next) = graph.name(first).and_then(|name| links.get(&name)) else { continue };
        if cost == UNREACHABLE {
            continue;
        }
        let quality = qualities.get(node).copied().unwrap_or_default();
        let links_where = |test: &dyn Fn(&Neighbour) -> bool| {
            neighbours.iter().filter(|n| test(n)).map(|n| n.link).collect::<Vec<_>>()
        };
        peers.push(PeerRoute {
            peer,
            next: *next,
            hops: quality.hops,
            cost,
            unencrypted: quality.unencrypted,
            unicast_from: links_where(&|n| n.paths.cost_of(node).saturating_add(n.cost) == cost),
            broadcast_from: vec![*next],
            broadcast_to: links_where(&|n| n.node != node && n.paths.first_of(node) == Some(us)),
        });
    }
    peers.sort_unstable_by_key(|route| route.peer);
    let broadcast = neighbours.iter().filter(|n| n.paths.first_of(us) == Some(us)).map(|n| n.link).collect();
    Routes { peers, broadcast }
}

struct Neighbour {
    name: PeerName,
    node: usize,
    link: LinkNumber,
    cost: u32,
    paths: Paths,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    Unicast,
    Broadcast,
}

/// Paths that were valid a moment ago: frames on them are under way.
#[derive(Debug, Default)]
pub(crate) struct FormerPaths {
    current: Routes,
    former: BTreeMap<(PeerName, Use, LinkNumber), Duration>,
}

impl FormerPaths {
    /// These are the paths from now on.
    pub(crate) fn replace(&mut self, new: Routes, now: Duration) {
        let until = now.saturating_add(FORMER_PATHS);
        for old in &self.current.peers {
            let route = new.peer(old.peer);
            let sets = [
                (Use::Unicast, &old.unicast_from, route.map(|route| &route.unicast_from)),
                (Use::Broadcast, &old.broadcast_from, route.map(|route| &route.broadcast_from)),
            ];
            for (used, old_links, new_links) in sets {
                let gone = old_links.iter().filter(|link| new_links.is_none_or(|new| !new.contains(link)));
                self.former.extend(gone.map(|link| ((old.peer, used, *link), until)));
            }
        }
        self.current = new;
        self.expire(now);
    }

    /// Forgets what is no longer accepted.
    pub(crate) fn expire(&mut self, now: Duration) {
        self.former.retain(|_, until| *until > now);
    }

    /// When something is no longer accepted.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.former.values().min().copied()
    }

    /// The current routes, former paths among those accepted.
    pub(crate) fn routes(&self) -> Routes {
        let mut routes = self.current.clone();
        for (peer, used, link) in self.former.keys() {
            let Ok(at) = routes.peers.binary_search_by_key(peer, |route| route.peer) else { continue };
            let Some(route) = routes.peers.get_mut(at) else { continue };
            let accepted = match used {
                Use::Unicast => &mut route.unicast_from,
                Use::Broadcast => &mut route.broadcast_from,
            };
            if !accepted.contains(link) {
                accepted.push(*link);
            }
        }
        routes
    }
}
