//! The graph of links: those that both ends announce.
//!
//! Changed by differences: a new list of one peer's links costs that peer's
//! degree, not the whole graph.

use hashbrown::HashMap;
use weave_wire::PeerName;
use weave_wire::link::gossip::AnnouncedLink;

/// A link that both ends announce, seen from one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Edge {
    /// The other end.
    pub to: usize,
    /// The larger cost of both ends.
    pub cost: u16,
    /// True if one end says so.
    pub unencrypted: bool,
}

#[derive(Debug)]
struct Node {
    name: PeerName,
    /// By rising name.
    announced: Vec<AnnouncedLink>,
    /// By rising number of the other end.
    edges: Vec<Edge>,
}

/// The graph. Nodes are numbered from 0 to [`Self::len`]; numbers of removed
/// nodes are used again.
#[derive(Debug, Default)]
pub(crate) struct Topology {
    index: HashMap<PeerName, usize>,
    nodes: Vec<Node>,
    free: Vec<usize>,
    /// Edges of all nodes.
    link_ends: usize,
}

impl Topology {
    /// Links, each counted at both ends.
    pub(crate) const fn link_ends(&self) -> usize {
        self.link_ends
    }

    /// One more than the largest number of a node.
    pub(crate) const fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Peers in it.
    pub(crate) fn peers(&self) -> usize {
        self.index.len()
    }

    /// The number of a peer, if it announced anything.
    pub(crate) fn node(&self, name: PeerName) -> Option<usize> {
        self.index.get(&name).copied()
    }

    /// The peer with this number.
    pub(crate) fn name(&self, node: usize) -> Option<PeerName> {
        self.nodes.get(node).map(|node| node.name)
    }

    /// The links of a node.
    pub(crate) fn edges(&self, node: usize) -> &[Edge] {
        self.nodes.get(node).map_or(&[], |node| &node.edges)
    }

    /// What `name` announces from now on, by rising name. True if the graph changed.
    pub(crate) fn set(&mut self, name: PeerName, announced: Vec<AnnouncedLink>) -> bool {
        let node = self.node(name).unwrap_or_else(|| self.insert(name));
        let edges = self.edges_of(name, &announced);
        let Some(slot) = self.nodes.get_mut(node) else { return false };
        slot.announced = announced;
        if slot.edges == edges {
            return false;
        }
        let old = std::mem::replace(&mut slot.edges, edges.clone());
        self.link_ends = (self.link_ends + edges.len()).saturating_sub(old.len());
        for edge in old.iter().filter(|edge| edges.binary_search_by_key(&edge.to, |new| new.to).is_err()) {
            self.set_reverse(edge.to, node, None);
        }
        let is_old = |edge: &Edge| {
            old.binary_search_by_key(&edge.to, |old| old.to).is_ok_and(|at| old.get(at) == Some(edge))
        };
        for edge in edges.iter().filter(|edge| !is_old(edge)) {
            self.set_reverse(edge.to, node, Some(Edge { to: node, ..*edge }));
        }
        true
    }

    /// Forgets a peer. True if the graph changed.
    pub(crate) fn remove(&mut self, name: PeerName) -> bool {
        let Some(node) = self.node(name) else { return false };
        let changed = self.set(name, Vec::new());
        self.index.remove(&name);
        self.free.push(node);
        changed
    }

    fn insert(&mut self, name: PeerName) -> usize {
        let new = Node { name, announced: Vec::new(), edges: Vec::new() };
        let node = self.free.pop().unwrap_or(self.nodes.len());
        match self.nodes.get_mut(node) {
            Some(slot) => *slot = new,
            None => self.nodes.push(new),
        }
        self.index.insert(name, node);
        node
    }

