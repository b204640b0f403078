//! A member that knows the password and lies in its gossip: honest hosts keep their bounds, their
//! records and their links.

use std::net::SocketAddr;
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

use weave_api::status::MacSource;
use weave_tests::honest::{Honest, dns_name};
use weave_tests::member::{Member, digest, host};
use weave_tests::random::Random;
use weave_tests::wait_until;
use weave_tests::world::{LINK_WITHIN, v4};
use weave_wire::PeerName;
use weave_wire::link::gossip::{
    Gossip, HostPart, MAX_CONTENT_LEN, NameEntry, NamesPart, PartId, PartKey, SignedPart,
};

const MIB: u64 = 1 << 20;
/// What a router may grow by: 4,096 peers, the requests for parts, and what a hostile link may
/// have waiting in queues.
const ROOM: u64 = 48 * MIB;
/// The same with as many bytes of parts as a router keeps.
const ROOM_OF_PARTS: u64 = 64 * MIB + ROOM;
/// A change on an honest host reaches another one within this time, whatever members tell.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

fn name(last: u8) -> PeerName {
    PeerName::new([2, 0xee, 0, 0, 0, last]).unwrap()
}

/// A peer that does not exist.
fn invented(number: u32) -> PeerName {
    let [a, b, c, d] = number.to_be_bytes();
    PeerName::new([2, 0xdd, a, b, c, d]).unwrap()
}

/// Addresses that nobody has.
fn nowhere(number: u32) -> Vec<SocketAddr> {
    let [_, _, high, low] = number.to_be_bytes();
    (1..=8).map(|last| SocketAddr::from(([10, 98, high, low], 1_000 + last))).collect()
}

/// Tells peers from `numbers`, the first `linked` of them with a link to the member, which says the
/// same: they count as reachable. Returns how many the connection took.
pub(crate) fn invent(member: &Member, numbers: std::ops::Range<u32>, linked: u32) -> u32 {
    let neighbours: Vec<_> = numbers.clone().take(linked as usize).map(invented).collect();
    assert!(member.announce(1, &neighbours));
    let mut told = 0;
    for number in numbers.clone() {
        let links = if number - numbers.start < linked { vec![member.name] } else { Vec::new() };
        let part = member.sign(invented(number), PartId::HOST, 1, host(&links, nowhere(number)));
        told += u32::from(member.tell(&part));
    }
    told
}

/// A container that comes to host `at` and goes again is known, and known no more, on host `seen`
/// soon.
#[track_caller]
fn changes_are_told(honest: &Honest, at: usize, seen: usize) {
    let world = &honest.world;
    let container = world.lab().container("late").unwrap();
    let attached = |host: usize| {
        let macs = world.status(host).macs.into_iter();
        macs.filter(|mac| mac.peer == honest.name(at) && mac.source == MacSource::Attached).count()
    };
    let known = |count: usize| {
        let what = || format!("{count} stations of host {at} on host {seen}: {:#?}", world.status(seen).macs);
        wait_until(TOLD_WITHIN, what, || attached(seen) == count);
    };
    world.weave(at, &["attach", "10.32.1.250/24", container.spec()]).ok();
    let since = Instant::now();
    known(2);
    world.wait_ping(seen, "10.32.1.250".parse().unwrap(), TOLD_WITHIN);
    let came = since.elapsed();
    world.weave(at, &["detach", "10.32.1.250/24", container.spec()]).ok();
    let since = Instant::now();
    known(1);
    println!("told after {came:?} and {:?}", since.elapsed());
}

fn invented_peers(members: u8, each: u32) {
    let honest = Honest::hosts(2);
    let joined: Vec<_> =
        (1..=members).map(|last| Member::join(&honest.world, honest.stranger(), 0, name(last))).collect();
    let begun = Instant::now();
    let mut told = 0;
    std::thread::scope(|scope| {
        let telling: Vec<_> = (0..)
            .zip(&joined)
            .map(|(at, member)| scope.spawn(move || invent(member, at * each..(at + 1) * each, 500)))
            .collect();
        told = telling.into_iter().map(|telling| telling.join().unwrap()).sum();
    });
    assert_eq!(told, u32::from(members) * each, "a connection was closed");
    println!("{told} invented peers told in {:?}", begun.elapsed());
    changes_are_told(&honest, 0, 1);
    changes_are_told(&honest, 1, 0);
    for host in [0, 1] {
        let status = honest.world.status(host);
        println!(
            "host {host}: {} peers, {:?}, grown {} KiB",
            status.peers.len(),
            status.counters,
            honest.grown(host) / 1024
        );
        assert!(status.peers.len() <= 4_096 + 1);
    }
    assert!(honest.counted(0, "peers_evicted") + honest.counted(0, "gossip_peers_full") > 0);
    honest.unharmed(ROOM);
    drop(joined);
}

