//! More routers than two, joined as the test says.

use super::{Forger, LIFETIME, Options, Side, boot_time, frame, mac, name, next_rig, number_of, wait};
use std::sync::Arc;
use weave_forward::{Command, LinkCounters, LinkId, MacChange, PeerRoute, Routes};
use weave_wire::SessionIndex;

/// Routers 1 to `count`; the link to router `n` has that number.
pub struct Mesh {
    pub sides: Vec<Side>,
    edges: Vec<(u8, u8)>,
    /// Of the links of each side, in the order of `edges` that touch it.
    counters: Vec<(u8, u8, Arc<LinkCounters>)>,
}

/// The session in which `to` receives from `from`.
fn session(from: u8, to: u8) -> SessionIndex {
    SessionIndex(0x7000 + u64::from(from) * 0x100 + u64::from(to))
}

impl Mesh {
    /// Routers 1 to `count` in a line.
    pub fn line(options: &Options, count: u8) -> Self {
        Self::new(options, count, (1..count).map(|number| (number, number + 1)).collect())
    }

    /// Routers 1 to `count` in a ring.
    pub fn ring(options: &Options, count: u8) -> Self {
        Self::new(options, count, (1..=count).map(|number| (number, number % count + 1)).collect())
    }

    fn new(options: &Options, count: u8, edges: Vec<(u8, u8)>) -> Self {
        options.enter_namespace();
        let rig = next_rig();
        let sides: Vec<_> =
            (1..=count).map(|number| Side::new(rig, number, options, options.tap_buffer)).collect();
        let mut mesh = Self { sides, edges, counters: Vec::new() };
        let both: Vec<_> = mesh.edges.iter().flat_map(|&(a, b)| [(a, b), (b, a)]).collect();
        for &(from, to) in &both {
            let link = LinkId(from.into());
            let address = mesh.side(from).address;
            mesh.side(to).install_on(link, from, address, session(from, to), boot_time() + LIFETIME);
        }
        for &(from, to) in &both {
            let (link, address, counters) = (LinkId(to.into()), mesh.side(to).address, Arc::default());
            let side = mesh.side(from);
            side.command(|_| Command::SetLink { link, address, counters: Arc::clone(&counters) });
            mesh.counters.push((from, to, counters));
        }
        for number in 1..=count {
            mesh.set_routes(number, mesh.routes(number));
        }
        for &(from, to) in &both {
            let side = mesh.side(from);
            side.command(|shard| {
                side.send_key(LinkId(to.into()), session(from, to), shard as u8, boot_time() + LIFETIME)
            });
        }
        // Every link's first keep-alive shows that it carries.
        let lanes = |side: u8| both.iter().filter(|edge| edge.1 == side).count() * options.shards;
        for number in 1..=count {
            for _ in 0..lanes(number) {
                mesh.side(number).await_report("a keep-alive", |report| {
                    matches!(report, weave_forward::Report::LaneSeen { keep_alive: true, .. })
                });
            }
        }
        mesh
    }

    /// Router `number`.
    pub fn side(&self, number: u8) -> &Side {
        &self.sides[usize::from(number) - 1]
    }

    /// Counters of the link of `from` to `to`, all shards.
    pub fn link(&self, from: u8, to: u8) -> &LinkCounters {
        &self.counters.iter().find(|link| (link.0, link.1) == (from, to)).unwrap().2
    }

    pub fn set_routes(&self, number: u8, routes: Routes) {
        let routes = Arc::new(routes);
        self.side(number).command(|_| Command::SetRoutes(Arc::clone(&routes)));
    }

    fn neighbours(&self, number: u8) -> Vec<u8> {
        let mut found: Vec<_> = self
            .edges
            .iter()
            .filter_map(|&(a, b)| if a == number { Some(b) } else { (b == number).then_some(a) })
            .collect();
        found.sort_unstable();
        found
    }

