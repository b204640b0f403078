//! Connections and handshakes: how links come to be.

use super::*;
use weave_mesh::Origin;

/// What the passage of any link costs: paths with fewer links win.
const LINK_COST: u16 = 1;
/// How a host that has its limit of links begins to say so to whom it refuses for that.
pub(super) const AT_LIMIT: &str = "it has its limit of ";

impl Core {
    /// True if a peer at this address is expected: a target or a recent peer. What members tell of
    /// others is no reason: it would have places kept for whom they like.
    pub(super) fn is_known(&self, address: IpAddr) -> bool {
        let own = self.dialler.entries().iter();
        own.filter(|entry| matches!(entry.origin, Origin::Target | Origin::Recent)).any(|entry| {
            entry.address.map(|known| known.ip()) == Some(address)
                || entry.target.address(0).map(|known| known.ip()) == Some(address)
        }) || self.links.values().any(|link| link.remote.ip() == address)
    }

    pub(super) fn on_accepted(&mut self, stream: TcpStream, address: SocketAddr) {
        self.counters.accepted += 1;
        if self.is_superseded {
            self.counters.refused += 1;
            return;
        }
        let (now, known) = (self.now(), self.is_known(address.ip()));
        let admitted = match self.admission.admit(address.ip(), known, now) {
            Ok(admitted) => admitted,
            Err(refusal) => {
                self.counters.refused += 1;
                tracing::debug!(%address, ?refusal, "connection refused");
                return;
            }
        };
        if let Some(evicted) = admitted.evicted {
            // Dropping the other end of its channel ends the task.
            self.answering.remove(&evicted);
        }
        let (cancel, cancelled) = rt::bounded(1);
        self.answering.insert(admitted.ticket, cancel);
        let (local, links, events) =
            (Arc::clone(&self.local), Rc::clone(&self.resumptions), self.events.clone());
        let trusted = self.config.trusts(address.ip());
        let connection = tasks::Incoming { ticket: admitted.ticket, stream, address, trusted };
        rt::spawn(tasks::answer(connection, local, links, cancelled, events));
    }

    pub(super) fn on_answered(
        &mut self,
        ticket: Ticket,
        address: SocketAddr,
        result: Result<Greeted, GreetingError>,
    ) {
        self.admission.done(ticket);
        self.answering.remove(&ticket);
        match result {
            Ok(greeted) => self.on_greeted(greeted, Side::Peer, None, address),
            // No attempt to get in, and nothing to warn of.
            Err(error @ GreetingError::Silent) => tracing::debug!(%address, "{error}"),
            Err(error) => self.on_refused(address, &error),
        }
    }

    pub(super) fn on_refused(&mut self, address: SocketAddr, error: &GreetingError) {
        self.counters.handshakes_failed += 1;
        let now = self.now();
        if self.refusals.note(address.ip(), error.to_string(), now) {
            tracing::warn!(address = %address.ip(), "a peer did not get in: {error}");
        }
    }

    pub(super) fn on_dialled(
        &mut self,
        dial: DialId,
        attempt: u32,
        address: Option<SocketAddr>,
        result: Result<Greeted, GreetingError>,
    ) {
        let now = self.now();
        if self.dialler.was_forgotten(dial) {
            // A connection that came through ends here: a link would make the peer a recent one again.
            tracing::debug!(?address, "a dial ended whose target was forgotten");
            return;
        }
        if let Some(address) = address {
            self.dialler.resolved(dial, address);
        }
        match (result, address) {
            (Ok(greeted), Some(address)) => self.on_greeted(greeted, Side::Us, Some(dial), address),
            (Ok(_), None) => {}
            (Err(error @ GreetingError::Linked), Some(address)) => {
                let found = self.links.values().find(|link| link.address == Some(address));
                match found.and_then(|link| self.newest_to(link.peer.name)).map(|link| link.number) {
                    Some(number) => self.dial_led_to(number, Some(dial), address),
                    None => self.dialler.failed(dial, error.to_string(), false, now, jitter()),
                }
            }
            (Err(error), _) => {
                // While hosts change over to a new password each pair of passwords is
                // tried before the waits grow long.
                let pairs = 2 * u32::from(self.local.secrets.count());
                let refused = error.is_refusal() && attempt + 1 >= pairs;
                if refused {
                    self.counters.handshakes_failed += 1;
                    if address.is_some_and(|address| self.refusals.may_log(address.ip(), now)) {
                        tracing::warn!(?address, "a dial failed: {error}");
                    }
                }
                self.dialler.failed(dial, error.to_string(), refused, now, jitter());
            }
        }
    }

