//! A link all of whose datagrams come from the mesh port.

use crate::rig::{LINK, Options, Rig, WITHIN, frame, not_interrupted, number_of};
use std::collections::HashSet;
use std::net::UdpSocket;
use std::sync::Arc;
use weave_forward::{Command, LinkCounters};
use weave_wire::vnet::VNET_LEN;
use weave_wire::{OUTER_LEN, OuterHeader};

#[test]
fn lanes_keep_their_numbers_and_share_the_mesh_port() {
    let rig = Rig::new(Options { shards: 2, ..Options::default() });
    // In the place of B, to see ports.
    let far = UdpSocket::bind("127.0.0.1:0").unwrap();
    far.set_read_timeout(Some(WITHIN)).unwrap();
    let address = far.local_addr().unwrap();
    rig.a.command(|_| Command::SetLink { link: LINK, address, counters: Arc::default() });
    let mut last = [None; 2];
    let mut see = |shard: usize| {
        rig.a.send(shard, &frame(1, 100));
        let mut buffer = [0; 2000];
        let (len, source) = not_interrupted(|| far.recv_from(&mut buffer)).unwrap();
        let header = OuterHeader::split(&buffer[..len.max(OUTER_LEN)]).unwrap().0;
        assert_eq!(usize::from(header.lane().unwrap().number()), shard);
        assert!(last[shard].is_none_or(|last| header.counter() == last + 1), "a number left out");
        last[shard] = Some(header.counter());
        source.port()
    };
    let mesh = rig.a.address.port();
    let own = see(1);
    assert_ne!(own, mesh);
    assert_eq!(see(0), mesh);
    for (one_port, port) in [(true, mesh), (false, own), (true, mesh)] {
        rig.a.command(|_| Command::SetOnePort { link: LINK, one_port });
        assert_eq!((see(0), see(1)), (mesh, port), "one port: {one_port}");
        // Another address is still the same link.
        rig.a.command(|_| Command::SetLink { link: LINK, address, counters: Arc::default() });
        assert_eq!(see(1), port);
    }
}

#[test]
fn lanes_of_one_port_reach_their_owners() {
    const EACH: u64 = 500;
    let mut rig = Rig::new(Options { shards: 2, ..Options::default() });
    for side in [&rig.a, &rig.b] {
        side.command(|_| Command::SetOnePort { link: LINK, one_port: true });
    }
    for number in 0..EACH {
        for shard in 0..2 {
            rig.a.send(shard, &frame(2 * number + shard as u64, 300));
        }
    }
    for shard in 0..2 {
        let numbers: HashSet<_> =
            (0..EACH).map(|_| number_of(&rig.b.receive_raw(shard)[VNET_LEN..])).collect();
        assert_eq!(numbers, (0..EACH).map(|i| 2 * i + shard as u64).collect(), "tap {shard}");
    }
    rig.works();
}

/// A lane with more to carry than passes loses its keep-alives, too.
#[test]
fn a_lane_is_seen_by_the_data_it_carries() {
    let mut rig = Rig::usual();
    let counters = Arc::new(LinkCounters::default());
    let address = rig.a.address;
    rig.b.command(|_| Command::SetLink { link: LINK, address, counters: Arc::clone(&counters) });
    let is_seen = (0..100).any(|_| {
        rig.works();
        counters.lanes_seen.take() == (1, 0)
    });
    assert!(is_seen);
    rig.works();
    assert_eq!(counters.lanes_seen.take(), (1, 0), "again after it was taken");
    assert_eq!(counters.lanes_seen.take(), (0, 0));
}
