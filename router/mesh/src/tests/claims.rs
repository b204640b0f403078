#![allow(clippy::unwrap_used)]

use super::net::{Net, name};
use crate::output::{Output, OwnStation};
use std::net::IpAddr;
use weave_wire::MacAddr;
use weave_wire::link::gossip::NameEntry;

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