    pub(super) fn on_redialled(
        &mut self,
        number: u64,
        address: SocketAddr,
        result: Result<Greeted, GreetingError>,
    ) {
        let now = self.now();
        let Some(id) = self.link_by_number(number) else { return };
        match result {
            Ok(greeted) => self.on_greeted(greeted, Side::Us, None, address),
            Err(error) => {
                let Some(link) = self.links.get_mut(&id) else { return };
                link.redialling = false;
                if let Some((backoff, at)) = &mut link.redial {
                    *at = now + backoff.fail(false, now, jitter());
                }
                tracing::debug!(%address, "resuming a link: {error}");
            }
        }
    }

    pub(super) fn on_greeted(
        &mut self,
        greeted: Greeted,
        side: Side,
        dial: Option<DialId>,
        remote: SocketAddr,
    ) {
        if self.is_superseded {
            return;
        }
        match greeted.outcome {
            Outcome::New(established, session) => {
                self.on_established(greeted.stream, *established, session, side, dial, remote);
            }
            Outcome::Resumed(name, resumed) => self.on_resumed(greeted.stream, name, *resumed, side, remote),
        }
    }

    pub(super) fn on_established(
        &mut self,
        stream: TcpStream,
        established: Established,
        session: SessionIndex,
        side: Side,
        dial: Option<DialId>,
        remote: SocketAddr,
    ) {
        let now = self.now();
        let peer = established.peer;
        let refuse = |core: &mut Self, reason: String| {
            if core.refusals.note(remote.ip(), reason.clone(), now) {
                tracing::warn!(peer = %peer.name, %remote, "link refused: {reason}");
            }
            if let Some(dial) = dial {
                core.dialler.failed(dial, reason, true, now, jitter());
            }
        };
        let old = self.newest_to(peer.name).map(|link| (link.id, link.number, link.peer.uid, link.side));
        if let Some((_, number, old_uid, old_side)) = old
            && old_uid == peer.uid
            && which_survives(self.local.uid, peer.uid, old_side, side) == Crossing::KeepOld
        {
            tracing::debug!(peer = %peer.name, "two dials crossed: the other connection stays");
            self.dial_led_to(number, dial, remote);
            return;
        }
        let limit = self.link_limit();
        // No link goes for one that is refused for its key below.
        let admitted = self.mesh.admits(peer.name, &peer.identity);
        if old.is_none() && admitted && self.current_links() >= limit {
            self.make_room_for(peer.name);
        }
        let may = old.is_some() || !admitted || self.current_links() < limit;
        let place = self.free_link_id().or(old.map(|(id, ..)| id));
        let Some(id) = place.filter(|_| may) else {
            self.counters.links_refused += 1;
            refuse(self, format!("this host has its {limit} links"));
            // Of a connection that is only closed the other end could not say why.
            let mut connection =
                self.connection(peer.identity, stream, established.sealer, established.opener, side);
            let _ = connection.send(&Message::Bye(format!("{AT_LIMIT}{limit} links")));
            return;
        };
        let number = self.next_number();
        let info = LinkInfo {
            peer: peer.name,
            uid: peer.uid,
            identity: peer.identity,
            unencrypted: !self.is_encrypted() || peer.trusted_subnet,
            outbound: side == Side::Us,
            cost: LINK_COST,
        };
        if let Err(refused) = self.mesh.link_added(LinkNumber(number), info, now) {
            let name = refused.name;
            self.counters.handshakes_failed += 1;
            refuse(self, format!("the name {name} belongs to a peer with another identity key"));
            return;
        }
        // Where no place is free: not before the new one is known to be of the same peer.
        self.remove_link(id);
        let connection = self.connection(peer.identity, stream, established.sealer, established.opener, side);
        let policy = self.config.test.rekey_interval.map_or_else(RekeyPolicy::default, RekeyPolicy::every);
        let (ours, boot) = (self.local.uid, boot_time());
        let rekey =
            Rekey::new(ours, session, &peer, established.keys.clone(), established.connection, policy, boot);
        let shards = self.group.shards();
        let name = established.resumption.link_id();
        self.resumptions.borrow_mut().insert(name, established.resumption.clone());
        let mut link =
            Link::new(number, id, peer, side, remote, connection, established.resumption, rekey, shards, now);
        link.install(session, &established.keys, shards);
        self.links.insert(id, link);
        self.counters.links_made += 1;
        self.install(id, session, &established.keys);
        match old {
            Some((_, old_number, ..)) => {
                self.dialler.relinked(old_number, number);
                self.dialler.linked(number, dial, remote);
                self.replace_links_to(&peer, number);
            }
            None => self.dialler.linked(number, dial, remote),
        }
        tracing::info!(peer = %peer.name, %remote, encrypted = !info.unencrypted, "link authenticated");
        let describe = self.describe(remote.ip());
        self.send(id, &describe);
    }

