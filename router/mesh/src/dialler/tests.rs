use super::*;

#[test]
fn what_others_tell_brings_one_dial_a_second_to_an_address() {
    let mut dialler = Dialler::default();
    let mut now = Duration::ZERO;
    let (ours, peer) = (PeerName::new([2; 6]), PeerName::new([3; 6]));
    let (Some(ours), Some(peer)) = (ours, peer) else { panic!("names") };
    let mut dials = 0;
    while now < seconds(10) {
        // Whatever ports they tell of.
        let told = (0..5).map(|port| (address(9).ip(), SocketAddr::new(address(9).ip(), 6783 + port)));
        dialler.set_discovered(vec![(peer, told.collect())], ours, now);
        for (id, ..) in dialler.due(now) {
            dials += 1;
            dialler.failed(id, "refused".into(), false, now, 0.0);
        }
        // It goes and comes again in every other round.
        dialler.set_discovered(Vec::new(), ours, now);
        now += Duration::from_millis(20);
    }
    assert!((9..=10).contains(&dials), "{dials}");
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 6783))
}

/// A peer at one address.
fn told(peer: u8, target: &str) -> (PeerName, Vec<(IpAddr, &str)>) {
    (name(peer), vec![(address(peer).ip(), target)])
}

#[test]
fn a_target_is_dialled_at_once_and_again_after_a_failure() {
    let mut dialler = Dialler::default();
    assert!(dialler.add_targets(&["a"], seconds(0)));
    let due = dialler.due(seconds(0));
    assert_eq!(due.len(), 1);
    assert!(dialler.due(seconds(0)).is_empty(), "one dial at a time");
    dialler.failed(due[0].0, "no route".into(), false, seconds(1), 0.0);
    assert!(dialler.due(seconds(1)).is_empty());
    assert_eq!(dialler.deadline(), Some(Duration::from_millis(1200)));
    assert_eq!(dialler.due(seconds(2))[0].2, 1);
}

#[test]
fn a_linked_target_is_dialled_again_only_when_its_link_is_lost() {
    let mut dialler = Dialler::default();
    assert!(dialler.add_targets(&["a"], seconds(0)));
    let id = dialler.due(seconds(0))[0].0;
    dialler.linked(7, Some(id), address(1));
    assert!(dialler.due(seconds(100)).is_empty());
    dialler.relinked(7, 8);
    dialler.lost(7, "old", Ended::Established, seconds(100), 0.0);
    assert!(dialler.due(seconds(100)).is_empty());
    dialler.lost(8, "gone", Ended::Established, seconds(101), 0.0);
    assert_eq!(dialler.due(seconds(101)).len(), 1);
}

#[test]
fn a_dial_under_way_is_forgotten_with_its_target() {
    for replaced in [false, true] {
        let mut dialler = Dialler::default();
        assert!(dialler.add_targets(&["a", "b"], seconds(0)));
        let due = dialler.due(seconds(0));
        if replaced {
            assert!(dialler.replace_targets(&["b"], seconds(1)));
        } else {
            dialler.forget(&["a"]);
        }
        // Named again it is dialled anew: the dial that was forgotten stays so.
        assert!(dialler.add_targets(&["a"], seconds(2)));
        assert_eq!(due.iter().map(|(id, ..)| dialler.was_forgotten(*id)).collect::<Vec<_>>(), [true, false]);
        assert!(!dialler.was_forgotten(due[0].0), "it ended");
        let again = dialler.due(seconds(2));
        assert_eq!(again.len(), 1);
        assert!(!dialler.was_forgotten(again[0].0));
    }
}

#[test]
fn a_forgotten_target_is_not_dialled_again() {
    let mut dialler = Dialler::default();
    assert!(dialler.add_targets(&["a", "b"], seconds(0)));
    let id = dialler.due(seconds(0))[0].0;
    dialler.linked(1, Some(id), address(1));
    // Wherever the link leads by now.
    assert_eq!(dialler.forget(&["a"]), Forgotten { addresses: vec![], links: vec![1] });
    dialler.lost(1, "gone", Ended::Established, seconds(1), 0.0);
    assert_eq!(dialler.targets().collect::<Vec<_>>(), [&"b"]);
    assert!(dialler.due(seconds(1)).is_empty());
}

