//! What comes over UDP: the control lane.

use super::*;

impl Core {
    pub(super) fn on_datagram(&mut self, mut datagram: Vec<u8>, source: SocketAddr) {
        let (now, boot) = (self.now(), boot_time());
        let Some((&header, _)) = OuterHeader::split(&datagram) else {
            self.counters.heartbeats_dropped += 1;
            return;
        };
        let id =
            (header.lane() == Some(Lane::CONTROL)).then(|| self.sessions.get(&header.session().0)).flatten();
        let message = id
            .and_then(|id| self.links.get_mut(id))
            .and_then(|link| link.open_control(header, &mut datagram, boot));
        let (Some(&id), Some(message)) = (id, message) else {
            self.counters.heartbeats_dropped += 1;
            tracing::trace!(%source, "a datagram of the control lane that nobody sealed");
            return;
        };
        let Some(link) = self.links.get_mut(&id) else { return };
        match message {
            ControlMessage::Heartbeat(beat) => {
                link.lanes_out |= beat.lanes_seen;
                if link.may_receive() {
                    let lanes_seen = std::mem::take(&mut link.lanes_seen);
                    let answer = Heartbeat { sequence: beat.sequence, lanes_seen };
                    self.send_control(id, &ControlMessage::HeartbeatAck(answer));
                }
            }
            ControlMessage::HeartbeatAck(beat) => {
                link.lanes_out |= beat.lanes_seen;
                let Some(liveness) = &mut link.liveness else { return };
                liveness.on_answer(beat.sequence, now);
                if liveness.is_established() && link.begin_routing() {
                    link.since = now;
                    tracing::info!(peer = %link.peer.name, address = ?link.address, "link established");
                    let (number, peer) = (link.number, link.peer.name);
                    self.dialler.established(number);
                    self.routes_changed = true;
                    for older in self.links.values_mut() {
                        if older.peer.name == peer && older.number < number {
                            older.superseded = Some(Superseded::Until(now + SUPERSEDED_KEPT));
                        }
                    }
                }
            }
        }
    }

    pub(super) fn send_control(&mut self, id: LinkId, message: &ControlMessage) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let Some(address) = link.address else { return };
        let Some(datagram) = link.seal_control(message) else { return };
        let address = match address {
            SocketAddr::V4(v4) if self.group.reaches_ipv6() => {
                SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
            }
            SocketAddr::V4(_) | SocketAddr::V6(_) => address,
        };
        match self.heartbeats.send_to(&datagram, address) {
            Ok(_) => self.counters.heartbeats_sent += 1,
            Err(error) => {
                self.counters.heartbeats_dropped += 1;
                tracing::debug!(%address, "sending a heartbeat: {error}");
            }
        }
    }
}
