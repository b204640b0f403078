//! Churn of links, containers, names and keys for a while: nothing grows, everything adds up.
//!
//! A minute among all other tests; `make soak` runs it for ten (`WEAVE_SOAK_SECONDS`), with a release: test builds
//! remember every key for the audit of nonces, which takes half a megabyte a minute here.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use weave_host::{Namespace, Netlink};
use weave_perf::traffic::icmp;
use weave_tests::numbered::{self, Stream};
use weave_tests::world::{INTERFACE, v4};
use weave_tests::{Options, World, dns, wait_until};

/// How long among all other tests.
const SECONDS: u64 = 60;
const WITHIN: Duration = Duration::from_secs(20);
/// The address of a namespace that is attached and detached again and again.
const COMES_AND_GOES: &str = "10.32.1.190/24";
/// The host whose router is killed again and again; the others stay.
const KILLED: usize = 2;
const STREAMS: [Stream; 2] = [
    Stream { from: 0, to: 1, v6: false, bytes: 200, rate: 400 },
    Stream { from: 1, to: 0, v6: true, bytes: 1200, rate: 200 },
];
/// What a daemon may have more at the end than after it warmed up.
const MORE_MEMORY_KIB: f64 = 2048.0;
const MORE_FILES: f64 = 6.0;
/// What memory may rise by in a run of so many seconds or more: a megabyte in ten minutes.
const RISE_KIB_A_MINUTE: f64 = 100.0;
const LONG: u64 = 300;
/// Warnings that the churn explains.
const EXPLAINED: [&str; 2] = ["link lost", "a peer did not get in: resuming the link"];

/// What a daemon has at a moment.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: f64,
    memory_kib: f64,
    files: f64,
}

fn sample(pid: u32, begin: Instant) -> Option<Sample> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let memory_kib = line.split_whitespace().nth(1)?.parse().ok()?;
    let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as f64;
    Some(Sample { at: begin.elapsed().as_secs_f64(), memory_kib, files })
}

/// Rise a minute, by least squares.
fn slope(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    let count = samples.len() as f64;
    let (at, value) = (mean(samples, |sample| sample.at), mean(samples, &of));
    let above: f64 = samples.iter().map(|sample| (sample.at - at) * (of(sample) - value)).sum();
    let below: f64 = samples.iter().map(|sample| (sample.at - at).powi(2)).sum();
    if count < 2.0 || below == 0.0 { 0.0 } else { 60.0 * above / below }
}

fn mean(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    samples.iter().map(of).sum::<f64>() / samples.len().max(1) as f64
}

