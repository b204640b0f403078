//! What the core does by the clock.

use super::super::greeting::entropy;
use super::super::link::{Replaced, TCP_LOST_LIMIT};
use super::{Core, HOUSEKEEPING, tasks};
use crate::rt;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use weave_forward::{Command, LinkId, MacChange, boot_time};
use weave_mesh::Beat;
use weave_wire::link::heartbeat::ControlMessage;

/// Heartbeats brought forward to go with one that is due, at most: each makes every
/// shard send a datagram, and its queue of commands is bounded.
const BEATS_TOGETHER: usize = 64;

impl Core {
    /// Does everything that is due.
    pub(super) fn on_timers(&mut self) {
        let now = self.now();
        self.dial(now);
        self.expire_pings(now);
        self.join_beats(now);
        let ids: Vec<LinkId> = self.links.keys().copied().collect();
        for id in ids {
            self.on_link_timers(id, now);
        }
        if self.leave_at.is_some_and(|at| at <= now) {
            self.leave_at = None;
            self.stop();
        }
        if now >= self.housekeeping_at {
            self.housekeeping_at = now + HOUSEKEEPING;
            self.housekeeping(now);
        }
    }

    /// When something is due next, as time since the start.
    pub(super) fn deadline(&self) -> Duration {
        let now = self.now();
        let boot = boot_time();
        let mut next = self.housekeeping_at;
        if !self.mac_changes.is_empty() {
            next = next.min(self.macs_at);
        }
        if let Some(at) = self.leave_at {
            next = next.min(at);
        }
        if let Some(at) = self.pings.deadline() {
            next = next.min(at);
        }
        if self.peers_changed {
            next = next.min(self.discover_at);
        }
        if let Some((at, _)) = self.mesh.poll_timeout() {
            next = next.min(at);
        }
        if let Some(at) = self.dialler.deadline().filter(|_| !self.is_superseded) {
            next = next.min(at);
        }
        for link in self.links.values() {
            next = next.min(link.deadline(now, boot));
        }
        next
    }

    fn dial(&mut self, now: Duration) {
        if self.is_superseded {
            return;
        }
        for (id, target, attempt) in self.dialler.due(now) {
            tracing::debug!(%target, attempt, "dialling");
            let established = self.links.values().filter(|link| link.is_established());
            let dial = tasks::Dial {
                id,
                target,
                attempt,
                port: self.config.port,
                source: self.config.host,
                config: Arc::clone(&self.config),
                linked: established.filter_map(|link| link.address).collect(),
                local: Arc::clone(&self.local),
            };
            rt::spawn(tasks::dial(dial, self.events.clone()));
        }
    }

    fn on_link_timers(&mut self, id: LinkId, now: Duration) {
        self.beat(id, now);
        self.probe_path(id, now);
        if self
            .links
            .get_mut(&id)
            .and_then(|link| link.roaming.as_mut())
            .is_some_and(|roaming| roaming.poll(now))
        {
            self.on_moved(id);
        }
        let (boot, shards) = (boot_time(), self.group.shards());
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.liveness.is_none() && link.undescribed_end() <= now {
            return self.lose_link(id, "the peer did not describe itself in time");
        }
        if link.rekey.is_expired(boot) {
            self.counters.keys_expired += 1;
            return self.link_died(id, "its keys are too old and no new ones could be agreed");
        }
        let due = link.rekey.poll_timeout().is_some_and(|at| at <= boot);
        if due {
            let actions = link.rekey.on_tick(&mut entropy, boot);
            let (work, result) = link.carry_out(actions, shards);
            self.shard_work(id, work);
            self.end_connection_on(id, result);
        }
        let Some(link) = self.links.get_mut(&id) else { return };
        if matches!(link.replaced, Some(Replaced::Until(at)) if at <= now) {
            return self.remove_link(id);
        }
        if link.tcp_lost.is_some_and(|since| now.saturating_sub(since) >= TCP_LOST_LIMIT) {
            return self.link_died(id, "TCP could not be resumed");
        }
        if let Some((_, at)) = &link.redial
            && *at <= now
            && !link.redialling
            && let Some(address) = link.address
        {
            link.redialling = true;
            let (number, resumption) = (link.number, link.resumption.clone());
            rt::spawn(tasks::redial(number, address, self.config.host, resumption, self.events.clone()));
        }
    }

