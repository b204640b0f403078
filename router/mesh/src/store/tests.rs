#![allow(clippy::unwrap_used)]

use super::*;
use crate::topology::tests::peer;
use weave_wire::{Nickname, Uid};

fn part(owner: u16, id: PartId, version: u64, len: usize) -> SignedPart {
    SignedPart {
        owner: peer(owner),
        identity: IdentityKey::from_bytes([owner as u8; 32]),
        uid: Uid(version >> 32),
        part: id,
        version,
        content: vec![0; len],
        signature: [0; 64],
    }
}

fn host(owner: u16, version: u64) -> SignedPart {
    let (nickname, addresses, links) = (Nickname::from_host_name("x"), Vec::new(), Vec::new());
    let content =
        HostPart { nickname, port: 1, addresses, links, farewell: false, sealed_only: false, features: 0 }
            .encode();
    SignedPart { content, ..part(owner, PartId::HOST, version, 0) }
}

fn accept(store: &mut Store, part: SignedPart) -> Result<Accepted, Rejection> {
    store.accept(part, |_| true, Duration::ZERO, &mut MeshCounters::default())
}

#[test]
fn only_newer_parts_are_taken_and_a_signature_is_verified_last() {
    let mut store = Store::default();
    assert_eq!(accept(&mut store, host(1, 5)), Ok(Accepted::Stored));
    assert_eq!(accept(&mut store, host(1, 5)), Err(Rejection::Stale));
    let never = |_: &SignedPart| panic!("verified a stale part");
    let counters = &mut MeshCounters::default();
    assert_eq!(store.accept(host(1, 4), never, Duration::ZERO, counters), Err(Rejection::Stale));
    assert_eq!(store.accept(host(1, 6), |_| false, Duration::ZERO, counters), Err(Rejection::Forged));
    assert_eq!(accept(&mut store, host(1, u64::MAX)), Err(Rejection::VersionLimit));
}

#[test]
fn a_new_run_removes_the_parts_of_the_former_one() {
    let mut store = Store::default();
    accept(&mut store, host(1, (1 << 32) + 9)).unwrap();
    accept(&mut store, part(1, PartId::names(1), (1 << 32) + 1, 9)).unwrap();
    accept(&mut store, part(1, PartId::names(2), (2 << 32) + 1, 9)).unwrap();
    accept(&mut store, host(1, (2 << 32) + 1)).unwrap();
    let held: Vec<_> = store.peer(peer(1)).unwrap().parts.keys().copied().collect();
    assert_eq!(held, [PartId::HOST, PartId::names(2)]);
    let old = part(1, PartId::names(1), (1 << 32) + 7, 9);
    assert_eq!(accept(&mut store, old), Err(Rejection::Stale));
}

#[test]
fn which_parts_of_too_many_are_kept_does_not_depend_on_their_order() {
    let ids: Vec<_> = (0..200).map(|n| PartId(0x4000 + n)).chain([PartId::names(63), PartId::HOST]).collect();
    let keep = |ids: &mut dyn Iterator<Item = &PartId>| {
        let mut store = Store::default();
        for id in ids {
            let _ = accept(&mut store, part(1, *id, 1, 10));
        }
        let parts = &store.peer(peer(1)).unwrap().parts;
        assert_eq!(store.bytes(), parts.values().map(super::size).sum::<usize>());
        assert!(store.has_no_place_for(PartKey { owner: peer(1), part: PartId(0x40c7) }));
        assert!(!store.has_no_place_for(PartKey { owner: peer(1), part: PartId::names(0) }));
        parts.keys().copied().collect::<Vec<_>>()
    };
    let kept = keep(&mut ids.iter());
    assert_eq!(kept, keep(&mut ids.iter().rev()));
    assert_eq!(kept.len(), PARTS_PER_PEER);
    assert!(kept.contains(&PartId::HOST) && kept.contains(&PartId::names(63)));
}

