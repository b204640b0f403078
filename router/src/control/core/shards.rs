//! What the shards are told, and what they report.

use super::*;

impl Core {
    pub(super) fn command(&mut self, shard: usize, command: Command) {
        if self.group.send(shard, command).is_err() {
            // A shard a thousand commands behind does not come back: its state
            // would no longer be ours.
            self.end.get_or_insert(Err(format!("shard {shard} takes no commands any more")));
        }
    }

    /// Sends a command that may get lost, and wakes the shard for all such commands of a turn at
    /// once. False if it is lost.
    pub(super) fn command_quietly(&mut self, shard: usize, command: Command) -> bool {
        self.wake_shards = true;
        self.group.send_quietly(shard, command).is_ok()
    }

    pub(super) fn command_all(&mut self, command: impl Fn() -> Command) {
        for shard in 0..self.group.shards() {
            self.command(shard, command());
        }
    }

    pub(super) fn shard_work(&mut self, id: LinkId, work: Vec<ShardWork>) {
        for work in work {
            match work {
                ShardWork::Install { session, keys } => self.install(id, session, &keys),
                ShardWork::Send { session, keys } => {
                    self.counters.rekeys += 1;
                    self.set_send(id, session, &keys);
                }
                ShardWork::Drop(session) => {
                    self.sessions.remove(&session.0);
                    self.command_all(|| Command::DropReceive(session));
                }
            }
        }
    }

    pub(super) fn install(&mut self, id: LinkId, session: SessionIndex, keys: &LinkKeys) {
        self.sessions.insert(session.0, id);
        let Some(link) = self.links.get(&id) else { return };
        let (peer, mode, address, lanes) = (link.peer.name, link.mode(), link.data_from(), link.peer.lanes);
        let (expires, epoch) = (boot_time() + KEY_LIFETIME, u64::from(keys.epoch()));
        let shards = self.group.shards();
        for shard in 0..shards {
            let keys = (0..lanes)
                .filter(|lane| usize::from(*lane) % shards == shard)
                .filter_map(Lane::data)
                .map(|lane| (lane, keys.udp_key(keys.role().other(), lane)))
                .collect();
            let session =
                ReceiveSession { link: id, peer, address, epoch, index: session, mode, keys, expires };
            self.command(shard, Command::InstallReceive(Box::new(session)));
        }
    }

    pub(super) fn set_send(&mut self, id: LinkId, session: SessionIndex, keys: &LinkKeys) {
        let Some(link) = self.links.get(&id) else { return };
        let mode = link.mode();
        let expires = boot_time() + KEY_LIFETIME;
        for shard in 0..self.group.shards() {
            #[expect(clippy::cast_possible_truncation, reason = "at most 64 shards")]
            let Some(lane) = Lane::data(shard as u8) else { continue };
            let session = SendSession {
                link: id,
                epoch: keys.epoch().into(),
                index: session,
                mode,
                lane,
                key: keys.udp_key(keys.role(), lane),
                expires,
            };
            self.command(shard, Command::SetSend(Box::new(session)));
        }
    }

