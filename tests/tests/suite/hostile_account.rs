//! Every frame is accounted for, over two links through all kinds of trouble.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use weave_perf::lab::Underlay;
use weave_tests::account::Account;
use weave_tests::numbered::{self, Stream};
use weave_tests::random::Random;
use weave_tests::relay::{Clog, Ends, Faults, Relay};
use weave_tests::world::{INTERFACE, v4};
use weave_tests::{Options, World, wait_until};

const WITHIN: Duration = Duration::from_secs(15);
/// Host 0 and 1, host 1 and 2: what goes between 0 and 2 crosses both links.
const ENDS: [Ends; 2] = [Ends { number: 0, hosts: [0, 1] }, Ends { number: 1, hosts: [1, 2] }];
const STREAMS: [Stream; 5] = [
    Stream { from: 0, to: 2, v6: false, bytes: 64, rate: 1_500 },
    Stream { from: 2, to: 0, v6: false, bytes: 600, rate: 500 },
    Stream { from: 0, to: 2, v6: false, bytes: 1300, rate: 300 },
    Stream { from: 1, to: 0, v6: false, bytes: 64, rate: 300 },
    Stream { from: 1, to: 2, v6: false, bytes: 1300, rate: 200 },
];
/// Headers of a datagram in a frame: Ethernet, IPv4, UDP.
const HEADERS: usize = 14 + 20 + 8;
/// What chance does all the time.
const CHANCE: Faults = Faults {
    lose: 20,
    double: 20,
    delay: 50,
    damage: 20,
    repeat: 20,
    one_port: None,
    blocked: [false; 2],
    clog: None,
    mtu: None,
};
/// Less than all streams together need.
const CLOG: Clog = Clog { bytes_per_second: 150_000, backlog: 20_000 };

/// Hosts in a line, and the relays of the two links. Nothing is under way but what the test sends.
fn line(random: &mut Random) -> (World, [Relay; 2]) {
    let world = World::new(Options::encrypted().count(3).not_launched().not_attached());
    let frames = STREAMS.map(|stream| stream.bytes + HEADERS);
    let relays = ENDS.map(|ends| Relay::accounting(&world, ends, Random::new(random.number()), &frames));
    world.launch(0, &["--no-discovery"]);
    for ends in ENDS {
        let target = ends.address(0).to_string();
        world.launch(ends.hosts[1], &["--no-discovery", &target]);
    }
    attach_v4(&world);
    let hops = |index: usize| world.status(index).routes.iter().map(|route| route.hops).max();
    wait_until(WITHIN, || "no route over the relay".into(), || [0, 2].map(hops) == [Some(2); 2]);
    for (from, to) in [(0, 2), (2, 0), (1, 0), (1, 2)] {
        world.wait_ping(from, v4(to).into(), WITHIN);
    }
    silence(&world);
    (world, relays)
}

/// Attaches the containers with IPv4 alone.
fn attach_v4(world: &World) {
    for index in world.indices() {
        world.weave(index, &["attach", &format!("{}/24", v4(index)), world.container(index).spec()]).ok();
    }
}

/// Leaves the containers nothing to say but what the test sends.
fn silence(world: &World) {
    for index in world.indices() {
        for other in world.indices().into_iter().filter(|other| *other != index) {
            let (address, mac) = (v4(other), world.mac(other));
            let line = format!("ip neigh replace {address} lladdr {mac} dev {INTERFACE} nud permanent");
            world.tool_inside(index, &line);
        }
        // IPv6 would speak by itself; and one datagram is to be one frame, which the container
        // neither cuts nor is told to.
        for (switch, value) in [("ipv6/conf/all/disable_ipv6", "1"), ("ipv4/ip_no_pmtu_disc", "1")] {
            world.inside(index, || std::fs::write(format!("/proc/sys/net/{switch}"), value).unwrap());
        }
    }
}

/// A trouble beside chance, and how long it lasts.
fn troubles(mtu_for: Duration) -> Vec<(Faults, Duration)> {
    let block = |towards: usize| {
        let mut blocked = [false; 2];
        blocked[towards] = true;
        (Faults { blocked, ..CHANCE }, Duration::from_millis(700))
    };
    let clog = (Faults { clog: Some(CLOG), ..CHANCE }, Duration::from_millis(1500));
    let mtu = (Faults { mtu: Some(1000), ..CHANCE }, mtu_for);
    vec![block(0), clog, block(1), mtu]
}

