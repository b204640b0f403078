//! Connections and handshakes: how links come to be.

use super::*;

impl Core {
    /// True if a peer at this address is expected: a target or a recent peer.
    pub(super) fn is_known(&self, address: IpAddr) -> bool {
        self.dialler.entries().iter().any(|entry| {
            entry.address.map(|known| known.ip()) == Some(address)
                || entry.target.address(0).map(|known| known.ip()) == Some(address)
        }) || self.links.values().any(|link| link.remote.ip() == address)
    }

    pub(super) fn on_accepted(&mut self, stream: TcpStream, address: SocketAddr) {
        self.counters.accepted += 1;
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
        rt::spawn(tasks::answer(admitted.ticket, stream, address, local, links, cancelled, events));
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
        address: Option<SocketAddr>,
        result: Result<Greeted, GreetingError>,
    ) {
        let now = self.now();
        if let Some(address) = address {
            self.dialler.resolved(dial, address);
        }
        match (result, address) {
            (Ok(greeted), Some(address)) => self.on_greeted(greeted, Side::Us, Some(dial), address),
            (Ok(_), None) => {}
            (Err(error @ GreetingError::Linked), Some(address)) => {
                match self.links.values().find(|link| link.address == Some(address)) {
                    Some(link) => self.dialler.linked(link.number, Some(dial), address),
                    None => self.dialler.failed(dial, error.to_string(), false, now, jitter()),
                }
            }
            (Err(error), _) => {
                let refused = error.is_refusal();
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
            core.counters.handshakes_failed += 1;
            if core.refusals.note(remote.ip(), reason.clone(), now) {
                tracing::warn!(peer = %peer.name, %remote, "link refused: {reason}");
            }
            if let Some(dial) = dial {
                core.dialler.failed(dial, reason, true, now, jitter());
            }
        };
        if self.is_bound_to_another(peer.name, peer.identity, now) {
            refuse(self, format!("the name {} belongs to a peer with another identity key", peer.name));
            return;
        }
        let old = self
            .links
            .values()
            .filter(|link| link.peer.name == peer.name)
            .max_by_key(|link| link.number)
            .map(|link| (link.id, link.peer.uid, link.side));
        if let Some((old_id, old_uid, old_side)) = old
            && old_uid == peer.uid
            && which_survives(self.local.uid, peer.uid, old_side, side) == Crossing::KeepOld
        {
            tracing::debug!(peer = %peer.name, "two dials crossed: the other connection stays");
            if let Some(number) = self.links.get(&old_id).map(|link| link.number) {
                self.dialler.linked(number, dial, remote);
            }
            return;
        }
        let limit = usize::from(self.config.conn_limit).min(MAX_LINKS - 1);
        let Some(id) = self.free_link_id().filter(|_| old.is_some() || self.links.len() < limit) else {
            refuse(self, format!("this host has its {limit} links"));
            return;
        };
        self.bind(peer.name, peer.identity, now);
        let number = self.next_number();
        let connection = self.connection(stream, established.sealer, established.opener, side);
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
            Some((old_id, ..)) => {
                let old_number = self.links.get(&old_id).map(|link| link.number);
                if let Some(old_number) = old_number {
                    self.dialler.relinked(old_number, number);
                }
                self.dialler.linked(number, dial, remote);
                self.supersede(old_id);
            }
            None => self.dialler.linked(number, dial, remote),
        }
        tracing::info!(peer = %peer.name, %remote, encrypted = self.is_encrypted(), "link authenticated");
        let describe = self.describe();
        self.send(id, &describe);
    }

    /// A newer link leads to the same peer. One that passes data does so until the
    /// new one can: frames lose nothing while the keys of the new one settle.
    fn supersede(&mut self, id: LinkId) {
        match self.links.get_mut(&id) {
            Some(old) if old.is_established() => {
                old.superseded.get_or_insert(Superseded::Serving);
                old.redial = None;
            }
            Some(_) => self.remove_link(id),
            None => {}
        }
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
        let connection = self.connection(stream, resumed.sealer, resumed.opener, side);
        let (boot, shards) = (boot_time(), self.group.shards());
        let Some(link) = self.links.get_mut(&id) else { return };
        let actions = link.reconnect(connection, resumed.connection, resumed.count, boot);
        let (work, result) = link.carry_out(actions, shards);
        self.resumptions.borrow_mut().insert(name, link.resumption.clone());
        self.counters.resumptions += 1;
        tracing::info!(peer = %peer.name, %remote, "link resumed over TCP");
        self.shard_work(id, work);
        self.end_connection_on(id, result);
    }

    pub(super) fn connection(
        &mut self,
        stream: TcpStream,
        sealer: weave_crypto::RecordSealer,
        opener: weave_crypto::RecordOpener,
        side: Side,
    ) -> Connection {
        let number = self.next_number();
        let (out, queue) = rt::bounded(SEND_QUEUE_MESSAGES);
        let queued = Rc::default();
        let (reader, writer) = futures_lite::io::split(stream);
        let (alive, ended) = rt::bounded(1);
        rt::spawn(tasks::read(number, reader, ended.clone(), self.events.clone()));
        rt::spawn(tasks::write(number, writer, queue, Rc::clone(&queued), ended, self.events.clone()));
        Connection { number, opener, sealer, out, queued, _alive: alive, side }
    }

    /// True if the name belongs to another key: of a live link, or of one that
    /// ended within the hour.
    pub(super) fn is_bound_to_another(&self, name: PeerName, key: IdentityKey, now: Duration) -> bool {
        let linked = || self.links.values().any(|link| link.peer.name == name);
        self.bindings.get(&name).is_some_and(|binding| {
            binding.key != key && (now.saturating_sub(binding.seen) < BINDING_KEPT || linked())
        })
    }

    pub(super) fn bind(&mut self, name: PeerName, key: IdentityKey, now: Duration) {
        if self.bindings.len() >= BINDINGS {
            let linked = |name: &PeerName| self.links.values().any(|link| link.peer.name == *name);
            self.bindings
                .retain(|name, binding| linked(name) || now.saturating_sub(binding.seen) < BINDING_KEPT);
        }
        if self.bindings.len() < BINDINGS || self.bindings.contains_key(&name) {
            self.bindings.insert(name, Binding { key, seen: now });
        }
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

    pub(super) fn describe(&self) -> Message {
        let addresses =
            self.config.advertise.iter().filter_map(|target| target.address(self.config.port)).collect();
        Message::Describe(Describe { nickname: self.nickname.clone(), port: self.group.port(), addresses })
    }
}
