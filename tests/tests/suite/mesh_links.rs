//! Links over underlays that are not one wire: translators, small paths, cuts, addresses that change.

use std::io::ErrorKind;
use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use weave_perf::lab::{NAT_FORGETS, Nat, Place, Traffic, Underlay, Way};
use weave_tests::pings::Pings;
use weave_tests::world::{Family, LINK_WITHIN, Options, World, v4, wait_until};

fn wait_degraded(world: &World, host: usize, name: &str, limit: Duration) {
    let what = || format!("{name} on host {host}: {:?}", world.status(host).connections);
    wait_until(limit, what, || {
        world.link(host).is_some_and(|link| link.degraded.iter().any(|d| d.name == name))
    });
}

fn behind_a_translator(nat: Nat) {
    let options =
        Options::encrypted().args("--shards 2").places(vec![Place::default(), Place::behind(0, nat)]);
    let world = World::pair(options);
    world.wait_ping(0, v4(1).into(), LINK_WITHIN);
    wait_degraded(&world, 0, "one_port", LINK_WITHIN);
    // The translator forgets flows that are silent this long, and may give them another port.
    let pings = Pings::between(&world, 0, v4(1).into());
    std::thread::sleep(4 * NAT_FORGETS);
    let flowed = pings.finish();
    assert!(flowed.lost().is_empty(), "{:?}", flowed.lost());
    // Every shard's lane passes, in both directions.
    wait_until(
        LINK_WITHIN,
        || format!("lanes: {:?}", world.link(0)),
        || world.link(0).is_some_and(|link| link.lanes_in == 2 && link.lanes_out == 2),
    );
}

#[test]
fn a_host_behind_a_translator_that_keeps_ports() {
    behind_a_translator(Nat::Steady);
}

#[test]
fn a_host_behind_a_translator_that_changes_ports() {
    behind_a_translator(Nat::Changing);
}

/// As where one path of several, chosen by the ports of a flow, swallows what goes over it.
#[test]
fn long_a_lane_whose_port_stops_passing_goes_on_by_the_mesh_port() {
    let world = World::pair(Options::encrypted().args("--shards 2"));
    let lanes =
        |host, count| world.link(host).is_some_and(|link| link.lanes_in == count && link.lanes_out == count);
    wait_until(LINK_WITHIN, || world.connections(&[0, 1]), || lanes(0, 2) && lanes(1, 2));
    // Longer than a lane may take to be seen first.
    std::thread::sleep(Duration::from_secs(5));
    assert!(world.link(0).is_some_and(|link| link.degraded.is_empty()), "{}", world.connections(&[0]));
    // The second byte of a datagram is its lane.
    for line in [
        "add table inet paths",
        "add chain inet paths input { type filter hook input priority 0 ; }",
        "add rule inet paths input udp sport != 6783 @th,72,8 1 counter drop",
    ] {
        world.tool(1, &format!("nft {line}"));
    }
    wait_degraded(&world, 0, "one_port", Duration::from_secs(10));
    wait_until(LINK_WITHIN, || world.connections(&[0]), || lanes(0, 2));
    assert!(world.link(1).is_some_and(|link| link.degraded.is_empty()), "{}", world.connections(&[1]));
}

