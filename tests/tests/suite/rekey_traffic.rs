//! Re-keying under load: nothing lost, nothing doubled, no nonce twice.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use weave_tests::numbered::{self, Stream};
use weave_tests::world::v4;
use weave_tests::{Options, World};

const STREAMS: [Stream; 2] = [
    Stream { from: 0, to: 1, v6: false, bytes: 64, rate: 20_000 },
    Stream { from: 1, to: 0, v6: true, bytes: 200, rate: 2_000 },
];

/// Time that is sent at a stretch.
const ROUND: Duration = Duration::from_secs(4);

/// Sends numbered datagrams both ways until both ends have changed their keys `rekeys` times, while
/// as much was sent as is due: on a busy machine not all of the time.
fn rekeys_lose_nothing(rekeys: u64, limit: Duration) {
    let world = World::pair(Options::encrypted().env("WEAVE_TEST_REKEY_MS", "100"));
    world.wait_ping(0, v4(1).into(), Duration::from_secs(10));
    world.wait_ping(1, v4(0).into(), Duration::from_secs(10));
    let done = || [0, 1].map(|index| world.status(index).counters["rekeys"]);
    let start = Instant::now();
    let (mut counted, mut rounds, mut slow) = ([0; 2], 0, 0);
    while counted.iter().any(|counted| *counted < rekeys) {
        assert!(
            start.elapsed() < limit,
            "{counted:?} re-keys in {limit:?}, {rekeys} were due; {slow} of {rounds} rounds sent too little: is the \
             machine busy?"
        );
        let before = done();
        let sent = numbered::send_complete(&world, &STREAMS, ROUND);
        let is_due = |(stream, sent): (&Stream, u64)| sent * 10 >= stream.rate * ROUND.as_secs() * 9;
        rounds += 1;
        if STREAMS.iter().zip(sent.iter().map(|sent| sent.sent)).all(is_due) {
            let now = done();
            counted = [0, 1].map(|end| counted[end] + now[end] - before[end]);
        } else {
            slow += 1;
        }
    }
}

#[test]
fn alone_40_rekeys_at_20000_packets_a_second_lose_and_double_nothing() {
    rekeys_lose_nothing(40, Duration::from_secs(20));
}

#[test]
fn long_300_rekeys_at_20000_packets_a_second_lose_and_double_nothing() {
    rekeys_lose_nothing(300, Duration::from_secs(90));
}

/// What the processes of a run wrote down about the keys they sealed with.
#[derive(Debug, Default)]
struct Nonces {
    /// Processes that sealed with each key.
    keys: HashMap<String, HashSet<u32>>,
    /// Seals of keys that are gone.
    seals: u128,
    processes: HashSet<u32>,
}

fn read(log: &str) -> Nonces {
    let mut nonces = Nonces::default();
    for line in log.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let &[event, pid, key, used] = fields.as_slice() else { panic!("a line of the log: {line}") };
        let pid = pid.parse().unwrap();
        nonces.processes.insert(pid);
        nonces.keys.entry(key.to_owned()).or_default().insert(pid);
        if event == "end" {
            nonces.seals += used.parse::<u128>().unwrap();
        }
    }
    nonces
}

/// Seals under load, through re-keys and relaunches of both ends. Within a process the audit ends
/// the router at a repeat; over processes the log shows whether a key came back.
fn no_nonce_twice(seals: u128, limit: Duration) {
    let log = tempfile::NamedTempFile::new().unwrap();
    let path = log.path().to_str().unwrap();
    let options = Options::encrypted().env("WEAVE_TEST_REKEY_MS", "250").env("WEAVE_TEST_NONCE_LOG", path);
    let world = World::pair(options);
    let start = Instant::now();
    let mut rounds = 0;
    let nonces = loop {
        world.wait_ping(0, v4(1).into(), Duration::from_secs(20));
        let flows = [(0, 1, 0, 16), (1, 0, 0, 64), (0, 1, 0, 1000)];
        let flows = flows.map(|(from, to, rate, bytes)| Stream { from, to, v6: false, bytes, rate });
        numbered::intact(&numbered::send(&world, &flows, Duration::from_secs(2)));
        // One is killed, the other stopped, so that a state that was written cannot help either.
        rounds += 1;
        if rounds % 2 == 0 {
            world.kill(0);
            world.launch(0, &[]);
        } else {
            world.stop(1);
            let target = world.underlay(0).to_string();
            world.launch(1, &[&target]);
        }
        world.wait_established();
        let nonces = read(&std::fs::read_to_string(path).unwrap());
        if nonces.seals >= seals && rounds >= 3 {
            break nonces;
        }
        assert!(start.elapsed() < limit, "{} of {seals} seals in {limit:?}", nonces.seals);
    };
    assert!(
        nonces.processes.len() >= 5,
        "{} routers wrote down their keys: is `weave` a debug build, or one with the feature nonce-audit?",
        nonces.processes.len()
    );
    assert!(nonces.keys.len() > 20, "only {} keys", nonces.keys.len());
    let twice: Vec<_> = nonces.keys.iter().filter(|(_, processes)| processes.len() > 1).collect();
    assert!(twice.is_empty(), "keys that two processes sealed with: {twice:#?}");
}

#[test]
fn alone_no_key_is_sealed_with_by_two_processes() {
    no_nonce_twice(100_000, Duration::from_secs(60));
}

#[test]
fn long_no_nonce_twice_in_10_million_seals_over_shards_rekeys_and_relaunches() {
    no_nonce_twice(10_000_000, Duration::from_secs(400));
}
