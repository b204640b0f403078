//! What a shard knows: links, sessions, routes, stations. No I/O.

mod receive;
mod routes;
mod stations;

pub use receive::{Frame, Opened};
pub use routes::{Course, Spread};

use crate::command::{LinkId, MacChange, Mode, Report, Routes, SendSession};
use crate::counters::{DropReason, LinkCounters};
use crate::fragments::Reassembly;
use crate::io::address::RawAddress;
use crate::{MAX_LINKS, MIN_DATAGRAM};
use hashbrown::HashMap;
use receive::Session;
use routes::RouteTable;
use stations::Stations;
use std::sync::Arc;
use std::time::Duration;
use weave_crypto::{KeyExhausted, REKEY_DATAGRAMS, SendKey};
use weave_wire::{
    DatagramKind, FRAME_OVERHEAD, INNER_LEN, MacAddr, OUTER_LEN, PeerName, SessionIndex, TAG_LEN,
};

/// How long a route that refused segmentation is spared it.
const SEGMENTATION_PAUSE: Duration = Duration::from_secs(60);

/// The key a shard seals with for one link.
pub struct Sender {
    /// The key, its counter with it.
    pub key: SendKey,
    /// How frames go.
    pub mode: Mode,
    expires: Duration,
    worn: bool,
}

/// A link as a shard sees it.
pub struct Link {
    /// Where datagrams go.
    pub address: RawAddress,
    /// What was carried.
    pub counters: Arc<LinkCounters>,
    /// Longest datagram its path passes, bytes.
    path: usize,
    /// Whether senders are told of it.
    advise: bool,
    /// Absent until the first keys are there.
    pub sender: Option<Sender>,
    /// Only the mesh port passes: lanes share it.
    one_port: bool,
    segmentation_pause: Option<Duration>,
}

/// A link as a frame is put on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// The link.
    pub link: LinkId,
    /// How frames go.
    pub mode: Mode,
    /// Longest frame that its path passes whole, bytes.
    pub room: usize,
    /// Whether senders are told of it.
    pub advise: bool,
}

/// Where a frame from the tap goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// To one peer, over this link.
    Peer(PeerName, LinkId),
    /// To everybody.
    All,
    /// To a station of this host.
    Here,
}

/// Tables of one shard.
pub struct Tables {
    shard: usize,
    shards: usize,
    /// Longest frame, bytes.
    max_frame: usize,
    /// Time since boot at the start of this turn of the loop.
    pub now: Duration,
    links: Vec<Option<Link>>,
    sessions: Vec<Option<Session>>,
    by_index: HashMap<u64, usize>,
    routes: RouteTable,
    stations: Stations,
    /// Frames of which fragments are missing.
    pub reassembly: Reassembly,
    last_session: Option<(SessionIndex, usize)>,
    last_destination: Option<(MacAddr, Destination)>,
    /// Reports for the control core, sent after each turn.
    pub reports: Vec<Report>,
    /// Stations not learned because the table was full.
    pub macs_refused: u64,
}

impl Tables {
    /// Empty tables of shard `shard` of `shards` on the host `own_name`.
    #[must_use]
    pub fn new(own_name: PeerName, shard: usize, shards: usize, mtu: usize) -> Self {
        Self {
            shard,
            shards,
            max_frame: mtu + FRAME_OVERHEAD,
            now: Duration::ZERO,
            links: Vec::new(),
            sessions: Vec::new(),
            by_index: HashMap::new(),
            routes: RouteTable::new(own_name),
            stations: Stations::default(),
            reassembly: Reassembly::new(mtu + FRAME_OVERHEAD),
            last_session: None,
            last_destination: None,
            reports: Vec::new(),
            macs_refused: 0,
        }
    }

    /// This host's name.
    #[must_use]
    pub const fn own_name(&self) -> PeerName {
        self.routes.own_name()
    }

    /// Longest frame, bytes.
    #[must_use]
    pub const fn max_frame(&self) -> usize {
        self.max_frame
    }