#[test]
fn a_path_smaller_than_frames_carries_them_all_the_same() {
    let world = World::pair(Options::encrypted().places(vec![Place::on(&[0]), Place::on(&[1])]));
    world.wait_ping(0, v4(1).into(), LINK_WITHIN);
    world.lab().set_too_big(false).unwrap();
    world.lab().set_way(0, 1, Way::Mtu(1_000)).unwrap();
    wait_degraded(&world, 0, "small_path", LINK_WITHIN);
    wait_degraded(&world, 1, "small_path", LINK_WITHIN);
    let inbox = world.inside(1, || UdpSocket::bind("0.0.0.0:7000").unwrap());
    inbox.set_read_timeout(Some(LINK_WITHIN)).unwrap();
    let outbox = world.inside(0, || UdpSocket::bind((v4(0), 0)).unwrap());
    outbox.set_broadcast(true).unwrap();
    let mut datagram = [0; 2_000];
    // Nobody is told that a broadcast is too big: it goes in fragments.
    for number in 0..20_u8 {
        outbox.send_to(&[number; 1_300], "255.255.255.255:7000").unwrap();
        assert_eq!(inbox.recv_from(&mut datagram).unwrap().0, 1_300);
        assert!(datagram[..1_300].iter().all(|byte| *byte == number));
    }
    assert!(world.counter(0, "fragments_sent") >= 20, "{:?}", world.status(0).shards);
    // Once the limit is known, the kernel of a container hears of it and keeps to it.
    wait_until(
        LINK_WITHIN,
        || format!("an answer by ICMP: {:?}", world.status(0).shards),
        || {
            let _ = outbox.send_to(&[7; 1_300], (v4(1), 7_000));
            world.counter(0, "icmp_too_big_sent") > 0
        },
    );
    let fragments = world.counter(0, "fragments_sent");
    outbox.send_to(&[8; 1_300], (v4(1), 7_000)).unwrap();
    while datagram[0] != 8 {
        assert_eq!(inbox.recv_from(&mut datagram).unwrap().0, 1_300);
    }
    assert_eq!(world.counter(0, "fragments_sent"), fragments, "the container cut it itself");
    assert_eq!(world.status(0).connections.len(), 1, "the link stays");
}

/// An underlay, what its path is narrowed to, and frames that need more.
#[derive(Debug, Clone, Copy)]
struct Path {
    /// Of all devices, bytes.
    underlay: u32,
    /// What passes between the segments for a while, bytes.
    narrowed: u32,
    family: Family,
    /// Of the interfaces of containers, bytes.
    containers: u32,
    /// Payload of datagrams that fit these, but not the narrowed path.
    bytes: usize,
}

/// The smallest paths of both families, one between, and large frames.
const PATHS: [Path; 4] = [
    Path { underlay: 1_500, narrowed: 576, family: Family::V4, containers: 1_376, bytes: 1_300 },
    Path { underlay: 1_500, narrowed: 1_280, family: Family::V6, containers: 1_376, bytes: 1_300 },
    Path { underlay: 1_500, narrowed: 1_000, family: Family::V4, containers: 1_376, bytes: 1_300 },
    Path { underlay: 9_000, narrowed: 4_000, family: Family::V4, containers: 8_876, bytes: 8_800 },
];
/// How exactly the limit of a path is found, bytes.
const SEARCH_STEP: u32 = 16;
/// A path that shrinks is found within this time: it is confirmed every 5 s at least.
const NARROW_WITHIN: Duration = Duration::from_secs(10);
/// A path that grows is found within this time: more is tried every 40 s.
const WIDE_WITHIN: Duration = Duration::from_secs(50);

/// Sends broadcasts from host 0 to host 1, each of which arrives as it was; nobody is told that a
/// broadcast is too big. Returns in how many fragments they went, 0 where they went whole.
#[track_caller]
fn fragments_of_broadcasts(world: &World, bytes: usize) -> u64 {
    let inbox = world.inside(1, || UdpSocket::bind("0.0.0.0:7000").unwrap());
    inbox.set_read_timeout(Some(LINK_WITHIN)).unwrap();
    let outbox = world.inside(0, || UdpSocket::bind((v4(0), 0)).unwrap());
    outbox.set_broadcast(true).unwrap();
    let before = world.counter(0, "fragments_sent");
    let mut datagram = [0; 10_000];
    for number in 0..10_u8 {
        outbox.send_to(&vec![number; bytes], "255.255.255.255:7000").unwrap();
        // A thread that is interrupted goes on with what is left of its time, or a little more.
        let received = std::iter::repeat_with(|| inbox.recv_from(&mut datagram))
            .find(|received| !received.as_ref().is_err_and(|e| e.kind() == ErrorKind::Interrupted));
        let length = received.unwrap().unwrap_or_else(|error| panic!("number {number}: {error}")).0;
        assert!(datagram[..length] == vec![number; bytes], "{length} bytes, number {}", datagram[0]);
    }
    world.counter(0, "fragments_sent") - before
}

