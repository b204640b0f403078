use super::net::{Cheap, Net, name};
use crate::mesh::LINK_ENDS;
use crate::output::{Output, Signer};
use crate::store::PEERS;
use std::time::Duration;
use weave_wire::link::gossip::{
    AnnouncedLink, Digest, Gossip, HostPart, MAX_ENTRIES, PartId, PartKey, SignedPart, Version,
};
use weave_wire::link::message::Message;
use weave_wire::{Nickname, PeerName, Uid};

fn signed(owner: PeerName, key: Cheap, part: PartId, version: u64, content: Vec<u8>) -> SignedPart {
    let (identity, uid) = (key.identity(), Uid(5));
    let mut part = SignedPart { owner, identity, uid, part, version, content, signature: [0; 64] };
    part.signature = key.sign(&part.signed_bytes());
    part
}

fn host(links: Vec<AnnouncedLink>, farewell: bool) -> Vec<u8> {
    let (nickname, addresses) = (Nickname::from_host_name("x"), Vec::new());
    HostPart { nickname, port: 1, addresses, links, farewell, sealed_only: false, features: 0 }.encode()
}

fn send(net: &mut Net, part: SignedPart) {
    net.inject(0, 1, Gossip::Part(Box::new(part)));
}

/// 0 is hostile, 1 its neighbour, 2 and 3 behind that.
fn line() -> Net {
    let mut net = Net::new(4);
    (0..3).for_each(|n| net.link(n, n + 1));
    net.seconds(2);
    net
}

#[test]
fn nobody_speaks_for_another() {
    let mut net = line();
    let high = u64::MAX - 1;
    let conflict = signed(name(2), Cheap(99), PartId::HOST, high, host(Vec::new(), true));
    send(&mut net, conflict.clone());
    send(&mut net, conflict);
    let mut forged = signed(name(2), Cheap(2), PartId::HOST, high, host(Vec::new(), true));
    forged.signature[0] ^= 1;
    send(&mut net, forged);
    send(&mut net, signed(name(0), Cheap(0), PartId::HOST, u64::MAX, host(Vec::new(), false)));
    net.seconds(2);
    net.check(4);
    let counters = *net.mesh(1).counters();
    assert_eq!((counters.key_conflict, counters.forged, counters.version_limit), (2, 1, 1));
    let refusals = net.outputs(1).iter().filter(|output| matches!(output, Output::Refused(_))).count();
    assert_eq!(refusals, 1, "once a minute and name");
}

#[test]
fn a_second_key_is_refused_at_the_link_until_the_name_is_free() {
    let mut net = line();
    net.crash(3);
    net.seconds(1);
    net.start(3, 3, 77, 1);
    assert!(!net.link_at(2, 3, 1, false));
    assert!(!net.mesh(2).forget_identity(name(1)), "there is a link");
    for n in 0..3 {
        assert!(net.mesh(n).forget_identity(name(3)));
    }
    assert!(net.link_at(2, 3, 1, false));
    net.seconds(2);
    net.check(4);
}

#[test]
fn a_farewell_frees_the_name_everywhere_and_old_copies_stay_away() {
    let mut net = line();
    let now = net.now;
    let old = signed(name(3), Cheap(3), PartId::names(1), 9 << 32, Vec::new());
    net.mesh(3).farewell(now);
    net.seconds(1);
    net.crash(3);
    net.seconds(1);
    for n in 0..3 {
        assert!(net.mesh(n).peers().all(|peer| peer.name != name(3)), "{n}");
    }
    send(&mut net, old);
    assert_eq!(net.mesh(1).counters().farewelled, 1);
    for n in 0..3 {
        assert_eq!(net.mesh(n).peers_in_graph(), 3, "nothing is left of it at {n}");
    }
    net.start(3, 3, 77, 1);
    assert!(net.link_at(2, 3, 1, false));
    net.seconds(2);
    net.check(4);
}

#[test]
fn who_was_apart_when_a_host_left_for_good_hears_of_it_later() {
    let mut net = line();
    net.cut(1, 2);
    net.seconds(1);
    let now = net.now;
    net.mesh(3).farewell(now);
    net.seconds(1);
    net.crash(3);
    assert!(net.mesh(0).peer(name(3)).is_some());
    net.link(1, 2);
    net.seconds(2);
    for n in 0..3 {
        assert!(net.mesh(n).peer(name(3)).is_none(), "{n}");
    }
}

