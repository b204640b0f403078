#![allow(clippy::unwrap_used)]

use super::net::{Cheap, Net, name};
use crate::output::{Output, OwnStation, Signer};
use std::net::IpAddr;
use std::time::Duration;
use weave_wire::link::gossip::{
    AnnouncedLink, Gossip, HostPart, NameEntry, PartId, SignedPart, StationEntry, StationsPart,
};
use weave_wire::{MacAddr, Nickname, PeerName, Uid};

fn station(n: u8) -> OwnStation {
    OwnStation { mac: MacAddr([2, 1, 1, 1, 1, n]), addresses: vec![([10, 32, 0, n].into(), 12)] }
}

fn attach(net: &mut Net, at: usize, stations: &[u8]) {
    let now = net.now;
    net.mesh(at).set_stations(stations.iter().map(|n| station(*n)).collect(), now);
}

fn line() -> Net {
    let mut net = Net::new(3);
    (0..2).for_each(|n| net.link(n, n + 1));
    net.seconds(2);
    net
}

#[test]
fn a_station_is_known_everywhere_until_it_is_detached() {
    let mut net = line();
    attach(&mut net, 0, &[1, 2]);
    net.seconds(1);
    let mac = station(1).mac;
    assert_eq!(net.mesh(2).station_owner(mac), Some(name(0)));
    let address = IpAddr::from([10, 32, 0, 1]);
    assert_eq!(net.mesh(2).address_owner(&address), Some((name(0), mac)));
    for (n, expected) in [(0, None), (1, Some(name(0))), (2, Some(name(0)))] {
        assert_eq!(net.mesh(n).attached_elsewhere(&address), expected, "{n}");
    }
    attach(&mut net, 0, &[2]);
    net.seconds(1);
    assert_eq!(net.mesh(2).attached_elsewhere(&address), None);
    assert_eq!(net.mesh(2).stations().count(), 1);
    let changes: Vec<_> = net
        .outputs(2)
        .into_iter()
        .filter_map(|output| if let Output::StationsChanged(changes) = output { Some(changes) } else { None })
        .flatten()
        .filter(|(changed, _)| *changed == mac)
        .collect();
    assert_eq!(changes, [(mac, Some(name(0))), (mac, None)]);
}

#[test]
fn a_station_that_moves_is_claimed_anew_and_withdrawn_where_it_was() {
    let mut net = line();
    attach(&mut net, 0, &[1]);
    net.seconds(1);
    attach(&mut net, 2, &[1]);
    net.seconds(1);
    let mac = station(1).mac;
    for n in 0..3 {
        assert_eq!(net.mesh(n).station_owner(mac), Some(name(2)), "{n}");
    }
    assert_eq!(net.outputs(0).iter().filter(|output| **output == Output::Withdrawn(mac)).count(), 1);
    attach(&mut net, 0, &[1]);
    net.seconds(1);
    assert_eq!(net.mesh(1).station_owner(mac), Some(name(2)), "the same list claims nothing anew");
    attach(&mut net, 0, &[]);
    attach(&mut net, 0, &[1]);
    net.seconds(1);
    assert_eq!(net.mesh(1).station_owner(mac), Some(name(0)));
}

#[test]
fn of_two_claims_at_once_the_larger_name_wins_after_a_partition() {
    let mut net = line();
    net.cut(0, 1);
    net.seconds(1);
    attach(&mut net, 0, &[1]);
    attach(&mut net, 2, &[1]);
    net.seconds(1);
    assert_eq!(net.mesh(0).station_owner(station(1).mac), Some(name(0)));
    net.link(0, 1);
    net.seconds(2);
    for n in 0..3 {
        assert_eq!(net.mesh(n).station_owner(station(1).mac), Some(name(2)), "{n}");
    }
    net.check(3);
}

/// Both ends of the line claim station 1 while they are apart, and meet.
fn contested() -> Net {
    let mut net = line();
    net.cut(0, 1);
    net.seconds(1);
    attach(&mut net, 0, &[1]);
    attach(&mut net, 2, &[1]);
    net.seconds(1);
    net.link(0, 1);
    net.seconds(2);
    let address = IpAddr::from([10, 32, 0, 1]);
    for n in 0..3 {
        assert_eq!(net.mesh(n).station_owner(station(1).mac), Some(name(2)), "{n}");
        assert_eq!(net.mesh(n).address_owner(&address).map(|(owner, _)| owner), Some(name(2)), "{n}");
    }
    // Also where the weaker claim is: what is attached is attached.
    for (n, expected) in [(0, None), (1, Some(name(2))), (2, None)] {
        assert_eq!(net.mesh(n).attached_elsewhere(&address), expected, "{n}");
    }
    net
}

