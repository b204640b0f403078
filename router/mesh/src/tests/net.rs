//! A net of meshes with a clock of its own.

#![allow(clippy::unwrap_used)]

use crate::output::{LinkInfo, LinkNumber, MeshConfig, Output, Signer};
use crate::{Mesh, PeerRoute};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use weave_wire::link::gossip::Gossip;
use weave_wire::link::message::Message;
use weave_wire::{IdentityKey, Nickname, PeerName, Uid};

/// Signs cheaply: a hash under the public key. No secret, but tests forge on purpose only.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cheap(pub u64);

fn cheap_hash(key: &IdentityKey, bytes: &[u8]) -> [u8; 64] {
    let start = key.to_bytes().iter().fold(7_u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(*b)));
    let mut hash = start;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
    let mut signature = [0; 64];
    signature[..8].copy_from_slice(&hash.to_le_bytes());
    signature
}

impl Signer for Cheap {
    fn identity(&self) -> IdentityKey {
        let mut bytes = [1; 32];
        bytes[..8].copy_from_slice(&self.0.to_le_bytes());
        IdentityKey::from_bytes(bytes)
    }

    fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        cheap_hash(&self.identity(), bytes)
    }

    fn verify(&self, key: &IdentityKey, bytes: &[u8], signature: &[u8; 64]) -> bool {
        cheap_hash(key, bytes) == *signature
    }
}

pub(super) fn name(n: usize) -> PeerName {
    let [.., a, b] = n.to_be_bytes();
    PeerName::new([2, 0, 0, 0, a, b]).unwrap()
}

#[derive(Debug)]
pub(super) struct Node {
    pub mesh: Mesh<Cheap>,
    name: PeerName,
    pub uid: Uid,
    pub key: Cheap,
    pub outputs: Vec<Output>,
    /// Bytes of messages sent.
    pub bytes: usize,
    /// Where each link ends: node and the other end's number.
    ends: BTreeMap<LinkNumber, (usize, LinkNumber)>,
    infos: BTreeMap<LinkNumber, LinkInfo>,
}

/// The net: nodes are numbered, and so are named.
#[derive(Debug, Default)]
pub(super) struct Net {
    pub nodes: BTreeMap<usize, Node>,
    pub now: Duration,
    /// Nodes whose frames take no unencrypted link, from their next start on.
    pub sealed_only: Vec<usize>,
    /// Connections are broken, and nobody knows yet: what is sent is lost.
    pub broken: bool,
    /// Two nodes between which no messages pass, and nobody knows.
    pub silent: Option<(usize, usize)>,
    queue: VecDeque<(usize, LinkNumber, Gossip)>,
    next_link: u64,
    runs: u64,
}

impl Net {
    pub(super) fn new(nodes: usize) -> Self {
        let mut net = Self::default();
        (0..nodes).for_each(|n| net.start(n, n, n as u64, 1));
        net
    }

    /// Starts node `at` under the name of `n`.
    pub(super) fn start(&mut self, at: usize, n: usize, key: u64, run: u32) {
        self.runs += 1;
        let (key, uid) = (Cheap(key), Uid(1000 + self.runs));
        let config = MeshConfig {
            name: name(n),
            uid,
            nickname: Nickname::from_host_name(&format!("host-{n}")),
            port: 6783,
            addresses: Vec::new(),
            sealed_only: self.sealed_only.contains(&at),
            // Each others than its neighbours.
            features: at as u64,
            run,
            seed: self.runs,
        };
        let mesh = Mesh::new(config, key, self.now);
        let node = Node {
            mesh,
            name: name(n),
            uid,
            key,
            outputs: Vec::new(),
            bytes: 0,
            ends: BTreeMap::new(),
            infos: BTreeMap::new(),
        };
        self.nodes.insert(at, node);
    }

