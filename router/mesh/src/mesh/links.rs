//! Links come, pass data, and go.

use super::{Link, Mesh};
use crate::output::{LinkInfo, LinkNumber, Output, Refused, Signer};
use crate::telling::Telling;
use std::collections::BTreeMap;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;
use weave_wire::link::gossip::{AnnouncedLink, Gossip, PartId, PartKey, SignedPart};
use weave_wire::{IdentityKey, PeerName};

/// A refusal of one name is reported again after this time.
const REFUSAL_REPORTED: Duration = Duration::from_secs(60);
/// Names whose refusals are remembered, at most; further ones are only counted.
const REFUSALS: usize = 1_024;

impl<S: Signer> Mesh<S> {
    /// A link is authenticated: gossip begins on it.
    ///
    /// # Errors
    /// [`Refused`] if the peer's name is bound to another key: close the link.
    pub fn link_added(&mut self, link: LinkNumber, info: LinkInfo, now: Duration) -> Result<(), Refused> {
        let bound = self.store.link_added(info.peer, info.identity, now, &mut self.counters);
        self.after_drops(now);
        if let Err(bound) = bound {
            return Err(self.refuse(info.peer, bound, info.identity, now));
        }
        self.next_order += 1;
        let order = self.next_order;
        let (established, writable) = (false, true);
        let (telling, pulled) = (Telling::default(), VecDeque::new());
        let new = Link { info, order, established, writable, telling, parts_due: 0, pulled };
        if self.links.insert(link, new).is_some() {
            self.store.link_removed(info.peer);
        }
        self.send_summary(link);
        // Another run of this peer, if it lives, is found out by what it told.
        let former = self.store.held(PartKey { owner: info.peer, part: PartId::HOST });
        let former: Vec<_> =
            former.filter(|part| part.uid != info.uid).map(SignedPart::digest).into_iter().collect();
        self.send_digests(link, former);
        // Who was apart when a host left for good hears of it now.
        let farewells = self.store.newest_farewells();
        self.send_digests(link, farewells);
        self.outputs.push_back(Output::PeersChanged);
        Ok(())
    }

    /// Counts and reports a second key for a name.
    pub(super) fn refuse(
        &mut self,
        name: PeerName,
        bound: IdentityKey,
        offered: IdentityKey,
        now: Duration,
    ) -> Refused {
        self.counters.key_conflict += 1;
        let refused = Refused { name, bound, offered };
        self.refused_at.retain(|_, at| now.saturating_sub(*at) < REFUSAL_REPORTED);
        if self.refused_at.len() < REFUSALS && !self.refused_at.contains_key(&name) {
            self.refused_at.insert(name, now);
            self.outputs.push_back(Output::Refused(refused));
        }
        refused
    }

    /// True if [`Self::link_added`] would not refuse this key for the name.
    #[must_use]
    pub fn admits(&self, peer: PeerName, identity: &IdentityKey) -> bool {
        self.store.bound(peer).is_none_or(|bound| bound == *identity)
    }

    /// The link passes data, or does so no longer: announced by us accordingly.
    pub fn link_established(&mut self, link: LinkNumber, established: bool, now: Duration) {
        let Some(entry) = self.links.get_mut(&link) else { return };
        if entry.established != established {
            entry.established = established;
            self.links_changed(!established, now);
        }
    }

    /// Data crosses the link sealed from now on.
    pub fn link_encrypted(&mut self, link: LinkNumber, now: Duration) {
        let Some(entry) = self.links.get_mut(&link) else { return };
        if std::mem::take(&mut entry.info.unencrypted) && entry.established {
            self.links_changed(true, now);
        }
    }

    /// The link is gone.
    pub fn link_removed(&mut self, link: LinkNumber, now: Duration) {
        let Some(entry) = self.links.remove(&link) else { return };
        self.store.link_removed(entry.info.peer);
        self.after_drops(now);
        self.wants.link_removed(link);
        for holders in self.pending.values_mut() {
            holders.retain(|holder| *holder != link);
        }
        self.wants_changed = true;
        self.outputs.push_back(Output::PeersChanged);
        if entry.established {
            self.links_changed(true, now);
        }
        self.ask(now);
    }