#[test]
fn a_link_that_crossed_the_farewell_of_its_peer_binds_no_name() {
    let mut net = line();
    let now = net.now;
    net.mesh(3).farewell(now);
    net.seconds(1);
    net.cut(2, 3);
    assert!(net.link_at(2, 3, 1, false));
    net.seconds(1);
    net.crash(3);
    assert!(net.mesh(2).peer(name(3)).is_none());
    net.start(3, 3, 77, 1);
    assert!(net.link_at(2, 3, 1, false), "the name is free");
    net.seconds(2);
    net.check(4);
}

#[test]
fn a_digest_of_our_own_part_alone_moves_nothing() {
    let mut net = line();
    let published = net.mesh(1).counters().published;
    let key = PartKey { owner: name(1), part: PartId::HOST };
    let version = Version { version: u64::MAX - 1, uid: Uid(9) };
    net.inject(0, 1, Gossip::Digests(vec![Digest { key, version }]));
    net.seconds(10);
    assert_eq!(net.mesh(1).counters().published, published);
    assert_eq!(net.mesh(1).counters().own_copies, 0);
    net.check(4);
}

#[test]
fn a_version_that_does_not_exist_delays_a_real_one_only_briefly() {
    let mut net = line();
    let key = PartKey { owner: name(3), part: PartId::HOST };
    let version = Version { version: u64::MAX - 1, uid: Uid(9) };
    net.inject(0, 1, Gossip::Digests(vec![Digest { key, version }]));
    net.link(1, 3);
    net.seconds(4);
    net.check(4);
}

#[test]
fn invented_peers_drive_out_nobody() {
    let mut net = line();
    for n in 0..PEERS + 500 {
        let [.., a, b] = n.to_be_bytes();
        let Some(owner) = PeerName::new([6, 6, 6, 0, a, b]) else { continue };
        send(&mut net, signed(owner, Cheap(n as u64), PartId::HOST, 1, host(Vec::new(), false)));
    }
    assert_eq!(net.mesh(1).peers().count(), PEERS);
    assert!(net.mesh(1).counters().evicted >= 500);
    assert!(net.mesh(2).peers().count() < 5, "nobody tells of whom nobody can reach");
    net.start(4, 4, 4, 1);
    net.link(1, 4);
    net.seconds(3);
    net.check(5);
}

#[test]
fn reachable_inventions_give_way_to_a_neighbour() {
    let mut net = line();
    let invented = |n: usize| PeerName::new([1, 6, 6, 0, (n >> 8) as u8, n as u8]);
    let link = |peer| AnnouncedLink { peer, unencrypted: false, outbound: false, cost: 1 };
    // A tree: each invented peer has 512 links at most.
    let all: Vec<_> = (1..=5000).filter_map(invented).collect();
    let (heads, rest) = all.split_at(10);
    let mut ours: Vec<_> = heads.iter().copied().map(link).collect();
    ours.push(link(name(1)));
    send(&mut net, signed(name(0), Cheap(0), PartId::HOST, 9 << 32, host(ours, false)));
    for (head, group) in heads.iter().zip(rest.chunks(499)) {
        let mut links: Vec<_> = group.iter().copied().chain([name(0)]).map(link).collect();
        links.sort_by_key(|link| link.peer);
        send(&mut net, signed(*head, Cheap(1), PartId::HOST, 1, host(links, false)));
        for peer in group {
            send(&mut net, signed(*peer, Cheap(1), PartId::HOST, 1, host(vec![link(*head)], false)));
        }
        net.run(Duration::from_millis(200));
    }
    net.seconds(2);
    assert_eq!(net.mesh(1).peers().count(), PEERS);
    net.start(4, 4, 4, 1);
    net.link(1, 4);
    net.seconds(3);
    assert!(net.route(1, 4).is_some());
    assert!(net.route(3, 1).is_some() && net.route(2, 3).is_some());
}

#[test]
fn a_peer_with_too_many_parts_is_bounded() {
    let mut net = line();
    for n in 0..200 {
        send(&mut net, signed(name(0), Cheap(0), PartId(0x4000 + n), u64::from(n) + (9 << 32), vec![0; 100]));
    }
    assert!(net.mesh(1).counters().parts_full >= 72);
    net.seconds(2);
    net.check(4);
}

#[test]
fn an_unreadable_or_unknown_part_has_no_effect() {
    let mut net = line();
    send(&mut net, signed(name(0), Cheap(0), PartId(77), 9 << 32, b"from a later version".to_vec()));
    net.seconds(1);
    net.check(4);
    send(&mut net, signed(name(0), Cheap(0), PartId::HOST, 9 << 32, b"rubbish".to_vec()));
    net.run(Duration::from_millis(10));
    assert_eq!(net.mesh(1).counters().unreadable, 1);
    net.seconds(40);
    net.check(4);
}

