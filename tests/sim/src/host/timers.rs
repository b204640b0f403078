//! What a host does by the clock (`core.rs`, `core/timers.rs`).

use super::*;

impl Host {
    /// Does everything that is due, and all that follows.
    pub fn run(&mut self, now: Duration) {
        self.on_timers(now);
        self.run_mesh(now);
        if std::mem::take(&mut self.routes_changed) {
            self.table = self.shard_routes();
        }
    }

    /// When something is due next.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        let mut next = self.timers.first().map_or(Duration::MAX, |(at, _)| *at);
        if let Some((at, _)) = self.mesh.poll_timeout() {
            next = next.min(at);
        }
        if let Some(at) = self.dialler.deadline() {
            next = next.min(at);
        }
        next
    }

    pub(super) fn on_timers(&mut self, now: Duration) {
        self.dial(now);
        while let Some((at, timer)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.pop_first();
            match timer {
                Timer::Link(session) => {
                    if let Some(link) = self.links.get_mut(&session) {
                        link.due = Duration::MAX;
                        self.on_link_timers(session, now);
                        self.arm(session);
                    }
                }
                Timer::Exchange(id) => self.on_exchange_late(id, now),
            }
        }
    }

    /// The deadline of a link may have changed.
    pub(super) fn arm(&mut self, session: Session) {
        let Some(link) = self.links.get_mut(&session) else { return };
        let deadline = link.deadline();
        if deadline != link.due {
            self.timers.remove(&(link.due, Timer::Link(session)));
            self.timers.insert((deadline, Timer::Link(session)));
            link.due = deadline;
        }
    }

    pub(super) fn dial(&mut self, now: Duration) {
        if self.superseded {
            return;
        }
        for (id, target, _) in self.dialler.due(now) {
            self.dialler.resolved(id, target);
            let is_established = |link: &&Link| link.is_established() && link.address == Some(target);
            let linked = self.links.values().find(is_established).map(|link| link.peer.name);
            if let Some(link) = linked.and_then(|peer| self.newest_to(peer)) {
                // GreetingError::Linked
                let number = link.number;
                self.dial_led_to(number, Some(id), target);
            } else if target == self.id.address() {
                let jitter = self.random.unit();
                self.dialler.failed(id, "ourselves".into(), true, now, jitter);
            } else {
                self.connect(Dial::Link { id }, target);
            }
        }
    }

    pub(super) fn connect(&mut self, dial: Dial, remote: SocketAddr) {
        self.next_connection += 1;
        let id = ConnectionId { host: self.id, number: self.next_connection };
        let exchange = Exchange { stage: Stage::Connecting(dial), remote, deadline: Duration::MAX };
        self.exchanges.insert(id, exchange);
        self.effects.push(Effect::Connect(id, remote));
    }

    pub(super) fn on_link_timers(&mut self, session: Session, now: Duration) {
        self.beat(session, now);
        let Some(link) = self.links.get_mut(&session) else { return };
        if matches!(link.replaced, Some(Replaced::Until(at)) if at <= now) {
            return self.remove_link(session, now);
        }
        if link.tcp_lost.is_some_and(|since| now.saturating_sub(since) >= TCP_LOST_LIMIT) {
            return self.lose_link(session, "TCP could not be resumed", now);
        }
        if let Some((_, at)) = &link.redial
            && *at <= now
            && !link.redialling
            && let Some(address) = link.address
        {
            link.redialling = true;
            self.connect(Dial::Resume(session), address);
        }
    }

    pub(super) fn beat(&mut self, session: Session, now: Duration) {
        loop {
            let Some(link) = self.links.get_mut(&session) else { return };
            let Some(beat) = link.liveness.as_mut().and_then(|liveness| liveness.poll(now)) else { return };
            match beat {
                Beat::Dead(reason) => return self.lose_link(session, reason, now),
                Beat::Send(sequence) => {
                    let beat =
                        Heartbeat { sequence, lanes_seen: 1, lanes_own: 1, mesh_port: false, seal: false };
                    self.send_control(session, &ControlMessage::Heartbeat(beat));
                }
            }
        }
    }
}