/// The longest datagram of which an end of the link says that the path carries it, if that is less
/// than it is to be.
fn small_path(world: &World, host: usize) -> Option<u32> {
    let states = world.link(host)?.degraded;
    let reason = &states.iter().find(|state| state.name == "small_path")?.reason;
    let number = reason.split_whitespace().find_map(|word| word.parse().ok());
    Some(number.unwrap_or_else(|| panic!("no number: {reason}")))
}

/// Waits until both ends of the link say so of the path.
#[track_caller]
fn wait_path(world: &World, limit: Duration, what: &str, is_right: impl Fn(Option<u32>) -> bool) {
    let ends = || [0, 1].map(|host| small_path(world, host));
    wait_until(limit, || format!("{what}: {:?}", ends()), || ends().into_iter().all(&is_right));
}

/// Narrows a path and widens it again, if there is time for that.
fn narrowed_and_widened(path: Path, told: bool, widen: bool) {
    let what = format!("{path:?}, told: {told}");
    let options = Options::encrypted()
        .underlay(Underlay { mtu: path.underlay, ..Underlay::default() })
        .family(path.family)
        .args(&format!("--mtu {}", path.containers))
        .places(vec![Place::on(&[0]), Place::on(&[1])]);
    let world = World::pair(options);
    world.lab().set_too_big(told).unwrap();
    world.wait_ping(0, v4(1).into(), LINK_WITHIN);
    wait_path(&world, LINK_WITHIN, &what, |small| small.is_none());
    assert_eq!(fragments_of_broadcasts(&world, path.bytes), 0, "{what}: at first");
    world.lab().set_way(0, 1, Way::Mtu(path.narrowed)).unwrap();
    // What passes was found, not only that less does.
    let most = path.narrowed - if path.family == Family::V4 { 20 + 8 } else { 40 + 8 };
    let found = |small: Option<u32>| small.is_some_and(|len| len <= most && len + SEARCH_STEP >= most);
    wait_path(&world, NARROW_WITHIN, &what, found);
    assert!(fragments_of_broadcasts(&world, path.bytes) >= 20, "{what}: narrowed");
    if widen {
        world.lab().set_way(0, 1, Way::Open).unwrap();
        wait_path(&world, WIDE_WITHIN, &what, |small| small.is_none());
        assert_eq!(fragments_of_broadcasts(&world, path.bytes), 0, "{what}: widened");
    }
    for host in [0, 1] {
        let counters = world.status(host).counters;
        assert_eq!([counters["links_made"], counters["links_lost"]], [1, 0], "{what}: the link stays");
    }
}

/// All paths side by side: mostly they wait.
fn all_paths(told: bool, widen: bool) {
    std::thread::scope(|scope| {
        for path in PATHS {
            scope.spawn(move || narrowed_and_widened(path, told, widen));
        }
    });
}

#[test]
fn paths_of_all_sizes_that_shrink_carry_frames_and_say_so() {
    all_paths(true, false);
}

#[test]
fn paths_of_all_sizes_that_shrink_and_tell_nobody_carry_frames_and_say_so() {
    all_paths(false, false);
}

#[test]
fn long_paths_that_shrink_and_grow_again_carry_whole_frames_again() {
    all_paths(true, true);
}

#[test]
fn long_paths_that_shrink_and_grow_again_and_tell_nobody_carry_whole_frames_again() {
    all_paths(false, true);
}

/// The time in which nothing arrives: until the path is confirmed again (5 s at most) and a probe
/// is lost (0.2 s), and what a busy machine adds.
const SHRUNK_WITHIN: Duration = Duration::from_secs(7);

