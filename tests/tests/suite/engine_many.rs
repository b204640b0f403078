//! Many containers of an engine: one after the other, and short-lived ones at once.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use weave_tests::callers::at_once;
use weave_tests::{Engines, wait_until};

/// Attachments in a row, and the time all of them may take.
const ATTACHES: usize = 100;
const ATTACHES_WITHIN: Duration = Duration::from_secs(10);
/// Tries: what else the machine does takes its time too.
const ROUNDS: usize = 3;
/// Callers at the same time.
const CALLERS: usize = 8;
/// Time until nothing is left of the last container that has ended.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(5);

#[test]
fn alone_100_attaches_in_a_row_take_less_than_10_seconds() {
    let hosts = Engines::new(1, 0);
    hosts.launch();
    let container = hosts.docker_run(0, "--name web");
    for round in 1..=ROUNDS {
        let mut times: Vec<Duration> = (0..ATTACHES).map(|_| attach_and_detach(&hosts)).collect();
        assert_eq!(hosts.addresses(&container), Vec::<String>::new());
        times.sort();
        let total: Duration = times.iter().sum();
        let (median, p99) = (times[ATTACHES / 2], times[ATTACHES * 99 / 100 - 1]);
        let said = format!("{ATTACHES} attaches: {total:.1?}; median {median:.0?}, p99 {p99:.0?}");
        println!("{said}");
        if total < ATTACHES_WITHIN {
            return;
        }
        assert!(round < ROUNDS, "{said}");
    }
}

/// Attaches and detaches; the time of the former.
fn attach_and_detach(hosts: &Engines) -> Duration {
    let weave = |verb| {
        let mut command = hosts.command(0, "weave");
        command.args([verb, "10.2.1.1/24", "web"]);
        hosts.world().run(0, &mut command).ok();
    };
    let begin = Instant::now();
    weave("attach");
    let took = begin.elapsed();
    weave("detach");
    took
}

#[test]
fn alone_containers_that_live_50_ms_leave_no_record() {
    live_briefly(16);
}

#[test]
fn long_1000_containers_that_live_50_ms_leave_no_record() {
    live_briefly(1000);
}

/// Runs containers that end at once and are removed by the engine: by command and by label.
fn live_briefly(count: usize) {
    let hosts = Engines::new(1, 0);
    hosts.launch();
    // Started by the engine, and attached while they lived.
    let (started, attached) = (AtomicUsize::new(0), AtomicUsize::new(0));
    at_once(CALLERS, count, |number| {
        let cidr = format!("10.2.{}.{}/16", 1 + number / 250, 1 + number % 250);
        let line = match number % 2 {
            // Ended before it could be attached: exit code 1.
            0 => format!("weave run {cidr} --rm ubuntu sleep 0.05"),
            _ => format!("docker run -d --rm --label weave.cidr={cidr} ubuntu sleep 0.05"),
        };
        let ran = hosts.sh(0, &line);
        match number % 2 {
            0 if ran.code == Some(0) => attached.fetch_add(1, Ordering::Relaxed),
            0 => {
                assert!(ran.code == Some(1) && ran.stderr.contains("cannot attach"), "{line}: {ran:?}");
                0
            }
            _ => {
                assert_eq!(ran.code, Some(0), "{line}: {ran:?}");
                started.fetch_add(1, Ordering::Relaxed)
            }
        };
    });
    let (started, attached) = (started.into_inner(), attached.into_inner());
    println!("{started} by label; by command {attached} were attached before they ended");
    let running = || hosts.ok(0, "docker ps -aq");
    wait_until(Duration::from_secs(60), || format!("still there: {}", running()), || running().is_empty());
    let left = || {
        let directory = hosts.world().host(0).state_dir().join("attachments");
        let records = fs::read_dir(directory).map_or(0, Iterator::count);
        (records, hosts.ok(0, "ip -br link | grep -c ^vethw || true"))
    };
    wait_until(FORGOTTEN_WITHIN, || format!("left: {:?}", left()), || left() == (0, "0".to_owned()));
    assert_eq!(hosts.ps(0), "");
}