    /// The link's TCP connection broke while the link goes on: what was queued last
    /// may be lost. Until it is writable again nothing is queued.
    pub fn connection_lost(&mut self, link: LinkNumber) {
        if let Some(entry) = self.links.get_mut(&link) {
            entry.writable = false;
            entry.telling.add_all();
        }
    }

    /// The link goes on over another connection: what was under way on the one
    /// before may be lost.
    pub fn link_resumed(&mut self, link: LinkNumber) {
        self.set_writable(link, true);
        self.send_summary(link);
    }

    /// False: nothing is queued for the link any more. When it is true again, the
    /// digests of what changed make up for what it missed: a summary would only
    /// bring answers about what the other end has.
    pub fn set_writable(&mut self, link: LinkNumber, writable: bool) {
        let Some(entry) = self.links.get_mut(&link) else { return };
        entry.writable = writable;
        if writable {
            self.serve(link);
        }
    }

    fn links_changed(&mut self, urgent: bool, now: Duration) {
        self.routes_dirty(now);
        self.change_own(PartId::HOST, urgent, now);
    }

    /// The newest link that passes data to each neighbour.
    pub(super) fn newest_links(&self) -> BTreeMap<PeerName, LinkNumber> {
        let mut newest: BTreeMap<PeerName, (u64, LinkNumber)> = BTreeMap::new();
        for (number, link) in self.links.iter().filter(|(_, link)| link.established) {
            let best = newest.entry(link.info.peer).or_insert((link.order, *number));
            *best = (*best).max((link.order, *number));
        }
        newest.into_iter().map(|(peer, (_, link))| (peer, link)).collect()
    }

    /// Our links as we announce them, by rising name.
    pub(super) fn announced_links(&self) -> Vec<AnnouncedLink> {
        let newest = self.newest_links();
        let announced = newest.into_iter().filter_map(|(peer, number)| {
            let info = self.links.get(&number)?.info;
            let (unencrypted, outbound) = (info.unencrypted, info.outbound);
            Some(AnnouncedLink { peer, unencrypted, outbound, cost: info.cost.max(1) })
        });
        announced.take(weave_wire::link::gossip::content::MAX_LINKS).collect()
    }

    /// Queues a message; a link that takes none gets it never.
    pub(super) fn send(&mut self, link: LinkNumber, gossip: Gossip) {
        if self.links.get(&link).is_some_and(|entry| entry.writable) {
            self.outputs.push_back(Output::Send(link, gossip));
        }
    }

    /// At the limit of links: which one may go in favour of a peer that has
    /// none. The newest whose two ends stay connected without it.
    #[must_use]
    pub fn shed(&self) -> Option<LinkNumber> {
        let us = self.topology.node(self.config.name)?;
        let mut links: Vec<_> = self.newest_links().into_iter().collect();
        links.sort_by_key(|(_, link)| std::cmp::Reverse(self.links.get(link).map(|link| link.order)));
        let redundant =
            |peer: PeerName| self.topology.node(peer).is_some_and(|node| self.is_connected_without(us, node));
        links.into_iter().find(|(peer, _)| redundant(*peer)).map(|(_, link)| link)
    }

    /// True if there is a way from `us` to `neighbour` beside the link between them.
    fn is_connected_without(&self, us: usize, neighbour: usize) -> bool {
        let mut seen = BTreeSet::from([us]);
        let mut open = vec![us];
        while let Some(node) = open.pop() {
            for edge in self.topology.edges(node) {
                if edge.to == neighbour && node != us {
                    return true;
                }
                if edge.to != neighbour && seen.insert(edge.to) {
                    open.push(edge.to);
                }
            }
        }
        false
    }
}