    /// Links two nodes; false if one of them refuses.
    pub(super) fn link_at(&mut self, a: usize, b: usize, cost: u16, unencrypted: bool) -> bool {
        let (first, second) = (LinkNumber(self.next_link + 1), LinkNumber(self.next_link + 2));
        self.next_link += 2;
        for (from, number, to, other) in [(a, first, b, second), (b, second, a, first)] {
            let (peer, uid, identity) = {
                let far = &self.nodes[&to];
                (far.name, far.uid, far.key.identity())
            };
            let info = LinkInfo { peer, uid, identity, unencrypted, outbound: a < b, cost };
            let node = self.nodes.get_mut(&from).unwrap();
            if node.mesh.link_added(number, info, self.now).is_err() {
                self.cut(a, b);
                return false;
            }
            node.ends.insert(number, (to, other));
            node.infos.insert(number, info);
        }
        for (from, number) in [(a, first), (b, second)] {
            self.nodes.get_mut(&from).unwrap().mesh.link_established(number, true, self.now);
        }
        true
    }

    pub(super) fn link(&mut self, a: usize, b: usize) {
        assert!(self.link_at(a, b, 1, false));
    }

    pub(super) fn cut(&mut self, a: usize, b: usize) {
        for (from, to) in [(a, b), (b, a)] {
            let Some(node) = self.nodes.get_mut(&from) else { continue };
            let gone: Vec<_> = node.ends.iter().filter(|(_, end)| end.0 == to).map(|(l, _)| *l).collect();
            for link in gone {
                node.ends.remove(&link);
                node.mesh.link_removed(link, self.now);
            }
        }
    }

    /// All connections are found broken, and made anew.
    pub(super) fn resume_all(&mut self) {
        self.broken = false;
        for node in self.nodes.values_mut() {
            for link in node.ends.keys() {
                node.mesh.connection_lost(*link);
                node.mesh.set_writable(*link, true);
            }
        }
    }

