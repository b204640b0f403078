//! Two groups of shards over loopback in a network namespace of the test's own.
//!
//! Datagram sockets stand for the taps, so that a test sees every frame and decides when it is
//! taken. A third peer, the [`Forger`], has keys of its own with side B: it is authenticated and
//! sends what it likes.
#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

pub mod mesh;

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg, setsockopt, sockopt};
use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use weave_crypto::{Key, SendKey};
use weave_forward::{
    Command, ControlSockets, DropReason, Features, Group, GroupConfig, LinkCounters, LinkId, MacChange, Mode,
    PeerRoute, ReceiveSession, Report, Routes, SendSession, boot_time, open_sockets, probe,
};
use weave_host::Netlink;
use weave_wire::vnet::{VNET_LEN, VnetHeader};
use weave_wire::{
    DatagramKind, FRAME_OVERHEAD, INNER_LEN, InnerHeader, Lane, MacAddr, OUTER_LEN, PeerName, SessionIndex,
    TAG_LEN,
};
use zerocopy::IntoBytes;

/// MTU of the network.
pub const MTU: usize = 1376;
/// Longest frame.
pub const MAX_FRAME: usize = MTU + FRAME_OVERHEAD;
/// How long anything may take on a busy machine.
pub const WITHIN: Duration = Duration::from_secs(20);
/// The link between A and B, and that between the forger and B.
pub const LINK: LinkId = LinkId(0);
pub const FORGER_LINK: LinkId = LinkId(1);
/// The forger's session at B.
pub const FORGER_SESSION: SessionIndex = SessionIndex(0x2000);
/// An age no key of a test reaches.
const LIFETIME: Duration = Duration::from_secs(3600);

/// Names of A, B and the forger.
pub fn name(number: u8) -> PeerName {
    PeerName::new([2, 0, 0, 0, 0, number]).unwrap()
}

/// How to build a [`Rig`].
pub struct Options {
    pub shards: usize,
    pub mode: Mode,
    pub features: Features,
    pub completions: Option<u32>,
    /// Bytes a tap of B holds before it takes no more.
    pub tap_buffer: usize,
    /// MTU of the underlay.
    pub underlay_mtu: Option<u32>,
    /// Queueing discipline of the underlay, as for `tc qdisc add dev lo root`.
    pub discipline: Option<&'static str>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            shards: 1,
            mode: Mode::Sealed,
            features: probe(&[]).unwrap(),
            completions: None,
            tap_buffer: 8 << 20,
            underlay_mtu: None,
            discipline: None,
        }
    }
}

impl Options {
    /// Makes the underlay, for this thread and all it starts: nothing is left behind.
    fn enter_namespace(&self) {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests make network namespaces: run them as root");
        let mut netlink = Netlink::open().unwrap();
        netlink.set_loopback_up().unwrap();
        if let Some(mtu) = self.underlay_mtu {
            let loopback = netlink.expect_link("lo").unwrap();
            netlink.set_mtu(&loopback, mtu).unwrap();
        }
        if let Some(discipline) = self.discipline {
            let line = format!("qdisc add dev lo root {discipline}");
            let done = std::process::Command::new("tc").args(line.split(' ')).status().unwrap();
            assert!(done.success(), "tc {line}");
        }
    }
}

/// One router's forwarding half.
pub struct Side {
    pub group: Group,
    /// The kernel's side of each tap queue.
    pub taps: Vec<UnixDatagram>,
    pub reports: async_channel::Receiver<Report>,
    pub address: SocketAddr,
    mode: Mode,
    rig: u64,
    _control: ControlSockets,
}

/// Side A, side B.
pub struct Rig {
    pub a: Side,
    pub b: Side,
    checked: u64,
}

impl Rig {
    /// A sealed link of one shard.
    pub fn usual() -> Self {
        Self::new(Options::default())
    }

    /// Builds both sides and joins them.
    pub fn new(options: Options) -> Self {
        options.enter_namespace();
        let number = next_rig();
        let rig = Self {
            a: Side::new(number, 1, &options, 8 << 20),
            b: Side::new(number, 2, &options, options.tap_buffer),
            checked: 0,
        };
        // Receiving first, as the control core does.
        rig.b.install(1, rig.a.address, SessionIndex(0x1002), boot_time() + LIFETIME);
        rig.a.install(2, rig.b.address, SessionIndex(0x1001), boot_time() + LIFETIME);
        rig.a.join(2, rig.b.address, SessionIndex(0x1002));
        rig.b.join(1, rig.a.address, SessionIndex(0x1001));
        // The station that frames go to is always at the other side: no storm.
        rig.a.place_station(Some(name(2)));
        rig.b.place_station(Some(name(1)));
        // Each side's first keep-alive shows that it may send.
        for side in [&rig.a, &rig.b] {
            for _ in 0..options.shards {
                side.await_report("a keep-alive", |report| {
                    matches!(report, Report::LaneSeen { keep_alive: true, .. })
                });
            }
        }
        rig
    }

