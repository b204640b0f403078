//! Shortest paths from one node (Dijkstra 1959), with the first hop of each.

use crate::topology::{Edge, Topology};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use weave_wire::PeerName;
use weave_wire::inner::HOP_LIMIT;

/// Cost of a node that cannot be reached.
pub(crate) const UNREACHABLE: u32 = u32::MAX;

/// Which links a path may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    /// All.
    Any,
    /// Those that are not unencrypted.
    Sealed,
}

impl Links {
    pub(crate) fn may_use(self, edge: &Edge) -> bool {
        self == Self::Any || !edge.unencrypted
    }
}

/// Shortest paths from one node.
#[derive(Debug)]
pub(crate) struct Paths {
    /// Cost of the way to each node.
    pub cost: Vec<u32>,
    /// First node on the way to each node: of all shortest ways, the one with
    /// the smallest name. `usize::MAX` for the source and what is unreachable.
    pub first: Vec<usize>,
    /// Nodes that are reached, the source included.
    pub reached: usize,
    /// Links looked at.
    pub looked: usize,
}

impl Paths {
    /// Cost of the way to a node.
    pub(crate) fn cost_of(&self, node: usize) -> u32 {
        self.cost.get(node).copied().unwrap_or(UNREACHABLE)
    }

    /// First node on the way to a node.
    pub(crate) fn first_of(&self, node: usize) -> Option<usize> {
        self.first.get(node).copied().filter(|first| *first != usize::MAX)
    }
}

/// Shortest paths from `source` over `links`; `expected`: how many nodes can be reached from
/// it, if known. Then the search ends when all are reached and no way can be
/// improved any more, nor tied by one with a smaller first hop. Nodes of equal
/// cost are visited by their first hops' names, so that where nearly all are
/// neighbours of all, that is after the links of the source and of a few others.
pub(crate) fn shortest(graph: &Topology, links: Links, source: usize, expected: Option<usize>) -> Paths {
    let (cost, first) = (vec![UNREACHABLE; graph.len()], vec![usize::MAX; graph.len()]);
    let mut paths = Paths { cost, first, reached: 1, looked: 0 };
    let mut done = vec![false; graph.len()];
    let mut farthest = Farthest::default();
    let mut heap = BinaryHeap::new();
    if let Some(cost) = paths.cost.get_mut(source) {
        *cost = 0;
        heap.push(Reverse((0_u32, None, source)));
    }
    while let Some(Reverse((cost, first_name, node))) = heap.pop() {
        if done.get_mut(node).is_none_or(|done| std::mem::replace(done, true)) {
            continue;
        }
        let all_reached = expected.is_some_and(|expected| paths.reached >= expected);
        if all_reached && farthest.is_final(cost, first_name) {
            break;
        }
        let via = paths.first_of(node);
        paths.looked += graph.edges(node).len();
        for edge in graph.edges(node).iter().filter(|edge| links.may_use(edge)) {
            let new = cost.saturating_add(u32::from(edge.cost)).min(UNREACHABLE - 1);
            let first = via.unwrap_or(edge.to);
            let (Some(known), Some(slot)) = (paths.cost.get_mut(edge.to), paths.first.get_mut(edge.to))
            else {
                continue;
            };
            let name = graph.name(first);
            if new < *known {
                paths.reached += usize::from(*known == UNREACHABLE);
            } else if new > *known || edge.to == source || name >= graph.name(*slot) {
                continue;
            }
            (*known, *slot) = (new, first);
            farthest.note(new, name);
            heap.push(Reverse((new, name, edge.to)));
        }
    }
    paths
}

/// The largest cost of a way found, and the largest name of a first hop among
/// the ways of that cost. Ways improved later count too: the search may end
/// later than it could, never too soon.
#[derive(Default)]
struct Farthest {
    cost: u32,
    first: Option<PeerName>,
}