#[test]
fn alone_20000_invented_peers_take_bounded_memory_and_drive_out_nobody() {
    invented_peers(8, 2_500);
}

#[test]
fn long_a_million_invented_peers_take_bounded_memory_and_drive_out_nobody() {
    invented_peers(20, 50_000);
}

#[test]
fn paced_parts_as_large_as_may_be_take_bounded_memory() {
    let honest = Honest::hosts(2);
    let members: Vec<_> =
        (1..=10).map(|last| Member::join(&honest.world, honest.stranger(), 0, name(last))).collect();
    let names: Vec<_> = (0..400).map(invented).collect();
    std::thread::scope(|scope| {
        for member in &members {
            scope.spawn(|| {
                assert!(member.announce(1, &names[..100]));
                for peer in &names {
                    let part = PartId::names(u16::from(member.name.to_bytes()[5]));
                    assert!(member.tell(&member.sign(
                        *peer,
                        PartId::HOST,
                        1,
                        host(&[member.name], Vec::new())
                    )));
                    assert!(member.tell(&member.sign(*peer, part, 1, vec![0xff; MAX_CONTENT_LEN])));
                }
            });
        }
    });
    for host in [0, 1] {
        println!(
            "host {host}: {:?}, grown {} KiB",
            honest.world.status(host).counters,
            honest.grown(host) / 1024
        );
    }
    changes_are_told(&honest, 0, 1);
    honest.unharmed(ROOM_OF_PARTS);
}

/// The name of honest host `host` for other addresses, so many.
fn other_addresses(host: usize, count: u8) -> Vec<u8> {
    let entry =
        |last| NameEntry { name: dns_name(host), address: [192, 0, 2, last].into(), container: [1; 6] };
    NamesPart { entries: (1..=count).map(entry).collect() }.encode()
}

/// Everything that a member can do to the part of another peer, and the counter of each refusal.
fn lies(member: &Member, genuine: &SignedPart) -> Vec<(&'static str, SignedPart)> {
    let own = |version, content| member.sign(genuine.owner, genuine.part, version, content);
    let farewell = HostPart { farewell: true, ..HostPart::parse(&host(&[], Vec::new())).unwrap() };
    let mut forged = genuine.clone();
    forged.version += 1;
    let mut altered = forged.clone();
    altered.content.push(0);
    let of_another_run =
        SignedPart { uid: weave_wire::Uid(u64::MAX), version: u64::MAX - 1, ..genuine.clone() };
    let largest = SignedPart { version: u64::MAX, ..genuine.clone() };
    let elsewhere = SignedPart { part: PartId::names(3), version: genuine.version + 1, ..genuine.clone() };
    vec![
        ("gossip_forged", forged),
        ("gossip_forged", altered),
        ("gossip_forged", of_another_run),
        ("gossip_forged", elsewhere),
        ("gossip_version_limit", largest),
        ("gossip_key_conflict", own(genuine.version + 1, genuine.content.clone())),
        ("gossip_key_conflict", own(u64::MAX - 1, host(&[member.name], nowhere(1)))),
        ("gossip_key_conflict", own(u64::MAX - 1, farewell.encode())),
        ("gossip_key_conflict", member.sign(genuine.owner, PartId::names(0), u64::MAX - 1, Vec::new())),
        ("gossip_key_conflict", member.sign(genuine.owner, PartId::names(0), 99, other_addresses(1, 1))),
        ("gossip_stale", genuine.clone()),
    ]
}