    pub(super) fn on_report(&mut self, report: Report) {
        let (now, boot, shards) = (self.now(), boot_time(), self.group.shards());
        match report {
            Report::ReceiveInstalled { shard, link: id, index } => {
                let Some(link) = self.links.get_mut(&id) else { return };
                if link.installed(index, shard) {
                    let actions = link.rekey.on_receive_installed(index);
                    let (work, result) = link.carry_out(actions, shards);
                    self.shard_work(id, work);
                    self.end_connection_on(id, result);
                    self.answer_heartbeat(id);
                }
            }
            Report::LaneSeen { link: id, lane, epoch, own_port, .. } => {
                let Some(link) = self.links.get_mut(&id) else { return };
                let bit = 1u64.checked_shl(lane.number().into()).unwrap_or(0);
                link.lanes_seen |= bit;
                if own_port {
                    link.lanes_own |= bit;
                }
                link.lanes_in |= bit;
                if let Ok(epoch) = u32::try_from(epoch) {
                    link.rekey.on_lane_seen(lane, epoch, boot);
                }
            }
            Report::ProbeSeen { link, number, len } => self.on_probe(link, number, len),
            Report::EchoSeen { peer, number, round_trip } => self.on_echo(peer, number, round_trip),
            Report::MacSeen { mac, peer } => self.on_mac(mac, peer, now),
            Report::KeyWearsOut(id) => {
                if let Some(link) = self.links.get_mut(&id) {
                    link.rekey.request();
                }
            }
            Report::SegmentationRefused(id) => {
                if let Some(link) = self.links.get_mut(&id) {
                    link.segmentation_refused.get_or_insert(now);
                    tracing::warn!(peer = %link.peer.name, "the route takes no segmented datagrams: sent one by one");
                }
            }
            Report::SegmentationRetried(id) => {
                if let Some(link) = self.links.get_mut(&id) {
                    link.segmentation_refused = None;
                }
            }
            Report::ControlDatagram { datagram, source } => self.on_datagram(datagram.into_vec(), source),
            Report::TapGone => self.on_tap_gone(),
            Report::Ended { shard, error } => {
                let error = error.unwrap_or_else(|| "it ended by itself".into());
                self.end.get_or_insert(Err(format!("shard {shard}: {error}")));
            }
        }
    }

    /// A shard found its queue without a device. The others do so, too, or are told in time.
    fn on_tap_gone(&mut self) {
        if self.tap_gone.is_none() {
            tracing::warn!("the tap was deleted: the keeper is asked to make it again");
            let reason = "it was deleted, the keeper makes it again".to_owned();
            self.tap_gone = Some(tap::Gone { since: self.now(), reason });
            rt::spawn(tap::restore(Arc::clone(&self.tap), self.events.clone()));
        }
    }

    pub(super) fn on_tap_restored(&mut self, done: Result<(), String>) {
        match done {
            Ok(()) => {
                tracing::info!("the tap is there again");
                self.tap_gone = None;
                self.command_all(|| Command::ReadTap);
            }
            Err(why) => {
                let reason = format!(
                    "it was deleted and the keeper cannot make it again: {why}; tried again each second"
                );
                if let Some(gone) = self.tap_gone.as_mut().filter(|gone| gone.reason != reason) {
                    tracing::warn!("no_tap: {reason}");
                    gone.reason = reason;
                }
            }
        }
    }

    pub(super) fn on_mac(&mut self, mac: MacAddr, peer: PeerName, now: Duration) {
        let mut change = |mac, peer| self.mac_changes.push(MacChange { mac, peer, attached: false });
        match self.stations.seen(mac, peer, now) {
            Seen::Known => {}
            Seen::Changed => change(mac, Some(peer)),
            Seen::Replaced(old) => {
                change(old, None);
                change(mac, Some(peer));
                self.counters.macs_replaced += 1;
            }
            Seen::Held(at) => {
                change(mac, Some(at));
                self.counters.mac_flaps += 1;
            }
            Seen::Attached => {
                change(mac, None);
                self.counters.mac_conflicts += 1;
            }
        }
    }

    /// Tells the shards what changed.
    pub(super) fn flush(&mut self) {
        let now = self.now();
        if !self.mac_changes.is_empty() && now >= self.macs_at {
            self.macs_at = now + MACS_EVERY;
            let changes = Arc::new(std::mem::take(&mut self.mac_changes));
            self.command_all(|| Command::ChangeMacs(Arc::clone(&changes)));
        }
        if std::mem::take(&mut self.local_macs_changed) {
            self.tell_local_macs();
        }
        if std::mem::take(&mut self.routes_changed) {
            let routes = Arc::new(self.shard_routes());
            self.command_all(|| Command::SetRoutes(Arc::clone(&routes)));
        }
        if std::mem::take(&mut self.wake_shards) {
            self.group.wake();
        }
    }
}