impl Farthest {
    fn note(&mut self, cost: u32, first: Option<PeerName>) {
        if (cost, first) > (self.cost, self.first) {
            (self.cost, self.first) = (cost, first);
        }
    }

    /// True if nothing can change from the visit of a node with this cost and
    /// first hop on: a link costs at least 1, so only ways that cost 1 more can
    /// be tied, by ways whose first hops do not come before this one.
    fn is_final(&self, cost: u32, first: Option<PeerName>) -> bool {
        self.cost <= cost || (self.cost == cost.saturating_add(1) && self.first <= first)
    }
}

/// The way from `from` to `to` that frames really take, every hop choosing for itself: the
/// nodes behind `from`, with what leads to each. Empty if there is none, or only one that is longer
/// than frames go.
pub(crate) fn walk(graph: &Topology, links: Links, from: usize, to: usize) -> Vec<Edge> {
    let mut way = Vec::new();
    let mut at = from;
    while at != to {
        let may_go_on = way.len() < usize::from(HOP_LIMIT);
        let next = may_go_on.then(|| shortest(graph, links, at, None).first_of(to)).flatten();
        let Some(edge) = next.and_then(|next| graph.edges(at).iter().find(|edge| edge.to == next)) else {
            return Vec::new();
        };
        way.push(*edge);
        at = edge.to;
    }
    way
}

/// What a path is like, hop by hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Quality {
    /// Links on it.
    pub hops: u8,
    /// True if one of them is unencrypted.
    pub unencrypted: bool,
}

/// What the ways from `source` are like that frames really take: every hop
/// chooses the smallest name among its own shortest ways, so that a whole way is
/// the shortest one that is first in the order of names. Of ways longer than frames go just one of
/// the shortest is told. Returns with them how many nodes of ways were looked at.
pub(crate) fn qualities(
    graph: &Topology,
    links: Links,
    source: usize,
    paths: &Paths,
) -> (Vec<Quality>, usize) {
    let mut order: Vec<usize> = (0..graph.len()).filter(|node| paths.cost_of(*node) != UNREACHABLE).collect();
    order.sort_unstable_by_key(|node| paths.cost_of(*node));
    let mut parents = vec![usize::MAX; graph.len()];
    let mut qualities = vec![Quality::default(); graph.len()];
    let mut looked = 0;
    for node in order.into_iter().filter(|node| *node != source) {
        let parent = if paths.first_of(node) == Some(node) {
            Some(source)
        } else {
            let before = graph.edges(node).iter().filter(|edge| {
                edge.to != source
                    && links.may_use(edge)
                    && paths.first_of(edge.to) == paths.first_of(node)
                    && paths.cost_of(edge.to).saturating_add(u32::from(edge.cost)) == paths.cost_of(node)
            });
            let before: Vec<usize> = before.map(|edge| edge.to).collect();
            let is_far = |at: &usize| qualities.get(*at).is_some_and(|way| way.hops >= HOP_LIMIT);
            if before.len() < 2 || before.iter().all(is_far) {
                before.first().copied()
            } else {
                before.into_iter().min_by_key(|at| {
                    let way = way(graph, &parents, source, *at, node);
                    looked += way.len();
                    way
                })
            }
        };
        let Some(parent) = parent else { continue };
        let Some(edge) = graph.edges(node).iter().find(|edge| edge.to == parent) else { continue };
        let before = qualities.get(parent).copied().unwrap_or_default();
        if let (Some(slot), Some(quality)) = (parents.get_mut(node), qualities.get_mut(node)) {
            *slot = parent;
            *quality = Quality {
                hops: before.hops.saturating_add(1),
                unencrypted: before.unencrypted || edge.unencrypted,
            };
        }
    }
    (qualities, looked)
}

