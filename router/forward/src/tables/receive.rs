//! Opening datagrams: sessions, their keys, and what is let in.

use super::Tables;
use super::routes::{Arrival, Course};
use super::stations::Learned;
use crate::MAX_LINKS;
use crate::command::{LinkId, Mode, ReceiveSession, Report};
use crate::counters::DropReason;
use crate::fragments::Fragment;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Duration;
use weave_crypto::{OpenError, REKEY_DATAGRAMS, ReceiveKey, ReplayError};
use weave_wire::inner::{ECHO_LEN, FrameKind};
use weave_wire::packet::EthernetHeader;
use weave_wire::{
    DatagramKind, INNER_LEN, InnerHeader, Lane, MacAddr, OUTER_LEN, OuterHeader, PeerName, SessionIndex,
};

/// Sessions of one shard, at most: two epochs for each link.
pub const MAX_SESSIONS: usize = 2 * MAX_LINKS;

pub(super) struct Session {
    pub(super) link: LinkId,
    peer: PeerName,
    address: IpAddr,
    epoch: u64,
    pub(super) index: SessionIndex,
    mode: Mode,
    expires: Duration,
    /// True once it was said that a lane has few numbers left.
    worn: bool,
    /// By lane number; `None` where the lane is another shard's or not the peer's.
    keys: Vec<Option<ReceiveKey>>,
}

/// What a datagram turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// A frame.
    Frame(Frame),
    /// The last fragment that was missing of a frame, which lies in the bytes given.
    Reassembled(Vec<u8>, Frame),
    /// A fragment of a frame of which others are missing.
    Fragment,
    /// A keep-alive; taken note of.
    KeepAlive,
    /// A datagram of a lane that this shard does not own.
    Foreign(Lane),
}

/// A frame in an opened datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Where it lies in the datagram.
    pub place: Range<usize>,
    /// The header it came with.
    pub inner: InnerHeader,
    /// Where it goes.
    pub course: Course,
}

impl Tables {
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

    /// Says where the clear datagrams of a link come from.
    pub fn set_source(&mut self, link: LinkId, address: IpAddr) {
        for session in self.sessions.iter_mut().flatten().filter(|session| session.link == link) {
            session.address = address;
        }
    }

    /// Destroys the keys of a receive session.
    pub fn drop_receive(&mut self, index: SessionIndex) {
        self.last_session = None;
        if let Some(place) = self.by_index.remove(&index.0) {
            self.sessions[place] = None;
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
        let len = datagram.len();
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
            // On a link of trusted subnets either end may begin to seal.
            (DatagramKind::Sealed, Mode::Sealed | Mode::Authenticated) | (DatagramKind::KeepAlive, _) => {
                key.open(header, datagram)
            }
            (DatagramKind::Authenticated, Mode::Authenticated) => key.accept_authenticated(header, datagram),
            (DatagramKind::Clear, Mode::Clear) if source.ip() == session.address => {
                key.accept_clear(header, datagram)
            }
            (
                DatagramKind::Sealed
                | DatagramKind::Clear
                | DatagramKind::Authenticated
                | DatagramKind::Control,
                _,
            ) => return Err(DropReason::WrongMode),
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
        let (link, epoch) = (session.link, session.epoch);
        let known = self.links.get(usize::from(link.0)).and_then(Option::as_ref);
        let own_port = || known.is_some_and(|known| known.address.port() != source.port());
        // A lane with more to carry than passes loses its keep-alives, too: data says as much of it.
        match known.filter(|_| seen) {
            Some(known) => known.counters.lanes_seen.note(lane, keep_alive && own_port()),
            None if keep_alive || !seen => {
                let own_port = own_port();
                self.reports.push(Report::LaneSeen { link, lane, epoch, keep_alive, own_port });
            }
            None => {}
        }
        if keep_alive {
            if let Some((number, [_, ..])) = body.split_first_chunk() {
                // Longer than a keep-alive needs to be: a probe of the path.
                let (link, number) = (session.link, u64::from_be_bytes(*number));
                let len = u16::try_from(len).unwrap_or(u16::MAX);
                self.reports.push(Report::ProbeSeen { link, number, len });
            }
            return Ok(Opened::KeepAlive);
        }
        let (&inner, frame) = InnerHeader::split(body).ok_or(DropReason::Malformed)?;
        let kind = inner.kind().ok_or(DropReason::Malformed)?;
        if kind != FrameKind::Ethernet && inner.destination().is_none() {
            // An echo is for one peer.
            return Err(DropReason::Malformed);
        }
        let (link, neighbour) = (session.link, session.peer);
        let source = inner.source().ok_or(DropReason::SourcePeer)?;
        if inner.hop_limit() == 0 {
            return Err(DropReason::HopLimit);
        }
        let arrival = Arrival { link, neighbour, source, destination: inner.destination() };
        let course = self.routes.course(arrival)?;
        if inner.is_whole() {
            self.accept(link, kind, source, course, frame)?;
            let start = OUTER_LEN + INNER_LEN;
            return Ok(Opened::Frame(Frame { place: start..start + frame.len(), inner, course }));
        }
        let (session, counter) = (header.session(), header.counter());
        let fragment = Fragment { link, session, lane, counter, inner, bytes: frame };
        let Some(whole) = self.reassembly.add(fragment, self.now)? else { return Ok(Opened::Fragment) };
        match self.accept(link, kind, source, course, &whole.bytes) {
            Ok(()) => {
                let place = 0..whole.bytes.len();
                Ok(Opened::Reassembled(whole.bytes, Frame { place, inner: whole.inner, course }))
            }
            Err(reason) => {
                self.reassembly.give_back(whole.bytes);
                Err(reason)
            }
        }
    }

    /// Looks at a whole frame that came by `link`, and counts it.
    #[inline]
    fn accept(
        &mut self,
        link: LinkId,
        kind: FrameKind,
        source: PeerName,
        course: Course,
        frame: &[u8],
    ) -> Result<(), DropReason> {
        if frame.len() > self.max_frame {
            return Err(DropReason::FrameTooLong);
        }
        match kind {
            FrameKind::Ethernet => {
                let (ethernet, _) = EthernetHeader::split(frame).ok_or(DropReason::FrameTooShort)?;
                // Of a frame that is sent on its destination learns it.
                if !matches!(course, Course::Relay(_)) {
                    self.learn(ethernet.source(), source)?;
                }
            }
            FrameKind::EchoRequest | FrameKind::EchoReply if frame.len() < ECHO_LEN => {
                return Err(DropReason::FrameTooShort);
            }
            FrameKind::EchoRequest | FrameKind::EchoReply => {}
        }
        if let Some(link) = self.links.get(usize::from(link.0)).and_then(Option::as_ref) {
            link.counters.frames_received.add(1);
            link.counters.bytes_received.add(frame.len() as u64);
        }
        Ok(())
    }

    /// Takes note that `station` is at `peer`.
    #[inline]
    fn learn(&mut self, station: MacAddr, peer: PeerName) -> Result<(), DropReason> {
        match self.stations.learn(station, peer, self.now)? {
            Learned::Known => {}
            Learned::Report => {
                self.last_destination = None;
                self.reports.push(Report::MacSeen { mac: station, peer });
            }
            Learned::Refused => self.macs_refused += 1,
        }
        Ok(())
    }
}