#[test]
fn a_forgotten_target_is_not_dialled_as_a_recent_peer_either() {
    let mut dialler = Dialler::default();
    assert!(dialler.add_targets(&["host2", "host3"], seconds(0)));
    dialler.add_recent("10.0.0.2:6783", seconds(0));
    dialler.add_recent("10.0.0.3:6783", seconds(0));
    for (id, target, _) in dialler.due(seconds(0)) {
        dialler.resolved(id, address(if target.contains('2') { 2 } else { 3 }));
    }
    let forgotten = dialler.forget(&["host2"]);
    assert_eq!(forgotten.addresses, [address(2)]);
    let left: Vec<_> = dialler.entries().iter().map(|entry| entry.target).collect();
    assert_eq!(left, ["host3", "10.0.0.3:6783"]);
}

#[test]
fn an_inbound_link_spares_the_dial_to_the_same_address() {
    let mut dialler = Dialler::default();
    assert!(dialler.add_targets(&["a"], seconds(0)));
    let id = dialler.due(seconds(0))[0].0;
    dialler.resolved(id, address(1));
    dialler.failed(id, "refused".into(), false, seconds(0), 0.0);
    dialler.linked(3, None, address(1));
    assert!(dialler.due(seconds(60)).is_empty());
}

#[test]
fn why_a_link_was_lost_is_known_until_the_next_one_passes_data() {
    let mut dialler = Dialler::default();
    assert!(dialler.add_targets(&["a"], seconds(0)));
    let id = dialler.due(seconds(0))[0].0;
    dialler.linked(1, Some(id), address(1));
    dialler.lost(1, "UDP does not pass", Ended::Established, seconds(15), 0.0);
    let id = dialler.due(seconds(15))[0].0;
    dialler.linked(2, Some(id), address(1));
    let reason = |dialler: &Dialler<_>| dialler.of_link(2).and_then(|entry| entry.reason.clone());
    assert_eq!(reason(&dialler).as_deref(), Some("UDP does not pass"));
    dialler.established(2);
    assert_eq!(reason(&dialler), None);
}

#[test]
fn a_peer_that_ends_each_link_at_once_is_not_dialled_without_pause() {
    let mut dialler = Dialler::default();
    assert!(dialler.add_targets(&["a"], seconds(0)));
    let mut dials = 0;
    for millis in 0..60_000 {
        let now = Duration::from_millis(millis);
        for (id, ..) in dialler.due(now) {
            dials += 1;
            dialler.linked(dials, Some(id), address(1));
            dialler.lost(dials, "refused", Ended::Early, now, 0.0);
        }
    }
    assert!(dials < 30, "{dials}");
}

#[test]
fn a_recent_peer_that_stays_away_is_forgotten_and_a_target_is_not() {
    let mut dialler = Dialler::default();
    dialler.add_recent("old", seconds(0));
    assert!(dialler.add_targets(&["t"], seconds(0)));
    let mut now = seconds(0);
    while now < seconds(1200) {
        for (id, _, _) in dialler.due(now) {
            dialler.failed(id, "no answer".into(), false, now, 0.0);
        }
        now += seconds(1);
    }
    assert_eq!(dialler.entries().len(), 1);
    assert_eq!(dialler.entries()[0].target, "t");
}

fn name(last: u8) -> PeerName {
    PeerName::new([2, 0, 0, 0, 0, last]).unwrap_or_else(|| unreachable!("not zero"))
}

#[test]
fn a_discovered_peer_is_dialled_until_it_is_linked_or_gone() {
    let mut dialler = Dialler::default();
    dialler.set_discovered(vec![told(9, "a"), told(1, "b")], name(5), seconds(0));
    let due = dialler.due(seconds(0));
    assert_eq!(due.iter().map(|due| due.1).collect::<Vec<_>>(), ["a"], "the smaller name dials first");
    assert_eq!(dialler.due(YIELD).len(), 1);
    dialler.linked(7, Some(due[0].0), address(1));
    dialler.set_discovered(vec![], name(5), seconds(1));
    dialler.lost(7, "gone", Ended::Established, seconds(2), 0.0);
    assert_eq!(dialler.entries().len(), 2);
    dialler.set_discovered(vec![], name(5), seconds(2));
    assert_eq!(dialler.entries().len(), 1, "only the dial under way is left");
    assert!(dialler.due(seconds(100)).is_empty());
}