    /// Link `newest` leads to a peer to which older ones led. One of these to the same run
    /// that passes data goes on doing so until the new one can; so a peer has two at most.
    fn replace_links_to(&mut self, peer: &weave_crypto::PeerInfo, newest: u64) {
        let older = self.links.values().filter(|link| link.peer.name == peer.name && link.number != newest);
        let mut older: Vec<_> = older
            .map(|link| (link.is_established() && link.peer.uid == peer.uid, link.number, link.id))
            .collect();
        older.sort_unstable();
        let kept = older.pop_if(|(serves, ..)| *serves);
        for (.., id) in older {
            self.remove_link(id);
        }
        if let Some(link) = kept.and_then(|(.., id)| self.links.get_mut(&id)) {
            link.replaced = Some(Replaced::Serving);
            link.redial = None;
        }
        // What the peer sends over the new one is its own from now on.
        self.routes_changed = true;
    }

    /// The link to `peer`; of two the one that follows the other.
    pub(super) fn newest_to(&self, peer: PeerName) -> Option<&Link> {
        self.links.values().filter(|link| link.peer.name == peer).max_by_key(|link| link.number)
    }

    pub(super) fn on_resumed(
        &mut self,
        stream: TcpStream,
        name: LinkName,
        resumed: Resumed,
        side: Side,
        remote: SocketAddr,
    ) {
        let found = self.links.values().find(|link| link.resumption.link_id() == name);
        let Some((id, peer)) = found.map(|link| (link.id, link.peer)) else { return };
        let Some(link) = self.links.get_mut(&id) else { return };
        link.redialling = false;
        if let Some(old) = &link.connection
            && which_survives(self.local.uid, peer.uid, old.side, side) == Crossing::KeepOld
        {
            return;
        }
        let connection = self.connection(peer.identity, stream, resumed.sealer, resumed.opener, side);
        let (boot, shards) = (boot_time(), self.group.shards());
        let Some(link) = self.links.get_mut(&id) else { return };
        let actions = link.reconnect(connection, resumed.connection, resumed.count, boot);
        let (work, result) = link.carry_out(actions, shards);
        self.resumptions.borrow_mut().insert(name, link.resumption.clone());
        self.mesh.link_resumed(LinkNumber(link.number));
        self.counters.resumptions += 1;
        if !self.config.trusts(remote.ip()) {
            self.seal_link(id, "TCP comes from outside of them");
        }
        tracing::info!(peer = %peer.name, %remote, "link resumed over TCP");
        self.shard_work(id, work);
        self.end_connection_on(id, result);
    }