    fn distance(&self, from: u8, to: u8) -> usize {
        let mut reached = vec![from];
        let mut steps = 0;
        while !reached.contains(&to) {
            let next: Vec<_> = reached.iter().flat_map(|&at| self.neighbours(at)).collect();
            reached.extend(next);
            steps += 1;
        }
        steps
    }

    /// The neighbour of `number` from which the broadcasts of `source` come.
    fn parent(&self, number: u8, source: u8) -> Option<u8> {
        let distance = self.distance(number, source);
        self.neighbours(number).into_iter().find(|&via| self.distance(via, source) < distance)
    }

    /// Routes of router `number` by the shortest paths, ties to the lower number.
    pub fn routes(&self, number: u8) -> Routes {
        let count = self.sides.len() as u8;
        let link = |number: u8| LinkId(number.into());
        let children = |source| {
            let of = |&child: &u8| self.parent(child, source) == Some(number);
            self.neighbours(number).into_iter().filter(of).map(link).collect::<Vec<_>>()
        };
        let route = |peer| {
            let distance = self.distance(number, peer);
            let closer: Vec<_> = self
                .neighbours(number)
                .into_iter()
                .filter(|&via| self.distance(via, peer) < distance)
                .collect();
            PeerRoute {
                peer: name(peer),
                next: link(closer[0]),
                next_sealed: None,
                sealed_only: false,
                unicast_from: closer.iter().copied().map(link).collect(),
                broadcast_from: vec![link(closer[0])],
                broadcast_to: children(peer),
            }
        };
        Routes {
            peers: (1..=count).filter(|&peer| peer != number).map(route).collect(),
            broadcast: children(number),
            ..Routes::default()
        }
    }

    /// Tells `number` that the station of `peer` is attached there.
    pub fn attach(&self, number: u8, peer: u8) {
        let change = MacChange { mac: mac(peer.into()), peer: Some(name(peer)), attached: true };
        let changes = Arc::new(vec![change]);
        self.side(number).command(|_| Command::ChangeMacs(Arc::clone(&changes)));
    }

    /// Sends frame `number` of `len` bytes from the station of one peer to that of another and
    /// sees it arrive unharmed.
    #[track_caller]
    pub fn carries(&self, from: u8, to: u8, number: u64, len: usize) {
        self.attach(from, to);
        let frame = between(from, to, number, len);
        self.side(from).send(0, &frame);
        assert_eq!(self.side(to).receive(), frame, "from {from} to {to}");
    }

    /// What was counted everywhere, for messages.
    pub fn state(&self) -> String {
        self.sides.iter().enumerate().map(|(n, side)| format!("{}: {}\n", n + 1, side.state())).collect()
    }

    /// Waits until no frame is under way: everything sent was taken by somebody.
    pub fn settle(&self) {
        let count = |name: &str| self.sides.iter().map(|side| side.counter(name)).sum::<u64>();
        wait(|| self.state(), || count("datagrams_sent") == count("datagrams_received"));
    }

    /// A forger in the place of router `number` of a side's neighbours, with keys of its own.
    pub fn forger(&self, side: u8, number: u8) -> Forger {
        let session = SessionIndex(0x9000 + u64::from(side) * 0x100 + u64::from(number));
        Forger::at(self.side(side), LinkId(number.into()), number, session, LIFETIME)
    }
}

/// Frame `number` from the station of one peer to that of another; 0: to everybody.
pub fn between(from: u8, to: u8, number: u64, len: usize) -> Vec<u8> {
    let mut frame = frame(number, len);
    let to = if to == 0 { [0xff; 6] } else { mac(to.into()).0 };
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&mac(from.into()).0);
    frame
}

/// The number of a frame made by [`between`].
#[track_caller]
pub fn number_between(bytes: &[u8]) -> u64 {
    let mut plain = bytes.to_vec();
    plain[..12].copy_from_slice(&frame(0, 14)[..12]);
    number_of(&plain)
}