#[test]
fn large_frames_on_a_path_that_shrinks_are_never_too_many_fragments() {
    let options = Options::encrypted()
        .underlay(Underlay { mtu: 9_000, ..Underlay::default() })
        .args("--mtu 8876")
        .places(vec![Place::on(&[0]), Place::on(&[1])]);
    let world = World::pair(options);
    world.lab().set_too_big(false).unwrap();
    world.wait_ping(0, v4(1).into(), LINK_WITHIN);
    let inbox = world.inside(1, || UdpSocket::bind("0.0.0.0:7000").unwrap());
    inbox.set_read_timeout(Some(LINK_WITHIN)).unwrap();
    let (over, sending) = broadcasts(&world, 0, 8_800);
    inbox.recv_from(&mut [0; 4]).unwrap();
    world.lab().set_way(0, 1, Way::Mtu(1_500)).unwrap();
    let receiving = std::thread::spawn(move || {
        let (mut longest, mut last) = (Duration::ZERO, Instant::now());
        while inbox.recv_from(&mut [0; 4]).is_ok() {
            // From now on so long a silence means that it is over.
            inbox.set_read_timeout(Some(SHRUNK_WITHIN)).unwrap();
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
        longest
    });
    let found = |small: Option<u32>| small.is_some_and(|len| len <= 1472 && len + SEARCH_STEP >= 1472);
    wait_path(&world, NARROW_WITHIN, "from 9,000 to 1,500", found);
    drop(over);
    let (sent, longest) = (sending.join().unwrap(), receiving.join().unwrap());
    println!("of {sent} datagrams none arrived for {longest:?}");
    for host in [0, 1] {
        assert_eq!(world.drops(host, "too_many_fragments"), 0, "host {host}");
    }
    assert!(longest < SHRUNK_WITHIN, "nothing for {longest:?}");
}

#[test]
fn a_host_that_changes_its_address_is_followed() {
    followed(Options::encrypted());
}

#[test]
fn a_host_of_a_clear_network_that_changes_its_address_is_followed() {
    followed(Options::clear());
}

fn followed(options: Options) {
    let world = World::pair(options);
    world.wait_ping(0, v4(1).into(), LINK_WITHIN);
    let pings = Pings::start(world.container(0), world.container(1), v4(1).into(), 20);
    pings.wait_answer(Instant::now(), LINK_WITHIN, "a ping before");
    let new: IpAddr = "10.99.0.77".parse().unwrap();
    world.lab().change_address(1, world.underlay(1), new).unwrap();
    let changed = Instant::now();
    let after =
        pings.wait_answer(changed + Duration::from_millis(200), LINK_WITHIN, "a ping to the new place");
    assert!(after < Duration::from_secs(5), "{after:?}");
    drop(pings.finish());
    assert_eq!(world.status(0).counters["address_moves"], 1);
}

#[test]
fn a_forgotten_peer_is_not_dialled_when_its_link_is_lost() {
    let world = World::new(Options::encrypted().launches(&[(0, &[]), (1, &[])]).no_wait());
    let target = world.underlay(1).to_string();
    world.weave(0, &["connect", &target]).ok();
    world.wait_linked(0, 1, LINK_WITHIN);
    world.weave(0, &["forget", &target]).ok();
    assert!(world.is_established(0, 1), "a link that is there stays");
    world.kill(1);
    let what = || world.connections(&[0]);
    wait_until(Duration::from_secs(20), what, || world.status(0).connections.is_empty());
    // Nor after the next launch.
    world.stop(0);
    world.launch(0, &[]);
    assert_eq!(world.status(0).connections.len(), 0, "{}", what());
}

#[test]
fn udp_that_is_blocked_makes_no_link_and_is_named() {
    let world = World::pair(Options::encrypted().not_launched());
    world.lab().cut(0, 1, Traffic::Udp).unwrap();
    world.launch(0, &[]);
    world.launch(1, &[&world.underlay(0).to_string()]);
    let named = |world: &World| {
        world
            .status(1)
            .connections
            .iter()
            .any(|link| link.reason.as_deref().is_some_and(|r| r.contains("UDP")))
    };
    wait_until(LINK_WITHIN, || format!("a reason: {:?}", world.status(1).connections), || named(&world));
    world.lab().heal(0, 1).unwrap();
    world.wait_ping(0, v4(1).into(), Duration::from_secs(30));
}

#[test]
fn two_hosts_that_cannot_reach_each_other_talk_by_a_third_until_they_can() {
    let world = World::new(Options::encrypted().count(3).not_launched());
    world.lab().cut(1, 2, Traffic::All).unwrap();
    for (host, targets) in [(0, &[][..]), (1, &[0][..]), (2, &[0][..])] {
        world.launch_to(host, targets);
    }
    world.wait_ping(1, v4(2).into(), LINK_WITHIN);
    let direct = |world: &World| world.is_established(1, 2);
    assert!(!direct(&world));
    let pings = Pings::between(&world, 1, v4(2).into());
    pings.wait_answer(Instant::now(), LINK_WITHIN, "a ping by the relay");
    world.lab().heal(1, 2).unwrap();
    wait_until(Duration::from_secs(15), || format!("{:?}", world.status(1).connections), || direct(&world));
    pings.wait_answer(Instant::now() + Duration::from_secs(1), LINK_WITHIN, "a ping by the direct link");
    assert_eq!(pings.finish().lost(), [0_u64; 0]);
}

/// Broadcasts of so many bytes from the container of host `from` every 5 ms, numbered, until the
/// returned sender is dropped; the thread gives how many there were.
fn broadcasts(
    world: &World,
    from: usize,
    bytes: usize,
) -> (std::sync::mpsc::Sender<()>, std::thread::JoinHandle<u32>) {
    let outbox = world.inside(from, || UdpSocket::bind((v4(from), 0)).unwrap());
    outbox.set_broadcast(true).unwrap();
    let (over, ended) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let (mut number, mut datagram) = (0_u32, vec![0; bytes]);
        while ended.recv_timeout(Duration::from_millis(5)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
        {
            datagram[..4].copy_from_slice(&number.to_be_bytes());
            outbox.send_to(&datagram, "255.255.255.255:7000").unwrap();
            number += 1;
        }
        number
    });
    (over, thread)
}