/// Makes trouble on one link after the other until `over`.
fn make_trouble(relays: &[Relay; 2], random: &mut Random, mtu_for: Duration, over: &AtomicBool) {
    let mut link = random.below(2) as usize;
    loop {
        for (faults, lasts) in troubles(mtu_for) {
            for _ in 0..2 {
                relays[link].set_faults(faults);
                let until = Instant::now() + lasts / 2 + lasts.mul_f64(random.below(1000) as f64 / 1000.0);
                while Instant::now() < until {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
                relays[link].set_faults(CHANCE);
                link = 1 - link;
            }
        }
    }
}

/// Sends numbered frames through trouble and accounts for each, with nothing unclear: at this rate
/// no device loses any. Gives what was gone.
fn account(duration: Duration, mtu_for: Duration) -> (World, Account) {
    let mut random = Random::from_environment();
    let (world, relays) = line(&mut random);
    let before = Account::read(&world, &relays);
    let quiet = numbered::send(&world, &STREAMS, Duration::from_secs(1));
    let balance = Account::read(&world, &relays).since(&before).balance(&quiet);
    assert!(balance.is_exact(), "without any trouble:\n{balance}");

    let before = Account::read(&world, &relays);
    relays.iter().for_each(|relay| relay.set_faults(CHANCE));
    let over = AtomicBool::new(false);
    let deliveries = std::thread::scope(|scope| {
        scope.spawn(|| make_trouble(&relays, &mut random, mtu_for, &over));
        let deliveries = numbered::send(&world, &STREAMS, duration);
        over.store(true, Ordering::Relaxed);
        deliveries
    });
    relays.iter().for_each(|relay| relay.set_faulty(false));
    numbered::intact(&deliveries);
    // A frame in fragments is given up a second after the last that came of it.
    let now = || Account::read(&world, &relays).since(&before).balance(&deliveries);
    wait_until(WITHIN, || format!("the account does not balance:\n{}", now()), || now().is_exact());
    println!("{}", now());
    let account = Account::read(&world, &relays).since(&before);
    relays.into_iter().for_each(Relay::finish);
    (world, account)
}

#[test]
fn paced_each_of_ten_seconds_of_frames_over_two_links_is_accounted_for() {
    let (_world, account) = account(Duration::from_secs(10), Duration::from_millis(1500));
    for place in ["lost", "blocked", "clogged", "too_big", "forged", "replayed"] {
        assert!(account.gone(&format!(": {place}")) > 0, "none {place}: {account:#?}");
    }
}

#[test]
fn long_each_of_a_minute_of_frames_over_two_links_is_accounted_for() {
    let (world, account) = account(Duration::from_secs(60), Duration::from_secs(8));
    for place in ["lost", "blocked", "clogged", "too_big", "forged", "replayed"] {
        assert!(account.gone(&format!(": {place}")) > 0, "none {place}: {account:#?}");
    }
    // The routers found that the paths are small, and cut frames to them.
    let fragments: u64 =
        world.indices().into_iter().map(|index| world.counter(index, "fragments_sent")).sum();
    assert!(fragments > 0, "no frame went in fragments: {account:#?}");
}

#[test]
fn alone_what_the_kernel_drops_of_a_flood_is_accounted_for() {
    // No super-frames, of which the kernel would count one for all that was in it.
    let underlay = Underlay { segmentation: false, ..Underlay::default() };
    let options = Options::encrypted().not_attached().underlay(underlay).args("--offload no-uso");
    let world = World::pair(options);
    attach_v4(&world);
    for (from, to) in [(0, 1), (1, 0)] {
        world.wait_ping(from, v4(to).into(), WITHIN);
    }
    silence(&world);
    let flood = [(0, 1), (1, 0)].map(|(from, to)| Stream { from, to, v6: false, bytes: 64, rate: 500_000 });
    let before = Account::read(&world, &[]);
    let deliveries = numbered::send(&world, &flood, Duration::from_secs(3));
    numbered::intact(&deliveries);
    let now = || Account::read(&world, &[]).since(&before).balance(&deliveries);
    wait_until(WITHIN, || format!("the account does not balance:\n{}", now()), || now().holds());
    println!("{}", now());
}
