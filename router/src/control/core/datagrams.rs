//! What comes over UDP: the control lane.

use super::super::link::OpenedControl;
use super::super::ports::{Change, LANE_LIMIT};
use super::*;
use weave_mesh::liveness::{FAST_INTERVAL, INTERVAL, SHORT_INTERVAL};
use weave_wire::link::heartbeat::Challenge;

impl Core {
    pub(super) fn on_datagram(&mut self, mut datagram: Vec<u8>, source: SocketAddr) {
        let (now, boot) = (self.now(), boot_time());
        let Some((&header, _)) = OuterHeader::split(&datagram) else {
            self.counters.heartbeats_dropped += 1;
            return;
        };
        let id =
            (header.lane() == Some(Lane::CONTROL)).then(|| self.sessions.get(&header.session().0)).flatten();
        let opened = id
            .and_then(|id| self.links.get_mut(id))
            .and_then(|link| link.open_control(header, &mut datagram, boot));
        let (Some(&id), Some(opened)) = (id, opened) else {
            self.counters.heartbeats_dropped += 1;
            tracing::trace!(%source, "a datagram of the control lane that nobody sealed");
            return;
        };
        self.follow(id, &opened, source, now);
        match opened.message {
            ControlMessage::Heartbeat(beat) => self.on_heartbeat(id, beat, now),
            ControlMessage::HeartbeatAck(beat) => self.on_heartbeat_ack(id, beat, now),
            ControlMessage::Challenge(challenge) => {
                if challenge.seal {
                    self.seal_link(id, "the peer says that one end is outside of them");
                }
                self.send_control(id, &ControlMessage::ChallengeAck(challenge), challenge.mesh_port);
            }
            ControlMessage::ChallengeAck(Challenge { nonce, mesh_port, .. }) => {
                let Some(roaming) = self.links.get_mut(&id).and_then(|link| link.roaming.as_mut()) else {
                    return;
                };
                if roaming.on_answer(nonce, place(source, mesh_port, roaming.address()), now) {
                    self.on_moved(id);
                }
            }
            ControlMessage::PathAck { number, len } => {
                let _ = self.with_path(id, now, |path| path.on_answer(number, len, now));
            }
        }
    }

    /// Looks into a place that a newer datagram than all before came from.
    fn follow(&mut self, id: LinkId, opened: &OpenedControl, source: SocketAddr, now: Duration) {
        let mesh_port = match opened.message {
            ControlMessage::Heartbeat(beat) | ControlMessage::HeartbeatAck(beat) => beat.mesh_port,
            ControlMessage::Challenge(challenge) | ControlMessage::ChallengeAck(challenge) => {
                challenge.mesh_port
            }
            ControlMessage::PathAck { .. } => return,
        };
        let Some(roaming) = self.links.get_mut(&id).and_then(|link| link.roaming.as_mut()) else { return };
        let at = place(source, mesh_port, roaming.address());
        let nonce = super::super::random_u64;
        let challenges = roaming.on_datagram(opened.epoch, opened.counter, at, now, nonce);
        if challenges.iter().any(|challenge| !self.config.trusts(challenge.address.ip())) {
            // Before anything more goes there.
            self.seal_link(id, "the peer's datagrams come from outside of them");
        }
        let seal = self.links.get(&id).is_some_and(Link::tells_to_seal);
        for challenge in challenges {
            let message = ControlMessage::Challenge(Challenge { nonce: challenge.nonce, mesh_port, seal });
            self.send_control_to(id, &message, mesh_port, challenge.address);
        }
    }