    /// Sends a frame each way and sees it arrive unharmed.
    #[track_caller]
    pub fn works(&mut self) {
        self.checked += 1;
        let frame = frame(0xfeed_0000_0000 + self.checked, 300);
        self.a.send(0, &frame);
        assert_eq!(self.b.receive(), frame, "from A to B");
        self.b.send(0, &frame);
        assert_eq!(self.a.receive(), frame, "from B to A");
    }

    /// Waits until B has dropped `count` for `reason`, nothing else, and goes on forwarding.
    #[track_caller]
    pub fn dropped_at_b(&mut self, reason: DropReason, count: u64) {
        self.b.dropped(reason, count);
        self.works();
    }

    /// Waits until A has dropped `count` for `reason`, nothing else, and goes on forwarding.
    #[track_caller]
    pub fn dropped_at_a(&mut self, reason: DropReason, count: u64) {
        self.a.dropped(reason, count);
        self.works();
    }
}

impl Side {
    fn new(rig: u64, number: u8, options: &Options, tap_buffer: usize) -> Self {
        let pairs = (0..options.shards).map(|_| {
            let (inner, outer) = UnixDatagram::pair().unwrap();
            setsockopt(&inner, sockopt::SndBufForce, &tap_buffer).unwrap();
            setsockopt(&outer, sockopt::SndBufForce, &(8 << 20)).unwrap();
            outer.set_read_timeout(Some(WITHIN)).unwrap();
            outer.set_write_timeout(Some(WITHIN)).unwrap();
            (OwnedFd::from(inner), outer)
        });
        let (inner, taps): (Vec<OwnedFd>, _) = pairs.unzip();
        let (host, gro) = (Some(Ipv4Addr::LOCALHOST.into()), options.features.merging);
        let config = GroupConfig {
            own_name: name(number),
            mtu: MTU,
            sockets: open_sockets(host, 0, inner.len(), gro).unwrap(),
            taps: inner,
            features: options.features,
            join_tcp: true,
            join_udp: true,
            clear: options.mode == Mode::Clear,
            cores: Vec::new(),
            completions: options.completions,
        };
        let (group, control) = Group::prepare(config).unwrap().start().unwrap();
        let reports = group.reports();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, group.port()));
        Self { group, taps, reports, address, mode: options.mode, rig, _control: control }
    }

    /// A command for every shard.
    pub fn command(&self, make: impl Fn(usize) -> Command) {
        for shard in 0..self.group.shards() {
            self.group.send(shard, make(shard)).unwrap();
        }
    }

    /// Says where the station is that a [`frame`] goes to; nowhere: frames go to everybody.
    pub fn place_station(&self, peer: Option<PeerName>) {
        let mac = MacAddr(*frame(0, 14).first_chunk().unwrap());
        let changes = Arc::new(vec![MacChange { mac, peer, attached: false }]);
        self.command(|_| Command::ChangeMacs(Arc::clone(&changes)));
    }

    /// A link to the peer `number` and the keys to receive from it by.
    fn install(&self, number: u8, address: SocketAddr, index: SessionIndex, expires: Duration) {
        self.install_on(link_of(number), number, address, index, expires);
    }

    fn install_on(
        &self,
        link: LinkId,
        number: u8,
        address: SocketAddr,
        index: SessionIndex,
        expires: Duration,
    ) {
        self.command(|_| Command::SetLink { link, address, counters: Arc::default() });
        self.command(|_| self.receive_keys_on(link, number, address, index, expires));
        for _ in 0..self.group.shards() {
            self.await_report("installed keys", |report| matches!(report, Report::ReceiveInstalled { .. }));
        }
    }

    /// The command that gives a shard the keys to receive from peer `number` by.
    pub fn receive_keys(
        &self,
        number: u8,
        address: SocketAddr,
        index: SessionIndex,
        expires: Duration,
    ) -> Command {
        self.receive_keys_on(link_of(number), number, address, index, expires)
    }

    fn receive_keys_on(
        &self,
        link: LinkId,
        number: u8,
        address: SocketAddr,
        index: SessionIndex,
        expires: Duration,
    ) -> Command {
        Command::InstallReceive(Box::new(ReceiveSession {
            link,
            peer: name(number),
            address: address.ip(),
            epoch: 1,
            index,
            mode: self.mode,
            keys: (0..4).map(|lane| (Lane::data(lane).unwrap(), key(self.rig, index, lane))).collect(),
            expires,
        }))
    }

    /// Keys to send by, and routes.
    fn join(&self, number: u8, address: SocketAddr, index: SessionIndex) {
        let routes = Arc::new(Routes {
            peers: vec![neighbour(number, LINK)],
            broadcast: vec![LINK],
            ..Routes::default()
        });
        self.command(|_| Command::SetRoutes(Arc::clone(&routes)));
        self.command(|_| Command::SetLink { link: LINK, address, counters: Arc::default() });
        self.command(|shard| self.send_key(LINK, index, shard as u8, boot_time() + LIFETIME));
    }

    /// The command that makes a shard send.
    pub fn send_key(&self, link: LinkId, index: SessionIndex, shard: u8, expires: Duration) -> Command {
        Command::SetSend(Box::new(SendSession {
            link,
            epoch: 1,
            index,
            mode: self.mode,
            lane: Lane::data(shard).unwrap(),
            key: key(self.rig, index, shard),
            expires,
        }))
    }

    /// The next report that `wanted` accepts; others are passed over.
    #[track_caller]
    pub fn await_report(&self, what: &str, wanted: impl Fn(&Report) -> bool) -> Report {
        let mut found = None;
        wait(
            || format!("no report of {what}"),
            || {
                while let Ok(report) = self.reports.try_recv() {
                    if wanted(&report) {
                        found = Some(report);
                        return true;
                    }
                }
                false
            },
        );
        found.unwrap()
    }

    /// Gives the tap of `shard` a frame without offload fields.
    #[track_caller]
    pub fn send(&self, shard: usize, frame: &[u8]) {
        self.send_raw(shard, &[VnetHeader::plain().as_bytes(), frame].concat());
    }

    /// Gives the tap of `shard` these bytes, offload header included.
    #[track_caller]
    pub fn send_raw(&self, shard: usize, bytes: &[u8]) {
        assert_eq!(self.taps[shard].send(bytes).unwrap(), bytes.len());
    }

    /// Takes what the tap of `shard` was given, offload header included.
    #[track_caller]
    pub fn receive_raw(&self, shard: usize) -> Vec<u8> {
        let mut buffer = vec![0; 70_000];
        let len = receive(&self.taps[shard], &mut buffer).unwrap_or_else(|error| {
            panic!("no frame came to tap {shard}: {error}; {}", self.state());
        });
        buffer.truncate(len);
        buffer
    }

    /// Takes a frame from the first tap.
    #[track_caller]
    pub fn receive(&self) -> Vec<u8> {
        self.receive_raw(0).split_off(VNET_LEN)
    }

    /// Drops for `reason`, all shards.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.group.counters().iter().map(|counters| counters.drops(reason)).sum()
    }

    /// A counter by its name, all shards.
    pub fn counter(&self, name: &str) -> u64 {
        let values = self.group.counters().iter().flat_map(|counters| counters.values());
        values.filter(|(known, _)| *known == name).map(|(_, value)| value).sum()
    }

    /// What was counted, for messages.
    pub fn state(&self) -> String {
        let drops: Vec<_> = DropReason::ALL.iter().map(|r| (r.name(), self.drops(*r))).collect();
        let drops: Vec<_> = drops.into_iter().filter(|(_, count)| *count > 0).collect();
        let values: Vec<_> = self.group.counters().iter().map(|c| c.values().collect::<Vec<_>>()).collect();
        format!("dropped {drops:?}, counted {values:?}")
    }

    /// Waits until `count` were dropped for `reason`, and nothing for another.
    #[track_caller]
    pub fn dropped(&self, reason: DropReason, count: u64) {
        let all = || DropReason::ALL.iter().map(|reason| self.drops(*reason)).sum::<u64>();
        wait(|| format!("{count} times {}: {}", reason.name(), self.state()), || all() >= count);
        assert_eq!((self.drops(reason), all()), (count, count), "{}: {}", reason.name(), self.state());
    }
}