#[test]
fn a_station_is_claimed_again_when_the_better_claim_is_gone() {
    let mut net = contested();
    attach(&mut net, 2, &[]);
    net.seconds(1);
    let (mac, address) = (station(1).mac, IpAddr::from([10, 32, 0, 1]));
    for n in 0..3 {
        assert_eq!(net.mesh(n).station_owner(mac), Some(name(0)), "{n}");
        assert_eq!(net.mesh(n).address_owner(&address), Some((name(0), mac)), "{n}");
    }
    assert!(net.outputs(0).contains(&Output::StationsChanged(vec![(mac, None)])));
}

#[test]
fn a_station_is_claimed_again_while_the_better_claim_is_out_of_reach() {
    let mut net = contested();
    net.cut(1, 2);
    net.seconds(1);
    assert_eq!(net.mesh(1).station_owner(station(1).mac), Some(name(0)));
    assert_eq!(net.mesh(2).station_owner(station(1).mac), Some(name(2)));
    net.link(1, 2);
    net.seconds(2);
    for n in 0..3 {
        assert_eq!(net.mesh(n).station_owner(station(1).mac), Some(name(2)), "{n}");
    }
}

#[test]
fn an_address_can_move_to_another_station() {
    let mut net = line();
    attach(&mut net, 0, &[1]);
    net.seconds(1);
    let now = net.now;
    let other = OwnStation { mac: station(9).mac, addresses: station(1).addresses };
    net.mesh(2).set_stations(vec![other], now);
    net.seconds(1);
    let address = IpAddr::from([10, 32, 0, 1]);
    assert_eq!(net.mesh(1).address_owner(&address), Some((name(2), station(9).mac)));
    assert!(net.outputs(0).contains(&Output::AddressWithdrawn(address)));
    assert_eq!(net.mesh(1).station_owner(station(1).mac), Some(name(0)));
    // Whoever holds addresses to stations is told; for the host that has it, it is nowhere else.
    for (n, elsewhere) in [(0, Some(station(9).mac)), (1, Some(station(9).mac)), (2, None)] {
        assert_eq!(net.mesh(n).station_elsewhere(&address), elsewhere, "{n}");
        let all: Vec<_> = net.mesh(n).addresses_elsewhere().collect();
        assert_eq!(all, elsewhere.map(|mac| (address, mac)).into_iter().collect::<Vec<_>>(), "{n}");
    }
    assert!(net.outputs(1).contains(&Output::AddressesChanged(vec![address])));
}

#[test]
fn stations_and_names_of_a_peer_go_with_it_and_come_back() {
    let mut net = line();
    attach(&mut net, 0, &[1]);
    let now = net.now;
    let entry = NameEntry { name: "web".parse().unwrap(), address: [10, 32, 0, 1].into(), container: [1; 6] };
    net.mesh(0).set_names(vec![entry.clone()], now);
    net.seconds(1);
    let found = |net: &mut Net| (net.mesh(2).stations().count(), net.mesh(2).name(&entry.name).count());
    assert_eq!(found(&mut net), (1, 1));
    net.cut(1, 2);
    net.seconds(1);
    assert_eq!(found(&mut net), (0, 0));
    net.link(1, 2);
    net.seconds(2);
    assert_eq!(found(&mut net), (1, 1));
    assert!(net.outputs(2).contains(&Output::NamesChanged(vec![entry.name.clone()])));
}

#[test]
fn four_thousand_names_arrive() {
    let mut net = line();
    let now = net.now;
    let names = (0..4096_u16).map(|n| NameEntry {
        name: format!("container-{n}.weave.local").parse().unwrap(),
        address: [10, 32, (n >> 8) as u8, n as u8].into(),
        container: [1; 6],
    });
    net.mesh(0).set_names(names.collect(), now);
    net.seconds(2);
    assert_eq!(net.mesh(2).names().count(), 4096);
    assert_eq!(net.mesh(0).counters().does_not_fit, 0);
}

