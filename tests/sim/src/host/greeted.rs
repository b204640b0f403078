//! Connections and handshakes: how links come to be (`core/greeted.rs`).

use super::*;

/// What the passage of any link costs.
const LINK_COST: u16 = 1;

#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) stage: Stage,
    pub(super) remote: SocketAddr,
    pub(super) deadline: Duration,
}

impl Exchange {
    pub(super) const fn ticket(&self) -> Option<Ticket> {
        match self.stage {
            Stage::Accepted(ticket)
            | Stage::Answered(ticket, _)
            | Stage::ProvedLink(ticket, _)
            | Stage::Refused(ticket) => Some(ticket),
            Stage::Connecting(_) | Stage::SaidHello(_) | Stage::Confirmed(..) | Stage::AskedToResume(_) => {
                None
            }
        }
    }

    pub(super) const fn dial(&self) -> Option<DialId> {
        if let Stage::Confirmed(Dial::Link { id }, _) = self.stage { Some(id) } else { None }
    }
}

impl Host {
    pub(super) fn is_known(&self, address: SocketAddr) -> bool {
        let ip = address.ip();
        self.dialler.entries().iter().any(|entry| entry.target.ip() == ip)
            || self.links.values().any(|link| link.remote.ip() == ip)
    }

    /// Somebody connected.
    pub fn on_accepted(&mut self, id: ConnectionId, from: HostId, now: Duration) {
        if self.superseded {
            return self.effects.push(Effect::Close(id));
        }
        let remote = from.address();
        let known = self.is_known(remote);
        let Ok(admitted) = self.admission.admit(remote.ip(), known, now) else {
            return self.effects.push(Effect::Close(id));
        };
        if let Some(evicted) = admitted.evicted {
            let of = |(id, e): (&ConnectionId, &Exchange)| (e.ticket() == Some(evicted)).then_some(*id);
            if let Some(evicted) = self.exchanges.iter().find_map(of) {
                self.exchanges.remove(&evicted);
                self.effects.push(Effect::Close(evicted));
            }
        }
        let stage = Stage::Accepted(admitted.ticket);
        self.begin_exchange(id, Exchange { stage, remote, deadline: now + greeting::LIMIT });
    }

    pub(super) fn begin_exchange(&mut self, id: ConnectionId, exchange: Exchange) {
        self.timers.insert((exchange.deadline, Timer::Exchange(id)));
        self.exchanges.insert(id, exchange);
    }

    /// A dial was answered.
    pub fn on_connected(&mut self, id: ConnectionId, now: Duration) {
        let Some(exchange) = self.exchanges.remove(&id) else { return };
        let Stage::Connecting(dial) = exchange.stage else { return };
        let (stage, first) = match dial {
            Dial::Link { .. } => (Stage::SaidHello(dial), Greeting::Hello(self.who())),
            Dial::Resume(session) => (Stage::AskedToResume(session), Greeting::Resume(session)),
        };
        self.effects.push(Effect::Send(id, Payload::Greeting(first)));
        self.begin_exchange(id, Exchange { stage, remote: exchange.remote, deadline: now + greeting::LIMIT });
    }

    /// A dial or an exchange ended without a link.
    pub(super) fn exchange_failed(&mut self, id: ConnectionId, refused: bool, now: Duration) {
        let Some(exchange) = self.exchanges.remove(&id) else { return };
        self.timers.remove(&(exchange.deadline, Timer::Exchange(id)));
        if let Some(ticket) = exchange.ticket() {
            self.admission.done(ticket);
        }
        match exchange.stage {
            Stage::Connecting(Dial::Link { id }) | Stage::SaidHello(Dial::Link { id }) => {
                self.dial_failed(id, refused, now);
            }
            Stage::Confirmed(Dial::Link { id }, _) => self.dial_failed(id, refused, now),
            Stage::Connecting(Dial::Resume(session)) | Stage::AskedToResume(session) => {
                self.on_not_resumed(session, now);
            }
            Stage::SaidHello(Dial::Resume(_))
            | Stage::Confirmed(Dial::Resume(_), _)
            | Stage::Accepted(_)
            | Stage::Answered(..)
            | Stage::ProvedLink(..)
            | Stage::Refused(_) => {}
        }
    }

    pub(super) fn dial_failed(&mut self, id: DialId, refused: bool, now: Duration) {
        let jitter = self.random.unit();
        self.dialler.failed(id, "failed".into(), refused, now, jitter);
    }

    pub(super) fn on_not_resumed(&mut self, session: Session, now: Duration) {
        let jitter = self.random.unit();
        let Some(link) = self.links.get_mut(&session) else { return };
        link.redialling = false;
        if let Some((backoff, at)) = &mut link.redial {
            *at = now + backoff.fail(false, now, jitter);
        }
        self.arm(session);
    }