    /// Makes or changes a link.
    pub fn set_link(&mut self, id: LinkId, address: RawAddress, counters: Arc<LinkCounters>) {
        let place = usize::from(id.0);
        if place >= MAX_LINKS {
            return;
        }
        if self.links.len() <= place {
            self.links.resize_with(place + 1, || None);
        }
        match &mut self.links[place] {
            Some(link) => {
                link.address = address;
                link.counters = counters;
            }
            empty => {
                *empty = Some(Link {
                    address,
                    counters,
                    path: usize::from(u16::MAX),
                    advise: true,
                    sender: None,
                    one_port: false,
                    segmentation_pause: None,
                });
            }
        }
    }

    /// Says what the path of a link passes, bytes of a datagram.
    pub fn set_path(&mut self, id: LinkId, datagram: u16, advise: bool) {
        if let Some(link) = self.link_mut(id) {
            link.path = usize::from(datagram.max(MIN_DATAGRAM));
            link.advise = advise;
        }
    }

    /// Says whether the datagrams of a link are sent from the mesh port.
    pub fn set_one_port(&mut self, id: LinkId, one_port: bool) {
        if let Some(link) = self.link_mut(id) {
            link.one_port = one_port;
        }
    }

    /// True if the datagrams of a link are sent from the mesh port.
    #[must_use]
    pub fn is_one_port(&self, id: LinkId) -> bool {
        self.links.get(usize::from(id.0)).and_then(Option::as_ref).is_some_and(|link| link.one_port)
    }

