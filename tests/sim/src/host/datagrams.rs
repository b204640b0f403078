//! What comes over UDP (`core/datagrams.rs`, and the shards).

use super::*;

/// Datagrams of one link remembered against replays.
const REPLAY_WINDOW: usize = 1024;

impl Host {
    /// A datagram of a link came.
    pub fn on_datagram(&mut self, session: Session, datagram: Datagram, now: Duration) {
        let Some(link) = self.links.get_mut(&session) else { return };
        if !link.received.insert(datagram.number) {
            return;
        }
        if link.received.len() > REPLAY_WINDOW {
            link.received.pop_first();
        }
        match datagram.body {
            Body::Control(bytes) => match ControlMessage::parse(&bytes) {
                Some(ControlMessage::Heartbeat(beat)) => {
                    link.asked = Some(beat);
                    self.answer_heartbeat(session);
                }
                Some(ControlMessage::HeartbeatAck(beat)) => self.on_heartbeat_ack(session, beat, now),
                Some(_) | None => {}
            },
            Body::Frame(frame) => self.on_frame(session, frame),
        }
    }

    /// Answers the peer's last heartbeat, once it is known where the peer is.
    pub(super) fn answer_heartbeat(&mut self, session: Session) {
        let Some(link) = self.links.get_mut(&session).filter(|link| link.address.is_some()) else { return };
        if let Some(beat) = link.asked.take() {
            self.send_control(session, &ControlMessage::HeartbeatAck(beat));
        }
    }

    pub(super) fn on_heartbeat_ack(&mut self, session: Session, beat: Heartbeat, now: Duration) {
        let Some(link) = self.links.get_mut(&session) else { return };
        let Some(liveness) = &mut link.liveness else { return };
        let _ = liveness.on_answer(beat.sequence, now);
        if liveness.is_established() && !std::mem::replace(&mut link.routed, true) {
            let (number, peer) = (link.number, link.peer.name);
            for older in self.by_peer.get(&peer).cloned().into_iter().flatten() {
                if let Some(link) =
                    self.links.get_mut(&older).filter(|link| link.replaced == Some(Replaced::Serving))
                {
                    link.replaced = Some(Replaced::Until(now + REPLACED_KEPT));
                    self.arm(older);
                }
            }
            self.dialler.established(number);
            self.routes_changed = true;
            self.mesh.link_established(LinkNumber(number), true, now);
        }
        self.arm(session);
    }

    pub(super) fn send_control(&mut self, session: Session, message: &ControlMessage) {
        // Outer header, tag, UDP and IP.
        const IN_PACKETS: u64 = (ControlMessage::LEN + 16 + 16 + 8 + 20) as u64;
        self.sent.heartbeats += IN_PACKETS;
        self.send_datagram(session, Body::Control(message.encode()));
    }

    pub(super) fn send_datagram(&mut self, session: Session, body: Body) {
        let Some(link) = self.links.get_mut(&session) else { return };
        let Some(address) = link.address else { return };
        link.sent += 1;
        self.effects.push(Effect::Datagram(address, session, Datagram { number: link.sent, body }));
    }

    /// A container here sends a frame.
    pub fn send_frame(&mut self, number: u64, destination: Option<PeerName>) {
        let header = InnerHeader::new(self.state.name, destination, None);
        let frame = Frame { number, header, crossed: 0 };
        let links = match destination {
            Some(peer) => {
                let next = self.table.peers.get(&peer).map(|route| route.next);
                next.map(|next| self.character.first_link(&self.table, next)).into_iter().collect()
            }
            None => self.table.broadcast.clone(),
        };
        for link in links {
            self.forward(link, frame);
        }
    }

    pub(super) fn forward(&mut self, link: Session, frame: Frame) {
        let frame = Frame { crossed: frame.crossed.saturating_add(1), ..frame };
        self.send_datagram(link, Body::Frame(frame));
    }

    pub(super) fn on_frame(&mut self, session: Session, frame: Frame) {
        let Some(neighbour) = self.links.get(&session).map(|link| link.peer.name) else { return };
        let ours = self.state.name;
        match self.character.course(&self.table, ours, session, neighbour, &frame.header) {
            Ok(course) => {
                if course.here {
                    self.effects.push(Effect::Deliver(frame));
                }
                for link in course.on {
                    match self.character.relayed(frame.header) {
                        Some(header) => self.forward(link, Frame { header, ..frame }),
                        None => self.effects.push(Effect::Drop(frame, crate::frames::Drop::HopLimit)),
                    }
                }
            }
            Err(reason) => self.effects.push(Effect::Drop(frame, reason)),
        }
    }
}
