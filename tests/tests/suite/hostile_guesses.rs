//! A thousand guesses of the password: each is counted, few are logged, and a peer that knows it gets
//! in meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use weave_tests::guesser::{self, Guess};
use weave_tests::world::LINK_WITHIN;
use weave_tests::{Options, World, wait_until};

const GUESSES: u64 = 1000;
/// Addresses they come from: more together than the router lets in.
const SOURCES: u8 = 20;
/// Guesses at once from each of them.
const AT_ONCE: usize = 3;
/// A pause after each guess, so that all last longer than a peer needs to get in.
const PAUSE: Duration = Duration::from_millis(400);
/// From the moment both routers are up to the link, as promised.
const ESTABLISHED_WITHIN: Duration = Duration::from_secs(2);

#[test]
fn a_thousand_wrong_guesses_are_counted_and_keep_no_peer_out() {
    let world = World::new(Options::encrypted().bare(3));
    world.launch(0, &[]);
    // Of equal length: none is the beginning of another.
    let sources: Vec<_> = (101..=100 + SOURCES).map(|last| Ipv4Addr::new(192, 0, 2, last)).collect();
    guesser::place(&world, 2, 0, "192.0.2.0/24");
    let victim = SocketAddr::new(world.underlay(0), world.status(0).port);
    let counted = || world.status(0).counters;
    let since = |before: &BTreeMap<String, u64>, name: &str| counted()[name] - before[name];
    let before = counted();

    let (begun, wrong, refused) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let answered = Mutex::new(BTreeSet::new());
    let guess_on = |source| {
        while begun.fetch_add(1, Ordering::Relaxed) < GUESSES {
            let told = match guesser::guess(source, victim) {
                Guess::Wrong => {
                    answered.lock().unwrap().insert(source);
                    &wrong
                }
                Guess::Refused => &refused,
            };
            told.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(PAUSE);
        }
    };
    std::thread::scope(|scope| {
        let (world, guess_on) = (&world, &guess_on);
        for source in sources.iter().flat_map(|source| [*source; AT_ONCE]) {
            scope.spawn(move || world.on_host(2, || guess_on(source)));
        }
        let a_third = || since(&before, "tcp_accepted") >= GUESSES / 3;
        wait_until(LINK_WITHIN, || "a third of the guesses".into(), a_third);
        world.launch_to(1, &[0]);
        let up = Instant::now();
        world.wait_linked(0, 1, LINK_WITHIN);
        let took = up.elapsed();
        assert!(took < ESTABLISHED_WITHIN, "a genuine peer got in after {took:?}");
        let done = begun.load(Ordering::Relaxed);
        assert!(done < GUESSES, "nobody guesses any more");
        println!("a genuine peer got in after {took:?} and {done} guesses");
    });

    let (wrong, refused) = (wrong.into_inner(), refused.into_inner());
    println!("{wrong} guesses were answered, {refused} refused unheard");
    assert_eq!(wrong + refused, GUESSES);
    // The last are counted once they are closed.
    let over = || since(&before, "handshakes_failed") + since(&before, "tcp_refused") >= GUESSES;
    wait_until(LINK_WITHIN, || format!("every guess is counted: {:?}", counted()), over);
    assert_eq!(since(&before, "tcp_accepted"), GUESSES + 1, "guesses, and the peer");
    let (failed, closed) = (since(&before, "handshakes_failed"), since(&before, "tcp_refused"));
    assert_eq!(failed + closed, GUESSES);
    // Few that were let in had to make room before they were answered.
    assert!((wrong..=wrong + u64::from(SOURCES)).contains(&failed), "{failed} failed, {wrong} were answered");
    assert!(wrong > u64::from(SOURCES) && refused > 0, "both limits and passwords keep them out");
    let log = fs::read_to_string(world.host(0).run_dir().join("router.log")).unwrap();
    let about = |source: &Ipv4Addr| {
        let of = |line: &&str| line.contains(&format!("address={source}")) && line.contains("did not get in");
        log.lines().filter(of).count()
    };
    let answered = answered.into_inner().unwrap();
    assert!(
        answered.iter().all(|source| about(source) == 1),
        "a line for each address that was heard: {log}"
    );
    // One that was not answered may have had to make room.
    let told: usize = sources.iter().map(about).sum();
    assert!(sources.iter().all(|source| about(source) <= 1) && told >= answered.len(), "{log}");
    let warnings = log.lines().filter(|line| line.contains(" WARN ")).count();
    assert_eq!(warnings, told, "{log}");
    assert!(log.lines().count() < 2 * usize::from(SOURCES), "{log}");
    assert_eq!(counted()["log_lines_left_out"], 0);
}
