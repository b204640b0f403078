//! Peers that data reaches by way of others only, though this host dials them.

use super::core::Core;
use super::status::nickname_of;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Duration;
use weave_api::status::Degraded;
use weave_api::target::Target;
use weave_mesh::Origin;
use weave_mesh::dialler::Entry;
use weave_wire::PeerName;

/// What that is named.
const NAME: &str = "relayed";
/// Such peers named, at most.
const SHOWN: usize = 8;

/// The degraded state, if there are such peers. Who is launched with `--no-discovery` wants relays,
/// and so does who is at the limit of links.
pub(super) fn degraded(core: &Core, now: Duration) -> Option<Degraded> {
    let is_wanted = !core.config.discovery || core.current_links() >= core.link_limit();
    if is_wanted || core.mesh.routes().peers.iter().all(|route| route.hops <= 1) {
        return None;
    }
    let passing = core.links.values().filter(|link| link.is_established());
    let passing: BTreeSet<PeerName> = passing.map(|link| link.peer.name).collect();
    let far = core.mesh.peers().filter(|peer| peer.route.is_some() && !passing.contains(&peer.name));
    let peers = in_vain(far.map(|peer| (peer.name, peer.addresses)), core.dialler.entries());
    let since = peers.values().min()?;
    let names: Vec<String> =
        peers.keys().take(SHOWN).map(|peer| nickname_of(core, *peer).to_string()).collect();
    let reason = format!(
        "{} peers are dialled in vain and reached by way of others only: {}; `weave status connections` says why: let \
         TCP and UDP pass by the port of the mesh between them and this host",
        peers.len(),
        names.join(", ")
    );
    Some(Degraded { name: NAME.into(), reason, since_s: now.saturating_sub(*since).as_secs() })
}

/// Those of `far`, peers with their addresses, that were dialled and have no link that passed data,
/// and since when that is tried. Without those that have their limit of links.
fn in_vain<'a>(
    far: impl Iterator<Item = (PeerName, &'a [SocketAddr])>,
    entries: &[Entry<Target>],
) -> BTreeMap<PeerName, Duration> {
    let far: BTreeMap<PeerName, &[SocketAddr]> = far.collect();
    let canonical = |at: &SocketAddr| SocketAddr::new(at.ip().to_canonical(), at.port());
    let by_address: HashMap<SocketAddr, PeerName> = far
        .iter()
        .flat_map(|(name, addresses)| addresses.iter().map(|address| (canonical(address), *name)))
        .collect();
    let mut peers = BTreeMap::new();
    let mut full = BTreeSet::new();
    for entry in entries.iter().filter(|entry| entry.failures > 0) {
        let peer = match entry.origin {
            Origin::Discovered(name) => Some(name).filter(|name| far.contains_key(name)),
            Origin::Target | Origin::Recent => {
                entry.address.as_ref().and_then(|address| by_address.get(&canonical(address)).copied())
            }
        };
        if let Some(peer) = peer {
            let since = peers.entry(peer).or_insert(entry.since);
            *since = entry.since.min(*since);
            full.extend(entry.full.then_some(peer));
        }
    }
    peers.retain(|peer, _| !full.contains(peer));
    peers
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use weave_mesh::{Dialler, Ended};

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_peer_is_relayed_in_spite_of_dials_once_one_failed_until_it_is_linked_or_gone() {
        let peer = |number| PeerName::new([2, 0, 0, 0, 0, number]).unwrap();
        let (named, told, ours) = (peer(1), peer(2), peer(0));
        let [first, second]: [SocketAddr; 2] =
            ["192.0.2.1:6783", "[2001:db8::2]:6783"].map(|text| text.parse().unwrap());
        // What a socket of both families says of the first.
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:6783".parse().unwrap();
        let mut dialler: Dialler<Target> = Dialler::default();
        assert!(dialler.add_targets(&["first.example".parse().unwrap()], at(10)));
        dialler.set_discovered(vec![(told, vec![(second.ip(), second.into())])], ours, at(20));
        let look = |dialler: &Dialler<Target>| {
            let far = [(named, &[first][..]), (told, &[second][..])];
            in_vain(far.into_iter(), dialler.entries())
        };
        assert_eq!(look(&dialler), BTreeMap::new(), "not dialled yet");
        for (id, target, _) in dialler.due(at(21)) {
            if target.address(6783).is_none() {
                dialler.resolved(id, mapped);
            }
            dialler.failed(id, "it does not answer".into(), false, at(22), 0.0);
        }
        assert_eq!(look(&dialler), BTreeMap::from([(named, at(10)), (told, at(20))]));
        // Others that fail are no peers that are reached.
        assert_eq!(in_vain([(peer(3), &[][..])].into_iter(), dialler.entries()), BTreeMap::new());
        dialler.linked(1, None, mapped);
        dialler.established(1);
        dialler.set_discovered(Vec::new(), ours, at(30));
        assert_eq!(look(&dialler), BTreeMap::new());
    }

    #[test]
    fn a_peer_whose_links_pass_no_data_is_relayed_also_while_there_is_one_and_a_full_one_is_not() {
        let [told, ours] = [1, 0].map(|number| PeerName::new([2, 0, 0, 0, 0, number]).unwrap());
        let address: SocketAddr = "192.0.2.1:6783".parse().unwrap();
        let all = vec![(told, vec![(address.ip(), Target::from(address))])];
        let look = |dialler: &Dialler<Target>| in_vain([(told, &[][..])].into_iter(), dialler.entries());
        for ended in [Ended::Early, Ended::Full] {
            let mut dialler: Dialler<Target> = Dialler::default();
            for number in 0..4 {
                let now = at(20 * number);
                dialler.set_discovered(all.clone(), ours, now);
                let (id, ..) = dialler.due(now).pop().unwrap();
                dialler.linked(number, Some(id), address);
                // It has a link now, though one that passes nothing.
                dialler.set_discovered(Vec::new(), ours, now);
                let is_relayed = number > 0 && ended == Ended::Early;
                assert_eq!(look(&dialler), is_relayed.then_some((told, at(0))).into_iter().collect());
                dialler.lost(number, "nothing passes", ended, at(20 * number + 15), 0.0);
                assert_eq!(look(&dialler).len(), usize::from(ended == Ended::Early));
            }
        }
    }
}