/// The names on the way to `last` by way of `node`.
fn way(
    graph: &Topology,
    parents: &[usize],
    source: usize,
    node: usize,
    last: usize,
) -> Vec<Option<PeerName>> {
    let mut names = vec![graph.name(last)];
    let mut at = node;
    while at != source && at != usize::MAX {
        names.push(graph.name(at));
        at = parents.get(at).copied().unwrap_or(usize::MAX);
    }
    names.reverse();
    names
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::topology::tests::{link, peer};
    use proptest::prelude::*;

    fn graph(nodes: u16, edges: &[(u16, u16, u16)]) -> Topology {
        let mut graph = Topology::default();
        for n in 0..nodes {
            let mut links: Vec<_> = edges
                .iter()
                .filter(|(a, b, _)| a != b && (*a == n || *b == n))
                .map(|(a, b, cost)| link(if *a == n { *b } else { *a }, *cost))
                .collect();
            links.sort_by_key(|link| (link.peer, link.cost));
            links.dedup_by_key(|link| link.peer);
            graph.set(peer(n), links);
        }
        graph
    }

    /// Two beside each other at each step, each linked to both of the step before.
    #[test]
    fn a_ladder_as_long_as_can_be_is_looked_at_as_far_as_frames_go() {
        const STEPS: u16 = 2_000;
        let mut graph = Topology::default();
        for n in 0..2 * STEPS {
            let step = n / 2;
            let beside = |step: u16| [2 * step, 2 * step + 1];
            let before = step.checked_sub(1).map(beside);
            graph.set(
                peer(n),
                before.into_iter().chain([beside(step + 1)]).flatten().map(|n| link(n, 1)).collect(),
            );
        }
        let source = graph.node(peer(0)).unwrap();
        let paths = shortest(&graph, Links::Any, source, None);
        assert_eq!(paths.reached, 2 * usize::from(STEPS));
        let (qualities, looked) = qualities(&graph, Links::Any, source, &paths);
        let at = |step: u16| graph.node(peer(2 * step)).unwrap();
        assert_eq!((qualities[at(16)].hops, qualities[at(1_999)].hops), (16, 255));
        assert!((100..1_000).contains(&looked), "{looked}");
        let lengths = [16, 17].map(|step| walk(&graph, Links::Any, source, at(step)).len());
        assert_eq!(lengths, [16, 0], "nothing goes further");
    }

    proptest! {
        #[test]
        fn costs_first_hops_and_hops_are_those_of_a_plain_search(
            edges in prop::collection::vec((0_u16..9, 0_u16..9, 1_u16..4), 0..30),
        ) {
            let graph = graph(9, &edges);
            let mut plain = vec![vec![UNREACHABLE; 9]; 9];
            for (a, row) in plain.iter_mut().enumerate() {
                row[a] = 0;
                for edge in graph.edges(a) {
                    row[edge.to] = u32::from(edge.cost);
                }
            }
            for k in 0..9 {
                for a in 0..9 {
                    for b in 0..9 {
                        plain[a][b] = plain[a][b].min(plain[a][k].saturating_add(plain[k][b]));
                    }
                }
            }
            for (a, row) in plain.iter().enumerate() {
                let whole = shortest(&graph, Links::Any, a, None);
                let early = shortest(&graph, Links::Any, a, Some(whole.reached));
                prop_assert_eq!(&whole.cost, row);
                prop_assert_eq!(&early.cost, &whole.cost);
                prop_assert_eq!(&early.first, &whole.first);
                let (qualities, _) = qualities(&graph, Links::Any, a, &whole);
                for b in (0..9).filter(|b| *b != a && row[*b] != UNREACHABLE) {
                    let first = graph
                        .edges(a)
                        .iter()
                        .filter(|edge| u32::from(edge.cost) + plain[edge.to][b] == row[b])
                        .min_by_key(|edge| graph.name(edge.to))
                        .map(|edge| edge.to);
                    prop_assert_eq!(whole.first_of(b), first);
                    let hops = walk(&graph, Links::Any, a, b).len();
                    prop_assert_eq!(usize::from(qualities[b].hops), hops);
                }
            }
        }
    }
}