#[test]
fn nobody_speaks_for_another_peer() {
    let honest = Honest::hosts(3);
    let member = Member::join(&honest.world, honest.stranger(), 0, name(1));
    // Of a neighbour of the router that is told, and of that router itself.
    for victim in [1, 2, 0] {
        let genuine = member.wait_heard(honest.name(victim));
        for (counter, lie) in lies(&member, &genuine) {
            let before = honest.counted(0, counter);
            assert!(member.tell(&lie));
            honest.wait_counted(0, counter, before + 1);
        }
    }
    let clones = |host: usize| honest.world.degraded(host).iter().any(|name| name == "cloned");
    assert!(!(0..3).any(clones), "a member makes a host believe in a clone");
    honest.unharmed(ROOM);
}

#[test]
fn names_of_honest_hosts_stay_whatever_a_member_says_of_them() {
    let honest = Honest::hosts(2);
    let member = Member::join(&honest.world, honest.stranger(), 0, name(1));
    assert!(member.announce(1, &[]));
    // More addresses than a name may have, of each honest name; and then none.
    let claim = |host, version, count| {
        let part = PartId::names(host as u16);
        assert!(member.tell(&member.sign(member.name, part, version, other_addresses(host, count))));
    };
    (0..2).for_each(|host| claim(host, 1, 200));
    let claimed = |known: bool| {
        let seen =
            |host: usize| honest.world.names(host).iter().filter(|entry| entry.origin == member.name).count();
        let what = || format!("names of the member: {:?}", (0..2).map(seen).collect::<Vec<_>>());
        wait_until(LINK_WITHIN, what, || (0..2).all(|host| (seen(host) > 0) == known));
    };
    claimed(true);
    (0..2).for_each(|host| claim(host, 2, 0));
    claimed(false);
    (0..2).for_each(|host| claim(host, 3, 200));
    claimed(true);
    // A name that goes and comes again finds room beside the claims of others.
    let known = |known: bool| {
        let says = || honest.world.names(1).iter().any(|entry| entry.origin == honest.name(0));
        wait_until(TOLD_WITHIN, || format!("names of host 0 on host 1: {}", says()), || says() == known);
    };
    let name = dns_name(0).to_string();
    honest.world.weave(0, &["dns-remove", "-h", &name]).ok();
    known(false);
    honest.world.weave(0, &["dns-add", &v4(0).to_string(), "-h", &name]).ok();
    known(true);
    honest.unharmed(ROOM);
}

#[test]
fn former_texts_of_a_part_and_copies_of_a_hosts_own_are_of_no_use() {
    let honest = Honest::hosts(2);
    let member = Member::join(&honest.world, honest.stranger(), 0, name(1));
    for at in [0, 1] {
        let texts = || member.heard(honest.name(at)).iter().filter(|part| part.part.is_stations()).count();
        let wait_told = |count: usize| {
            wait_until(LINK_WITHIN, || format!("{} texts of stations", texts()), || texts() >= count);
        };
        wait_told(1);
        let container = honest.world.lab().container("late").unwrap();
        honest.world.weave(at, &["attach", "10.32.1.250/24", container.spec()]).ok();
        wait_told(2);
        honest.world.weave(at, &["detach", "10.32.1.250/24", container.spec()]).ok();
        wait_told(3);
    }
    // Each text in turn, to both hosts, again and again: also the host's own to itself.
    let before = honest.counted(0, "gossip_stale");
    let mut told = 0;
    for at in [0, 1] {
        for part in member.heard(honest.name(at)) {
            told += 1;
            assert!(member.tell(&part));
            assert!(member.say(Gossip::Digests(vec![part.digest()])));
        }
    }
    assert!(told >= 8, "too few texts: this tests nothing");
    honest.wait_counted(0, "gossip_stale", before + told);
    assert_eq!(honest.counted(0, "gossip_own_copies"), 0);
    honest.unharmed(ROOM);
}