    /// The link, if it is there.
    #[must_use]
    #[inline]
    pub fn link_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        self.links.get_mut(usize::from(id.0))?.as_mut()
    }

    /// Removes a link and its sessions.
    pub fn drop_link(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(usize::from(id.0)) {
            *link = None;
        }
        let gone: Vec<_> = self.sessions.iter().flatten().filter(|s| s.link == id).map(|s| s.index).collect();
        for index in gone {
            self.drop_receive(index);
        }
    }

    /// Replaces the key to seal with; false if there is no such link.
    #[must_use]
    pub fn set_send(&mut self, new: &SendSession) -> bool {
        let Some(link) = self.link_mut(new.link) else { return false };
        link.sender = Some(Sender {
            key: SendKey::new(&new.key, new.index, new.lane),
            mode: new.mode,
            expires: new.expires,
            worn: false,
        });
        true
    }

    /// Frames over a link that were only authenticated go sealed from now on.
    pub fn seal(&mut self, id: LinkId) {
        if let Some(sender) = self.link_mut(id).and_then(|link| link.sender.as_mut())
            && sender.mode == Mode::Authenticated
        {
            sender.mode = Mode::Sealed;
        }
    }

    /// The link on the way to `peer` for this host's own frames.
    #[must_use]
    pub fn next(&self, peer: PeerName) -> Option<LinkId> {
        self.routes.next(peer)
    }

    /// Replaces all routes.
    pub fn set_routes(&mut self, routes: Arc<Routes>) {
        self.last_destination = None;
        self.routes.replace(routes);
    }

    /// Links that a frame of this host for everybody takes.
    #[must_use]
    pub fn broadcast(&self) -> &[LinkId] {
        self.routes.broadcast()
    }

    /// As [`RouteTable::spread_to`].
    #[must_use]
    pub fn spread_to(&self, spread: Spread, number: usize) -> Option<Option<LinkId>> {
        self.routes.spread_to(spread, number)
    }

    /// Applies changes of the control core's table of stations.
    pub fn change_macs(&mut self, changes: &[MacChange]) {
        self.last_destination = None;
        self.stations.change(changes, self.now);
    }

    /// Replaces the stations attached on this host.
    pub fn set_local_macs(&mut self, macs: &[MacAddr]) {
        self.last_destination = None;
        self.stations.set_local(macs);
    }

    /// True if `station` is attached on this host.
    #[must_use]
    pub fn is_attached(&self, station: MacAddr) -> bool {
        self.stations.is_local(station)
    }

    /// Forgets where a learned station is.
    pub fn forget(&mut self, station: MacAddr) {
        self.stations.forget(station);
        self.last_destination = None;
    }

    /// Where a frame for `mac` goes; `None` if its peer cannot be reached.
    #[must_use]
    #[inline]
    pub fn destination(&mut self, mac: MacAddr) -> Option<Destination> {
        if let Some((last, destination)) = self.last_destination
            && last == mac
        {
            return Some(destination);
        }
        let destination = if mac.is_group() {
            Destination::All
        } else {
            match self.stations.peer(mac) {
                Some(peer) => Destination::Peer(peer, self.routes.next(peer)?),
                // A bridge that does not know its own port yet, or no more, floods it to us too.
                None if self.stations.is_local(mac) => Destination::Here,
                None => Destination::All,
            }
        };
        self.last_destination = Some((mac, destination));
        Some(destination)
    }

    /// How frames go over a link whose key may still seal.
    ///
    /// # Errors
    /// [`DropReason::NoRoute`] or [`DropReason::NoSendKey`].
    #[inline]
    pub fn way(&self, id: LinkId) -> Result<Way, DropReason> {
        let link = self.links.get(usize::from(id.0)).and_then(Option::as_ref).ok_or(DropReason::NoRoute)?;
        match &link.sender {
            Some(sender) if self.now < sender.expires => {
                let mode = sender.mode;
                let room = link.path - datagram_len(mode, 0);
                Ok(Way { link: id, mode, room, advise: link.advise })
            }
            Some(_) | None => Err(DropReason::NoSendKey),
        }
    }

    /// Says once for each key that it has few numbers left.
    pub fn note_wear(&mut self, id: LinkId) {
        if let Some(sender) = self.link_mut(id).and_then(|link| link.sender.as_mut())
            && !sender.worn
            && sender.key.counter() >= REKEY_DATAGRAMS
        {
            sender.worn = true;
            self.reports.push(Report::KeyWearsOut(id));
        }
    }

    /// True if the link's route takes segmented sends, as far as known.
    pub fn may_segment(&mut self, id: LinkId) -> bool {
        let now = self.now;
        let Some(link) = self.link_mut(id) else { return true };
        match link.segmentation_pause {
            None => true,
            Some(until) if now < until => false,
            Some(_) => {
                link.segmentation_pause = None;
                self.reports.push(Report::SegmentationRetried(id));
                true
            }
        }
    }

    /// Takes note that the link's route refused a segmented send.
    pub fn pause_segmentation(&mut self, id: LinkId) {
        let until = self.now + SEGMENTATION_PAUSE;
        if let Some(link) = self.link_mut(id)
            && link.segmentation_pause.is_none()
        {
            link.segmentation_pause = Some(until);
            self.reports.push(Report::SegmentationRefused(id));
        }
    }

    /// Begins a turn of the loop at `now`.
    pub fn begin_turn(&mut self, now: Duration) {
        if now.as_secs() != self.now.as_secs() {
            self.stations.second_passed();
        }
        self.now = now;
        self.reassembly.expire(now);
    }
}

/// Length of a datagram that carries a frame of `len` bytes.
#[must_use]
pub const fn datagram_len(mode: Mode, len: usize) -> usize {
    OUTER_LEN
        + INNER_LEN
        + len
        + match mode {
            Mode::Sealed | Mode::Authenticated => TAG_LEN,
            Mode::Clear => 0,
        }
}

impl Sender {
    /// Finishes a datagram whose body is in place.
    ///
    /// # Errors
    /// [`KeyExhausted`].
    #[inline]
    pub fn finish(&mut self, datagram: &mut [u8]) -> Result<(), KeyExhausted> {
        match self.mode {
            Mode::Sealed => self.key.seal(DatagramKind::Sealed, datagram),
            Mode::Authenticated => self.key.authenticate(datagram),
            Mode::Clear => self.key.frame_clear(datagram),
        }
    }
}