    pub(super) fn connection(
        &mut self,
        peer: IdentityKey,
        stream: TcpStream,
        sealer: weave_crypto::RecordSealer,
        opener: weave_crypto::RecordOpener,
        side: Side,
    ) -> Connection {
        let number = self.next_number();
        let (out, queue) = rt::bounded(SEND_QUEUE_MESSAGES);
        let (queued, full) = (Rc::default(), Rc::default());
        let (reader, writer) = futures_lite::io::split(stream);
        let (alive, ended) = rt::bounded(1);
        let budget = self.budgets.of(peer, Instant::now());
        rt::spawn(tasks::read(number, reader, budget, ended.clone(), self.told.clone()));
        let fill = tasks::Fill { queued: Rc::clone(&queued), full: Rc::clone(&full) };
        rt::spawn(tasks::write(number, writer, queue, fill, ended, self.events.clone()));
        Connection { number, opener, sealer, out, queued, full, _alive: alive, side }
    }

    /// At the limit of links one that is not needed goes rather than a peer that
    /// nobody else can reach.
    fn make_room_for(&mut self, peer: PeerName) {
        if self.mesh.routes().peer(peer).is_some() {
            return;
        }
        let shed = self.mesh.shed().and_then(|number| self.link_by_number(number.0));
        let Some(spare) = shed.and_then(|id| self.links.get(&id)).map(|link| link.peer.name) else { return };
        let mut ids: Vec<_> = self.links.values().filter(|link| link.peer.name == spare).collect();
        // The one that follows comes last: without it the one before would go on.
        ids.sort_unstable_by_key(|link| link.number);
        for id in ids.into_iter().map(|link| link.id).collect::<Vec<_>>() {
            self.send(id, &Message::Bye("the limit of links is reached and this one is not needed".into()));
            self.lose_link(id, "it gave way to a peer without links: this host has its limit of links");
        }
    }

    /// A dial or another address led to link number `number`, which may pass data already.
    pub(super) fn dial_led_to(&mut self, number: u64, dial: Option<DialId>, address: SocketAddr) {
        self.dialler.linked(number, dial, address);
        if self.links.values().any(|link| link.number == number && link.is_established()) {
            self.dialler.established(number);
        }
    }

    /// Links that this host may have.
    pub(in crate::control) fn link_limit(&self) -> usize {
        usize::from(self.config.conn_limit).min(MAX_LINKS - 1)
    }

    /// Links, but those that a newer one follows.
    pub(in crate::control) fn current_links(&self) -> usize {
        self.links.values().filter(|link| link.replaced.is_none()).count()
    }

    pub(super) fn next_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    pub(super) fn free_link_id(&self) -> Option<LinkId> {
        #[expect(clippy::cast_possible_truncation, reason = "512")]
        let limit = MAX_LINKS as u16;
        (0..limit).map(LinkId).find(|id| !self.links.contains_key(id))
    }

    pub(super) fn link_by_number(&self, number: u64) -> Option<LinkId> {
        self.links.values().find(|link| link.number == number).map(|link| link.id)
    }

    pub(in crate::control) fn is_encrypted(&self) -> bool {
        self.local.secrets.mode() == weave_wire::link::handshake::Mode::Encrypted
    }

    /// What the peer at `remote` is told first.
    pub(super) fn describe(&self, remote: IpAddr) -> Message {
        Message::Describe(Describe {
            nickname: self.nickname.clone(),
            port: self.group.port(),
            observed: Some(remote),
        })
    }
}