    /// Those of the announced links that the other end announces too.
    fn edges_of(&self, name: PeerName, announced: &[AnnouncedLink]) -> Vec<Edge> {
        let mut edges: Vec<Edge> = announced
            .iter()
            .filter(|ours| ours.peer != name)
            .filter_map(|ours| {
                let to = self.node(ours.peer)?;
                let other = self.nodes.get(to)?;
                let at = other.announced.binary_search_by_key(&name, |link| link.peer).ok()?;
                let theirs = other.announced.get(at)?;
                Some(Edge {
                    to,
                    cost: ours.cost.max(theirs.cost),
                    unencrypted: ours.unencrypted || theirs.unencrypted,
                })
            })
            .collect();
        edges.sort_unstable_by_key(|edge| edge.to);
        edges
    }

    fn set_reverse(&mut self, of: usize, to: usize, edge: Option<Edge>) {
        let Some(node) = self.nodes.get_mut(of) else { return };
        match (node.edges.binary_search_by_key(&to, |edge| edge.to), edge) {
            (Ok(at), Some(edge)) => node.edges.splice(at..=at, [edge]).for_each(drop),
            (Ok(at), None) => {
                node.edges.remove(at);
                self.link_ends = self.link_ends.saturating_sub(1);
            }
            (Err(at), Some(edge)) => {
                node.edges.insert(at, edge);
                self.link_ends += 1;
            }
            (Err(_), None) => {}
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn peer(n: u16) -> PeerName {
        let [high, low] = n.to_be_bytes();
        PeerName::new([2, 0, 0, 1, high, low]).unwrap()
    }

    pub(crate) fn link(n: u16, cost: u16) -> AnnouncedLink {
        AnnouncedLink { peer: peer(n), unencrypted: false, outbound: false, cost }
    }

    #[test]
    fn a_link_counts_only_if_both_ends_announce_it_and_costs_the_larger() {
        let mut graph = Topology::default();
        assert!(!graph.set(peer(1), vec![link(2, 1)]));
        assert!(graph.edges(graph.node(peer(1)).unwrap()).is_empty());
        assert!(graph.set(peer(2), vec![link(1, 7)]));
        for n in [1, 2] {
            assert_eq!(graph.edges(graph.node(peer(n)).unwrap())[0].cost, 7);
        }
        assert!(graph.set(peer(1), vec![link(2, 9)]));
        assert_eq!(graph.edges(graph.node(peer(2)).unwrap())[0].cost, 9);
        assert!(graph.remove(peer(1)));
        assert!(graph.edges(graph.node(peer(2)).unwrap()).is_empty());
    }

    #[test]
    fn a_link_of_a_peer_to_itself_is_none() {
        let mut graph = Topology::default();
        assert!(!graph.set(peer(1), vec![link(1, 1)]));
        assert!(!graph.set(peer(1), vec![link(1, 2)]));
        assert!(graph.edges(graph.node(peer(1)).unwrap()).is_empty());
    }

    proptest! {
        #[test]
        fn changes_lead_to_the_same_graph_as_building_anew(
            changes in prop::collection::vec((0_u16..8, prop::collection::btree_map(0_u16..8, 1_u16..4, 0..8)), 1..30),
        ) {
            let mut graph = Topology::default();
            let mut last = std::collections::BTreeMap::new();
            for (n, links) in changes {
                let links: Vec<_> =
                    links.into_iter().filter(|(to, _)| *to != n).map(|(to, cost)| link(to, cost)).collect();
                if links.len() == 1 {
                    graph.remove(peer(n));
                    last.remove(&n);
                } else {
                    graph.set(peer(n), links.clone());
                    last.insert(n, links);
                }
            }
            let ends: usize = (0..graph.len()).map(|node| graph.edges(node).len()).sum();
            prop_assert_eq!(graph.link_ends(), ends);
            let cost = |a: u16, b: u16| {
                let find = |a, b| last.get(&a)?.iter().find(|link| link.peer == peer(b)).map(|link| link.cost);
                Some(find(a, b)?.max(find(b, a)?))
            };
            for a in 0..8 {
                for b in 0..8 {
                    let edge = graph.node(peer(a)).and_then(|at| {
                        graph.edges(at).iter().find(|edge| graph.node(peer(b)) == Some(edge.to)).copied()
                    });
                    prop_assert_eq!(edge.map(|edge| edge.cost), cost(a, b));
                }
            }
        }
    }
}
