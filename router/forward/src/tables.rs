//! What a shard knows: links, sessions, routes, stations. No I/O.

use crate::MAX_LINKS;
use crate::command::{LinkId, MacChange, Mode, ReceiveSession, Report, Routes, SendSession};
use crate::counters::{DropReason, LinkCounters};
use crate::io::address::RawAddress;
use hashbrown::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use weave_crypto::{KeyExhausted, OpenError, REKEY_DATAGRAMS, ReceiveKey, ReplayError, SendKey};
use weave_wire::inner::ChecksumRequest;
use weave_wire::packet::EthernetHeader;
use weave_wire::{
    DatagramKind, FRAME_OVERHEAD, INNER_LEN, InnerHeader, Lane, MacAddr, OUTER_LEN, OuterHeader, PeerName,
    SessionIndex, TAG_LEN,
};

/// Sessions of one shard, at most: two epochs for each link.
pub const MAX_SESSIONS: usize = 2 * MAX_LINKS;
/// Stations of one shard's table, at most.
pub const MAX_MACS: usize = 16_384;
/// A station that goes on sending is reported again after this time.
const MAC_REFRESH: Duration = Duration::from_secs(60);
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
    /// Absent until the first keys are there.
    pub sender: Option<Sender>,
    segmentation_pause: Option<Duration>,
}

struct Session {
    link: LinkId,
    peer: PeerName,
    address: IpAddr,
    epoch: u64,
    index: SessionIndex,
    mode: Mode,
    expires: Duration,
    /// True once it was said that a lane has few numbers left.
    worn: bool,
    /// By lane number; `None` where the lane is another shard's or not the peer's.
    keys: Vec<Option<ReceiveKey>>,
}

#[derive(Clone, Copy)]
struct Station {
    peer: PeerName,
    reported: Duration,
}

/// Where a frame from the tap goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// To one peer, over this link.
    Peer(PeerName, LinkId),
    /// To everybody.
    All,
}

/// What a datagram turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// A frame for the tap: where it lies in the datagram, and its checksum.
    Frame(Range<usize>, Option<ChecksumRequest>),
    /// A keep-alive; taken note of.
    KeepAlive,
    /// A datagram of a lane that this shard does not own.
    Foreign(Lane),
}