    /// The peer is reached somewhere else.
    pub(super) fn on_moved(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let Some(address) = link.roaming.as_ref().map(weave_mesh::Roaming::address) else { return };
        tracing::info!(peer = %link.peer.name, %address, "the peer has another address");
        self.counters.moves += 1;
        let now = self.started.elapsed();
        let (number, counters) = (link.number, link.counters.clone());
        // TCP is dialled there, too, at the port that the peer told.
        let listens = link.address.map(|before| SocketAddr::new(address.ip(), before.port()));
        link.address = listens;
        if let Some(listens) = listens {
            self.dial_led_to(number, None, listens);
            self.remember(Target::from(listens));
        }
        for (shard, counters) in counters.into_iter().enumerate() {
            self.command(shard, Command::SetLink { link: id, address, counters });
        }
        let _ = self.with_path(id, now, |path| path.reset(now));
    }

    /// A link of trusted subnets is one no longer: data is sealed from now on, here
    /// at once, and at the other end as soon as it hears of it.
    pub(super) fn seal_link(&mut self, id: LinkId, why: &str) {
        let now = self.now();
        let Some(link) = self.links.get_mut(&id).filter(|link| link.authenticated_only) else { return };
        link.authenticated_only = false;
        tracing::warn!(peer = %link.peer.name, "a link of trusted subnets is encrypted from now on: {why}");
        let number = LinkNumber(link.number);
        self.command_all(|| Command::Seal(id));
        self.mesh.link_encrypted(number, now);
    }

    fn on_heartbeat(&mut self, id: LinkId, beat: Heartbeat, now: Duration) {
        self.on_lanes(id, beat, now);
        let Some(link) = self.links.get_mut(&id) else { return };
        // Its keep-alives go with its heartbeats; what was seen of them is noted when we tell of it.
        link.lanes_in &= !link.watch_in.end_turn(lanes(link.peer.lanes.into()));
        link.asked = Some(beat);
        self.answer_heartbeat(id);
    }

    /// Answers the peer's last heartbeat, once every shard can receive what the peer sends
    /// upon the answer, and it is known where the peer is: it may be before its description,
    /// and would wait for the answer to its next one else.
    pub(super) fn answer_heartbeat(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.may_receive()
            && link.roaming.is_some()
            && let Some(beat) = link.asked.take()
        {
            let answer = link.heartbeat(beat.sequence, beat.mesh_port);
            self.send_control(id, &ControlMessage::HeartbeatAck(answer), beat.mesh_port);
        }
    }

    fn on_heartbeat_ack(&mut self, id: LinkId, beat: Heartbeat, now: Duration) {
        let shards = self.group.shards();
        let needed = self.lanes_with_own_port();
        let Some(link) = self.links.get_mut(&id) else { return };
        let Some(liveness) = &mut link.liveness else { return };
        if let Some(time) = liveness.on_answer(beat.sequence, now) {
            self.round_trips.record(time);
            // Keep-alives of all lanes went with the heartbeat: one that stopped passing is given up
            // below, and the sooner known for sure.
            link.watch_out.note(beat.lanes_seen);
            link.lanes_out &= !link.watch_out.end_turn(lanes(shards));
            if link.ports.one_port().is_none() {
                let is_suspect = link.watch_out.is_suspect(needed & link.lanes_out);
                liveness.set_interval(if is_suspect { FAST_INTERVAL } else { INTERVAL }, now);
            }
        }
        self.on_lanes(id, beat, now);
        let Some(link) = self.links.get_mut(&id) else { return };
        let Some(liveness) = &mut link.liveness else { return };
        if !liveness.is_established() {
            return;
        }
        if let Some(roaming) = &mut link.roaming {
            roaming.on_round_trip();
        }
        let first = link.begin_routing();
        if let Some(change) = link.ports.on_answer(beat.mesh_port, first, now) {
            self.on_ports(id, change);
        }
        if first {
            self.on_link_established(id, now);
        }
    }