/// What a host does to a discovered peer that ends each link before it passes data, for ten minutes:
/// when it dials.
fn dials_of_a_peer_that_ends_each_link(how: Ended) -> Vec<u64> {
    let mut dialler = Dialler::default();
    let mut dials = Vec::new();
    for tenth in 0..6_000 {
        let now = Duration::from_millis(tenth * 100);
        dialler.set_discovered(vec![told(9, "a")], name(5), now);
        for (id, ..) in dialler.due(now) {
            dials.push(tenth / 10);
            dialler.linked(tenth, Some(id), address(9));
            // A peer that we have a link to is none to dial.
            dialler.set_discovered(vec![], name(5), now);
            dialler.lost(tenth, "refused", how, now, 0.0);
            assert_eq!(dialler.entries()[0].full, how == Ended::Full);
        }
    }
    dials
}

#[test]
fn a_discovered_peer_with_its_limit_of_links_is_dialled_less_and_less_often() {
    let dials = dials_of_a_peer_that_ends_each_link(Ended::Full);
    assert!(dials.len() < 30, "{dials:?}");
    let last: Vec<_> = dials.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(last.last() >= Some(&100), "{dials:?}");
}

#[test]
fn a_discovered_peer_whose_links_come_to_nothing_is_dialled_every_ten_seconds() {
    let dials = dials_of_a_peer_that_ends_each_link(Ended::Early);
    assert!((60..=90).contains(&dials.len()), "{dials:?}");
}

#[test]
fn what_was_told_of_a_peer_goes_once_its_link_passes_data() {
    let mut dialler = Dialler::default();
    dialler.set_discovered(vec![told(9, "a")], name(5), seconds(0));
    let id = dialler.due(seconds(0))[0].0;
    dialler.linked(1, Some(id), address(9));
    dialler.set_discovered(vec![], name(5), seconds(1));
    assert_eq!(dialler.entries().len(), 1);
    dialler.established(1);
    assert!(dialler.entries().is_empty());
}

#[test]
fn a_discovered_peer_that_does_not_answer_is_dialled_every_ten_seconds_for_ever() {
    let mut dialler = Dialler::default();
    dialler.set_discovered(vec![told(9, "a")], name(5), seconds(0));
    let mut dials = Vec::new();
    for second in 0..3_600 {
        for (id, ..) in dialler.due(seconds(second)) {
            dials.push(second);
            dialler.failed(id, "no answer".into(), true, seconds(second), 0.0);
        }
    }
    assert!(dials.windows(2).all(|two| two[1] - two[0] <= 11), "{dials:?}");
    assert!(dials.len() > 300);
}

#[test]
fn each_of_more_peers_than_are_dialled_at_a_time_has_its_turn() {
    let peer = |n: u16| {
        let [high, low] = n.to_be_bytes();
        PeerName::new([2, 0, 0, 1, high, low]).unwrap_or_else(|| unreachable!("not zero"))
    };
    let host = |n: u16, at: u8| {
        let [high, low] = n.to_be_bytes();
        IpAddr::from([10, at, high, low])
    };
    let peers: Vec<_> =
        (0..4_096_u16).map(|n| (peer(n), [1, 2].map(|at| (host(n, at), (n, at))).to_vec())).collect();
    let mut dialler = Dialler::default();
    let mut dialled = std::collections::BTreeSet::new();
    let mut now = seconds(0);
    while now < seconds(120) {
        dialler.set_discovered(peers.clone(), name(5), now);
        assert!(dialler.entries().len() <= DISCOVERED);
        loop {
            let due = dialler.due(now);
            for (id, (peer, _), _) in &due {
                dialled.insert(*peer);
                dialler.failed(*id, "no answer".into(), false, now, 0.5);
            }
            if due.is_empty() {
                break;
            }
        }
        now += seconds(1);
    }
    assert_eq!(dialled.len(), 4_096);
}