#[test]
fn texts_that_nobody_can_read_and_farewells_concern_who_signed_them() {
    let honest = Honest::hosts(2);
    let member = Member::join(&honest.world, honest.stranger(), 0, name(1));
    assert!(member.announce(1, &[]));
    for part in [PartId::stations(1), PartId::names(1), PartId::HOST] {
        let before = honest.counted(0, "gossip_unreadable");
        assert!(member.tell(&member.sign(member.name, part, 2, vec![0xff; 100])));
        honest.wait_counted(0, "gossip_unreadable", before + 1);
    }
    // Parts of more numbers than a peer may have.
    for part in 0x8000..0x8200 {
        assert!(member.tell(&member.sign(member.name, PartId(part), 1, vec![1; 100])));
    }
    honest.wait_counted(0, "gossip_parts_full", 300);
    let farewell = HostPart { farewell: true, ..HostPart::parse(&host(&[], Vec::new())).unwrap() };
    assert!(member.tell(&member.sign(invented(7), PartId::HOST, 1, host(&[], Vec::new()))));
    assert!(member.tell(&member.sign(invented(7), PartId::HOST, 2, farewell.encode())));
    assert!(member.tell(&member.sign(invented(7), PartId::HOST, 1, host(&[], Vec::new()))));
    honest.wait_counted(0, "gossip_farewelled", 1);
    honest.unharmed(ROOM);
}

#[test]
fn paced_digests_of_parts_that_nobody_has_keep_no_change_from_being_told() {
    let honest = Honest::hosts(2);
    let members: Vec<_> =
        (1..=2).map(|last| Member::join(&honest.world, honest.stranger(), 0, name(last))).collect();
    let honest_parts: Vec<_> = (0..16).map(PartId::stations).chain([PartId::HOST]).collect();
    // Dropped when the test ends, however: the members stop then.
    let (over, ended) = std::sync::mpsc::sync_channel::<()>(0);
    let ended = std::sync::Mutex::new(ended);
    std::thread::scope(|scope| {
        let over = over;
        for member in &members {
            let (ended, honest_parts, honest) = (&ended, &honest_parts, &honest);
            scope.spawn(move || {
                let mut random = Random::from_environment();
                while ended.lock().unwrap().try_recv() == Err(TryRecvError::Empty) {
                    let nobody =
                        (0..4_000).map(|_| digest(invented(random.number() as u32), PartId::HOST, 7));
                    // And of those that it will not get from here.
                    let theirs = honest_parts.iter().map(|part| digest(honest.name(1), *part, u64::MAX - 1));
                    member.say(Gossip::Digests(nobody.chain(theirs).collect()));
                    // Each answer puts off the moment at which the others are late.
                    member.say(Gossip::Part(Box::new(member.sign(invented(1), PartId::HOST, 1, Vec::new()))));
                }
            });
        }
        honest.wait_counted(0, "gossip_wants_full", 100_000);
        for _ in 0..3 {
            changes_are_told(&honest, 1, 0);
            changes_are_told(&honest, 0, 1);
        }
        drop(over);
    });
    println!("{:?}", honest.world.status(0).counters);
    honest.unharmed(ROOM);
}

#[test]
fn alone_requests_for_everything_at_full_rate_cost_bounded_memory() {
    let honest = Honest::hosts(2);
    let members: Vec<_> =
        (1..=2).map(|last| Member::join(&honest.world, honest.stranger(), 0, name(last))).collect();
    assert_eq!(invent(&members[0], 0..500, 500), 500);
    let mut random = Random::from_environment();
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        for member in &members {
            let keys = (0..4_000).map(|number| PartKey { owner: invented(number % 500), part: PartId::HOST });
            member.say(Gossip::Pull(keys.collect()));
            member.say(Gossip::Summary(Box::new(std::array::from_fn(|_| random.number()))));
        }
    }
    honest.wait_counted(0, "gossip_pulls_full", 1);
    changes_are_told(&honest, 0, 1);
    println!("{:?}, grown {} KiB", honest.world.status(0).counters, honest.grown(0) / 1024);
    honest.unharmed(ROOM);
}

#[test]
fn a_member_at_the_other_end_of_an_invented_short_cut_gets_no_frames_of_others() {
    let honest = Honest::hosts(2);
    let member = Member::join(&honest.world, honest.stranger(), 0, name(1));
    // A link that only one end announces counts for nothing.
    assert!(member.announce(1, &[honest.name(1)]));
    honest.wait_counted(1, "gossip_accepted", 2);
    honest.world.wait_ping(1, v4(0).into(), TOLD_WITHIN);
    honest.unharmed(ROOM);
}