    /// When a heartbeat is due, those due soon go with it.
    fn join_beats(&mut self, now: Duration) {
        let mut all = self.links.values_mut().filter_map(|link| link.liveness.as_mut());
        if all.any(|liveness| liveness.is_beat_due(now)) {
            let all = self.links.values_mut().filter_map(|link| link.liveness.as_mut());
            let mut joined = all.map(|liveness| liveness.join_beat(now)).filter(|joins| *joins);
            // Enough of them, if there are more.
            let _ = joined.nth(BEATS_TOGETHER - 1);
        }
    }

    fn beat(&mut self, id: LinkId, now: Duration) {
        loop {
            let Some(link) = self.links.get_mut(&id) else { return };
            let Some(beat) = link.liveness.as_mut().and_then(|liveness| liveness.poll(now)) else { return };
            match beat {
                Beat::Dead(reason) => return self.link_died(id, reason),
                Beat::Send(sequence) => {
                    let unanswered = link.liveness.as_ref().map_or(Duration::ZERO, |l| l.unanswered(now));
                    self.counters.heartbeats_unanswered += u64::from(!unanswered.is_zero());
                    let mesh_port = link.ports.next_by_mesh_port(unanswered, now);
                    let beat = link.heartbeat(sequence, mesh_port);
                    self.send_control(id, &ControlMessage::Heartbeat(beat), mesh_port);
                    if let Some(path) = self.links.get_mut(&id).and_then(|link| link.path.as_mut()) {
                        path.join(now);
                    }
                    let probed = self.probe_path(id, now);
                    self.keep_alive(id, probed, now);
                }
            }
        }
    }

    /// A link died. One that a newer link is to follow carried data still: that one does not yet.
    fn link_died(&mut self, id: LinkId, reason: &str) {
        if let Some(link) = self.links.get(&id).filter(|link| link.replaced == Some(Replaced::Serving)) {
            tracing::warn!(peer = %link.peer.name, "link lost: {reason}; the one that follows it is not established yet");
            self.counters.links_lost += 1;
        }
        self.lose_link(id, reason);
    }

    /// Asks every shard for a keep-alive; one that is far behind is spared it. `probed`: shard 0
    /// sends probes, which are keep-alives too.
    fn keep_alive(&mut self, id: LinkId, probed: bool, now: Duration) {
        let own_port = self.links.get(&id).is_some_and(|link| link.ports.is_trying(now));
        for shard in usize::from(probed)..self.group.shards() {
            if !self.command_quietly(shard, Command::KeepAlive { link: id, own_port }) {
                self.counters.keep_alives_dropped += 1;
                if let (Some(link), Ok(shard)) = (self.links.get_mut(&id), u32::try_from(shard)) {
                    link.watch_out.note(1_u64.checked_shl(shard).unwrap_or(0));
                }
            }
        }
    }

    fn housekeeping(&mut self, now: Duration) {
        for mac in self.stations.expire(now) {
            self.mac_changes.push(MacChange { mac, peer: None, attached: false });
        }
        self.refusals.expire(now);
        self.forget_clone(now);
        self.read_attachments();
    }

    /// Reads which stations are attached on this host, and their names.
    pub(super) fn read_attachments(&mut self) {
        match weave_host::names::own(&self.config.state_dir) {
            Ok(own) => self.tell_names(own.names),
            Err(error) => tracing::warn!("reading the names of this host: {error}"),
        }
        let records = match weave_host::records::read_all(&self.config.state_dir) {
            Ok((records, damaged)) => {
                for name in damaged {
                    tracing::warn!("the attachment record {name} cannot be read");
                }
                // Of a container that has ended, or on whose host this state was copied,
                // there is no interface here.
                records.into_iter().filter(weave_host::names::is_here).collect::<Vec<_>>()
            }
            Err(error) => {
                tracing::warn!("reading the attachments: {error}");
                return;
            }
        };
        let now = self.now();
        let host = super::gossip::host_station(&self.config.state_dir);
        let stations: Vec<_> = records.iter().map(super::gossip::own_station).chain(host).collect();
        let macs: Vec<_> = stations.iter().map(|station| station.mac).collect();
        self.mesh.set_stations(stations, now);
        if self.stations.attached().eq(sorted(&macs)) {
            return;
        }
        for mac in self.stations.set_attached(macs) {
            self.mac_changes.push(MacChange { mac, peer: None, attached: false });
        }
        let attached: BTreeSet<_> = self.stations.attached().collect();
        self.withdrawn.retain(|mac| attached.contains(mac));
        self.local_macs_changed = true;
    }
}

fn sorted(macs: &[weave_wire::MacAddr]) -> std::collections::btree_set::IntoIter<weave_wire::MacAddr> {
    macs.iter().copied().collect::<std::collections::BTreeSet<_>>().into_iter()
}