fn median(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Router, keeper and DNS of the hosts that stay.
fn daemons(world: &World) -> Vec<(String, u32)> {
    let of = |host: usize| {
        ["router", "keeper", "dns"].map(|daemon| {
            let file = world.host(host).run_dir().join(format!("{daemon}.pid"));
            (format!("{daemon} {host}"), fs::read_to_string(file).unwrap().trim().parse().unwrap())
        })
    };
    [0, 1].into_iter().flat_map(of).collect()
}

/// Calls `work` with 0, 1, 2 … until it is over.
fn repeat(over: &AtomicBool, pause: Duration, mut work: impl FnMut(usize)) {
    let mut turn = 0;
    while !over.load(Ordering::Relaxed) {
        work(turn);
        turn += 1;
        std::thread::sleep(pause);
    }
}

/// Reasons for which a frame that came over a link is dropped before it is counted.
const RECEIVE: [&str; 12] = [
    "fragment_inconsistent",
    "fragment_limit",
    "fragment_timeout",
    "hand_over_full",
    "hop_limit",
    "no_route",
    "replayed",
    "socket_full",
    "source_peer",
    "too_old",
    "unknown_lane",
    "unknown_session",
];

/// Frames that went from `from` to `to` and did not arrive (never fewer than none), and what `to`
/// dropped that may be those.
fn missing(world: &World, from: usize, to: usize) -> (i64, i64) {
    // What arrives between the two questions was sent before the second.
    let received = world.connection(to, from).unwrap().rx_frames;
    let dropped: u64 = RECEIVE.iter().map(|reason| world.drops(to, reason)).sum();
    let sent = world.connection(from, to).unwrap().tx_frames;
    (sent as i64 - received as i64, dropped as i64)
}

#[test]
fn churn_leaves_memory_files_log_and_counters_as_they_should_be() {
    let seconds = std::env::var("WEAVE_SOAK_SECONDS").map_or(SECONDS, |text| text.parse().unwrap());
    let options = Options::encrypted().count(3).containers(2).env("WEAVE_TEST_REKEY_MS", "250");
    let world = World::new(options.launches(&[(0, &[]), (1, &[0]), (2, &[0, 1])]));
    for (from, to) in [(0, 1), (1, 0)] {
        world.wait_ping(from, v4(to).into(), WITHIN);
        dns::launch(&world, from);
    }
    let daemons = daemons(&world);
    let links = [0, 1].map(|host| world.connection(host, 1 - host).unwrap().since_s);
    let (begin, lasts) = (Instant::now(), Duration::from_secs(seconds));
    let (over, came_and_went) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); daemons.len()];
    let spec = world.containers_of(0)[1].spec().to_owned();
    let churns = std::thread::scope(|scope| {
        let containers = scope.spawn(|| {
            repeat(&over, Duration::from_millis(50), |turn| {
                let cidr = format!("10.77.{}.{}/16", turn / 200 % 200, 1 + turn % 200);
                world.weave(0, &["attach", &cidr, &spec]).ok();
                world.weave(0, &["detach", &cidr, &spec]).ok();
            });
        });
        // A namespace that comes and goes with its interface, MAC and station, and is heard of
        // elsewhere meanwhile.
        let namespaces = scope.spawn(|| {
            repeat(&over, Duration::from_millis(50), |_| {
                let bare = Namespace::create("bare").unwrap();
                let spec = bare.path().display().to_string();
                world.weave(0, &["attach", COMES_AND_GOES, &spec]).ok();
                let reached = bare.run(|| icmp::wait_reachable(v4(1).into(), WITHIN)).unwrap().unwrap();
                assert!(reached, "a namespace that was just attached reaches nobody");
                world.weave(0, &["detach", COMES_AND_GOES, &spec]).ok();
                let left = Netlink::in_namespace(&bare).unwrap().links().unwrap();
                assert!(left.iter().all(|link| link.name != INTERFACE), "{left:?}");
                came_and_went.fetch_add(1, Ordering::Relaxed);
            });
        });
        let names = scope.spawn(|| {
            let asked = world.inside(1, || dns::Asker::of(1));
            repeat(&over, Duration::from_millis(50), |turn| {
                // The same again after a while: those that are gone are remembered for half an hour.
                let name = format!("soak{}.weave.local", turn % 50);
                world.weave(1, &["dns-add", "192.0.2.7", "-h", &name]).ok();
                wait_until(WITHIN, || format!("{name} is answered"), || asked.finds(&name));
                world.weave(1, &["dns-remove", "192.0.2.7", "-h", &name]).ok();
            });
        });
        let kills = scope.spawn(|| {
            repeat(&over, Duration::from_millis(2500), |_| {
                world.kill(KILLED);
                world.launch_to(KILLED, &[0, 1]);
            });
        });
        let traffic = scope.spawn(|| {
            repeat(&over, Duration::ZERO, |_| {
                numbered::intact(&numbered::send(&world, &STREAMS, Duration::from_secs(2)));
            });
        });
        while begin.elapsed() < lasts {
            for ((_, pid), samples) in daemons.iter().zip(&mut samples) {
                samples.extend(sample(*pid, begin));
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        over.store(true, Ordering::Relaxed);
        [
            ("containers", containers),
            ("namespaces", namespaces),
            ("names", names),
            ("kills", kills),
            ("traffic", traffic),
        ]
        .map(|(what, thread)| thread.join().map_err(|_| what))
    });
    churns.into_iter().for_each(|churn| churn.unwrap());
    let came_and_went = came_and_went.into_inner();
    println!("{came_and_went} namespaces came and went");
    assert!(came_and_went >= seconds / 4, "{came_and_went} namespaces came and went");

    for ((name, _), samples) in daemons.iter().zip(&samples) {
        // A third of the time to warm up.
        let rest = &samples[samples.len() / 3..];
        let (early, late) = rest.split_at(rest.len() / 2);
        let memory = |sample: &Sample| sample.memory_kib;
        let files = |sample: &Sample| sample.files;
        println!(
            "{name}: {:.0} KiB, {:+.0} KiB a minute; {:.0} files, {:+.1} a minute",
            median(late, memory),
            slope(rest, memory),
            median(late, files),
            slope(rest, files)
        );
        assert!(median(late, memory) - median(early, memory) <= MORE_MEMORY_KIB, "{name}: {samples:?}");
        let long = seconds >= LONG;
        assert!(!long || slope(rest, memory) <= RISE_KIB_A_MINUTE, "{name}: {samples:?}");
        assert!(median(late, files) - median(early, files) <= MORE_FILES, "{name}: {samples:?}");
    }
    assert_eq!(daemons, self::daemons(&world), "a daemon ended");
    for host in [0, 1] {
        let link = world.connection(host, 1 - host).unwrap();
        assert!(link.since_s >= links[host] + seconds, "the link between the hosts that stay was lost");
        assert!(world.status(host).counters["rekeys"] > seconds, "keys changed");
        let log = |name: &str| fs::read_to_string(world.host(host).run_dir().join(name)).unwrap();
        let log = log("router.log") + &log("keeper.log") + &log("dns.log");
        let of_weight = |line: &&str| line.contains(" WARN ") || line.contains(" ERROR ");
        let unexplained: Vec<_> = log
            .lines()
            .filter(of_weight)
            .filter(|line| !EXPLAINED.iter().any(|explained| line.contains(explained)))
            .collect();
        assert!(unexplained.is_empty(), "{unexplained:#?}");
        let account = || missing(&world, host, 1 - host);
        wait_until(
            WITHIN,
            || format!("frames without a trace: {:?}", account()),
            || {
                let (missing, dropped) = account();
                (0..=dropped).contains(&missing)
            },
        );
        println!("frames from {host} that did not arrive, and drops: {:?}", account());
    }
}