#[test]
fn bytes_are_counted_and_the_newest_unreachable_peer_goes_first() {
    let mut store = Store::default();
    let size = 16 * 1024;
    let mut owner = 0;
    while accept(&mut store, part(owner, PartId(0x3000), 1, size)).is_ok() && store.take_dropped().is_empty()
    {
        owner += 1;
        store.peer_mut(peer(owner - 1)).unwrap().reachable = owner < 100;
        assert!(store.bytes() <= PART_BYTES);
    }
    assert!(store.peer(peer(0)).is_some() && store.peer(peer(100)).is_some());
    assert!(store.peer(peer(owner - 1)).is_none(), "the newest went");
    assert_eq!(
        store.bytes(),
        store.peers().flat_map(|(_, p)| p.parts.values()).map(super::size).sum::<usize>()
    );
}

#[test]
fn a_link_is_admitted_to_a_full_table_and_only_neighbours_stay() {
    let mut store = Store::default();
    for n in 0..PEERS as u16 {
        accept(&mut store, host(n, 1)).unwrap();
        store.peer_mut(peer(n)).unwrap().reachable = true;
    }
    assert_eq!(accept(&mut store, host(9000, 1)), Err(Rejection::PeersFull));
    let key = IdentityKey::from_bytes([1; 32]);
    let counters = &mut MeshCounters::default();
    assert_eq!(store.link_added(peer(9000), key, Duration::ZERO, counters), Ok(()));
    assert_eq!(store.take_dropped(), [peer(PEERS as u16 - 1)]);
    assert_eq!(store.peers().count(), PEERS);
}

#[test]
fn a_name_whose_peer_gave_way_stays_bound_for_an_hour_if_it_was_ever_linked() {
    let mut store = Store::default();
    let counters = &mut MeshCounters::default();
    let (key, other) = (IdentityKey::from_bytes([7; 32]), IdentityKey::from_bytes([8; 32]));
    // The last one that came, so that it is the first to go.
    for n in 0..PEERS as u16 - 1 {
        accept(&mut store, host(1_000 + n, 1)).unwrap();
    }
    store.link_added(peer(7), key, Duration::ZERO, counters).unwrap();
    store.link_removed(peer(7));
    let invented = |n: u16| SignedPart { identity: other, ..host(n, 1) };
    accept(&mut store, invented(8)).unwrap();
    assert!(store.peer(peer(7)).is_none(), "it gave way");
    assert_eq!(store.bound(peer(7)), Some(key));
    let refused = Err(Rejection::KeyConflict { bound: key });
    assert_eq!(accept(&mut store, invented(7)), refused);
    assert_eq!(store.link_added(peer(7), other, Duration::ZERO, counters), Err(key));
    // Those that were never linked leave nothing.
    accept(&mut store, invented(9)).unwrap();
    assert!(store.peer(peer(8)).is_none());
    assert_eq!((store.bound(peer(8)), store.bindings.len()), (None, 1));
    store.collect(BINDING_KEPT - Duration::from_secs(1));
    assert_eq!(store.bound(peer(7)), Some(key));
    // Itself it may come back, and be forgotten.
    accept(&mut store, host(7, 1)).unwrap();
    assert_eq!((store.bound(peer(7)), store.bindings.len()), (Some(key), 0));
    accept(&mut store, invented(10)).unwrap();
    assert!(store.forget(peer(7)));
    assert_eq!(store.bound(peer(7)), None);
}

#[test]
fn a_binding_without_a_peer_ends_after_an_hour() {
    let mut store = Store::default();
    let counters = &mut MeshCounters::default();
    let key = IdentityKey::from_bytes([7; 32]);
    store.link_added(peer(7), key, Duration::ZERO, counters).unwrap();
    store.link_removed(peer(7));
    assert!(store.give_way(|_| true, Duration::ZERO, counters));
    store.collect(BINDING_KEPT);
    assert_eq!(store.bound(peer(7)), None);
}