#[test]
fn requests_without_end_are_bounded() {
    let mut net = line();
    let link = net.route(1, 0).map(|route| route.next).unwrap_or(crate::LinkNumber(0));
    net.mesh(1).set_writable(link, false);
    let key = PartKey { owner: name(1), part: PartId::HOST };
    for _ in 0..3 {
        net.inject(0, 1, Gossip::Pull(vec![key; MAX_ENTRIES]));
    }
    assert_eq!(net.mesh(1).counters().pulls_full, 2 * MAX_ENTRIES as u64);
}

/// What a link is told at once: a queue of 256 KiB, and the message that fills it.
#[test]
fn however_much_there_is_to_tell_a_link_is_told_no_more_than_it_takes() {
    const QUEUE: usize = 256 << 10;
    const PEERS: u16 = 400;
    const PARTS: u16 = 50;
    let mut net = Net::new(2);
    net.link(0, 1);
    net.seconds(1);
    let peer = |number: u16| {
        let [a, b] = number.to_be_bytes();
        PeerName::new([2, 9, 9, 9, a, b]).unwrap_or(name(9))
    };
    let link = |peer| AnnouncedLink { peer, unencrypted: false, outbound: true, cost: 1 };
    for number in 0..PEERS {
        let (owner, key) = (peer(number), Cheap(1000 + u64::from(number)));
        send(&mut net, signed(owner, key, PartId::HOST, 1, host(vec![link(name(0))], false)));
        for part in 1..PARTS {
            send(&mut net, signed(owner, key, PartId(0x0200 + part), 1, Vec::new()));
        }
    }
    let mut links = vec![link(name(1))];
    links.extend((0..PEERS).map(|number| link(peer(number))));
    links.sort_by_key(|link| link.peer);
    send(&mut net, signed(name(0), Cheap(0), PartId::HOST, 99 << 32, host(links, false)));
    let new = crate::LinkNumber(7777);
    let info = crate::LinkInfo {
        peer: name(5),
        uid: Uid(5),
        identity: Cheap(5).identity(),
        unencrypted: false,
        outbound: false,
        cost: 1,
    };
    let now = net.now;
    assert!(net.mesh(1).link_added(new, info, now).is_ok());
    // All that became reachable is announced, and asked for, at once.
    net.run(Duration::from_millis(100));
    let now = net.now;
    net.mesh(1).on_gossip(new, Gossip::Summary(Box::new([0; 64])), now);
    // What is asked for meanwhile does not wait until all is told.
    let asked = (0..10).map(|number| PartKey { owner: peer(number), part: PartId::HOST });
    net.mesh(1).on_gossip(new, Gossip::Pull(asked.collect()), now);
    let mut parts_before_the_last_digests = 0;
    let mut parts = 0;
    let mut told = std::collections::BTreeSet::new();
    for turn in 0.. {
        let mut queued = 0;
        while let Some(output) = net.mesh(1).poll_output() {
            let Output::Send(to, gossip) = output else { continue };
            if to != new {
                continue;
            }
            queued += Message::Gossip(gossip.clone()).encode().len();
            if queued > QUEUE {
                net.mesh(1).set_writable(new, false);
            }
            match gossip {
                Gossip::Digests(digests) => {
                    told.extend(digests.iter().map(|digest| digest.key));
                    parts_before_the_last_digests = parts;
                }
                Gossip::Part(_) => parts += 1,
                Gossip::Summary(_) | Gossip::Pull(_) => {}
            }
        }
        assert!(queued < QUEUE + (128 << 10), "{queued} bytes at once");
        if queued == 0 {
            break;
        }
        assert!(turn < 20, "it does not end");
        net.mesh(1).set_writable(new, true);
    }
    assert_eq!((parts, parts_before_the_last_digests), (10, 10));
    let all = usize::from(PEERS) * usize::from(PARTS);
    assert!(told.len() > all, "{} told of {all}", told.len());
}