    pub(super) fn crash(&mut self, at: usize) {
        for other in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.cut(at, other);
        }
        self.nodes.remove(&at);
    }

    fn drain(&mut self, at: usize) {
        let node = self.nodes.get_mut(&at).unwrap();
        while let Some(output) = node.mesh.poll_output() {
            if let Output::Send(link, gossip) = output {
                if let Some((to, number)) = node.ends.get(&link)
                    && self.silent.is_none_or(|silent| silent != (at, *to) && silent != (*to, at))
                {
                    node.bytes += Message::Gossip(gossip.clone()).encode().len();
                    self.queue.push_back((*to, *number, gossip));
                }
            } else {
                node.outputs.push(output);
            }
        }
    }

    fn deliver(&mut self) {
        while let Some((to, link, gossip)) = self.queue.pop_front() {
            if let Some(node) = self.nodes.get_mut(&to).filter(|_| !self.broken) {
                node.mesh.on_gossip(link, gossip, self.now);
                self.drain(to);
            }
        }
    }

    /// Runs for a time.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        for at in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.drain(at);
            self.deliver();
        }
        loop {
            let due = self.nodes.iter().filter_map(|(at, node)| Some((node.mesh.poll_timeout()?.0, *at)));
            let Some((next, at)) = due.min().filter(|(next, _)| *next <= end) else { break };
            self.now = self.now.max(next);
            let node = self.nodes.get_mut(&at).unwrap();
            node.mesh.handle_timeout(self.now);
            assert!(node.mesh.poll_timeout().is_none_or(|(again, _)| again > self.now), "a timer stays due");
            self.drain(at);
            self.deliver();
        }
        self.now = end;
    }

    pub(super) fn seconds(&mut self, seconds: u64) {
        self.run(Duration::from_secs(seconds));
    }

    pub(super) fn mesh(&mut self, at: usize) -> &mut Mesh<Cheap> {
        &mut self.nodes.get_mut(&at).unwrap().mesh
    }

    pub(super) fn route(&self, from: usize, to: usize) -> Option<&PeerRoute> {
        self.nodes[&from].mesh.routes().peer(name(to))
    }

    pub(super) fn outputs(&mut self, at: usize) -> Vec<Output> {
        std::mem::take(&mut self.nodes.get_mut(&at).unwrap().outputs)
    }

    /// Sends a message as if node `from` said it to its neighbour `to`.
    pub(super) fn inject(&mut self, from: usize, to: usize, gossip: Gossip) {
        let end = self.nodes[&from].ends.values().find(|end| end.0 == to).copied().unwrap();
        self.queue.push_back((to, end.1, gossip));
        self.deliver();
    }

    /// Walks every path and tree: all reach all, each once, on accepted links,
    /// unicast in as many hops and at the cost the source believes.
    pub(super) fn check(&self, expected: usize) {
        for source in self.nodes.keys() {
            assert_eq!(self.nodes[source].mesh.routes().peers.len(), expected - 1, "from {source}");
            for target in self.nodes.keys().filter(|target| *target != source) {
                if self.route(*source, *target).is_some() {
                    self.check_unicast(*source, *target);
                }
            }
            let reached = if self.is_sealed_only(*source) { self.sealed_reach(*source) } else { expected };
            assert_eq!(self.broadcast(*source), reached, "broadcast of {source}");
        }
    }

    fn is_sealed_only(&self, at: usize) -> bool {
        self.nodes[&at].mesh.routes().sealed_only
    }

    /// How many nodes, `from` included, are reached over links that are not unencrypted.
    fn sealed_reach(&self, from: usize) -> usize {
        let mut seen = vec![from];
        let mut at = 0;
        while at < seen.len() {
            let node = &self.nodes[&seen[at]];
            let sealed = node.ends.iter().filter(|(link, (far, number))| {
                !node.infos[*link].unencrypted && !self.nodes[far].infos[number].unencrypted
            });
            let new: Vec<_> = sealed.map(|(_, (far, _))| *far).filter(|far| !seen.contains(far)).collect();
            for far in new {
                if !seen.contains(&far) {
                    seen.push(far);
                }
            }
            at += 1;
        }
        seen.len()
    }

    fn check_unicast(&self, source: usize, target: usize) {
        let believed = self.route(source, target).unwrap();
        let sealed_only = self.is_sealed_only(source);
        if sealed_only && believed.next_sealed.is_none() {
            return;
        }
        let (mut at, mut hops, mut cost, mut unencrypted) = (source, 0, 0, false);
        while at != target {
            let route = self.route(at, target).unwrap();
            let link = if sealed_only { route.next_sealed.unwrap() } else { route.next };
            let (next, arrived) = self.nodes[&at].ends[&link];
            let info = self.nodes[&at].infos[&link];
            let far = self.nodes[&next].infos[&arrived];
            cost += u32::from(info.cost.max(far.cost));
            unencrypted |= info.unencrypted;
            let sealed = !info.unencrypted && !far.unencrypted;
            assert!(sealed || !sealed_only, "{source} to {target} over an unencrypted link");
            assert!(self.route(next, source).unwrap().unicast_from.contains(&arrived), "source check");
            at = next;
            hops += 1;
            assert!(hops <= 64, "a loop from {source} to {target}");
        }
        let walked = (hops, cost, unencrypted);
        assert_eq!((believed.hops, believed.cost, believed.unencrypted), walked, "{source} to {target}");
    }

    /// How many nodes, the source included, a broadcast reaches; none twice.
    pub(super) fn broadcast(&self, source: usize) -> usize {
        let mut seen = vec![source];
        let mut open: VecDeque<_> = self.nodes[&source]
            .mesh
            .routes()
            .broadcast
            .iter()
            .map(|link| self.nodes[&source].ends[link])
            .collect();
        while let Some((at, arrived)) = open.pop_front() {
            assert!(!seen.contains(&at), "{at} hears {source} twice");
            seen.push(at);
            let route = self.route(at, source).unwrap();
            assert!(route.broadcast_from.contains(&arrived), "source check");
            open.extend(route.broadcast_to.iter().map(|link| self.nodes[&at].ends[link]));
        }
        seen.len()
    }
}