    pub(super) fn on_exchange_late(&mut self, id: ConnectionId, now: Duration) {
        if self.exchanges.contains_key(&id) {
            self.effects.push(Effect::Close(id));
            self.exchange_failed(id, false, now);
        }
    }

    pub(super) fn on_greeting(&mut self, id: ConnectionId, greeting: Greeting, now: Duration) {
        let ours = self.who();
        let Some(exchange) = self.exchanges.get_mut(&id) else { return };
        let knows = |session: Session| self.links.contains_key(&session);
        let step = greeting::on_message(&mut exchange.stage, ours, greeting, knows);
        match step {
            Step::Send(greeting) => self.effects.push(Effect::Send(id, Payload::Greeting(greeting))),
            Step::Made(who, last) => self.on_greeted(id, last, now, |host, exchange| {
                host.on_established(id, who, exchange.dial(), exchange.remote, now);
            }),
            Step::Resumed(session, last) => self.on_greeted(id, last, now, |host, exchange| {
                host.on_resumed(id, session, exchange.ticket().is_none());
            }),
            Step::Refuse => self.refuse_later(id, now),
            Step::Failed { refused } => {
                self.effects.push(Effect::Close(id));
                self.exchange_failed(id, refused, now);
            }
        }
    }

    /// All refusals look alike from outside.
    pub(super) fn refuse_later(&mut self, id: ConnectionId, now: Duration) {
        let jitter = self.random.unit();
        let Some(exchange) = self.exchanges.get_mut(&id) else { return };
        let Some(ticket) = exchange.ticket() else { return };
        exchange.stage = Stage::Refused(ticket);
        self.timers.remove(&(exchange.deadline, Timer::Exchange(id)));
        exchange.deadline = now + greeting::REFUSAL_DELAY.mul_f64(1.0 + jitter);
        self.timers.insert((exchange.deadline, Timer::Exchange(id)));
    }

    pub(super) fn on_greeted(
        &mut self,
        id: ConnectionId,
        last: Option<Greeting>,
        _now: Duration,
        then: impl FnOnce(&mut Self, &Exchange),
    ) {
        let Some(exchange) = self.exchanges.remove(&id) else { return };
        self.timers.remove(&(exchange.deadline, Timer::Exchange(id)));
        if let Some(ticket) = exchange.ticket() {
            self.admission.done(ticket);
        }
        if let Some(last) = last {
            self.effects.push(Effect::Send(id, Payload::Greeting(last)));
        }
        if self.superseded {
            return self.effects.push(Effect::Close(id));
        }
        then(self, &exchange);
    }

    pub(super) fn on_established(
        &mut self,
        id: ConnectionId,
        peer: Who,
        dial: Option<DialId>,
        remote: SocketAddr,
        now: Duration,
    ) {
        let outbound = dial.is_some();
        let old = self.newest_to(peer.name).map(|link| (link.number, link.peer.uid, link.outbound));
        if let Some((number, uid, old_outbound)) = old
            && uid == peer.uid
            && !self.survives(peer.uid, old_outbound, outbound)
        {
            self.dial_led_to(number, dial, remote);
            return self.effects.push(Effect::Close(id));
        }
        let limit = self.settings.conn_limit.min(MAX_LINKS - 1);
        if old.is_none() && self.current_links() >= limit {
            self.make_room_for(peer.name, now);
        }
        if old.is_none() && self.current_links() >= limit {
            let bye = self.character.encode(&Message::Bye("it has its limit of links".into()));
            self.effects.push(Effect::Send(id, Payload::Message(bye.into())));
            return self.refuse(id, dial, now);
        }
        self.next_number += 1;
        let number = self.next_number;
        let info = LinkInfo {
            peer: peer.name,
            uid: peer.uid,
            identity: peer.identity,
            unencrypted: false,
            outbound,
            cost: LINK_COST,
        };
        if self.mesh.link_added(LinkNumber(number), info, now).is_err() {
            return self.refuse(id, dial, now);
        }
        self.insert_link(id, number, peer, outbound, remote);
        match old {
            Some((old_number, ..)) => {
                self.dialler.relinked(old_number, number);
                self.dialler.linked(number, dial, remote);
                self.replace_links_to(peer, number, now);
            }
            None => self.dialler.linked(number, dial, remote),
        }
        let describe = Describe { nickname: self.nickname.clone(), port: PORT, observed: Some(remote.ip()) };
        self.send(id, &Message::Describe(describe), now);
    }

