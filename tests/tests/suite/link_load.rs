//! The control core beside busy and beside idle forwarding.

use nix::sys::socket::{setsockopt, sockopt};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use weave_perf::process::run_time;
use weave_perf::traffic::udp;
use weave_tests::world::{is_release, v4};
use weave_tests::{Options, World, wait_until};

/// Longest time for an answer, whatever the shards do.
const ANSWER_WITHIN: Duration = Duration::from_millis(200);
/// Answers measured at each host.
const ANSWERS: usize = 50;
/// Datagrams that a sender hands to the kernel at once (`UDP_SEGMENT`), and bytes of each. One by one it
/// offers no more than passes: it shares two processors with the routers.
const AT_ONCE: usize = 24;
const BYTES: usize = 22;
/// Room in its socket, bytes: it never waits for what it sent.
const SEND_BUFFER: usize = 8 << 20;
/// So many times what passes is offered, at least.
const OFFERED: f64 = 2.0;
/// Distance of heartbeats that are answered.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Share of one core that two idle routers may use together.
const IDLE_SHARE: f64 = 0.003;
/// The same of test builds, which are optimised less and check more: 0.5 to 1 % where a release takes
/// 0.3 %.
const IDLE_SHARE_CHECKED: f64 = 0.015;
/// How long they are watched.
const WATCHED: Duration = Duration::from_secs(20);
/// What a fresh link still does (lanes, addresses of containers) is over by then.
const SETTLED: Duration = Duration::from_secs(3);

#[test]
fn alone_status_answers_and_links_live_at_more_packets_than_pass() {
    let world = World::pair(Options::encrypted());
    let before = [0, 1].map(|index| world.status(index).counters);
    let (going, begun, offered) = (AtomicBool::new(true), Instant::now(), AtomicU64::new(0));
    let mut times = Vec::new();
    let inboxes: Vec<_> = [0, 1]
        .map(|index| world.inside(index, || udp::Receiver::bind((v4(index), 0).into()).unwrap()))
        .into();
    std::thread::scope(|scope| {
        // One each way that never waits: more than two cores can carry.
        for index in [0, 1] {
            let target = inboxes[1 - index].address();
            let (world, going, offered) = (&world, &going, &offered);
            scope.spawn(move || {
                let socket = world.inside(index, || {
                    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
                    socket.connect(target).unwrap();
                    setsockopt(&socket, sockopt::UdpGsoSegment, &(BYTES as i32)).unwrap();
                    setsockopt(&socket, sockopt::SndBufForce, &SEND_BUFFER).unwrap();
                    socket
                });
                let mut calls = 0;
                while going.load(Ordering::Relaxed) {
                    calls += u64::from(socket.send(&[0; AT_ONCE * BYTES]).is_ok());
                }
                offered.fetch_add(calls * AT_ONCE as u64, Ordering::Relaxed);
            });
        }
        std::thread::sleep(Duration::from_secs(1));
        for _ in 0..ANSWERS {
            for index in [0, 1] {
                let asked = Instant::now();
                let status = world.try_status(index);
                times.push((asked.elapsed(), index));
                if status.is_err() {
                    going.store(false, Ordering::Relaxed);
                }
                status.expect("a status while the shards are busy");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        going.store(false, Ordering::Relaxed);
    });
    times.sort_unstable();
    let frames = [0, 1].map(|index| world.link(index).map(|link| link.rx_frames));
    let rate = frames.iter().flatten().sum::<u64>() as f64 / begun.elapsed().as_secs_f64();
    let slowest: Vec<_> = times.iter().rev().take(5).collect();
    let times_passed = offered.into_inner() as f64 / begun.elapsed().as_secs_f64() / rate;
    eprintln!("{rate:.0} frames/s delivered of {times_passed:.2} times as many; slowest answers {slowest:?}");
    assert!(times_passed >= OFFERED, "{times_passed:.2} times what passes is offered");
    assert!(slowest[0].0 < ANSWER_WITHIN, "{slowest:?} at {rate:.0} frames/s");
    for index in [0, 1] {
        let (status, before) = (world.status(index), &before[index]);
        assert_eq!(status.counters["links_lost"], before["links_lost"], "host {index} lost its link");
        assert_eq!(status.counters["resumptions"], before["resumptions"], "host {index} lost TCP");
        let [sent, unanswered] =
            ["heartbeats_sent", "heartbeats_unanswered"].map(|name| status.counters[name] - before[name]);
        eprintln!("host {index}: {sent} datagrams of the control lane, {unanswered} unanswered heartbeats");
        // Its own and its answers, and one of each at an edge.
        let due = 2.0 * (begun.elapsed().as_secs_f64() / HEARTBEAT.as_secs_f64() - 1.0);
        assert!(sent as f64 >= due.floor(), "{sent} heartbeats and answers, {due:.0} are due");
        assert_eq!(unanswered, 0, "heartbeats without an answer");
        assert!(world.link(index).is_some());
    }
}

#[test]
fn long_an_idle_pair_of_routers_uses_next_to_nothing_of_a_core() {
    let world = World::pair(Options::encrypted());
    wait_until(SETTLED * 2, || "time".into(), || world.status(0).uptime_s >= SETTLED.as_secs());
    let pids = [0, 1].map(|index| world.status(index).pid);
    let used = || pids.map(|pid| run_time(pid).unwrap());
    let (before, begun) = (used(), Instant::now());
    std::thread::sleep(WATCHED);
    let (after, time) = (used(), begun.elapsed());
    let shares = [0, 1].map(|i| (after[i] - before[i]).as_secs_f64() / time.as_secs_f64());
    eprintln!("shares of a core: {shares:?}");
    let most = if is_release() { IDLE_SHARE } else { IDLE_SHARE_CHECKED };
    assert!(shares.iter().sum::<f64>() < most, "shares of a core: {shares:?}");
}