/// All that peers are allowed to tell, each within its limits: routes are computed over fewer links,
/// and the more there are the less often.
#[test]
fn invented_links_are_bounded_and_make_routes_rare() {
    const INVENTED: usize = 1_100;
    let mut net = Net::new(2);
    net.link(0, 1);
    net.seconds(1);
    let peer = |n: usize| PeerName::new([2, 6, 6, 0, (n >> 8) as u8, n as u8]).unwrap_or(name(9));
    let link = |peer| AnnouncedLink { peer, unencrypted: false, outbound: false, cost: 1 };
    let part = |n: usize, version: u64, cost: u16| {
        let mut links: Vec<_> = (1..=255).flat_map(|by| [n + by, n + INVENTED - by]).collect();
        links.iter_mut().for_each(|other| *other %= INVENTED);
        let mut links: Vec<_> = links.into_iter().map(|n| AnnouncedLink { cost, ..link(peer(n)) }).collect();
        links.extend((n == 0).then(|| link(name(0))));
        links.sort_by_key(|link| link.peer);
        signed(peer(n), Cheap(9), PartId::HOST, version, host(links, false))
    };
    for n in 0..INVENTED {
        send(&mut net, part(n, 1, 1));
        assert!(net.mesh(1).link_ends() <= LINK_ENDS);
    }
    assert!(net.mesh(1).counters().evicted > 0);
    send(
        &mut net,
        signed(name(0), Cheap(0), PartId::HOST, 9 << 32, host(vec![link(name(1)), link(peer(0))], false)),
    );
    net.run(Duration::from_millis(500));
    assert!(net.mesh(1).routes().peers.len() > 900, "{}", net.mesh(1).routes().peers.len());
    let before = net.mesh(1).counters().route_runs;
    for n in 0..50 {
        send(&mut net, part(1 + n, 2, 2));
        net.run(Duration::from_millis(20));
    }
    let runs = net.mesh(1).counters().route_runs - before;
    assert!((2..12).contains(&runs), "{runs} in a second");
}

/// Who fills the table of links gives way, not who comes later with a few.
#[test]
fn where_invented_links_fill_their_table_a_peer_with_few_links_has_its_place() {
    const INVENTED: usize = 1_030;
    // They tell of their links last, when the table is nearly full.
    const LAST: std::ops::Range<usize> = 5..9;
    let mut net = Net::new(2);
    net.link(0, 1);
    net.seconds(1);
    let peer = |n: usize| PeerName::new([2, 6, 6, 0, (n >> 8) as u8, n as u8]).unwrap_or(name(9));
    let link = |peer| AnnouncedLink { peer, unencrypted: false, outbound: false, cost: 1 };
    let part = |n: usize, version: u64| {
        let others = (1..=255).flat_map(|by| [(n + by) % INVENTED, (n + INVENTED - by) % INVENTED]);
        let mut links: Vec<_> = others.map(|n| link(peer(n))).collect();
        links.sort_by_key(|link| link.peer);
        let links = if LAST.contains(&n) && version == 1 { Vec::new() } else { links };
        signed(peer(n), Cheap(9), PartId::HOST, version, host(links, false))
    };
    (0..INVENTED).for_each(|n| send(&mut net, part(n, 1)));
    assert_eq!(net.mesh(1).counters().evicted, 0);
    let both = host(vec![link(name(1)), link(name(2))], false);
    send(&mut net, signed(name(0), Cheap(0), PartId::HOST, 9 << 32, both));
    let late = host(vec![link(name(0))], false);
    send(&mut net, signed(name(2), Cheap(2), PartId::HOST, 1, late));
    LAST.for_each(|n| send(&mut net, part(n, 2)));
    assert!(net.mesh(1).counters().evicted > 0);
    assert!(net.mesh(1).peer(name(2)).is_some_and(|peer| !peer.links.is_empty()));
}

/// Who tells beside an owner is looked for only where that is a neighbour: it takes time.
#[test]
fn beside_a_stranger_that_says_it_is_linked_to_us_we_tell_nobody() {
    let mut net = line();
    let link = |peer| AnnouncedLink { peer, unencrypted: false, outbound: false, cost: 1 };
    let Some(stranger) = PeerName::new([2, 6, 6, 0, 0, 1]) else { return };
    net.silent = Some((0, 1));
    let all = [0, 1, 2].map(|n| link(name(n))).to_vec();
    send(&mut net, signed(stranger, Cheap(9), PartId::HOST, 1, host(all, false)));
    let links = vec![link(name(1)), link(stranger)];
    send(&mut net, signed(name(0), Cheap(0), PartId::HOST, 9 << 32, host(links, false)));
    net.run(Duration::from_millis(500));
    assert!(net.mesh(1).routes().peer(stranger).is_some());
    assert!(net.mesh(2).peer(stranger).is_none(), "it said that it tells this one itself");
}

/// Where TCP between two hosts is blocked and datagrams pass, their link stays: others tell.
#[test]
fn what_an_owner_cannot_tell_itself_two_others_do() {
    let mut net = Net::new(6);
    for a in 0..6 {
        (0..a).for_each(|b| net.link(b, a));
    }
    net.seconds(3);
    net.check(6);
    net.silent = Some((2, 4));
    let now = net.now;
    net.mesh(2).set_addresses(vec![([10, 0, 0, 9], 6783).into()], now);
    net.run(Duration::from_millis(500));
    for n in [0, 1, 3, 4, 5] {
        let told = net.mesh(n).peer(name(2)).map(|peer| peer.addresses.len());
        assert_eq!(told, Some(1), "{n}");
    }
}