#[test]
fn a_target_is_not_a_second_time_an_entry_when_it_is_discovered() {
    let mut dialler = Dialler::default();
    assert!(dialler.add_targets(&["a"], seconds(0)));
    dialler.set_discovered(vec![told(9, "a")], name(5), seconds(0));
    assert_eq!(dialler.entries().len(), 1);
    dialler.set_discovered(vec![], name(5), seconds(1));
    assert_eq!(dialler.targets().count(), 1);
}

#[test]
fn only_addresses_of_hosts_elsewhere_may_be_dialled() {
    for (text, may) in [
        ("10.0.0.1:6783", true),
        ("[fd00::1]:6783", true),
        ("127.0.0.1:6783", false),
        ("[::ffff:127.0.0.1]:6783", false),
        ("0.0.0.0:6783", false),
        ("0.1.2.3:6783", false),
        ("224.0.0.1:6783", false),
        ("255.255.255.255:6783", false),
        ("[::1]:6783", false),
        ("[ff02::1]:6783", false),
        ("[fe80::1]:6783", false),
        ("10.0.0.1:0", false),
    ] {
        assert_eq!(may_dial(text.parse().unwrap_or_else(|_| unreachable!("{text}"))), may, "{text}");
    }
}

#[test]
fn limits_hold() {
    let mut dialler = Dialler::default();
    let many: Vec<usize> = (0..=TARGETS).collect();
    assert!(!dialler.add_targets(&many, seconds(0)));
    assert!(dialler.entries().is_empty());
    assert!(dialler.add_targets(&many[..TARGETS], seconds(0)));
    assert_eq!(dialler.due(seconds(0)).len(), DIALS);
    assert_eq!(dialler.deadline(), None);
    for recent in 0..2 * RECENT {
        dialler.add_recent(10_000 + recent, seconds(0));
    }
    assert!(dialler.entries().len() <= TARGETS + RECENT);
}

/// A dial to where nobody answers takes two seconds.
#[test]
fn peers_that_cannot_be_reached_keep_nothing_else_waiting() {
    let name = |bytes| PeerName::new(bytes).unwrap_or_else(|| panic!("{bytes:?}"));
    let ours = name([2; 6]);
    let peer = |number: u8| {
        let at = SocketAddr::from(([10, 0, 1, number], 6783));
        (name([6, 0, 0, 0, 1, number]), vec![(at.ip(), at)])
    };
    let all: Vec<_> = (0..200).map(peer).collect();
    let mut dialler = Dialler::default();
    let mut now = Duration::ZERO;
    let mut under_way = Vec::new();
    let mut dialled = HashMap::new();
    let mut pass = |dialler: &mut Dialler<SocketAddr>, time: Duration| {
        let end = now + time;
        let mut began = Vec::new();
        while now < end {
            now += Duration::from_millis(100);
            for (id, ..) in under_way.extract_if(.., |(_, since)| now - *since >= seconds(2)) {
                dialler.failed(id, "timed out".into(), false, now, 0.0);
            }
            for (id, target, _) in dialler.due(now) {
                under_way.push((id, now));
                *dialled.entry(target).or_insert(0) += 1;
                began.push(target);
            }
            assert!(under_way.len() <= DIALS);
        }
        (began, now)
    };
    dialler.set_discovered(all.clone(), ours, Duration::ZERO);
    let (_, now) = pass(&mut dialler, seconds(300));
    // One that is new has its turn before those that failed, but for one dial of each slot.
    let new = peer(201);
    dialler.set_discovered([all.clone(), vec![new.clone()]].concat(), ours, now);
    let (began, now) = pass(&mut dialler, seconds(3));
    assert!(began.contains(&new.1[0].1), "{began:?}");
    assert!(dialler.add_targets(&[address(9)], now));
    let (began, _) = pass(&mut dialler, Duration::from_millis(100));
    assert!(began.contains(&address(9)), "{began:?}");
    let times = |at: &SocketAddr| dialled.get(at).copied().unwrap_or(0);
    let (least, most) =
        (all.iter().map(|(_, at)| times(&at[0].1)).min(), all.iter().map(|(_, at)| times(&at[0].1)).max());
    assert!(least >= Some(5) && most <= Some(20), "{least:?} to {most:?} dials");
}