/// Tables of one shard.
pub struct Tables {
    own_name: PeerName,
    shard: usize,
    shards: usize,
    /// Longest frame, bytes.
    max_frame: usize,
    /// Time since boot at the start of this turn of the loop.
    pub now: Duration,
    links: Vec<Option<Link>>,
    sessions: Vec<Option<Session>>,
    by_index: HashMap<u64, usize>,
    routes: HashMap<PeerName, LinkId>,
    broadcast: Vec<LinkId>,
    macs: HashMap<MacAddr, Station>,
    local_macs: Vec<MacAddr>,
    last_session: Option<(SessionIndex, usize)>,
    last_source: Option<(MacAddr, PeerName)>,
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
            own_name,
            shard,
            shards,
            max_frame: mtu + FRAME_OVERHEAD,
            now: Duration::ZERO,
            links: Vec::new(),
            sessions: Vec::new(),
            by_index: HashMap::new(),
            routes: HashMap::new(),
            broadcast: Vec::new(),
            macs: HashMap::new(),
            local_macs: Vec::new(),
            last_session: None,
            last_source: None,
            last_destination: None,
            reports: Vec::new(),
            macs_refused: 0,
        }
    }

    /// This host's name.
    #[must_use]
    pub const fn own_name(&self) -> PeerName {
        self.own_name
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
                *empty = Some(Link { address, counters, sender: None, segmentation_pause: None });
            }
        }
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

    /// Installs the keys of a receive session.
    pub fn install_receive(&mut self, new: ReceiveSession) {
        self.drop_receive(new.index);
        let mut keys = Vec::new();
        for (lane, key) in &new.keys {
            let number = usize::from(lane.number());
            if number >= Lane::COUNT || number % self.shards != self.shard {
                continue;
            }
            if keys.len() <= number {
                keys.resize_with(number + 1, || None);
            }
            keys[number] = Some(ReceiveKey::new(key, *lane));
        }
        let session = Session {
            link: new.link,
            peer: new.peer,
            address: new.address,
            epoch: new.epoch,
            index: new.index,
            mode: new.mode,
            expires: new.expires,
            worn: false,
            keys,
        };
        let place = match self.sessions.iter().position(Option::is_none) {
            Some(place) => place,
            None if self.sessions.len() < MAX_SESSIONS => {
                self.sessions.push(None);
                self.sessions.len() - 1
            }
            None => return,
        };
        self.sessions[place] = Some(session);
        self.by_index.insert(new.index.0, place);
        self.reports.push(Report::ReceiveInstalled { shard: self.shard, link: new.link, index: new.index });
    }

    /// Destroys the keys of a receive session.
    pub fn drop_receive(&mut self, index: SessionIndex) {
        self.last_session = None;
        if let Some(place) = self.by_index.remove(&index.0) {
            self.sessions[place] = None;
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

    /// Replaces all routes.
    pub fn set_routes(&mut self, routes: &Routes) {
        self.last_destination = None;
        self.routes.clear();
        self.routes.extend(routes.unicast.iter().copied());
        self.broadcast.clear();
        self.broadcast.extend_from_slice(&routes.broadcast);
    }

    /// Links that a frame for everybody takes.
    #[must_use]
    pub fn broadcast(&self) -> &[LinkId] {
        &self.broadcast
    }

    /// Applies changes of the control core's table of stations.
    pub fn change_macs(&mut self, changes: &[MacChange]) {
        self.last_destination = None;
        self.last_source = None;
        for change in changes {
            match change.peer {
                Some(peer) => {
                    if self.macs.len() < MAX_MACS || self.macs.contains_key(&change.mac) {
                        self.macs.insert(change.mac, Station { peer, reported: self.now });
                    }
                }
                None => {
                    self.macs.remove(&change.mac);
                }
            }
        }
    }

    /// Replaces the stations attached on this host.
    pub fn set_local_macs(&mut self, macs: &[MacAddr]) {
        self.last_source = None;
        self.local_macs.clear();
        self.local_macs.extend_from_slice(macs);
        self.local_macs.sort_unstable();
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
            match self.macs.get(&mac) {
                Some(station) => {
                    let link = *self.routes.get(&station.peer)?;
                    Destination::Peer(station.peer, link)
                }
                None => Destination::All,
            }
        };
        self.last_destination = Some((mac, destination));
        Some(destination)
    }

    /// The link with a key that may still seal.
    ///
    /// # Errors
    /// [`DropReason::NoRoute`] or [`DropReason::NoSendKey`].
    #[inline]
    pub fn sender(&mut self, id: LinkId) -> Result<(&mut Link, Mode), DropReason> {
        let now = self.now;
        let link = self.link_mut(id).ok_or(DropReason::NoRoute)?;
        match &link.sender {
            Some(sender) if now < sender.expires => {
                let mode = sender.mode;
                Ok((link, mode))
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

    /// Opens a datagram in place.
    ///
    /// # Errors
    /// Why it was dropped. Nothing of it may be used then.
    #[inline]
    pub fn open(&mut self, datagram: &mut [u8], source: SocketAddr) -> Result<Opened, DropReason> {
        let (&header, _) = OuterHeader::split(datagram).ok_or(DropReason::Malformed)?;
        let kind = header.kind().ok_or(DropReason::Malformed)?;
        let lane = header.lane().ok_or(DropReason::Malformed)?;
        let place = match self.last_session {
            Some((index, place)) if index == header.session() => place,
            Some(_) | None => {
                let place = *self.by_index.get(&header.session().0).ok_or(DropReason::UnknownSession)?;
                self.last_session = Some((header.session(), place));
                place
            }
        };
        // Every shard knows every session: what names none is handed to nobody.
        if lane == Lane::CONTROL || usize::from(lane.number()) % self.shards != self.shard {
            return Ok(Opened::Foreign(lane));
        }
        let session =
            self.sessions.get_mut(place).and_then(Option::as_mut).ok_or(DropReason::UnknownSession)?;
        if self.now >= session.expires {
            return Err(DropReason::KeyExpired);
        }
        let key = session
            .keys
            .get_mut(usize::from(lane.number()))
            .and_then(Option::as_mut)
            .ok_or(DropReason::UnknownLane)?;
        let seen = key.seen();
        let body = match (kind, session.mode) {
            (DatagramKind::Sealed, Mode::Sealed) | (DatagramKind::KeepAlive, _) => key.open(header, datagram),
            (DatagramKind::Clear, Mode::Clear) if source.ip() == session.address => {
                key.accept_clear(header, datagram)
            }
            (DatagramKind::Sealed | DatagramKind::Clear | DatagramKind::Control, _) => {
                return Err(DropReason::WrongMode);
            }
        };
        let body = body.map_err(|error| match error {
            OpenError::TooShort => DropReason::Malformed,
            OpenError::Replay(ReplayError::Replayed) => DropReason::Replayed,
            OpenError::Replay(_) => DropReason::TooOld,
            OpenError::Forged(_) => DropReason::Forged,
        })?;
        if header.counter() >= REKEY_DATAGRAMS && !session.worn {
            session.worn = true;
            self.reports.push(Report::KeyWearsOut(session.link));
        }
        let keep_alive = kind == DatagramKind::KeepAlive;
        if keep_alive || !seen {
            let report = Report::LaneSeen { link: session.link, lane, epoch: session.epoch, keep_alive };
            self.reports.push(report);
        }
        if keep_alive {
            return Ok(Opened::KeepAlive);
        }
        let (inner, frame) = InnerHeader::split(body).ok_or(DropReason::Malformed)?;
        if !inner.is_ethernet() {
            return Err(DropReason::Malformed);
        }
        if !inner.is_whole() {
            return Err(DropReason::Fragment);
        }
        let (peer, link) = (session.peer, session.link);
        if inner.source() != Some(peer) || inner.hop_limit() == 0 {
            return Err(DropReason::SourcePeer);
        }
        if inner.destination().is_some_and(|name| name != self.own_name) {
            return Err(DropReason::NotForUs);
        }
        let (ethernet, _) = EthernetHeader::split(frame).ok_or(DropReason::FrameTooShort)?;
        if frame.len() > self.max_frame {
            return Err(DropReason::FrameTooLong);
        }
        let request = inner.checksum();
        let (station, len) = (ethernet.source(), frame.len());
        if self.last_source != Some((station, peer)) {
            self.learn(station, peer)?;
        }
        if let Some(link) = self.links.get(usize::from(link.0)).and_then(Option::as_ref) {
            link.counters.frames_received.add(1);
            link.counters.bytes_received.add(len as u64);
        }
        let start = OUTER_LEN + INNER_LEN;
        Ok(Opened::Frame(start..start + len, request))
    }

    /// Takes note that `station` is at `peer`.
    fn learn(&mut self, station: MacAddr, peer: PeerName) -> Result<(), DropReason> {
        if self.local_macs.binary_search(&station).is_ok() {
            return Err(DropReason::Loop);
        }
        if !station.is_station() {
            return Ok(());
        }
        let now = self.now;
        let room = self.macs.len() < MAX_MACS;
        let report = match self.macs.get_mut(&station) {
            Some(known) if known.peer == peer => {
                let due = now.saturating_sub(known.reported) >= MAC_REFRESH;
                if due {
                    known.reported = now;
                }
                due
            }
            Some(known) => {
                *known = Station { peer, reported: now };
                true
            }
            None if room => {
                self.macs.insert(station, Station { peer, reported: now });
                true
            }
            None => {
                self.macs_refused += 1;
                return Ok(());
            }
        };
        if report {
            self.last_destination = None;
            self.reports.push(Report::MacSeen { mac: station, peer });
        }
        // Not remembered past this turn's clock reading, so that refreshes are seen.
        self.last_source = Some((station, peer));
        Ok(())
    }

    /// Forgets where a station is.
    pub fn forget(&mut self, station: MacAddr) {
        self.macs.remove(&station);
        self.last_source = None;
        self.last_destination = None;
    }

    /// Begins a turn of the loop at `now`.
    pub fn begin_turn(&mut self, now: Duration) {
        if now.as_secs() != self.now.as_secs() {
            self.last_source = None;
        }
        self.now = now;
    }
}

/// Length of a datagram that carries a frame of `len` bytes.
#[must_use]
pub const fn datagram_len(mode: Mode, len: usize) -> usize {
    OUTER_LEN
        + INNER_LEN
        + len
        + match mode {
            Mode::Sealed => TAG_LEN,
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
            Mode::Clear => self.key.frame_clear(datagram),
        }
    }
}