/// Invented peers behind node 0, which tells node 1 of them and hears nothing any more: in groups, as
/// one peer has 512 links at most. Their names come before those of the nodes; each says what `says`
/// gives.
fn invent(net: &mut Net, count: usize, says: impl Fn(usize) -> (PartId, Vec<u8>)) {
    let peer = |n: usize| PeerName::new([1, 6, 6, 0, (n >> 8) as u8, n as u8]).unwrap();
    let link = |peer| AnnouncedLink { peer, unencrypted: false, outbound: false, cost: 1 };
    let tell = |net: &mut Net, owner, key, part, version, content| {
        let mut part =
            SignedPart { owner, identity: key, uid: Uid(5), part, version, content, signature: [0; 64] };
        let signer = if owner == name(0) { Cheap(0) } else { Cheap(9) };
        part.signature = signer.sign(&part.signed_bytes());
        net.inject(0, 1, Gossip::Part(Box::new(part)));
    };
    let host = |mut links: Vec<AnnouncedLink>| {
        links.sort_by_key(|link| link.peer);
        let (nickname, addresses) = (Nickname::from_host_name("x"), Vec::new());
        HostPart { nickname, port: 1, addresses, links, farewell: false, sealed_only: false, features: 0 }
            .encode()
    };
    net.silent = Some((0, 1));
    let all: Vec<usize> = (0..count).collect();
    let groups: Vec<_> = all.chunks(500).collect();
    let heads = groups.iter().filter_map(|group| group.first()).map(|head| link(peer(*head)));
    let invented = Cheap(9).identity();
    for group in &groups {
        let (head, rest) = group.split_first().unwrap();
        let rest_links = rest.iter().map(|n| link(peer(*n))).chain([link(name(0))]);
        tell(net, peer(*head), invented, PartId::HOST, 1, host(rest_links.collect()));
        for n in rest {
            tell(net, peer(*n), invented, PartId::HOST, 1, host(vec![link(peer(*head))]));
        }
        for n in *group {
            let (part, content) = says(*n);
            tell(net, peer(*n), invented, part, 1, content);
        }
    }
    let links = heads.chain([link(name(1))]).collect();
    tell(net, name(0), Cheap(0).identity(), PartId::HOST, 9 << 32, host(links));
}

#[test]
fn invented_peers_take_no_places_of_who_was_there_before_with_few_stations() {
    const FEW: usize = crate::mesh::MAX_STATIONS / 512;
    let mut net = line();
    let stations = |at: u8, count: usize| -> Vec<_> {
        let mac = |n: usize| MacAddr([2, 3, at, 0, (n >> 8) as u8, n as u8]);
        (0..count).map(|n| OwnStation { mac: mac(n), addresses: Vec::new() }).collect()
    };
    let now = net.now;
    net.mesh(1).set_stations(stations(1, 200), now);
    net.mesh(2).set_stations(stations(2, FEW), now);
    net.seconds(1);
    invent(&mut net, 3_000, |n| {
        let mac = |at: usize| MacAddr([2, 7, at as u8, 0, (n >> 8) as u8, n as u8]);
        let station = |at| StationEntry { mac: mac(at), claim: 1, addresses: Vec::new() };
        (PartId::stations(0), StationsPart { entries: (0..8).map(station).collect() }.encode())
    });
    net.run(Duration::from_millis(700));
    let check = |net: &mut Net, own: usize| {
        let mesh = net.mesh(1);
        let of_two = mesh.stations().filter(|(_, owner)| *owner == name(2)).count();
        assert_eq!((mesh.stations().count(), of_two), (crate::mesh::MAX_STATIONS - own, FEW));
        for station in stations(1, own) {
            assert_eq!(mesh.station_owner(station.mac), Some(name(1)));
        }
    };
    check(&mut net, 200);
    // What is attached now has its place, too.
    let now = net.now;
    net.mesh(1).set_stations(stations(1, 300), now);
    check(&mut net, 300);
}

#[test]
fn however_many_claim_a_station_the_best_claim_counts_also_at_its_own_host() {
    let mut net = line();
    let mac = station(1).mac;
    invent(&mut net, 300, |_| {
        let station = StationEntry { mac, claim: 1, addresses: Vec::new() };
        (PartId::stations(0), StationsPart { entries: vec![station] }.encode())
    });
    net.seconds(1);
    assert!(net.mesh(2).station_owner(mac).is_some());
    attach(&mut net, 1, &[1]);
    net.seconds(1);
    for n in [1, 2] {
        assert_eq!(net.mesh(n).station_owner(mac), Some(name(1)), "{n}");
    }
    assert!(net.mesh(1).stations().all(|(elsewhere, _)| elsewhere != mac));
    attach(&mut net, 2, &[1]);
    net.seconds(1);
    for n in [1, 2] {
        assert_eq!(net.mesh(n).station_owner(mac), Some(name(2)), "{n}");
    }
    assert!(net.outputs(1).contains(&Output::Withdrawn(mac)));
}