    /// A link passes data.
    fn on_link_established(&mut self, id: LinkId, now: Duration) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.since = now;
        let address = link.address.map(tracing::field::display);
        tracing::info!(peer = %link.peer.name, address, "link established");
        let (number, peer) = (link.number, link.peer.name);
        for older in self.links.values_mut().filter(|link| link.peer.name == peer && link.number < number) {
            // Once: a peer that makes one link after another does not keep them all.
            if older.replaced == Some(Replaced::Serving) {
                older.replaced = Some(Replaced::Until(now + REPLACED_KEPT));
            }
        }
        self.begin_path(id, now);
        self.dialler.established(number);
        self.routes_changed = true;
        self.mesh.link_established(LinkNumber(number), true, now);
    }

    /// The peer says which of our lanes it saw, and whether data is to be sealed.
    fn on_lanes(&mut self, id: LinkId, beat: Heartbeat, now: Duration) {
        if beat.seal {
            self.seal_link(id, "the peer says that one end is outside of them");
        }
        let needed = self.lanes_with_own_port();
        let Some(link) = self.links.get_mut(&id) else { return };
        link.lanes_out |= beat.lanes_seen;
        link.watch_out.note(beat.lanes_seen);
        let late = link.is_established() && now.saturating_sub(link.since) >= LANE_LIMIT;
        let change = if late && link.ports.one_port().is_none() && link.lanes_out & needed != needed {
            Some(link.ports.give_up_own(now))
        } else {
            link.ports.on_lanes(beat.lanes_own, needed, now)
        };
        if let Some(change) = change {
            self.on_ports(id, change);
        }
    }

    /// Our lanes whose source is not the mesh port: all but lane 0.
    fn lanes_with_own_port(&self) -> u64 {
        lanes(self.group.shards()) & !1
    }

    fn on_ports(&mut self, id: LinkId, change: Change) {
        let now = self.now();
        let Some(link) = self.links.get_mut(&id) else { return };
        let one_port = change == Change::OnePort;
        if let Some(liveness) = &mut link.liveness {
            liveness.set_interval(if one_port { SHORT_INTERVAL } else { INTERVAL }, now);
        }
        if one_port {
            tracing::warn!(peer = %link.peer.name, "only the mesh port passes: all lanes share it");
        } else {
            tracing::info!(peer = %link.peer.name, "every lane passes from a port of its own again");
        }
        self.command_all(|| Command::SetOnePort { link: id, one_port });
    }

    /// Sends a message of the control lane to where the link's datagrams go, from
    /// the mesh port or the control core's own.
    pub(super) fn send_control(&mut self, id: LinkId, message: &ControlMessage, mesh_port: bool) {
        let roaming = self.links.get(&id).and_then(|link| link.roaming.as_ref());
        if let Some(address) = roaming.map(weave_mesh::Roaming::address) {
            self.send_control_to(id, message, mesh_port, address);
        }
    }

    fn send_control_to(
        &mut self,
        id: LinkId,
        message: &ControlMessage,
        mesh_port: bool,
        address: SocketAddr,
    ) {
        let Some(datagram) = self.links.get_mut(&id).and_then(|link| link.seal_control(message)) else {
            return;
        };
        let address = match address {
            SocketAddr::V4(v4) if self.group.reaches_ipv6() => {
                SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
            }
            SocketAddr::V4(_) | SocketAddr::V6(_) => address,
        };
        let socket = if mesh_port { &self.mesh_port_socket } else { &self.heartbeats };
        match socket.send_to(&datagram, address) {
            Ok(_) => self.counters.heartbeats_sent += 1,
            Err(error) => {
                self.counters.heartbeats_dropped += 1;
                tracing::debug!(%address, "sending a heartbeat: {error}");
            }
        }
    }
}

/// The first `count` lanes.
fn lanes(count: usize) -> u64 {
    u64::MAX.checked_shr(64 - count.min(64) as u32).unwrap_or(0)
}

/// Where a peer is whose datagram came from `source`: exactly there if it left
/// by its mesh port, else at the port it listens on.
fn place(source: SocketAddr, mesh_port: bool, current: SocketAddr) -> SocketAddr {
    if mesh_port { source } else { SocketAddr::new(source.ip(), current.port()) }
}