    pub(super) fn refuse(&mut self, id: ConnectionId, dial: Option<DialId>, now: Duration) {
        if let Some(dial) = dial {
            self.dial_failed(dial, true, now);
        }
        self.effects.push(Effect::Close(id));
    }

    pub(super) fn insert_link(
        &mut self,
        id: ConnectionId,
        number: u64,
        peer: Who,
        outbound: bool,
        remote: SocketAddr,
    ) {
        let link = Link {
            number,
            session: id,
            peer,
            outbound,
            remote,
            observed: None,
            address: None,
            connection: Some(Connection { id, queued: 0, messages: 0, full: false, outbound }),
            liveness: None,
            tcp_lost: None,
            redial: None,
            redialling: false,
            replaced: None,
            asked: None,
            routed: false,
            sent: 0,
            received: BTreeSet::new(),
            due: Duration::MAX,
        };
        self.by_number.insert(number, id);
        self.by_connection.insert(id, id);
        self.by_peer.entry(peer.name).or_default().push(id);
        self.links.insert(id, link);
    }

    /// `which_survives` of `weave-crypto`: of two dials that of the smaller UID.
    pub(super) fn survives(&self, peer: Uid, old_outbound: bool, new_outbound: bool) -> bool {
        let smaller_dialled = (self.uid < peer) == new_outbound;
        old_outbound == new_outbound || smaller_dialled
    }

    pub(super) fn newest_to(&self, peer: PeerName) -> Option<&Link> {
        let sessions = self.by_peer.get(&peer)?.iter();
        sessions.filter_map(|session| self.links.get(session)).max_by_key(|link| link.number)
    }

    /// Link `newest` leads to a peer to which older ones led: one of these goes on for now.
    fn replace_links_to(&mut self, peer: Who, newest: u64, now: Duration) {
        let sessions = self.by_peer.get(&peer.name).cloned().unwrap_or_default();
        let older = sessions.iter().filter_map(|session| self.links.get(session));
        let mut older: Vec<_> = older
            .filter(|link| link.number != newest)
            .map(|link| (link.is_established() && link.peer.uid == peer.uid, link.number, link.session))
            .collect();
        older.sort_unstable();
        let kept = older.pop_if(|(serves, ..)| *serves);
        for (.., session) in older {
            self.remove_link(session, now);
        }
        if let Some((.., session)) = kept {
            if let Some(link) = self.links.get_mut(&session) {
                link.replaced = Some(Replaced::Serving);
                link.redial = None;
            }
            self.arm(session);
        }
        self.routes_changed = true;
    }

    pub(super) fn current_links(&self) -> usize {
        self.links.values().filter(|link| link.is_current()).count()
    }

    pub(super) fn on_resumed(&mut self, id: ConnectionId, session: Session, outbound: bool) {
        let Some(link) = self.links.get(&session) else { return self.effects.push(Effect::Close(id)) };
        let (peer, number) = (link.peer.uid, link.number);
        let old = link.connection.as_ref().map(|old| (old.id, old.outbound));
        if let Some((_, old_outbound)) = old
            && !self.survives(peer, old_outbound, outbound)
        {
            if let Some(link) = self.links.get_mut(&session) {
                link.redialling = false;
            }
            self.arm(session);
            return self.effects.push(Effect::Close(id));
        }
        if let Some((old, _)) = old {
            self.by_connection.remove(&old);
            self.effects.push(Effect::Close(old));
        }
        if let Some(link) = self.links.get_mut(&session) {
            link.connection = Some(Connection { id, queued: 0, messages: 0, full: false, outbound });
            link.redialling = false;
            link.tcp_lost = None;
            link.redial = None;
            if let Some(liveness) = &mut link.liveness {
                liveness.on_tcp_resumed();
            }
        }
        self.by_connection.insert(id, session);
        self.arm(session);
        self.mesh.set_writable(LinkNumber(number), true);
    }

    /// At the limit of links one that is not needed goes rather than a peer that
    /// nobody else can reach.
    pub(super) fn make_room_for(&mut self, peer: PeerName, now: Duration) {
        if self.mesh.routes().peer(peer).is_some() {
            return;
        }
        let shed = self.mesh.shed().and_then(|number| self.by_number.get(&number.0));
        let Some(spare) = shed.and_then(|session| self.links.get(session)).map(|link| link.peer.name) else {
            return;
        };
        // As they were made: without the one that follows the one before would go on.
        for session in self.by_peer.get(&spare).cloned().unwrap_or_default() {
            let bye = Message::Bye("the limit of links is reached and this one is not needed".into());
            if let Some(id) = self.links.get(&session).and_then(|link| link.connection.as_ref()).map(|c| c.id)
            {
                self.send(id, &bye, now);
            }
            self.lose_link(session, "it gave way to a peer without links", now);
        }
    }
}