/// A host sends its broadcasts over a new link as soon as it knows that the other end has told of
/// it; the other end may not know yet that it did.
#[test]
fn a_direct_link_in_place_of_a_relay_loses_hardly_a_broadcast() {
    let world = World::new(Options::encrypted().count(3).not_launched());
    world.lab().cut(1, 2, Traffic::All).unwrap();
    for (host, targets) in [(0, &[][..]), (1, &[0][..]), (2, &[0][..])] {
        world.launch_to(host, targets);
    }
    world.wait_ping(1, v4(2).into(), LINK_WITHIN);
    let inbox = world.inside(2, || UdpSocket::bind("0.0.0.0:7000").unwrap());
    inbox.set_read_timeout(Some(LINK_WITHIN)).unwrap();
    let (over, sending) = broadcasts(&world, 1, 4);
    let receiving = std::thread::spawn(move || {
        let (mut arrived, mut number) = (std::collections::BTreeSet::new(), [0; 4]);
        while inbox.recv_from(&mut number).is_ok() {
            // From now on silence means that it is over.
            inbox.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            arrived.insert(u32::from_be_bytes(number));
        }
        arrived
    });
    world.lab().heal(1, 2).unwrap();
    world.wait_linked(1, 2, Duration::from_secs(15));
    // Until all have told all others of the link, and a little longer.
    let direct = |host: usize| world.status(host).routes.iter().all(|route| route.hops == 1);
    wait_until(LINK_WITHIN, || format!("{:?}", world.status(0).routes), || (0..3).all(direct));
    std::thread::sleep(Duration::from_secs(1));
    drop(over);
    let sent = sending.join().unwrap();
    let arrived = receiving.join().unwrap();
    let lost: Vec<_> = (0..sent).filter(|number| !arrived.contains(number)).collect();
    // The relay may stop a moment before the source begins; never for long.
    assert!(lost.len() <= 20, "{} of {sent} lost: {lost:?}", lost.len());
}
