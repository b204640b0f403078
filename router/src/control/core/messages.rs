//! What comes over TCP.

use super::super::status::PENDING_LONG;
use super::greeted::AT_LIMIT;
use super::*;

impl Core {
    pub(super) fn link_of_connection(&self, number: u64) -> Option<LinkId> {
        let of =
            |link: &&Link| link.connection.as_ref().is_some_and(|connection| connection.number == number);
        self.links.values().find(of).map(|link| link.id)
    }

    pub(super) fn on_bytes(&mut self, connection: u64, mut bytes: &[u8]) {
        let Some(id) = self.link_of_connection(connection) else { return };
        loop {
            let Some(link) = self.links.get_mut(&id) else { return };
            if link.connection.as_ref().is_none_or(|current| current.number != connection) {
                return;
            }
            match link.read(&mut bytes) {
                Ok(Some(Incoming::Message(message))) => self.on_message(id, message),
                Ok(Some(Incoming::Unknown)) => {}
                Ok(None) => return,
                Err(reason) => return self.end_connection_on(id, Err(reason)),
            }
        }
    }

    pub(super) fn on_message(&mut self, id: LinkId, message: Message) {
        let (boot, shards) = (boot_time(), self.group.shards());
        let Some(link) = self.links.get_mut(&id) else { return };
        let actions = match message {
            Message::Describe(describe) => return self.on_describe(id, describe),
            Message::RekeyOffer(offer) => link.rekey.on_offer(offer, &mut entropy, boot),
            Message::RekeyAnswer(answer) => link.rekey.on_answer(answer, boot),
            Message::RekeyConfirm { epoch } => link.rekey.on_confirm(epoch, boot),
            Message::Ping(number) => return self.send(id, &Message::Pong(number)),
            Message::Pong(_) => return,
            Message::Gossip(gossip) => {
                let (number, now) = (LinkNumber(link.number), self.started.elapsed());
                return self.mesh.on_gossip(number, gossip, now);
            }
            Message::Bye(reason) => {
                tracing::info!(peer = %link.peer.name, "the peer ends the link: {reason}");
                let is_full = !link.is_established() && reason.starts_with(AT_LIMIT);
                let reason = format!("the peer ended the link: {reason}");
                return match is_full {
                    true => self.end_link(id, &reason, Ended::Full),
                    false => self.lose_link(id, &reason),
                };
            }
        };
        match actions {
            Ok(actions) => {
                let (work, result) = link.carry_out(actions, shards);
                self.shard_work(id, work);
                self.end_connection_on(id, result);
            }
            Err(error) => self.end_connection_on(id, Err(error.to_string())),
        }
    }

    pub(super) fn on_describe(&mut self, id: LinkId, describe: Describe) {
        let now = self.now();
        let Some(link) = self.links.get_mut(&id) else { return };
        link.nickname = Some(describe.nickname);
        link.observed = describe.observed;
        if link.address.is_some() {
            return;
        }
        let address = SocketAddr::new(link.remote.ip(), describe.port);
        link.address = Some(address);
        link.roaming = Some(Roaming::new(address));
        link.liveness = Some(Liveness::new(now));
        if link.peer.mtu != self.config.mtu {
            tracing::warn!(
                peer = %link.peer.name,
                "unequal MTUs: {} there, {} here; give all hosts the same WEAVE_MTU",
                link.peer.mtu,
                self.config.mtu
            );
        }
        let number = link.number;
        let counters = link.counters.clone();
        let (session, keys) = (link.peer.session, link.rekey.keys().clone());
        link.send_heartbeats_under(session, &keys);
        self.dialler.linked(number, None, address);
        for (shard, counters) in counters.into_iter().enumerate() {
            self.command(shard, Command::SetLink { link: id, address, counters });
        }
        self.set_send(id, session, &keys);
        self.answer_heartbeat(id);
        self.remember(Target::from(address));
        self.tell_addresses();
    }

    /// Writes down where a peer was, to dial it at once after a restart.
    pub(super) fn remember(&mut self, target: Target) {
        const RECENT_KEPT: usize = 64;
        if self.recent.first() == Some(&target) {
            return;
        }
        self.recent.retain(|known| *known != target);
        self.recent.insert(0, target);
        self.recent.truncate(RECENT_KEPT);
        self.saver.recent(self.recent.clone());
    }

    pub(super) fn on_closed(&mut self, connection: u64, error: &std::io::Error) {
        if let Some(id) = self.link_of_connection(connection) {
            self.end_connection(id, &error.to_string(), !has_timed_out(error));
        }
    }

    /// Ends the TCP connection of a link if `result` says that it is of no more
    /// use; the link goes on while its probes are answered.
    pub(super) fn end_connection_on(&mut self, id: LinkId, result: Result<(), String>) {
        if let Err(reason) = result {
            self.end_connection(id, &reason, true);
        }
    }

    /// Ends the TCP connection of a link. `probe`: whether the peer is still there is asked at once.
    fn end_connection(&mut self, id: LinkId, reason: &str, probe: bool) {
        let (now, shards) = (self.now(), self.group.shards());
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.connection.is_none() {
            return;
        }
        tracing::info!(peer = %link.peer.name, "TCP of a link ended: {reason}");
        let actions = link.disconnect(now, probe);
        self.mesh.connection_lost(LinkNumber(link.number));
        let described = link.address.is_some();
        // Both ends give such a link up at the same moment, and one of them hears of it first.
        let in_vain = !link.is_established() && now.saturating_sub(link.since) >= PENDING_LONG;
        let (work, _) = link.carry_out(actions, shards);
        self.shard_work(id, work);
        if !described {
            self.lose_link(id, reason);
        } else if in_vain {
            self.lose_link(id, weave_mesh::liveness::NO_UDP);
        }
    }

    pub(super) fn send(&mut self, id: LinkId, message: &Message) {
        let result = self.links.get_mut(&id).map_or(Ok(()), |link| link.send(message));
        self.end_connection_on(id, result);
    }
}

/// True if TCP waited in vain for as long as it may. Heartbeats were answered since, or the link is dead:
/// they go on to decide. A path that is cut again and again would fail the probes, too.
///
/// What a router on the way said meanwhile, or that no neighbour answers, ends no established connection
/// (RFC 1122, 4.2.3.9); when it times out, the kernel tells that in place of the time-out.
fn has_timed_out(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{HostUnreachable, NetworkUnreachable, TimedOut};
    matches!(error.kind(), TimedOut | HostUnreachable | NetworkUnreachable)
}
