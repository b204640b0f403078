//! What comes over TCP (`core/messages.rs`).

use super::*;

/// Recent peers written down, at most.
const RECENT_KEPT: usize = 64;
/// With this many bytes left it is again.
const DRAINED: usize = 64 << 10;
/// Headers of TCP and IP of a segment, bytes.
const TCP_IP_LEN: usize = 52;

impl Host {
    /// Something came over a connection.
    pub fn on_payload(&mut self, id: ConnectionId, payload: Payload, now: Duration) {
        match payload {
            Payload::Greeting(greeting) => self.on_greeting(id, greeting, now),
            Payload::Message(bytes) => {
                let Some(session) = self.by_connection.get(&id).copied() else { return };
                self.character.overhear(&bytes);
                match Message::parse(&bytes) {
                    Ok(Some(message)) => self.on_message(session, message, now),
                    Ok(None) => {}
                    Err(_) => {
                        self.effects.push(Effect::Close(id));
                        self.end_connection(session, now);
                    }
                }
            }
        }
    }

    pub(super) fn on_message(&mut self, session: Session, message: Message, now: Duration) {
        let Some(link) = self.links.get(&session) else { return };
        match message {
            Message::Describe(describe) => self.on_describe(session, &describe, now),
            Message::Gossip(gossip) => {
                let number = LinkNumber(link.number);
                if let Some(answer) = self.character.answer(&gossip) {
                    self.send_gossip(number, answer, now);
                }
                if self.character.hears(&gossip) {
                    self.mesh.on_gossip(number, gossip, now);
                }
            }
            Message::Bye(_) => self.lose_link(session, "the peer ended the link", now),
            Message::Ping(_)
            | Message::Pong(_)
            | Message::RekeyOffer(_)
            | Message::RekeyAnswer(_)
            | Message::RekeyConfirm { .. } => {}
        }
    }

    pub(super) fn on_describe(&mut self, session: Session, describe: &Describe, now: Duration) {
        let Some(link) = self.links.get_mut(&session) else { return };
        link.observed = describe.observed;
        if link.address.is_some() {
            return;
        }
        let address = SocketAddr::new(link.remote.ip(), describe.port);
        link.address = Some(address);
        link.liveness = Some(Liveness::new(now));
        let number = link.number;
        self.arm(session);
        self.answer_heartbeat(session);
        self.dialler.linked(number, None, address);
        self.remember(address);
        self.tell_addresses(now);
    }

    pub(super) fn remember(&mut self, target: SocketAddr) {
        let recent = &mut self.state.recent;
        if recent.first() != Some(&target) {
            recent.retain(|known| *known != target);
            recent.insert(0, target);
            recent.truncate(RECENT_KEPT);
        }
    }

    /// A dial failed, or a connection is over.
    pub fn on_closed(&mut self, id: ConnectionId, now: Duration) {
        if self.exchanges.contains_key(&id) {
            self.exchange_failed(id, false, now);
        } else if let Some(session) = self.by_connection.get(&id).copied() {
            self.end_connection(session, now);
        }
    }

    /// Ends the TCP connection of a link; the link goes on while its probes are answered.
    pub(super) fn end_connection(&mut self, session: Session, now: Duration) {
        let Some(link) = self.links.get_mut(&session) else { return };
        let Some(connection) = link.connection.take() else { return };
        self.by_connection.remove(&connection.id);
        link.tcp_lost = Some(now);
        link.redial = link.is_current().then(|| (Backoff::new(now), now));
        if let Some(liveness) = &mut link.liveness {
            liveness.on_tcp_end(now);
        }
        self.mesh.connection_lost(LinkNumber(link.number));
        let described = link.address.is_some();
        self.arm(session);
        if !described {
            self.lose_link(session, "TCP ended", now);
        }
    }

    /// So many bytes of what was sent over a connection left its queue.
    pub fn on_written(&mut self, id: ConnectionId, len: usize) {
        let Some(link) = self.by_connection.get(&id).and_then(|session| self.links.get_mut(session)) else {
            return;
        };
        let number = LinkNumber(link.number);
        let Some(connection) = link.connection.as_mut().filter(|connection| connection.id == id) else {
            return;
        };
        connection.queued = connection.queued.saturating_sub(len);
        connection.messages = connection.messages.saturating_sub(1);
        if connection.queued <= DRAINED && std::mem::take(&mut connection.full) {
            self.mesh.set_writable(number, true);
        }
    }

    pub(super) fn send(&mut self, id: ConnectionId, message: &Message, now: Duration) {
        let bytes = self.character.encode(message);
        if let Message::Gossip(gossip) = message {
            let is_summary = matches!(gossip, Gossip::Summary(_));
            let sent = if is_summary { &mut self.sent.summaries } else { &mut self.sent.gossip };
            *sent += bytes.len() as u64;
        }
        self.send_bytes(id, bytes, now);
        if let Some(bytes) = self.character.also(message) {
            self.send_bytes(id, bytes, now);
        }
    }

    pub(super) fn send_bytes(&mut self, id: ConnectionId, bytes: Vec<u8>, now: Duration) {
        let Some(session) = self.by_connection.get(&id).copied() else { return };
        let Some(connection) = self.links.get_mut(&session).and_then(|link| link.connection.as_mut()) else {
            return;
        };
        let payload = Payload::Message(bytes.into());
        self.sent.tcp += (payload.len() + TCP_IP_LEN) as u64;
        connection.queued += payload.len();
        connection.messages += 1;
        if connection.queued > SEND_QUEUE {
            self.effects.push(Effect::Close(id));
            return self.end_connection(session, now);
        }
        self.effects.push(Effect::Send(id, payload));
    }

    /// A hostile host does one of its tricks.
    pub fn mischief(&mut self, now: Duration) {
        let connections: Vec<_> =
            self.links.values().filter_map(|link| link.connection.as_ref()).map(|c| c.id).collect();
        let neighbours: Vec<_> = self.links.values().map(|link| link.peer.name).collect();
        let Character::Hostile(hostile) = &mut self.character else { return };
        for (way, bytes) in hostile.trick(self.uid, &neighbours) {
            if let Some(id) = connections.get(way % connections.len().max(1)) {
                self.send_bytes(*id, bytes, now);
            }
        }
    }
}