/// The link of side B to peer `number`.
fn link_of(number: u8) -> LinkId {
    if number == 3 { FORGER_LINK } else { LINK }
}

/// The route to peer `number` at the other end of `link`.
pub fn neighbour(number: u8, link: LinkId) -> PeerRoute {
    PeerRoute {
        peer: name(number),
        next: link,
        next_sealed: None,
        sealed_only: false,
        unicast_from: vec![link],
        broadcast_from: vec![link],
        broadcast_to: Vec::new(),
    }
}

/// Takes a frame; a receive with a time limit is not restarted after a signal.
pub fn receive(tap: &UnixDatagram, buffer: &mut [u8]) -> std::io::Result<usize> {
    not_interrupted(|| tap.recv(buffer))
}

/// Takes what a socket was given: rings of this process interrupt its calls.
pub fn not_interrupted<T>(mut call: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// The key of a lane of a session.
fn key(rig: u64, index: SessionIndex, lane: u8) -> Key {
    let mut bytes = [lane + 1; 32];
    bytes[..8].copy_from_slice(&index.0.to_be_bytes());
    bytes[8..16].copy_from_slice(&rig.to_be_bytes());
    Key::from_bytes(bytes)
}

/// Numbers of rigs: no two of a process have a key in common.
fn next_rig() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A frame of `len` bytes with `number` in it.
pub fn frame(number: u64, len: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0xb, 1, 2, 0, 0, 0, 0xa, 1, 0x88, 0xb5];
    frame.extend(number.to_be_bytes());
    frame.extend((frame.len()..len).map(|place| (place as u64 ^ number) as u8));
    frame
}

/// The number in a frame made by [`frame`]; the rest of it is checked.
#[track_caller]
pub fn number_of(bytes: &[u8]) -> u64 {
    let number = u64::from_be_bytes(bytes[14..22].try_into().unwrap());
    assert_eq!(bytes, frame(number, bytes.len()), "frame {number} is damaged");
    number
}

/// Asks every millisecond until `holds`.
#[track_caller]
pub fn wait(what: impl Fn() -> String, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + WITHIN;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {WITHIN:?}: {}", what());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// An authenticated peer of B that sends what it likes.
pub struct Forger {
    socket: UdpSocket,
    keys: Vec<SendKey>,
    to: SocketAddr,
    mode: Mode,
}

impl Forger {
    /// A forger whose session with B lives `lifetime`.
    pub fn with_lifetime(rig: &Rig, lifetime: Duration) -> Self {
        Self::at(&rig.b, FORGER_LINK, 3, FORGER_SESSION, lifetime)
    }

    /// A forger that is the peer `number` at the other end of `link` of `side`.
    pub fn at(side: &Side, link: LinkId, number: u8, session: SessionIndex, lifetime: Duration) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        setsockopt(&socket, sockopt::SndBufForce, &(8 << 20)).unwrap();
        let address = socket.local_addr().unwrap();
        side.install_on(link, number, address, session, boot_time() + lifetime);
        let keys = (0..4)
            .map(|lane| SendKey::new(&key(side.rig, session, lane), session, Lane::data(lane).unwrap()));
        Self { socket, keys: keys.collect(), to: side.address, mode: side.mode }
    }

    /// A forger with fresh keys.
    pub fn new(rig: &Rig) -> Self {
        Self::with_lifetime(rig, LIFETIME)
    }

    /// The inner header of an honest frame.
    pub fn inner() -> [u8; INNER_LEN] {
        InnerHeader::new(name(3), Some(name(2)), None).as_bytes().try_into().unwrap()
    }

    /// A datagram as B expects it from its sender.
    pub fn datagram(&mut self, lane: usize, inner: [u8; INNER_LEN], frame: &[u8]) -> Vec<u8> {
        let tag = if self.mode == Mode::Clear { 0 } else { TAG_LEN };
        let mut datagram = vec![0; OUTER_LEN];
        datagram.extend(inner);
        datagram.extend(frame);
        datagram.resize(datagram.len() + tag, 0);
        match self.mode {
            Mode::Sealed => self.keys[lane].seal(DatagramKind::Sealed, &mut datagram).unwrap(),
            Mode::Authenticated => self.keys[lane].authenticate(&mut datagram).unwrap(),
            Mode::Clear => self.keys[lane].frame_clear(&mut datagram).unwrap(),
        }
        datagram
    }

    /// An honest datagram on lane 0.
    pub fn honest(&mut self, frame: &[u8]) -> Vec<u8> {
        self.datagram(0, Self::inner(), frame)
    }

    /// Sends one datagram.
    pub fn send(&self, datagram: &[u8]) {
        self.socket.send_to(datagram, self.to).unwrap();
    }

    /// Sends one datagram from another address.
    pub fn send_from(&self, source: IpAddr, datagram: &[u8]) {
        UdpSocket::bind((source, 0)).unwrap().send_to(datagram, self.to).unwrap();
    }

    /// Sends datagrams of equal length so that they arrive in one receive, as the kernel merges
    /// those of one address pair.
    pub fn send_merged(&self, datagrams: &[Vec<u8>]) {
        let segment = datagrams[0].len() as u16;
        let pieces: Vec<_> = datagrams.iter().map(|datagram| IoSlice::new(datagram)).collect();
        let SocketAddr::V4(to) = self.to else { unreachable!() };
        let to: SockaddrIn = SocketAddrV4::into(to);
        let control = [ControlMessage::UdpGsoSegments(&segment)];
        sendmsg(self.socket.as_raw_fd(), &pieces, &control, MsgFlags::empty(), Some(&to)).unwrap();
    }
}

/// A station's address for tests.
pub fn mac(number: u32) -> MacAddr {
    let [a, b, c, d] = number.to_be_bytes();
    MacAddr([2, 7, a, b, c, d])
}

/// Counters of a link for tests that read them.
pub fn link_counters() -> Arc<LinkCounters> {
    Arc::default()
}
